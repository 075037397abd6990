"""`POST /revocations`: what is answered, what is stored, and what it hits."""

import asyncio
import json

import pytest

from tests.services.revocation.conftest import FOREIGN, ISSUER, LIFETIME, NOW
from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jws import twin
from tokenry.revocation.entries import Kind

BOUND = 31  # seconds, rounded up from 0.5 + 28 + 2
CUTOFF = NOW + 3  # floor(now) + 1 + 2 s of skew


def hits(world, service, token):
    return service.feed.revocations.hits(world.judged(token), now=world.clock.now())


async def test_a_verified_token_is_kept_until_it_has_expired_and_two_minutes_more(world, service):
    token = world.token(iat=NOW - 60, exp=NOW + 600)
    answer = await service.post("TOKEN", {"token": token})
    assert answer.status == 201
    assert answer.json == {
        "id": answer.json["id"],
        "type": "TOKEN",
        "revoked_at": NOW,
        "in_force_until": NOW + 720,
        "propagated_by": NOW + BOUND,
        "plan_b_by": NOW + 30 + BOUND,
    }
    entries = (await service.snapshot()).entries
    assert {entry.kind for entry in entries} == {Kind.JTI, Kind.TOKEN}
    assert {entry.in_force_until for entry in entries} == {NOW + 720}
    assert hits(world, service, token)
    assert not hits(world, service, world.token())


async def test_the_replica_that_took_a_post_refuses_the_token_at_once(world, service):
    token = world.caller()
    assert (await service.call("GET", "/validators", token=token)).status == 200
    assert (await service.post("TOKEN", {"token": token})).status == 201
    assert (await service.call("GET", "/validators", token=token)).status == 401


async def test_what_a_token_says_of_its_expiry_cannot_keep_an_entry_for_ever(world, service):
    answer = await service.post("TOKEN", {"token": world.token(exp=2**31)})
    assert answer.json["in_force_until"] == NOW + LIFETIME + 120 + 60


async def test_D41_revoking_an_expired_token_is_taken_and_listed_nowhere(world, service):
    token = world.token(iat=NOW - 2 * LIFETIME, exp=NOW - LIFETIME)
    for _ in range(2):
        assert (await service.post("TOKEN", {"token": token})).status == 201
    assert (await service.snapshot()).entries == ()
    assert (await service.plan_b())["revocations"] == []


async def test_D42_revoking_one_token_again_and_again_keeps_one_record(world, service):
    token = world.token()
    first = await service.post("TOKEN", {"token": token})
    for _ in range(20):
        world.clock.advance(1)
        again = await service.post("TOKEN", {"token": token})
        assert (again.status, again.json) == (200, first.json)
    assert world.store.appended == 1
    assert len((await service.snapshot()).entries) == 2


async def test_R08_D33_the_twin_of_a_token_revokes_the_token_and_the_other_way_round(world, service):
    token = world.token()
    assert (await service.post("TOKEN", {"token": twin(token)})).status == 201
    assert hits(world, service, token)
    assert (await service.post("TOKEN", {"token": token})).status == 200
    assert world.store.appended == 1


@pytest.mark.parametrize("respelt", ["{}=", "{}==", "{} ", " {}", "{}\n", "{}."])
async def test_R08_other_spellings_of_a_token_are_refused_as_malformed(world, service, respelt):
    answer = await service.post("TOKEN", {"token": respelt.format(world.token())})
    assert answer.status == 400
    assert world.store.appended == 0


async def test_a_token_whose_key_is_not_at_hand_is_revoked_by_its_fingerprint_alone(world, service):
    token = world.token(key=PrivateKey.generate(), exp=NOW + 60)
    answer = await service.post("TOKEN", {"token": token})
    assert answer.status == 201
    assert answer.json["in_force_until"] == NOW + LIFETIME + 120
    (entry,) = (await service.snapshot()).entries
    assert entry.kind is Kind.TOKEN
    assert hits(world, service, token)
    assert world.keys.refetches == 1


async def test_a_key_that_appears_when_asked_for_is_used(world, service):
    world.keys.late = [PrivateKey.generate()]
    answer = await service.post("TOKEN", {"token": world.token(key=world.keys.late[0], exp=NOW + 60)})
    assert answer.json["in_force_until"] == NOW + 180


