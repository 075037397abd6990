"""JSON Web Signatures in their compact form (RFC 7515 section 3.1), with one spelling for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tokenry.errors import ProtocolError, Reason
from tokenry.jose.encoding import b64url_bytes, b64url_decode, b64url_encode, dump_json, parse_json_object
from tokenry.jose.jwk import ECDSA, Algorithm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.jose.jwk import Signer

MAX_TOKEN_BYTES = 8 * 1024
"""What common servers take as one header line; a token of ours has about 700 bytes."""

_SEGMENTS = 3


class MalformedJws(ProtocolError):
    """
    It is not a compact JWS that we read.

    Attributes:
        reason: What is wrong: the code of the shape, or of the header.
    """

    def __init__(self, reason: Reason) -> None:
        """Refuse for *reason*."""
        self.reason = reason
        super().__init__(f"not a compact JWS ({reason})")


@dataclass(frozen=True, slots=True)
class UnverifiedJws:
    """
    The parts of a compact JWS. Nothing of it may be believed before `PublicKey.verify` returns.

    Attributes:
        header: The protected header; it has no critical extensions.
        payload: The bytes that were signed.
        signing_input: `header.payload` as it was sent.
        signature: The signature's bytes.
    """

    header: dict[str, Any] = field(repr=False)
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def split(token: str, *, max_bytes: int = MAX_TOKEN_BYTES) -> UnverifiedJws:
    """
    Return the parts of *token*, without verifying it (RFC 7515 section 5.2, steps 1 to 7).

    Raises:
        MalformedJws: It is longer than *max_bytes*, does not have three segments, is not canonical base64url
            without padding, or its header is no strict JSON object or demands an extension (we know none).
    """
    head, body, tail = segments(token, max_bytes=max_bytes)
    return UnverifiedJws(
        header=parse_header(head),
        payload=decode(body),
        signing_input=head + b"." + body,
        signature=decode(tail),
    )


def segments(token: str, *, max_bytes: int = MAX_TOKEN_BYTES) -> list[bytes]:
    """
    Return the three segments of *token*, still encoded.

    Raises:
        MalformedJws: It is longer than *max_bytes*, not ASCII, or does not have three segments.
    """
    if len(token) > max_bytes:
        raise MalformedJws(Reason.TOO_LARGE)
    try:
        parts = token.encode("ascii").split(b".")
    except UnicodeEncodeError:
        raise MalformedJws(Reason.NOT_CANONICAL) from None
    if len(parts) != _SEGMENTS:
        raise MalformedJws(Reason.NOT_COMPACT)
    return parts


def decode(segment: bytes) -> bytes:
    """
    Return the bytes of one segment.

    Raises:
        MalformedJws: It is not canonical base64url without padding.
    """
    try:
        return b64url_decode(segment)
    except ProtocolError:
        raise MalformedJws(Reason.NOT_CANONICAL) from None


def parse_header(segment: bytes) -> dict[str, Any]:
    """
    Return the protected header (RFC 7515 section 4).

    Raises:
        MalformedJws: It is not canonical base64url of a strict JSON object; a registered member does not have
            its type (section 4.1); or it demands an extension, of which we know none: it has `crit` (section
            4.1.11), or `b64`, which would have the payload read in another way (RFC 7797 section 6).
    """
    data = decode(segment)
    try:
        header = parse_json_object(data)
    except ProtocolError:
        raise MalformedJws(Reason.MALFORMED_HEADER) from None
    if "crit" in header or "b64" in header:
        raise MalformedJws(Reason.UNSUPPORTED_CRITICAL)
    if not all(type(value) is _MEMBER_TYPES.get(name, type(value)) for name, value in header.items()):
        raise MalformedJws(Reason.MALFORMED_HEADER)
    return header


_MEMBER_TYPES = {
    **dict.fromkeys(("alg", "cty", "jku", "kid", "typ", "x5t", "x5t#S256", "x5u"), str),
    "jwk": dict,
    "x5c": list,
}


def sign(header: Mapping[str, Any], payload: bytes, signer: Signer) -> str:
    """
    Return *payload* signed by *signer* as a compact JWS (RFC 7515 section 5.1).

    Args:
        header: What the header says besides `alg` and `kid`, which are the signer's.
        payload: The bytes to sign.
        signer: The key.

    Raises:
        ValueError: *header* names another `alg` or `kid` than the signer's.
    """
    if len(header) == 1 and type(typ := header.get("typ")) is str:
        head = _plain_header(signer.algorithm, signer.kid, typ)
    else:
        full = {"alg": str(signer.algorithm), "kid": signer.kid, **header}
        if full["alg"] != signer.algorithm or full["kid"] != signer.kid:
            raise ValueError("alg and kid of a JWS are those of its signer")
        head = b64url_bytes(dump_json(full)) + b"."
    signing_input = head + b64url_bytes(payload)
    return (signing_input + b"." + b64url_bytes(signer.sign(signing_input))).decode("ascii")


@lru_cache(maxsize=64)
def _plain_header(algorithm: Algorithm, kid: str, typ: str) -> bytes:
    """Return the segment, with its dot, that all tokens of one key and type begin with."""
    return b64url_bytes(dump_json({"alg": str(algorithm), "kid": kid, "typ": typ})) + b"."


def twin(token: str) -> str:
    """
    Return the other spelling of *token* that verifies just as well: its ECDSA signature with n - s in place
    of s.

    Whoever looks for a token by a hash of its whole text has to look for both. Other signatures have no twin:
    the token itself is returned.

    Raises:
        MalformedJws: It is not a compact JWS, or its signature does not have its algorithm's length.
    """
    jws = split(token)
    match jws.header.get("alg"):
        case Algorithm.ES256 | Algorithm.ES384 as algorithm:
            curve = ECDSA[Algorithm(algorithm)]
        case _:
            return token
    if len(jws.signature) != 2 * curve.size or not 0 < int.from_bytes(jws.signature[curve.size :], "big") < curve.order:
        raise MalformedJws(Reason.BAD_SIGNATURE)
    return f"{jws.signing_input.decode('ascii')}.{b64url_encode(curve.twin(jws.signature))}"
