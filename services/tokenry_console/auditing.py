"""The page Audit: who did what, whether the chain holds, and all of it to take along."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import hdrs, web

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json
from tokenry.serving.audit_chain import BrokenChain, Head, check_record, verify
from tokenry_console.asking import part
from tokenry_console.plots import Plot
from tokenry_console.views import audit_records, objects
from tokenry_console.wording import when

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tokenry_console.asking import Part, Questions
    from tokenry_console.site import Site
    from tokenry_console.views import AuditRecord

PAGE: Final = 100
SLICE: Final = 1000  # records of one call: the most that the service gives
MAX_SLICES: Final = 100  # of one verification or export: 100,000 records
MAX_DIGITS: Final = 16  # of a number that JSON has exactly
EXPORT_SECONDS: Final = 60.0
EXPORT_NAME: Final = "tokenry-audit.ndjson"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What a verification found.

    Attributes:
        holds: Whether the chain is whole.
        said: What was found, in words.
    """

    holds: bool
    said: str


class Auditing:
    """Shows the audit log."""

    def __init__(self, site: Site) -> None:
        """Answer for *site*."""
        self._site = site

    async def get(self, request: web.Request) -> web.Response:
        """Show one page of the log."""
        return await self._page(request)

    async def verify(self, request: web.Request) -> web.Response:
        """Read the whole log and check its chain."""
        visit, ask = await self._site.enter(request)
        await self._site.parts.door.read_form(request, visit.session)
        checked = await part(self._check(ask))
        return await self._page(request, checked=checked)

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Send the whole log, a JSON object a line, the newest first."""
        visit, ask = await self._site.enter(request)
        first = await ask.audit(limit=SLICE)  # before the head is sent: a refusal is a page
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "application/x-ndjson",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="{EXPORT_NAME}"',
            }
        )
        if visit.is_new:
            self._site.parts.door.set_cookie(response, self._site.parts.door.cookie, visit.name)
        await response.prepare(request)
        try:
            async for records in _slices(ask, first):
                await response.write(b"".join(dump_json(dict(each.members)) + b"\n" for each in records))
            await response.write_eof()
        except ConnectionError:
            pass  # whoever asked has gone; nobody is left to be told
        except BaseException:
            # The head is out: a page would be read as a part of the log. That the connection breaks is understood.
            if request.transport is not None:
                request.transport.abort()
            raise
        return response

    async def _page(self, request: web.Request, *, checked: Part[Outcome] | None = None) -> web.Response:
        visit, ask = await self._site.enter(request)
        before, words = request.query.get("before", ""), request.query.get("q", "").strip()[:200]
        limit = SLICE if words else PAGE
        asked = await part(
            ask.audit(
                limit=limit,
                before=int(before) if before.isascii() and before.isdigit() and len(before) < MAX_DIGITS else None,
            )
        )
        found = [] if asked.value is None else audit_records(asked.value)
        shown = [each for each in found if not words or each.mentions(words)][:PAGE]
        head = {} if asked.value is None else asked.value.get("head")
        return self._site.show(
            request,
            visit,
            "audit.html",
            plots=[_table(shown)],
            asked=asked,
            shown=shown,
            words=words,
            looked_at=len(found),
            older=min((each.seq for each in found if each.seq is not None), default=None)
            if len(found) == limit
            else None,
            head=head if isinstance(head, dict) else {},
            checked=checked,
        )

    async def _check(self, ask: Questions) -> Outcome:
        """Return whether the log, as the service hands it out, is whole; its hashes are computed here anew."""
        first = await ask.audit(limit=SLICE)
        records: list[Mapping[str, Any]] = []
        count = 0
        async for found in _slices(ask, first):
            records += [each.members for each in found]
            count += 1
        try:
            # What was kept in the store too; of other processes' logs there are no records here.
            instances = {record.get("instance") for record in records}
            kept = [each for each in objects(first, "heads") if each.get("instance") in instances]
            heads = [Head.read(each) for each in ([] if first.get("head") is None else [first["head"]]) + kept]
            for record in records:
                check_record(record)
            # A service keeps so many records to hand out; the oldest of them need not be the first of its chain.
            chains = await asyncio.to_thread(verify, records, heads=heads, from_the_first=False)
        except ProtocolError as error:
            return Outcome(holds=False, said=f"what the service answers is no audit log: {error}.")
        except BrokenChain as error:
            return Outcome(holds=False, said=f"{error}.")
        if not chains:
            return Outcome(holds=True, said="The log is empty.")
        said = "; ".join(
            f"{each.first} to {each.last} of {each.instance}, head {each.hash[:16]}\u2026" for each in chains
        )
        return Outcome(holds=True, said=f"The chain holds: {len(records)} records, {said}.")


async def _slices(ask: Questions, first: dict[str, Any]) -> AsyncIterator[list[AuditRecord]]:
    """Yield the records of the log, the newest first, slice after slice."""
    said = first
    for _ in range(MAX_SLICES):
        found = audit_records(said)
        if found:
            yield found
        oldest = min((each.seq for each in found if each.seq is not None), default=None)
        if len(objects(said, "records")) < SLICE or oldest is None:
            return
        said = await ask.audit(limit=SLICE, before=oldest)


def _table(shown: list[AuditRecord]) -> Plot:
    return Plot(
        id="audit",
        title="Audit log",
        columns=["number", "time", "action", "who", "type", "revocation", "reason", "ticket", "hash"],
        rows=[
            [each.seq, when(each.at), each.action, each.actor, each.type, each.id, each.reason, each.ticket, each.hash]
            for each in shown
        ],
        time=False,
    )