async def test_a_token_is_revoked_by_its_fingerprint_while_the_issuer_is_away(world, service):
    world.keys.away = True
    assert (await service.post("TOKEN", {"token": world.token(key=PrivateKey.generate())})).status == 201


async def test_a_token_of_another_configured_issuer_is_revoked_by_its_fingerprint(world, service):
    token = world.token(iss=FOREIGN)
    assert (await service.post("TOKEN", {"token": token})).status == 201
    assert hits(world, service, token)


@pytest.fixture
def foreign_key(world):
    key = PrivateKey.generate()
    world.other_keys.held = [key]
    return key


async def test_a_token_of_another_issuer_is_verified_with_that_issuers_key(world, service, foreign_key):
    token = world.token(iss=FOREIGN, jti="theirs", exp=NOW + 60, key=foreign_key)
    answer = await service.post("TOKEN", {"token": token})
    assert (answer.status, answer.json["in_force_until"]) == (201, NOW + 60 + 120), "its own end is believed"
    assert hits(world, service, token)
    other_spelling = world.token(iss=FOREIGN, jti="theirs", key=foreign_key)
    assert hits(world, service, other_spelling), "by its id, too"
    assert not hits(world, service, world.token(jti="theirs"))


async def test_a_token_of_another_issuer_that_its_key_did_not_sign_is_refused(world, service, foreign_key):
    token, other = (world.token(iss=FOREIGN, key=foreign_key) for _ in range(2))
    mixed = token.rpartition(".")[0] + "." + other.rpartition(".")[2]
    assert (await service.post("TOKEN", {"token": mixed})).status == 400
    assert not hits(world, service, token)


async def test_the_key_of_one_issuer_does_not_verify_for_another(world, service, foreign_key):
    answer = await service.post("TOKEN", {"token": world.token(jti="ours", exp=NOW + 60, key=foreign_key)})
    assert answer.json["in_force_until"] == NOW + LIFETIME + 120, "not verified: kept as long as any token could live"
    by_their_kid = world.token(iss=FOREIGN, exp=NOW + 60, key=world.key)
    answer = await service.post("TOKEN", {"token": by_their_kid})
    assert answer.json["in_force_until"] == NOW + LIFETIME + 120


async def test_a_key_of_another_issuer_that_is_new_is_fetched_once(world, service):
    late = PrivateKey.generate()
    world.other_keys.late = [late]
    answer = await service.post("TOKEN", {"token": world.token(iss=FOREIGN, exp=NOW + 60, key=late)})
    assert (answer.json["in_force_until"], world.other_keys.refetches, world.keys.refetches) == (NOW + 180, 1, 0)


async def test_while_another_issuer_is_away_its_tokens_are_revoked_by_fingerprint(world, service):
    world.other_keys.away = True
    token = world.token(iss=FOREIGN)
    assert (await service.post("TOKEN", {"token": token})).status == 201
    assert hits(world, service, token)
    assert (await service.get("/readyz")).status == 200


async def test_tokens_of_another_issuer_are_revoked_but_do_not_authenticate(world, service, foreign_key):
    caller = world.token(iss=FOREIGN, scope="revocation.admin", key=foreign_key)
    answer = await service.call("POST", "/revocations", token=caller, body={"type": "KEY", "data": {"kid": "x"}})
    assert answer.status == 401
    own = world.token(iss=FOREIGN, key=foreign_key)
    assert (await service.call("POST", "/oauth2/revoke", token=world.token(), form={"token": own})).status == 200
    assert not hits(world, service, own), "another issuer's client of the same name is another client"


def unsigned(claims, header=None):
    header = {"alg": "none", "typ": "at+jwt"} if header is None else header
    return f"{b64url_encode(dump_json(header))}.{b64url_encode(dump_json(claims))}."


@pytest.mark.parametrize(
    "make",
    [
        lambda world: "abc.def.ghi",
        lambda world: "x",
        lambda world: "",
        lambda world: 5,
        lambda world: None,
        lambda world: "x" * 9000,
        lambda world: unsigned(world.claims()),
        lambda world: unsigned(world.claims(), {"alg": "ES256", "kid": world.key.kid}) + "AAAA",
        lambda world: world.token(iss="https://elsewhere.example.org"),
        lambda world: world.token(iss=None),
        lambda world: world.token(iss=[ISSUER]),
        lambda world: world.token()[:-5] + "AAAAA",
        lambda world: world.token(header={"crit": ["x"], "x": 1}),
    ],
)
async def test_D74_what_can_never_match_is_refused_and_not_stored(world, service, make):
    answer = await service.post("TOKEN", {"token": make(world)})
    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.json["status"] == 400
    assert world.store.appended == 0


