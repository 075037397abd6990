"""
Metadata of a protected resource (RFC 9728): which issuer a service trusts, said by the service itself. Pure.

Callers find the document from the service's identifier, or from `resource_metadata` in a 401. It is believed about the
one service whose identifier was asked for, and about no other: whoever could say something of a service that is not
theirs could send its callers, and their secrets, to an issuer of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.oauth.dpop import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Iterable

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"  # RFC 9728 section 3
MAX_METADATA_BYTES: Final = 64 * 1024
_MAX_ISSUERS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectedResource:
    """
    What a service says of itself.

    Attributes:
        resource: Its identifier: the https URL that callers know it by.
        authorization_servers: Identifiers of the issuers whose tokens it takes.
        scopes: Scopes that it asks for, as far as it says so.
        dpop: Whether it takes tokens that are bound to a key (RFC 9449).
    """

    resource: str
    authorization_servers: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    dpop: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigurationError for an identifier that is none, or without an issuer."""
        try:
            check_resource(self.resource)
        except ProtocolError as error:
            raise ConfigurationError([f"resource: {error}"]) from None
        if not self.authorization_servers:
            raise ConfigurationError(["authorization_servers: name the issuer whose tokens this service takes"])

    @property
    def path(self) -> str:
        """The path that the document is served at (RFC 9728 section 3.1)."""
        return urlsplit(metadata_url(self.resource)).path

    @property
    def url(self) -> str:
        """The URL of the document, for `resource_metadata=` of every middleware."""
        return metadata_url(self.resource)

    def document(self) -> bytes:
        """Return the document (`application/json`)."""
        members: dict[str, Any] = {
            "resource": self.resource,
            "authorization_servers": list(self.authorization_servers),
            "bearer_methods_supported": ["header"],
        }
        if self.scopes:
            members["scopes_supported"] = sorted(self.scopes)
        if self.dpop:
            members["dpop_signing_alg_values_supported"] = list(ALGORITHMS)
        return dump_json(members)


def check_resource(resource: str) -> None:
    """
    Return if *resource* can be a service's identifier (RFC 9728 section 1.2).

    Raises:
        ProtocolError: It is no https URL, or has a fragment.
    """
    try:
        parts = urlsplit(resource)
        _ = parts.port
    except ValueError:
        raise ProtocolError("the resource identifier is not a URL") from None
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or not resource.isascii():
        raise ProtocolError("the resource identifier is not an https URL")
    if "#" in resource or not resource.isprintable() or " " in resource:
        raise ProtocolError("the resource identifier has a fragment, or odd characters")


def metadata_url(resource: str) -> str:
    """
    Return where the metadata of *resource* are: the well-known path comes between host and path.

    Raises:
        ProtocolError: It is no identifier.
    """
    check_resource(resource)
    parts = urlsplit(resource)
    query = f"?{parts.query}" if parts.query else ""
    return f"https://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}{query}"


def read_protected_resource(document: bytes, *, resource: str) -> ProtectedResource:
    """
    Return what *document* says of *resource*, the identifier that the caller uses.

    Raises:
        ProtocolError: It is not an object, another service's, or names no issuers: nothing of it is used (RFC 9728
            section 3.3).
    """
    check_resource(resource)
    members = parse_json_object(document)
    # Byte for byte: a service's identifier has one spelling.
    if members.get("resource") != resource:
        raise ProtocolError("the metadata are another service's than the one that was asked for")
    issuers = members.get("authorization_servers")
    if not isinstance(issuers, list) or not 0 < len(issuers) <= _MAX_ISSUERS:
        raise ProtocolError("the metadata name no authorization_servers")
    return ProtectedResource(
        resource=resource,
        authorization_servers=tuple(_texts(issuers)),
        scopes=tuple(_texts(members.get("scopes_supported") or [])),
        dpop=bool(set(ALGORITHMS).intersection(_texts(members.get("dpop_signing_alg_values_supported") or []))),
    )


def _texts(value: object) -> Iterable[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ProtocolError("a member of the metadata is no list of names")
    return value


__all__ = ["ProtectedResource", "read_protected_resource"]
