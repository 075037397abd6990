"""Names are resolved anew for each connection; while that fails, what was found last serves for ten minutes (F49)."""

import socket
import threading

import pytest

from tokenry.http.resolve import REMEMBER_SECONDS, Resolver
from tokenry.testing.clock import FakeClock

OLD = (socket.AF_INET, ("192.0.2.1", 443))
NEW = (socket.AF_INET, ("192.0.2.2", 443))


class System:
    """The system's resolver, which can be made to fail or to hang."""

    def __init__(self):
        self.answer = OLD
        self.hang = threading.Event()
        self.hang.set()

    def __call__(self, host, port, *, type):  # noqa: A002 -- the name in the standard library
        assert self.hang.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        family, address = self.answer
        return [(family, type, 6, "", address)]


@pytest.fixture
def system():
    system = System()
    yield system
    system.hang.set()


@pytest.fixture
def resolver(system, clock: FakeClock):
    return Resolver(system=system, monotonic=clock.monotonic)


def resolved(resolver):
    return resolver.resolve("issuer.example", 443, timeout=0.4)


@pytest.mark.parametrize("failure", [socket.gaierror(socket.EAI_NONAME, "no such name"), OSError("no network")])
def test_F49_while_names_are_not_resolved_the_last_addresses_serve(resolver, system, clock, failure):
    assert resolved(resolver) == (OLD,)
    system.answer = failure
    clock.advance(REMEMBER_SECONDS - 1)
    assert resolved(resolver) == (OLD,)
    clock.advance(2)
    with pytest.raises(socket.gaierror):
        resolved(resolver)


def test_F49_a_resolver_that_hangs_is_not_waited_for(resolver, system):
    assert resolved(resolver) == (OLD,)
    system.hang.clear()
    assert resolved(resolver) == (OLD,)


def test_F49_a_host_that_moves_is_found_at_the_next_connection(resolver, system):
    assert resolved(resolver) == (OLD,)
    system.answer = NEW
    assert resolved(resolver) == (NEW,)


def test_F49_a_name_that_was_never_resolved_is_not_made_up(resolver, system):
    system.answer = socket.gaierror(socket.EAI_AGAIN, "later")
    with pytest.raises(socket.gaierror):
        resolved(resolver)


def test_what_is_remembered_is_bounded(resolver, system):
    for number in range(200):
        resolver.resolve(f"host-{number}.example", 443, timeout=2)
    assert len(resolver._known) <= 64
