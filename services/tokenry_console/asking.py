"""Asking services for parts of a page: what one does not answer is said in its place, and the rest is shown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from tokenry_console.backends import BackendError, NotConfigured, NotPermitted, NotThere, path_of
from tokenry_console.propagation import Curve, Reach, curve, reach
from tokenry_console.views import (
    AuditRecord,
    Client,
    Fleet,
    Revocation,
    SigningKey,
    audit_records,
    listed,
    merged,
    objects,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from tokenry_console.backends import Backends
    from tokenry_console.visiting import Visit

MAX_AUDIT: Final = 500  # records that the page Revocations looks through
MAX_SHOWN: Final = 200  # revocations on a page
MAX_DETAILS: Final = 12  # of which a page asks for everything
MAX_CLIENTS: Final = 1000  # the most that the admin service lists at a time
MAX_EARLIER: Final = 20  # curves in grey
AT_A_TIME: Final = 6  # calls of one page to one service
MAX_LIST_ENTRIES_BYTES: Final = 8 * 2**20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """
    A part of a page, or why it is not there.

    Attributes:
        value: The part.
        fault: Why it is not there.
    """

    value: T | None
    fault: BackendError | None = None


async def part(asked: Awaitable[T]) -> Part[T]:
    """Return what *asked* brings, or why it brings nothing."""
    try:
        return Part(await asked)
    except BackendError as error:
        return Part(None, error)


def real_faults(parts: Iterable[Part[Any]]) -> list[BackendError]:
    """Return what is wrong; what was never set up, is not there, or is not for this person, is not."""
    return [
        each.fault
        for each in parts
        if each.fault is not None and not isinstance(each.fault, NotConfigured | NotPermitted | NotThere)
    ]


class Questions:
    """What pages ask services for, with the token of one visit."""

    def __init__(self, backends: Backends, visit: Visit) -> None:
        """Ask *backends* for *visit*."""
        self._backends = backends
        self._visit = visit
        self._limit = asyncio.Semaphore(AT_A_TIME)

    async def fleet(self, revocation: str | None = None) -> Fleet:
        """Return all validators; with *revocation*, since when they enforce it."""
        query = None if revocation is None else {"revocation": revocation}
        async with self._limit:
            return Fleet.of(await self._backends.revocation.get("/validators", bearer=self._visit.bearer, query=query))

    async def revocation(self, name: str) -> Revocation:
        """Return everything about the revocation *name*."""
        async with self._limit:
            return Revocation.of(
                await self._backends.revocation.get("/revocations" + path_of(name), bearer=self._visit.bearer)
            )

    async def in_force(self) -> list[Revocation]:
        """Return what the list has in force."""
        return listed(
            await self._backends.revocation.get(
                "/revocations/snapshot",
                bearer=self._visit.bearer,
                query={"created_at": "true"},
                max_bytes=MAX_LIST_ENTRIES_BYTES,
            )
        )

    async def audit(self, *, limit: int = MAX_AUDIT, before: int | None = None) -> dict[str, Any]:
        """Return the latest records of the audit log, and the head of its chain, as the service answers."""
        query = {"limit": str(limit)} | ({} if before is None else {"before": str(before)})
        return await self._backends.revocation.get("/audit", bearer=self._visit.bearer, query=query)

    async def records(self) -> list[AuditRecord]:
        """Return the latest records of the audit log, the newest first."""
        return audit_records(await self.audit())

    async def keys(self) -> tuple[list[SigningKey], dict[str, Any]]:
        """Return the signing keys, and what else the admin service says of them."""
        said = await self._backends.admin.get("/keys", bearer=self._visit.bearer)
        return [SigningKey.of(each) for each in objects(said, "keys")], said

    async def published_keys(self) -> list[str]:
        """Return the ids of the keys that the issuer publishes."""
        said = await self._backends.issuer.get("/.well-known/jwks.json", bearer=None)
        return [kid for each in objects(said, "keys") if isinstance(kid := each.get("kid"), str)]

    async def clients(self, realm: str | None) -> list[Client]:
        """Return the clients of *realm*, or of all."""
        query = {"limit": str(MAX_CLIENTS)} | ({} if realm is None else {"realm": realm})
        said = await self._backends.admin.get("/clients", bearer=self._visit.bearer, query=query)
        return [Client.of(each) for each in objects(said, "clients")]

    async def client(self, realm: str, client_id: str) -> Client:
        """Return one client."""
        path = "/clients" + path_of(realm, client_id)
        return Client.of(await self._backends.admin.get(path, bearer=self._visit.bearer))

    # --- together --------------------------------------------------------------------------------------------

    async def revocations(self) -> tuple[list[Revocation], list[Part[Any]]]:
        """Return the latest revocations, and the parts that they were put together from."""
        in_force, records = await asyncio.gather(part(self.in_force()), part(self.records()))
        known = merged(in_force.value, records.value or ())[:MAX_SHOWN]
        return known, [in_force, records]

    async def with_details(self, known: Sequence[Revocation], *, count: int = MAX_DETAILS) -> list[Revocation]:
        """Return *known*, with everything about the first *count* of them."""
        asked = await asyncio.gather(*(part(self.revocation(each.id)) for each in known[:count]))
        # The list has the moment with milliseconds, the record in whole seconds.
        detailed = [
            each if answer.value is None else replace(answer.value, at=each.at or answer.value.at)
            for each, answer in zip(known, asked, strict=False)
        ]
        return detailed + list(known[count:])

    async def reached(self, one: Revocation) -> list[Reach]:
        """Return how far the revocation *one* has come; what was seen before is kept."""
        fleet, session = await self.fleet(one.id), self._visit.session
        found = reach(fleet, at=one.at or fleet.now, known=session.watched.get(one.id))
        session.keep_reached(one.id, found)
        return found

    async def earlier(self, known: Iterable[Revocation], *, but: str) -> list[Curve]:
        """Return the curves of the last revocations but one; what is enforced everywhere is asked for once."""
        wanted = [each for each in known if each.id != but and each.at is not None and each.state != "waiting"]
        curves = await asyncio.gather(*(part(self._curve(each)) for each in wanted[:MAX_EARLIER]))
        return [each.value for each in curves if each.value is not None and each.value.enforcing]

    async def _curve(self, one: Revocation) -> Curve:
        held = self._visit.session.curves.get(one.id)
        if held is not None:
            return held
        fleet = await self.fleet(one.id)
        # Of an old one only those count who reported it: a validator that came later has nothing to say of it.
        reported = [each for each in reach(fleet, at=one.at or 0.0) if each.state == "enforcing"]
        found = curve(one.id, reported)
        self._visit.session.keep_curve(found)
        return found
