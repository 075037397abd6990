"""
X.509 certificates as far as mutual TLS needs them (RFC 8705 section 2): names, and the key.

Nothing here builds or checks a chain: whoever ended the TLS connection did that, or said that it did not. Of a
service's own certificate the end alone is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import b64url_encode
from tokenry.jose.jwk import thumbprint

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_CERTIFICATE_BYTES = 16 * 1024  # DER; an RSA-4096 leaf with a long list of names has 4 KiB
_CURVES = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """
    What a client certificate says.

    Attributes:
        subject: The distinguished name as RFC 4514 writes it.
        dns: DNS names among the subject's alternative names.
        uri: URIs among them.
        ip: IP addresses among them, in their canonical form.
        email: Mail addresses among them.
        key_thumbprint: Thumbprint of the public key (RFC 7638); None for a kind of key that we do not read.
        not_before: Unix seconds from which it is valid.
        not_after: Unix seconds from which it is no longer.
    """

    subject: str
    dns: frozenset[str]
    uri: frozenset[str]
    ip: frozenset[str]
    email: frozenset[str]
    key_thumbprint: str | None
    not_before: float
    not_after: float


def read_certificate(der: bytes) -> Certificate:
    """
    Return what the certificate *der* says.

    Raises:
        ProtocolError: It is none, or larger than `MAX_CERTIFICATE_BYTES`.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise ProtocolError("the certificate is too large")
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = _alternative_names(certificate)
        return Certificate(
            subject=certificate.subject.rfc4514_string(),
            dns=frozenset(names.get_values_for_type(x509.DNSName)),
            uri=frozenset(names.get_values_for_type(x509.UniformResourceIdentifier)),
            ip=frozenset(map(str, names.get_values_for_type(x509.IPAddress))),
            email=frozenset(names.get_values_for_type(x509.RFC822Name)),
            key_thumbprint=_key_thumbprint(certificate),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
        )
    except Exception:  # noqa: BLE001 -- the parser's exceptions for what is malformed have no common root
        # Without the cause: what the parser says may quote the certificate.
        raise ProtocolError("not a certificate that can be read") from None


def end_of_chain_file(pem: bytes) -> float:
    """
    Return the Unix seconds at which the first certificate of *pem* ends: the one that a server shows as its own.

    Raises:
        ProtocolError: It holds no certificate that can be read.
    """
    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    except Exception:  # noqa: BLE001 -- as above
        raise ProtocolError("no certificate as PEM that can be read") from None


def canonical_name(text: str) -> str:
    """
    Return the distinguished name *text* (RFC 4514) in the spelling of `Certificate.subject`.

    Raises:
        ProtocolError: It is none, or empty.
    """
    try:
        name = x509.Name.from_rfc4514_string(text).rfc4514_string()
    except ValueError:
        raise ProtocolError("not a distinguished name such as CN=orders,O=Example (RFC 4514)") from None
    if not name:
        raise ProtocolError("an empty distinguished name is that of every certificate without one")
    return name


class _NoNames:
    """The alternative names of a certificate that has none."""

    def get_values_for_type(self, _type: object) -> list[str]:
        return []


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | _NoNames:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except x509.ExtensionNotFound:
        return _NoNames()
    return found.value if isinstance(found.value, x509.SubjectAlternativeName) else _NoNames()


def _key_thumbprint(certificate: x509.Certificate) -> str | None:
    members = _key_members(certificate.public_key())
    return None if members is None else thumbprint(members)


def _key_members(key: object) -> Mapping[str, str] | None:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        crv, size = _CURVES[key.curve.name]
        point = key.public_numbers()
        x, y = (b64url_encode(number.to_bytes(size, "big")) for number in (point.x, point.y))
        return {"kty": "EC", "crv": crv, "x": x, "y": y}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    return None


def _number(number: int) -> str:
    return b64url_encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))
