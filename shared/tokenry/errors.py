"""
The family of errors that this library raises.

Everything derives from `TokenryError`. Inside, an error says exactly what was wrong; what may be
shown to a caller outside is only the RFC's vocabulary (`tokenry.oauth.errors`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class TokenryError(Exception):
    """Root of every exception that this library raises on purpose."""


class ConfigurationError(TokenryError):
    """
    Settings are missing, malformed or contradict each other.

    Attributes:
        faults: One sentence a fault, each naming the setting and what to do; all of them, not the first.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        """Collect *faults*; the message lists them all."""
        self.faults: tuple[str, ...] = tuple(faults)
        super().__init__("; ".join(self.faults))


class ProtocolError(TokenryError):
    """A peer, or a file, said something that its format does not allow: nothing of it is used."""


class Reason(StrEnum):
    """
    Why an access token was refused: one code for each thing that a validation step can find.

    The codes are metric labels and log fields. A caller outside never learns more than `invalid_token`.
    """

    # step 1: shape
    TOO_LARGE = "too_large"
    NOT_COMPACT = "not_compact"
    NOT_CANONICAL = "not_canonical"
    # step 2: header
    MALFORMED_HEADER = "malformed_header"
    UNSUPPORTED_CRITICAL = "unsupported_critical"
    WRONG_ALGORITHM = "wrong_algorithm"
    WRONG_TYPE = "wrong_type"
    # step 3: key
    UNTRUSTED_ISSUER = "untrusted_issuer"
    UNKNOWN_KEY = "unknown_key"
    # step 4: signature
    BAD_SIGNATURE = "bad_signature"
    # step 5: claims
    MALFORMED_CLAIMS = "malformed_claims"
    # step 6: times
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LIFETIME_TOO_LONG = "lifetime_too_long"
    # step 7: audience
    WRONG_AUDIENCE = "wrong_audience"
    # step 8: revocation
    REVOKED = "revoked"
    # sender constraint (RFC 7800): a confirmation that this validator cannot check
    UNCONFIRMED = "unconfirmed"
    # introspection (RFC 7662 section 2.2): not active, and nobody says why
    INACTIVE = "inactive"


class InvalidToken(TokenryError):
    """
    The access token must not be acted upon (RFC 6750 section 3.1, `invalid_token`, 401).

    Attributes:
        reason: The first step that failed. It may be logged and counted, not sent to the caller.
    """

    def __init__(self, reason: Reason) -> None:
        """Refuse for *reason*."""
        self.reason = reason
        super().__init__(f"the access token is not valid ({reason})")


class UnknownKey(InvalidToken):
    """
    The token names a key of a trusted issuer that is not held: one refetch may find it.

    Attributes:
        issuer: The trusted issuer whose key set lacks the key.
    """

    def __init__(self, issuer: str) -> None:
        """Refuse for a key that the key set of *issuer* does not have."""
        self.issuer = issuer
        super().__init__(Reason.UNKNOWN_KEY)


class InsufficientScope(TokenryError):
    """
    The token is good and lacks scopes (RFC 6750 section 3.1, `insufficient_scope`, 403).

    Attributes:
        missing: The required scopes that the token does not have, sorted.
    """

    def __init__(self, missing: Iterable[str]) -> None:
        """Refuse because *missing* were not granted."""
        self.missing: tuple[str, ...] = tuple(sorted(missing))
        super().__init__(f"the access token lacks the scope {' '.join(self.missing)}")


class Unready(StrEnum):
    """Why a validator can say neither yes nor no."""

    NO_KEYS = "no_keys"
    KEY_FETCH_FAILED = "key_fetch_failed"
    NO_LIST = "no_list"
    LIST_TOO_OLD = "list_too_old"
    INTROSPECTION_FAILED = "introspection_failed"


class ValidatorNotReady(TokenryError):
    """
    The validator cannot tell: no keys, no list, or a list older than its limit (503).

    Attributes:
        cause: What is missing.
        retry_after: Seconds after which asking again is worth while.
    """

    def __init__(self, cause: Unready, *, retry_after: int = 5) -> None:
        """Say neither yes nor no, because of *cause*."""
        self.cause = cause
        self.retry_after = retry_after
        super().__init__(f"the validator cannot judge tokens now ({cause}); try again in {retry_after} s")


class TokenFetchError(TokenryError):
    """
    No access token could be had from the issuer.

    Attributes:
        error: The RFC 6749 error code that the issuer answered, or None when it did not answer.
        retryable: Whether the same request may succeed later.
    """

    def __init__(self, message: str, *, error: str | None = None, retryable: bool = True) -> None:
        """Fail with *message*, which names the source and what to do, and never a secret."""
        self.error = error
        self.retryable = retryable
        super().__init__(message)
