"""The thread that does blocking work in bundles."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from tokenry_revocation.adapters.lane import Job, Lane, LaneFull


class Work:
    """Does the jobs once the gate is open, and notes how many came together."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started = threading.Event()
        self.bundles: list[int] = []

    def __call__(self, jobs: Sequence[Job]) -> Sequence[object]:
        self.started.set()
        assert self.gate.wait(10)
        self.bundles.append(len(jobs))
        return [job() for job in jobs]


async def started(work: Work) -> None:
    await asyncio.to_thread(work.started.wait, 10)


async def test_jobs_are_done_in_the_order_of_their_submission() -> None:
    work = Work()
    work.gate.set()
    lane = Lane(work, name="test", capacity=100, bundle=10)
    done: list[int] = []

    await asyncio.gather(*(lane.submit(lambda n=n: done.append(n)) for n in range(50)))

    assert done == list(range(50))
    lane.close()


async def test_what_waited_during_a_bundle_is_the_next_bundle() -> None:
    work = Work()
    lane = Lane(work, name="test", capacity=100, bundle=10)
    first = lane.submit(lambda: "first")
    await started(work)
    others = [lane.submit(lambda n=n: n) for n in range(12)]

    work.gate.set()

    assert await first == "first"
    assert await asyncio.gather(*others) == list(range(12))
    assert work.bundles == [1, 10, 2]
    lane.close()


async def test_beyond_its_capacity_it_refuses_at_once() -> None:
    work = Work()
    lane = Lane(work, name="test", capacity=2, bundle=1)
    futures = [lane.submit(lambda: None)]
    await started(work)
    futures += [lane.submit(lambda: None) for _ in range(2)]

    with pytest.raises(LaneFull, match="2 operations are waiting"):
        lane.submit(lambda: None)

    work.gate.set()
    await asyncio.gather(*futures)
    lane.close()


async def test_an_outcome_that_is_an_exception_is_raised_in_its_caller_only() -> None:
    lane = Lane(lambda jobs: [job() for job in jobs], name="test", capacity=10, bundle=10)

    bad, good = lane.submit(lambda: LookupError("no")), lane.submit(lambda: "yes")

    assert await good == "yes"
    with pytest.raises(LookupError, match="no"):
        await bad
    lane.close()


async def test_a_caller_that_gave_up_is_not_disturbed() -> None:
    work = Work()
    lane = Lane(work, name="test", capacity=10, bundle=10)
    abandoned = lane.submit(lambda: "unheard")
    abandoned.cancel()

    work.gate.set()

    assert await lane.submit(lambda: "heard") == "heard"
    assert abandoned.cancelled()
    lane.close()


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    work = Work()
    lane = Lane(work, name="test", capacity=10, bundle=3)
    accepted = [lane.submit(lambda n=n: n) for n in range(7)]
    work.gate.set()

    await asyncio.to_thread(lane.close)
    lane.close()

    assert await asyncio.gather(*accepted) == list(range(7))
    with pytest.raises(LaneFull, match="closed"):
        lane.submit(lambda: None)


def test_an_event_loop_that_was_closed_stops_nobody() -> None:
    work = Work()
    lane = Lane(work, name="test", capacity=10, bundle=1)

    async def leave() -> None:
        lane.submit(lambda: None)
        await started(work)

    asyncio.run(leave())
    work.gate.set()

    async def ask() -> object:
        return await lane.submit(lambda: "still here")

    assert asyncio.run(ask()) == "still here"
    lane.close()
