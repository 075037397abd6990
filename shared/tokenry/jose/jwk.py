"""
Public and private signature keys, and their JWK form (RFC 7517, RFC 7518 section 6).

A key is bound to one algorithm when it is made, so nothing that a token says can choose another (RFC 8725
section 3.1). Our own keys are P-256 (ES256); P-384 and RSA are read for foreign issuers only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.arithmetic import openssl_verifier, p256_verifier
from tokenry.jose.encoding import b64url_decode, b64url_encode, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

MAX_KID_LENGTH = 256
"""Characters: a thumbprint has 43; a longer id would only be a way to fill our logs."""

MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
MAX_RSA_BITS = 8192
"""A verification takes time that grows with the square of the size; nobody signs tokens with more."""

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # RFC 7518 sections 6.2.2, 6.3.2, 6.4


class Algorithm(StrEnum):
    """The signature algorithms that we read; we sign with ES256 only (RFC 7518 section 3.1)."""

    ES256 = "ES256"
    ES384 = "ES384"
    RS256 = "RS256"


class BadSignature(TokenryError):
    """The signature is not one that this key made over these bytes."""


@dataclass(frozen=True, slots=True)
class _Ecdsa:
    """
    ECDSA on one curve, with signatures as r and s side by side (RFC 7518 section 3.4).

    Numbers of a signature are compared as big-endian bytes of one length, which sort as the numbers do.
    """

    curve: ec.EllipticCurve
    crv: str
    size: int
    order: int
    digest: Callable[[bytes], hashlib._Hash]
    verifier: Callable[[ec.EllipticCurvePublicKey], Callable[[bytes, bytes], None]]
    order_bytes: bytes = field(init=False)
    half_order_bytes: bytes = field(init=False)
    zero: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order_bytes", self.order.to_bytes(self.size, "big"))
        object.__setattr__(self, "half_order_bytes", (self.order // 2).to_bytes(self.size, "big"))
        object.__setattr__(self, "zero", bytes(self.size))

    def der(self, signature: bytes, *, low_s: bool) -> bytes:
        """
        Return r || s as the DER form that the cryptography takes.

        Raises:
            BadSignature: The length is wrong, r or s is not within 1..n-1, or s is high where *low_s* is
                demanded.
        """
        size = self.size
        r, s = signature[:size], signature[size:]
        if (
            len(signature) != 2 * size
            or not self.zero < r < self.order_bytes
            or not self.zero < s < self.order_bytes
            or (low_s and s > self.half_order_bytes)
        ):
            raise BadSignature("not an ECDSA signature of this curve in its one form")
        # Written out, because the general encoder costs more than all of the checks above; never above 127
        # bytes.
        r, s = r.lstrip(b"\0"), s.lstrip(b"\0")
        if r[0] & 0x80:
            r = b"\0" + r
        if s[0] & 0x80:
            s = b"\0" + s
        return b"\x30%c\x02%c%b\x02%c%b" % (len(r) + len(s) + 4, len(r), r, len(s), s)

    def low_raw(self, der: bytes) -> bytes:
        """Return a DER signature as r || s with s in the lower half."""
        r, s = decode_dss_signature(der)
        return r.to_bytes(self.size, "big") + min(s, self.order - s).to_bytes(self.size, "big")

    def low_raw_of_ours(self, der: bytes) -> bytes:
        """
        Do as `low_raw` does for a signature that this process's own OpenSSL has just made, in half of its time.

        Two integers of at most one leading zero each, in a sequence of at most 127 bytes: the offsets are known.
        """
        size = self.size
        end = 4 + der[3]
        r, s = der[4:end][-size:].rjust(size, b"\0"), der[end + 2 :][-size:].rjust(size, b"\0")
        if s > self.half_order_bytes:
            s = (self.order - int.from_bytes(s, "big")).to_bytes(size, "big")
        return r + s

    def twin(self, signature: bytes) -> bytes:
        """Return the other signature that verifies under the same key over the same bytes: (r, n - s)."""
        s = int.from_bytes(signature[self.size :], "big")
        return signature[: self.size] + (self.order - s).to_bytes(self.size, "big")


P256 = _Ecdsa(
    curve=ec.SECP256R1(),
    crv="P-256",
    size=32,
    order=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    digest=hashlib.sha256,
    verifier=p256_verifier,
)
P384 = _Ecdsa(
    curve=ec.SECP384R1(),
    crv="P-384",
    size=48,
    order=0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    digest=hashlib.sha384,
    verifier=partial(openssl_verifier, scheme=ec.ECDSA(Prehashed(hashes.SHA384()))),
)
ECDSA = {Algorithm.ES256: P256, Algorithm.ES384: P384}

_RSA_PADDING = padding.PKCS1v15()
_SHA256 = hashes.SHA256()


def _signing_scheme(*, deterministic: bool = True) -> ec.ECDSA:
    """Return ECDSA that derives its nonce from key and message (RFC 6979) where the installed OpenSSL can."""
    try:
        return ec.ECDSA(hashes.SHA256(), deterministic_signing=deterministic)
    except UnsupportedAlgorithm:  # pragma: no cover -- OpenSSL before 3.2; then its random generator gives the nonce
        return ec.ECDSA(hashes.SHA256())


_SIGNING_SCHEME = _signing_scheme()


@dataclass(frozen=True, slots=True, eq=True)
class PublicKey:
    """
    A key that verifies signatures of one algorithm.

    Attributes:
        kid: Key id, as its JWK Set names it.
        algorithm: The one algorithm that it is used with.
        members: The members of its JWK that make the key (RFC 7638 section 3.2).
    """

    kid: str
    algorithm: Algorithm
    members: tuple[tuple[str, str], ...] = field(repr=False)
    _key: Any = field(repr=False, compare=False)
    _curve: _Ecdsa | None = field(init=False, repr=False, compare=False)
    _verify: Callable[[bytes, bytes], None] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look up once what verifies, not at every verification."""
        curve = ECDSA.get(self.algorithm)
        object.__setattr__(self, "_curve", curve)
        object.__setattr__(self, "_verify", None if curve is None else curve.verifier(self._key))

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any], *, algorithms: Collection[Algorithm] = (Algorithm.ES256,)) -> PublicKey:
        """
        Return the key that *jwk* describes, if it verifies signatures with one of *algorithms*.

        Raises:
            ProtocolError: A member is missing or malformed, the point is not on the curve, an RSA key is too
                small or too large, there are private members, or the key is meant for something else.
        """
        kid = _kid(jwk)
        _check_purpose(jwk)
        algorithm = _algorithm(jwk)
        if algorithm not in algorithms:
            raise ProtocolError(f"{algorithm} is not configured for this issuer")
        if algorithm is Algorithm.RS256:
            return cls(kid, algorithm, *_rsa_key(jwk))
        return cls(kid, algorithm, *_ec_key(jwk, ECDSA[algorithm]))

    def to_jwk(self) -> dict[str, str]:
        """Return the JWK: the key, its id, what it is for, and its algorithm; nothing else."""
        return dict(self.members) | {"kid": self.kid, "use": "sig", "alg": str(self.algorithm)}

    def verify(self, signing_input: bytes, signature: bytes, *, low_s: bool) -> None:
        """
        Return if *signature* was made by this key over *signing_input* (RFC 7515 section 5.2).

        Args:
            signing_input: The bytes `header.payload`.
            signature: r || s, or an RSASSA-PKCS1-v1_5 signature.
            low_s: Whether only the lower half of s is accepted, so that one signature has one form.

        Raises:
            BadSignature: It was not.
        """
        try:
            curve, verify = self._curve, self._verify
            if curve is None or verify is None:
                self._key.verify(signature, signing_input, _RSA_PADDING, _SHA256)
            else:
                # Hashed by the standard library: its call costs a microsecond less than the cryptography's.
                verify(curve.digest(signing_input).digest(), curve.der(signature, low_s=low_s))
        except InvalidSignature:
            raise BadSignature("the signature does not verify") from None


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """
    Return the SHA-256 thumbprint of a public or private EC or RSA key (RFC 7638 section 3).

    Raises:
        ProtocolError: A required member is missing or no string, or the key type is another one.
    """
    required = _REQUIRED_MEMBERS.get(_text(jwk, "kty"))
    if required is None:
        raise ProtocolError("only EC and RSA keys have a thumbprint here")
    members = {name: _text(jwk, name) for name in required}
    return b64url_encode(hashlib.sha256(dump_json(members)).digest())


