"""Which addresses a URL that somebody else chose may lead to: the public internet, and what is named besides."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


class PublicAddresses:
    """
    Tells whether an address may be connected to (RFC 8725 section 3.10).

    It is asked for the very address that is connected to next, so that a name that resolves differently the second
    time gains nothing. Loopback, link-local, private and all other special addresses are not public, also in their
    IPv6 disguises.
    """

    def __init__(self, *, besides: Iterable[Network] = ()) -> None:
        """Also allow the networks *besides*, which the configuration names."""
        self._besides = tuple(besides)

    def __call__(self, address: str) -> bool:
        """Tell whether *address* (without a port) may be connected to."""
        try:
            parsed = _plain(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        if any(parsed in network for network in self._besides):
            return True
        return parsed.is_global and not parsed.is_multicast and not _is_tunnel(parsed)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def _is_tunnel(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # 6to4 and Teredo carry an IPv4 address inside, which may be any.
    return isinstance(address, ipaddress.IPv6Address) and (address.sixtofour is not None or address.teredo is not None)
