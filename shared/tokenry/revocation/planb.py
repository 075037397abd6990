"""
The list in the form that the validators of Zalando's Plan B poll (`GET /revocations?from=`).

What such a validator does, and what therefore holds here:
    * It drops a row whose `issued_before` is 0 or in its future, and never asks for it again. So a row shows
      no cut-off later than now less the bound on clock differences; once the true one is not later than that,
      the row is shown anew with it, and `revoked_at` moved to that moment.
    * It keeps one row for each hash, the last that it read. So rows of one hash come in ascending cut-offs,
      and one with a later cut-off is listed again whenever one with an earlier cut-off is.
    * It asks for rows younger than the youngest that it has seen, less a tolerance. So a row that matters
      again has a new `revoked_at`.
    * It matches any string claim, and a value under each name that it has heard of. So `jti` is one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import dump_json
from tokenry.revocation.entries import check_time
from tokenry.revocation.fingerprints import plan_b_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

SEPARATOR: Final = "|"
HASH_ALGORITHM: Final = "SHA-256"
NOT_STRINGS: Final = frozenset({"aud", "scope", "exp", "iat", "nbf", "root_iat", "cnf", "act"})
LEAST_TIME_DELTA: Final = 2_678_400  # seconds: 31 days, what a Plan B validator asks for when it starts


class PlanBType(StrEnum):
    """The types of rows that Plan B has."""

    TOKEN = "TOKEN"  # noqa: S105 -- a type of row
    CLAIM = "CLAIM"
    GLOBAL = "GLOBAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBRow:
    """
    One row, as it is stored with its revocation.

    Attributes:
        type: What it names.
        issued_before: Exclusive cut-off in Unix seconds; may still lie ahead.
        revoked_at: Unix seconds of the revocation.
        hash: Plan B's hash of the token or of the claim values; None for GLOBAL.
        names: Names of the claims, ascending (CLAIM).

    Raises:
        ProtocolError: A member is missing, of another type of row, or out of range.
    """

    type: PlanBType
    issued_before: int
    revoked_at: int
    hash: str | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what a Plan B validator would drop or crash on."""
        check_time(self.issued_before, "issued_before")
        check_time(self.revoked_at, "revoked_at")
        hashed, named = self.type is not PlanBType.GLOBAL, self.type is PlanBType.CLAIM
        if bool(self.hash) is not hashed or bool(self.names) is not named:
            raise ProtocolError("a row has a hash unless it is GLOBAL, and names exactly when it is CLAIM")

    def to_dict(self) -> dict[str, Any]:
        """Return the row as the JSON object that is stored and sent."""
        data: dict[str, Any] = {"issued_before": self.issued_before}
        if self.type is PlanBType.TOKEN:
            data = {"token_hash": self.hash, "hash_algorithm": HASH_ALGORITHM, **data}
        elif self.type is PlanBType.CLAIM:
            data = {
                "names": list(self.names), "value_hash": self.hash, "hash_algorithm": HASH_ALGORITHM,
                "separator": SEPARATOR, **data,
            }  # fmt: skip
        return {"type": self.type.value, "revoked_at": self.revoked_at, "data": data}

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> PlanBRow:
        """
        Read a row that `to_dict` wrote.

        Raises:
            ProtocolError: It is not one.
        """
        try:
            kind, data = PlanBType(members["type"]), members["data"]
            name = {PlanBType.TOKEN: "token_hash", PlanBType.CLAIM: "value_hash"}.get(kind)
            row = cls(
                type=kind,
                issued_before=data["issued_before"],
                revoked_at=members["revoked_at"],
                hash=data[name] if name else None,
                names=tuple(data["names"]) if kind is PlanBType.CLAIM else (),
            )
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("not a row of Plan B") from None
        if row.to_dict() != members:
            raise ProtocolError("not a row of Plan B")
        return row


def token_rows(
    spellings: Iterable[str], *, iat: int | None, jti: str | None, cut_off: int, revoked_at: int, salt: str
) -> tuple[PlanBRow, ...]:
    """
    Return the rows of a revoked token: one for each of its *spellings*, and one for its id.

    Args:
        spellings: The raw token, and where wanted the one with the other form of the signature.
        iat: The verified `iat`; None when the signature could not be verified.
        jti: The verified `jti`; None when there is none or it was not verified.
        cut_off: The default cut-off of a claims rule, for when *iat* is None.
        revoked_at: Unix seconds.
        salt: Plan B's hashing salt.
    """
    issued_before = cut_off if iat is None else iat + 1
    rows = tuple(
        PlanBRow(
            type=PlanBType.TOKEN,
            hash=plan_b_hash(token, salt=salt),
            issued_before=issued_before,
            revoked_at=revoked_at,
        )
        for token in spellings
    )
    if jti is None:
        return rows
    return (*rows, *jti_rows(jti, issued_before=issued_before, revoked_at=revoked_at, salt=salt))


