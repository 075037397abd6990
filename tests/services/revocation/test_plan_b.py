"""`GET /revocations?from=`: what an unchanged validator of Plan B reads, and that it loses nothing."""

import base64
import hashlib
import json

import pytest

from tests.services.revocation.conftest import NOW, SALT
from tests.support.planb_tokeninfo import PlanBTokeninfo
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jws import twin

MONTH = 2_678_400


def plan_b_hash(text):
    return base64.urlsafe_b64encode(hashlib.sha256((SALT + text).encode()).digest()).decode()


async def test_an_empty_list_has_its_meta(service):
    assert await service.plan_b() == {
        "meta": {"MAX_TIME_DELTA": MONTH, "REFRESH_FROM": None, "REFRESH_TIMESTAMP": None},
        "revocations": [],
    }


async def test_a_token_is_listed_by_its_hash_and_by_its_id(world, service):
    token = world.token(iat=NOW - 100, jti="abc")
    await service.post("TOKEN", {"token": token})
    assert (await service.plan_b())["revocations"] == [
        {
            "type": "TOKEN",
            "revoked_at": NOW,
            "data": {
                "token_hash": plan_b_hash(token),
                "hash_algorithm": "SHA-256",
                "issued_before": NOW - 99,
            },
        },
        {
            "type": "CLAIM",
            "revoked_at": NOW,
            "data": {
                "names": ["jti"],
                "value_hash": plan_b_hash("abc"),
                "hash_algorithm": "SHA-256",
                "separator": "|",
                "issued_before": NOW - 99,
            },
        },
    ]


async def test_a_token_without_an_id_is_listed_in_both_spellings(world, service):
    token = world.token(iat=NOW - 100, jti=None)
    await service.post("TOKEN", {"token": token})
    rows = (await service.plan_b())["revocations"]
    assert {row["data"]["token_hash"] for row in rows} == {plan_b_hash(token), plan_b_hash(twin(token))}


async def test_a_token_that_was_not_verified_has_the_cut_off_of_its_revocation(world, service):
    await service.post("TOKEN", {"token": world.token(key=PrivateKey.generate(), iat=5)})
    world.clock.advance(10)
    rows = (await service.plan_b())["revocations"]
    assert {row["data"]["issued_before"] for row in rows} == {NOW + 3}


async def test_an_id_that_holds_the_separator_is_not_listed_as_a_claim(world, service):
    answer = await service.post("TOKEN", {"jti": "a|b"})
    assert answer.json["plan_b_by"] is None
    assert (await service.plan_b())["revocations"] == []


async def test_a_rule_is_listed_with_sorted_names_and_the_hash_of_its_joined_values(world, service):
    claims = {"sub": "jdoe", "realm": "services"}
    await service.post("CLAIM", {"claims": claims, "issued_before": NOW - 10})
    (row,) = (await service.plan_b())["revocations"]
    assert row["data"] == {
        "names": ["realm", "sub"],
        "value_hash": plan_b_hash("/services|jdoe"),
        "hash_algorithm": "SHA-256",
        "separator": "|",
        "issued_before": NOW - 10,
    }


async def test_everything_is_one_row_and_a_key_none(service):
    await service.post("GLOBAL", {"issued_before": NOW - 10}, confirm=True)
    key = await service.post("KEY", {"kid": "x"})
    (row,) = (await service.plan_b())["revocations"]
    assert row == {"type": "GLOBAL", "revoked_at": NOW, "data": {"issued_before": NOW - 10}}
    assert key.json["plan_b_by"] > NOW, "there it takes effect through the key set"


async def test_a_cut_off_ahead_is_shown_as_the_past_and_again_once_it_has_come(world, service):
    await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    cutoff = NOW + 3
    seen = []
    for _ in range(8):
        (row,) = (await service.plan_b())["revocations"]
        seen.append((row["revoked_at"] - NOW, row["data"]["issued_before"] - NOW))
        assert row["data"]["issued_before"] <= world.clock.now() - 2, "also for a clock two seconds behind"
        world.clock.advance(1)
    assert seen == [(0, -2), (0, -1), (0, 0), (0, 1), (0, 2), (5, 3), (5, 3), (5, 3)]
    assert cutoff == NOW + seen[-1][1]


async def test_a_poll_position_that_has_moved_on_gets_the_true_cut_off_when_it_has_come(world, service):
    await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    world.clock.advance(4)
    position = int(world.clock.now())
    assert (await service.plan_b(position))["revocations"] == []
    world.clock.advance(1)
    (row,) = (await service.plan_b(position))["revocations"]
    assert row["data"]["issued_before"] == NOW + 3


async def test_rows_of_one_hash_come_with_ascending_cut_offs(service):
    for cutoff in (NOW - 10, NOW - 300, NOW - 20, NOW - 100):
        await service.post("CLAIM", {"claims": {"sub": "a"}, "issued_before": cutoff})
    rows = (await service.plan_b())["revocations"]
    cutoffs = [row["data"]["issued_before"] for row in rows]
    assert cutoffs == sorted(cutoffs)
    assert len({row["data"]["value_hash"] for row in rows}) == 1


