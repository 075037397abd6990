"""Tests stay on this machine, and say so when they do not."""

import asyncio
import socket
import urllib.request

import pytest

from tests.support.sockets import ConnectionLeavesMachine

# TEST-NET-3 (RFC 5737): routed nowhere, should the guard fail.
FAR_AWAY = "203.0.113.1"


def test_a_connection_to_another_machine_is_refused() -> None:
    with socket.socket() as sock, pytest.raises(ConnectionLeavesMachine, match=r"203\.0\.113\.1"):
        sock.connect((FAR_AWAY, 443))


async def test_asyncio_is_guarded_too() -> None:
    with pytest.raises(ConnectionLeavesMachine):
        await asyncio.open_connection(FAR_AWAY, 443)


def test_names_do_not_resolve() -> None:
    with pytest.raises(OSError, match="resolve no names"):
        urllib.request.urlopen("http://issuer.example/", timeout=1)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.3", "localhost"])
def test_loopback_is_open(host: str) -> None:
    address = "127.0.0.1" if host == "localhost" else host
    with socket.create_server((address, 0)) as server:
        socket.create_connection((host, server.getsockname()[1]), timeout=5).close()
