"""Token buckets: how often each caller may do something. Pure: the time is an argument."""

from __future__ import annotations

from collections import OrderedDict

MAX_KEYS = 10_000  # callers remembered; the one that was quiet the longest is forgotten first (a full bucket)


class TokenBuckets:
    """
    One bucket a key: it holds up to *burst*, refills by *rate* a second, and each use takes one.

    Memory is bounded by *max_keys*. Forgetting a key gives it a full bucket, so the limit is a bound on what
    known callers cost us, and no replacement for authentication.
    """

    def __init__(self, *, rate: float, burst: float, max_keys: int = MAX_KEYS) -> None:
        """
        Limit each key.

        Raises:
            ValueError: Nothing would ever be allowed.
        """
        if rate <= 0 or burst < 1 or max_keys < 1:
            raise ValueError("rate must be positive, burst and max_keys at least 1")
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, *, now: float) -> float:
        """
        Take one for *key* at monotonic time *now*.

        Returns:
            0 when it was there; otherwise the seconds after which it will be, and nothing was taken.
        """
        level = self._level(key, now)
        wait = 0.0 if level >= 1 else (1 - level) / self._rate
        self._keep(key, level if wait else level - 1, now)
        return wait

    def wait(self, key: str, *, now: float) -> float:
        """Return what `take` would, and take nothing."""
        level = self._level(key, now)
        return 0.0 if level >= 1 else (1 - level) / self._rate

    def _level(self, key: str, now: float) -> float:
        level, since = self._buckets.get(key, (self._burst, now))
        return min(self._burst, level + max(0.0, now - since) * self._rate)

    def _keep(self, key: str, level: float, now: float) -> None:
        self._buckets[key] = (level, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)

    def __len__(self) -> int:
        """Return the number of keys remembered."""
        return len(self._buckets)
