"""
Mutual TLS (RFC 8705): the certificate that a caller presented, and tokens that are bound to one.

A proxy that ends TLS hands the certificate on in a header field. That field is as good as the proxy: it is read only
where the connection's other end is a proxy that the configuration names; anybody else's is not looked at.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import b64url_encode
from tokenry.oauth.confirmation import X5T_S256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_HEADER: Final = 16 * 1024  # what our HTTP server takes as one line; an RSA-4096 leaf needs a quarter of it
_PEM = re.compile(r"\s*-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")


class HeaderForm(StrEnum):
    """How a proxy writes a certificate into a header field."""

    RFC9440 = "rfc9440"  # `Client-Cert: :MII…:` (RFC 9440 section 2.2), of the DER form
    ESCAPED_PEM = "escaped-pem"  # nginx: `proxy_set_header X-Client-Cert $ssl_client_escaped_cert`


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentedCertificate:
    """
    The certificate whose key the caller has: whoever ended the TLS connection has seen to that.

    Attributes:
        der: The certificate.
        chain_verified: Whether its chain was verified, too; else only its key can be known, not its names.
    """

    der: bytes = field(repr=False)
    chain_verified: bool

    @property
    def thumbprint(self) -> str:
        """The confirmation of tokens that are bound to it."""
        return b64url_encode(hashlib.sha256(self.der).digest())


def read_certificate_header(values: Sequence[str], form: HeaderForm) -> bytes | None:
    """
    Return the certificate (DER) in a header field that a trusted proxy wrote, or None where there is none.

    Args:
        values: Every value of the field; an empty one is how nginx says that there is no certificate.
        form: How the proxy writes it.

    Raises:
        ProtocolError: The field is there twice, or malformed: the proxy is not the one that was configured, or lets
            through what callers write.
    """
    if len(values) > 1:
        raise ProtocolError("the certificate's header field came twice")
    text = values[0].strip() if values else ""
    if not text:
        return None
    if len(text) > MAX_HEADER or not text.isascii():
        raise ProtocolError("the certificate's header field is malformed")
    if form is HeaderForm.RFC9440:  # RFC 8941 section 3.3.5: a byte sequence between colons
        if len(text) < 3 or text[0] != ":" or text[-1] != ":":  # noqa: PLR2004 -- both colons and something between
            raise ProtocolError("the certificate's header field is no byte sequence")
        return _decoded(text[1:-1])
    block = _PEM.fullmatch(unquote(text))
    if block is None:
        raise ProtocolError("the certificate's header field is not one certificate as PEM")
    return _decoded("".join(block[1].split()))


def read_pem(text: str) -> bytes | None:
    """Return the first certificate (DER) in *text*, PEM as TLS servers hand it on, or None where there is none."""
    block = _PEM.match(text[:MAX_HEADER])
    if block is None:
        return None
    try:
        return _decoded("".join(block[1].split()))
    except ProtocolError:
        return None


def thumbprint_of_pem(text: str) -> str | None:
    """Return the thumbprint (`x5t#S256`) of the first certificate in *text*, or None where there is none."""
    der = read_pem(text)
    return None if der is None else PresentedCertificate(der=der, chain_verified=False).thumbprint


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text.encode("ascii"), validate=True)
    except binascii.Error:
        raise ProtocolError("the certificate's header field is no base64") from None


def bound_to(thumbprint: str) -> Mapping[str, str]:
    """Return the claim `cnf` of a token that is bound to the certificate with *thumbprint*."""
    return {X5T_S256: thumbprint}
