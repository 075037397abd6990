"""
Access tokens between services: getting them, and judging them with revocation.

The names below are the library's public interface, with the modules of the frameworks (`tokenry.aiohttp`, …) and
`tokenry.testing`. They are imported when they are used first, so that `import tokenry` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tokenry.claims import TokenInfo
    from tokenry.client.access_token import AccessToken, TokenSource
    from tokenry.client.default import default_source
    from tokenry.client.token_source import ClientCredentials, FileTokenSource, StaticTokenSource
    from tokenry.errors import (
        ConfigurationError,
        InsufficientScope,
        InvalidToken,
        ProtocolError,
        Reason,
        TokenFetchError,
        TokenryError,
        UnknownKey,
        ValidatorNotReady,
    )
    from tokenry.introspector import Introspector
    from tokenry.secret import Secret
    from tokenry.token_validator import TokenValidator
    from tokenry.validation.policy import ANY_AUDIENCE

_HOMES: Final = {
    "ANY_AUDIENCE": "tokenry.validation.policy",
    "AccessToken": "tokenry.client.access_token",
    "ClientCredentials": "tokenry.client.token_source",
    "ConfigurationError": "tokenry.errors",
    "FileTokenSource": "tokenry.client.token_source",
    "InsufficientScope": "tokenry.errors",
    "Introspector": "tokenry.introspector",
    "InvalidToken": "tokenry.errors",
    "ProtocolError": "tokenry.errors",
    "Reason": "tokenry.errors",
    "Secret": "tokenry.secret",
    "StaticTokenSource": "tokenry.client.token_source",
    "TokenFetchError": "tokenry.errors",
    "TokenInfo": "tokenry.claims",
    "TokenSource": "tokenry.client.access_token",
    "TokenValidator": "tokenry.token_validator",
    "TokenryError": "tokenry.errors",
    "UnknownKey": "tokenry.errors",
    "ValidatorNotReady": "tokenry.errors",
    "default_source": "tokenry.client.default",
}

__all__ = [
    "ANY_AUDIENCE",
    "AccessToken",
    "ClientCredentials",
    "ConfigurationError",
    "FileTokenSource",
    "InsufficientScope",
    "Introspector",
    "InvalidToken",
    "ProtocolError",
    "Reason",
    "Secret",
    "StaticTokenSource",
    "TokenFetchError",
    "TokenInfo",
    "TokenSource",
    "TokenValidator",
    "TokenryError",
    "UnknownKey",
    "ValidatorNotReady",
    "default_source",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever the name stands for
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tokenry' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
