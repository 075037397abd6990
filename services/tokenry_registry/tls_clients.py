"""
Clients that are known by their TLS certificate (RFC 8705 section 2). Pure.

    "tls_client_auth": {"subject_dn": "CN=orders,O=Example"}      one of subject_dn, san_dns, san_uri, san_ip, san_email
    "tls_client_auth": {"jwks": {"keys": [...]}}                  self-signed: by the key alone

A name is compared exactly and says something only where the certificate's chain was verified; a key always does.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tokenry.errors import ProtocolError
from tokenry.jose.certificates import canonical_name, read_certificate
from tokenry.jose.jwk import Algorithm, thumbprint
from tokenry_registry.fields import Fields
from tokenry_registry.registered_keys import read_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.jose.certificates import Certificate
    from tokenry.oauth.mutual_tls import PresentedCertificate


class TlsMethod(StrEnum):
    """How a certificate authenticates, as metadata call it."""

    BY_NAME = "tls_client_auth"
    BY_KEY = "self_signed_tls_client_auth"


class WrongCertificate(ProtocolError):
    """The certificate is not the client's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """
    What a client's certificate must be: exactly one thing about it.

    Attributes:
        attribute: Which: a name of the certificate (as the member in the client object), or `jwks`.
        values: The one name, or the thumbprints of the registered keys.
    """

    attribute: str
    values: frozenset[str]

    @property
    def method(self) -> TlsMethod:
        """How the client authenticates."""
        return TlsMethod.BY_KEY if self.attribute == _KEYS else TlsMethod.BY_NAME

    def check(self, presented: PresentedCertificate, *, now: float) -> None:
        """
        Return if *presented* is this client's certificate at Unix time *now*.

        Raises:
            WrongCertificate: It is not.
            ProtocolError: It cannot be read.
        """
        if self.method is TlsMethod.BY_NAME and not presented.chain_verified:
            raise WrongCertificate("nobody verified the certificate's chain")
        certificate = read_certificate(presented.der)
        if not certificate.not_before <= now < certificate.not_after:
            raise WrongCertificate("the certificate is not valid at this time")
        if self.values.isdisjoint(_names(certificate, self.attribute)):
            raise WrongCertificate(f"the certificate's {self.attribute} is another")


_KEYS = "jwks"
_ATTRIBUTES = ("subject_dn", "san_dns", "san_uri", "san_ip", "san_email", _KEYS)


def _names(certificate: Certificate, attribute: str) -> frozenset[str]:
    found: dict[str, frozenset[str]] = {
        "subject_dn": frozenset({certificate.subject}),
        "san_dns": certificate.dns,
        "san_uri": certificate.uri,
        "san_ip": certificate.ip,
        "san_email": certificate.email,
        _KEYS: frozenset() if certificate.key_thumbprint is None else frozenset({certificate.key_thumbprint}),
    }
    return found[attribute]


def read_tls_identity(members: Mapping[str, Any], *, owner: str) -> TlsIdentity:
    """
    Return the identity that a client object registers as `tls_client_auth`.

    Raises:
        ProtocolError: It is not exactly one attribute, or malformed.
    """
    fields = Fields(members)
    jwks = fields.optional_object(_KEYS)
    names = {name: fields.optional_text(name) for name in _ATTRIBUTES if name != _KEYS}
    fields.finish()
    chosen = {name: value for name, value in names.items() if value is not None}
    if len(chosen) + (jwks is not None) != 1:
        raise ProtocolError(f"tls_client_auth has exactly one of {', '.join(_ATTRIBUTES)}")
    if jwks is not None:
        keys = read_keys(jwks, owner=owner, algorithms=tuple(Algorithm))
        return TlsIdentity(attribute=_KEYS, values=frozenset(thumbprint(key.to_jwk()) for _, key in keys.items()))
    [(name, value)] = chosen.items()
    return TlsIdentity(attribute=name, values=frozenset({_canonical(name, value)}))


def _canonical(name: str, value: str) -> str:
    if name == "subject_dn":
        return canonical_name(value)
    if name == "san_ip":
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise ProtocolError("san_ip is no IP address") from None
    return value
