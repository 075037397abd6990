"""
Addresses: where a service listens, and who its caller is.

`X-Forwarded-For` is written by whoever likes to. It is believed only as far as the chain of peers consists
of proxies that the configuration names: the caller is the first address, read from the right, that is none of
them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import BaseTransport
    from collections.abc import Sequence

    from multidict import MultiMapping

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_PORT = 65_535
MAX_HOPS = 32  # a longer chain of proxies is no real one
FORWARDED_FOR = "X-Forwarded-For"
UNIX_PEER = "unix"  # what the peer of a unix socket is called in logs


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddress:
    """
    Where to listen: a TCP host and port, or the path of a unix socket.

    Attributes:
        host: Host name or address; empty means all interfaces.
        port: TCP port; 0 lets the system choose.
        path: Path of the unix socket, instead of host and port.
    """

    host: str = ""
    port: int = 0
    path: str | None = None

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine can connect."""
        return self.path is not None or is_loopback_host(self.host)


def parse_listen_address(text: str) -> ListenAddress:
    """
    Return what *text* names: `host:port`, `:port` (all interfaces), `[v6]:port`, or `unix:/path`.

    Raises:
        ValueError: It names none of these.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError("a unix socket needs an absolute path, such as unix:/run/tokenry.sock")
        return ListenAddress(path=path)
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT:
        raise ValueError("write host:port, :port, [v6-address]:port or unix:/path")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("write a v6 address in brackets, such as [::1]:8080")
    return ListenAddress(host=host, port=int(port))


def is_loopback_host(host: str) -> bool:
    """Tell whether *host* (a name or an address) is this machine, without asking any name service."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_networks(text: str) -> tuple[Network, ...]:
    """
    Return the networks of *text*, separated by commas or spaces; a bare address is a network of one.

    Raises:
        ValueError: An item is not a network, or has bits set beyond its prefix.
    """
    return tuple(_network(item) for item in text.replace(",", " ").split())


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("write networks such as 10.0.0.0/8 or fd00::/8, without host bits") from None


def client_address(peer: str | None, *, forwarded_for: Sequence[str], trusted_proxies: Sequence[Network]) -> str:
    """
    Return the address of the caller, as far as the trusted proxies vouch for it.

    Args:
        peer: The address of the connection's other end; None or empty for a unix socket.
        forwarded_for: The `X-Forwarded-For` fields, in order.
        trusted_proxies: Networks of proxies that append the address of *their* peer to the field.
    """
    if not trusted_proxies:
        return peer or UNIX_PEER
    if peer and not _is_trusted(_address(peer), trusted_proxies):
        return peer
    hops = ",".join(forwarded_for).split(",")[-MAX_HOPS:]
    caller = peer or UNIX_PEER
    for hop in reversed(hops):
        address = _address(hop.strip())
        if address is None:
            break  # garbage was put there by whoever is behind the last hop that is known
        caller = str(address)
        if not _is_trusted(address, trusted_proxies):
            break
    return caller


def peer_address(transport: BaseTransport) -> str | None:
    """Return the address of the other end of a connection, as aiohttp's `Request.remote` does."""
    name = transport.get_extra_info("peername")
    if isinstance(name, list | tuple):
        return str(name[0])
    return None if name is None else str(name)


def caller_address(transport: BaseTransport, headers: MultiMapping[str], *, trusted_proxies: Sequence[Network]) -> str:
    """Return the address of the caller of a request with *headers* that came by *transport*: see `client_address`."""
    forwarded = headers.getall(FORWARDED_FOR, []) if trusted_proxies else ()
    return client_address(peer_address(transport), forwarded_for=forwarded, trusted_proxies=trusted_proxies)


def is_trusted_peer(peer: str | None, trusted_proxies: Sequence[Network]) -> bool:
    """Tell whether the connection's other end *peer* (None or empty for a unix socket) is a trusted proxy."""
    return bool(trusted_proxies) and (not peer or _is_trusted(_address(peer), trusted_proxies))


def _address(text: str) -> Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_trusted(address: Address | None, networks: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in networks)