async def test_a_signature_by_another_key_of_the_issuer_is_refused(world, service):
    head, _, tail = world.token().rpartition(".")
    other = world.token(key=world.standby).rpartition(".")[2]
    assert tail != other
    assert (await service.post("TOKEN", {"token": f"{head}.{other}"})).status == 400


async def test_a_token_is_revoked_by_its_id(world, service):
    token = world.token(jti="abc")
    answer = await service.post("TOKEN", {"jti": "abc", "expires_at": NOW + 5})
    assert answer.status == 201
    assert answer.json["in_force_until"] == NOW + LIFETIME + 120, "an expiry that nobody signed ends nothing early"
    assert hits(world, service, token)
    assert not hits(world, service, world.token(jti="abc", iss=FOREIGN))
    assert (await service.post("TOKEN", {"jti": "abc"})).status == 200


async def test_an_id_belongs_to_its_issuer(world, service):
    assert (await service.post("TOKEN", {"jti": "abc", "iss": FOREIGN})).status == 201
    assert hits(world, service, world.token(jti="abc", iss=FOREIGN))
    assert not hits(world, service, world.token(jti="abc"))
    assert (await service.post("TOKEN", {"jti": "abc", "iss": "https://elsewhere.example.org"})).status == 400


async def test_plan_bs_cut_off_of_a_token_is_accepted_and_ignored(world, service):
    token = world.token()
    assert (await service.post("TOKEN", {"token": token, "issued_before": 1})).status == 201
    assert hits(world, service, token)


# --- claims -----------------------------------------------------------------------------------------------


async def test_R09_D36_a_rule_hits_tokens_of_its_own_second_and_of_clocks_ahead_and_none_after(world, service):
    answer = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    assert answer.status == 201
    assert answer.json["in_force_until"] == CUTOFF + LIFETIME + 120
    assert answer.json["plan_b_by"] == CUTOFF + 2 + 30 + BOUND
    for iat in (NOW - 5, NOW, NOW + 2):
        assert hits(world, service, world.token(iat=iat))
    assert not hits(world, service, world.token(iat=CUTOFF))


async def test_D35_a_rule_on_the_subject_leaves_the_client_of_that_name_alone(world, service):
    await service.post("CLAIM", {"claims": {"sub": "a"}})
    assert hits(world, service, world.token(sub="a"))
    assert not hits(world, service, world.token(sub="b", client_id="a", azp="a"))


async def test_R10_a_rule_hits_only_tokens_with_every_name_and_just_that_value(world, service):
    await service.post("CLAIM", {"claims": {"sub": "a", "realm": "customers"}})
    assert hits(world, service, world.token(sub="a", realm="/customers"))
    for other in (
        {"sub": "a"},
        {"realm": "/customers"},
        {"sub": "a", "realm": None},
        {"sub": "A", "realm": "/customers"},
    ):
        assert not hits(world, service, world.token(**other))


async def test_R11_D38_of_two_cut_offs_the_later_one_counts_whichever_came_last(world, service):
    await service.post("CLAIM", {"claims": {"sub": "jdoe"}, "issued_before": NOW - 10})
    await service.post("CLAIM", {"claims": {"sub": "jdoe"}, "issued_before": NOW - 100})
    assert hits(world, service, world.token(iat=NOW - 50))
    assert not hits(world, service, world.token(iat=NOW - 10))


async def test_D39_of_a_rule_for_a_realm_and_one_for_a_subject_the_stricter_counts(world, service):
    await service.post("CLAIM", {"claims": {"realm": "/services"}, "issued_before": NOW - 100})
    await service.post("CLAIM", {"claims": {"sub": "jdoe"}, "issued_before": NOW - 10})
    assert hits(world, service, world.token(iat=NOW - 50))


