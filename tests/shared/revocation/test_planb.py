import json
from dataclasses import replace

import pytest

from tokenry.errors import ProtocolError
from tokenry.revocation.fingerprints import plan_b_hash
from tokenry.revocation.planb import (
    PlanBList,
    PlanBRow,
    PlanBType,
    Refresh,
    RefreshConflict,
    claims_rows,
    global_rows,
    jti_rows,
    max_time_delta,
    next_refresh,
    token_rows,
)

NOW = 1_800_000_000
SALT = "seasaltisthebest"
SKEW = 2.0
RETENTION = 3_720
DEFAULT = NOW + 3  # floor(now) + 1 + skew


def shown(rows, *, after=0.0, now=NOW, built=None, refresh=None):
    revocations = PlanBList(rows, now=now if built is None else built, skew=SKEW, retention=RETENTION, refresh=refresh)
    return [(row.issued_before, row.revoked_at) for row in revocations.rows(after=after, now=now)]


def subject(name="jdoe", *, before=NOW - 100, at=NOW - 50):
    return claims_rows({"sub": name}, issued_before=before, revoked_at=at, salt=SALT)


# --- the rows of one revocation ---


def test_a_token_is_shown_by_its_hash_and_by_its_id():
    rows = token_rows(["a.b.c"], iat=NOW - 9, jti="j", cut_off=DEFAULT, revoked_at=NOW, salt=SALT)
    assert [row.to_dict() for row in rows] == [
        {
            "type": "TOKEN",
            "revoked_at": NOW,
            "data": {
                "token_hash": plan_b_hash("a.b.c", salt=SALT),
                "hash_algorithm": "SHA-256",
                "issued_before": NOW - 8,
            },
        },
        {
            "type": "CLAIM",
            "revoked_at": NOW,
            "data": {
                "names": ["jti"],
                "value_hash": plan_b_hash("j", salt=SALT),
                "hash_algorithm": "SHA-256",
                "separator": "|",
                "issued_before": NOW - 8,
            },
        },
    ]


def test_a_token_that_was_not_verified_is_cut_off_like_a_rule():
    rows = token_rows(["a.b.c", "a.b.twin"], iat=None, jti=None, cut_off=DEFAULT, revoked_at=NOW, salt=SALT)
    assert [(row.type, row.hash, row.issued_before) for row in rows] == [
        ("TOKEN", plan_b_hash("a.b.c", salt=SALT), DEFAULT),
        ("TOKEN", plan_b_hash("a.b.twin", salt=SALT), DEFAULT),
    ]


def test_an_id_with_the_separator_in_it_is_kept_out():
    assert jti_rows("a|b", issued_before=5, revoked_at=5, salt=SALT) == ()


def test_the_values_of_a_rule_are_hashed_in_the_order_of_the_names():
    (row,) = claims_rows({"sub": "jdoe", "realm": "/services"}, issued_before=5, revoked_at=6, salt=SALT)
    assert row.names == ("realm", "sub")
    assert row.hash == plan_b_hash("/services|jdoe", salt=SALT)
    (single,) = subject()
    assert single.hash == "w2sGZC-G0eNf6ByQOgNOjgCXmz3XPZmQ9aEdtrWVafY="


def test_a_client_is_shown_under_both_of_its_names():
    rows = claims_rows({"sub": "x", "client_id": "c"}, issued_before=5, revoked_at=6, salt=SALT)
    assert [(row.names, row.hash) for row in rows] == [
        (("client_id", "sub"), plan_b_hash("c|x", salt=SALT)),
        (("azp", "sub"), plan_b_hash("c|x", salt=SALT)),
    ]


@pytest.mark.parametrize("claims", [{}, {"sub": ""}, {"sub": "a|b"}, {"realm": "/a", "sub": "|"}])
def test_a_rule_that_would_be_ambiguous_is_refused(claims):
    with pytest.raises(ProtocolError):
        claims_rows(claims, issued_before=5, revoked_at=6, salt=SALT)


@pytest.mark.parametrize("name", ["aud", "scope", "exp", "iat", "nbf"])
def test_a_rule_on_a_claim_that_is_no_string_is_refused(name):
    with pytest.raises(ProtocolError):
        claims_rows({name: "x", "sub": "y"}, issued_before=5, revoked_at=6, salt=SALT)


