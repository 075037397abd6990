"""`GET /audit`: the last records of this replica's audit log, and the heads of all logs; and how heads are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.serving.audit_chain import FIRST, Head
from tokenry_revocation.authorization import NotAllowed, authorize_audit
from tokenry_revocation.callers import authenticate
from tokenry_revocation.handlers import refusal
from tokenry_revocation.ports import MAX_TTL_SECONDS, StoreUnavailable
from tokenry_revocation.requests import InvalidRequest

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry_revocation.audit import AuditLog
    from tokenry_revocation.handlers import Service
    from tokenry_revocation.ports import RevocationStore

HEADS: Final = "audit-heads"  # the group of the store that they are in
HEAD_TTL_SECONDS: Final = MAX_TTL_SECONDS  # a month: within it logs are collected and verified
MAX_RECORDS: Final = 1000  # in one answer: a megabyte
DEFAULT_RECORDS: Final = 100
MAX_NUMBER: Final = 2**53 - 1
_DIGITS: Final = 16


class Anchor:
    """Keeps the head of this process's audit log in the store."""

    def __init__(self, *, audit: AuditLog, store: RevocationStore, clock: Clock) -> None:
        """Keep the head of *audit* in *store*."""
        self._audit = audit
        self._store = store
        self._clock = clock
        self._kept = FIRST - 1

    async def keep(self) -> None:
        """
        Keep the head as it is now, unless that was done.

        Raises:
            StoreUnavailable: It is not known to be kept; it will be the next time.
        """
        head = self._audit.head
        if head.seq == self._kept:
            return
        value = dump_json({**head.members(), "at": round(self._clock.now(), 3)})
        await self._store.remember_member(HEADS, head.instance, value, ttl_seconds=HEAD_TTL_SECONDS)
        self._kept = head.seq

    async def all(self) -> list[Head]:
        """
        Return the heads that were kept within the last month, of all processes.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        heads = []
        for _, value in sorted((await self._store.recall_members(HEADS)).items()):
            try:
                heads.append(Head.read(parse_json_object(value)))
            except ProtocolError:
                continue  # of another version
        return heads


class Auditing:
    """The handler of `GET /audit`."""

    def __init__(self, service: Service, anchor: Anchor) -> None:
        """Show the log of *service*."""
        self._service = service
        self._anchor = anchor

    async def get(self, request: web.Request) -> web.Response:
        """Answer with some records, the last one first."""
        caller = await authenticate(request, self._service.judge)
        try:
            authorize_audit(caller.info)
            limit = _number(request, "limit", most=MAX_RECORDS) or DEFAULT_RECORDS
            before = _number(request, "before", most=MAX_NUMBER)
        except (InvalidRequest, NotAllowed) as error:
            raise refusal(error, action="read") from None
        audit = self._service.audit
        body = {
            "records": audit.before(before, limit=limit),
            "head": audit.head.members(),
            "heads": await self._heads(),
        }
        return web.Response(body=dump_json(body), content_type="application/json")

    async def _heads(self) -> list[dict[str, Any]] | None:
        """Return the heads that are kept; None while the store does not answer, which must not hide the records."""
        try:
            return [head.members() for head in await self._anchor.all()]
        except StoreUnavailable:
            return None


def _number(request: web.Request, name: str, *, most: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS and 0 < int(text) <= most):
        raise InvalidRequest(f"{name} is a whole number, from 1 to {most}")
    return int(text)
