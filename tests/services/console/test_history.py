"""The scraped hour: what is read, what is computed from it, and that it stays within its bounds."""

import math

import pytest

from tests.services.console.conftest import METRICS, NOW
from tokenry.errors import ProtocolError
from tokenry_console.exposition import MAX_SERIES, POLLS, SERVER_ERRORS, Reading, read_exposition
from tokenry_console.history import MAX_KEYS, History, quantile
from tokenry_console.plots import Plot, as_csv
from tokenry_console.propagation import MAX_STEPS, Reach, curve, percentile, until_now
from tokenry_console.wording import ago, duration, quantity, share

A, B = "https://a.example/metrics", "https://b.example/metrics"


def history(*, interval=5.0, keep=3600.0, urls=(A, B)):
    return History(urls, interval=interval, keep=keep)


def reading(**values):
    return Reading(service="s", version="1", values={(name, ""): value for name, value in values.items()})


def counted(name, *labelled):
    return Reading(service="s", version="1", values={(name, label): value for label, value in labelled})


# --- rates ---------------------------------------------------------------------------------------------------


def test_a_counters_growth_is_summed_over_places_and_told_apart_by_label():
    held = history(urls=(A, B))
    for step in range(13):
        held.add(
            {url: counted("c_total", ("ok", 10.0 * step), ("bad", 1.0 * step)) for url in (A, B)}, at=NOW + 5.0 * step
        )
    found = held.rates("c_total", seconds=3600)
    assert len(found.times) == 6  # a minute in steps of two rounds
    assert found.lines["ok"] == pytest.approx([4.0] * 6)
    assert found.lines["bad"] == pytest.approx([0.4] * 6)
    assert held.per_second("c_total", seconds=60) == pytest.approx(4.4)
    assert held.growth("c_total", seconds=60) == pytest.approx({"ok": 240.0, "bad": 24.0})


def test_a_counter_that_was_begun_anew_does_not_make_a_hole_or_a_peak():
    held = history(urls=(A,))
    for step, value in enumerate([100.0, 110.0, 5.0, 15.0]):
        held.add({A: reading(c_total=value)}, at=NOW + 5.0 * step)
    assert held.growth("c_total", seconds=60) == {"": 25.0}


def test_what_was_not_read_is_not_known_and_what_grew_meanwhile_is_not_lost():
    held = history(urls=(A,))
    for step, value in enumerate([0.0, None, None, 30.0]):
        held.add({A: "away" if value is None else reading(c_total=value)}, at=NOW + 5.0 * step)
    assert held.growth("c_total", seconds=60) == {"": 30.0}
    assert None in held.rates("c_total").lines[""]


def test_a_label_that_appears_has_grown_from_nothing():
    held = history(urls=(A,))
    held.add({A: counted("c_total", ("ok", 5.0))}, at=NOW)
    held.add({A: counted("c_total", ("ok", 5.0), ("bad", 2.0))}, at=NOW + 5)
    assert held.growth("c_total", seconds=60) == {"ok": 0.0, "bad": 2.0}


def test_two_moments_make_a_rate_and_fewer_none():
    held = history()
    assert held.rates("c_total").lines == {}
    assert held.per_second("c_total", seconds=60) is None
    held.add({A: reading(c_total=1.0)}, at=NOW)
    assert held.rates("c_total").lines == {}
    assert held.growth("c_total", seconds=60) is None


def test_a_gauge_shows_the_largest_of_all_places():
    held = history()
    for step in range(3):
        held.add({A: reading(g=1.0), B: reading(g=3.0 + step)}, at=NOW + 5.0 * step)
    assert max(held.levels("g").lines[""]) == 5.0


def test_a_place_that_cannot_be_read_has_no_present_values():
    held = history(urls=(A,))
    held.add({A: reading(g=1.0)}, at=NOW)
    assert held.places[A].value("g") == 1.0
    held.add({A: "it answers 500 instead of metrics"}, at=NOW + 5)
    assert held.places[A].value("g") is None
    assert held.places[A].read_at == NOW


# --- bounds --------------------------------------------------------------------------------------------------


def test_an_hour_is_kept_and_no_more():
    held = history(interval=60.0, urls=(A,))
    for minute in range(200):
        held.add({A: reading(c_total=60.0 * minute)}, at=NOW + 60.0 * minute)
    assert held.span(seconds=1e9) == 59 * 60
    assert len(held._times) == 60


def test_labels_that_change_without_end_take_so_much_memory_and_no_more():
    held = history(interval=60.0, urls=(A,))
    for number in range(5 * MAX_SERIES):
        held.add({A: counted("c_total", (str(number), 1.0))}, at=NOW + 60.0 * number)
    assert len(held._values) == MAX_KEYS


def test_a_place_with_too_many_series_is_cut():
    body = "\n".join(f'tokenry_validations_total{{result="r{n}"}} 1' for n in range(3 * MAX_SERIES)) + "\n"
    assert len(read_exposition(body.encode()).values) == MAX_SERIES


# --- reading -------------------------------------------------------------------------------------------------


