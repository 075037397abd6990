"""What was wrong with Plan B's revocations and must not come back: one group of tests for each defect."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.planb_tokeninfo import PlanBTokeninfo, ValidatorDied
from tests.support.revocation_entries import (
    LIFETIME,
    NOW,
    SALT,
    UNTIL,
    all_entry,
    claims_entry,
    jti_entry,
    judged,
    list_of,
    token_entry,
)
from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.revocation.fingerprints import claims_fingerprint, derive_list_salt, plan_b_hash
from tokenry.revocation.planb import PlanBList, PlanBRow, claims_rows, jti_rows, max_time_delta
from tokenry.secret import Secret

PLAN_B_SALT = "seasaltisthebest"


def ask(rows, planb, *, now):
    revocations = PlanBList(rows, now=now, skew=2.0, retention=LIFETIME + 120)
    planb.take(revocations.body(after=planb.question(now), now=now), now=now)


# --- a revoked token revived by another spelling of its signature ---


@pytest.mark.parametrize("signature", ["AAAA", "AAAB", "AAAA=", "twin", ""])
def test_contract_4_1_the_spelling_of_the_signature_plays_no_part(signature):
    raw = f"aGVhZGVy.cGF5bG9hZA.{signature}"
    token = judged(jti=None, signing_input=raw.rpartition(".")[0])
    assert list_of([token_entry("aGVhZGVy.cGF5bG9hZA")]).hits(token, now=NOW) is not None


def test_contract_4_1_a_plan_b_validator_refuses_the_other_spelling_by_the_id():
    planb = PlanBTokeninfo(salt=PLAN_B_SALT)
    ask(jti_rows("j", issued_before=NOW - 4, revoked_at=NOW, salt=PLAN_B_SALT), planb, now=NOW + 1)
    assert planb.refuses("h.p.respelled", {"iat": NOW - 5, "jti": "j"})


# --- a claims rule that hits by value alone, or with a name missing, or ambiguously ---


def test_contract_4_2_a_rule_does_not_hit_the_value_under_another_name():
    rule = list_of([claims_entry({"sub": "alice"})])
    assert rule.hits(judged(sub="alice"), now=NOW) is not None
    assert rule.hits(judged(sub="bob", client_id="alice", azp="alice", realm="alice"), now=NOW) is None


def test_contract_4_2_a_rule_does_not_hit_a_token_that_lacks_one_of_its_names():
    rules = list_of([claims_entry({"realm": "/r", "sub": "alice"}), claims_entry({"realm": "/q"}, entry_id="2")])
    assert rules.hits(judged(realm="/r"), now=NOW) is None
    assert rules.hits(judged(sub="alice"), now=NOW) is None


def test_contract_4_2_a_separator_in_a_value_makes_nothing_ambiguous():
    rule = list_of([claims_entry({"realm": "/r", "sub": "a|b"})])
    assert rule.hits(judged(realm="/r", sub="a|b"), now=NOW) is not None
    assert rule.hits(judged(realm="/r|a", sub="b"), now=NOW) is None
    with pytest.raises(ProtocolError):
        claims_rows({"realm": "/r", "sub": "a|b"}, issued_before=1, revoked_at=1, salt=PLAN_B_SALT)


# --- a rule on a claim that is no string takes validators down; an `iat` of the wrong type panics ---


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 5, None, True, 1e400, "\ud800"])
@pytest.mark.parametrize("name", ["sub", "aud", "jti", "root_jti", "client_id", "azp", "realm", "iss"])
def test_contract_4_3_no_claim_of_any_type_ends_a_judgement(name, value):
    names = "client_id" if name == "azp" else name
    revocations = list_of([claims_entry({names: "a"}), jti_entry("j"), all_entry(before=NOW - 500)])
    assert (
        revocations.hits(judged(**{"jti": "k"} | ({name: value} if name not in {"jti", "iss"} else {})), now=NOW)
        is None
    )


def test_contract_4_3_a_rule_on_such_a_claim_never_reaches_a_plan_b_validator():
    with pytest.raises(ProtocolError):
        claims_rows({"aud": "a"}, issued_before=NOW - 1, revoked_at=NOW, salt=PLAN_B_SALT)


def test_contract_4_3_the_model_of_a_plan_b_validator_does_end_on_such_a_claim():
    planb = PlanBTokeninfo(salt=PLAN_B_SALT)
    ask(claims_rows({"sub": "a"}, issued_before=NOW - 1, revoked_at=NOW, salt=PLAN_B_SALT), planb, now=NOW)
    with pytest.raises(ValidatorDied):
        planb.refuses("h.p.s", {"iat": NOW, "sub": ["a"]})


# --- a token without a usable time counted as never revoked ---


@pytest.mark.parametrize("root_iat", [None, "1", [], True, float("nan"), -(10**400)])
def test_contract_4_4_a_token_whose_time_cannot_be_read_is_hit_by_every_rule_that_fits(root_iat):
    rule = list_of([claims_entry({"sub": "x"}, before=1)])
    assert rule.hits(judged(sub="x", root_iat=root_iat), now=NOW) is not None


# --- a revocation lost because of the same second, a clock ahead, or a position that moved on ---


def test_contract_4_6_the_default_cut_off_reaches_past_the_running_second():
    cut_off = NOW + 1 + 2
    rule = list_of([claims_entry({"sub": "x"}, before=cut_off)])
    for iat in (NOW - 1, NOW, NOW + 1, NOW + 2):
        assert rule.hits(judged(sub="x", iat=iat), now=NOW) is not None
    assert rule.hits(judged(sub="x", iat=cut_off), now=NOW) is None


@pytest.mark.parametrize("clock_offset", [-2.0, 0.0, 2.0])
def test_contract_4_6_a_plan_b_validator_gets_a_cut_off_from_its_future_once_it_is_past(clock_offset):
    planb = PlanBTokeninfo(salt=PLAN_B_SALT, clock_offset=clock_offset)
    rows = claims_rows({"sub": "x"}, issued_before=NOW + 3, revoked_at=NOW, salt=PLAN_B_SALT)
    for now in (NOW, NOW + 30):
        ask(rows, planb, now=now)
    assert planb.refuses("h.p.s", {"iat": NOW + 2, "sub": "x"})


def test_contract_4_6_late_doubled_and_reordered_news_lose_nothing():
    news = [claims_entry({"sub": str(n)}, entry_id=str(n)) for n in range(5)] + [jti_entry("j")]
    revocations = list_of(news[3:])
    for entries in (news[:2], news, news[::-1], news[2:3]):
        revocations = revocations.merge(entries, now=NOW)
    assert all(revocations.hits(judged(sub=str(n)), now=NOW) for n in range(5))
    assert len(revocations) == 6


# --- a public default salt; wrong hashes under concurrency; unparsable rows skipped silently ---


def test_contract_4_8_there_is_no_default_salt():
    with pytest.raises(ConfigurationError):
        derive_list_salt(Secret(""))
    with pytest.raises(TypeError):
        plan_b_hash("jdoe")  # type: ignore[call-arg]


def test_contract_4_8_hashes_made_at_once_are_those_made_one_by_one():
    values = [str(number) for number in range(300)]

    def both(value):
        return plan_b_hash(value, salt=PLAN_B_SALT), claims_fingerprint([("sub", value)], salt=SALT)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(both, values)) == [both(value) for value in values]


def test_contract_4_8_a_stored_row_that_cannot_be_read_is_an_error():
    with pytest.raises(ProtocolError):
        PlanBRow.from_dict({"type": "CLAIM", "revoked_at": NOW, "data": {"names": ["sub"], "issued_before": NOW}})


# --- two retention times that disagree ---


def test_contract_4_9_a_list_keeps_an_entry_exactly_as_long_as_it_says():
    revocations = list_of([jti_entry("j"), claims_entry({"sub": "x"}), token_entry("t")])
    for now in range(NOW, UNTIL, 100):
        revocations = revocations.merge([], now=now)
        assert len(revocations) == 3
    assert len(revocations.compact(now=UNTIL)) == 0


@pytest.mark.parametrize("retention", [3_720, 2_678_400, 2_678_401, 10**8])
def test_contract_4_9_plan_b_validators_are_told_to_ask_at_least_as_far_back_as_rows_are_kept(retention):
    assert max_time_delta(retention) >= max(retention, 30 * 86400 + 60)


# --- a second rule with the same value under another name silently lost ---


def test_contract_4_14_the_same_value_under_another_name_is_another_rule():
    first = claims_entry({"sub": "alice"}, entry_id="1", before=NOW)
    second = claims_entry({"client_id": "alice"}, entry_id="2", before=NOW - 50)
    for entries in ([first, second], [second, first]):
        revocations = list_of(entries)
        assert len(revocations) == 2
        assert revocations.hits(judged(sub="alice", iat=NOW - 1), now=NOW) is not None
        assert revocations.hits(judged(azp="alice", iat=NOW - 51), now=NOW) is not None
        assert revocations.hits(judged(azp="alice", iat=NOW - 50), now=NOW) is None


@pytest.mark.parametrize("order", [1, -1])
def test_contract_4_14_a_plan_b_validator_keeps_the_later_cut_off_of_the_two(order):
    planb = PlanBTokeninfo(salt=PLAN_B_SALT)
    early = claims_rows({"client_id": "alice"}, issued_before=NOW - 50, revoked_at=NOW, salt=PLAN_B_SALT)
    late = claims_rows({"sub": "alice"}, issued_before=NOW - 5, revoked_at=NOW - 1, salt=PLAN_B_SALT)
    rows = [*early, *late][::order]
    ask(late, planb, now=NOW - 1)
    ask(rows, planb, now=NOW + 100)
    assert planb.refuses("h.p.s", {"iat": NOW - 6, "sub": "alice"})
    assert planb.refuses("h.p.s", {"iat": NOW - 51, "azp": "alice"})
