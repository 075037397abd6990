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
import gc
import math
import sys
from contextlib import aclosing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from tokenry.errors import ProtocolError
from tokenry.revocation.lists import MAX_ENTRIES, RevocationList, TooManyEntries
from tokenry.revocation.planb import PlanBList
from tokenry.revocation.wire import ListStamp
from tokenry.validation.snapshots import Snapshot
from tokenry_revocation.live import AnyLive, Live, LiveSheet
from tokenry_revocation.ports import StoreUnavailable
from tokenry_revocation.publication import Publication
from tokenry_revocation.revoking import KEEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tokenry.clock import Clock
    from tokenry.revocation.entries import Entry
    from tokenry_revocation.metrics import ServiceMetrics
    from tokenry_revocation.ports import RevocationStore, StoredRecord
    from tokenry_revocation.records import Record
    from tokenry_revocation.revoking import Fingerprints
    from tokenry_revocation.sheets import Sheet

READ_INTERVAL_SECONDS: Final = 0.5  # promised: the other replicas read the store at least this often
START_INTERVAL_SECONDS: Final = 0.05  # before the first read has succeeded
SWEEP_SECONDS: Final = 60.0  # between two reads of everything
READ_DEADLINE_SECONDS: Final = 5.0  # of one read; a full one of a million records has its own
PAGE_DEADLINE_SECONDS: Final = 10.0  # of one portion of a sweep, however many there are
_STRETCH: Final = 2_500  # microseconds, or so, for which the event loop is held at a time
_JOINING: Final = 25  # microseconds, or so, that a revoked token takes until it is published
_READING_RULE: Final = 150  # and a rule, which is JSON
_FROZEN_AT_ONCE: Final = 10_000  # records of the first read, after which they are no concern of the garbage collector
_AT_ONCE: Final = 200  # rules that are put into a list without a thread
_STEPS: Final = 8  # of pruning without a pause
RESTED_SHARE: Final = 10  # a sweep that takes longer than a tenth of the time is made less often
WAKE_SECONDS: Final = 0.05  # between two moments at which all who are held look for news
_IN_BACKGROUND: Final = 20_000  # a store of more records is swept beside the reads, its list compacted in a thread

_log = structlog.get_logger("tokenry.revocation.feed")