@pytest.mark.parametrize("name", ["client_id", "azp"])
async def test_azp_and_client_id_are_one_name(world, service, name):
    await service.post("CLAIM", {"claims": {name: "basket"}})
    assert hits(world, service, world.token(azp=None))
    assert hits(world, service, world.token(client_id=None))
    (entry,) = (await service.snapshot()).entries
    assert entry.names == ("client_id",)
    rows = (await service.plan_b())["revocations"]
    assert sorted(row["data"]["names"] for row in rows) == [["azp"], ["client_id"]]
    assert len({row["data"]["value_hash"] for row in rows}) == 1


async def test_the_same_rule_with_the_same_cut_off_is_the_same_revocation(world, service):
    first = await service.post("CLAIM", {"claims": {"sub": "a"}, "issued_before": NOW - 5})
    world.clock.advance(10)
    again = await service.post("CLAIM", {"issued_before": NOW - 5, "claims": {"sub": "a"}})
    assert (first.status, again.status) == (201, 200)
    assert again.json == first.json


async def test_a_rule_without_a_cut_off_is_a_new_and_later_one_each_second(world, service):
    first = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    same_second = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    world.clock.advance(1)
    later = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    assert [first.status, same_second.status, later.status] == [201, 200, 201]
    assert later.json["id"] != first.json["id"]
    assert hits(world, service, world.token(iat=CUTOFF))


@pytest.mark.parametrize(
    "cutoff", [NOW + 3600, NOW + 6, "1460000000", -1, 0, 1e20, 1.5, True, None, NOW - LIFETIME - 120]
)
async def test_D72_cut_offs_that_make_no_sense_are_refused(service, cutoff):
    for kind, data in (("CLAIM", {"claims": {"sub": "a"}}), ("GLOBAL", {"confirm": True})):
        answer = await service.post(kind, {**data, "issued_before": cutoff})
        assert answer.status == 400
    assert (await service.snapshot()).entries == ()


@pytest.mark.parametrize("cutoff", [NOW + 5, NOW, NOW - LIFETIME - 119])
async def test_cut_offs_up_to_the_bounds_are_taken(service, cutoff):
    answer = await service.post("CLAIM", {"claims": {"sub": "a"}, "issued_before": cutoff})
    assert answer.status == 201
    assert answer.json["in_force_until"] == cutoff + LIFETIME + 120


@pytest.mark.parametrize(
    "claims",
    [
        {},
        None,
        [],
        "sub",
        {"sub": ["a"]},
        {"sub": 5},
        {"sub": ""},
        {"sub": None},
        {"sub": True},
        {"iat": "1"},
        {"exp": "1"},
        {"aud": "orders"},
        {"scope": "a"},
        {"email": "a"},
        {"": "a"},
        {"sub": "a", "client_id": "b", "azp": "c"},
        {"sub": "a|b"},
        {"sub": "x" * 1025},
        {"sub": "é" * 513},
        {f"c{n}": "x" for n in range(9)},
    ],
)
async def test_D73_rules_that_no_validator_could_match_are_refused(service, claims):
    assert (await service.post("CLAIM", {"claims": claims})).status == 400


async def test_a_value_with_a_bar_is_taken_when_it_is_kept_out_of_plan_bs_list(world, service):
    answer = await service.post("CLAIM", {"claims": {"sub": "a|b"}, "plan_b": False})
    assert answer.status == 201
    assert answer.json["plan_b_by"] is None
    assert hits(world, service, world.token(sub="a|b"))
    assert (await service.plan_b())["revocations"] == []


async def test_configured_claims_may_be_revoked_by(world, service):
    assert (await service.post("CLAIM", {"claims": {"team": "shop"}})).status == 201
    assert hits(world, service, world.token(team="shop"))


async def test_a_block_hits_tokens_minted_after_the_cut_off_until_it_is_over(world, service):
    answer = await service.post("CLAIM", {"claims": {"sub": "jdoe"}, "block_until": NOW + 600})
    assert answer.status == 201
    late = world.token(iat=NOW + 100)
    assert hits(world, service, late)
    world.clock.advance(600)
    assert not hits(world, service, late)


async def test_a_rule_is_in_force_as_long_as_its_block(service):
    answer = await service.post("CLAIM", {"claims": {"sub": "jdoe"}, "block_until": NOW + 86400})
    assert answer.json["in_force_until"] == NOW + 86400 + 120


