"""
A guard that keeps tests on loopback: what needs the network by accident fails here, not on the first machine
without one.

An audit hook sees every connect of Python's socket module, also those of asyncio, boto3, urllib3 and the
Cassandra driver. It does not see libuv (uvloop); tests use asyncio's own loop.
"""

import ipaddress
import socket
import sys
from collections.abc import Iterable

_LOCAL_NAMES = frozenset({"", "localhost", "localhost.localdomain"})


class ConnectionLeavesMachine(RuntimeError):
    """
    A test tried to reach another machine.

    Not an OSError: code under test rightly survives those, and the test would pass for the wrong reason.
    """


def allow_loopback_only(*, also: Iterable[str] = ()) -> None:
    """
    From now on refuse connections to other machines, in this process and for good (audit hooks cannot be
    removed).

    Args:
        also: Host names or addresses that are allowed besides, such as that of an existing database.
    """
    allowed = frozenset(also)

    def is_local(host: object) -> bool:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "")
        if name in _LOCAL_NAMES or name in allowed:
            return True
        try:
            address = ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return address.is_loopback or address.is_unspecified

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not event.startswith("socket."):
            return
        if event in {"socket.connect", "socket.sendto"}:
            address = arguments[1]
            if isinstance(address, tuple) and address and not is_local(address[0]):
                raise ConnectionLeavesMachine(f"tests stay on loopback, and this is {address[0]}")
        elif event == "socket.getaddrinfo" and not (is_local(arguments[0]) or _is_address(arguments[0])):
            # As on a machine without a network: names do not resolve. Code under test must cope with that.
            raise socket.gaierror(socket.EAI_NONAME, f"tests resolve no names, and this is {arguments[0]!r}")

    sys.addaudithook(hook)


def _is_address(host: object) -> bool:
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return True