@dataclass(frozen=True, slots=True)
class Moment:
    """
    When a complete read began: what is published now is complete up to then, less the bound on the skew.

    Attributes:
        now: Unix seconds.
        monotonic: The same on this process's own clock.
    """

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
        sweep_seconds: float = SWEEP_SECONDS,
        max_entries: int = MAX_ENTRIES,
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
            sweep_seconds: Seconds between two reads of everything, by which what was written late is found.
            max_entries: While the list is longer it is not said to be complete: validators have the same bound.
        """
        self._store = store
        self._sweep_seconds = sweep_seconds
        self._clock = clock
        self._skew = skew
        self._max_token_lifetime = max_token_lifetime
        self._retention = max_token_lifetime + KEEP_SECONDS
        self._metrics = metrics
        self.salts = {fingerprints.salt_id: fingerprints.salt}
        self._publication: Publication | None = None
        self._max_entries = max_entries
        self._list = RevocationList.empty()
        self._last_read: Moment | None = None
        self._sweep_at = float("-inf")
        self._sweeping: asyncio.Task[None] | None = None
        self._unreadable: str | None = None  # what a sweep beside the reads has found
        self._meanwhile: list[Sequence[AnyLive]] | None = None  # what came while the list is being compacted
        self._changing_list = asyncio.Lock()
        self._first_rules: list[AnyLive] | None = None  # of the first read: put into the list at its end, all at once
        self._waking: asyncio.TimerHandle | None = None
        self._woken = float("-inf")
        self._fault: str | None = "nothing was read yet"
        self._change = asyncio.Event()
        self._read = asyncio.Event()
        self._early: list[AnyLive] = []
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
    def max_entries(self) -> int:
        """Return how many entries a reader takes."""
        return self._max_entries

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

    @property
    def moment(self) -> Moment:
        """Return what an answer that is written from now on is of; only once something is published."""
        if self._last_read is None:
            raise StoreUnavailable("nothing was read yet")
        return self._last_read

    def stamp(self, moment: Moment | None = None) -> ListStamp:
        """Return what an answer says of the list that it was made from: that of *moment*, or of now."""
        epoch = 0 if self._publication is None else self._publication.epoch
        if moment is None or moment is self._last_read:
            return ListStamp(epoch=epoch, as_of=self.as_of, age=self.age())
        age = self._clock.monotonic() - moment.monotonic + self._skew
        return ListStamp(epoch=epoch, as_of=max(0.0, moment.now - self._skew), age=age)

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
            # Readers wait for the first list, and a store that is being opened will be open in a moment.
            interval = START_INTERVAL_SECONDS if self._last_read is None else READ_INTERVAL_SECONDS
            await asyncio.sleep(max(0.0, began + interval - loop.time()))

    async def close(self) -> None:
        """End what goes on beside the reads."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    async def read(self) -> bool:
        """Read the store once and return whether that was complete."""
        began = Moment(self._clock.now(), self._clock.monotonic())
        sweep = self._publication is None or began.monotonic >= self._sweep_at
        if sweep and len(self._publication or ()) > _IN_BACKGROUND:
            self._sweep_beside(began)
            sweep = False
        try:
            async with asyncio.timeout(None if sweep else READ_DEADLINE_SECONDS):
                if self._publication is None:
                    await self._begin()
                await self._take(sweep=sweep, now=self._surely(began.now))
            self._check_readable()
            self._check_length()
        except (StoreUnavailable, TimeoutError) as error:
            self._failed("the store does not answer", error=str(error) or "deadline")
            return False
        except TooManyEntries as error:
            self._failed("more is revoked than a list may have entries", error=str(error))
            return False
        except ProtocolError as error:
            self._failed("the store has a record that this version cannot read", error=str(error))
            return False
        if sweep:
            self._swept(began)
        self._succeeded(began)
        return True

    def _surely(self, now: float) -> float:
        """
        Return the earlier one of our time and the store's, by which records end.

        A clock that was ahead for a moment would else have ended what is in force, until the next sweep.
        """
        offset = getattr(self._store, "clock_offset", None)
        return now if offset is None else min(now, now - offset)

    def _check_readable(self) -> None:
        if self._unreadable is not None:
            raise ProtocolError(self._unreadable)

    def _check_length(self) -> None:
        if len(self._list) > self._max_entries:
            raise TooManyEntries(self._max_entries)

    def _swept(self, began: Moment) -> None:
        took = self._clock.monotonic() - began.monotonic
        self._sweep_at = began.monotonic + max(self._sweep_seconds, RESTED_SHARE * took)

    def _sweep_beside(self, began: Moment) -> None:
        """Sweep while reads go on: a long one must not make the list old."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep_once(began), name="revocation-sweep")

    async def _sweep_once(self, began: Moment) -> None:
        try:
            await self._take(sweep=True, now=self._surely(began.now))
        except (StoreUnavailable, TimeoutError) as error:
            _log.warning("the store was not read as a whole", error=str(error) or "deadline")
            self._metrics.read_failed()
        except ProtocolError as error:
            self._unreadable = str(error)
        except Exception:  # noqa: BLE001 -- as in `run`
            _log.exception("reading the whole store broke")
            self._metrics.read_failed()
        else:
            self._unreadable = None
        self._swept(began)

    async def _begin(self) -> None:
        async with asyncio.timeout(READ_DEADLINE_SECONDS):
            epoch = await self._store.epoch()
        plan_b = PlanBList(skew=self._skew, retention=self._retention)
        self._publication = Publication(epoch=epoch, overlap=self._store.overlap, plan_b=plan_b)
        self._list = replace(
            RevocationList.of(
                (),
                salts=self.salts,
                epoch=epoch,
                max_token_lifetime=self._max_token_lifetime,
                now=self._clock.now(),
                max_entries=sys.maxsize,  # what is revoked is obeyed here; `_check_length` tells when it is too much
            ),
            prune_at=math.inf,  # that takes a second for a million: `_prune` does it in a thread
        )
        early, self._early = self._early, []
        self._merge(early)

    async def _take(self, *, sweep: bool, now: float) -> None:
        publication = self._publication
        if publication is None:  # pragma: no cover -- `_begin` came before
            return
        with self._metrics.store("sweep" if sweep else "read"):
            if sweep:
                if self._last_read is None and self._first_rules is None:
                    self._first_rules = []
                position = await self._sweep(publication)
            else:
                batch = await self._store.read(publication.position)
                position = batch.position
                await self._absorb(publication, batch.records)
            if self._last_read is None:
                await self._put_first_rules(now)
        publication.advance(position)
        if sweep:
            await self._prune(publication, now=now)

    async def _sweep(self, publication: Publication) -> int:
        """Read everything, a portion at a time, and return the position to read on from."""
        position = unfrozen = 0
        async with aclosing(self._store.pages()) as pages:
            while True:
                async with asyncio.timeout(PAGE_DEADLINE_SECONDS):
                    batch = await anext(pages, None)
                if batch is None:
                    return position
                position = batch.position
                await self._absorb(publication, batch.records)
                unfrozen += len(batch.records)
                if self._first_rules is not None and unfrozen >= _FROZEN_AT_ONCE:
                    gc.freeze()  # all of it stays: a full collection of a million objects takes half a second
                    unfrozen = 0

    async def _put_first_rules(self, now: float) -> None:
        """
        Put the rules of the first read into the list; one by one each would copy those before it.

        When this returns they are all in it, also those that another task was putting in just then.
        """
        async with self._changing_list:
            rules, self._first_rules = self._first_rules, None
            if not rules:
                return
            try:
                with _uncollected() if len(rules) >= _FROZEN_AT_ONCE else nullcontext():
                    await self._change_list(
                        lambda held: _merged(held, rules, now=now), at_once=len(rules) <= _AT_ONCE, now=now
                    )
            except BaseException:
                self._first_rules = rules  # the next read tries again; what came meanwhile is in the list
                raise

    async def _absorb(self, publication: Publication, records: Sequence[StoredRecord]) -> None:
        """Publish what is new among *records*; others get the event loop meanwhile."""
        changed, done = False, 0
        portion: list[AnyLive] = []
        for stored in records:
            done += 1
            if not publication.knows(stored.id, stored.position):
                portion.append(Live.read(stored))
                done += _READING_RULE if isinstance(portion[-1], Live) else _JOINING * portion[-1].lines
            if done >= _STRETCH:  # counted, not measured: what happens when is the same in every run
                changed |= self._join(portion)
                portion, done = [], 0
                await asyncio.sleep(0)
        changed |= self._join(portion)
        self._metrics.read(len(records))
        if changed:
            self._changed()

    async def _prune(self, publication: Publication, *, now: float) -> None:
        """Drop what is out of force."""
        dropped = 0
        for number, some in enumerate(publication.prune_some(now=now)):
            dropped += some
            if number % _STEPS == 0:
                await asyncio.sleep(0)
        if dropped:
            await self._compact(now)
            self._changed()

    async def _compact(self, now: float) -> None:
        """Drop from the list what is out of force; what comes meanwhile is added to the result."""
        async with self._changing_list:
            at_once = len(self._list) <= _IN_BACKGROUND
            await self._change_list(lambda held: held.compact(now=now), at_once=at_once, now=now)

    async def _change_list(
        self, change: Callable[[RevocationList], RevocationList], *, at_once: bool, now: float
    ) -> None:
        """Put what *change* makes of the list in its place; what comes meanwhile is added to the result."""
        before, self._meanwhile = self._list, []
        changed = change(before) if at_once else await asyncio.to_thread(change, before)
        meanwhile, self._meanwhile = self._meanwhile, None
        self._list = replace(changed, prune_at=math.inf)
        for news in meanwhile or ():
            self._list = _merged(self._list, news, now=now)

    def _succeeded(self, began: Moment) -> None:
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
        self._publish(Live.of(record, position=0))

    def add_sheet(self, name: str, sheet: Sheet) -> None:
        """Publish the tokens of *sheet*, which the store has acknowledged under *name*."""
        self._publish(LiveSheet(id=name, sheet=sheet, position=0))

    def _publish(self, live: AnyLive) -> None:
        if self._publication is None:
            self._early.append(live)
        else:
            self._merge([live])

    def _merge(self, records: Sequence[AnyLive]) -> None:
        if self._join(records):
            self._changed()

    def _join(self, records: Sequence[AnyLive]) -> bool:
        """Take *records* in and return whether any of them is new."""
        publication = self._publication
        if publication is None or not records:
            return False
        now = self._surely(self._clock.now())
        new = publication.add(records, now=now)
        if new and self._first_rules is not None:
            self._first_rules += [live for live in new if isinstance(live, Live)]
            self._list = _merged(self._list, [live for live in new if isinstance(live, LiveSheet)], now=now)
        elif new:
            self._list = _merged(self._list, new, now=now)
            if self._meanwhile is not None:
                self._meanwhile.append(new)
        return bool(new)

    def _changed(self) -> None:
        """Wake who waits for news: at once, or soon when that was a moment ago."""
        if self._publication is not None:
            self._metrics.rules(self._publication)
        loop = asyncio.get_running_loop()
        if self._waking is not None:
            return
        if loop.time() - self._woken >= WAKE_SECONDS:
            self._wake()
        else:
            self._waking = loop.call_at(self._woken + WAKE_SECONDS, self._wake)

    def _wake(self) -> None:
        self._waking, self._woken = None, asyncio.get_running_loop().time()
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
        self._wake()
        event, self._read = self._read, asyncio.Event()
        event.set()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from what is made meanwhile: all of it stays, and a collection stops every thread."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _merged(held: RevocationList, new: Iterable[AnyLive], *, now: float) -> RevocationList:
    """Return *held* with what is new."""
    singles: dict[bytes, int] = {}
    others: list[Entry] = []
    for live in new:
        if isinstance(live, LiveSheet):
            until = live.in_force_until
            for fingerprint in live.sheet.singles():
                if singles.get(fingerprint, 0) < until:
                    singles[fingerprint] = until
        else:
            others += live.entries
    merged = held.merge(others, now=now) if others else held
    if singles:
        merged = replace(merged, block=merged.block.merged(singles))
    return merged
