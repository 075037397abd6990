"""Client certificates: of an authority made for the tests, and self-signed ones."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

if TYPE_CHECKING:
    from pathlib import Path

_EPOCH = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_END = dt.datetime(2049, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def jwk(self) -> dict[str, Any]:
        members: dict[str, Any] = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {name: members[name] for name in ("kty", "crv", "x", "y")}

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write certificate and key; return both paths."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        paths[0].write_bytes(self.pem)
        paths[1].write_bytes(self.key_pem)
        return paths


def make_identity(
    subject: str = "CN=orders,O=Example",
    *,
    issuer: Identity | None = None,
    authority: bool = False,
    dns: tuple[str, ...] = (),
    uri: tuple[str, ...] = (),
    ip: tuple[str, ...] = (),
    email: tuple[str, ...] = (),
    until: dt.datetime = _END,
    curve: ec.EllipticCurve | None = None,
) -> Identity:
    """Return a new certificate, signed by *issuer* or by itself."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    name = x509.Name.from_rfc4514_string(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_EPOCH)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    names: list[x509.GeneralName] = [
        *map(x509.DNSName, dns),
        *map(x509.UniformResourceIdentifier, uri),
        *(x509.IPAddress(ipaddress.ip_address(each)) for each in ip),
        *map(x509.RFC822Name, email),
    ]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signer = key if issuer is None else issuer.key
    return Identity(builder.sign(signer, hashes.SHA256()), key)


@cache
def authority() -> Identity:
    """The authority of the tests."""
    return make_identity("CN=Test Authority", authority=True)


@cache
def client_identity(name: str = "orders") -> Identity:
    """A client of that authority."""
    return make_identity(f"CN={name},O=Example", issuer=authority(), dns=(f"{name}.example.org",))


@cache
def self_signed(name: str = "orders") -> Identity:
    """A certificate that nobody vouches for."""
    return make_identity(f"CN={name}")
