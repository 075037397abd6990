"""A service manager hears when we are ready, drain, and run: over a real socket, as systemd has it."""

import asyncio
import socket
import sys

import pytest

from tokenry.serving.health import Health, failed, ok
from tokenry.serving.notify import Notifier, notifying
from tokenry.serving.settings import ServiceSettings
from tokenry.serving.workers import Supervisor, environment_of


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """The service manager's end, and what it puts into the environment."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.setblocking(False)
        yield listening, {"NOTIFY_SOCKET": name}


async def heard(listening, count):
    async with asyncio.timeout(5):
        return [(await asyncio.get_running_loop().sock_recv(listening, 100)).decode() for _ in range(count)]


def nothing_more(listening):
    with pytest.raises(BlockingIOError):
        listening.recv(100)


async def test_ready_is_said_when_the_service_is_ready_and_stopping_when_it_drains(manager):
    listening, environ = manager
    findings, health = [failed("not yet")], Health()
    health.add("part", lambda: findings[0])
    async with notifying(Notifier(environ), health):
        await asyncio.sleep(0)
        nothing_more(listening)
        findings[0] = ok()
        assert await heard(listening, 1) == ["READY=1"]
        health.drain()
        assert await heard(listening, 1) == ["STOPPING=1"]
    nothing_more(listening)


async def test_the_watchdog_hears_the_event_loop_twice_as_often_as_it_asks(manager):
    listening, environ = manager
    notifier = Notifier(environ | {"WATCHDOG_USEC": "40000"})
    assert notifier.watchdog_seconds == 0.02
    health = Health()
    async with notifying(notifier, health):
        said = await heard(listening, 4)
    assert sorted(said) == ["READY=1", *["WATCHDOG=1"] * 3]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
async def test_without_a_listener_nothing_is_sent(environ):
    notifier = Notifier(environ)
    assert not notifier.wanted
    async with notifying(notifier, Health()):
        notifier.send("READY=1")


def test_a_listener_that_is_gone_harms_nobody(tmp_path):
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).send("READY=1")


@pytest.mark.parametrize("value", ["", "0", "-5", "soon"])
def test_no_watchdog_is_no_watchdog(value):
    assert Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": value}).watchdog_seconds is None


def test_children_of_a_supervisor_do_not_speak_for_it():
    settings = ServiceSettings.from_environment({"TOKENRY_LISTEN_ADDRESS": "127.0.0.1:1"})
    environ = environment_of(0, settings, {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "HOME": "/h"})
    assert "NOTIFY_SOCKET" not in environ
    assert "WATCHDOG_USEC" not in environ
    assert environ["HOME"] == "/h"


def test_a_supervisor_speaks_for_itself(manager):
    """Its only child ends by itself with wrong settings (2), upon which the supervisor ends, too."""
    listening, environ = manager
    notifier = Notifier(environ | {"WATCHDOG_USEC": "60000000"})
    assert Supervisor([([sys.executable, "-c", "raise SystemExit(2)"], {})], notifier=notifier).run() == 2
    said = [listening.recv(100).decode() for _ in range(3)]
    assert said == ["READY=1", "WATCHDOG=1", "STOPPING=1"]
    nothing_more(listening)
