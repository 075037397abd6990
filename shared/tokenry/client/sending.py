"""Where a token may be sent, and what to do when a service refuses it: what all HTTP clients have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.http.fetch import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenry.client.access_token import AccessToken, TokenSource

UNAUTHORIZED: Final = 401
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origins:
    """
    Where tokens may go (RFC 6454 section 4: scheme, host, port).

    Attributes:
        listed: The origins, normalised; None: wherever the program itself sends a request to, encrypted or on
            this machine.
    """

    listed: frozenset[str] | None

    @classmethod
    def of(cls, names: Iterable[str] | None) -> Self:
        """
        Return the origins *names*, each `https://host[:port]`.

        Raises:
            ConfigurationError: There is none, or one is not of that form.
        """
        if names is None:
            return cls(None)
        listed = frozenset(_listed(name) for name in _several(names))
        if not listed:
            raise ConfigurationError(["BearerAuth: name the origins that tokens may be sent to"])
        return cls(listed)

    def allow(self, url: str) -> bool:
        """
        Tell whether a request to *url*, made by the program, may carry a token.

        Raises:
            ConfigurationError: Nothing is listed, and the request would go unencrypted over a network
                (RFC 6750 section 5.3).
        """
        origin = origin_of(url)
        if self.listed is not None:
            return origin in self.listed
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ConfigurationError(
                [f"BearerAuth: {origin} is not encrypted; to send it tokens all the same, list it in origins"]
            )
        return True

    def allow_hop(self, url: str, *, to: str) -> bool:
        """Tell whether a token may go with a redirect from *url* to the URL *to*."""
        target = origin_of(to)
        return target in self.listed if self.listed is not None else target == origin_of(url)

    def __repr__(self) -> str:
        """Show them."""
        return "any origin" if self.listed is None else repr(sorted(self.listed))


def origin_of(url: str) -> str | None:
    """Return the origin of *url* in one spelling, or None when it has none that a token could be sent to."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host.isascii():
            host = host.encode("idna").decode()
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not host:
        return None
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _several(names: Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _listed(name: str) -> str:
    origin = origin_of(name)
    parts = urlsplit(name) if origin is not None else None
    if origin is None or parts is None or parts.path not in {"", "/"} or not set(name).isdisjoint("@?#"):
        raise ConfigurationError([f"BearerAuth: {name!r} is not an origin such as https://host:port"])
    return origin


def replacement(source: TokenSource, token: AccessToken) -> AccessToken | None:
    """Return another token than *token*, which a service refused, or None: its answer then stands (for threads)."""
    if not source.invalidate(token):
        return None
    try:
        other = source.get()
    except TokenFetchError:
        return None  # the service's answer says more than that there is no other token
    return other if other.value != token.value else None


async def areplacement(source: TokenSource, token: AccessToken) -> AccessToken | None:
    """Do as `replacement` does, for asyncio."""
    if not source.invalidate(token):
        return None
    try:
        other = await source.aget()
    except TokenFetchError:
        return None
    return other if other.value != token.value else None
