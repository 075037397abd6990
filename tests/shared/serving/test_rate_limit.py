import pytest

from tokenry.serving.rate_limit import TokenBuckets


def test_a_burst_is_allowed_and_then_the_rate():
    buckets = TokenBuckets(rate=2, burst=3)
    assert [buckets.take("a", now=0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("a", now=0.5) == 0
    assert buckets.take("a", now=0.5) == 0.5


def test_callers_do_not_share_a_bucket():
    buckets = TokenBuckets(rate=1, burst=1)
    assert (buckets.take("a", now=0), buckets.take("b", now=0)) == (0, 0)


def test_looking_takes_nothing():
    buckets = TokenBuckets(rate=1, burst=1)
    assert [buckets.wait("a", now=0) for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a", now=0) == 0
    assert buckets.wait("a", now=0.25) == 0.75


def test_a_bucket_never_holds_more_than_its_burst():
    buckets = TokenBuckets(rate=1, burst=2)
    buckets.take("a", now=0)
    assert [buckets.take("a", now=1e6) > 0 for _ in range(3)] == [False, False, True]


def test_a_clock_that_goes_back_gives_nothing():
    buckets = TokenBuckets(rate=1, burst=1)
    buckets.take("a", now=100)
    assert buckets.take("a", now=50) > 0


def test_memory_is_bounded_and_the_quietest_is_forgotten():
    buckets = TokenBuckets(rate=0.001, burst=1, max_keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, now=0)
    assert len(buckets) == 2
    assert buckets.take("a", now=0) > 0  # was used after b, so b was forgotten
    assert buckets.take("b", now=0) == 0


@pytest.mark.parametrize(
    "fault", [{"rate": 0, "burst": 1}, {"rate": 1, "burst": 0}, {"rate": 1, "burst": 1, "max_keys": 0}]
)
def test_a_limit_that_allows_nothing_is_refused(fault):
    with pytest.raises(ValueError, match="rate"):
        TokenBuckets(**fault)
