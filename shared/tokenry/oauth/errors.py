"""
OAuth error answers as data (RFC 6749 section 5.2, RFC 6750 section 3).

Whatever a service refuses, it raises one of these; one place (`tokenry.serving`) turns it into an HTTP answer.
Descriptions are written by us and never repeat what the caller sent, except names of scopes, which are
cleaned to the characters that the RFC allows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tokenry.errors import TokenryError
from tokenry.scope import format_scope

if TYPE_CHECKING:
    from collections.abc import Iterable

# RFC 6749 section 5.2: %x20-21 / %x23-5B / %x5D-7E
_NOT_ALLOWED = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
MAX_DESCRIPTION = 500  # an error is read by people; longer lists of scopes are cut
NO_STORE: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


def clean(text: str) -> str:
    """Return *text* with what RFC 6749 section 5.2 forbids in `error_description` replaced by `?`."""
    return _NOT_ALLOWED.sub("?", text)[:MAX_DESCRIPTION]


class OAuthError(TokenryError):
    """
    A refusal in OAuth's own words.

    Attributes:
        code: The `error` member.
        status: HTTP status.
        description: The `error_description` member, of the allowed characters only.
        headers: Header fields that belong to the answer, such as a challenge.
        retry_after: Seconds for `Retry-After`, where trying again makes sense.
    """

    def __init__(
        self,
        code: str,
        description: str,
        *,
        status: int = 400,
        headers: Iterable[tuple[str, str]] = (),
        retry_after: int | None = None,
    ) -> None:
        """Refuse with *code* and *description*."""
        self.code = code
        self.status = status
        self.description = clean(description)
        self.retry_after = retry_after
        retry = (("Retry-After", str(max(1, retry_after))),) if retry_after is not None else ()
        self.headers: tuple[tuple[str, str], ...] = (*headers, *retry)
        super().__init__(f"{code}: {self.description}")

    def body(self) -> dict[str, str]:
        """Return the members of the JSON answer."""
        return {"error": self.code, "error_description": self.description}


def invalid_request(description: str, *, status: int = 400) -> OAuthError:
    """Return the refusal of a request that is malformed (RFC 6749 section 5.2)."""
    return OAuthError("invalid_request", description, status=status)


def wrong_content_type() -> OAuthError:
    """Return the refusal of a body that is not a form."""
    return invalid_request("send application/x-www-form-urlencoded in UTF-8", status=415)


def body_too_large(limit: int) -> OAuthError:
    """Return the refusal of a body above *limit* bytes."""
    return invalid_request(f"the body is larger than {limit} bytes", status=413)


def invalid_client(*, realm: str | None = None) -> OAuthError:
    """
    Return the refusal of a client that did not authenticate, the same for unknown and wrong.

    Args:
        realm: Protection space of the Basic challenge, given only when Basic was tried (RFC 6749 section 5.2).
    """
    challenge = () if realm is None else (("WWW-Authenticate", f'Basic realm="{_quoted(realm)}"'),)
    return OAuthError("invalid_client", "client authentication failed", status=401, headers=challenge)


def invalid_grant(
    description: str = "user name or password is wrong, or may not be used by this client",
) -> OAuthError:
    """Return the refusal of a user's credentials, or of an assertion: the same for unknown and wrong."""
    return OAuthError("invalid_grant", description)


def unauthorized_client(description: str = "this client may not use this grant type") -> OAuthError:
    """Return the refusal of a grant that this client was not given."""
    return OAuthError("unauthorized_client", description)


def unsupported_grant_type() -> OAuthError:
    """Return the refusal of a grant type that is unknown, or off in this realm."""
    return OAuthError("unsupported_grant_type", "this grant type is not available here")


def invalid_scope(refused: Iterable[str] = ()) -> OAuthError:
    """Return the refusal of scopes, naming those that were *refused*."""
    names = format_scope(refused)
    description = f"these scopes may not be granted: {names}" if names else "scope is malformed (RFC 6749 3.3)"
    return OAuthError("invalid_scope", description)


def invalid_target() -> OAuthError:
    """Return the refusal of a resource or audience (RFC 8707 section 2)."""
    return OAuthError("invalid_target", "this resource or audience may not be asked for by this client")


def realm_not_found() -> OAuthError:
    """Return the refusal of a realm that does not exist."""
    return OAuthError("realm_not_found", "there is no such realm")


def missing_realm() -> OAuthError:
    """Return the refusal of a request whose realm cannot be told."""
    return OAuthError("missing_realm", "name the realm in the parameter realm, such as realm=/services")


def too_many_failures(*, retry_after: int) -> OAuthError:
    """Return the refusal of an address that failed too often."""
    return OAuthError("temporarily_unavailable", "too many failed attempts; wait", status=429, retry_after=retry_after)


def temporarily_unavailable(description: str, *, retry_after: int = 5) -> OAuthError:
    """Return the answer of a service that can say neither yes nor no now."""
    return OAuthError("temporarily_unavailable", description, status=503, retry_after=retry_after)


def server_error(request_id: str) -> OAuthError:
    """Return the answer to a fault of ours: a request id to look it up by, and no detail."""
    return OAuthError("server_error", f"internal error; request id {request_id}", status=500)


def _quoted(text: str) -> str:
    return clean(text).replace("\\", "?").replace('"', "?")


def bearer_challenge(
    *,
    realm: str | None = None,
    error: str | None = None,
    description: str | None = None,
    scope: Iterable[str] | None = None,
    resource_metadata: str | None = None,
    scheme: str = "Bearer",
    algs: str | None = None,
) -> str:
    """
    Return the value of `WWW-Authenticate` (RFC 6750 section 3): each attribute at most once.

    A request without any token gets a challenge without *error* (section 3.1). *resource_metadata* is the URL
    of RFC 9728 section 5.1; the *scheme* `DPoP` names the algorithms of proofs in *algs* (RFC 9449 section 7.1).
    """
    attributes = (
        ("realm", realm),
        ("error", error),
        ("error_description", description),
        ("scope", None if scope is None else format_scope(scope)),
        ("resource_metadata", resource_metadata),
        ("algs", algs),
    )
    shown = [f'{name}="{_quoted(value)}"' for name, value in attributes if value is not None]
    return f"{scheme} {', '.join(shown)}" if shown else scheme
