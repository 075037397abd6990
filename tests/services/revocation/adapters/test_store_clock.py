"""The store's clock as one process sees it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry.testing.clock import FakeClock
from tokenry_revocation.adapters.store_clock import MAX_STEP_BACK_MS, STALE_AFTER_SECONDS, Estimate, Sample, StoreClock
from tokenry_revocation.ports import StoreUnavailable

BASE_MS = 1_800_000_000_000


def sample_of(offset_ms: float, *, width_ms: float = 2) -> Sample:
    return Sample(earliest_ms=offset_ms - width_ms / 2, latest_ms=offset_ms + width_ms / 2)


def measured(clock: FakeClock, *offsets_ms: float, skew_ms: int = 1_000) -> StoreClock:
    store_clock = StoreClock(clock, skew_ms=skew_ms)
    measure(store_clock, clock, *offsets_ms)
    return store_clock


def measure(store_clock: StoreClock, clock: FakeClock, *offsets_ms: float) -> None:
    base = BASE_MS - clock.monotonic() * 1000
    samples = [sample_of(base + offset) for offset in offsets_ms]
    store_clock.set(Estimate.of(samples), at=clock.monotonic())


@given(
    offset_ms=st.floats(-1e12, 2e12),
    sent=st.floats(0, 1e6),
    there=st.floats(0, 5),
    back=st.floats(0, 5),
)
def test_a_sample_holds_the_true_difference_however_slow_the_network(
    offset_ms: float, sent: float, there: float, back: float
) -> None:
    told_ms = int(((sent + there) * 1000 + offset_ms) // 1)

    sample = Sample.of(sent=sent, received=sent + there + back, told_ms=told_ms)

    rounding = 1e-3
    assert sample.earliest_ms - rounding <= offset_ms <= sample.latest_ms + rounding
    assert sample.width_ms <= (there + back) * 1000 + 1 + rounding


def test_the_estimate_is_the_median_and_its_error_reaches_to_the_furthest_node() -> None:
    estimate = Estimate.of([sample_of(100), sample_of(90_000), sample_of(104, width_ms=10)])

    assert estimate.offset_ms == 104
    assert estimate.error_ms == 90_001 - 104


def test_it_tells_the_stores_time_and_not_the_machines(clock: FakeClock) -> None:
    store_clock = measured(clock, 0)
    clock.advance(5)
    clock.set_wall_clock(17.0)

    assert store_clock.now_ms() == BASE_MS + 5_000
    assert store_clock.writable_ms(clock.monotonic()) == BASE_MS + 5_000


def test_without_a_measurement_there_is_no_time(clock: FakeClock) -> None:
    store_clock = StoreClock(clock, skew_ms=1_000)

    with pytest.raises(StoreUnavailable, match="could not be measured"):
        store_clock.now_ms()
    with pytest.raises(StoreUnavailable, match="could not be measured"):
        store_clock.writable_ms(clock.monotonic())
    assert store_clock.error_ms is None


def test_an_old_measurement_counts_for_nothing(clock: FakeClock) -> None:
    store_clock = measured(clock, 0)
    clock.advance(STALE_AFTER_SECONDS)
    store_clock.now_ms()

    clock.advance(0.1)

    with pytest.raises(StoreUnavailable, match="could not be measured"):
        store_clock.now_ms()


def test_F16_nodes_that_disagree_stop_appends_and_not_reads(clock: FakeClock) -> None:
    store_clock = measured(clock, 0, 5, 1_500)

    with pytest.raises(StoreUnavailable, match="uncertain by 1496 ms, and 1000 are allowed"):
        store_clock.writable_ms(clock.monotonic())
    assert store_clock.now_ms() == BASE_MS + 5
    assert store_clock.error_ms == 1_496


def test_nodes_within_the_bound_less_the_drift_until_the_next_measurement_are_good(clock: FakeClock) -> None:
    good, bad = measured(clock, 0, 0, 968), measured(clock, 0, 0, 970)

    assert good.writable_ms(clock.monotonic()) == BASE_MS
    with pytest.raises(StoreUnavailable):
        bad.writable_ms(clock.monotonic())


@given(
    nodes=st.lists(st.floats(-2_000, 2_000), min_size=3, max_size=3),
    width_ms=st.floats(0.1, 200),
    one=st.sets(st.integers(0, 2), min_size=2),
    other=st.sets(st.integers(0, 2), min_size=2),
)
def test_two_processes_that_may_write_are_at_most_twice_the_bound_apart(
    nodes: list[float], width_ms: float, one: set[int], other: set[int]
) -> None:
    """Each has asked a majority, so that there is a node which both have asked."""
    clock = FakeClock()
    stamps = []
    for asked in (one, other):
        store_clock = StoreClock(clock, skew_ms=1_000)
        base = BASE_MS - clock.monotonic() * 1000
        samples = [sample_of(base + nodes[n], width_ms=width_ms) for n in asked]
        store_clock.set(Estimate.of(samples), at=clock.monotonic())
        try:
            stamps.append(store_clock.writable_ms(clock.monotonic()))
        except StoreUnavailable:
            return

    assert abs(stamps[0] - stamps[1]) <= 2_000


def test_its_time_never_goes_back_when_the_nodes_are_set_back(clock: FakeClock) -> None:
    store_clock = measured(clock, 0)
    position = store_clock.now_ms()

    measure(store_clock, clock, -30_000)

    assert store_clock.now_ms() == position
    assert store_clock.writable_ms(clock.monotonic()) == position
    clock.advance(31)
    assert store_clock.now_ms() == position + 1_000


def test_a_clock_that_was_set_far_back_stops_appends(clock: FakeClock) -> None:
    store_clock = measured(clock, 0)
    store_clock.now_ms()

    measure(store_clock, clock, -MAX_STEP_BACK_MS - 1)

    with pytest.raises(StoreUnavailable, match="went back"):
        store_clock.writable_ms(clock.monotonic())


def test_timestamps_of_writes_follow_the_store_and_always_grow(clock: FakeClock) -> None:
    store_clock = measured(clock, 0)
    clock.set_wall_clock(17.0)

    first = [store_clock.timestamp_us() for _ in range(3)]
    measure(store_clock, clock, -5_000)
    second = store_clock.timestamp_us()

    assert first == [BASE_MS * 1000, BASE_MS * 1000 + 1, BASE_MS * 1000 + 2]
    assert second == first[-1] + 1


def test_before_the_first_measurement_timestamps_come_from_the_machine(clock: FakeClock) -> None:
    assert StoreClock(clock, skew_ms=1_000).timestamp_us() == int(clock.now() * 1_000_000)
