"""Several streams at once: everything of each, few at a time, and the first failure ends them all."""

import asyncio
from contextlib import aclosing

import pytest

from tokenry_revocation.adapters.streams import merged


class Streams:
    """Counts how many are running, and how many were ended."""

    def __init__(self):
        self.running = self.most = self.ended = 0

    async def of(self, *items):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for item in items:
                await asyncio.sleep(0)
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.running -= 1
            self.ended += 1


async def test_everything_of_each_stream_comes_in_its_order():
    made = Streams()
    streams = (made.of(*((number, item) for item in range(number))) for number in range(7))
    seen = [each async for each in merged(streams, at_once=3)]
    assert sorted(seen) == [(number, item) for number in range(7) for item in range(number)]
    for number in range(7):
        assert [item for stream, item in seen if stream == number] == list(range(number))
    assert made.most <= 3


async def test_no_streams_are_nothing():
    assert [each async for each in merged((), at_once=3)] == []


async def test_a_failure_is_raised_and_ends_the_others():
    made = Streams()
    with pytest.raises(ValueError, match="broken"):
        async for _ in merged([made.of(*range(100)), made.of(1, ValueError("broken"))], at_once=2):
            pass
    assert made.running == 0


async def test_who_stops_reading_leaves_nothing_behind():
    made = Streams()
    before = asyncio.all_tasks()
    async with aclosing(merged([made.of(*range(9)), made.of(*range(9))], at_once=2)) as stream:
        await anext(stream)
    assert asyncio.all_tasks() == before
    assert made.running == 0
