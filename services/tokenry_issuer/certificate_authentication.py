"""Authenticating clients by the certificate of their TLS connection (RFC 8705 section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenry.errors import ProtocolError
from tokenry.oauth.errors import invalid_client
from tokenry_issuer.passwords import WrongSecret

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry.oauth.mutual_tls import PresentedCertificate
    from tokenry_issuer.admission import Admission
    from tokenry_issuer.registry import RealmCredentials
    from tokenry_registry.realms import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """
    A client that names itself, and a certificate to prove it.

    Attributes:
        client_id: The client that the form names (RFC 8705 section 2 requires it).
        certificate: The certificate of the connection.
    """

    client_id: str
    certificate: PresentedCertificate


class CertificateAuthenticator:
    """Judges certificates."""

    def __init__(self, *, admission: Admission, clock: Clock) -> None:
        """Judge at the time of *clock*, counting failures in *admission*."""
        self._admission = admission
        self._clock = clock

    async def client(self, presented: ClientCertificate, *, credentials: RealmCredentials, address: str) -> Client:
        """
        Return the client whose certificate it is.

        Raises:
            OAuthError: 401 `invalid_client`, 429 after too many failures.
        """
        subject = ("client", credentials.realm.name, presented.client_id)
        delay = await self._admission.admit(subject, address)
        try:
            client = self._known(presented, credentials)
        except (ProtocolError, WrongSecret) as why:
            await self._admission.failed(subject, address, delay=delay)
            raise invalid_client() from why
        self._admission.succeeded(subject, address)
        return client

    def _known(self, presented: ClientCertificate, credentials: RealmCredentials) -> Client:
        client = credentials.clients.get(presented.client_id)
        if client is None:
            raise WrongSecret("unknown client")
        if not client.enabled:
            raise WrongSecret("client is disabled")
        if client.tls is None:
            raise WrongSecret("client is not known by a certificate")
        client.tls.check(presented.certificate, now=self._clock.now())
        return client