_REQUIRED_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}  # in the order that is hashed


class Signer(Protocol):
    """What signs tokens: a key in memory, or one that a key management service holds."""

    @property
    def kid(self) -> str:
        """Id of the key."""
        ...

    @property
    def algorithm(self) -> Algorithm:
        """The one algorithm that it signs with."""
        ...

    def sign(self, signing_input: bytes) -> bytes:
        """Return r || s over *signing_input*, with s in the lower half."""
        ...


class PrivateKey:
    """
    A P-256 key in memory that signs with ES256; it is never printed and cannot be pickled.

    Attributes:
        kid: Its RFC 7638 thumbprint.
        public: The half that may be published.
    """

    __slots__ = ("_key", "kid", "public")

    algorithm = Algorithm.ES256

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        """
        Wrap *key*.

        Raises:
            ProtocolError: It is on another curve.
        """
        if not isinstance(key.curve, ec.SECP256R1):
            raise ProtocolError(f"tokens are signed with P-256, not {key.curve.name}")
        members = _ec_members(key.public_key().public_numbers(), P256)
        self._key = key
        self.kid = thumbprint(members)
        self.public = PublicKey(self.kid, Algorithm.ES256, tuple(members.items()), key.public_key())

    @classmethod
    def generate(cls) -> PrivateKey:
        """Return a new key."""
        return cls(ec.generate_private_key(P256.curve))

    @classmethod
    def from_pem(cls, pem: bytes) -> PrivateKey:
        """
        Return the key of an unencrypted PEM file.

        Raises:
            ProtocolError: It is not a P-256 private key.
        """
        return cls._load(serialization.load_pem_private_key, pem)

    @classmethod
    def from_pkcs8_der(cls, der: bytes) -> PrivateKey:
        """
        Return the key of an unencrypted PKCS #8 structure (RFC 5958).

        Raises:
            ProtocolError: It is not a P-256 private key.
        """
        return cls._load(serialization.load_der_private_key, der)

    @classmethod
    def _load(cls, load: Any, data: bytes) -> PrivateKey:  # noqa: ANN401 -- one of the library's two loaders
        try:
            key = load(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # Without the cause: what the loader says may quote the key.
            raise ProtocolError("not an unencrypted private key") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ProtocolError("not an elliptic curve private key")
        return cls(key)

    def to_pkcs8_der(self) -> bytes:
        """Return the secret itself, unencrypted: only to be sealed."""
        return self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, signing_input: bytes) -> bytes:
        """Return r || s over *signing_input* (RFC 7518 section 3.4), nonce by RFC 6979, s at most n/2."""
        return P256.low_raw_of_ours(self._key.sign(signing_input, _SIGNING_SCHEME))

    def __repr__(self) -> str:
        """Name the key, and nothing of its secret."""
        return f"PrivateKey(kid={self.kid!r})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a pickle is a copy in the clear."""
        message = "a private key cannot be pickled: pass the place it is read from instead"
        raise TypeError(message)