@pytest.mark.parametrize(
    "data",
    [
        {"claims": {"sub": "a"}, "block_until": NOW},
        {"claims": {"sub": "a"}, "block_until": NOW + 86401},
        {"claims": {"sub": "a"}, "block_until": "soon"},
        {"claims": {"team": "a"}, "block_until": NOW + 60},
        {"claims": {"jti": "a"}, "block_until": NOW + 60},
    ],
)
async def test_blocks_beyond_a_day_or_on_other_claims_are_refused(service, data):
    assert (await service.post("CLAIM", data)).status == 400


# --- keys and everything ----------------------------------------------------------------------------------


async def test_a_revoked_key_takes_all_its_tokens_along_and_is_never_forgotten(world, service):
    answer = await service.post("KEY", {"kid": world.standby.kid})
    assert answer.status == 201
    assert answer.json["in_force_until"] is None
    assert hits(world, service, world.token(key=world.standby))
    assert not hits(world, service, world.token())
    world.clock.advance(hours=24 * 365)
    await service.feed.read()
    assert len((await service.snapshot()).entries) == 1


async def test_the_last_key_of_the_issuer_is_not_revoked(world, service):
    assert (await service.post("KEY", {"kid": world.standby.kid})).status == 201
    answer = await service.post("KEY", {"kid": world.key.kid})
    assert answer.status == 409
    assert not hits(world, service, world.token())


async def test_a_key_that_is_not_published_may_be_revoked(service):
    assert (await service.post("KEY", {"kid": "gone"})).status == 201
    assert (await service.post("KEY", {"kid": "theirs", "iss": FOREIGN})).status == 201
    assert (await service.post("KEY", {"kid": "x", "iss": "https://elsewhere.example.org"})).status == 400


async def test_everything_is_revoked_only_when_confirmed(world, service):
    assert (await service.post("GLOBAL", {})).status == 400
    assert (await service.post("GLOBAL", {}, confirm=False)).status == 400
    assert (await service.post("GLOBAL", {}, confirm="yes")).status == 400
    assert not hits(world, service, world.token())
    assert (await service.post("GLOBAL", {}, confirm=True)).status == 201
    assert hits(world, service, world.token())
    assert not hits(world, service, world.token(iat=CUTOFF))


async def test_the_confirmation_may_stand_within_data(world, service):
    assert (await service.post("GLOBAL", {"issued_before": NOW - 10, "confirm": True})).status == 201


# --- the request itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"{}",
        b'{"type":"TOKEN"}',
        b'{"data":{}}',
        b'{"type":"TOKEN","data":[]}',
        b'{"type":"token","data":{"jti":"a"}}',
        b'{"type":"EVERYTHING","data":{}}',
        b'{"type":["TOKEN"],"data":{"jti":"a"}}',
        b'{"type":"TOKEN","data":{}}',
        b'{"type":"TOKEN","data":{"jti":"a"},"data":{"jti":"b"}}',
        b'{"type":"TOKEN","data":{"jti":"a","token_hash":"x"}}',
        b'{"type":"TOKEN","data":{"jti":"a"},"force":true}',
        b'{"type":"TOKEN","data":{"jti":"a","token":"b"}}',
        b'{"type":"TOKEN","data":{"jti":"a","expires_at":"1"}}',
        b'{"type":"TOKEN","data":{"jti":"a"},"reason":5}',
        b'{"type":"TOKEN","data":{"jti":"a"},"reason":"' + b"x" * 501 + b'"}',
        b'{"type":"TOKEN","data":{"jti":"a","reason":"b"},"reason":"c"}',
        b'{"type":"TOKEN","data":{"jti":"\\ud800"}}',
        b'{"type":"TOKEN","data":{"jti":"\xff"}}',
        b"\xef\xbb\xbf" + b'{"type":"TOKEN","data":{"jti":"a"}}',
        b'{"type":"KEY","data":{}}',
        b'{"type":"KEY","data":{"kid":5}}',
        b'{"type":"CLAIM","data":{"claims":{"sub":"a"},"plan_b":"no"}}',
        b"[" * 5000,
    ],
)
async def test_D71_what_is_not_understood_is_refused_whole(world, service, raw):
    answer = await service.call("POST", "/revocations", token=world.caller("revocation.admin"), raw=raw)
    assert answer.status == 400
    assert set(answer.json) >= {"type", "title", "status", "detail"}
    assert world.store.appended == 0


