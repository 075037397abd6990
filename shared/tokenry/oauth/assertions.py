"""
JWT assertions (RFC 7523, with the tightening of its 2026 update): what proves a client, or stands in for a grant.

The steps of `verify_assertion`, in order:

1. shape: a compact JWS of bounded size, strict JSON, no critical extension (`read_assertion`);
2. type: none, `JWT`, or one that is expected; never that of an access token;
3. algorithm: one that is expected here, and the key's own;
4. key: among the keys that were configured for this issuer, never one that the assertion brings along;
5. signature;
6. `iss` and `sub` are the expected ones;
7. `aud` is exactly one value, and one that names us;
8. times: `exp` is there, ahead, and not too far ahead; `nbf` and `iat` do not lie in the future.

Whether its `jti` was used before is the caller's to remember: a core has no memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jwk import Algorithm, BadSignature
from tokenry.jose.jws import MalformedJws, split

if TYPE_CHECKING:
    from collections.abc import Collection

    from tokenry.jose.jwk import PublicKey
    from tokenry.jose.jwks import KeySet
    from tokenry.jose.jws import UnverifiedJws

CLIENT_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
CLIENT_AUTHENTICATION_TYP: Final = "client-authentication+jwt"
_APPLICATION: Final = "application/"  # a media type may be written without it (RFC 7515 section 4.1.9)

MAX_ASSERTION_BYTES: Final = 16 * 1024
"""A projected service account token with its RSA signature has 1.5 KiB, one with all of its claims twice that."""

MAX_ISSUER: Final = 512  # characters of `iss` and `sub`; a role's name in a cloud has some 150
MAX_JTI: Final = 256  # characters; a UUID has 36
MAX_CLIENT_ASSERTION_AHEAD: Final = 300.0  # seconds until `exp`: how long an assertion has to be remembered
LEEWAY: Final = 5.0  # seconds by which the clock of whoever made it may be ahead of ours
_LATEST: Final = 253_402_300_799  # the end of the year 9999


class AssertionFault(StrEnum):
    """What is wrong with an assertion: for the audit record and metrics, never for the caller."""

    MALFORMED = "malformed"
    WRONG_TYPE = "wrong_type"
    WRONG_ALGORITHM = "wrong_algorithm"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_SUBJECT = "wrong_subject"
    WRONG_AUDIENCE = "wrong_audience"
    NO_EXPIRY = "no_expiry"
    EXPIRED = "expired"
    TOO_LONG = "too_long"
    NOT_YET_VALID = "not_yet_valid"
    NO_ID = "no_id"


class BadAssertion(ProtocolError):
    """
    The assertion proves nothing.

    Attributes:
        fault: The first step that failed.
    """

    def __init__(self, fault: AssertionFault) -> None:
        """Refuse for *fault*."""
        self.fault = fault
        super().__init__(f"the assertion is not valid ({fault})")


@dataclass(frozen=True, slots=True)
class UnverifiedAssertion:
    """
    An assertion as it came. What it says decides at most what it is to be verified against.

    Attributes:
        iss: Who claims to have made it.
        sub: Whom it claims to speak of.
        claims: All claims.
        jws: Its parts.
    """

    iss: str
    sub: str
    claims: dict[str, Any] = field(repr=False)
    jws: UnverifiedJws = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionRules:
    """
    What an assertion must be, at one place.

    Attributes:
        issuer: The one `iss`.
        keys: That issuer's keys.
        algorithms: What they may sign with here.
        audiences: Our names, one of which `aud` must be.
        max_ahead: Seconds from now until `exp`, at most.
        max_lifetime: Seconds from `iat` to `exp` at most, where `iat` is there; None: no bound but *max_ahead*.
        subject: The one `sub`; None: any, to be judged by the caller.
        types: Values of `typ` that are accepted besides none at all and `JWT`.
        needs_jti: Whether an assertion without `jti` is refused.
    """

    issuer: str
    keys: KeySet
    audiences: frozenset[str]
    max_ahead: float
    algorithms: tuple[Algorithm, ...] = (Algorithm.ES256,)
    max_lifetime: float | None = None
    subject: str | None = None
    types: frozenset[str] = frozenset()
    needs_jti: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedAssertion:
    """
    What a verified assertion says. Only `verify_assertion` makes these.

    Attributes:
        iss: Issuer.
        sub: Subject.
        audience: The one audience.
        expires_at: Unix seconds; until then its id is to be remembered.
        jti: Its id, or None.
        kid: Id of the key that signed it.
        claims: All claims.
    """

    iss: str
    sub: str
    audience: str
    expires_at: float
    jti: str | None
    kid: str
    claims: dict[str, Any] = field(repr=False)


def read_assertion(text: str) -> UnverifiedAssertion:
    """
    Return the parts of an assertion, without verifying anything (step 1).

    Raises:
        BadAssertion: It is no JWT with `iss` and `sub`.
    """
    try:
        jws = split(text, max_bytes=MAX_ASSERTION_BYTES)
        claims = parse_json_object(jws.payload)
    except (MalformedJws, ProtocolError):
        raise BadAssertion(AssertionFault.MALFORMED) from None
    iss, sub = claims.get("iss"), claims.get("sub")
    if not _is_name(iss) or not _is_name(sub):
        raise BadAssertion(AssertionFault.MALFORMED)
    return UnverifiedAssertion(iss=iss, sub=sub, claims=claims, jws=jws)


def verify_assertion(assertion: UnverifiedAssertion, rules: AssertionRules, *, now: float) -> VerifiedAssertion:
    """
    Return what *assertion* says, if it is one by *rules* at Unix time *now* (steps 2 to 8).

    Raises:
        BadAssertion: With the first step that failed.
    """
    header, claims = assertion.jws.header, assertion.claims
    _check_type(header.get("typ"), rules.types)  # 2.
    key = _key(header, rules)  # 3. and 4.
    try:
        # 5. Whoever signed may be any library: both halves of s are accepted.
        key.verify(assertion.jws.signing_input, assertion.jws.signature, low_s=False)
    except BadSignature:
        raise BadAssertion(AssertionFault.BAD_SIGNATURE) from None
    if assertion.iss != rules.issuer:  # 6.
        raise BadAssertion(AssertionFault.WRONG_ISSUER)
    if rules.subject is not None and assertion.sub != rules.subject:
        raise BadAssertion(AssertionFault.WRONG_SUBJECT)
    return VerifiedAssertion(
        iss=assertion.iss,
        sub=assertion.sub,
        audience=_audience(claims, rules.audiences),  # 7.
        expires_at=_expiry(claims, rules, now=now),  # 8.
        jti=_jti(claims, needed=rules.needs_jti),
        kid=key.kid,
        claims=claims,
    )


def _is_name(value: Any) -> TypeGuard[str]:  # noqa: ANN401 -- any JSON value
    return type(value) is str and 0 < len(value) <= MAX_ISSUER and value.isprintable()


def _check_type(typ: str | None, expected: Collection[str]) -> None:
    # RFC 8725 section 3.11: what names itself something else is something else.
    name = (typ or "JWT").lower().removeprefix(_APPLICATION)
    if name != "jwt" and name not in expected:
        raise BadAssertion(AssertionFault.WRONG_TYPE)


def _key(header: dict[str, Any], rules: AssertionRules) -> PublicKey:
    """Return the one key that the header names; one that has no `kid` may leave it out if it is the only one."""
    algorithm = header.get("alg")
    if algorithm not in rules.algorithms:
        raise BadAssertion(AssertionFault.WRONG_ALGORITHM)
    kid = header.get("kid")
    if kid is None and len(rules.keys) == 1:
        key: PublicKey | None = next(key for _, key in rules.keys.items())
    else:
        key = rules.keys.find(rules.issuer, kid) if kid is not None else None
    if key is None:
        raise BadAssertion(AssertionFault.UNKNOWN_KEY)
    if key.algorithm != algorithm:
        raise BadAssertion(AssertionFault.WRONG_ALGORITHM)
    return key


def _audience(claims: dict[str, Any], audiences: frozenset[str]) -> str:
    """Return the audience: exactly one value, byte for byte one of ours, alone or alone in a list."""
    aud = claims.get("aud")
    if type(aud) is list and len(aud) == 1:
        aud = aud[0]
    if type(aud) is not str or aud not in audiences:
        raise BadAssertion(AssertionFault.WRONG_AUDIENCE)
    return aud


def _expiry(claims: dict[str, Any], rules: AssertionRules, *, now: float) -> float:
    """Comparisons are such that a *now* that is no number refuses."""
    if "exp" not in claims:
        raise BadAssertion(AssertionFault.NO_EXPIRY)
    exp = _date(claims["exp"])
    if not now < exp:
        raise BadAssertion(AssertionFault.EXPIRED)
    if not exp - now <= rules.max_ahead:
        raise BadAssertion(AssertionFault.TOO_LONG)
    for name in ("nbf", "iat"):
        if name in claims and not _date(claims[name]) <= now + LEEWAY:
            raise BadAssertion(AssertionFault.NOT_YET_VALID)
    if rules.max_lifetime is not None and "iat" in claims and exp - _date(claims["iat"]) > rules.max_lifetime:
        raise BadAssertion(AssertionFault.TOO_LONG)
    return exp


def _date(value: Any) -> float:  # noqa: ANN401 -- any JSON value
    """Return a NumericDate, which may have a fraction (RFC 7519 section 2); a bool is an `int` to Python."""
    if type(value) not in (int, float) or not 0 <= value <= _LATEST:
        raise BadAssertion(AssertionFault.MALFORMED)
    return float(value)


def _jti(claims: dict[str, Any], *, needed: bool) -> str | None:
    if "jti" not in claims:
        if needed:
            raise BadAssertion(AssertionFault.NO_ID)
        return None
    jti = claims["jti"]
    if type(jti) is not str or not 0 < len(jti) <= MAX_JTI:
        raise BadAssertion(AssertionFault.MALFORMED)
    return jti
