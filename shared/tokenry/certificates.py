"""
The certificate of a caller, with which alone a token is good that is bound to one (RFC 8705 section 3).

It is that of the TLS connection where the server hands it on; behind a proxy that ends TLS, the one in a header field:

    AuthMiddleware(app, validator, certificate=ProxyCertificate(proxies=["10.0.0.0/8"]))

Whatever cannot be read is no certificate: a bound token is refused then.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.oauth.mutual_tls import HeaderForm, PresentedCertificate, read_certificate_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class ProxyCertificate:
    """
    The certificate that a proxy hands on.

    The field is read from connections of the listed proxies alone, which must overwrite what callers send. With it,
    the certificate of the connection itself counts no more: that is the proxy's own.

    Args:
        proxies: Their networks, such as `10.0.0.0/8`.
        header: Name of the field.
        form: How they write it: `rfc9440`, or `escaped-pem` (nginx's `$ssl_client_escaped_cert`).

    Raises:
        ConfigurationError: No network is named, or one is none, or the form is not known.
    """

    def __init__(self, *, proxies: Iterable[str], header: str = "Client-Cert", form: str = HeaderForm.RFC9440) -> None:
        """Check the arguments."""
        try:
            self._proxies = tuple(map(ipaddress.ip_network, proxies))
            self._form = HeaderForm(form)
        except ValueError:
            raise ConfigurationError(["ProxyCertificate: networks such as 10.0.0.0/8, a form: rfc9440"]) from None
        if not self._proxies:
            raise ConfigurationError(["ProxyCertificate: name the proxies, else anybody could write the field"])
        self.header = header

    def thumbprint(self, peer: str | None, values: Sequence[str]) -> str | None:
        """
        Return the thumbprint of the certificate that the caller presented to the proxy, or None.

        Args:
            peer: Address of the connection's other end.
            values: Every value of the field.
        """
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return None
        address = getattr(address, "ipv4_mapped", None) or address
        if not any(address in network for network in self._proxies):
            return None
        try:
            der = read_certificate_header(values, self._form)
        except ProtocolError:
            return None
        return None if der is None else PresentedCertificate(der=der, chain_verified=False).thumbprint


__all__ = ["ProxyCertificate"]