def jti_rows(jti: str, *, issued_before: int, revoked_at: int, salt: str) -> tuple[PlanBRow, ...]:
    """
    Return the row of a revoked token id, shown as a claim.

    None for an id with the separator in it: such a row could hit other tokens.
    """
    if SEPARATOR in jti:
        return ()
    return claims_rows({"jti": jti}, issued_before=issued_before, revoked_at=revoked_at, salt=salt)


def claims_rows(claims: Mapping[str, str], *, issued_before: int, revoked_at: int, salt: str) -> tuple[PlanBRow, ...]:
    """
    Return the rows of a claims rule.

    Args:
        claims: Names and values, `client_id` standing for `azp` too, `realm` with its leading slash.
        issued_before: Exclusive cut-off in Unix seconds.
        revoked_at: Unix seconds.
        salt: Plan B's hashing salt.

    Returns:
        One row; two where `client_id` is among the names: Plan B's own tokens carry only `azp`.

    Raises:
        ProtocolError: A value is empty or contains the separator, so that the rule would be ambiguous; or a
            name is one of a claim that is no string, which would end every Plan B validator.
    """
    if not NOT_STRINGS.isdisjoint(claims):
        raise ProtocolError("a Plan B validator ends when it meets a rule on a claim that is no string")
    if not claims or any(not value or SEPARATOR in value for value in claims.values()):
        raise ProtocolError("a claim's value in Plan B's list is neither empty nor contains |")
    spellings = [claims]
    if "client_id" in claims:
        spellings.append({"azp" if name == "client_id" else name: value for name, value in claims.items()})
    return tuple(
        PlanBRow(
            type=PlanBType.CLAIM,
            names=tuple(sorted(spelling)),
            hash=plan_b_hash(SEPARATOR.join(value for _, value in sorted(spelling.items())), salt=salt),
            issued_before=issued_before,
            revoked_at=revoked_at,
        )
        for spelling in spellings
    )


def global_rows(*, issued_before: int, revoked_at: int) -> tuple[PlanBRow, ...]:
    """Return the row that revokes every token issued before *issued_before*."""
    return (PlanBRow(type=PlanBType.GLOBAL, issued_before=issued_before, revoked_at=revoked_at),)