async def test_a_body_above_the_limit_is_refused(world, service):
    answer = await service.call(
        "POST", "/revocations", token=world.caller("revocation.admin"), raw=b" " * (64 * 1024 + 1)
    )
    assert answer.status == 413


async def test_contract_4_11_a_refusal_repeats_nothing_of_the_request(world, service):
    for data in (
        {"claims": {"sub": "canary|value"}},
        {"claims": {"canary": "x"}},
        {"claims": {"sub": "x"}, "canary": 1},
    ):
        assert b"canary" not in (await service.post("CLAIM", data)).body


# --- retries ----------------------------------------------------------------------------------------------


async def test_a_retry_with_its_idempotency_key_moves_no_cut_off(world, service):
    key = {"Idempotency-Key": "k-1"}
    first = await service.post("CLAIM", {"claims": {"sub": "jdoe"}}, headers=key)
    world.clock.advance(60)
    again = await service.post("CLAIM", {"claims": {"sub": "jdoe"}}, headers=key)
    assert (first.status, again.status) == (201, 200)
    assert again.json == first.json
    assert not hits(world, service, world.token(iat=CUTOFF))


async def test_an_idempotency_key_with_another_body_is_refused(service):
    key = {"Idempotency-Key": "k-1"}
    await service.post("CLAIM", {"claims": {"sub": "jdoe"}}, headers=key)
    assert (await service.post("CLAIM", {"claims": {"sub": "other"}}, headers=key)).status == 422


async def test_idempotency_keys_of_two_callers_are_two_keys(world, service):
    key, body = {"Idempotency-Key": "k-1"}, {"type": "TOKEN", "data": {"jti": "a"}}
    other = {"type": "TOKEN", "data": {"jti": "b"}}
    for sub, sent in (("one", body), ("two", other)):
        answer = await service.call("POST", "/revocations", token=world.caller(sub=sub), body=sent, headers=key)
        assert answer.status == 201


async def test_a_retry_after_a_lost_answer_finishes_what_was_begun(world, service):
    key = {"Idempotency-Key": "k-1"}
    world.store.loses_answers = True
    lost = await service.post("CLAIM", {"claims": {"sub": "jdoe"}}, headers=key)
    assert lost.status == 503
    world.store.loses_answers = False
    world.clock.advance(30)
    again = await service.post("CLAIM", {"claims": {"sub": "jdoe"}}, headers=key)
    assert again.status == 200
    assert len((await service.snapshot()).entries) == 1
    assert not hits(world, service, world.token(iat=CUTOFF)), "the retry has the cut-off of the first attempt"


@pytest.mark.parametrize("value", ["", "x" * 256, "a b", "ä"])
async def test_malformed_idempotency_keys_are_refused(service, value):
    answer = await service.post("TOKEN", {"jti": "a"}, headers={"Idempotency-Key": value})
    assert answer.status == 400


async def test_an_idempotency_key_lasts_a_day(world, service):
    key = {"Idempotency-Key": "k-1"}
    await service.post("CLAIM", {"claims": {"sub": "jdoe"}}, headers=key)
    world.clock.advance(24 * 3600 + 1)
    await service.feed.read()
    assert (await service.post("CLAIM", {"claims": {"sub": "other"}}, headers=key)).status == 201


