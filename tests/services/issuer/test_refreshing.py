import random

import pytest

from tokenry_issuer.refreshing import Refresher
from tokenry_registry.ports import StoreUnavailable
from tokenry_registry.realms import Refusal, RefusedObject


class Refreshed:
    def __init__(self):
        self.failure = None
        self.done = False
        self.observed = []
        self.refresher = Refresher(
            name="credentials",
            refresh=self.refresh,
            loaded=lambda: self.done,
            interval=30.0,
            observe=self.observed.append,
            uniform=random.Random(3),  # noqa: S311 -- jitter
        )

    async def refresh(self):
        if self.failure is not None:
            raise self.failure
        self.done = True


@pytest.fixture
def refreshed():
    return Refreshed()


async def test_a_refresh_comes_every_interval_and_jitter_only_shortens(refreshed):
    pauses = [await refreshed.refresher.once() for _ in range(200)]
    assert 27.0 <= min(pauses) < 28.0
    assert 29.0 < max(pauses) <= 30.0
    assert set(refreshed.observed) == {"ok"}


async def test_F09_at_start_it_is_tried_again_soon_and_never_later_than_in_8_seconds(refreshed):
    refreshed.failure = StoreUnavailable("timeout")
    pauses = [await refreshed.refresher.once() for _ in range(50)]
    assert pauses[0] <= 0.5
    assert max(pauses) <= 8.0
    assert min(pauses[10:]) >= 4.0
    assert refreshed.observed[0] == "timeout"


async def test_F03_later_a_failure_does_not_shorten_the_interval(refreshed):
    await refreshed.refresher.once()
    refreshed.failure = StoreUnavailable("SlowDown")
    pauses = [await refreshed.refresher.once() for _ in range(20)]
    assert min(pauses) >= 27.0
    assert refreshed.observed[-1] == "SlowDown"


@pytest.mark.parametrize(
    ("failure", "label"),
    [
        (StoreUnavailable("AccessDenied"), "AccessDenied"),
        (TimeoutError(), "timeout"),
        (RefusedObject(Refusal.MASS_REMOVAL, "all gone"), "mass_removal"),
        (RuntimeError("a bug of ours"), "fault"),
    ],
)
async def test_no_failure_ends_the_refreshing_and_each_is_counted(refreshed, failure, label):
    refreshed.failure = failure
    await refreshed.refresher.once()
    refreshed.failure = None
    await refreshed.refresher.once()
    assert refreshed.observed == [label, "ok"]