class RefreshConflict(TokenryError):
    """A second refresh within the retention: it kills a validator that has not changed since Plan B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """
    The notification that makes Plan B validators drop what is younger than a moment and fetch it again.

    Attributes:
        since: `REFRESH_FROM`, Unix seconds: rows with `revoked_at` at or after it are dropped.
        timestamp: `REFRESH_TIMESTAMP`, Unix seconds: when the notification was given.
    """

    since: int
    timestamp: int

    def __post_init__(self) -> None:
        """Refuse what a validator would take for no notification."""
        check_time(self.since, "REFRESH_FROM")
        check_time(self.timestamp, "REFRESH_TIMESTAMP")
        if self.since > self.timestamp:
            raise ProtocolError("REFRESH_FROM lies in the future")

    def in_force(self, now: float, *, retention: int) -> bool:
        """Tell whether it is still shown at *now*: validators remember it as long as any row."""
        return now < self.timestamp + max_time_delta(retention)


def next_refresh(held: Refresh | None, *, since: int, now: float, retention: int, force: bool = False) -> Refresh:
    """
    Return the notification to show from now on; *held* itself when it asks for the same.

    Args:
        held: The notification shown so far.
        since: The wanted `REFRESH_FROM`, Unix seconds.
        now: Unix seconds.
        retention: Seconds that a revocation is kept.
        force: Replace one in force, although that kills unchanged Plan B validators.

    Raises:
        RefreshConflict: Another one is in force, and *force* is not given.
        ProtocolError: *since* is no time in the past.
    """
    refresh = Refresh(since=since, timestamp=int(now))
    if held is None or not held.in_force(now, retention=retention):
        return refresh
    if held.since == since:
        return held
    if not force:
        raise RefreshConflict(f"REFRESH_FROM={held.since} is in force; a second one kills Plan B validators")
    if held.timestamp == refresh.timestamp:  # they tell notifications apart by this number alone
        return replace(refresh, timestamp=refresh.timestamp + 1)
    return refresh


def max_time_delta(retention: int) -> int:
    """Return `MAX_TIME_DELTA`: how many seconds back a validator may ask."""
    return max(retention, LEAST_TIME_DELTA)


class PlanBList:
    """
    All rows in force, ready to be answered from.

    Invariants:
        * What is shown is a function of the rows, the notification and the moment alone: every replica says
          the same.
        * Rows of one hash are shown in ascending `issued_before`, with `revoked_at` that never descends.
    """

    __slots__ = ("_moments", "_open", "_refresh", "_retention", "_settled", "_skew")

    def __init__(
        self,
        rows: Iterable[PlanBRow],
        *,
        now: float,
        skew: float,
        retention: int,
        refresh: Refresh | None = None,
    ) -> None:
        """
        Prepare *rows* for questions at *now* and later.

        Args:
            rows: Those in force; what was undone is not among them.
            now: Unix seconds. Groups that can still change after it are looked at again for each question.
            skew: Bound on the difference of any two clocks of the platform, in seconds.
            retention: Seconds that a revocation is kept.
            refresh: The notification to show.
        """
        self._skew = skew
        self._retention = retention
        self._refresh = refresh if refresh is not None and refresh.in_force(now, retention=retention) else None
        groups = [tuple(group) for _, group in groupby(sorted(rows, key=_order), key=_group)]
        open_groups = [group for group in groups if _moment(group[-1], skew) > now]
        settled_groups = (group for group in groups if _moment(group[-1], skew) <= now)
        settled = [row for group in settled_groups for row in self._shown(group, now)]
        settled.sort(key=lambda row: row.revoked_at)  # stable: the order within a group stays
        self._open: Sequence[Sequence[PlanBRow]] = open_groups
        self._settled: Sequence[PlanBRow] = settled
        self._moments = [row.revoked_at for row in settled]

    def rows(self, *, after: float, now: float) -> list[PlanBRow]:
        """
        Return what is shown at *now* with `revoked_at` later than *after*, in the order to send it.

        Args:
            after: The `from` of the question, however old.
            now: Unix seconds, not earlier than that of the preparation.
        """
        shown = [row for group in self._open for row in self._shown(group, now) if row.revoked_at > after]
        return [*self._settled[bisect_right(self._moments, after) :], *shown]

    def body(self, *, after: float, now: float) -> bytes:
        """Return the whole answer as JSON (arguments as for `rows`)."""
        return dump_json(
            {
                "meta": self.meta(now),
                "revocations": [row.to_dict() for row in self.rows(after=after, now=now)],
            }
        )

    def meta(self, now: float) -> dict[str, int | None]:
        """Return the answer's `meta` at *now* (Unix seconds); null where there is no notification."""
        refresh = self._refresh
        shown = refresh is not None and refresh.in_force(now, retention=self._retention)
        return {
            "MAX_TIME_DELTA": max_time_delta(self._retention),
            "REFRESH_FROM": refresh.since if refresh is not None and shown else None,
            "REFRESH_TIMESTAMP": refresh.timestamp if refresh is not None and shown else None,
        }

    def _shown(self, group: Iterable[PlanBRow], now: float) -> Iterator[PlanBRow]:
        """Yield the rows of one hash as they are shown at *now*."""
        latest = 0
        for row in group:
            shown = _at(row, now, self._skew)
            latest = max(latest, self._restamped(shown.revoked_at))
            yield replace(shown, revoked_at=latest)

    def _restamped(self, revoked_at: int) -> int:
        """A validator that drops rows for the notification asks next for what is younger than it."""
        refresh = self._refresh
        if refresh is None or not refresh.since <= revoked_at < refresh.timestamp:
            return revoked_at
        return refresh.timestamp


def _moment(row: PlanBRow, skew: float) -> int:
    """Return the Unix second from which no clock of the platform takes the row's cut-off for the future."""
    return math.ceil(row.issued_before + skew)


def _at(row: PlanBRow, now: float, skew: float) -> PlanBRow:
    moment = _moment(row, skew)
    if now >= moment:
        return replace(row, revoked_at=max(row.revoked_at, moment))
    return replace(row, issued_before=max(1, min(row.issued_before, math.floor(now - skew))))


def _group(row: PlanBRow) -> tuple[str, str]:
    return (row.type.value, row.hash or "")


def _order(row: PlanBRow) -> tuple[str, str, int, int, tuple[str, ...]]:
    return (row.type.value, row.hash or "", row.issued_before, row.revoked_at, row.names)
