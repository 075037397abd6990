"""
When a held token is renewed, and when a failed renewal is tried again. Pure: time is an argument.

With a lifetime L (seconds): renewed in the background from 75 % of L, plus or minus 5 % of L so that a fleet
does not come at once; served until 10 s before its end (an eighth of L where that is less).

Invariants:
    * At most one fetch a second is begun, however short tokens live and however many are refused.
    * While a token is good, a failed renewal is seen by nobody, and tried again after 30 s.
    * Without one, failed fetches are 1, 2, 4 … 30 s apart; who asks between gets the last error at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from tokenry.http.backoff import Backoff, system_random

if TYPE_CHECKING:
    import random

    from tokenry.client.access_token import AccessToken
    from tokenry.errors import TokenFetchError

REFRESH_SHARE: Final = 0.75
REFRESH_JITTER: Final = 0.05
MARGIN_SECONDS: Final = 10.0  # for the way to the service, its validation, and clocks
MARGIN_SHARE: Final = 0.125  # of tokens that live shorter than 80 s
RETRY_SECONDS: Final = 30.0  # after a failed renewal, while the held token is good
LONGEST_PAUSE_SECONDS: Final = 30.0
MAX_RETRY_AFTER_SECONDS: Final = 300.0  # an issuer that asks for more is not obeyed: it may be back by then
MIN_INTERVAL_SECONDS: Final = 1.0
YOUNG_SECONDS: Final = 10.0  # a younger token may have been issued just before the issuer knew of a revocation


class Plan(Enum):
    """What to do for one who asks for a token."""

    USE = "use"
    USE_AND_RENEW = "use and renew"
    FETCH = "fetch"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """
    A token and its moments, in monotonic seconds.

    Attributes:
        token: The token.
        fetched_at: When its request began: its life is counted from there, to be on the safe side.
        renew_at: From when it is renewed.
        retire_at: From when it is not served any more.
    """

    token: AccessToken
    fetched_at: float
    renew_at: float
    retire_at: float


@dataclass(slots=True, kw_only=True)
class Schedule:
    """The state of one source of tokens; to be used under a lock."""

    uniform: random.Random = field(default=system_random, repr=False)
    held: Held | None = None
    last_error: TokenFetchError | None = None
    _backoff: Backoff = field(init=False, repr=False)
    _begun_at: float = float("-inf")
    _renew_from: float = float("-inf")
    _fetch_from: float = float("-inf")
    _young_dropped_at: float = float("-inf")

    def __post_init__(self) -> None:
        """Begin without a token."""
        self._backoff = Backoff(first=1.0, longest=LONGEST_PAUSE_SECONDS, uniform=self.uniform)

    def plan(self, now: float) -> Plan:
        """Return what to do at monotonic time *now*."""
        held = self.held
        if held is not None and now < held.retire_at:
            return Plan.USE_AND_RENEW if now >= max(held.renew_at, self._renew_from) else Plan.USE
        return Plan.FAIL if now < self._fetch_from and self.last_error is not None else Plan.FETCH

    def begin(self, now: float) -> float:
        """Note that a fetch begins; return the seconds that it has to wait before."""
        delay = max(0.0, self._begun_at + MIN_INTERVAL_SECONDS - now)
        self._begun_at = now + delay
        return delay

    def fetched(self, token: AccessToken, *, lifetime: float, started: float) -> None:
        """Hold *token*, which lives *lifetime* seconds from *started*."""
        share = REFRESH_SHARE + REFRESH_JITTER * (2.0 * self.uniform.random() - 1.0)
        margin = min(MARGIN_SECONDS, MARGIN_SHARE * lifetime)
        self.held = Held(
            token=token,
            fetched_at=started,
            renew_at=started + share * lifetime,
            retire_at=started + lifetime - margin,
        )
        self.last_error = None
        self._backoff.succeeded()
        self._renew_from = self._fetch_from = float("-inf")

    def failed(self, error: TokenFetchError, *, now: float, retry_after: float | None) -> None:
        """Note that a fetch failed, and what the issuer asked for by `Retry-After` (seconds)."""
        asked = min(retry_after or 0.0, MAX_RETRY_AFTER_SECONDS)
        self.last_error = error
        self._renew_from = now + max(RETRY_SECONDS, asked)
        self._fetch_from = now + max(self._backoff.after_failure(), asked)

    def drop(self, token: str | None, *, now: float) -> bool:
        """
        Forget the held token if it is *token* (None: whichever it is), which a service refused.

        A token that is young is dropped once in 30 s at most: a service that refuses every token must not make
        its callers flood the issuer.
        """
        held = self.held
        if held is None or (token is not None and held.token.value != token):
            return held is not None
        if now - held.fetched_at < YOUNG_SECONDS:
            if now - self._young_dropped_at < RETRY_SECONDS:
                return False
            self._young_dropped_at = now
        self.held = None
        return True
