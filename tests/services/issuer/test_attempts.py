import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tokenry_issuer.attempts import AttemptLimits, Attempts, TooManyFailures, network_of

ORDERS = ("client", "/services", "orders")
HOME, AWAY = "192.0.2.1", "198.51.100.9"


def fail(attempts, times, *, subject=ORDERS, address=HOME, now=0.0):
    for _ in range(times):
        attempts.failed(subject, address, now=now)


def test_T22_after_ten_failures_the_pair_is_refused_also_with_the_right_secret():
    attempts = Attempts()
    fail(attempts, 9)
    assert attempts.admit(ORDERS, HOME, now=0.0) == 0.0
    fail(attempts, 1)
    with pytest.raises(TooManyFailures) as refused:
        attempts.admit(ORDERS, HOME, now=0.0)
    assert refused.value.retry_after == 30


def test_the_wait_that_is_told_is_enough():
    attempts = Attempts()
    fail(attempts, 10)
    with pytest.raises(TooManyFailures):
        attempts.admit(ORDERS, HOME, now=29.0)
    attempts.admit(ORDERS, HOME, now=30.0)


def test_more_failures_do_not_lengthen_the_wait_for_ever():
    attempts = Attempts()
    fail(attempts, 10_000)
    with pytest.raises(TooManyFailures) as refused:
        attempts.admit(ORDERS, HOME, now=0.0)
    assert refused.value.retry_after <= 30


def test_another_address_is_not_refused():
    attempts = Attempts()
    fail(attempts, 50)
    attempts.admit(ORDERS, AWAY, now=0.0)


def test_another_client_of_the_same_address_is_not_refused_at_once():
    attempts = Attempts()
    fail(attempts, 50)
    assert attempts.admit(("client", "/services", "stock"), HOME, now=0.0) == 0.0


def test_an_address_that_fails_for_many_clients_is_refused_for_all():
    attempts = Attempts()
    for number in range(100):
        attempts.failed(("client", "/services", f"guess-{number}"), HOME, now=0.0)
    with pytest.raises(TooManyFailures):
        attempts.admit(("client", "/services", "new"), HOME, now=0.0)
    attempts.admit(("client", "/services", "new"), AWAY, now=0.0)


def test_a_client_that_is_guessed_at_from_everywhere_is_only_delayed_by_at_most_a_second():
    attempts = Attempts()
    for number in range(5_000):
        attempts.failed(ORDERS, f"10.0.{number // 250}.{number % 250}", now=0.0)
    assert attempts.admit(ORDERS, AWAY, now=0.0) == 1.0


def test_the_own_address_of_a_client_is_not_even_delayed_for_24_hours():
    attempts = Attempts()
    attempts.succeeded(ORDERS, HOME, now=0.0)
    late = 24 * 3600.0
    for number in range(5_000):
        attempts.failed(ORDERS, f"10.0.{number // 250}.{number % 250}", now=late)
    assert attempts.admit(ORDERS, HOME, now=late) == 0.0
    assert attempts.admit(ORDERS, HOME, now=late + 1) > 0.0
    assert attempts.admit(ORDERS, AWAY, now=late) > 0.0


def test_a_success_forgives_the_failures_of_the_pair():
    attempts = Attempts()
    fail(attempts, 9)
    attempts.succeeded(ORDERS, HOME, now=0.0)
    fail(attempts, 9)
    attempts.admit(ORDERS, HOME, now=0.0)


def test_a_success_with_one_client_forgives_nothing_for_another():
    attempts = Attempts()
    fail(attempts, 10)
    attempts.succeeded(("client", "/services", "mine"), HOME, now=0.0)
    with pytest.raises(TooManyFailures):
        attempts.admit(ORDERS, HOME, now=0.0)


def test_a_cluster_of_ten_thousand_that_restarts_behind_one_address_is_not_refused():
    attempts = Attempts()
    for number in range(10_000):
        subject = ("client", "/services", f"service-{number % 100}")
        assert attempts.admit(subject, HOME, now=number * 0.006) == 0.0
        attempts.succeeded(subject, HOME, now=number * 0.006)


def test_failures_weigh_more_than_successes():
    attempts = Attempts()
    for _ in range(10_000):
        attempts.succeeded(ORDERS, HOME, now=0.0)
    attempts.admit(ORDERS, HOME, now=0.0)
    fail(attempts, 100)
    with pytest.raises(TooManyFailures):
        attempts.admit(ORDERS, HOME, now=0.0)


def test_whoever_has_one_ipv6_address_has_its_network():
    attempts = Attempts()
    for number in range(10):
        attempts.failed(ORDERS, f"2001:db8:1:2::{number:x}", now=0.0)
    with pytest.raises(TooManyFailures):
        attempts.admit(ORDERS, "2001:db8:1:2:ffff::1", now=0.0)
    attempts.admit(ORDERS, "2001:db8:1:3::1", now=0.0)


def test_an_ipv4_address_written_as_ipv6_is_the_same_address():
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("unix") == "unix"


def test_memory_is_bounded_whatever_names_are_tried():
    attempts = Attempts(max_tracked=100)
    for number in range(10_000):
        subject = ("client", "/services", f"guess-{number}")
        attempts.failed(subject, f"10.{number % 250}.0.1", now=float(number))
        attempts.succeeded(subject, f"10.{number % 250}.0.2", now=float(number))
    sizes = [len(table) for table in (attempts._pairs, attempts._addresses, attempts._subjects, attempts._successes)]
    assert max(sizes) <= 100


@pytest.mark.parametrize("change", [{"per_pair": 0}, {"per_address": -1}, {"pair_recovery": 0.0}])
def test_limits_that_refuse_everybody_or_never_recover_are_no_limits(change):
    with pytest.raises(ValueError, match="must be"):
        AttemptLimits(**change)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=60))
@examples(max_examples=100)
def test_a_refusal_always_ends_after_the_told_wait(history):
    attempts, now = Attempts(), 0.0
    for succeeded, pause in history:
        now += pause
        (attempts.succeeded if succeeded else attempts.failed)(ORDERS, HOME, now=now)
    try:
        delay = attempts.admit(ORDERS, HOME, now=now)
    except TooManyFailures as refused:
        delay = attempts.admit(ORDERS, HOME, now=now + refused.retry_after)
    assert 0.0 <= delay <= 1.0