def _text(jwk: Mapping[str, Any], name: str) -> str:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"the JWK member {name} is missing or not a string")
    return value


def _kid(jwk: Mapping[str, Any]) -> str:
    kid = _text(jwk, "kid")
    if not 0 < len(kid) <= MAX_KID_LENGTH:
        raise ProtocolError("the kid is empty or too long")
    return kid


def _check_purpose(jwk: Mapping[str, Any]) -> None:
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise ProtocolError("it has private members: this key is known to others now, its owner must replace it")
    if jwk.get("use", "sig") != "sig":
        raise ProtocolError("it is not for signatures (use)")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ProtocolError("it is not for verifying (key_ops)")


def _algorithm(jwk: Mapping[str, Any]) -> Algorithm:
    """Return the one algorithm that fits type and curve; `alg` may only confirm it (RFC 8725 section 3.1)."""
    curve = jwk.get("crv") if jwk.get("kty") == "EC" else None
    match (jwk.get("kty"), curve):
        case ("EC", "P-256"):
            algorithm = Algorithm.ES256
        case ("EC", "P-384"):
            algorithm = Algorithm.ES384
        case ("RSA", _):
            algorithm = Algorithm.RS256
        case _:
            raise ProtocolError("its type or curve is not one that we use")
    if jwk.get("alg", algorithm) != algorithm:
        raise ProtocolError("its alg is not the one of its type and curve")
    return algorithm


def _ec_key(jwk: Mapping[str, Any], curve: _Ecdsa) -> tuple[tuple[tuple[str, str], ...], ec.EllipticCurvePublicKey]:
    x, y = (b64url_decode(_text(jwk, name)) for name in ("x", "y"))
    if len(x) != curve.size or len(y) != curve.size:
        raise ProtocolError(f"a coordinate does not have {curve.size} bytes")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve.curve)
    try:
        key = numbers.public_key()
    except ValueError:
        raise ProtocolError("the point is not on the curve") from None
    return tuple(_ec_members(numbers, curve).items()), key


def _ec_members(numbers: ec.EllipticCurvePublicNumbers, curve: _Ecdsa) -> dict[str, str]:
    """
    Return the members with both coordinates at full length, zeros in front included (RFC 7518 section
    6.2.1.2).
    """
    x, y = (b64url_encode(number.to_bytes(curve.size, "big")) for number in (numbers.x, numbers.y))
    return {"crv": curve.crv, "kty": "EC", "x": x, "y": y}


def _rsa_key(jwk: Mapping[str, Any]) -> tuple[tuple[tuple[str, str], ...], rsa.RSAPublicKey]:
    n, e = (b64url_decode(_text(jwk, name)) for name in ("n", "e"))
    if n[:1] in (b"", b"\0") or e[:1] in (b"", b"\0"):
        raise ProtocolError("a number is empty or has zeros in front")  # RFC 7518 section 2, Base64urlUInt
    modulus, exponent = int.from_bytes(n, "big"), int.from_bytes(e, "big")
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise ProtocolError(f"the modulus does not have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if not _MIN_RSA_EXPONENT <= exponent < _MAX_RSA_EXPONENT or exponent % 2 == 0 or modulus % 2 == 0:
        raise ProtocolError("the exponent or the modulus is not that of a sound RSA key")
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return (("e", _text(jwk, "e")), ("kty", "RSA"), ("n", _text(jwk, "n"))), key


_MIN_RSA_EXPONENT = 65537  # FIPS 186-5 section A.1.1: larger than 2^16
_MAX_RSA_EXPONENT = 1 << 32  # a longer one only costs time
