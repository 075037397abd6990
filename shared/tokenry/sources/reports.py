"""
What a validator tells the revocation service of itself: which revocations it enforces since when, and how many
tokens it has refused by each.

Operators wait for it (`tokenry revoke … --wait`). The moments are in the report, so that reports need not be
quick: many validators spread theirs, and none sends more than one in a few seconds. Where reports are not taken
the validator goes on without them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from tokenry.http.backoff import Backoff, system_random
from tokenry.http.fetch import Request
from tokenry.http.forking import renew_after_fork
from tokenry.http.poller import Wait
from tokenry.jose.encoding import b64url_encode, dump_json

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from tokenry.http.fetch import FetchFailed, Response
    from tokenry.http.poller import Moment
    from tokenry.revocation.lists import RevocationList
    from tokenry.validation.snapshots import Snapshot

SPREAD_SECONDS: Final = 2.0  # over which the reports of many validators about one revocation come in
GAP_SECONDS: Final = 5.0  # between two reports of one validator
HEARTBEAT_SECONDS: Final = 60.0  # a report without news, with the age of the list
NOT_TAKEN_SECONDS: Final = 600.0  # before asking again whether reports are taken
MAX_IDS: Final = 200  # in one report; after a mass revocation the rest goes unreported
MAX_REFUSALS: Final = 500  # fingerprints whose refusals are counted until the next report; the rest goes unreported
REFUSALS_SECONDS: Final = 15.0  # between two reports while somebody goes on with revoked tokens
_MAX_REMEMBERED: Final = 5000  # ids that were reported: answers of the service repeat entries
_DEADLINE_SECONDS: Final = 5.0
_MAX_ANSWER_BYTES: Final = 64 * 1024
_OK: Final = range(200, 300)
_UNAUTHORIZED: Final = frozenset({401, 403})
_NOT_TAKEN: Final = frozenset({400, 401, 403, 404, 405, 501})


class ReportConversation:
    """What one validator has to tell, and when. No I/O and no clock."""

    name = "reports"

    def __init__(
        self,
        *,
        root: Callable[[], str | None],
        instance: str,
        snapshot: Callable[[], Snapshot[RevocationList] | None],
        uniform: random.Random = system_random,
    ) -> None:
        """
        Have nothing to tell.

        Args:
            root: Returns the URL that ends in `/revocations`, once that is known.
            instance: `name/version` of this validator.
            snapshot: Returns the list that is held.
            uniform: Randomness that spreads the reports of many.
        """
        self.on_unauthorized: Callable[[], None] | None = None
        self._root = root
        self._instance_name, _, self._version = instance.partition("/")
        self._snapshot = snapshot
        self._uniform = uniform
        self._backoff = Backoff(longest=NOT_TAKEN_SECONDS, uniform=uniform)
        self._not_before = float("-inf")
        self._heartbeat = float("-inf")
        self._reported_at = float("-inf")
        self._news: OrderedDict[str, float] = OrderedDict()
        self._refusals: dict[str, tuple[int, float]] = {}  # count, and monotonic seconds of the last
        self._sending_refusals: dict[str, tuple[int, float]] = {}
        self._told: OrderedDict[str, None] = OrderedDict()
        self._sending: tuple[str, ...] = ()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def enforced(self, ids: Iterable[str], *, at: Moment) -> bool:
        """Note that the revocations *ids* are enforced since *at*; tell whether any of them is news."""
        with self._lock:
            fresh = [name for name in ids if name not in self._told and name not in self._news]
            if fresh and not self._news:
                self._not_before = max(self._not_before, at.monotonic + SPREAD_SECONDS * self._uniform.random())
            for name in fresh[: MAX_IDS - len(self._news)]:
                self._news[name] = at.now
            return bool(fresh)

    def refused(self, fingerprint: bytes, *, monotonic: float) -> None:
        """Count a token that was refused by the entry with *fingerprint*, at *monotonic*; from any thread."""
        name = b64url_encode(fingerprint)
        with self._lock:
            known = self._refusals.get(name)
            if known is not None:
                self._refusals[name] = (known[0] + 1, monotonic)
            elif len(self._refusals) < MAX_REFUSALS:
                self._refusals[name] = (1, monotonic)

    def next_request(self, at: Moment) -> Request | Wait:
        """Return the next report, or the seconds until there may be one."""
        root, held = self._root(), self._snapshot()
        if root is None or held is None:
            return Wait(1.0)
        due = self._not_before if self._news else max(self._not_before, self._heartbeat)
        if self._refusals:
            due = min(due, max(self._not_before, self._reported_at + REFUSALS_SECONDS))
        if at.monotonic < due:
            return Wait(min(due - at.monotonic, REFUSALS_SECONDS))  # a refusal wakes nobody: it must cost nothing
        with self._lock:
            news, refusals = dict(self._news), dict(self._refusals)
        self._sending, self._sending_refusals = tuple(news), refusals
        body = {
            "name": self._instance_name,
            "version": self._version,
            "as_of": held.as_of,
            "list_age": round(held.age(now=at.now, monotonic=at.monotonic), 3),
            "enforced": {name: round(moment, 3) for name, moment in news.items()},
            "refusals": {name: count for name, (count, _) in refusals.items()},
            "refused_ago": {name: round(max(0.0, at.monotonic - last), 1) for name, (_, last) in refusals.items()},
        }
        return Request(
            method="POST",
            url=f"{root.removesuffix('/revocations')}/validators/reports",
            headers={"Content-Type": "application/json"},
            body=dump_json(body),
            deadline_seconds=_DEADLINE_SECONDS,
            max_bytes=_MAX_ANSWER_BYTES,
            repeatable=True,
        )

    def on_response(self, response: Response, *, started: Moment, at: Moment) -> None:  # noqa: ARG002
        """Forget what was told, or wait until it is taken."""
        if response.status in _OK:
            self._forget()
            self._backoff.succeeded()
            self._reported_at = at.monotonic
            self._not_before = at.monotonic + GAP_SECONDS
            self._heartbeat = at.monotonic + HEARTBEAT_SECONDS * (0.75 + self._uniform.random() / 4)
        elif response.status in _UNAUTHORIZED and self.on_unauthorized is not None:
            self.on_unauthorized()  # what there is to tell stays, for the next token
            self._not_before = at.monotonic + max(GAP_SECONDS, self._backoff.after_failure())
        elif response.status in _NOT_TAKEN:
            self._forget()
            self._not_before = at.monotonic + NOT_TAKEN_SECONDS
        else:
            self._not_before = at.monotonic + max(GAP_SECONDS, self._backoff.after_failure())

    def on_failure(self, failure: FetchFailed, *, started: Moment, at: Moment) -> None:  # noqa: ARG002
        """Tell it later."""
        self._not_before = at.monotonic + max(GAP_SECONDS, self._backoff.after_failure())

    def _forget(self) -> None:
        with self._lock:
            for name, (count, _) in self._sending_refusals.items():
                left, last = self._refusals.get(name, (count, 0.0))
                if left > count:
                    self._refusals[name] = (left - count, last)
                else:
                    self._refusals.pop(name, None)
            self._sending_refusals = {}
            for name in self._sending:
                self._news.pop(name, None)
                self._told[name] = None
            while len(self._told) > _MAX_REMEMBERED:
                self._told.popitem(last=False)
