"""
From a compact token to what it says: the steps of RFC 9068 section 4 and RFC 8725 section 3, in a fixed
order.

1. shape: size, three segments, canonical base64url
2. header: strict JSON, no critical extension, algorithm and type
3. key: the issuer is trusted, and the key is that issuer's
4. signature
5. claims: strict JSON, every type
6. times
7. audience, and that the key whose possession the token demands is the caller's
8. revocation
9. scope

Each finding has its code (`tokenry.errors.Reason`). Steps 1 to 5 say the same of a token for ever, so that
they are remembered for tokens that come again; 6 to 9 are done at each use.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tokenry.errors import (
    InsufficientScope,
    InvalidToken,
    ProtocolError,
    Reason,
    UnknownKey,
    Unready,
    ValidatorNotReady,
)
from tokenry.jose.encoding import b64url_decode, parse_json_object
from tokenry.jose.jwk import MAX_KID_LENGTH, Algorithm, BadSignature
from tokenry.jose.jws import MalformedJws, parse_header, segments
from tokenry.oauth.confirmation import NOTHING, Shown, demanded_by, is_met
from tokenry.revocation.judged import JudgedToken
from tokenry.scope import NO_SCOPE, Scope
from tokenry.validation.claim_set import read_claim_set
from tokenry.validation.memory import VerifiedToken, VerifiedTokens

if TYPE_CHECKING:
    from tokenry.claims import TokenInfo
    from tokenry.jose.jwk import PublicKey
    from tokenry.jose.jwks import KeySet
    from tokenry.revocation.lists import RevocationList
    from tokenry.revocation.rules import Hit
    from tokenry.validation.policy import TrustedIssuer, ValidationPolicy

REMEMBERED: Final = 20_000
"""Tokens in use at one service at one time; about 4 kB each, so 80 MB when all of them are there."""

MAX_HEADERS: Final = 256
"""Headers of accepted tokens that are kept parsed: one a key and spelling."""

_TYPED: Final = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068 section 2.1


class Confirmation(Enum):
    """The type of `ANY_CONFIRMATION`."""

    ANY = "any confirmation"


ANY_CONFIRMATION: Final = Confirmation.ANY
"""
Accept a token that is bound to a certificate or a key without comparing it: for introspection, whose caller gets `cnf`
and compares it (RFC 8705 section 3.2, RFC 9449 section 6.2), and for nobody who acts upon the token.
"""


class RevokedToken(InvalidToken):
    """
    The token is good but for its revocation.

    Attributes:
        hit: What revoked it.
        info: What it says; it must not be acted upon.
    """

    def __init__(self, hit: Hit, info: TokenInfo) -> None:
        """Refuse because of *hit*."""
        self.hit = hit
        self.info = info
        super().__init__(Reason.REVOKED)


class _Header(NamedTuple):
    """What of a header decides; a function of its text alone."""

    kid: str
    algorithm: Algorithm
    is_typed: bool


class Validator:
    """
    Judges access tokens by one policy. It never waits and reads no clock: keys, list and time are arguments.

    One validator may be used by several threads. It counts, logs and sends nothing.
    """

    def __init__(self, policy: ValidationPolicy, *, remembered: int = REMEMBERED) -> None:
        """Validate by *policy*; remember the verification of at most *remembered* tokens (0: of none)."""
        self.policy = policy
        self._issuers = {trusted.issuer: trusted for trusted in policy.issuers}
        self._audiences = policy.audiences
        self._verified = VerifiedTokens(remembered)
        self._headers: dict[bytes, _Header] = {}
        self._list: tuple[RevocationList | None, object] = (None, object())

    def validate(
        self,
        token: str,
        *,
        now: float,
        keys: KeySet | None,
        revocations: RevocationList | None,
        list_age: float,
        scope: Scope = NO_SCOPE,
        audience: str | None = None,
        confirmation: str | Shown | Confirmation | None = None,
    ) -> TokenInfo:
        """
        Return what *token* says if it may be acted upon at *now*.

        Args:
            token: Compact JWS as received.
            now: Unix seconds.
            keys: The trusted issuers' keys; None before the first were loaded.
            revocations: The revocation list; None before the first was loaded.
            list_age: Seconds since *revocations* was complete.
            scope: Scopes that the token must have, all of them.
            audience: A name that `aud` must contain as well.
            confirmation: Thumbprint (`x5t#S256`) of the certificate that the caller presented; or all that it has
                shown, a key among it; None for nothing.

        Raises:
            InvalidToken: With the first step that failed.
            UnknownKey: The key is not in the issuer's key set; it may have been published since.
            InsufficientScope: The token is good and lacks scopes.
            ValidatorNotReady: No keys of the issuer, no list, or one that is too old. What can be refused
                without them is refused.
        """
        policy, verified = self.policy, self._verified.get(token)
        if verified is not None and verified.keys is not keys and not verified.is_verified_by(keys):
            self._verified.forget(token)
            verified = None
        is_new = verified is None
        if verified is None:
            verified = self._verify(token, keys)  # steps 1 to 5
        info = verified.info
        # Step 6. The comparisons are such that a *now* that is no number refuses.
        if not now < verified.expires or not verified.not_before <= now + policy.leeway or verified.lives_too_long:
            raise InvalidToken(_untimely(verified, now, policy.leeway))
        # Step 7.
        audiences = self._audiences
        if (audiences is not None and audiences.isdisjoint(info.aud)) or not (audience is None or audience in info.aud):
            raise InvalidToken(Reason.WRONG_AUDIENCE)
        if verified.is_bound or confirmation.__class__ is Shown:
            _check_confirmation(info, confirmation)
        # Step 8. What is revoked on an old list stays revoked; what is not, is good only on one that is fresh.
        asked, mark = self._list
        missed_by, asked_at = verified.missed
        if asked is not revocations or missed_by is not mark or not asked_at <= now:
            self._ask(verified, revocations, now)
        if policy.requires_list and not (revocations is not None and list_age <= policy.list_refuse_age):
            raise ValidatorNotReady(Unready.NO_LIST if revocations is None else Unready.LIST_TOO_OLD)
        if is_new:
            self._verified.admit(token, verified)
        # Step 9.
        if scope and not scope <= info.scope:
            raise InsufficientScope(scope - info.scope)
        return info

    def remembers(self, token: str) -> bool:
        """Tell whether the verification of *token* is remembered; it is judged at each use all the same."""
        return self._verified.get(token) is not None

    def _verify(self, token: str, keys: KeySet | None) -> VerifiedToken:
        """
        Steps 1 to 5.

        A payload that is no JSON object is refused as such before the signature is looked at: its `iss`
        cannot be read, hence no key be found.
        """
        try:
            head, body, tail = segments(token)  # step 1
            payload, signature = b64url_decode(body), b64url_decode(tail)
            known = self._headers.get(head)
            header = known or _read_header(parse_header(head))  # step 2
        except MalformedJws as malformed:
            raise InvalidToken(malformed.reason) from None
        except ProtocolError:
            raise InvalidToken(Reason.NOT_CANONICAL) from None
        try:
            claims = parse_json_object(payload)
        except ProtocolError:
            raise InvalidToken(Reason.MALFORMED_CLAIMS) from None
        issuer = self._issuer(claims, header)  # step 3
        key = _key(issuer, header, keys)
        try:
            key.verify(head + b"." + body, signature, low_s=not issuer.foreign)  # step 4
        except BadSignature:
            raise InvalidToken(Reason.BAD_SIGNATURE) from None
        info = read_claim_set(claims, kid=key.kid, foreign=issuer.foreign)  # step 5
        if known is None:
            self._remember_header(head, header)
        judged = JudgedToken(
            iss=info.iss,
            jti=info.jti,
            kid=info.kid,
            iat=info.iat,
            claims=info.claims,
            signing_input=token[: len(head) + 1 + len(body)],
        )
        assert keys is not None, "a key was found in them"  # noqa: S101 -- for the type checker
        return VerifiedToken(info=info, judged=judged, issuer=issuer, key=key, keys=keys)

    def _issuer(self, claims: dict[str, Any], header: _Header) -> TrustedIssuer:
        """Return the issuer that the claims name, if it is trusted with such a header."""
        iss = claims.get("iss")
        issuer = self._issuers.get(iss) if type(iss) is str else None
        if issuer is None:
            raise InvalidToken(Reason.UNTRUSTED_ISSUER)
        if not header.is_typed and not issuer.accept_untyped:
            raise InvalidToken(Reason.WRONG_TYPE)
        if header.algorithm not in issuer.algorithms:
            raise InvalidToken(Reason.WRONG_ALGORITHM)
        return issuer

    def _remember_header(self, head: bytes, header: _Header) -> None:
        """Keep the header of a verified token parsed: whoever cannot sign fills nothing."""
        if len(self._headers) >= MAX_HEADERS:
            self._headers = {}
        self._headers[head] = header

    def _ask(self, verified: VerifiedToken, revocations: RevocationList | None, now: float) -> None:
        """
        Ask the list, and note that it does not hit, so that this very list need not be asked again later than *now*.

        Tokens keep a mark of the list instead of the list, which would stay in memory with them.
        """
        if revocations is None:
            return
        current = self._list
        if current[0] is not revocations:
            current = self._list = (revocations, object())
        hit = revocations.hits(verified.judged, now=now)
        if hit is not None:
            raise RevokedToken(hit, verified.info)
        verified.missed = (current[1], now)


def _untimely(verified: VerifiedToken, now: float, leeway: float) -> Reason:
    """Return what is wrong with the times of a token that is not good at *now*."""
    if not now < verified.expires:
        return Reason.EXPIRED
    return Reason.LIFETIME_TOO_LONG if verified.not_before <= now + leeway else Reason.NOT_YET_VALID


def _check_confirmation(info: TokenInfo, confirmation: str | Shown | Confirmation | None) -> None:
    """RFC 7800, RFC 8705 section 3, RFC 9449 section 7.1: the token is good only with the keys that it is bound to."""
    demanded = demanded_by(info.claims["cnf"]) if "cnf" in info.claims else NOTHING
    if demanded is None:
        raise InvalidToken(Reason.UNCONFIRMED)
    if not isinstance(confirmation, Confirmation) and not is_met(demanded, confirmation):
        raise InvalidToken(Reason.UNCONFIRMED)


def _read_header(header: dict[str, Any]) -> _Header:
    """
    Return what decides of a header whose members have their types.

    `jku`, `jwk`, `x5u` and `x5c` are never looked at (RFC 8725 section 3.10).
    """
    algorithm, kid = header.get("alg", "none"), header.get("kid", "")
    media_type = header.get("typ", "JWT").lower()
    if algorithm not in _ALGORITHMS:
        raise MalformedJws(Reason.WRONG_ALGORITHM)
    if media_type != "jwt" and media_type not in _TYPED:
        raise MalformedJws(Reason.WRONG_TYPE)
    if not 0 < len(kid) <= MAX_KID_LENGTH:
        raise MalformedJws(Reason.MALFORMED_HEADER)
    return _Header(kid, Algorithm(algorithm), media_type in _TYPED)


_ALGORITHMS: Final = frozenset(map(str, Algorithm))


def _key(issuer: TrustedIssuer, header: _Header, keys: KeySet | None) -> PublicKey:
    """Return that issuer's key of that id, which must be one for that algorithm."""
    key = keys.find(issuer.issuer, header.kid) if keys is not None else None
    if key is None:
        if keys is None or not keys.has_issuer(issuer.issuer):
            raise ValidatorNotReady(Unready.NO_KEYS)
        raise UnknownKey(issuer.issuer)
    if key.algorithm is not header.algorithm:
        raise InvalidToken(Reason.WRONG_ALGORITHM)
    return key
