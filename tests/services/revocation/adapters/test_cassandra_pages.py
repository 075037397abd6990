"""Pages of an answer: none is lost when a node that was overtaken answers late."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tokenry_revocation.adapters.cassandra_session import SPECULATIVE_DELAY_SECONDS, CqlSession
from tokenry_revocation.ports import StoreUnavailable

PAGES = tuple((f"row {number}a", f"row {number}b") for number in range(6))


class FakeResponse:
    """As the driver's response: every answer that comes, also a late one, sets the state and calls the callbacks."""

    def __init__(self, session: FakeSession, number: int) -> None:
        self._session, self._number = session, number
        self._callbacks: list[tuple[Any, Any, tuple[Any, ...]]] = []
        self._paging_state: int | None = None

    @property
    def has_more_pages(self) -> bool:
        return self._paging_state is not None

    def add_callbacks(self, callback: Any, errback: Any, callback_args: tuple[Any, ...] = ()) -> None:
        self._callbacks.append((callback, errback, callback_args))
        self._session.ask(self, self._number)

    def start_fetching_next_page(self) -> None:
        assert self._paging_state is not None
        self._number = self._paging_state
        self._session.ask(self, self._number)

    def deliver(self, number: int) -> None:
        following = number + 1
        self._paging_state = following if following < len(PAGES) else None
        for callback, _, arguments in self._callbacks:
            callback([PAGES[number]], *arguments)


class FakeStatement:
    def bind(self, values: object) -> FakeStatement:
        return self


class FakeSession:
    """A cluster of two nodes: what the fast one says is used, what the slow one says comes with the page after it."""

    def __init__(self) -> None:
        self.driver = ThreadPoolExecutor(1)
        self.asked: list[int] = []
        self.in_our_thread = False
        self._late: list[tuple[FakeResponse, int]] = []

    def execute_async(
        self, statement: object, *, execution_profile: str, host: object = None, paging_state: int | None = None
    ) -> FakeResponse:
        return FakeResponse(self, paging_state or 0)

    def ask(self, response: FakeResponse, number: int) -> None:
        self.asked.append(number)
        if self.in_our_thread:  # the answer was there before anybody had asked to be told
            time.sleep(2 * SPECULATIVE_DELAY_SECONDS)
            response.deliver(number)
            return
        late, self._late = self._late, [(response, number)]
        self.driver.submit(self._answer, late, response, number)

    def _answer(self, late: list[tuple[FakeResponse, int]], response: FakeResponse, number: int) -> None:
        for earlier, place in late:
            earlier.deliver(place)
        response.deliver(number)


@pytest.fixture
def driver():
    made = FakeSession()
    yield made
    made.driver.shutdown(wait=True)


async def test_rows_are_those_of_all_pages_also_when_a_slow_node_repeats_one_late(driver: FakeSession) -> None:
    rows = await CqlSession(None, driver).rows(FakeStatement())
    assert rows == list(PAGES)
    assert driver.asked == list(range(len(PAGES)))


async def test_pages_are_all_of_them_also_when_a_slow_node_repeats_one_late(driver: FakeSession) -> None:
    pages = [rows async for rows in CqlSession(None, driver).pages(FakeStatement())]
    assert [row for rows in pages for row in rows] == list(PAGES)


async def test_who_stops_reading_leaves_nothing_behind(driver: FakeSession) -> None:
    reading = CqlSession(None, driver).pages(FakeStatement())
    assert list(await anext(reading)) == [PAGES[0]]
    await reading.aclose()
    await asyncio.sleep(0)
    assert len(driver.asked) <= 2


async def test_an_answer_that_may_be_mixed_is_asked_for_again_and_not_for_ever(driver: FakeSession) -> None:
    """This process stood still between asking and listening: another node may have answered in between."""
    driver.in_our_thread = True
    with pytest.raises(StoreUnavailable):
        await CqlSession(None, driver).rows(FakeStatement())
    assert driver.asked == [0, 0, 0]
