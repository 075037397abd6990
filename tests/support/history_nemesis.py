"""
What breaks the platform: one thing or two at a time, by a seed; each is declared in the history, and mended.

The name of a fault is its kind, a colon, and what it hit: the table of a run has a row for each kind.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.proof.history import Fault
from tests.support.history_lists import SPOILS, Spoiling
from tests.support.history_platform import SERVICES, VALIDATORS

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from tests.support.cassandra import CassandraNode
    from tests.support.fault_proxy import FaultProxy
    from tests.support.history_driver import Driver
    from tests.support.history_platform import HistoryPlatform, Part

BEYOND_SECONDS: Final = 90.0  # by which a clock is off that is beyond its bound

_LONGEST_WITHOUT_QUORUM: Final = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """
    When what is broken.

    Attributes:
        calm: Seconds at the beginning in which nothing is.
        phases: Seconds of each phase of faults, and of the calm after it.
        between: Mean seconds from the begin of one fault to that of the next one.
        at_once: How many there are at a time, at most.
        lasting: Seconds that a fault lasts, one of these.
        beyond: Seconds that some faults last that let lists get old: more than the refuse age.
        names: Which faults, by the names of `Nemesis.faults`; empty: all.
        once: Every one of them once (in this order, where they are named) before any is drawn by chance, however long
            that takes.
    """

    calm: float
    phases: Sequence[tuple[float, float]]
    between: float = 8.0
    at_once: int = 2
    lasting: Sequence[float] = (4.0, 10.0, 20.0, 50.0)
    beyond: float = 60.0
    names: Sequence[str] = ()
    once: bool = False

    @property
    def seconds(self) -> float:
        """Return how long it lasts without the repairs."""
        return self.calm + sum(map(sum, self.phases))


class Nemesis:
    """Breaks the platform of *driver*; *nodes* are those of its store, where the test owns them."""

    def __init__(
        self, driver: Driver, schedule: Schedule, chance: random.Random, nodes: Sequence[CassandraNode] = ()
    ) -> None:
        self._schedule = schedule
        self._driver = driver
        self._platform: HistoryPlatform = driver.platform
        self._random = chance
        self._nodes = nodes
        self._nodes_lock = asyncio.Lock()
        self._clocks_lock = asyncio.Lock()
        self._tasks: set[asyncio.Future[None]] = set()
        self._way_locks = {name: asyncio.Lock() for name in (*VALIDATORS, "issuer", *SERVICES, "posts")}

    @property
    def faults(self) -> Mapping[str, Callable[[float], Awaitable[None]]]:
        """Return all that can be broken here, by name."""
        store = {
            "node killed": self._node_killed,
            "node paused": self._node_paused,
            "two nodes gone": self._two_nodes_gone,
            "quorums swapped": self._quorums_swapped,
        }
        return {
            **(store if len(self._nodes) == 3 else {}),
            "service killed": self._service_killed,
            "service paused": self._service_paused,
            "service restarted": self._service_restarted,
            "services and validators killed": self._everything_restarts,
            "store cut off": self._store_cut,
            "store slow": self._store_slow,
            "store half open": self._store_half_open,
            **({"one node silent": self._one_node_silent} if len(self._nodes) == 3 else {}),
            "posts cut": self._posts_cut,
            "posts half open": self._posts_half_open,
            "delivery cut": self._delivery_cut,
            "delivery cut for one": self._delivery_cut_for_one,
            "delivery slow for one": self._delivery_slow_for_one,
            "stale service": self._stale_service,
            "dark restart": self._dark_restart,
            "lists spoiled": self._lists_spoiled,
            "validator killed": self._validator_killed,
            "validator paused": self._validator_paused,
            "issuer killed": self._issuer_killed,
            "issuer paused": self._issuer_paused,
            "clock of a service": self._service_clock,
            "clock of a validator": self._validator_clock,
            "clock of the issuer": self._issuer_clock,
        }

    async def run(self) -> None:
        """Break things; return when everything is mended and calm."""
        schedule = self._schedule
        await asyncio.sleep(schedule.calm)
        names = list(schedule.names or self.faults)
        first = list(schedule.names) or self._random.sample(names, len(names))
        first = first if schedule.once else []
        for breaking, calm in schedule.phases:
            until = self._driver.now() + breaking
            while first or until - self._driver.now() > 2.0:
                while len(self._tasks) >= schedule.at_once:
                    await self._one_ends()
                left = until - self._driver.now()
                if not first and left <= 2.0:
                    break
                name = first.pop(0) if first else self._random.choice(names)
                seconds = self._random.choice(schedule.lasting) * self._random.uniform(0.8, 1.2)
                seconds = min(seconds, max(left, schedule.lasting[0]))
                self._begin(self.faults[name](seconds))
                await asyncio.sleep(max(0.0, min(left, self._random.expovariate(1 / schedule.between))))
            while self._tasks:
                await self._one_ends()
            await asyncio.sleep(calm)

    async def _one_ends(self) -> None:
        done, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def _begin(self, work: Awaitable[None]) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    @asynccontextmanager
    async def _declared(
        self, kind: str, what: str = "", *, clock: bool = False, processes: tuple[str, ...] = ()
    ) -> AsyncIterator[None]:
        start = self._driver.now()
        try:
            yield
        finally:
            name = f"{kind}: {what}" if what else kind
            end = self._driver.now()
            self._driver.declare(Fault(name=name, start=start, end=end, clock=clock, processes=processes))

    # --- the store ----------------------------------------------------------------------------------------------

    async def _bring_back(self, *nodes: CassandraNode) -> None:
        for node in nodes:
            await asyncio.to_thread(node.start)
        for node in nodes:
            await asyncio.to_thread(node.wait_until_ready)

    async def _node_killed(self, seconds: float) -> None:
        async with self._nodes_lock:
            node = self._random.choice(self._nodes)
            async with self._declared("node killed", node.address):
                await asyncio.to_thread(node.kill)
                await asyncio.sleep(seconds)
                await self._bring_back(node)

    async def _node_paused(self, seconds: float) -> None:
        async with self._nodes_lock:
            node = self._random.choice(self._nodes)
            async with self._declared("node paused", node.address):
                node.pause()
                await asyncio.sleep(seconds)
                node.resume()

    async def _two_nodes_gone(self, seconds: float) -> None:
        async with self._nodes_lock:
            two = self._random.sample(list(self._nodes), 2)
            async with self._declared("two nodes gone", " ".join(node.address for node in two)):
                for node in two:
                    await asyncio.to_thread(node.kill)
                await asyncio.sleep(min(seconds, _LONGEST_WITHOUT_QUORUM))
                await self._bring_back(*two)

    async def _quorums_swapped(self, seconds: float) -> None:
        """
        One node alone for a while; then it goes, and the two others come: what it alone was told is not there.

        They stop before they die, and all is slow then, so that writes are on their way which only one node hears of.
        """
        proxies = [proxy for each in self._platform.stores.values() for proxy in each]
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._nodes_lock)
            for name in SERVICES:
                await stack.enter_async_context(self._way_locks[name])
            alone, *others = self._random.sample(list(self._nodes), 3)
            async with self._declared("quorums swapped", alone.address):
                async with self._broken("store slow", "A B", proxies, lambda proxy: proxy.delay(0.3)):
                    await asyncio.sleep(2.0)
                    for node in others:
                        node.pause()
                    await asyncio.sleep(2.0)
                for node in others:
                    await asyncio.to_thread(node.kill)
                await asyncio.sleep(1.0)
                await asyncio.to_thread(alone.kill)
                await self._bring_back(*others)
                await asyncio.sleep(max(15.0, min(seconds, _LONGEST_WITHOUT_QUORUM)))
                await self._bring_back(alone)

    # --- processes ----------------------------------------------------------------------------------------------

    async def _killed(self, kind: str, part: Part, seconds: float) -> None:
        async with part.lock, self._declared(kind, part.name):
            await part.kill()
            await asyncio.sleep(seconds)
            await part.start()

    async def _paused(self, kind: str, part: Part, seconds: float) -> None:
        async with part.lock, self._declared(kind, part.name):
            part.pause()
            await asyncio.sleep(seconds)
            part.resume()
            await part.wait_until_ready()

    def _one_of(self, names: Sequence[str]) -> Part:
        return self._platform.parts[self._random.choice(names)]

    async def _service_killed(self, seconds: float) -> None:
        await self._killed("service killed", self._one_of(SERVICES), min(seconds, 20.0))

    async def _service_paused(self, seconds: float) -> None:
        await self._paused("service paused", self._one_of(SERVICES), min(seconds, 30.0))

    async def _service_restarted(self, seconds: float) -> None:
        part = self._one_of(SERVICES)
        async with part.lock, self._declared("service restarted", part.name):
            await part.stop()
            await part.start()

    async def _validator_killed(self, seconds: float) -> None:
        await self._killed("validator killed", self._one_of(VALIDATORS), self._random.choice((0.1, 2.0, 12.0)))

    async def _validator_paused(self, seconds: float) -> None:
        await self._paused("validator paused", self._one_of(VALIDATORS), seconds)

    async def _issuer_killed(self, seconds: float) -> None:
        await self._killed("issuer killed", self._platform.parts["issuer"], min(seconds, 20.0))

    async def _issuer_paused(self, seconds: float) -> None:
        await self._paused("issuer paused", self._platform.parts["issuer"], min(seconds, 20.0))

    async def _everything_restarts(self, seconds: float) -> None:
        """Nothing is known any more but what is in the store, or in a state folder."""
        parts = [self._platform.parts[name] for name in (*SERVICES, *VALIDATORS)]
        async with AsyncExitStack() as stack:
            for part in parts:
                await stack.enter_async_context(part.lock)
            await stack.enter_async_context(self._declared("services and validators killed"))
            for part in parts:
                await part.kill()
            await asyncio.sleep(self._random.choice((0.2, 3.0)))
            for part in parts:
                await part.start(wait=False)
            for part in parts:
                await part.wait_until_ready()

    # --- the way to the store, and of posts ---------------------------------------------------------------------

    @asynccontextmanager
    async def _broken(
        self, kind: str, what: str, proxies: Sequence[FaultProxy], how: Callable[[FaultProxy], None]
    ) -> AsyncIterator[None]:
        async with self._declared(kind, what):
            try:
                for proxy in proxies:
                    await asyncio.to_thread(how, proxy)
                yield
            finally:
                for proxy in proxies:
                    await asyncio.to_thread(proxy.pass_)

    async def _store(self, kind: str, how: Callable[[FaultProxy], None], seconds: float, *, nodes: int = 3) -> None:
        name = self._random.choice(SERVICES)
        proxies = self._random.sample(self._platform.stores[name], min(nodes, len(self._platform.stores[name])))
        async with self._way_locks[name], self._broken(kind, name, proxies, how):
            await asyncio.sleep(seconds)

    async def _store_cut(self, seconds: float) -> None:
        await self._store("store cut off", lambda proxy: proxy.cut(), seconds)

    async def _store_slow(self, seconds: float) -> None:
        late = self._random.choice((0.1, 0.4, 0.9))
        await self._store("store slow", lambda proxy: proxy.delay(late), seconds)

    async def _store_half_open(self, seconds: float) -> None:
        """Writes arrive and nobody learns of it."""
        await self._store("store half open", lambda proxy: proxy.blackhole("down"), seconds)

    async def _one_node_silent(self, seconds: float) -> None:
        await self._store("one node silent", lambda proxy: proxy.blackhole(), seconds, nodes=1)

    async def _posts(self, kind: str, how: Callable[[FaultProxy], None], seconds: float) -> None:
        names = self._random.choice((("A",), ("B",), SERVICES))
        proxies = [self._platform.posts[name] for name in names]
        async with self._way_locks["posts"], self._broken(kind, " ".join(names), proxies, how):
            await asyncio.sleep(min(seconds, 20.0))

    async def _posts_cut(self, seconds: float) -> None:
        await self._posts("posts cut", lambda proxy: proxy.cut(), seconds)

    async def _posts_half_open(self, seconds: float) -> None:
        await self._posts("posts half open", lambda proxy: proxy.blackhole("down"), seconds)

    # --- the way of lists ---------------------------------------------------------------------------------------

    def _beyond(self, seconds: float) -> float:
        """Return a time beyond the refuse age, now and then."""
        return self._schedule.beyond if self._random.random() < 0.6 else seconds

    async def _delivery_cut(self, seconds: float) -> None:
        """The asymmetric one: posts are acknowledged, and no validator hears of them."""
        async with AsyncExitStack() as stack:
            for name in VALIDATORS:
                await stack.enter_async_context(self._way_locks[name])
            proxies = [self._platform.lists[name] for name in VALIDATORS]
            how = self._random.choice((_cut, _blackhole, _deaf))
            await stack.enter_async_context(self._broken("delivery cut", "all", proxies, how))
            await asyncio.sleep(self._beyond(seconds))

    async def _delivery_cut_for_one(self, seconds: float) -> None:
        name = self._random.choice(VALIDATORS)
        how = self._random.choice((_cut, _blackhole, _deaf))
        async with (
            self._way_locks[name],
            self._broken("delivery cut for one", name, [self._platform.lists[name]], how),
        ):
            await asyncio.sleep(self._beyond(seconds))

    async def _delivery_slow_for_one(self, seconds: float) -> None:
        name = self._random.choice(VALIDATORS)
        late, narrow = self._random.choice((0.3, 1.5, 4.0)), self._random.random() < 0.4

        def how(proxy: FaultProxy) -> None:
            if narrow:
                proxy.throttle(3_000, "down")
            else:
                proxy.delay(late)

        async with (
            self._way_locks[name],
            self._broken("delivery slow for one", name, [self._platform.lists[name]], how),
        ):
            await asyncio.sleep(self._beyond(seconds))

    async def _stale_service(self, seconds: float) -> None:
        """One service cannot read and still answers, and is all that some validators can reach; posts go on."""
        number = self._random.randrange(2)
        service = SERVICES[number]
        pinned = [self._platform.balancers[name] for name in self._random.sample(VALIDATORS, 2)]
        async with self._way_locks[service]:
            stores = self._platform.stores[service]
            async with self._broken("stale service", service, stores, _blackhole):
                for balancer in pinned:
                    balancer.pinned = number
                await asyncio.sleep(self._beyond(seconds))
                for balancer in pinned:
                    balancer.pinned = None

    async def _dark_restart(self, seconds: float) -> None:
        """A validator restarts while its list cannot come; posts go on."""
        part = self._one_of(VALIDATORS)
        proxy = self._platform.lists[part.name]
        async with part.lock, self._way_locks[part.name]:
            async with self._broken("dark restart", part.name, [proxy], self._random.choice((_cut, _blackhole))):
                await asyncio.sleep(self._random.choice((0.0, self._schedule.beyond - 15.0)))
                await part.kill()
                await part.start(wait=False)
                await asyncio.sleep(max(10.0, seconds))
            await part.wait_until_ready()

    async def _lists_spoiled(self, seconds: float) -> None:
        name = self._random.choice(VALIDATORS)
        which = self._random.choice(SPOILS)
        balancer = self._platform.balancers[name]
        async with self._way_locks[name], self._declared("lists spoiled", f"{which} for {name}"):
            balancer.spoiling = Spoiling(**{which: 0.5})
            await asyncio.sleep(seconds)
            balancer.spoiling = Spoiling()

    # --- clocks -------------------------------------------------------------------------------------------------

    async def _service_clock(self, seconds: float) -> None:
        await self._clock("clock of a service", self._one_of(SERVICES), seconds)

    async def _validator_clock(self, seconds: float) -> None:
        await self._clock("clock of a validator", self._one_of(VALIDATORS), seconds)

    async def _issuer_clock(self, seconds: float) -> None:
        await self._clock("clock of the issuer", self._platform.parts["issuer"], seconds)

    async def _clock(self, kind: str, part: Part, seconds: float) -> None:
        """One at a time: two that agree on a wrong time notice nothing."""
        async with self._clocks_lock:
            off = self._random.choice((-1.0, 1.0)) * BEYOND_SECONDS
            async with self._declared(kind, f"{part.name} {off:+g} s", clock=True):
                span = [self._driver.now(), float("inf")]
                self._driver.clock_faults.setdefault(part.name, []).append(span)
                part.turn(off)
                await asyncio.sleep(seconds)
                part.turn(0.0)
                span[1] = self._driver.now()


def _cut(proxy: FaultProxy) -> None:
    proxy.cut()


def _blackhole(proxy: FaultProxy) -> None:
    proxy.blackhole()


def _deaf(proxy: FaultProxy) -> None:
    """Questions arrive, answers do not."""
    proxy.blackhole("down")
