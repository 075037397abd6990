"""What goes wrong in the simulation: at random times, two or three things at once, each declared and each mended."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from tests.proof.history import Fault
from tests.proof.parts import REFUSE_SECONDS
from tests.proof.simulated_service import Cutting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.proof.simulation import World
    from tests.proof.virtual_time import SkewedClock

BEYOND_SECONDS: Final = 90.0  # of a clock that is off: far beyond the bound
_BEYOND_REFUSAL: Final = REFUSE_SECONDS + 30.0
_NODE_BEYOND: Final = 600.0
FOCUSES: Final = ("everything", "store", "services", "delivery", "clocks", "slowness", "losses", "restarts")


class Nemesis:
    """Breaks one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in order: an address is no seed
        self._until = 0.0

    async def run(self, *, until: float) -> None:
        """Break things until the Unix time *until*; everything is mended by then, or a minute later."""
        world, random = self._world, self._random
        self._until = until
        await asyncio.sleep(random.uniform(15.0, 30.0))
        groups = self._groups()
        focus = FOCUSES[world.plan.seed % len(FOCUSES)] if world.plan.focus is None else world.plan.focus
        every = [fault for faults in groups.values() for fault in faults]
        pause = 7.0 if focus == "everything" else 12.0
        while (left := until - world.now()) > 8.0:
            seconds = min(random.choice((4.0, 12.0, 30.0, 60.0)) * random.uniform(0.7, 1.3), left)
            narrow = focus != "everything" and random.random() < 0.8
            fault = random.choice(groups[focus] if narrow else every)
            task = asyncio.get_running_loop().create_task(self._one(fault, seconds))
            self._tasks[task] = None
            task.add_done_callback(lambda done: self._tasks.pop(done, None))
            await asyncio.sleep(min(random.expovariate(1 / pause), max(0.0, until - world.now())))

    def _groups(self) -> dict[str, list[Callable[[float], Awaitable[None]]]]:
        """Return what can be broken; what stands there twice is twice as likely."""
        return {
            "store": [
                self._node_away,
                self._node_paused,
                self._two_nodes_away,
                self._all_nodes_restart,
                self._slow_writes,
                self._slow_writes,
                self._slow_reads,
                self._nodes_lose,
                self._nodes_lose,
                self._nodes_lose,
                self._everything_restarts,
            ],
            "slowness": [self._slow_writes, self._slow_reads, self._service_hears_late, self._service_hears_late],
            "losses": [self._nodes_lose, self._nodes_lose, self._nothing_is_kept, self._service_dies],
            "restarts": [self._everything_restarts, self._service_dies, self._validator_dies],
            "services": [
                self._service_hears_late,
                self._service_dies,
                self._service_cut_from_store,
                self._service_deaf,
                self._validator_dies,
                self._validator_dies,
                self._everything_restarts,
                self._everything_restarts,
                self._nodes_lose,
            ],
            "delivery": [
                self._stale_service,
                self._stale_service,
                self._delivery_cut,
                self._delivery_cut_for_one,
                self._posts_cut,
                self._bad_lists,
                self._bad_lists,
                self._bad_lists,
                self._validator_dies,
                self._dark_restart,
            ],
            "clocks": [
                self._node_clock,
                self._no_common_time,
                self._no_common_time,
                self._node_away,
                self._service_clock,
                self._validator_clock,
            ],
        }

    async def _one(self, fault: Callable[[float], Awaitable[None]], seconds: float) -> None:
        await fault(seconds)

    def _long(self, seconds: float) -> float:
        """Return a time beyond the refuse age, now and then, where there is enough left."""
        left = self._until - self._world.now()
        return min(_BEYOND_REFUSAL, left) if self._random.random() < 0.6 else min(seconds, left)

    @asynccontextmanager
    async def _declared(self, name: str, *, clock: bool = False) -> AsyncIterator[None]:
        start = self._world.now()
        try:
            yield
        finally:
            self._world.history.add(Fault(name=name, start=start, end=self._world.now(), clock=clock))

    # --- the store ----------------------------------------------------------------------------------------------

    async def _node_away(self, seconds: float) -> None:
        replica = self._random.choice(self._world.cluster.replicas)
        async with self._declared(f"{replica.name} is away"):
            replica.up = False
            await asyncio.sleep(seconds)
            replica.up = True

    async def _node_paused(self, seconds: float) -> None:
        replica = self._random.choice(self._world.cluster.replicas)
        async with self._declared(f"{replica.name} is paused"):
            replica.frozen = True
            await asyncio.sleep(seconds)
            replica.frozen = False

    async def _two_nodes_away(self, seconds: float) -> None:
        two = self._random.sample(self._world.cluster.replicas, 2)
        async with self._declared("two nodes are away"):
            for replica in two:
                replica.up = False
            await asyncio.sleep(min(seconds, 40.0))
            for replica in two:
                replica.up = True

    async def _all_nodes_restart(self, seconds: float) -> None:
        async with self._declared("all nodes restart"):
            for replica in self._world.cluster.replicas:
                replica.up = False
            for replica in self._world.cluster.replicas:
                await asyncio.sleep(self._random.uniform(0.5, 4.0))
                replica.up = True

    async def _slow_writes(self, seconds: float) -> None:
        async with self._declared("replicas hear of writes late"):
            for replica in self._world.cluster.replicas:
                replica.slow_writes = self._random.choice((0.2, 0.9, 1.7))
            await asyncio.sleep(seconds)
            for replica in self._world.cluster.replicas:
                replica.slow_writes = 0.0

    async def _slow_reads(self, seconds: float) -> None:
        async with self._declared("replicas answer reads late"):
            for replica in self._world.cluster.replicas:
                replica.slow_reads = self._random.choice((0.5, 2.0, 3.3))
            await asyncio.sleep(seconds)
            for replica in self._world.cluster.replicas:
                replica.slow_reads = 0.0

    async def _nodes_lose(self, seconds: float) -> None:
        """One loses nearly everything: nobody notices. Two: nothing is confirmed. Three: nothing is kept."""
        number = self._random.choice((1, 1, 2, 2, 3))
        until = self._world.now() + seconds
        async with self._declared(f"{number} nodes lose mutations"):
            while self._world.now() < until:
                losing = self._random.sample(self._world.cluster.replicas, number)
                for replica in losing:
                    replica.loses = 0.9
                await asyncio.sleep(min(self._random.uniform(3.0, 12.0), seconds))
                for replica in losing:
                    replica.loses = 0.0

    async def _nothing_is_kept(self, seconds: float) -> None:
        """No replica keeps anything for a while, and then a service dies with what only it knows."""
        service = self._random.choice(self._world.services)
        async with self._declared(f"nothing is kept, then service {service.name} dies"):
            for replica in self._world.cluster.replicas:
                replica.loses = 1.0
            await asyncio.sleep(min(seconds, 20.0))
            for replica in self._world.cluster.replicas:
                replica.loses = 0.0
            if service.running:
                service.kill()
                await asyncio.sleep(1.0)
                service.start()

    async def _node_clock(self, seconds: float) -> None:
        """One at a time: that most of the nodes are wrong in the same way is beyond what can be noticed."""
        replica = self._random.choice(self._world.cluster.replicas)
        clocks = [each.clock for each in self._world.cluster.replicas]
        await self._clock(f"the clock of {replica.name} is off", replica.clock, clocks, _NODE_BEYOND, seconds)

    async def _no_common_time(self, seconds: float) -> None:
        """One node is away, and the clock of another is off: the middle of the two that answer means nothing."""
        away, wrong = self._random.sample(self._world.cluster.replicas, 2)
        if not all(replica.up for replica in self._world.cluster.replicas):
            return
        async with self._declared(f"{away.name} is away"):
            away.up = False
            clocks = [each.clock for each in self._world.cluster.replicas]
            name = f"the clock of {wrong.name} is off"
            await self._clock(name, wrong.clock, clocks, _NODE_BEYOND, min(max(seconds, 15.0), 30.0))
            away.up = True

    async def _clock(
        self, name: str, clock: SkewedClock, others: list[SkewedClock], beyond: float, seconds: float
    ) -> None:
        if any(abs(each.offset) > BEYOND_SECONDS / 2 for each in others):
            return
        async with self._declared(name, clock=True):
            was, clock.offset = clock.offset, self._random.choice((-1.0, 1.0)) * beyond
            await asyncio.sleep(seconds)
            clock.offset = was

    # --- the services -------------------------------------------------------------------------------------------

    async def _service_dies(self, seconds: float) -> None:
        service = self._random.choice(self._world.services)
        if not service.running:
            return
        async with self._declared(f"service {service.name} dies"):
            service.kill()
            await asyncio.sleep(min(seconds, 20.0))
            service.start()

    async def _everything_restarts(self, seconds: float) -> None:
        """Nothing is known any more but what is in the store, or in a state folder."""
        async with self._declared("services and validators restart"):
            services = [each for each in self._world.services if each.running]
            validators = [each for each in self._world.validators if each.running]
            for each in (*services, *validators):
                each.kill()
            await asyncio.sleep(self._random.choice((0.2, 3.0)))
            for each in (*services, *validators):
                each.start()

    async def _service_cut_from_store(self, seconds: float) -> None:
        service = self._random.choice(self._world.services)
        async with self._declared(f"service {service.name} is cut from the store"):
            service.cut(Cutting(cut=True))
            await asyncio.sleep(seconds)
            service.cut(Cutting())

    async def _service_deaf(self, seconds: float) -> None:
        """Its writes arrive and it never learns of it: the outcome is unknown, and all of it happened."""
        service = self._random.choice(self._world.services)
        async with self._declared(f"service {service.name} hears no answers"):
            service.cut(Cutting(deaf=True))
            await asyncio.sleep(seconds)
            service.cut(Cutting())

    async def _service_hears_late(self, seconds: float) -> None:
        """What it reads is seconds old when it arrives."""
        service = self._random.choice(self._world.services)
        async with self._declared(f"service {service.name} hears answers late"):
            service.cut(Cutting(late=self._random.choice((1.0, 3.0))))
            await asyncio.sleep(seconds)
            service.cut(Cutting())

    async def _stale_service(self, seconds: float) -> None:
        """One service cannot read and still answers, and is all that some validators can reach; posts go on."""
        service = self._random.choice(self._world.services)
        links = self._random.sample(list(self._world.links.values()), 2)
        async with self._declared(f"service {service.name} is cut off with its readers"):
            service.cut(Cutting(cut=True))
            for link in links:
                link.pinned = service
            await asyncio.sleep(self._long(seconds))
            service.cut(Cutting())
            for link in links:
                link.pinned = None

    async def _service_clock(self, seconds: float) -> None:
        service = self._random.choice(self._world.services)
        name = f"the clock of service {service.name} is off"
        await self._clock(name, service.clock, self._clocks(), BEYOND_SECONDS, seconds)

    def _clocks(self) -> list[SkewedClock]:
        """Return all that may be wrong one at a time: two that agree on a wrong time notice nothing."""
        return [each.clock for each in (*self._world.services, *self._world.validators)]

    # --- the way of the list, and of posts ----------------------------------------------------------------------

    async def _delivery_cut(self, seconds: float) -> None:
        """The asymmetric one: posts are acknowledged, and no validator hears of them."""
        async with self._declared("no list is delivered"):
            for link in self._world.links.values():
                link.cut = True
            await asyncio.sleep(self._long(seconds))
            for link in self._world.links.values():
                link.cut = False

    async def _dark_restart(self, seconds: float) -> None:
        """A validator restarts while its list cannot come; posts go on."""
        validator = self._random.choice(self._world.validators)
        if not validator.running:
            return
        link = self._world.links[validator.name]
        async with self._declared(f"validator {validator.name} restarts, and no list comes"):
            validator.kill()
            link.cut = True
            validator.start()
            await asyncio.sleep(seconds)
            link.cut = False

    async def _delivery_cut_for_one(self, seconds: float) -> None:
        name = self._random.choice(list(self._world.links))
        link = self._world.links[name]
        async with self._declared(f"no list is delivered to {name}"):
            link.cut = True
            await asyncio.sleep(self._long(seconds))
            link.cut = False

    async def _posts_cut(self, seconds: float) -> None:
        async with self._declared("posts do not arrive, or their answers do not"):
            self._world.posts_cut = True
            await asyncio.sleep(min(seconds, 20.0))
            self._world.posts_cut = False

    async def _bad_lists(self, seconds: float) -> None:
        name = self._random.choice(list(self._world.links))
        link = self._world.links[name]
        which = self._random.choice(("replays", "truncates", "earlier_epoch", "slow"))
        async with self._declared(f"lists for {name}: {which}"):
            setattr(link, which, 3.0 if which == "slow" else 0.5)
            await asyncio.sleep(seconds)
            setattr(link, which, 0.0)

    # --- validators ---------------------------------------------------------------------------------------------

    async def _validator_dies(self, seconds: float) -> None:
        validator = self._random.choice(self._world.validators)
        if not validator.running:
            return
        async with self._declared(f"validator {validator.name} dies"):
            validator.kill()
            await asyncio.sleep(self._random.choice((0.1, 2.0, 15.0)))
            validator.start()

    async def _validator_clock(self, seconds: float) -> None:
        validator = self._random.choice(self._world.validators)
        name = f"the clock of validator {validator.name} is off"
        await self._clock(name, validator.clock, self._clocks(), BEYOND_SECONDS, seconds)
