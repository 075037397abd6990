"""What the console needs of the outside: somebody who makes its calls, and somewhere to take randomness from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tokenry.errors import TokenryError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Unreachable(TokenryError):
    """A call got no answer that could be used; the text says why and names nothing that was sent."""


class TimedOut(Unreachable):
    """A call got no answer in time."""


class TooLarge(Unreachable):
    """An answer was larger than what is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    What came back.

    Attributes:
        status: HTTP status.
        body: The whole body.
    """

    status: int
    body: bytes = field(repr=False)


class Outgoing(Protocol):
    """Makes calls: bounded, and never to where a redirect points."""

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        deadline_seconds: float,
        max_bytes: int,
    ) -> Answer:
        """
        Return the answer, whatever its status.

        Raises:
            TimedOut: It did not come within *deadline_seconds*.
            TooLarge: It was larger than *max_bytes*.
            Unreachable: There was none.
        """
        ...


class Randomness(Protocol):
    """Where ids come from that nobody may guess."""

    def __call__(self) -> str:
        """Return a text of at least 128 random bits, in characters that may stand in a cookie and in a URL."""
        ...
