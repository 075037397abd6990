"""What a drill measures and reports, and what it refuses: with samples and services that are made up."""

import json

import pytest
import typer
from typer.testing import CliRunner

from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry.secret import Secret
from tokenry_cli.__main__ import app
from tokenry_cli.context import Context
from tokenry_cli.drill import _finish
from tokenry_cli.drill_measure import (
    AtValidator,
    Condemned,
    History,
    Measured,
    Minted,
    Sample,
    Target,
    Verdict,
    longest_gap,
    measure,
)
from tokenry_cli.drill_probe import BYSTANDER, VICTIM, Clients, Probes, token_info_judge
from tokenry_cli.drill_report import Report, StepDone
from tokenry_cli.drill_run import Run
from tokenry_cli.drill_scenarios import PLANS, Scenario
from tokenry_cli.drill_stage import ContextStage, DrillBroken, NotContained, NotHere, Part, People
from tokenry_cli.output import Format
from tokenry_cli.platform import Platform

YES, NO, NOTHING = Verdict.ACCEPTED, Verdict.REFUSED, Verdict.UNAVAILABLE
GOOD = Minted(name="good", client=BYSTANDER, kid="k1", at=0.0)
BAD = Minted(name="bad", client=VICTIM, kid="k1", at=0.0)
DEAD = Minted(name="dead", client=BYSTANDER, kid="k1", at=0.0)
NEXT = Minted(name="next", client=VICTIM, kid="k2", at=20.0)
STEP, OWED = 10.0, 41.0


def at(seconds, verdict, token=BAD, where="v1"):
    return Sample(asked=seconds, came=seconds + 0.5, where=where, token=token.name, verdict=verdict)


def measured(*samples, condemned=None):
    condemned = condemned or Condemned(target=Target.TOKEN, value="bad", at=STEP, owed_at=OWED)
    tokens = {token.name: token for token in (GOOD, BAD, DEAD, NEXT)}
    return measure(
        History(
            samples=samples,
            tokens=tokens,
            dead=frozenset({"dead"}),
            bystander=BYSTANDER,
            condemned=(condemned,),
        )
    )


# --- the measure ----------------------------------------------------------------------------------------------------


def test_the_time_to_contain_is_that_of_the_last_validator():
    found = measured(at(9, YES), at(11, YES), at(12, NO), at(9, YES, where="v2"), at(15, YES, where="v2"), at(16, NO, where="v2"))  # fmt: skip  # noqa: E501
    assert [each.contained for each in found.validators] == [2.5, 6.5]
    assert found.time_to_contain == 6.5
    assert [each.accepted_meanwhile for each in found.validators] == [1, 1]
    assert (found.wrongly_accepted, found.wrongly_refused) == (0, 0)


def test_a_validator_that_says_yes_again_was_not_contained_before():
    assert measured(at(11, NO), at(12, YES), at(13, NO)).time_to_contain == 3.5
    assert measured(at(11, NO), at(12, YES)).time_to_contain is None


def test_a_validator_that_was_not_asked_since_the_step_is_not_contained():
    assert measured(at(9, NO)).time_to_contain is None


def test_neither_yes_nor_no_contains_as_well():
    found = measured(at(11, YES), at(12, NOTHING))
    assert (found.time_to_contain, found.unavailable) == (2.5, {"issuer": 0, "v1": 1})


@pytest.mark.parametrize(("seconds", "wrong"), [(40.9, 0), (41.1, 1)])
def test_a_yes_is_wrong_from_the_moment_on_at_which_a_no_is_owed(seconds, wrong):
    assert measured(at(seconds, YES)).wrongly_accepted == wrong


def test_nothing_is_owed_before_it_was_acknowledged_or_after_it_was_taken_back():
    unknown = Condemned(target=Target.TOKEN, value="bad", at=STEP, owed_at=None)
    assert measured(at(1000, YES), condemned=unknown).wrongly_accepted == 0
    undone = Condemned(target=Target.TOKEN, value="bad", at=STEP, owed_at=OWED, ended=50.0)
    assert measured(at(49, YES), at(51, YES), condemned=undone).wrongly_accepted == 1
    assert measured(at(51, NO), condemned=undone).wrongly_refused == 0


def test_what_was_dead_before_is_wrong_to_accept_at_any_time():
    assert measured(at(1, YES, DEAD)).wrongly_accepted == 1
    assert measured(at(1, NO, DEAD)).wrongly_refused == 0