async def test_only_what_is_later_than_the_position_is_listed(world, service):
    await service.post("TOKEN", {"token": world.token(iat=NOW - 60)})
    assert len((await service.plan_b(NOW - 1))["revocations"]) == 2
    assert (await service.plan_b(NOW))["revocations"] == []


async def test_contract_4_15_a_position_that_never_moves_is_answered_for_ever(service, world):
    """While nothing is revoked an unchanged validator asks from its own start on, for months."""
    started = int(world.clock.now())
    for _ in range(4):
        world.clock.advance(seconds=31 * 24 * 3600)
        await service.feed.read()
        assert (await service.get(f"/revocations?from={started}")).status == 200
    await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    assert len((await service.plan_b(started))["revocations"]) == 1


@pytest.mark.parametrize("since", ["0", "-5", "1", str(NOW - 40 * 86400), "1460000000.5"])
async def test_contract_4_5_any_number_however_old_is_answered_with_everything_in_force(world, service, since):
    await service.post("TOKEN", {"token": world.token(iat=NOW - 60)})
    assert len((await service.plan_b(since))["revocations"]) == 2


@pytest.mark.parametrize("query", ["", "?from=", "?from=abc", "?from=NaN", "?from=1e5", "?from=0x10", "?form=0"])
async def test_a_position_that_is_no_number_is_refused_as_a_problem(service, query):
    answer = await service.get(f"/revocations{query}")
    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert set(answer.json) == {"type", "title", "status", "detail"}


async def test_what_is_out_of_force_is_not_listed(world, service):
    await service.post("TOKEN", {"token": world.token(iat=NOW - 60, exp=NOW + 60)})
    world.clock.advance(180)
    assert (await service.plan_b())["revocations"] == []


async def test_the_list_tells_how_old_it_is(service):
    assert (await service.get("/revocations?from=0")).stamp.as_of == NOW - 2


# --- an unchanged validator -------------------------------------------------------------------------------

POLL_SECONDS = 30


