"""
Keys that another system holds and signs with: what it answers, brought into the one form of ours.

Whatever comes back is verified before it is used, so that no fault of that system becomes a token nobody accepts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import b64url_encode
from tokenry.jose.jwk import P256, Algorithm, BadSignature, PublicKey, thumbprint

if TYPE_CHECKING:
    from collections.abc import Callable


class RemoteKey:
    """
    A `Signer` whose private half is elsewhere. `sign` blocks for as long as that takes: call it in a thread.

    Attributes:
        kid: Key id.
        public: Its public half.
    """

    __slots__ = ("_sign", "kid", "public")

    algorithm = Algorithm.ES256

    def __init__(self, public: PublicKey, sign: Callable[[bytes], bytes]) -> None:
        """Sign by *sign*, which returns the DER form of an ECDSA signature with SHA-256 over the bytes it is given."""
        self.kid = public.kid
        self.public = public
        self._sign = sign

    def sign(self, signing_input: bytes) -> bytes:
        """
        Return r || s over *signing_input* (RFC 7518 section 3.4), with s at most n/2.

        Raises:
            BadSignature: What came back is no signature of this key over these bytes.
        """
        try:
            signature = P256.low_raw(self._sign(signing_input))
        except (ValueError, OverflowError):
            raise BadSignature("what came back is no ECDSA signature") from None
        self.public.verify(signing_input, signature, low_s=True)
        return signature

    def __repr__(self) -> str:
        """Name the key."""
        return f"RemoteKey(kid={self.kid!r})"


def public_key_from_spki(der: bytes) -> PublicKey:
    """
    Return the P-256 key of a SubjectPublicKeyInfo (RFC 5480), under its RFC 7638 thumbprint.

    Raises:
        ProtocolError: It is no such key.
    """
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise ProtocolError("not a public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ProtocolError("tokens are signed with P-256")
    numbers = key.public_numbers()
    x, y = (b64url_encode(number.to_bytes(P256.size, "big")) for number in (numbers.x, numbers.y))
    members = {"crv": P256.crv, "kty": "EC", "x": x, "y": y}
    return PublicKey.from_jwk({**members, "kid": thumbprint(members)})