async def test_two_posts_at_once_are_one_revocation(world, service):
    token = world.token()
    answers = await asyncio.gather(*(service.post("TOKEN", {"token": token}) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1


# --- outages ----------------------------------------------------------------------------------------------


async def test_R12_an_entry_stays_as_long_as_any_token_that_it_can_hit(world, service):
    own = world.token()
    token = await service.post("TOKEN", {"token": own})
    unknown = await service.post("TOKEN", {"jti": "never seen"})
    rule = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    now = int(world.clock.now())
    assert token.json["in_force_until"] >= now + LIFETIME + 5  # its own end, and the largest leeway of a validator
    # What is not known lives as long as the longest token that exists now.
    assert unknown.json["in_force_until"] >= now + LIFETIME + 5
    assert rule.json["in_force_until"] >= now + LIFETIME + 5
    world.clock.advance(seconds=LIFETIME)
    await service.feed.read()
    assert len((await service.snapshot()).entries) >= 3


async def test_R12_a_store_that_forgets_earlier_is_refused(world):
    world.store.__class__ = type("Forgetful", (type(world.store),), {"retention_seconds": LIFETIME // 2})
    async with world.replica(ready=False) as service:
        answer = await service.get("/readyz?verbose")
        while "TOKENRY_MAX_TOKEN_LIFETIME" not in answer.body.decode():
            answer = await service.get("/readyz?verbose")
        assert answer.status == 503
        assert (await service.post("TOKEN", {"jti": "a"})).status == 503


async def test_R06_what_is_not_stored_is_503_and_not_half_in_force(world, service):
    token = world.token()
    world.store.down = True
    answer = await service.post("TOKEN", {"token": token})
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert b"10.1.2.3" not in answer.body
    assert not hits(world, service, token)
    world.store.down = False
    assert (await service.post("TOKEN", {"token": token})).status == 201
    assert hits(world, service, token)


async def test_R06_an_answer_of_the_store_that_was_lost_is_503_and_the_retry_is_safe(world, service):
    token = world.token()
    world.store.loses_answers = True
    assert (await service.post("TOKEN", {"token": token})).status == 503
    world.store.loses_answers = False
    assert (await service.post("TOKEN", {"token": token})).status == 200
    assert len((await service.snapshot()).entries) == 2


async def test_F47_a_service_whose_clock_is_off_takes_what_its_clock_does_not_decide(world, service):
    world.store.clock_offset = -1.5
    for kind, data in (("CLAIM", {"claims": {"sub": "jdoe"}}), ("GLOBAL", {"confirm": True})):
        refused = await service.post(kind, data)
        assert refused.status == 503
        assert "issued_before" in refused.json["detail"]
        assert (await service.post(kind, {**data, "issued_before": NOW - 5})).status == 201
    assert (await service.post("TOKEN", {"token": world.token()})).status == 201
    assert (await service.get("/readyz")).status == 503
    world.store.clock_offset = 0.9
    assert (await service.post("CLAIM", {"claims": {"sub": "jdoe"}})).status == 201


# --- dry run ----------------------------------------------------------------------------------------------


async def test_F57_a_dry_run_changes_nothing_and_says_what_is_known(world, service):
    answer = await service.post("CLAIM", {"claims": {"sub": "operator"}}, path="?dry_run=true")
    assert answer.status == 200
    assert answer.json == {
        "dry_run": True,
        "type": "CLAIM",
        "issued_before": CUTOFF,
        "in_force_until": CUTOFF + LIFETIME + 120,
        "clients": None,
        "live_tokens": None,
        "all_live_tokens": None,
        "as_of": None,
        "complete": False,
        "needs_second_person": False,
        "hits_caller": True,
    }
    other = await service.post("CLAIM", {"claims": {"sub": "jdoe"}}, path="?dry_run=true")
    assert other.json["hits_caller"] is False
    assert (await service.post("GLOBAL", {}, path="?dry_run=true")).json["hits_caller"] is True
    assert world.store.appended == 0
    assert (await service.snapshot()).entries == ()


async def test_a_dry_run_that_is_misspelt_revokes_nothing(world, service):
    for value in ("1", "True", "yes", ""):
        assert (await service.post("CLAIM", {"claims": {"sub": "a"}}, path=f"?dry_run={value}")).status == 400
    assert world.store.appended == 0


async def test_a_dry_run_needs_the_same_permission(service):
    answer = await service.post("KEY", {"kid": "x"}, path="?dry_run=true", scope="revocation.write")
    assert answer.status == 403


# --- what is kept -----------------------------------------------------------------------------------------


async def test_contract_4_7_nothing_that_is_stored_or_published_holds_a_token_or_a_value(world, service):
    token = world.token(jti="canary-jti", sub="canary-sub")
    await service.post("TOKEN", {"token": token}, reason="leaked", ticket="SEC-1")
    await service.post("TOKEN", {"jti": "canary-id"})
    await service.post("CLAIM", {"claims": {"sub": "canary-value", "team": "canary-team"}})
    kept = [record.body for record in (await world.store.read(None)).records]
    seen = [(await service.get(path)).body for path in ("/revocations?from=0", "/revocations/snapshot", "/metrics")]
    everything = b"".join(kept + seen) + json.dumps(world.audit).encode()
    assert b"canary" not in everything
    assert token.encode() not in everything
    assert token.rpartition(".")[2].encode() not in everything
