"""
`POST /revocations/batch`: any number of revocations, a line each, in bounded memory.

A few blocks of lines are in work at a time; the rest stays with the client, whose connection stands still
meanwhile. Tokens that are named by their ids go into one record for each block, which is what makes a batch
quick; everything else is taken as if it had been posted by itself.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from aiohttp import hdrs, web

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import dump_json
from tokenry.oauth.errors import OAuthError
from tokenry.revocation.fingerprints import jti_fingerprint, plan_b_digest
from tokenry.revocation.planb import settles_at
from tokenry.serving.application import deadline
from tokenry.serving.problem import Problem
from tokenry_revocation.acceptance import Attempt
from tokenry_revocation.authorization import authorize, authorize_admin, authorize_reading, authorize_writing
from tokenry_revocation.callers import authenticate
from tokenry_revocation.handlers import RETRY_SECONDS, refusal
from tokenry_revocation.jobs import (
    BLOCK_LINES,
    MAX_FAILURES,
    PAGE_FAILURES,
    Failure,
    Job,
    Jobs,
    JobState,
    LineDigest,
    Progress,
    sheet_name,
)
from tokenry_revocation.ports import StoredRecord, StoreUnavailable
from tokenry_revocation.records import Record, RecordType
from tokenry_revocation.requests import (
    SEPARATOR,
    TEST_REASON,
    InvalidRequest,
    TokenIdTarget,
    parse_idempotency_key,
    parse_revoke,
)
from tokenry_revocation.revoking import Signature, milliseconds
from tokenry_revocation.sheets import Sheet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp import StreamReader

    from tokenry_revocation.callers import Caller
    from tokenry_revocation.handlers import Revocations, Service
    from tokenry_revocation.requests import Revoke

MAX_LINE_BYTES: Final = 16 * 1024  # a token of 8 KiB, and what is said of it
BLOCKS_AT_ONCE: Final = (
    8  # in work: 2,000 lines, which hides a store's answer of a fifth of a second at 10,000 a second
)
IDLE_SECONDS: Final = 30.0  # for which a client may send nothing
WRITE_TRIES: Final = 5  # of one record, before the job is interrupted
WRITE_PAUSE_SECONDS: Final = 0.2  # before the second try; doubled each time: six seconds in all
KEEP_EVERY_SECONDS: Final = 1.0  # of progress; what was done since is found again by its name
_STRETCH: Final = 25  # lines read without a pause: a millisecond
_SINGLES_AT_ONCE: Final = 16
_UNNOTED_LINES: Final = 100_000  # that an attempt has written, at most, since it last noted how far it was


T = TypeVar("T")
_Said: TypeAlias = tuple[str | None, str | None]  # reason and ticket


class _Line(NamedTuple):
    """One line: its number, counted from 1, and its text; None for one that is too long."""

    number: int
    text: bytes | None


class _Block(NamedTuple):
    """Some lines in a row, and the digest of all lines up to their last."""

    lines: list[_Line]
    digest: str

    @property
    def first(self) -> int:
        return self.lines[0].number


class Batches:
    """The handlers of batches and jobs."""

    def __init__(self, service: Service, revocations: Revocations) -> None:
        """Work with *service*; what is not named by its id goes to *revocations*."""
        self._service = service
        self._revocations = revocations
        self._jobs = Jobs(service.store)
        self._running: set[str] = set()

    # --- GET /jobs/{id} -------------------------------------------------------------------------------------

    async def job(self, request: web.Request) -> web.Response:
        """Tell how far a job has come, and which lines failed, a page at a time."""
        caller = await authenticate(request, self._service.judge)
        page = request.query.get("page", "0")
        try:
            authorize_reading(caller.info)
            if not (page.isascii() and page.isdecimal() and len(page) < _PAGE_DIGITS):
                raise InvalidRequest("page is a whole number, counted from 0")
            job = await self._jobs.find(request.match_info["id"])
            if job is None:
                raise Problem(404, "there is no such job, or it was forgotten")
            failures = await self._jobs.failures(job.id, int(page))
        except TokenryError as error:
            raise refusal(error, action="read") from None
        return _json(self._answer(job, failures, int(page)))

    def _answer(self, job: Job, failures: list[dict[str, Any]], page: int) -> dict[str, Any]:
        members = job.members() | {"state": job.seen_at(self._service.clock.now()).value}
        del members["digest"], members["replica"]
        more = job.failed > (page + 1) * PAGE_FAILURES
        return members | {"failures": failures, "next_page": page + 1 if more else None}

    # --- POST /jobs/{id}/cancel -----------------------------------------------------------------------------

    async def cancel(self, request: web.Request) -> web.Response:
        """
        Have a job stop that runs on any replica; what it has revoked stays so, and its sender is answered 409.

        Whose clock is behind the working replica's asks in vain in the first seconds of an attempt: ask again.
        """
        caller = await authenticate(request, self._service.judge)
        now = self._service.clock.now()
        try:
            authorize_admin(caller.info)  # somebody else's revocations are kept from being made
            job = await self._jobs.find(request.match_info["id"])
            if job is None:
                raise Problem(404, "there is no such job, or it was forgotten")
            if job.seen_at(now) is not JobState.RUNNING:
                raise Problem(409, f"the job is {job.seen_at(now).value}: there is nothing to stop")
            await self._jobs.ask_to_stop(job.id, now=now)
        except TokenryError as error:
            raise refusal(error, action="cancel") from None
        self._service.audit.cancelled(Signature(actor=caller.actor), job=job.id)
        return _json(self._answer(job, [], 0), status=HTTPStatus.ACCEPTED)

    async def check_not_cancelled(self, progress: Progress, *, since: float) -> None:
        """Raise Problem if the attempt that began at *since* (Unix seconds) is to stop."""
        if await self._jobs.stop_was_asked(progress.job.id, since=since):
            raise Problem(409, "the job was cancelled; what it has revoked stays so. Send the same again to go on")

    # --- POST /revocations/batch ----------------------------------------------------------------------------

    @deadline(None)
    async def post(self, request: web.Request) -> web.Response:
        """Take a batch; answer when all of it was read and what could be written is."""
        service = self._service
        caller = await authenticate(request, service.judge)
        by = Signature(actor=caller.actor)
        try:
            authorize_writing(caller.info)  # who may revoke nothing makes no job either
            if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
                raise Problem(415, "send the body without Content-Encoding")
            key = parse_idempotency_key(request.headers.getall("Idempotency-Key", ())) or secrets.token_urlsafe()
            name = self._name(caller, key)
            if name in self._running:
                raise _busy()
        except TokenryError as error:
            raise refusal(error, action="batch") from None
        self._running.add(name)
        try:
            progress = await self._through(request, caller, name)
            failures = await self._jobs.failures(name, 0)
        except TokenryError as error:
            told = refusal(error, action="batch")
            service.audit.refused(by, action="batch", status=told.status, detail=f"job {name} was interrupted")
            raise told from None
        finally:
            self._running.discard(name)
        answer = self._answer(progress.job, failures, 0)
        return _json(answer, status=HTTPStatus.ACCEPTED, headers={hdrs.LOCATION: f"/jobs/{name}"})

    async def _through(self, request: web.Request, caller: Caller, name: str) -> Progress:
        progress, is_new = await self._begin(name)
        run = _Run(self, self._service, self._revocations, caller, progress, is_new=is_new)
        try:
            await run.through(request.content)
        except BaseException:
            await self._interrupt(progress)
            raise
        return progress

    def _name(self, caller: Caller, key: str) -> str:
        info, fingerprints = caller.info, self._service.fingerprints
        who = dump_json([info.iss, info.sub, info.client_id, key]).decode("utf-8")
        return fingerprints.identity(fingerprints.canonical("JOB", who), 0)

    async def _begin(self, name: str) -> tuple[Progress, bool]:
        """Return the progress of the job called *name*, and whether it is new."""
        now, replica = self._service.clock.now(), self._service.instances.replica
        known = await self._jobs.find(name)
        if known is not None and known.seen_at(now) is JobState.RUNNING and known.replica != replica:
            raise _busy()
        job = known or Job(id=name, replica=replica, started_at=now, updated_at=now)
        progress = await self._jobs.begin(replace(job, replica=replica))
        await self.keep(progress, JobState.RUNNING)
        return progress, known is None

    async def keep(self, progress: Progress, state: JobState) -> None:
        """Keep how far a job has come."""
        progress.job = replace(progress.job, state=state, updated_at=self._service.clock.now())
        await self._jobs.keep(progress)

    async def _interrupt(self, progress: Progress) -> None:
        try:
            await asyncio.shield(self.keep(progress, JobState.INTERRUPTED))
        except (StoreUnavailable, asyncio.CancelledError):
            return  # it is seen as interrupted when it has not moved for a while


class _Run:
    """One attempt at a job."""

    def __init__(
        self,
        batches: Batches,
        service: Service,
        revocations: Revocations,
        caller: Caller,
        progress: Progress,
        *,
        is_new: bool,
    ) -> None:
        self._batches = batches
        self._service = service
        self._revocations = revocations
        self._caller = caller
        self._progress = progress
        self._job = progress.job.id
        # An attempt before this one may have written what it could not note any more.
        self._uncertain = 0 if is_new else progress.job.lines + _UNNOTED_LINES
        self._kept_at = service.clock.monotonic()
        self._began_at = service.clock.now()

    async def through(self, content: StreamReader) -> None:
        """Work through all lines of *content*."""
        working: set[asyncio.Task[None]] = set()
        try:
            async for block in _blocks(content, job=self._job, begun=self._progress.job):
                if len(working) >= BLOCKS_AT_ONCE:
                    done, working = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                working.add(asyncio.create_task(self._work(block)))
                await self._keep_now_and_then()
            await asyncio.gather(*working)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
        await self._batches.keep(self._progress, JobState.DONE)

    async def _keep_now_and_then(self) -> None:
        now = self._service.clock.monotonic()
        if now - self._kept_at >= KEEP_EVERY_SECONDS:
            self._kept_at = now
            await self._batches.keep(self._progress, JobState.RUNNING)
            await self._batches.check_not_cancelled(self._progress, since=self._began_at)
        if self._progress.job.failed > MAX_FAILURES:
            raise InvalidRequest(f"more than {MAX_FAILURES} lines have failed: the rest was not read")

    async def _work(self, block: _Block) -> None:
        """Take the lines of *block*, and note what became of them."""
        sheets, singles, failures = await self._read(block)
        accepted = 0
        for number, (said, ids) in enumerate(sheets.items()):
            accepted += await self._write(block, number, said, ids)
        limit = asyncio.Semaphore(_SINGLES_AT_ONCE)

        async def take(line: _Line) -> Failure | None:
            async with limit:
                return await self._take(line)

        outcomes = await asyncio.gather(*map(take, singles))
        failed = [outcome for outcome in outcomes if outcome is not None]
        self._progress.done(
            block.first,
            lines=len(block.lines),
            accepted=accepted + len(singles) - len(failed),
            failures=sorted([*failures, *failed], key=_line_of),
            digest=block.digest,
        )

    async def _read(self, block: _Block) -> tuple[dict[_Said, list[TokenIdTarget]], list[_Line], list[Failure]]:
        """Return the ids of *block* by what is said of them, the lines that are none, and those that are wrong."""
        sheets: dict[_Said, list[TokenIdTarget]] = {}
        singles: list[_Line] = []
        failures: list[Failure] = []
        for index, line in enumerate(block.lines):
            if index % _STRETCH == 0:
                await asyncio.sleep(0)
            if line.text == b"":
                continue
            try:
                target, revoke = self._id_of(line)
            except (TokenryError, UnicodeError) as error:
                failures.append(_failure(line, error))
                continue
            if target is None:
                singles.append(line)
            else:
                sheets.setdefault((revoke.reason, revoke.ticket), []).append(target)
        return sheets, singles, failures

    def _id_of(self, line: _Line) -> tuple[TokenIdTarget | None, Revoke]:
        """Return the id that *line* revokes for good, and None for everything else; refuse what is not allowed."""
        if line.text is None:
            raise InvalidRequest(f"a line has at most {MAX_LINE_BYTES} bytes")
        revoke = parse_revoke(line.text, bounds=self._service.bounds)
        target = revoke.target
        if not isinstance(target, TokenIdTarget) or revoke.reason == TEST_REASON or SEPARATOR in target.jti:
            return None, revoke
        authorize(self._caller.info, target, rules=())
        if target.iss is not None and target.iss not in self._service.issuers:
            raise InvalidRequest("iss is not an issuer that is configured here")
        return target, revoke

    async def _write(self, block: _Block, number: int, said: _Said, targets: list[TokenIdTarget]) -> int:
        """Write the *number*-th sheet of *block*, unless it is there; return how many lines it has."""
        service = self._service
        name = sheet_name(block.digest, block.first, number)
        if block.first <= self._uncertain and await _again(lambda: service.store.get(name)) is not None:
            return len(targets)
        reason, ticket = said
        by = Signature(actor=self._caller.actor, reason=reason, ticket=ticket)
        sheet, body = self._sheet(name, targets, by)
        record = StoredRecord(id=name, body=body, in_force_until=sheet.in_force_until)
        with service.metrics.store("append"):
            await _again(lambda: service.store.append(record))
        service.feed.add_sheet(name, sheet)
        service.metrics.created(RecordType.TOKEN, lines=sheet.lines)
        service.audit.batched(by, id=name, job=self._job, lines=sheet.lines, in_force_until=sheet.in_force_until)
        return sheet.lines

    def _sheet(self, name: str, targets: list[TokenIdTarget], by: Signature) -> tuple[Sheet, bytes]:
        """Return the sheet of *targets* as of now, and what the store keeps of it."""
        terms, fingerprints, now = self._service.terms, self._service.fingerprints, self._service.clock.now()
        cut_off, salt = terms.default_cutoff(now), fingerprints.plan_b_salt
        sheet = Sheet(
            revoked_at=math.floor(now),
            in_force_until=math.floor(now) + terms.retention,
            issued_before=cut_off,
            salt=fingerprints.salt_id,
            ids=b"".join(
                jti_fingerprint(target.iss or terms.issuer, target.jti, salt=fingerprints.salt) for target in targets
            ),
            id_hashes=b"".join(plan_b_digest(target.jti, salt=salt) for target in targets),
            created_at=milliseconds(now),
        )
        settled = settles_at(cut_off, skew=terms.skew)
        record = Record(
            id=name,
            type=RecordType.TOKEN,
            revoked_at=sheet.revoked_at,
            in_force_until=sheet.in_force_until,
            propagated_by=math.ceil(now + terms.propagation_bound),
            plan_b_by=math.ceil(max(now, settled) + terms.plan_b_bound),
            actor=by.actor,
            reason=by.reason,
            ticket=by.ticket,
        )
        return sheet, sheet.to_bytes(about=record.about())

    async def _take(self, line: _Line) -> Failure | None:
        """Take *line* as if it had been posted by itself; the same line of the same job is one request."""
        private = self._service.fingerprints.private
        text = line.text or b""
        attempt = Attempt(key=f"line-{private(f'{self._job} {line.number}')}", request=private(text.decode("utf-8")))
        try:
            await _again(lambda: self._revocations.revoke_line(self._caller, text, attempt=attempt))
        except StoreUnavailable:
            raise
        except TokenryError as error:
            return _failure(line, error)
        return None


async def _again(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* returns; while the store does not answer it is tried again for some seconds."""
    for attempt in range(WRITE_TRIES - 1):
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(WRITE_PAUSE_SECONDS * 2**attempt)
    return await call()