def test_global_has_a_cut_off_alone():
    (row,) = global_rows(issued_before=5, revoked_at=6)
    assert row.to_dict() == {"type": "GLOBAL", "revoked_at": 6, "data": {"issued_before": 5}}


@pytest.mark.parametrize(
    "changes",
    [
        {"issued_before": 0}, {"issued_before": -1}, {"revoked_at": 0}, {"revoked_at": 1.5}, {"hash": None},
        {"hash": ""}, {"names": ()}, {"type": PlanBType.TOKEN}, {"type": PlanBType.GLOBAL},
    ],
)  # fmt: skip
def test_a_row_that_would_be_dropped_cannot_be_made(changes):
    with pytest.raises(ProtocolError):
        replace(subject()[0], **changes)


@pytest.mark.parametrize(
    "row",
    [
        *token_rows(["a.b.c"], iat=5, jti="j", cut_off=1, revoked_at=6, salt=SALT),
        *global_rows(issued_before=5, revoked_at=6),
        *claims_rows({"sub": "x", "realm": "/r"}, issued_before=5, revoked_at=6, salt=SALT),
    ],
)
def test_a_stored_row_is_read_as_it_was_written(row):
    assert PlanBRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row


@pytest.mark.parametrize(
    "members",
    [
        {}, {"type": "KEY"}, {"type": "GLOBAL", "revoked_at": 5, "data": {}},
        {"type": "GLOBAL", "revoked_at": 5, "data": 7},
        {"type": "GLOBAL", "revoked_at": 5, "data": {"issued_before": 0}},
        {"type": "GLOBAL", "revoked_at": 5, "data": {"issued_before": 5, "more": 1}},
        {"type": "TOKEN", "revoked_at": 5, "data": {"token_hash": "", "hash_algorithm": "SHA-256",
         "issued_before": 5}},
        {"type": "TOKEN", "revoked_at": 5, "data": {"token_hash": "x=", "hash_algorithm": "MD5",
         "issued_before": 5}},
    ],
)  # fmt: skip
def test_a_stored_row_that_does_not_parse_is_refused_and_not_skipped(members):
    with pytest.raises(ProtocolError):
        PlanBRow.from_dict(members)


# --- what is shown, and when ---


def test_rows_younger_than_asked_for_are_shown():
    rows = [*subject("a", at=NOW - 50), *subject("b", at=NOW - 40)]
    assert [at for _, at in shown(rows, after=NOW - 50)] == [NOW - 40]
    assert [at for _, at in shown(rows, after=NOW - 50.5)] == [NOW - 50, NOW - 40]
    assert len(shown(rows, after=-(10**9))) == 2
    assert shown(rows, after=NOW) == []


def test_a_cut_off_ahead_is_shown_as_a_little_before_now_and_later_again_as_it_is():
    rows = subject(before=DEFAULT, at=NOW)
    settled = DEFAULT + 2
    for now in (NOW, NOW + 0.9, NOW + 1, NOW + 4.9):
        assert shown(rows, now=now) == [(int(now - SKEW), NOW)]
    assert shown(rows, now=settled) == [(DEFAULT, settled)]
    assert shown(rows, now=settled + 1000) == [(DEFAULT, settled)]
    assert shown(rows, now=settled, after=settled - 1) == [(DEFAULT, settled)]  # a position that has moved on


def test_a_list_prepared_before_a_cut_off_settles_shows_it_when_it_has():
    rows = subject(before=DEFAULT, at=NOW)
    for now in (NOW, NOW + 4, NOW + 5, NOW + 60):
        assert shown(rows, now=now, built=NOW) == shown(rows, now=now)


def test_a_cut_off_in_the_past_keeps_its_time():
    assert shown(subject(before=NOW - 100, at=NOW - 50)) == [(NOW - 100, NOW - 50)]


def test_a_fraction_of_a_second_of_skew_counts_as_a_whole_one():
    revocations = PlanBList(subject(before=NOW, at=NOW), now=NOW, skew=1.5, retention=RETENTION)
    assert [row.issued_before for row in revocations.rows(after=0, now=NOW + 1.5)] == [NOW]
    assert [row.revoked_at for row in revocations.rows(after=0, now=NOW + 1.9)] == [NOW]
    assert [row.revoked_at for row in revocations.rows(after=0, now=NOW + 2)] == [NOW + 2]