def test_a_no_to_what_is_not_condemned_is_wrong():
    assert measured(at(12, NO, GOOD)).wrongly_refused == 1
    assert measured(at(9, NO)).wrongly_refused == 1  # before the first step


def test_an_answer_that_came_after_the_step_may_be_due_to_it():
    assert measured(at(9.9, NO)).wrongly_refused == 0


def test_a_client_is_good_again_with_what_is_minted_later():
    leaked = Condemned(target=Target.CLIENT, value=VICTIM, at=STEP, owed_at=11.0, until=19.0)
    found = measured(at(12, NO), at(25, YES, NEXT), condemned=leaked)
    assert (found.time_to_contain, found.wrongly_accepted) == (2.5, 0)
    assert measured(at(25, NO, NEXT), condemned=leaked).wrongly_refused == 1


def test_a_key_takes_the_tokens_of_everybody_with_it_and_no_other_key_s():
    leaked = Condemned(target=Target.KEY, value="k1", at=STEP, owed_at=11.0)
    found = measured(at(12, NO), at(12, NO, GOOD), at(12, YES, NEXT), condemned=leaked)
    assert (found.wrongly_accepted, found.wrongly_refused) == (0, 0)


def test_a_token_of_a_leaked_key_that_is_issued_after_the_step_was_born_dead():
    tokens = {"late": Minted(name="late", client=BYSTANDER, kid="k1", at=12.0), "good": GOOD}
    leaked = Condemned(target=Target.KEY, value="k1", at=STEP, owed_at=OWED)
    history = History(samples=(), tokens=tokens, dead=frozenset(), bystander=BYSTANDER, condemned=(leaked,))
    assert measure(history).born_dead == 1


def test_an_old_list_is_a_reason_to_say_nothing_and_none_to_say_no():
    old = Condemned(target=Target.EVERYTHING, value="", at=STEP, owed_at=OWED)
    assert measured(at(45, NOTHING, GOOD), condemned=old).wrongly_refused == 0
    assert measured(at(45, NO, GOOD), condemned=old).wrongly_refused == 1
    assert measured(at(45, YES, GOOD), condemned=old).wrongly_accepted == 1


def test_mints_of_the_bystander_are_counted_and_those_of_the_victim_are_not():
    mints = [
        Sample(asked=t, came=t + 0.1, where="issuer", token=who, verdict=verdict)
        for t, who, verdict in [(1, BYSTANDER, YES), (2, BYSTANDER, NOTHING), (3, BYSTANDER, NO), (4, VICTIM, NO)]
    ]
    found = measured(*mints)
    assert (found.mints, found.mints_refused, found.mints_unavailable, found.wrongly_refused) == (3, 1, 1, 1)
    assert found.longest_mint_gap == 2.0  # from the last answer before to the first one after


def test_a_gap_lasts_from_one_answer_to_the_next():
    samples = [at(0, YES), at(1, NOTHING), at(5, NO), at(6, YES)]
    assert longest_gap(samples) == 5.0
    assert longest_gap(samples[2:]) == 0.0
    assert longest_gap([at(1, NOTHING), at(4, NOTHING)]) == 3.5


def test_a_no_to_what_was_dead_before_ends_no_gap():
    (found,) = measured(at(0, YES), at(1, NOTHING), at(2, NO, DEAD), at(8, NO)).validators
    assert found.longest_gap == 8.0


# --- the report -----------------------------------------------------------------------------------------------------


def report(**changes):
    validator = AtValidator(
        name="token info", contained=0.5, accepted_meanwhile=3, wrongly_accepted=0, wrongly_refused=0, unavailable=0,
        longest_gap=0.0, asked=100,
    )  # fmt: skip
    members = {
        "scenario": "issuer-down", "started_at": 1_800_000_000.0, "seconds": 31.0, "platform": "tokenry dev",
        "environment": "dev", "version": "1", "steps": [StepDone(at=1.0, seconds=0.2, text="a | b", undo="c")],
        "measured": Measured(validators=(validator,), mints=10, mints_unavailable=4), "recovered": 2.0,
        "may_be_unavailable": frozenset({"issuer"}), "contains": True,
    }  # fmt: skip
    return Report(**{**members, **changes})


def worse(**changes):
    (validator,) = report().measured.validators
    members = {name: getattr(validator, name) for name in AtValidator.__slots__}
    return Measured(validators=(AtValidator(**{**members, **changes}),))


