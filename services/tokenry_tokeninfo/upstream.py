"""
Opaque tokens: those that are no JWT are asked about at another token info service, if there is one.

Its good answers are remembered, never beyond the token's own `expires_in` nor the configured time; that it does not
know a token is remembered for `REFUSED_SECONDS`, apart from them, so that bad tokens drive no good one out. An answer
that is too old is never given, also when there is no newer one. The number of calls at a time is bounded; who waits for
a turn waits within the same deadline. When calls keep failing, none is made for a while (`tokenry_tokeninfo.breaker`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenry.errors import InvalidToken, ProtocolError, Reason
from tokenry.jose.encoding import parse_json_object
from tokenry.serving.outgoing import TimedOut, Unreachable
from tokenry_tokeninfo.breaker import Breaker

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry.serving.outgoing import Outgoing

_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,8192}=*")  # RFC 6750 section 2.1; no other text is sent on
REFUSED_SECONDS = 2.0  # a token that was just made may be known everywhere by then
MAX_REFUSED = 10_000  # some 2 MB
_REFUSED = frozenset({400, 401, 403, 404})  # an upstream of Plan B's time says 400 for a bad token


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """
    What the upstream says of a good token.

    Attributes:
        body: Its JSON, with `expires_in` as of now.
        remembered: Whether it came from memory.
        members: The same as an object.
    """

    body: bytes
    remembered: bool
    members: dict[str, Any] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Remembered:
    members: dict[str, Any]
    asked_at: float
    until: float


class Upstream:
    """Another token info service, with a bounded memory of what it said."""

    def __init__(
        self,
        *,
        url: str,
        calls: Outgoing,
        clock: Clock,
        timeout_seconds: float,
        cache_size: int,
        cache_seconds: float,
        concurrency: int,
    ) -> None:
        """
        Ask at *url*.

        Args:
            url: Its token info endpoint.
            calls: What makes the call.
            clock: Where the time comes from.
            timeout_seconds: The longest that a caller waits, for a turn and the answer together.
            cache_size: Answers remembered at most; 0 remembers none.
            cache_seconds: How long one is remembered at most.
            concurrency: Calls at a time.
        """
        self._url = url
        self._calls = calls
        self._clock = clock
        self._timeout = timeout_seconds
        self._size = cache_size
        self._seconds = cache_seconds
        self._turn = asyncio.Semaphore(concurrency)
        self._memory: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._breaker = Breaker()

    @property
    def left_alone(self) -> bool:
        """Whether no calls are made because they kept failing."""
        return self._breaker.open

    async def ask(self, token: str) -> UpstreamAnswer:
        """
        Return what the upstream says of *token*.

        Raises:
            InvalidToken: It does not know it, or it is no bearer token at all.
            TimedOut: It did not answer in time.
            Unreachable: It answered nothing that can be used.
        """
        if not _B64TOKEN.fullmatch(token):
            raise InvalidToken(Reason.NOT_COMPACT)
        key = hashlib.sha256(token.encode("ascii")).digest()
        held = self._memory.get(key)
        now = self._clock.monotonic()
        if held is not None and now < held.until:
            self._memory.move_to_end(key)
            members = _aged(held, now)
            return UpstreamAnswer(_dump(members), remembered=True, members=members)
        self._memory.pop(key, None)
        if now < self._refused.get(key, now):
            raise InvalidToken(Reason.NOT_COMPACT)
        if not self._breaker.admits(now):
            raise Unreachable("the upstream keeps failing and is left alone for a while")
        try:
            members = await self._fetch(token)
        except InvalidToken:
            self._breaker.succeeded()
            self._remember_refused(key)
            raise
        except BaseException:
            self._breaker.failed(self._clock.monotonic())
            raise
        self._breaker.succeeded()
        self._remember(key, members, asked_at=now)
        return UpstreamAnswer(_dump(members), remembered=False, members=members)

    async def _fetch(self, token: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        try:
            async with asyncio.timeout(self._timeout), self._turn:
                answer = await self._calls.call("GET", self._url, headers=headers, deadline_seconds=self._timeout)
        except TimeoutError:
            raise TimedOut("no turn at the upstream within the deadline") from None
        if answer.status in _REFUSED:
            raise InvalidToken(Reason.NOT_COMPACT)
        if answer.status != 200:  # noqa: PLR2004 -- OK
            raise Unreachable(f"the upstream answered {answer.status}")
        try:
            return parse_json_object(answer.body)
        except ProtocolError:
            raise Unreachable("the upstream answered no JSON object") from None

    def _remember(self, key: bytes, members: dict[str, Any], *, asked_at: float) -> None:
        """Remember *members*; the token's life is counted from before the question, on the safe side."""
        expires_in = members.get("expires_in")
        if self._size <= 0 or isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
            return
        seconds = min(float(expires_in), self._seconds)
        if seconds <= 0:
            return
        self._memory[key] = _Remembered(members, asked_at, asked_at + seconds)
        if len(self._memory) > self._size:
            self._memory.popitem(last=False)

    def _remember_refused(self, key: bytes) -> None:
        if self._size <= 0:
            return
        self._refused[key] = self._clock.monotonic() + REFUSED_SECONDS
        self._refused.move_to_end(key)
        if len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)

    def __len__(self) -> int:
        """Return the number of answers remembered."""
        return len(self._memory)


def _aged(held: _Remembered, now: float) -> dict[str, Any]:
    left = int(held.members["expires_in"] - (now - held.asked_at))
    return {**held.members, "expires_in": max(0, left)}


def _dump(members: dict[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode("ascii")
