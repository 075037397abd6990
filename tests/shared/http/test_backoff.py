import random

import pytest

from tokenry.http.backoff import Backoff, parse_retry_after, shortened


class Fixed(random.Random):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def random(self):
        return self.value


def test_pauses_double_up_to_the_longest():
    backoff = Backoff(first=1, longest=10, uniform=Fixed(0.0))
    assert [backoff.after_failure() for _ in range(6)] == [1, 2, 4, 8, 10, 10]


def test_jitter_shortens_by_up_to_a_half():
    assert Backoff(first=8, uniform=Fixed(0.999)).after_failure() == pytest.approx(4, abs=0.01)


def test_success_begins_anew():
    backoff = Backoff(first=1, uniform=Fixed(0.0))
    backoff.after_failure()
    backoff.after_failure()
    backoff.succeeded()
    assert backoff.after_failure() == 1


def test_a_server_may_ask_for_more_patience_but_not_for_any_amount():
    backoff = Backoff(first=1, longest=30, uniform=Fixed(0.0))
    assert backoff.after_failure(retry_after=20) == 20
    assert backoff.after_failure(retry_after=86400) == 30


def test_a_thousand_failures_do_not_overflow():
    backoff = Backoff(longest=30, uniform=Fixed(0.0))
    assert {backoff.after_failure() for _ in range(5000)} <= {1, 2, 4, 8, 16, 30}


def test_jitter_only_shortens():
    assert all(25 <= shortened(28, by=3 / 28) <= 28 for _ in range(1000))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5.0),
        ("0", 0.0),
        (None, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
        ("1e3", None),
        ("9" * 7, None),
        ("٣", None),
        ("", None),
    ],
)
def test_retry_after_in_seconds_is_read_and_anything_else_ignored(value, seconds):
    assert parse_retry_after(value) == seconds
