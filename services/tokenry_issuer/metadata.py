"""
The issuer's metadata (RFC 8414, OpenID Connect Discovery): what is there, and nothing that is not. Pure.

Every URL comes from configuration; nothing of a request enters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tokenry.oauth.dpop import ALGORITHMS as DPOP_ALGORITHMS
from tokenry_issuer.minting import CLAIMS

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKEN_PATH = "/oauth2/token"  # noqa: S105 -- a path
JWKS_PATH = "/.well-known/jwks.json"
LIST_JWKS_PATH = "/.well-known/revocation-list-jwks.json"
ANSWER_JWKS_PATH = "/oauth2/introspect/keys"  # at token info: its keys are never in our own sets
RFC8414_PATH = "/.well-known/oauth-authorization-server"
OPENID_PATH = "/.well-known/openid-configuration"

SECRET_METHODS = ("client_secret_basic", "client_secret_post")
# The asymmetric ones first: what a client should use (RFC 9700 section 2.5).
CLIENT_METHODS = ("private_key_jwt", *SECRET_METHODS)
ASSERTION_ALGORITHMS = ("ES256",)
ANSWER_ALGORITHMS = ("ES256",)
# RFC 8414 section 2 allows the names of token types besides: token info and revocation take a bearer too.
RESOURCE_METHODS = (*SECRET_METHODS, "Bearer")


def build_metadata(
    *,
    issuer: str,
    tokeninfo_url: str | None,
    revocation_url: str | None,
    grant_types: Iterable[str],
    scopes: Iterable[str] = (),
    tls_methods: Iterable[str] = (),
    algorithms: Iterable[str] = (),
    list_keys: bool = False,
    answer_keys: bool = False,
) -> dict[str, Any]:
    """
    Return the members of the document at `RFC8414_PATH`.

    Args:
        issuer: The issuer identifier.
        tokeninfo_url: Base URL of token info, if there is one.
        revocation_url: Base URL of the revocation service, if there is one.
        grant_types: Grants that some realm allows.
        scopes: Scopes to advertise; none: the member is left out.
        algorithms: What trusted issuers sign with, besides what clients do.
        tls_methods: How a certificate authenticates a client here; none: there are none.
        list_keys: Whether there is a key that signs revocation lists.
        answer_keys: Whether there is a key that signs introspection answers (RFC 9701).
    """
    base = issuer.rstrip("/")
    members: dict[str, Any] = {
        "issuer": issuer,
        "token_endpoint": token_endpoint(issuer),
        "jwks_uri": base + JWKS_PATH,
        "grant_types_supported": sorted(grant_types),
        "response_types_supported": ["none"],
        "token_endpoint_auth_methods_supported": list(CLIENT_METHODS),
        "token_endpoint_auth_signing_alg_values_supported": list(
            dict.fromkeys((*ASSERTION_ALGORITHMS, *sorted(algorithms)))
        ),
        "dpop_signing_alg_values_supported": list(DPOP_ALGORITHMS),  # RFC 9449 section 5.1
        "claims_supported": list(CLAIMS),
    }
    if certificates := [str(method) for method in tls_methods]:
        members["token_endpoint_auth_methods_supported"][:0] = certificates
        members["tls_client_certificate_bound_access_tokens"] = True  # RFC 8705 section 3.3
    if tokeninfo_url is not None:
        members["introspection_endpoint"] = tokeninfo_url.rstrip("/") + "/oauth2/introspect"
        members["introspection_endpoint_auth_methods_supported"] = list(RESOURCE_METHODS)
        if answer_keys:
            members["introspection_signing_alg_values_supported"] = list(ANSWER_ALGORITHMS)  # RFC 9701 section 7
            members["introspection_jwks_uri"] = tokeninfo_url.rstrip("/") + ANSWER_JWKS_PATH
    if revocation_url is not None:
        root = revocation_url.rstrip("/").removesuffix("/revocations")
        members["revocation_endpoint"] = root + "/oauth2/revoke"
        members["revocation_endpoint_auth_methods_supported"] = list(RESOURCE_METHODS)
        members["revocation_list_uri"] = root + "/revocations"
    if list_keys:
        members["revocation_list_jwks_uri"] = base + LIST_JWKS_PATH
    if advertised := sorted(scopes):
        members["scopes_supported"] = advertised
    return members


def token_endpoint(issuer: str) -> str:
    """Return the URL of the token endpoint."""
    return issuer.rstrip("/") + TOKEN_PATH


def build_openid_configuration(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return *metadata* with what OpenID Connect Discovery 1.0 section 3 requires besides."""
    return {
        **metadata,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }


def metadata_paths(issuer: str) -> tuple[str, str]:
    """Return the paths of both documents: RFC 8414 section 3.1 inserts, OpenID appends."""
    path = urlsplit(issuer).path.rstrip("/")
    return RFC8414_PATH + path, path + OPENID_PATH