def test_what_is_drawn_is_read_and_the_rest_is_left_out():
    found = read_exposition(METRICS + b'something_else 5\npython_info{a="b"} 1\n')
    assert (found.service, found.version) == ("tokeninfo", "1.4.0")
    assert found.values["tokenry_validations_total", "revoked"] == 3.0
    assert found.values["tokenry_tokens_issued_total", "client_credentials"] == 7.0
    assert not [name for name, _ in found.values if name == "something_else"]


def test_requests_are_summed_to_polls_and_faults_of_ours():
    name = "http_server_request_duration_seconds_count"
    labels = 'http_request_method="GET",http_route="/revocations/changes",http_response_status_code'
    lines = [f'{name}{{{labels}="{status}"}} {n}' for status, n in (("200", 10), ("503", 2))]
    found = read_exposition(("\n".join(lines) + "\n").encode()).values
    assert found == {(POLLS, "/revocations/changes"): 12.0, (SERVER_ERRORS, ""): 2.0}


@pytest.mark.parametrize(
    "body",
    [b"", b"<html></html>", b"\xff\xfe", b"tokenry_ready {", b"tokenry_ready x", b'tokenry_ready{a="b 1', b"{}" * 10],
)
def test_what_is_no_metrics_is_refused_in_words(body):
    with pytest.raises(ProtocolError):
        read_exposition(body)


def test_metrics_that_are_too_long_are_refused():
    with pytest.raises(ProtocolError, match="larger"):
        read_exposition(b"tokenry_ready 1\n" * 400_000)


# --- quantiles and curves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("buckets", "part", "value"),
    [
        ({"1": 50.0, "2": 100.0, "+Inf": 100.0}, 0.5, 1.0),
        ({"1": 50.0, "2": 100.0, "+Inf": 100.0}, 0.75, 1.5),
        ({"1": 0.0, "2": 100.0, "+Inf": 100.0}, 0.99, 1.99),
        ({"1": 10.0, "2": 10.0, "+Inf": 100.0}, 0.99, 2.0),  # beyond the last bound nobody knows more
        ({"1": 0.0, "+Inf": 0.0}, 0.5, None),
        ({}, 0.5, None),
    ],
)
def test_quantiles_are_those_of_prometheus(buckets, part, value):
    assert quantile(buckets, part) == (None if value is None else pytest.approx(value))


def reaches(*seconds):
    return [Reach(name=str(n), seconds=each, state="enforcing", why="") for n, each in enumerate(seconds)]


def test_a_curve_rises_to_the_share_that_enforces_it():
    found = curve("r", reaches(3.0, 1.0, None, 2.0))
    assert found.steps == ((0.0, 0.0), (1.0, 0.25), (2.0, 0.5), (3.0, 0.75))
    assert (found.count, found.enforcing, found.is_complete) == (4, 3, False)
    assert curve("r", reaches(1.0)).is_complete
    assert not curve("r", []).is_complete  # nobody was heard of, so nobody can say


def test_a_curve_that_goes_on_ends_now():
    half = curve("r", reaches(1.0, None))
    assert until_now(half, 2.5, target=31.0) == ((0.0, 0.0), (1.0, 0.5), (2.5, 0.5))
    assert until_now(half, 9000.0, target=30.0)[-1] == (36.0, 0.5)
    assert until_now(half, None, target=30.0) == half.steps
    assert until_now(half, 0.5, target=30.0) == half.steps  # the clocks differ


def test_a_long_curve_keeps_its_ends():
    found = curve("r", reaches(*(float(n) for n in range(2000))))
    assert len(found.steps) == MAX_STEPS
    assert (found.steps[0], found.steps[-1]) == ((0.0, 0.0), (1999.0, 1.0))


def test_percentiles_are_those_of_whoever_enforces_it():
    found = reaches(*(float(n) for n in range(1, 101)), None)
    assert [percentile(found, part) for part in (50, 90, 99)] == [50.0, 90.0, 99.0]
    assert percentile(reaches(None), 50) is None


# --- words ---------------------------------------------------------------------------------------------------


def test_numbers_are_written_for_people():
    assert [duration(each) for each in (0, 2.5e-5, 0.0123, 5.04, 119.6, 600, 86_400, 1e7, None, math.nan)] == [
        "0 s", "25 µs", "12.3 ms", "5.0 s", "120 s", "10 min", "24 h", "116 d", "\u2013", "\u2013",
    ]  # fmt: skip
    assert [quantity(each) for each in (0, 412, 61_000, 1.5e6, 0.25, None)] == [
        "0",
        "412",
        "61 k",
        "1.5 M",
        "0.25",
        "\u2013",
    ]
    assert [ago(each) for each in (0.2, 5, -7200, None)] == ["now", "5.0 s ago", "in 2 h", "\u2013"]


def test_a_share_is_never_rounded_up_to_all_or_down_to_nothing():
    assert [share(each) for each in (1.0, 0.99999, 0.5, 0.00001, 0.0)] == [
        "100 %",
        "> 99.99 %",
        "50 %",
        "< 0.01 %",
        "0 %",
    ]


def test_csv_has_numbers_as_numbers_and_formulas_as_text():
    plot = Plot(id="p", title="", columns=["a", "b"], rows=[["=1+1", -5.0], [None, 1.5], ["-x", "y"]])
    assert as_csv(plot).split("\r\n") == ["a,b", "'=1+1,-5", ",1.5", "'-x,y", ""]