async def run_validator(world, service, validator, seconds):
    """Let *validator* poll every 30 s for so long, beginning now."""
    for _ in range(seconds // POLL_SECONDS + 1):
        answer = await service.get(f"/revocations?from={validator.question(world.clock.now())}")
        validator.take(answer.body, now=world.clock.now())
        world.clock.advance(POLL_SECONDS)


def payload(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("phase", [0, 1, 2, 3, 4, 5, 15, 29])
async def test_an_unchanged_validator_refuses_what_was_revoked_by_the_time_that_was_promised(
    world, service, offset, phase
):
    validator = PlanBTokeninfo(salt=SALT, clock_offset=offset)
    await run_validator(world, service, validator, 60)
    world.clock.advance(phase)
    now = int(world.clock.now())
    single, by_id = world.token(iat=now), world.token(iat=now, jti="by-id")
    subject = [world.token(iat=now + ahead, sub="gone") for ahead in (-60, 0, 2)]
    later = world.token(iat=now + 3, sub="gone")
    posts = [("TOKEN", {"token": single}), ("TOKEN", {"jti": "by-id"}), ("CLAIM", {"claims": {"sub": "gone"}})]
    answers = [await service.post(kind, data) for kind, data in posts]
    promised = max(answer.json["plan_b_by"] for answer in answers)
    world.clock.advance(POLL_SECONDS - phase)
    await run_validator(world, service, validator, 30)
    assert world.clock.now() <= promised + POLL_SECONDS
    for token in (single, by_id, *subject):
        assert validator.refuses(token, payload(token))
    assert not validator.refuses(later, payload(later))
    assert not validator.refuses(single + "x", payload(world.token()))


@pytest.mark.parametrize(
    ("kind", "data", "more"),
    [("CLAIM", {"claims": {"sub": "jdoe"}}, {}), ("GLOBAL", {}, {"confirm": True})],
)
async def test_an_earlier_cut_off_that_is_posted_later_takes_nothing_back(world, service, kind, data, more):
    validator = PlanBTokeninfo(salt=SALT)
    await service.post(kind, data, **more)
    token, later = world.token(iat=NOW), world.token(iat=NOW + 60)
    await run_validator(world, service, validator, 60)
    assert validator.refuses(token, payload(token))
    await service.post(kind, data | {"issued_before": NOW - 1000}, **more)
    for _ in range(4):
        await run_validator(world, service, validator, 0)
        assert validator.refuses(token, payload(token)), "it keeps one cut-off a hash: the last that it reads"
    assert not validator.refuses(later, payload(later))


async def test_a_revoked_token_whose_id_is_somebodys_name_takes_nothing_back(world, service):
    validator = PlanBTokeninfo(salt=SALT)
    await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    subject, single = world.token(iat=NOW), world.token(iat=NOW - 600, jti="jdoe", sub="other")
    await run_validator(world, service, validator, 60)
    await service.post("TOKEN", {"token": single})
    await run_validator(world, service, validator, 60)
    for token in (subject, single):
        assert validator.refuses(token, payload(token))


@pytest.mark.parametrize("rule", [{"client_id": "basket"}, {"azp": "basket"}, {"azp": "basket", "sub": "jdoe"}])
@pytest.mark.parametrize("left_out", ["azp", "client_id", "nothing"])
async def test_a_rule_on_a_client_hits_tokens_with_either_spelling_of_it(world, service, rule, left_out):
    validator = PlanBTokeninfo(salt=SALT)
    await service.post("CLAIM", {"claims": rule})
    await run_validator(world, service, validator, 60)
    token = world.token(iat=NOW, **({} if left_out == "nothing" else {left_out: None}))
    other = world.token(iat=NOW, client_id="checkout", azp="checkout")
    assert validator.refuses(token, payload(token))
    assert not validator.refuses(other, payload(other))


async def test_contract_4_6_an_unchanged_validator_forgets_nothing_in_a_refresh(world, service):
    validator = PlanBTokeninfo(salt=SALT)
    early, late = world.token(iat=NOW - 60), world.token(iat=NOW - 60)
    await service.post("TOKEN", {"token": early})
    await run_validator(world, service, validator, 90)
    await service.post("TOKEN", {"token": late})
    await notify(world, service, f"?value={NOW - 3600}")
    await run_validator(world, service, validator, 90)
    assert validator.refuses(early, payload(early))
    assert validator.refuses(late, payload(late))


async def test_an_unchanged_validator_survives_what_may_be_revoked(world, service):
    validator = PlanBTokeninfo(salt=SALT)
    for claims in ({"sub": "a", "realm": "/x"}, {"azp": "a"}, {"jti": "x"}, {"team": "shop"}):
        await service.post("CLAIM", {"claims": claims})
    world.clock.advance(10)
    await run_validator(world, service, validator, 30)
    token = world.token()
    assert not validator.refuses(token, payload(token))


# --- REFRESH_FROM -----------------------------------------------------------------------------------------


async def notify(world, service, query, scope="revocation.admin"):
    return await service.call("POST", f"/notifications/REFRESH_FROM{query}", token=world.caller(scope))


async def test_a_notification_is_shown_when_every_replica_has_it_and_lists_everything_again(world, service):
    await service.post("TOKEN", {"token": world.token(iat=NOW - 60)})
    world.clock.advance(100)
    answer = await notify(world, service, f"?value={NOW - 1000}")
    assert answer.status == 201
    effective = NOW + 100 + 3
    assert answer.json == {"REFRESH_FROM": NOW - 1000, "REFRESH_TIMESTAMP": effective}
    position = NOW + 100
    before = await service.plan_b(position)
    assert (before["meta"]["REFRESH_FROM"], before["revocations"]) == (None, [])
    world.clock.advance(3)
    after = await service.plan_b(position)
    assert after["meta"] == {
        "MAX_TIME_DELTA": MONTH,
        "REFRESH_FROM": NOW - 1000,
        "REFRESH_TIMESTAMP": effective,
    }
    assert [row["revoked_at"] for row in after["revocations"]] == [effective, effective]
    assert (await service.plan_b(effective))["revocations"] == []


async def test_rows_from_before_the_notifications_value_keep_their_place(world, service):
    await service.post("TOKEN", {"token": world.token(iat=NOW - 60)})
    world.clock.advance(100)
    await notify(world, service, f"?value={NOW + 50}")
    world.clock.advance(10)
    assert (await service.plan_b(NOW + 60))["revocations"] == []
    assert len((await service.plan_b())["revocations"]) == 2


async def test_contract_4_6_a_second_and_different_value_is_refused_unless_forced(world, service):
    assert (await notify(world, service, f"?value={NOW - 10}")).status == 201
    again = await notify(world, service, f"?value={NOW - 10}")
    assert (again.status, again.json["REFRESH_TIMESTAMP"]) == (200, NOW + 3)
    refused = await notify(world, service, f"?value={NOW - 20}")
    assert refused.status == 409
    assert "force=true" in refused.json["detail"]
    world.clock.advance(1)
    assert (await notify(world, service, f"?value={NOW - 20}&force=true")).status == 201
    world.clock.advance(5)
    assert (await service.plan_b())["meta"]["REFRESH_FROM"] == NOW - 20


async def test_a_notification_is_over_after_the_retention(world, service):
    await notify(world, service, f"?value={NOW - 10}")
    world.clock.advance(MONTH + 10)
    await service.feed.read()
    assert (await service.plan_b())["meta"]["REFRESH_FROM"] is None
    assert (await notify(world, service, f"?value={NOW - 20}")).status == 201


@pytest.mark.parametrize(
    "query", ["", "?value=", "?value=x", f"?value={NOW + 60}", "?value=0", "?value=-5", "?value=1&force=1"]
)
async def test_notifications_that_make_no_sense_are_refused(world, service, query):
    assert (await notify(world, service, query)).status == 400


async def test_notifications_are_for_administrators(world, service):
    assert (await notify(world, service, f"?value={NOW}", scope="revocation.write")).status == 403
    answer = await service.call("POST", f"/notifications/REFRESH_FROM?value={NOW}")
    assert answer.status == 401


async def test_a_notification_changes_nothing_for_our_own_readers(world, service):
    await notify(world, service, f"?value={NOW}")
    assert (await service.snapshot()).entries == ()
