"""The issuer's metadata document (RFC 8414): where it is, and what of it we believe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.http.fetch import FetchFailed, check_url
from tokenry.jose.encoding import parse_json_object

MAX_METADATA_BYTES: Final = 64 * 1024  # real documents have 2 to 8 KiB
_RFC8414: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerMetadata:
    """
    The endpoints of one issuer.

    Attributes:
        issuer: Issuer identifier, exactly as in the tokens.
        jwks_uri: Its JWK Set.
        token_endpoint: Where tokens are had.
        introspection_endpoint: Where they are introspected.
        revocation_list_uri: Where validators read revocations; only our issuers have it.
        revocation_list_jwks_uri: The keys that signed revocation lists are verified with.
    """

    issuer: str
    jwks_uri: str | None = None
    token_endpoint: str | None = None
    introspection_endpoint: str | None = None
    revocation_list_uri: str | None = None
    revocation_list_jwks_uri: str | None = None


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """
    Return where the metadata of *issuer* may be, the place of RFC 8414 section 3 first.

    Raises:
        ConfigurationError: *issuer* is not a URL without query and fragment (RFC 8414 section 2).
    """
    try:
        parts = check_url(issuer, allow_plain_http=True)
    except FetchFailed as failed:
        raise ConfigurationError([f"the issuer identifier is not usable: {failed}"]) from None
    if "?" in issuer or "#" in issuer:
        raise ConfigurationError(["the issuer identifier has no query and no fragment (RFC 8414 section 2)"])
    path = parts.path.rstrip("/")
    inserted = urlunsplit((parts.scheme, parts.netloc, _RFC8414 + path, "", ""))
    appended = issuer.rstrip("/") + _OPENID
    return inserted, appended


def parse_metadata(document: bytes, *, issuer: str) -> IssuerMetadata:
    """
    Return what *document* says about *issuer*; members that we do not use are ignored.

    Raises:
        ProtocolError: It is not an object, is another issuer's (RFC 8414 section 3.3: identical, byte for
            byte), or an endpoint in it is not a URL.
    """
    members = parse_json_object(document)
    if members.get("issuer") != issuer:
        raise ProtocolError("the metadata document names another issuer than the one it was asked for")
    return IssuerMetadata(
        issuer=issuer,
        jwks_uri=_endpoint(members, "jwks_uri"),
        token_endpoint=_endpoint(members, "token_endpoint"),
        introspection_endpoint=_endpoint(members, "introspection_endpoint"),
        revocation_list_uri=_endpoint(members, "revocation_list_uri"),
        revocation_list_jwks_uri=_endpoint(members, "revocation_list_jwks_uri"),
    )


def _endpoint(members: dict[str, Any], name: str) -> str | None:
    url = members.get(name)
    if url is None:
        return None
    if not isinstance(url, str) or urlsplit(url).fragment:
        raise ProtocolError(f"{name} in the metadata document is not a URL")
    try:
        check_url(url, allow_plain_http=True)  # whether plain HTTP is allowed is the fetcher's decision
    except FetchFailed:
        raise ProtocolError(f"{name} in the metadata document is not a URL that we would fetch") from None
    return url
