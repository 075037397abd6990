"""
Limits on failed attempts to authenticate (RFC 6749 section 2.3.1, RFC 6819 section 5.1.4.2.3). Time is an
argument.

Three counts, each a bucket that fills with failures and leaks with time:

* (subject, address): full: refused, also with the right secret, from this address only;
* address: full: refused; a success weighs a little, so that one address cannot take the service for itself;
* subject alone, from whatever address: never refuses, since then anybody could lock a client out. It delays
  by at most a second: everything, or where the subject authenticated itself in the last 24 hours, failures only,
  so that the time of a failure does not tell that a subject exists.

A subject is a client, or a user, of one realm; a refused attempt counts nothing.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from tokenry.errors import TokenryError

MAX_TRACKED = 100_000  # entries of each table, some 20 MB; the least recently used goes first
KNOWN_FOR = 24 * 3600.0  # seconds for which an address at which a subject succeeded counts as its own
MAX_DELAY = 1.0  # seconds
SUCCESS_WEIGHT = 0.0005  # of a failure: 2,000 good requests a second from one address are too many
IPV6_CUSTOMER_PREFIX = 64  # bits: whoever has one IPv6 address has all of its network

Subject = tuple[str, ...]


class TooManyFailures(TokenryError):
    """
    The attempt is refused without being judged.

    Attributes:
        retry_after: Seconds until one will be judged again.
    """

    def __init__(self, *, retry_after: int) -> None:
        """Refuse for *retry_after* seconds."""
        self.retry_after = retry_after
        super().__init__(f"too many failures; wait {retry_after} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """
    How an attempt is delayed, in seconds.

    Attributes:
        before: Before it is judged.
        of_failure: After it was judged, if it failed.
    """

    before: float = 0.0
    of_failure: float = 0.0


_NONE = Delay()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLimits:
    """
    How many failures are too many.

    Attributes:
        per_pair: Failures of one subject at one address before it is refused there.
        pair_recovery: Seconds in which one of those is forgotten.
        per_address: Failures of one address before it is refused.
        address_recovery: Seconds in which one of those is forgotten.
        per_subject: Failures of one subject, wherever, before unknown addresses are delayed.
        subject_recovery: Seconds in which one of those is forgotten.
    """

    per_pair: int = 10
    pair_recovery: float = 30.0
    per_address: int = 100
    address_recovery: float = 1.0
    per_subject: int = 20
    subject_recovery: float = 10.0

    def __post_init__(self) -> None:
        """Refuse limits that would refuse everybody, or never recover."""
        if min(self.per_pair, self.per_address, self.per_subject) < 1:
            raise ValueError("at least one failure must be allowed")
        if min(self.pair_recovery, self.address_recovery, self.subject_recovery) <= 0:
            raise ValueError("failures must be forgotten at some time")


class Attempts:
    """What is known of recent attempts."""

    def __init__(self, limits: AttemptLimits | None = None, *, max_tracked: int = MAX_TRACKED) -> None:
        """Know of no attempt yet."""
        limits = limits or AttemptLimits()
        self._pairs: _Buckets[tuple[Subject, str]] = _Buckets(limits.per_pair, limits.pair_recovery, max_tracked)
        self._addresses: _Buckets[str] = _Buckets(limits.per_address, limits.address_recovery, max_tracked)
        # Ten times the limit, so that the delay can grow to its maximum.
        self._subjects: _Buckets[Subject] = _Buckets(10 * limits.per_subject, limits.subject_recovery, max_tracked)
        self._free = limits.per_subject
        self._subject_recovery = limits.subject_recovery
        self._delaying_until = -math.inf
        self._successes: OrderedDict[tuple[Subject, str], float] = OrderedDict()
        self._max_tracked = max_tracked

    def admit(self, subject: Subject, address: str, *, now: float) -> Delay:
        """
        Return how an attempt of *subject* from *address* at (monotonic) *now* is to be delayed.

        Raises:
            TooManyFailures: It must not be judged at all.
        """
        address = network_of(address)
        wait = max(self._pairs.wait((subject, address), now=now), self._addresses.wait(address, now=now))
        if wait > 0:
            raise TooManyFailures(retry_after=math.ceil(wait))
        if subject not in self._subjects:  # nearly all
            return _NONE
        excess = self._subjects.level(subject, now=now) - self._free
        seconds = min(MAX_DELAY, max(0.0, excess / self._free * MAX_DELAY))
        if self._known(subject, address, now=now):
            return Delay(of_failure=seconds)
        return Delay(before=seconds)

    def delaying(self, now: float) -> bool:
        """Tell whether any attempt at (monotonic) *now* may have to be delayed."""
        return now < self._delaying_until

    def failed(self, subject: Subject, address: str, *, now: float) -> None:
        """Count a failure."""
        address = network_of(address)
        self._pairs.fill((subject, address), 1.0, now=now)
        self._addresses.fill(address, 1.0, now=now)
        self._subjects.fill(subject, 1.0, now=now)
        excess = self._subjects.level(subject, now=now) - self._free
        self._delaying_until = max(self._delaying_until, now + excess * self._subject_recovery)

    def succeeded(self, subject: Subject, address: str, *, now: float) -> None:
        """Count a success: the address becomes one of the subject's own."""
        address = network_of(address)
        self._pairs.empty((subject, address))
        self._addresses.fill(address, SUCCESS_WEIGHT, now=now)
        self._successes[subject, address] = now
        self._successes.move_to_end((subject, address))
        if len(self._successes) > self._max_tracked:
            self._successes.popitem(last=False)

    def _known(self, subject: Subject, address: str, *, now: float) -> bool:
        success = self._successes.get((subject, address))
        return success is not None and now - success <= KNOWN_FOR


_Key = TypeVar("_Key")


class _Buckets(OrderedDict[_Key, tuple[float, float]]):
    """Leaky buckets, the most recently used last: key to (level, moment of that level)."""

    def __init__(self, limit: float, recovery: float, max_tracked: int) -> None:
        super().__init__()
        self._limit = limit
        self._recovery = recovery
        self._max_tracked = max_tracked

    def level(self, key: _Key, *, now: float) -> float:
        level, at = self.get(key, (0.0, now))
        return max(0.0, level - (now - at) / self._recovery)

    def wait(self, key: _Key, *, now: float) -> float:
        """Return the seconds until one more failure fits in."""
        if key not in self:
            return 0.0
        return max(0.0, (self.level(key, now=now) + 1 - self._limit) * self._recovery)

    def fill(self, key: _Key, weight: float, *, now: float) -> None:
        self[key] = (min(float(self._limit), self.level(key, now=now) + weight), now)
        self.move_to_end(key)
        if len(self) > self._max_tracked:
            self.popitem(last=False)

    def empty(self, key: _Key) -> None:
        self.pop(key, None)


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return what is counted for *address*: itself, or the /64 network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), IPV6_CUSTOMER_PREFIX), strict=False))