@pytest.mark.parametrize("order", [1, -1])
def test_rows_of_one_hash_ascend_whatever_the_order_they_were_made_in(order):
    rows = [*subject(before=NOW - 100, at=NOW - 10), *subject(before=NOW - 90, at=NOW - 50)][::order]
    assert [before for before, _ in shown(rows)] == [NOW - 100, NOW - 90]


def test_a_later_cut_off_is_listed_again_with_a_younger_row_of_its_hash():
    rows = [*subject(before=NOW - 90, at=NOW - 50), *subject(before=NOW - 100, at=NOW - 10)]
    assert shown(rows, after=NOW - 20) == [(NOW - 100, NOW - 10), (NOW - 90, NOW - 10)]


def test_the_same_holds_for_global():
    rows = [
        *global_rows(issued_before=NOW - 90, revoked_at=NOW - 50),
        *global_rows(issued_before=NOW - 100, revoked_at=NOW - 10),
    ]
    assert shown(rows, after=NOW - 20) == [(NOW - 100, NOW - 10), (NOW - 90, NOW - 10)]


def test_the_answer_is_plan_bs_document():
    revocations = PlanBList(subject(), now=NOW, skew=SKEW, retention=RETENTION)
    answer = json.loads(revocations.body(after=0, now=NOW))
    assert answer["meta"] == {"MAX_TIME_DELTA": 2_678_400, "REFRESH_FROM": None, "REFRESH_TIMESTAMP": None}
    assert answer["revocations"] == [subject()[0].to_dict()]


def test_validators_may_ask_as_far_back_as_a_revocation_is_kept():
    assert max_time_delta(3_720) == 2_678_400
    assert max_time_delta(90 * 86400) == 90 * 86400


# --- the refresh ---


def test_a_refresh_lists_again_what_validators_drop():
    refresh = Refresh(since=NOW - 60, timestamp=NOW - 5)
    rows = [
        *subject("a", at=NOW - 61),
        *subject("b", at=NOW - 60),
        *subject("c", at=NOW - 6),
        *subject("d", at=NOW - 4),
    ]
    assert sorted(at for _, at in shown(rows, refresh=refresh)) == [NOW - 61, NOW - 5, NOW - 5, NOW - 4]
    assert len(shown(rows, refresh=refresh, after=NOW - 6)) == 3


def test_a_refresh_is_shown_until_no_validator_can_remember_it():
    refresh = Refresh(since=NOW - 60, timestamp=NOW)
    revocations = PlanBList([], now=NOW, skew=SKEW, retention=RETENTION, refresh=refresh)
    end = NOW + 2_678_400
    assert revocations.meta(end - 1) == {
        "MAX_TIME_DELTA": 2_678_400, "REFRESH_FROM": NOW - 60, "REFRESH_TIMESTAMP": NOW,
    }  # fmt: skip
    assert revocations.meta(end)["REFRESH_TIMESTAMP"] is None
    assert shown(subject(at=NOW - 50), now=end, refresh=refresh) == [(NOW - 100, NOW - 50)]


def test_a_second_refresh_is_refused_unless_forced():
    held = next_refresh(None, since=NOW - 60, now=NOW, retention=RETENTION)
    assert held == Refresh(since=NOW - 60, timestamp=NOW)
    assert next_refresh(held, since=NOW - 60, now=NOW + 9, retention=RETENTION) is held
    with pytest.raises(RefreshConflict):
        next_refresh(held, since=NOW - 59, now=NOW + 9, retention=RETENTION)
    forced = next_refresh(held, since=NOW - 59, now=NOW + 9, retention=RETENTION, force=True)
    assert forced == Refresh(since=NOW - 59, timestamp=NOW + 9)
    at_once = next_refresh(held, since=NOW - 59, now=NOW + 0.5, retention=RETENTION, force=True)
    assert at_once.timestamp != held.timestamp
    later = next_refresh(held, since=NOW - 59, now=NOW + 2_678_400, retention=RETENTION)
    assert later.timestamp == NOW + 2_678_400


@pytest.mark.parametrize("since", [0, -1, NOW + 1])
def test_a_refresh_from_no_time_in_the_past_is_refused(since):
    with pytest.raises(ProtocolError):
        next_refresh(None, since=since, now=NOW, retention=RETENTION)