def test_a_drill_in_which_the_expected_ones_alone_were_away_went_well():
    assert report().went_well
    assert report(may_be_unavailable=frozenset()).findings == ("issuer did not answer 4 times",)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"contained": None}, "not contained at token info"),
        ({"wrongly_accepted": 2}, "2 times a token was accepted that had to be refused"),
        ({"wrongly_refused": 1}, "1 times a good token or client was refused"),
        ({"unavailable": 1}, "token info did not answer 1 times"),
    ],
)
def test_each_thing_that_went_wrong_is_a_finding(changes, finding):
    bad = report(measured=worse(**changes))
    assert (bad.findings, bad.went_well) == ((finding,), False)
    assert finding in bad.to_markdown()
    assert json.loads(json.dumps(bad.to_dict()))["findings"] == [finding]


def test_what_contains_nothing_is_not_blamed_for_it():
    assert report(contains=False, measured=worse(contained=None)).went_well


def test_the_report_has_a_date_every_step_and_how_to_undo_it():
    found = report()
    assert found.name == "2027-01-15T080000Z-issuer-down"
    text = found.to_markdown()
    assert "2027-01-15 08:00:00 UTC" in text
    assert "| 1.0 s | 0.2 s | a \\| b | c |" in text
    assert "| issuer | 10 | 4 (expected) |" in text
    assert found.to_dict()["time_to_contain"] == 0.5


# --- probes ---------------------------------------------------------------------------------------------------------


class Answers:
    def __init__(self, status):
        self.status = status

    def fetch(self, request):
        if self.status is None:
            raise FetchFailed(Failure.TIMEOUT, "away")
        return Response(status=self.status)

    def cancel(self):
        pass


@pytest.mark.parametrize(("status", "verdict"), [(200, YES), (401, NO), (503, NOTHING), (500, NOTHING), (None, NOTHING)])  # fmt: skip  # noqa: E501
def test_a_status_is_a_yes_a_no_or_nothing(status, verdict):
    assert token_info_judge("https://t.test", fetcher=Answers(status))(Secret("t")) is verdict


# --- a run ----------------------------------------------------------------------------------------------------------


class Broken:
    """A stage of which everything fails to come back."""

    what, environment, refuse_age, notes = "a fake", "test", 31.0, ()

    def __init__(self):
        self.away = []

    def people(self):
        context = Context(
            issuer="https://i.test", revocation="https://r.test", client_id="c", client_secret=Secret("s")
        )
        return People(bystander=context, victim=context, admin=context)

    def take_away(self, part, fault):
        self.away.append(part)

    def bring_back(self, part, fault):
        self.away.remove(part)


def make_run(stage):
    seconds = [0.0]
    platform = Platform(stage.people().bystander, fetcher=Answers(None))
    probes = Probes(Clients(bystander=platform, victim=platform), {}, now=lambda: seconds[0])
    said = []

    def sleep(amount):
        seconds[0] += amount

    return Run(stage, probes, hold=1.0, say=said.append, sleep=sleep), said


def test_what_was_broken_is_mended_when_a_step_fails():
    run, said = make_run(stage := Broken())
    run.take_away(Part.ISSUER)
    run.take_away(Part.REVOCATION)
    run.bring_back(Part.REVOCATION)
    with pytest.raises(DrillBroken, match="never: not within 120 s"):
        run.until("never", lambda: False)
    assert stage.away == [Part.ISSUER]
    assert run.mend() == []
    assert stage.away == []
    assert said[-1] == "↩ bring the issuer back"


def test_what_cannot_be_mended_is_told():
    run, _ = make_run(Broken())

    def fails():
        raise DrillBroken("no")

    run.on_failure("lift the block", fails)
    assert run.mend() == ["lift the block: no"]


def test_a_step_that_takes_long_says_so_every_few_seconds():
    run, said = make_run(Broken())
    ends = run.now + 12
    run.until("it ends", lambda: run.now >= ends)
    assert [line for line in said if line.startswith("  …")] == ["  … it ends (5 s)", "  … it ends (10 s)"]
    assert run.steps[-1].seconds == pytest.approx(12, abs=0.2)


