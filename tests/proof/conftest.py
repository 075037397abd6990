"""Two processes that simulate while the tests wait for their verdicts."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from tests.proof import runs
from tests.proof.runs import Verdict
from tests.proof.simulation import Plan

Found = Callable[[str], list[Verdict]]
Judged = Callable[[Plan], Verdict]


class Pool:
    """Begins with everything that the selected tests will ask for, so that no process waits for a test."""

    def __init__(self, items: list[pytest.Item]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(2, mp_context=context, initializer=runs.be_quiet)
        self._futures: dict[object, Future[object]] = {}
        for item in items:
            parameters = getattr(item, "callspec", None)
            if parameters is None:
                continue
            if "plan" in parameters.params:
                self._begin(parameters.params["plan"])
            elif "mutant" in parameters.params:
                self._begin(parameters.params["mutant"].name)

    def _begin(self, what: object) -> Future[object]:
        if what not in self._futures:
            work = runs.judge if isinstance(what, Plan) else runs.find
            self._futures[what] = self._pool.submit(work, what)  # type: ignore[arg-type]
        return self._futures[what]

    def result(self, what: object) -> object:
        return self._begin(what).result()

    def end(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@pytest.fixture(scope="session")
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    started = Pool([item for item in request.session.items if "pool" in getattr(item, "fixturenames", ())])
    yield started
    started.end()


@pytest.fixture
def judged(pool: Pool) -> Judged:
    """The verdict on one run of the product."""
    return pool.result  # type: ignore[return-value]


@pytest.fixture
def found(pool: Pool) -> Found:
    """The verdicts on runs of one mutant, up to the one that found it."""
    return pool.result  # type: ignore[return-value]
