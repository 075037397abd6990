"""
The certificate that a caller presented: of its TLS connection, or in the header field of a trusted proxy.

* A connection from a trusted proxy shows the proxy's own certificate, never the caller's: there only the field counts.
* Any other connection's field was written by the caller: it is not looked at (RFC 9440 section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from tokenry.errors import ProtocolError
from tokenry.oauth.errors import invalid_request
from tokenry.oauth.mutual_tls import HeaderForm, PresentedCertificate, read_certificate_header
from tokenry.serving.addresses import is_trusted_peer
from tokenry.serving.keys import SETTINGS

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web
    from multidict import CIMultiDictProxy

    from tokenry.serving.settings import ServiceSettings

_log = structlog.get_logger("tokenry.serving.client_certificates")


def client_certificate(request: web.Request) -> PresentedCertificate | None:
    """
    Return the certificate of the caller of *request*, or None where it presented none.

    Raises:
        OAuthError: `invalid_request`: what the proxy handed on is no certificate.
    """
    return presented_certificate(
        request.app[SETTINGS], peer=request.remote, headers=request.headers, transport=request.transport
    )


def presented_certificate(
    settings: ServiceSettings,
    *,
    peer: str | None,
    headers: CIMultiDictProxy[str],
    transport: asyncio.BaseTransport | None,
) -> PresentedCertificate | None:
    """
    Return the certificate of a caller, or None where it presented none.

    Args:
        settings: Name the proxies that are trusted, and the field that they hand a certificate on in.
        peer: The address of the connection's other end; None or empty for a unix socket.
        headers: The header fields.
        transport: The connection.

    Raises:
        OAuthError: `invalid_request`: what the proxy handed on is no certificate.
    """
    if not is_trusted_peer(peer, settings.trusted_proxies):
        return _of_connection(transport)
    name = settings.client_certificate_header
    if name is None:
        return None
    try:
        der = read_certificate_header(headers.getall(name, []), HeaderForm(settings.client_certificate_format))
    except ProtocolError as error:
        _log.error("the proxy's certificate field cannot be read", problem=str(error), header=name)
        raise invalid_request("the client certificate cannot be read") from None
    if der is None:
        return None
    return PresentedCertificate(der=der, chain_verified=settings.client_certificate_verified)


def _of_connection(transport: asyncio.BaseTransport | None) -> PresentedCertificate | None:
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    der = None if tls is None else tls.getpeercert(binary_form=True)
    # The handshake verified its chain: TOKENRY_TLS_CLIENT_CA_FILE is what it was asked for by.
    return None if not der else PresentedCertificate(der=der, chain_verified=True)