async def _blocks(content: StreamReader, *, job: str, begun: Job) -> AsyncIterator[_Block]:
    """
    Yield the lines of *content* in blocks, without those that are done.

    Raises:
        Problem: The lines that are done are others than these (422), or the body broke off.
    """
    digest, lines = LineDigest(job), []
    async for line in _lines(content):
        digest.add(line.text or b"")
        if line.number <= begun.lines:
            if line.number == begun.lines and digest.text() != begun.digest:
                raise _other_lines()
            continue
        lines.append(line)
        if line.number % BLOCK_LINES == 0:
            yield _Block(lines, digest.text())
            lines = []
    if lines:
        yield _Block(lines, digest.text())


async def _lines(content: StreamReader) -> AsyncIterator[_Line]:
    """Yield the lines of *content*; of one that is too long nothing is kept."""
    number, rest, too_long = 0, b"", False
    while chunk := await _chunk(content):
        *whole, rest = (rest + chunk).split(b"\n")
        for text in whole:
            number += 1
            fits = len(text) <= MAX_LINE_BYTES and not too_long
            yield _Line(number, text.strip(b"\r\t ") if fits else None)
            too_long = False
        if len(rest) > MAX_LINE_BYTES:
            rest, too_long = b"", True
    if rest or too_long:
        yield _Line(number + 1, None if too_long else rest.strip(b"\r\t "))


async def _chunk(content: StreamReader) -> bytes:
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            return await content.readany()
    except TimeoutError:
        raise Problem(408, f"nothing came for {IDLE_SECONDS:g} seconds: send the batch again to go on") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Problem(400, "the body broke off: send the batch again to go on") from None


def _failure(line: _Line, error: Exception) -> Failure:
    if isinstance(error, UnicodeError | ProtocolError):
        return Failure(line=line.number, status=400, detail="not a line of JSON")
    told = refusal(error, action="batch") if isinstance(error, TokenryError) else None
    if told is None:
        raise error
    detail = told.description if isinstance(told, OAuthError) else told.detail
    return Failure(line=line.number, status=told.status, detail=detail or "")


def _busy() -> Problem:
    return Problem(409, "this job is being worked on", retry_after=RETRY_SECONDS)


def _other_lines() -> Problem:
    return Problem(422, "this Idempotency-Key was sent with other lines before")


def _line_of(failure: Failure) -> int:
    return failure.line


def _json(
    members: dict[str, Any], *, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(body=dump_json(members), status=status, content_type="application/json", headers=headers)


_PAGE_DIGITS: Final = 6
