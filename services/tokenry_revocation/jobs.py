"""
How far a batch has come, and which of its lines failed: kept in the store, so that any replica can tell, and go on.

Lines are worked on in blocks of a fixed number. A job is done up to a line, and never beyond a block that is not
done: whoever goes on begins there, and finds what an interrupted attempt had already written by its name, which
follows from the job and the block alone. A hash of the lines that are done tells whether the same ones come again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry_revocation.sheets import SHEET_NAME_CHARACTERS, spelled_name

if TYPE_CHECKING:
    from tokenry_revocation.ports import RevocationStore

BLOCK_LINES: Final = 250  # 12 KB of fingerprints and hashes in one record: a page of a store's read takes megabytes
JOB_SECONDS: Final = 7 * 24 * 3600  # for which a job can be asked for, and gone on with
STALE_SECONDS: Final = 15.0  # a job that says it is running, and has not moved for so long, was interrupted
STOP_SECONDS: Final = 300  # for which a wish to stop is kept: an attempt looks once a second
PAGE_FAILURES: Final = 1_000  # of 150 bytes each, in one value of the store
MAX_FAILURES: Final = 100_000  # a batch that is wrong throughout need not be read to its end


class JobState(StrEnum):
    """What a job is doing."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """
    One line that was not taken.

    Attributes:
        line: Its number, counted from 1.
        status: The status that it would have been answered with by itself.
        detail: Why.
    """

    line: int
    status: int
    detail: str

    def members(self) -> dict[str, Any]:
        """Return it as JSON members."""
        return {"line": self.line, "status": self.status, "detail": self.detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """
    One batch, as far as it has come.

    Attributes:
        id: Its name.
        replica: Who works on it, or did last.
        state: What it is doing.
        lines: Lines that are done: taken, failed or empty. The next attempt goes on behind them.
        accepted: Of these, how many are in force.
        failed: Of these, how many failed.
        digest: Hash of the lines that are done.
        started_at: Unix seconds.
        updated_at: Unix seconds.
    """

    id: str
    replica: str
    state: JobState = JobState.RUNNING
    lines: int = 0
    accepted: int = 0
    failed: int = 0
    digest: str = ""
    started_at: float
    updated_at: float

    def seen_at(self, now: float) -> JobState:
        """Return what it is doing at *now* (Unix seconds): who died over it cannot say so."""
        if self.state is JobState.RUNNING and now - self.updated_at > STALE_SECONDS:
            return JobState.INTERRUPTED
        return self.state

    def members(self) -> dict[str, Any]:
        """Return it as JSON members."""
        return {
            "id": self.id,
            "replica": self.replica,
            "state": self.state.value,
            "lines": self.lines,
            "accepted": self.accepted,
            "failed": self.failed,
            "digest": self.digest,
            "started_at": self.started_at,
            "updated_at": self.updated_at,
        }

    @classmethod
    def from_bytes(cls, body: bytes) -> Job:
        """
        Return the job that *body* is.

        Raises:
            ProtocolError: It is none.
        """
        members = parse_json_object(body)
        try:
            return cls(**members | {"state": JobState(members["state"])})
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("not a job") from None


@dataclass(slots=True, eq=False)
class Progress:
    """
    The job as it goes on, block by block, whatever the order in which blocks are done.

    Attributes:
        job: As far as it has come without a gap.
        failures: Of the page that is being filled.
        pages: How many pages of failures are full.
    """

    job: Job
    failures: list[Failure] = field(default_factory=list)
    pages: int = 0
    _done: dict[int, tuple[int, int, list[Failure], str]] = field(default_factory=dict)

    def done(self, first: int, *, lines: int, accepted: int, failures: list[Failure], digest: str) -> None:
        """Note that the block of *lines* lines from line *first* on (counted from 1) is done."""
        self._done[first] = (lines, accepted, failures, digest)
        while (block := self._done.pop(self.job.lines + 1, None)) is not None:
            lines, accepted, failures, digest = block
            self.failures += failures
            self.job = replace(
                self.job,
                lines=self.job.lines + lines,
                accepted=self.job.accepted + accepted,
                failed=self.job.failed + len(failures),
                digest=digest,
            )


class Jobs:
    """Jobs in the store."""

    def __init__(self, store: RevocationStore) -> None:
        """Keep them in *store*."""
        self._store = store

    async def find(self, name: str) -> Job | None:
        """
        Return the job called *name*, or None.

        Raises:
            StoreUnavailable: The store does not answer.
            ProtocolError: It was kept by a version that says it differently.
        """
        body = await self._store.recall(_key(name))
        return None if body is None else Job.from_bytes(body)

    async def failures(self, name: str, page: int) -> list[dict[str, Any]]:
        """
        Return the failures on *page*, counted from 0; none when there is no such page.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        body = await self._store.recall(_key(name, page))
        return [] if body is None else list(parse_json_object(body)["failures"])

    async def ask_to_stop(self, name: str, *, now: float) -> None:
        """
        Have whoever works on the job called *name* stop: it looks about once a second.

        Raises:
            StoreUnavailable: It is not known to be asked.
        """
        await self._store.remember(_stop_key(name), dump_json({"asked_at": now}), ttl_seconds=STOP_SECONDS)

    async def stop_was_asked(self, name: str, *, since: float) -> bool:
        """
        Tell whether the attempt that began at *since* (Unix seconds) is to stop; what was asked before is over.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        body = await self._store.recall(_stop_key(name))
        return body is not None and bool(parse_json_object(body)["asked_at"] >= since)

    async def begin(self, job: Job) -> Progress:
        """
        Return the progress of *job*, with the failures that it had so far.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        pages, rest = divmod(job.failed, PAGE_FAILURES)
        last = await self.failures(job.id, pages) if rest else []
        return Progress(job=job, failures=[Failure(**each) for each in last[:rest]], pages=pages)

    async def keep(self, progress: Progress) -> None:
        """
        Keep *progress*; failures first, so that none is counted that cannot be shown.

        Raises:
            StoreUnavailable: It is not known to be kept.
        """
        while progress.failures:
            page = progress.failures[:PAGE_FAILURES]
            body = dump_json({"failures": [failure.members() for failure in page]})
            await self._store.remember(_key(progress.job.id, progress.pages), body, ttl_seconds=JOB_SECONDS)
            if len(page) < PAGE_FAILURES:
                break
            progress.failures = progress.failures[PAGE_FAILURES:]
            progress.pages += 1
        await self._store.remember(_key(progress.job.id), dump_json(progress.job.members()), ttl_seconds=JOB_SECONDS)


class LineDigest:
    """A hash of lines, one after the other."""

    def __init__(self, job: str) -> None:
        """Begin for the job named *job*: nobody can tell from two digests that two jobs have the same lines."""
        self._hash = hashlib.sha256(job.encode("ascii"))

    def add(self, line: bytes) -> None:
        """Take the next *line*, without its end."""
        self._hash.update(len(line).to_bytes(4, "big") + line)

    def text(self) -> str:
        """Return the hash of the lines so far."""
        return self._hash.hexdigest()


def sheet_name(lines: str, first: int, number: int) -> str:
    """
    Return the name of the *number*-th sheet of a block.

    Args:
        lines: The digest of all lines of the job up to the block's last, so that another block has another name.
        first: The block's first line.
        number: Counted from 0.
    """
    digest = hashlib.sha256(f"{lines} {first} {number}".encode("ascii")).digest()
    return spelled_name(digest[: SHEET_NAME_CHARACTERS * 5 // 8])


def _stop_key(name: str) -> str:
    return f"job-{name}-stop"


def _key(name: str, page: int | None = None) -> str:
    return f"job-{name}" if page is None else f"job-{name}-{page}"
