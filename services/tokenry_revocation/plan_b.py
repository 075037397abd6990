"""
The list that validators of Plan B read (`GET /revocations?from=`).

They have habits that this page works around, so that an unchanged one loses nothing:

* One drops a row whose `issued_before` lies in its future. A cut-off that no validator's clock has reached
for certain
  is shown as a little before now, and shown again with its own value, and a new `revoked_at`, once it has
  been reached: a poll position that has moved on meanwhile still gets it.
* One keeps a single cut-off a hash, the last it reads. So rows come in ascending order of their cut-offs.
* One forgets what it has when `REFRESH_FROM` changes, and does not ask from there again. So all rows from
there on are
  listed again at that moment.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tokenry.jose.encoding import dump_json
from tokenry_revocation.records import RecordType
from tokenry_revocation.revoking import settles_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenry_revocation.publication import Live, Publication
    from tokenry_revocation.records import PlanBRow

MIN_TIME_DELTA: Final = 2_678_400  # 31 days: how far back a Plan B validator asks at its start


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """
    The notification in force.

    Attributes:
        refresh_from: From when on validators drop what they have, Unix seconds.
        effective_at: Unix seconds at which it is shown, and everything listed again.
    """

    refresh_from: int
    effective_at: int


class _Shown(NamedTuple):
    """One row as it is shown from some moment on."""

    revoked_at: int
    in_force_until: int | None
    issued_before: int
    row: PlanBRow


class PlanBList:
    """
    The rows of the publication, kept up to date as records arrive.

    Rows that have settled are kept sorted; the few that have not are shown anew for each second.
    """

    def __init__(self, publication: Publication, *, now: float, skew: float, max_time_delta: int) -> None:
        """
        Sort the rows of *publication*.

        Args:
            publication: The records in force.
            now: Unix seconds.
            skew: Seconds by which a validator's clock may be behind.
            max_time_delta: Seconds that the list tells validators to keep what it says.
        """
        self._publication = publication
        self._structure = publication.structure
        self._skew = skew
        self._max_time_delta = max_time_delta
        self._refresh = refresh_in_force(publication, now=now, keep_seconds=max_time_delta)
        self._valid_from = now
        self._valid_until = self._next_refresh(now)
        self._settled: list[_Shown] = []
        self._unsettled: list[tuple[int, Live, PlanBRow]] = []
        self._taken = 0
        self._memo: dict[tuple[float, int], bytes] = {}
        self.update(now=now)

    def is_good(self, *, now: float) -> bool:
        """Tell whether `update` is enough at *now*, or all rows have to be sorted anew."""
        return self._structure == self._publication.structure and self._valid_from <= now < self._valid_until

    def update(self, *, now: float) -> None:
        """Take in what has arrived, and what has settled by *now*."""
        arrived = self._publication.arrivals[self._taken :]
        self._taken += len(arrived)
        rows = self._unsettled + [
            (settles_at(row.issued_before, skew=self._skew), live, row)
            for live in arrived
            if not self._publication.is_undone(live.id)
            for row in live.rows
        ]
        settled = [
            self._show(live, row, max(live.revoked_at, settled_at), row.issued_before)
            for settled_at, live, row in rows
            if settled_at <= now
        ]
        self._unsettled = [item for item in rows if item[0] > now]
        if settled:
            self._settled += settled
            self._settled.sort(key=_revoked_at)  # in almost linear time: all but the end is sorted already
        if arrived or settled:
            self._memo.clear()

    def _next_refresh(self, now: float) -> float:
        """Return when the notification that is shown changes: another one begins, or this one has had its time."""
        ahead = (
            live.revoked_at
            for live in self._publication
            if live.type is RecordType.REFRESH_FROM and live.revoked_at > now
        )
        end = math.inf if self._refresh is None else self._refresh.effective_at + self._max_time_delta
        return min([end, *ahead])

    def _show(self, live: Live, row: PlanBRow, revoked_at: int, cutoff: int) -> _Shown:
        refresh = self._refresh
        if refresh is not None and refresh.refresh_from <= revoked_at < refresh.effective_at:
            revoked_at = refresh.effective_at
        return _Shown(revoked_at, live.in_force_until, cutoff, row)

    def answer(self, since: float, *, now: float) -> bytes:
        """Return the JSON of all rows with `revoked_at` later than *since* (Unix seconds)."""
        second = math.floor(now)
        body = self._memo.get((since, second))
        if body is None:
            if len(self._memo) >= _MEMO_SIZE:
                self._memo.clear()
            body = self._memo[since, second] = self._render(since, now)
        return body

    def _render(self, since: float, now: float) -> bytes:
        rows = self._settled[bisect_right(self._settled, since, key=_revoked_at) :]
        provisional = math.floor(now - self._skew)
        for _, live, row in self._unsettled:
            shown = self._show(live, row, live.revoked_at, min(provisional, row.issued_before))
            if shown.revoked_at > since:
                rows.append(shown)
        rows = [row for row in rows if row.in_force_until is None or now < row.in_force_until]
        rows.sort(key=_issued_before)
        refresh = self._refresh
        meta = {
            "MAX_TIME_DELTA": self._max_time_delta,
            "REFRESH_FROM": None if refresh is None else refresh.refresh_from,
            "REFRESH_TIMESTAMP": None if refresh is None else refresh.effective_at,
        }
        return dump_json({"meta": meta, "revocations": [_members(row) for row in rows]})


_MEMO_SIZE: Final = 256  # validators poll in step: few different positions in one second


def refresh_in_force(records: Iterable[Live], *, now: float, keep_seconds: int) -> Refresh | None:
    """
    Return the latest notification that is shown at *now*; None when there is none, or it has had its time.

    Args:
        records: The records in force.
        now: Unix seconds.
        keep_seconds: How long a validator may remember one.
    """
    shown = [
        Refresh(refresh_from=live.refresh_from, effective_at=live.revoked_at)
        for live in records
        if live.type is RecordType.REFRESH_FROM
        and live.refresh_from is not None
        and live.revoked_at <= now < live.revoked_at + keep_seconds
    ]
    return max(shown, key=_effective_at, default=None)


def _members(shown: _Shown) -> dict[str, Any]:
    row = shown.row
    data: dict[str, Any] = {}
    if row.type == "TOKEN":
        data = {"token_hash": row.hash, "hash_algorithm": "SHA-256"}
    elif row.type == "CLAIM":
        data = {
            "names": list(row.names),
            "value_hash": row.hash,
            "hash_algorithm": "SHA-256",
            "separator": "|",
        }
    data["issued_before"] = shown.issued_before
    return {"type": row.type, "revoked_at": shown.revoked_at, "data": data}


def _revoked_at(shown: _Shown) -> int:
    return shown.revoked_at


def _issued_before(shown: _Shown) -> int:
    return shown.issued_before


def _effective_at(refresh: Refresh) -> int:
    return refresh.effective_at