def test_a_validator_that_never_enforces_is_not_waited_for_for_ever():
    run, _ = make_run(Broken())
    run.condemn(Target.CLIENT, VICTIM)
    with pytest.raises(NotContained):
        run.contained()
    assert run.now > 120


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"faults": ("every validator enforces it: not within 120 s",), "in_vain": True}, 6),
        ({"faults": ("a step failed",)}, 1),
        ({"measured": worse(wrongly_accepted=1)}, 1),
        ({"faults": ("interrupted",)}, 130),
    ],
)
def test_how_it_went_is_the_exit_status_and_the_report_is_written_all_the_same(tmp_path, changes, code):
    ended = 0
    try:
        _finish(report(**changes), PLANS[Scenario.ISSUER_DOWN], tmp_path / "new" / "drills", Format.JSON)
    except typer.Exit as exit_:
        ended = exit_.exit_code
    assert ended == code
    (path,) = (tmp_path / "new" / "drills").glob("*.json")
    assert json.loads(path.read_bytes())["went_well"] is (code == 0)


def test_a_platform_that_is_not_well_is_no_place_for_a_drill():
    run, _ = make_run(Broken())
    with pytest.raises(DrillBroken, match="mint a token and revoke it, before anything is broken"):
        run.well_before()


# --- the command ----------------------------------------------------------------------------------------------------


def context_file(tmp_path, **members):
    path = tmp_path / "context.json"
    document = {
        "issuer": "http://127.0.0.1:9", "tokeninfo": "http://127.0.0.1:9", "revocation": "http://127.0.0.1:9",
        "client": {"client_id": "a", "client_secret": "b"}, "admin": {"client_id": "c", "client_secret": "d"},
    }  # fmt: skip
    path.write_text(json.dumps({**document, **members}))
    path.chmod(0o600)
    return path


def run_command(*words):
    return CliRunner().invoke(app, ["drill", *map(str, words)])


@pytest.mark.parametrize("members", [{"environment": "production"}, {}])
def test_a_context_of_production_or_of_nobody_knows_what_is_refused(tmp_path, members):
    result = run_command("issuer-down", "--context", context_file(tmp_path, **members), "--report-folder", tmp_path)
    assert result.exit_code == 4
    assert "production" in result.output


def test_a_drill_that_needs_what_is_not_there_says_where_it_is(tmp_path):
    for scenario in ("cassandra-node-loss", "clock-skew"):
        result = run_command(scenario, "--report-folder", tmp_path, "--folder", tmp_path / "dev")
        assert result.exit_code == 2, result.output
        assert "make soak" in result.output
    path = context_file(tmp_path, environment="staging")
    result = run_command("cassandra-node-loss", "--context", path, "--yes")
    assert (result.exit_code, "--cassandra" in result.output) == (2, True)


def test_the_victim_is_somebody_else_than_whoever_revokes(tmp_path):
    same = {"client_id": "c", "client_secret": "d"}
    path = context_file(tmp_path, environment="staging", client=same)
    result = run_command("issuer-down", "--context", path, "--yes")
    assert (result.exit_code, "--victim" in result.output) == (2, True)


def test_nothing_begins_unconfirmed(tmp_path):
    result = run_command("issuer-down", "--context", context_file(tmp_path, environment="staging"), "--no-input")
    assert result.exit_code == 2
    assert "nobody is there to ask" in result.output


def test_what_is_done_by_hand_is_waited_for():
    asked = []
    stage = ContextStage(
        Broken().people(), name="s", environment="staging", environ={}, ask=lambda *words: asked.append(words),
        refuse_age=900.0, has_nodes=True,
    )  # fmt: skip
    plan = PLANS[Scenario.CASSANDRA_NODE_LOSS]
    stage.check(plan.parts, clocks=False, registry=False, keys=False)
    from tokenry_cli.drill_stage import Fault

    stage.take_away(Part.NODE, Fault.DOWN)
    stage.bring_back(Part.NODE, Fault.DOWN)
    assert [word for _, word in asked] == ["done", "done"]
    assert "one node of Cassandra" in asked[0][0]


def test_a_context_without_settings_of_the_registry_is_found_before_anything_is_broken():
    stage = ContextStage(
        Broken().people(), name="s", environment="staging", environ={}, ask=lambda *_: None, refuse_age=900.0,
        has_nodes=False,
    )  # fmt: skip
    for scenario in (Scenario.SIGNING_KEY_LEAK, Scenario.CLIENT_SECRET_LEAK):
        plan = PLANS[scenario]
        with pytest.raises(Exception, match="TOKENRY_CREDENTIALS_URL"):
            stage.check(plan.parts, clocks=plan.clocks, registry=plan.registry, keys=plan.keys)
    with pytest.raises(NotHere):
        stage.check({Part.NODE}, clocks=False, registry=False, keys=False)
