"""
The loop that reads the store and wakes who waits for news.

Every half second, and after each revocation that this replica took itself, what is published is brought up to
date. A minute's sweep reads everything again: the safety net under every assumption about clocks and
positions.

`as_of` is the moment up to which every acknowledged revocation is contained: the clock at the start of the
last complete read, less the bound on the skew. A read that fails, or brings a record that this version cannot
read, leaves it where it was: readers see the list grow old, and refuse tokens rather than trust half a list.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from tokenry.errors import ProtocolError
from tokenry.revocation.lists import RevocationList
from tokenry.revocation.planb import PlanBList
from tokenry.revocation.wire import ListStamp
from tokenry.validation.snapshots import Snapshot
from tokenry_revocation.ports import StoreUnavailable
from tokenry_revocation.publication import Live, Publication
from tokenry_revocation.records import Record
from tokenry_revocation.revoking import KEEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tokenry.clock import Clock
    from tokenry_revocation.metrics import ServiceMetrics
    from tokenry_revocation.ports import RevocationStore, StoredRecord
    from tokenry_revocation.revoking import Fingerprints

READ_INTERVAL_SECONDS: Final = 0.5  # promised: the other replicas read the store at least this often
SWEEP_SECONDS: Final = 60.0  # between two reads of everything
READ_DEADLINE_SECONDS: Final = 5.0  # of one read; a full one of a million records has its own
SWEEP_DEADLINE_SECONDS: Final = 60.0
_OFF_LOOP: Final = 500  # more records than this are parsed in a thread: 20 microseconds each

_log = structlog.get_logger("tokenry.revocation.feed")


@dataclass(frozen=True, slots=True)
class _Read:
    """When the last complete read began."""

    now: float
    monotonic: float


class Feed:
    """What this replica publishes, and how old that is."""

    def __init__(
        self,
        *,
        store: RevocationStore,
        clock: Clock,
        skew: float,
        max_token_lifetime: int,
        fingerprints: Fingerprints,
        metrics: ServiceMetrics,
    ) -> None:
        """
        Begin with nothing read.

        Args:
            store: Where the records are.
            clock: Where the time comes from.
            skew: Seconds by which two clocks of the platform may differ.
            max_token_lifetime: Seconds; carried by every list.
            fingerprints: Has the salts that the list carries.
            metrics: Counts reads and rules.
        """
        self._store = store
        self._clock = clock
        self._skew = skew
        self._max_token_lifetime = max_token_lifetime
        self._retention = max_token_lifetime + KEEP_SECONDS
        self._metrics = metrics
        self.salts = {fingerprints.salt_id: fingerprints.salt}
        self._publication: Publication | None = None
        self._list = RevocationList.empty()
        self._last_read: _Read | None = None
        self._last_sweep = float("-inf")
        self._fault: str | None = "nothing was read yet"
        self._change = asyncio.Event()
        self._read = asyncio.Event()
        self._early: list[Live] = []
        self._draining = False

    # --- what is published ----------------------------------------------------------------------------------

    @property
    def publication(self) -> Publication | None:
        """Return the records in force; None before the first complete read."""
        return self._publication if self._last_read is not None else None

    @property
    def revocations(self) -> RevocationList:
        """Return the same as a list to judge tokens by."""
        return self._list

    @property
    def fault(self) -> str | None:
        """Return what was wrong with the last read; None when it was complete."""
        return self._fault

    @property
    def as_of(self) -> float:
        """
        Return the Unix seconds up to which every acknowledged revocation is contained; 0 before the first
        read.
        """
        return 0.0 if self._last_read is None else max(0.0, self._last_read.now - self._skew)

    def age(self) -> float:
        """Return how many seconds ago `as_of` was, measured on one clock; infinite before the first read."""
        if self._last_read is None:
            return float("inf")
        return self._clock.monotonic() - self._last_read.monotonic + self._skew

    def stamp(self) -> ListStamp:
        """Return what every answer says of the list that it was made from."""
        epoch = 0 if self._publication is None else self._publication.epoch
        return ListStamp(epoch=epoch, as_of=self.as_of, age=self.age())

    def snapshot(self) -> Snapshot[RevocationList] | None:
        """Return the list for the validator of our own callers; it reads as any other validator does."""
        if self._last_read is None:
            return None
        return Snapshot(
            value=self._list,
            as_of=self.as_of,
            age_at_request=self._skew,
            requested_at=self._last_read.monotonic,
            skew=self._skew,
        )

    def start(self) -> None:
        """Do nothing: the application runs the loop, not the validator that reads from here."""

    def stop(self) -> None:
        """Do nothing, for the same reason."""

    # --- reading the store ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read for ever; a failed read is reported, and tried again at the next turn."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self.read()
            except Exception as error:  # noqa: BLE001
                # A defect must not end the loop: readers would see a list that grows old and never know why.
                self._failed(f"the reader broke ({type(error).__name__})")
                _log.exception("reading the store broke")
            await asyncio.sleep(max(0.0, began + READ_INTERVAL_SECONDS - loop.time()))

    async def read(self) -> bool:
        """Read the store once and return whether that was complete."""
        began = _Read(self._clock.now(), self._clock.monotonic())
        sweep = self._publication is None or began.monotonic - self._last_sweep >= SWEEP_SECONDS
        try:
            async with asyncio.timeout(SWEEP_DEADLINE_SECONDS if sweep else READ_DEADLINE_SECONDS):
                if self._publication is None:
                    await self._begin()
                await self._take(sweep=sweep, now=began.now)
        except (StoreUnavailable, TimeoutError) as error:
            self._failed("the store does not answer", error=str(error) or "deadline")
            return False
        except ProtocolError as error:
            self._failed("the store has a record that this version cannot read", error=str(error))
            return False
        if sweep:
            self._last_sweep = began.monotonic
        self._succeeded(began)
        return True

    async def _begin(self) -> None:
        epoch = await self._store.epoch()
        plan_b = PlanBList(skew=self._skew, retention=self._retention)
        self._publication = Publication(epoch=epoch, overlap=self._store.overlap, plan_b=plan_b)
        self._list = RevocationList.of(
            (),
            salts=self.salts,
            epoch=epoch,
            max_token_lifetime=self._max_token_lifetime,
            now=self._clock.now(),
        )
        early, self._early = self._early, []
        self._merge(early)

    async def _take(self, *, sweep: bool, now: float) -> None:
        publication = self._publication
        if publication is None:  # pragma: no cover -- `_begin` came before
            return
        with self._metrics.store("sweep" if sweep else "read"):
            batch = await self._store.read(None if sweep else publication.position)
        self._merge(await _parsed(batch.records))
        publication.advance(batch.position)
        if sweep and publication.prune(now=now):
            self._changed()
        self._metrics.read(len(batch.records))

    def _succeeded(self, began: _Read) -> None:
        if self._fault is not None:
            _log.info("the store is read", records=len(self._publication or ()))
        self._fault = None
        if self._last_read is None or began.monotonic > self._last_read.monotonic:
            self._last_read = began
        event, self._read = self._read, asyncio.Event()
        event.set()

    def _failed(self, fault: str, *, error: str = "") -> None:
        if self._fault != fault:
            _log.error("the list is not being brought up to date", fault=fault, error=error)
        self._fault = fault
        self._metrics.read_failed()

    # --- news -----------------------------------------------------------------------------------------------

    def add(self, record: Record) -> None:
        """Publish *record*, which the store has acknowledged: this replica's readers get it at once."""
        live = Live.of(record, position=0)
        if self._publication is None:
            self._early.append(live)
        else:
            self._merge([live])

    def _merge(self, records: Sequence[Live]) -> None:
        publication = self._publication
        if publication is None:  # pragma: no cover -- callers have one
            return
        now = self._clock.now()
        new = publication.add(records, now=now)
        if new:
            self._list = self._list.merge((entry for live in new for entry in live.entries), now=now)
            self._changed()

    def _changed(self) -> None:
        if self._publication is not None:
            self._metrics.rules(self._publication)
        event, self._change = self._change, asyncio.Event()
        event.set()

    async def wait_for_news(self, *, ahead: bool, seconds: float) -> None:
        """
        Return when something was published, the service drains, or *seconds* are over.

        Args:
            ahead: Whether the reader has read further than this replica: then it waits for the next read.
            seconds: How long to wait at most.
        """
        event = self._read if ahead else self._change
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    @property
    def draining(self) -> bool:
        """Tell whether held requests are to be answered at once."""
        return self._draining

    def drain(self) -> None:
        """Answer whatever is held, and hold nothing any more."""
        self._draining = True
        self._changed()
        event, self._read = self._read, asyncio.Event()
        event.set()


async def _parsed(records: Sequence[StoredRecord]) -> list[Live]:
    if len(records) > _OFF_LOOP:
        return await asyncio.to_thread(_parse, records)
    return _parse(records)


def _parse(records: Iterable[StoredRecord]) -> list[Live]:
    return [Live.of(Record.from_bytes(stored.body), position=stored.position) for stored in records]
