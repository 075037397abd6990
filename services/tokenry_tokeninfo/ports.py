"""What this service needs from outside of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tokenry.scope import NO_SCOPE

if TYPE_CHECKING:
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

    def validate_at_once(self, token: str) -> TokenInfo:
        """
        Do as `validate` does for a token of any scope and audience.

        Raises:
            UnknownKey: Its key is not held, and was not asked for: for who then calls `avalidate`.
        """
        ...

    def remembers(self, token: str) -> bool:
        """Tell whether *token* need not be verified any more: judging it takes microseconds."""
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
