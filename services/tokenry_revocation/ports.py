"""
What the revocation service needs of a store, whichever it is.

The store is an append-only log of records that nothing but the passing of time takes away. Three promises
carry the whole service; one suite (`tests/contracts/test_revocation_store.py`) holds every adapter to them:

1. *Durable.* When `append` has returned, the record survives the sudden death of every process involved.
2. *Complete.* A chain of reads, each starting from the position that the one before returned, has seen every
   record whose `append` had returned before the last read of the chain began. Whichever replica wrote it,
   whatever its clock said.
3. *Honest.* What cannot be known is `StoreUnavailable`, never a guess: a write that may or may not have
   happened is reported as a failure, and doing it again is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from tokenry.errors import ConfigurationError, TokenryError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# What makes a store, or brings one up to date; never a starting service.
CREATE_COMMAND: Final = "tokenry serve revocation --create-schema"
# Far above any id that the service makes (a hash or a UUID), far below what a key column may hold.
MAX_ID_CHARACTERS = 200
# One revocation: some fingerprints, hashes and names. A body above this is a fault of the caller.
MAX_BODY_BYTES = 64 * 1024
# Remembered: an answer to be given again, the progress of a job, one replica's view of its validators.
MAX_VALUE_BYTES = 1024 * 1024
# A month, well below what a store can count in a row's time to live (Cassandra: 20 years).
MAX_TTL_SECONDS = 30 * 24 * 3600


class StoreUnavailable(TokenryError):
    """
    The store did not confirm in time: whether a write happened is unknown, and doing it again is safe (503).

    The message names the operation and the cause for the log; it holds no record and no address of a caller.
    """


class RecordOutlivesStore(TokenryError):
    """
    The record would stay in force longer than the store keeps anything that ends at all (`MAX_TTL_SECONDS`).

    It is refused, never cut short.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """
    One record as the store keeps it.

    Attributes:
        id: The record's name; appending the same one again is harmless.
        body: What the service wrote (`records.py`); the store never looks inside.
        in_force_until: Unix seconds until which the record matters, or None for ever. The store may forget it
            any time after that, and not before.
        position: Where the store put it; 0 as long as it is not stored. Comparable within one store only.
    """

    id: str
    body: bytes
    in_force_until: int | None
    position: int = 0

    def __post_init__(self) -> None:
        """Check the bounds that every adapter relies upon."""
        if not 0 < len(self.id) <= MAX_ID_CHARACTERS:
            raise ValueError(f"a record's id has 1 to {MAX_ID_CHARACTERS} characters")
        if len(self.body) > MAX_BODY_BYTES:
            raise ValueError(f"a record's body has at most {MAX_BODY_BYTES} bytes")
        if self.position < 0 or (self.in_force_until is not None and self.in_force_until < 0):
            raise ValueError("positions and times of a record are not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """
    The answer to one read.

    Attributes:
        records: In ascending position. The same id may come more than once, here or in another batch; the one
            with the highest position is the latest.
        position: What to read after next time. Never lower than the position that was read after.
    """

    records: tuple[StoredRecord, ...]
    position: int


def check_remembered(value: bytes, *, ttl_seconds: int) -> None:
    """Refuse, with ValueError, what no store remembers: a large value, a lifetime of nothing or of months."""
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError(f"a remembered value has at most {MAX_VALUE_BYTES} bytes")
    if not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
        raise ValueError(f"a remembered value lives for 1 to {MAX_TTL_SECONDS} seconds")


def check_lifetime(record: StoredRecord, *, now: float) -> None:
    """
    Refuse a record that ends, but not within `MAX_TTL_SECONDS` of *now* (Unix seconds).

    Raises:
        RecordOutlivesStore: It would stay in force longer than a store keeps anything that ends.
    """
    if record.in_force_until is not None and record.in_force_until > now + MAX_TTL_SECONDS:
        raise RecordOutlivesStore(f"a record is kept for at most {MAX_TTL_SECONDS} s, unless for ever")


def check_environment(found: str | None, *, wanted: str) -> None:
    """
    Refuse a store that names another environment than ours.

    Args:
        found: What the store names; None for a store that was never told, which any environment may use.
        wanted: Ours.

    Raises:
        ConfigurationError: It is another one; the text says what to do.
    """
    if found is not None and found != wanted:
        raise ConfigurationError(
            [
                (
                    f"the store belongs to the environment {found}, and TOKENRY_ENVIRONMENT is {wanted}: "
                    "name this environment's store in TOKENRY_STORE_URL, or correct TOKENRY_ENVIRONMENT"
                )
            ]
        )


class RevocationStore(Protocol):
    """
    A log of revocation records that several replicas append to and read from.

    Every method raises `StoreUnavailable` when the store does not answer in time. Cancelling a call does not
    undo what it may have written.

    """

    @property
    def overlap(self) -> int:
        """
        Return how far below a batch's position later news may still lie, in units of a position.

        `read` reaches back by itself; a caller that serves cursors of its own from memory subtracts it.
        """
        ...

    @property
    def retention_seconds(self) -> int | None:
        """
        Return for how many seconds from its append an ordinary record may be in force.

        One that ends later is kept as well, but apart, and is read again each time: that has to stay the
        exception, so this is at least the longest life of a token plus the skew. None: no difference.
        """
        ...

    async def append(self, record: StoredRecord) -> None:
        """
        Keep *record*, and return only when it is durable and every later read of any replica will bring it.

        Its `position` is ignored: the store gives one. The same record again (id and body) is harmless. The
        same id with another body replaces what `get` answers, and comes in `read` as a record of its own.

        Raises:
            StoreUnavailable: Not confirmed. It may be stored or not; append it again with the same id.
            RecordOutlivesStore: It would be in force longer than the store keeps it; nothing was written.
        """
        ...

    async def get(self, record_id: str) -> StoredRecord | None:
        """
        Return the record last appended under *record_id*, or None.

        A strong read: what was acknowledged before the call began is found; what is found is in the log as
        well. A record out of force may or may not be found. The position of the answer may be 0 (unknown).
        """
        ...

    async def read(self, after: int | None) -> Batch:
        """
        Return what a reader that has everything up to position *after* may be missing.

        Args:
            after: The `position` of an earlier batch of this store, whichever replica read it, or a lower
                one. None: everything that is in force (a full sweep; it depends on no earlier read and on
                nobody's clock, and so mends what a wrong clock may have hidden).

        Returns:
            At least every record that was acknowledged before this call began, is still in force, and is in
            no earlier batch of the chain; usually some that are (`overlap`), and some out of force.
        """
        ...

    def pages(self) -> AsyncGenerator[Batch, None]:
        """
        Yield what `read(None)` returns, in portions and in no order: a million records need not lie in memory at once.

        The position of the last batch is the one to read after; it counts only when all of them were taken. There
        is at least one. Reading on lets others have the event loop; how much is held in between is bounded.

        Raises:
            StoreUnavailable: Also in the middle; what was yielded before is good, and the sweep is not complete.
        """
        ...

    async def remember(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """
        Keep *value* under *key* for *ttl_seconds*; the last writer wins.

        For what may be lost without harm to security: answers to repeated posts, progress of jobs.

        Raises:
            ValueError: The value has more than `MAX_VALUE_BYTES`, or lives for less than a second or for more
                than `MAX_TTL_SECONDS`.
        """
        ...

    async def recall(self, key: str) -> bytes | None:
        """Return what was last remembered under *key*, or None when it was never, or has expired."""
        ...

    async def remember_member(self, group: str, name: str, value: bytes, *, ttl_seconds: int) -> None:
        """
        Keep *value* as the member *name* of *group*, for *ttl_seconds*; the last writer wins.

        A group is small (replicas and their views, not requests): `recall_members` returns it whole. Groups
        do not share names with the keys of `remember`.
        """
        ...

    async def recall_members(self, group: str) -> dict[str, bytes]:
        """Return the values of all members of *group* that have not expired, by name."""
        ...

    async def epoch(self) -> int:
        """
        Return the number that names this store, fixed when it was created.

        A store created later has a higher one (the Unix seconds of its creation), so readers notice when they
        are led back to an older one.
        """
        ...

    async def environment(self) -> str | None:
        """
        Return the name of the environment that the store was created for; None when it names none.

        Creating the schema writes it once, also into a store that was made by a release that named none.
        """
        ...

    async def ping(self) -> None:
        """
        Return when the store answers a strong read.

        Raises:
            StoreUnavailable: It does not, with the reason that readiness shows.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted, let go of threads, files and connections; a second call does nothing."""
        ...
