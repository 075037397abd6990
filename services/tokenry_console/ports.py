"""What the console needs of the outside beside somebody who makes its calls: somewhere to take randomness from."""

from __future__ import annotations

from typing import Protocol


class Randomness(Protocol):
    """Where ids come from that nobody may guess."""

    def __call__(self) -> str:
        """Return a text of at least 128 random bits, in characters that may stand in a cookie and in a URL."""
        ...
