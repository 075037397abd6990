import pytest

from tokenry.errors import TokenryError
from tokenry_cli.waiting import Tally, summary, tally, wait

POSTED = 1_800_000_000.4
REVOKED = 1_800_000_000


def validator(name, *, enforced_at=None, applied_as_of=None, last_poll=POSTED, reported_at=None):
    return {
        "name": name, "version": "1", "last_poll": last_poll, "applied_as_of": applied_as_of, "lag": None,
        "list_age": None, "reported_at": reported_at, "verified": True, "enforced_at": enforced_at,
    }  # fmt: skip


def count(*validators, now=POSTED + 5, before=None):
    return tally({"now": now, "validators": validators}, revoked_at=REVOKED, posted_at=POSTED, before=before)


def test_a_report_tells_the_moment():
    result = count(validator("a", enforced_at=POSTED + 0.7), validator("b"))
    assert result.seconds == {"a": pytest.approx(0.7)}
    assert result.missing == ("b",)
    assert not result.is_complete


def test_a_clock_that_is_behind_makes_no_negative_times():
    assert count(validator("a", enforced_at=POSTED - 1)).seconds == {"a": 0.0}


def test_a_poll_with_a_later_list_confirms_and_one_of_the_same_second_does_not():
    result = count(validator("a", applied_as_of=REVOKED + 1), validator("b", applied_as_of=REVOKED + 0.9))
    assert result.seconds == {"a": pytest.approx(5)}
    assert result.missing == ("b",)


def test_the_first_confirmation_counts():
    first = count(validator("a", applied_as_of=REVOKED + 2))
    again = count(validator("a", applied_as_of=REVOKED + 20), now=POSTED + 60, before=first)
    assert again.seconds == first.seconds


def test_validators_that_have_gone_are_not_waited_for():
    result = count(validator("a", enforced_at=POSTED), validator("gone", last_poll=POSTED - 60))
    assert result.is_complete
    assert count(validator("quiet", last_poll=POSTED - 600, reported_at=POSTED)).missing == ("quiet",)


def test_without_any_validator_nothing_is_complete():
    assert not count().is_complete
    assert "nobody" in summary(count())


def test_percentiles_are_those_of_the_nearest_rank():
    result = Tally(seconds={f"v{n}": float(n) for n in range(1, 101)})
    assert (result.percentile(50), result.percentile(99), result.percentile(100)) == (50.0, 99.0, 100.0)
    assert Tally(seconds={"a": 3.0}).percentile(50) == 3.0


def test_the_summary_names_the_slowest_and_the_missing():
    result = Tally(seconds={"a": 0.2, "b": 4.0, "c": 1.0, "d": 0.1}, missing=("w", "x", "y", "z"))
    text = summary(result)
    assert text.startswith("4 of 8 validators enforce it: p50 0.2 s, p99 4.0 s, slowest b 4.0 s, c 1.0 s, a 0.2 s")
    assert text.endswith("not yet w, x, y and 1 more")


class Time:
    def __init__(self):
        self.seconds = 0.0

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


def waited(look, *, seconds=30.0):
    time = Time()
    result = wait(look(time), revoked_at=REVOKED, posted_at=POSTED, seconds=seconds, now=time.now, sleep=time.sleep)
    return result, time.seconds


def test_it_waits_until_the_last_one_enforces_it(capsys):
    def look(time):
        def answer():
            late = POSTED + 12 if time.seconds >= 12 else None
            return {
                "now": POSTED + time.seconds,
                "validators": [validator("a", enforced_at=POSTED), validator("b", enforced_at=late, last_poll=POSTED)],
            }

        return answer

    result, seconds = waited(look)
    assert result.is_complete
    assert seconds == pytest.approx(12, abs=0.5)
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 2  # no terminal: a line every five seconds
    assert "not yet b" in said[0]


def test_it_gives_up_in_time_and_says_who_is_missing():
    result, seconds = waited(lambda time: lambda: {"now": POSTED, "validators": [validator("b")]}, seconds=20)
    assert seconds == pytest.approx(20, abs=0.5)
    assert result.missing == ("b",)


def test_a_service_that_does_not_answer_for_a_while_is_asked_again():
    def look(time):
        def answer():
            if time.seconds < 3:
                raise TokenryError("away")
            return {"now": POSTED, "validators": [validator("a", enforced_at=POSTED)]}

        return answer

    assert waited(look)[0].is_complete
