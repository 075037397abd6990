"""Signed statements of one type: a JWS that can never be taken for one of another type (RFC 8725 section 3.11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenry.errors import ProtocolError
from tokenry.jose import jws
from tokenry.jose.jwk import BadSignature

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.jose.jwk import PublicKey


class UntrustedStatement(ProtocolError):
    """A signed statement must not be believed: it has another form or type, or its signature is not good."""


class UnknownSigner(UntrustedStatement):
    """It names a key that is not at hand; with fresher keys it might be good."""


def verified_payload(text: str, *, typ: str, find: Callable[[str], PublicKey | None], max_bytes: int) -> bytes:
    """
    Return the payload of the compact JWS *text*, whose signature was verified.

    Args:
        text: As received.
        typ: The type that its header must name, in short (`x+jwt`) or in full (`application/x+jwt`).
        find: Returns the trusted key of an id.
        max_bytes: A longer text is refused unread.

    Raises:
        UnknownSigner: It names no trusted key.
        UntrustedStatement: It is malformed, of another type or algorithm, or its signature is not good.
    """
    try:
        parts = jws.split(text, max_bytes=max_bytes)
    except jws.MalformedJws as error:
        raise UntrustedStatement(f"not a statement of type {typ}: {error}") from None
    if parts.header.get("typ") not in {typ, f"application/{typ}"}:
        raise UntrustedStatement(f"not a statement of type {typ}: its header names another type")
    kid = parts.header.get("kid")
    key = find(kid) if isinstance(kid, str) else None
    if key is None:
        raise UnknownSigner(f"the statement of type {typ} names no trusted key")
    if parts.header.get("alg") != key.algorithm:
        raise UntrustedStatement(f"the statement of type {typ} names another algorithm than its key's")
    try:
        key.verify(parts.signing_input, parts.signature, low_s=True)
    except BadSignature:
        raise UntrustedStatement(f"the signature of the statement of type {typ} is not good") from None
    return parts.payload
