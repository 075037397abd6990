"""What this service needs from outside of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tokenry.errors import TokenryError
from tokenry.scope import NO_SCOPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.claims import TokenInfo
    from tokenry.scope import Scope
    from tokenry.validation.validator import Confirmation


class Validation(Protocol):
    """Judges tokens: `tokenry.token_validator.TokenValidator`."""

    def validate(
        self,
        token: str,
        *,
        scope: Scope = NO_SCOPE,
        audience: str | None = None,
        confirmation: str | Confirmation | None = None,
    ) -> TokenInfo:
        """
        Do as `avalidate` does, but never wait.

        Raises:
            UnknownKey: Its key is not held; it may have been published since.
        """
        ...

    async def avalidate(
        self,
        token: str,
        *,
        scope: Scope = NO_SCOPE,
        audience: str | None = None,
        confirmation: str | Confirmation | None = None,
    ) -> TokenInfo:
        """
        Return what *token* says if it may be acted upon; waits at most 1 s, for an unknown key.

        Raises:
            InvalidToken: It may not.
            InsufficientScope: It lacks some of *scope*.
            ValidatorNotReady: That cannot be told now.
        """
        ...


class Unreachable(TokenryError):
    """Another service gave no answer that can be used."""


class TimedOut(Unreachable):
    """Another service did not answer in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    The answer of another service.

    Attributes:
        status: HTTP status.
        body: The body, of bounded size.
    """

    status: int
    body: bytes

    def __repr__(self) -> str:
        """Show the status; the body may hold a token."""
        return f"Answer(status={self.status})"


class Outgoing(Protocol):
    """Calls another service over HTTP."""

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        deadline_seconds: float,
    ) -> Answer:
        """
        Return the answer, whatever its status; redirects are not followed.

        Raises:
            TimedOut: There was none within *deadline_seconds*.
            Unreachable: The connection failed, or the answer is too large.
        """
        ...
