"""
The keys that trust rules (of foreign issuers) and clients (their own) name by their place: fetched in the background,
never on a request's way.

A rule or client comes out of a store that others write, so its place is fetched only from hosts that the
configuration lists (RFC 8725 section 3.10), and by a fetcher that connects to public addresses alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import structlog

from tokenry.errors import ValidatorNotReady
from tokenry.jose.jwk import Algorithm
from tokenry_registry.realms import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from tokenry.jose.jwks import KeySet
    from tokenry.validation.snapshots import Snapshot
    from tokenry_issuer.registry import Registry
    from tokenry_registry.trust_rules import TrustRule

    Owner = TrustRule | Client

MAX_SOURCES = 32  # threads and connections: platforms, and clients that rotate their keys themselves
Place = tuple[str, str, tuple[Algorithm, ...]]

_log = structlog.get_logger("tokenry_issuer.trust_keys")


class Source(Protocol):
    """The keys of one issuer: `tokenry.sources.keys.KeySource`."""

    def start(self) -> None:
        """Begin to refresh."""
        ...

    def stop(self) -> None:
        """End refreshing."""
        ...

    def snapshot(self) -> Snapshot[KeySet] | None:
        """Return the last good keys."""
        ...

    async def arefetch(self, issuer: str) -> None:
        """Wait for fresh keys, at most a second, at most once a cooldown."""
        ...


class TrustKeys:
    """The keys of all trust rules and clients in force."""

    def __init__(
        self, make_source: Callable[[str, str, tuple[Algorithm, ...]], Source], *, hosts: Collection[str]
    ) -> None:
        """
        Hold nothing yet.

        Args:
            make_source: Makes the reader of an issuer's keys at a place.
            hosts: `host` or `host:port` of the places that may be read.
        """
        self._make_source = make_source
        self._hosts = frozenset(host.lower() for host in hosts)
        self._sources: dict[Place, Source] = {}
        self._refused: frozenset[Place] = frozenset()

    def follow(self, registry: Registry) -> None:
        """Read what rules and clients of *registry* name, and stop to read what none of them names any more."""
        realms = registry.realms.values()
        rules = (rule for realm in realms for rules in realm.trust.values() for rule in rules)
        clients = (client for realm in realms for client in realm.clients.values())
        # Rules first: where there are too many places, a platform's keys serve more clients than one client's.
        wanted = [*_places(rules), *_places(clients)]
        allowed = [place for place in wanted if urlsplit(place[1]).netloc.lower() in self._hosts][:MAX_SOURCES]
        for place in self._sources.keys() - set(allowed):
            self._sources.pop(place).stop()
        for place in allowed:
            if place not in self._sources:
                source = self._sources[place] = self._make_source(*place)
                source.start()
        self._report(frozenset(wanted) - frozenset(allowed))

    def keys(self, owner: Owner) -> KeySet | None:
        """Return the keys of *owner*, or None where there are none yet."""
        if owner.keys is not None:
            return owner.keys
        source = self._source(owner)
        held = None if source is None else source.snapshot()
        return None if held is None else held.value

    async def refetch(self, owner: Owner) -> None:
        """Read the keys of *owner* once more, for one that is not held; at most a second, at most once a cooldown."""
        place = _place(owner)
        source = None if place is None else self._sources.get(place)
        if place is not None and source is not None:
            try:
                await source.arefetch(place[0])
            except ValidatorNotReady:
                return  # what is held decides

    @property
    def missing(self) -> int:
        """For how many places there are no keys."""
        return len(self._refused) + sum(source.snapshot() is None for source in self._sources.values())

    def stop(self) -> None:
        """End reading."""
        for source in self._sources.values():
            source.stop()
        self._sources.clear()

    def _source(self, owner: Owner) -> Source | None:
        place = _place(owner)
        return None if place is None else self._sources.get(place)

    def _report(self, refused: frozenset[Place]) -> None:
        for issuer, uri, _ in sorted(refused - self._refused):
            _log.error(
                f"keys are not read: name the host in TOKENRY_TRUST_JWKS_HOSTS; at most {MAX_SOURCES} places are read",
                issuer=issuer,
                host=urlsplit(uri).netloc,
            )
        self._refused = refused


def _places(owners: Iterable[Owner]) -> list[Place]:
    return sorted({place for owner in owners if owner.enabled and (place := _place(owner)) is not None})


def _place(owner: Owner) -> Place | None:
    """Return whose keys are where: what a client signs says that the client issued it (RFC 7523 section 3)."""
    if owner.jwks_uri is None:
        return None
    if isinstance(owner, Client):
        return (owner.client_id, owner.jwks_uri, _CLIENT_ALGORITHMS)
    return (owner.issuer, owner.jwks_uri, owner.algorithms)


_CLIENT_ALGORITHMS = (Algorithm.ES256,)
