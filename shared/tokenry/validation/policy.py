"""What a validator trusts and demands: checked whole, before the first token."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, Final

from tokenry.errors import ConfigurationError
from tokenry.jose.jwk import Algorithm

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LEEWAY = 60
"""Seconds; clocks that differ by more are an outage to repair, not a difference to allow for."""


class AnyAudience(Enum):
    """The type of `ANY_AUDIENCE`."""

    ANY_AUDIENCE = "any audience"


ANY_AUDIENCE: Final = AnyAudience.ANY_AUDIENCE
"""Accept tokens meant for anybody: chosen by a validator's owner in so many words, never a default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """
    An issuer whose tokens are accepted.

    Attributes:
        issuer: Its identifier, compared byte for byte with `iss`.
        max_token_lifetime: Seconds that a token of it may live at most (`exp - iat`). Revocations are kept
            for as long, so a token that lives longer could outlive its own revocation.
        algorithms: What its keys may sign with. Our own issuers: ES256.
        accept_untyped: Whether the header's `typ` may be absent or `JWT`: foreign issuers, and own ones whose
            realms ask for it. Without it no other kind of JWT is ever taken for an access token (RFC 8725
            section 3.11).
        foreign: Whether it is not one of ours: then both halves of s are accepted in its signatures.
    """

    issuer: str
    max_token_lifetime: int
    algorithms: tuple[Algorithm, ...] = (Algorithm.ES256,)
    accept_untyped: bool = False
    foreign: bool = False

    def __post_init__(self) -> None:
        """
        Check what was configured.

        Raises:
            ConfigurationError: Listing every fault.
        """
        faults = tuple(self._faults())
        if faults:
            raise ConfigurationError(faults)

    def _faults(self) -> Iterator[str]:
        if not self.issuer or not self.issuer.isprintable() or " " in self.issuer:
            yield f"issuer: {self.issuer!r} is not an issuer identifier; use the issuer's URL"
        if type(self.max_token_lifetime) is not int or self.max_token_lifetime <= 0:
            yield f"max_token_lifetime: {self.max_token_lifetime!r} is not a positive number of whole seconds"
        if not self.algorithms or not all(isinstance(each, Algorithm) for each in self.algorithms):
            yield f"algorithms: name at least one of {', '.join(Algorithm)}"
        elif not self.foreign and set(self.algorithms) != {Algorithm.ES256}:
            yield "algorithms: our own issuers sign with ES256 only; set foreign for another issuer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationPolicy:
    """
    What a token must be for one validator.

    Attributes:
        issuers: Whose tokens are accepted.
        audience: One or several names of this service, one of which `aud` must contain; or `ANY_AUDIENCE`.
        leeway: Seconds by which `iat` and `nbf` may lie ahead of our clock; `exp` has none.
        list_warn_age: Seconds from which an ageing revocation list is reported.
        list_refuse_age: Seconds from which nothing is accepted any more. Longer rides out longer outages of
            the revocation service, and lets a token revoked meanwhile live as long.
        requires_list: Whether tokens are judged only on a revocation list. False is for those who look at a
            token rather than act upon it.
    """

    issuers: tuple[TrustedIssuer, ...]
    audience: str | tuple[str, ...] | AnyAudience
    leeway: float = 5
    list_warn_age: float = 120.0
    list_refuse_age: float = 900.0
    requires_list: bool = True

    def __post_init__(self) -> None:
        """
        Check what was configured.

        Raises:
            ConfigurationError: Listing every fault.
        """
        faults = tuple(self._faults())
        if faults:
            raise ConfigurationError(faults)

    @property
    def audiences(self) -> frozenset[str] | None:
        """The names of this service; None where any audience is accepted."""
        if self.audience is ANY_AUDIENCE:
            return None
        return frozenset((self.audience,) if isinstance(self.audience, str) else self.audience)

    def _faults(self) -> Iterator[str]:
        names = [trusted.issuer for trusted in self.issuers]
        if not names or len(set(names)) != len(names):
            yield "issuers: name at least one issuer, and each once"
        audiences = self.audiences
        if audiences is not None and (not audiences or not all(audiences)):
            yield "audience: name this service; ANY_AUDIENCE, if tokens for anybody are to be accepted"
        if not 0 <= self.leeway <= MAX_LEEWAY:
            yield f"leeway: {self.leeway!r} is not between 0 and {MAX_LEEWAY} seconds; repair the clocks"
        if not 0 < self.list_warn_age <= self.list_refuse_age or not isfinite(self.list_refuse_age):
            yield "list_warn_age, list_refuse_age: positive seconds, and the warning not after the refusal"
