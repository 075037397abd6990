"""The checker against histories written by hand: for each property one that breaks it, and one that does not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.proof.checker import Bounds, check
from tests.proof.history import Event, Fault, History, Mint, Outcome, Result, Revoke, Undo, Validate

BOUNDS = Bounds(propagation=30.0, refuse=900.0, recovery=10.0, clock_error=1.0)
TOKEN = Mint(at=100.0, token="t", iss="i", jti="j", kid="k", iat=100, exp=3700, claims={"sub": "s", "realm": "/r"})


def revoke(at: float, **changes: Any) -> Revoke:
    good: dict[str, Any] = {
        "number": 1,
        "target": ("token", "t"),
        "invoked": at - 0.1,
        "returned": at,
        "outcome": Outcome.OK,
    }
    return Revoke(**good | changes)


def rule(at: float, *, cutoff: int | tuple[int, int] = 1000, **changes: Any) -> Revoke:
    known = cutoff if isinstance(cutoff, tuple) else (cutoff, cutoff)
    return revoke(at, **{"target": ("claims", ("sub",), ("s",)), "cutoff": known} | changes)


def undo(at: float, **changes: Any) -> Undo:
    return Undo(**{"number": 1, "invoked": at - 0.1, "returned": at, "outcome": Outcome.OK} | changes)


def judged(at: float, result: Result, **changes: Any) -> Validate:
    good: dict[str, Any] = {
        "process": "v",
        "memory": "v#1",
        "run": 1,
        "token": "t",
        "invoked": at,
        "returned": at,
        "result": result,
    }
    return Validate(**good | changes)


def accepted(at: float, **changes: Any) -> Validate:
    return judged(at, Result.ACCEPT, **changes)


def refused(at: float, **changes: Any) -> Validate:
    return judged(at, Result.REVOKED, **changes)


def fault(start: float, end: float, **changes: Any) -> Fault:
    return Fault(name="something", start=start, end=end, **changes)


def broken(*events: Event, bounds: Bounds = BOUNDS) -> tuple[str, ...]:
    return check(History(events=[TOKEN, *events]), bounds).broken


# --- P0: nobody accepts what has expired --------------------------------------------------------------------


def test_P0_a_token_accepted_after_its_end_is_a_violation():
    assert broken(accepted(3702.0)) == ("P0",)


def test_P0_a_token_accepted_before_its_end_or_within_the_clocks_error_is_none():
    assert broken(accepted(3699.0), accepted(3700.5)) == ()


def test_P0_a_clock_that_was_declared_off_excuses_it():
    assert broken(fault(3600.0, 3800.0, clock=True), accepted(3702.0)) == ()


def test_P0_another_fault_does_not_excuse_it():
    assert broken(fault(3600.0, 3800.0), accepted(3702.0)) == ("P0",)


# --- P1: nobody accepts what was revoked --------------------------------------------------------------------


def test_P1_accepted_later_than_the_bound_after_the_acknowledgement_is_a_violation():
    assert broken(revoke(200.0), accepted(230.1)) == ("P1",)


def test_P1_accepted_within_the_bound_is_none():
    assert broken(revoke(200.0), accepted(229.9)) == ()


def test_P1_while_something_is_broken_the_longer_bound_counts_and_it_counts():
    broken_for_long = fault(150.0, 2000.0)
    assert broken(broken_for_long, revoke(200.0), accepted(1099.0)) == ()
    assert broken(broken_for_long, revoke(200.0), accepted(1100.1)) == ("P1",)


def test_P1_a_fault_excuses_until_it_has_been_recovered_from_and_no_longer():
    assert broken(fault(150.0, 195.0), revoke(200.0), accepted(240.0)) == ()
    assert broken(fault(150.0, 185.0), revoke(200.0), accepted(240.0)) == ("P1",)


def test_P1_a_fault_of_another_validator_does_not_excuse_this_one():
    assert broken(fault(150.0, 300.0, processes=("w",)), revoke(200.0), accepted(240.0)) == ("P1",)


def test_P1_a_validator_with_a_closer_bound_is_held_to_it_until_something_was_broken():
    closer = replace(BOUNDS, closer={"v": 1.0})
    assert broken(revoke(200.0), accepted(202.0), bounds=closer) == ("P1",)
    assert broken(revoke(200.0), accepted(202.0, process="w"), bounds=closer) == ()
    assert broken(fault(110.0, 111.0), revoke(200.0), accepted(202.0), bounds=closer) == ()


def test_P1_what_excuses_a_beginning_leaves_the_closer_bound_in_force_after_it():
    closer = replace(BOUNDS, closer={"v": 1.0})
    start = fault(100.0, 95.0)  # without length: with the recovery it lasts until 105
    assert broken(start, revoke(200.0), accepted(202.0), bounds=closer) == ("P1",)
    assert broken(start, revoke(101.0), accepted(103.0), bounds=closer) == ()


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.FAIL])
def test_P1_what_was_not_acknowledged_is_owed_by_nobody(outcome: Outcome):
    assert broken(revoke(200.0, outcome=outcome), accepted(300.0)) == ()


@pytest.mark.parametrize(
    ("target", "cutoff"),
    [
        (("token", "t"), None),
        (("jti", "i", "j"), None),
        (("key", "i", "k"), None),
        (("all",), (101, 101)),
        (("claims", ("sub",), ("s",)), (101, 101)),
        (("claims", ("realm", "sub"), ("/r", "s")), (101, 101)),
    ],
)
def test_P1_every_kind_of_revocation_covers_the_token(target: tuple[Any, ...], cutoff: tuple[int, int] | None):
    assert broken(revoke(200.0, target=target, cutoff=cutoff), accepted(300.0)) == ("P1",)


@pytest.mark.parametrize(
    ("target", "cutoff"),
    [
        (("token", "u"), None),
        (("jti", "other", "j"), None),
        (("key", "i", "other"), None),
        (("all",), (100, 100)),
        (("claims", ("sub",), ("s",)), (100, 100)),
        (("claims", ("sub",), ("other",)), (1000, 1000)),
        (("claims", ("azp", "sub"), ("c", "s")), (1000, 1000)),
    ],
)
def test_P1_what_names_another_token_or_cuts_off_at_its_own_second_does_not(
    target: tuple[Any, ...], cutoff: tuple[int, int] | None
):
    assert broken(revoke(200.0, target=target, cutoff=cutoff), accepted(300.0)) == ()


def test_P1_a_cut_off_that_is_not_known_covers_only_what_it_covers_in_any_case():
    assert broken(rule(200.0, cutoff=(100, 105)), accepted(300.0)) == ()
    assert broken(rule(200.0, cutoff=(101, 105)), accepted(300.0)) == ("P1",)


def test_P1_a_block_covers_a_token_whatever_its_iat_until_it_is_over():
    blocks = rule(200.0, cutoff=50, block_until=500)
    assert broken(blocks, accepted(400.0)) == ("P1",)
    assert broken(blocks, accepted(499.5), accepted(600.0)) == ()


def test_P1_what_may_have_been_taken_back_is_owed_by_nobody():
    assert broken(rule(200.0), undo(220.0, outcome=Outcome.UNKNOWN), accepted(300.0)) == ()
    assert broken(rule(200.0), undo(220.0, outcome=Outcome.FAIL), accepted(300.0)) == ("P1",)


def test_P1_an_undo_takes_back_every_request_that_shares_its_record_and_no_other():
    twice = rule(200.0, record="r"), rule(210.0, number=2, record="r")
    assert broken(*twice, undo(220.0, number=2), accepted(300.0)) == ()
    other = rule(200.0, record="r"), rule(210.0, number=2, cutoff=2000, record="s")
    assert broken(*other, undo(220.0, number=2), accepted(300.0)) == ("P1",)


# --- P2: nobody accepts what somebody refused ---------------------------------------------------------------


def test_P2_accepted_by_another_validator_later_than_the_bound_after_a_refusal_is_a_violation():
    unknown = revoke(200.0, outcome=Outcome.UNKNOWN)
    assert broken(unknown, refused(210.0), accepted(241.0, process="w", memory="w#1")) == ("P2",)


def test_P2_accepted_by_another_validator_within_the_bound_is_none():
    unknown = revoke(200.0, outcome=Outcome.UNKNOWN)
    assert broken(unknown, refused(210.0), accepted(239.0, process="w", memory="w#1")) == ()


def test_P2_what_nobody_acknowledged_may_take_a_sweep_longer_and_what_somebody_did_may_not():
    bounds = replace(BOUNDS, sweep=20.0)
    unknown, known = revoke(200.0, outcome=Outcome.UNKNOWN), revoke(205.0)
    late = refused(210.0), accepted(259.0, process="w", memory="w#1")
    later = refused(210.0), accepted(261.0, process="w", memory="w#1")
    assert broken(unknown, *late, bounds=bounds) == ()
    assert broken(unknown, *later, bounds=bounds) == ("P2",)
    assert broken(known, *late, bounds=bounds) == ("P1", "P2")


def test_P2_a_refusal_whose_cause_may_have_been_taken_back_binds_nobody():
    events = rule(200.0), refused(210.0), undo(215.0), accepted(300.0, process="w", memory="w#1")
    assert broken(*events) == ()


def test_P2_a_refusal_by_a_block_that_is_over_binds_nobody():
    blocks = rule(200.0, cutoff=50, block_until=230)
    assert broken(blocks, refused(210.0), accepted(300.0, process="w", memory="w#1")) == ()


# --- P3: nobody accepts what it refused itself --------------------------------------------------------------


def test_P3_a_validator_that_accepts_what_it_refused_is_a_violation_at_once():
    assert broken(revoke(200.0, outcome=Outcome.UNKNOWN), refused(210.0), accepted(210.5)) == ("P3",)


def test_P3_a_restart_that_loses_the_list_may_accept_it_for_a_while():
    assert broken(revoke(200.0), refused(210.0), accepted(210.5, memory="v#2", run=2)) == ()


def test_P3_a_restart_with_a_state_folder_may_not():
    events = revoke(200.0), refused(210.0, memory="v"), accepted(210.5, memory="v", run=2)
    assert broken(*events) == ("P3",)


def test_P3_two_judgements_at_the_same_time_have_no_order():
    assert broken(revoke(200.0), refused(210.0, returned=211.0), accepted(210.5, returned=210.6)) == ()


# --- P4: a list has what it says ----------------------------------------------------------------------------


def test_P4_accepting_by_a_list_that_claims_to_know_better_is_a_violation_even_within_the_bound():
    assert broken(revoke(200.0), accepted(205.0, as_of=200.5)) == ("P4",)


def test_P4_accepting_by_a_list_from_before_the_acknowledgement_is_none():
    assert broken(revoke(200.0), accepted(205.0, as_of=199.9)) == ()


def test_P4_knows_no_excuse():
    assert broken(fault(0.0, 5000.0), revoke(200.0), accepted(205.0, as_of=200.5)) == ("P4",)


# --- P5: no refusal without a cause -------------------------------------------------------------------------


def test_P5_a_refusal_that_nothing_covers_is_a_violation():
    assert broken(refused(300.0)) == ("P5",)
    assert broken(rule(200.0, cutoff=100), refused(300.0)) == ("P5",)
    assert broken(revoke(200.0, outcome=Outcome.FAIL), refused(300.0)) == ("P5",)


def test_P5_a_refusal_before_the_request_was_made_is_a_violation():
    assert broken(revoke(200.0), refused(150.0)) == ("P5",)


def test_P5_a_request_of_unknown_outcome_or_one_under_way_is_a_cause():
    assert broken(revoke(200.0, outcome=Outcome.UNKNOWN), refused(300.0)) == ()
    assert broken(revoke(200.0, invoked=190.0), refused(195.0)) == ()


def test_P5_a_cut_off_that_may_cover_is_a_cause():
    assert broken(rule(200.0, cutoff=(90, 101)), refused(300.0)) == ()
    assert broken(rule(200.0, cutoff=(90, 100)), refused(300.0)) == ("P5",)


def test_P5_a_revocation_that_was_taken_back_is_a_cause_for_the_bound_and_no_longer():
    assert broken(rule(200.0), undo(220.0), refused(249.0)) == ()
    assert broken(rule(200.0), undo(220.0), refused(251.0)) == ("P5",)


def test_P5_an_undo_that_could_not_be_heard_of_leaves_the_cause():
    assert broken(rule(200.0), undo(220.0), fault(210.0, 400.0), refused(300.0)) == ()


def test_P5_a_block_is_a_cause_until_it_is_over():
    blocks = rule(200.0, cutoff=50, block_until=500)
    assert broken(blocks, refused(499.0)) == ()
    assert broken(blocks, refused(502.0)) == ("P5",)


# --- P6: an answer while all is well ------------------------------------------------------------------------


@pytest.mark.parametrize("result", [Result.UNAVAILABLE, Result.ERROR, Result.INVALID])
def test_P6_no_answer_about_a_good_token_is_a_violation(result: Result):
    assert broken(judged(300.0, result)) == ("P6",)


@pytest.mark.parametrize("result", [Result.UNAVAILABLE, Result.ERROR, Result.INVALID])
def test_P6_something_broken_excuses_it_until_it_has_been_recovered_from(result: Result):
    assert broken(fault(250.0, 295.0), judged(300.0, result)) == ()
    assert broken(fault(250.0, 285.0), judged(300.0, result)) == ("P6",)


def test_P6_another_spelling_or_a_dead_token_may_be_refused():
    assert broken(judged(300.0, Result.INVALID, spelling="twin"), judged(3701.0, Result.INVALID)) == ()


# --- P7: a list does not go back ----------------------------------------------------------------------------


def test_P7_an_earlier_epoch_is_a_violation_also_after_a_restart():
    assert broken(accepted(200.0, epoch=5), accepted(300.0, epoch=4)) == ("P7",)
    assert broken(accepted(200.0, epoch=5), accepted(300.0, epoch=4, run=2, memory="v#2")) == ("P7",)


def test_P7_a_later_epoch_and_that_of_another_validator_are_none():
    assert broken(accepted(200.0, epoch=5), accepted(300.0, epoch=6), accepted(400.0, epoch=4, process="w")) == ()


def test_P7_a_list_whose_time_goes_back_is_a_violation():
    assert broken(accepted(200.0, as_of=190.0), accepted(300.0, as_of=180.0)) == ("P7",)


def test_P7_the_time_may_go_back_with_a_restart():
    assert broken(accepted(200.0, as_of=190.0), accepted(300.0, as_of=180.0, run=2)) == ()


# --- the report ---------------------------------------------------------------------------------------------


def test_a_violation_comes_with_the_events_that_show_it():
    revocation, validation = revoke(200.0), accepted(300.0)
    report = check(History(events=[TOKEN, revocation, validation]), BOUNDS)
    assert [violation.events for violation in report.violations] == [(TOKEN, revocation, validation)]
    assert "accepted 100.00 s after" in report.text()


def test_a_report_says_how_often_each_property_could_have_been_broken():
    report = check(History(events=[TOKEN, revoke(200.0), accepted(205.0, as_of=190.0), refused(300.0)]), BOUNDS)
    assert report.clean
    assert dict(report.armed) == {"P0": 1, "P1": 1, "P4": 1, "P5": 1}
    assert dict(report.counts) == {"revoke ok": 1, "validate accept": 1, "validate revoked": 1}


def test_the_order_in_which_events_were_noted_does_not_matter():
    events = [accepted(300.0), revoke(200.0), TOKEN, fault(1.0, 2.0)]
    assert check(History(events=events), BOUNDS).broken == ("P1",)


def test_a_history_is_the_same_after_writing_and_reading(tmp_path: Path):
    history = History(seed=7, events=[TOKEN, rule(200.0, record="r"), undo(210.0), accepted(300.0), fault(1.0, 2.0)])
    history.write(tmp_path / "history.jsonl")
    assert History.read(tmp_path / "history.jsonl") == history
