"""
Checking secrets against stored hashes: off the event loop, bounded, and with equal work for whatever is
wrong.

* Slow hashes run in a small pool of threads with a bounded queue in front: when it is full, the caller is
  told to come back, and everything else goes on.
* An attempt that fails costs as much as the realm's costliest check, whether the name exists or not: a
  `Decoy` tops the work up. An attempt that succeeds costs its own hash only.
* A secret that matched a slow hash is remembered for a short time, under a key that this process made up and
  never
  tells: a client that asks often pays once. What is remembered is bound to the stored hash, so that taking
      the hash
  out of force takes effect at once.
* The same secret checked many times at once (a cluster restarting) is computed once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenry.errors import TokenryError
from tokenry_registry.secret_hashes import NO_MATCH, StoredHash, decoy_like, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tokenry.clock import Clock
    from tokenry.secret import Secret

MAX_REMEMBERED = 20_000  # secrets, some 4 MB
REMEMBER_SECONDS = 300.0  # for which a checked secret is not checked again


class WrongSecret(TokenryError):
    """The secret is none of those that are stored, or nothing is stored under the name."""


class ChecksBusy(TokenryError):
    """Too many slow checks are waiting; trying again later makes sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoy:
    """
    The work that every failed attempt in a realm amounts to.

    Attributes:
        hash: A hash that nothing matches, as costly as the realm's costliest.
        count: How many such checks a failed attempt amounts to: the most that one name has.
    """

    hash: StoredHash = NO_MATCH
    count: int = 1

    @classmethod
    def for_all(cls, secrets: Iterable[Sequence[StoredHash]]) -> Decoy:
        """Return the decoy of a realm whose names have these *secrets*."""
        hashes = [stored for stored in secrets if any(each.slow for each in stored)]
        if not hashes:
            return cls()
        costliest = max((each for stored in hashes for each in stored), key=lambda each: each.microseconds)
        return cls(hash=decoy_like(costliest), count=max(sum(each.slow for each in stored) for stored in hashes))


class SecretChecks:
    """Checks secrets; one a process."""

    def __init__(
        self,
        *,
        clock: Clock,
        key: bytes,
        threads: int = 2,
        queue: int = 64,
        remember_seconds: float = REMEMBER_SECONDS,
        observe: Callable[[str, float], None] | None = None,
        compare: Callable[[StoredHash, str], bool] = matches,
    ) -> None:
        """
        Start no thread yet.

        Args:
            clock: For how long a match is remembered.
            key: At least 32 random bytes of this process.
            threads: How many slow checks run at once; more than processors only makes each slower.
            queue: How many may wait for a thread before `ChecksBusy`.
            remember_seconds: How long a match is remembered; 0 for never.
            compare: Compares one hash with one candidate, and takes its time.
            observe: Called with the kind of the costliest hash and the seconds that a check took.
        """
        self._clock = clock
        self._key = key
        self._slots = threads + queue
        self._remember_seconds = remember_seconds
        self._compare = compare
        self._observe = observe or (lambda _kind, _seconds: None)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="secret-check")
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._in_flight: dict[bytes, asyncio.Future[StoredHash | None]] = {}

    def close(self) -> None:
        """Let go of the threads; checks that wait are cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """How many slow checks are running or waiting."""
        return len(self._in_flight)

    @property
    def capacity(self) -> int:
        """How many may run or wait at most; one more is refused."""
        return self._slots

    async def verify(self, secret: Secret, stored: Sequence[StoredHash], *, subject: str, decoy: Decoy) -> float:
        """
        Return until when *secret* need not be compared again with one of the *stored* hashes, as it matches one now.

        Args:
            secret: The candidate.
            stored: The hashes that are in force for the name; none for a name that does not exist.
            subject: The name, so that two names never share a computation.
            decoy: The work of a failed attempt.

        Returns:
            Monotonic seconds; infinite for a hash that costs nothing.

        Raises:
            WrongSecret: It matches none; after the decoy's work.
            ChecksBusy: There is no room for another slow check.
        """
        text = secret.reveal()
        # 1. what costs nothing
        slow = []
        for each in stored:
            if each.slow:
                slow.append(each)
            elif self._compare(each, text):
                return math.inf
        now = self._clock.monotonic()
        for each in slow:
            if (until := self._remembered.get(self._digest(text, each.text), now)) > now:
                return until
        # 2. what costs time
        if not slow and not decoy.hash.slow:
            self._compare(decoy.hash, text)
            raise WrongSecret("no stored secret matches")
        found = await self._shared(text, slow, subject=subject, decoy=decoy)
        if found is None:
            raise WrongSecret("no stored secret matches")
        return self._remember(text, found)

    async def _shared(self, text: str, slow: Sequence[StoredHash], *, subject: str, decoy: Decoy) -> StoredHash | None:
        key = self._digest(text, subject, *(each.text for each in slow))
        running = self._in_flight.get(key)
        if running is None:
            if len(self._in_flight) >= self._slots:
                raise ChecksBusy("too many checks of secrets are waiting")
            running = asyncio.ensure_future(self._in_pool(text, slow, decoy))
            self._in_flight[key] = running
            running.add_done_callback(lambda _done: self._in_flight.pop(key, None))
        # One caller that goes away does not cancel the check of the others.
        return await asyncio.shield(running)

    async def _in_pool(self, text: str, slow: Sequence[StoredHash], decoy: Decoy) -> StoredHash | None:
        began = self._clock.monotonic()
        found = await asyncio.get_running_loop().run_in_executor(self._pool, self._judge, text, slow, decoy)
        costliest = max((*slow, decoy.hash), key=lambda each: each.microseconds)
        self._observe(str(costliest.kind), self._clock.monotonic() - began)
        return found

    def _remember(self, text: str, stored: StoredHash) -> float:
        now = self._clock.monotonic()
        if self._remember_seconds <= 0:
            return now
        key = self._digest(text, stored.text)
        until = self._remembered[key] = now + self._remember_seconds
        self._remembered.move_to_end(key)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return until

    def _digest(self, *parts: str) -> bytes:
        mac = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            mac.update(len(data).to_bytes(4, "big") + data)
        return mac.digest()

    def _judge(self, text: str, slow: Sequence[StoredHash], decoy: Decoy) -> StoredHash | None:
        for each in slow:
            if self._compare(each, text):
                return each
        comparable = sum(2 * each.microseconds >= decoy.hash.microseconds for each in slow)
        for _ in range(decoy.count - comparable):
            self._compare(decoy.hash, text)
        return None
