"""Rows of single tokens in columns: found by their hash, shown as any other row, and forgotten in time."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.planb_tokeninfo import PlanBTokeninfo
from tokenry.revocation import planb_rows
from tokenry.revocation.planb import PlanBList, PlanBRow, PlanBType, Refresh, claims_rows, jti_rows, token_rows
from tokenry.revocation.planb_rows import BUCKET_SECONDS, HASH_BYTES, TokenRow, TokenRows

NOW = 1_800_000_000
SALT = "seasaltisthebest"
LIST = {"skew": 2.0, "retention": 3720}


def digest(number):
    return random.Random(number).randbytes(HASH_BYTES)  # noqa: S311 -- a spread, not a secret


def a_row(number, *, names=("jti",), until=NOW + 600):
    return TokenRow(names, digest(number), NOW, NOW, until)


def all_of(rows, *, since=0, now=NOW):
    return [row for portion in rows.portions(since, size=7) for row in portion.alive(now)]


def test_every_row_is_found_by_its_hash_however_many_there_are():
    rows = TokenRows()
    for number in range(20_000):
        assert rows.add(a_row(number), moment=NOW + number // 100)
    assert len(rows) == 20_000
    assert all(rows.row(rows.find(digest(number))).hash == digest(number) for number in range(20_000))
    assert all(rows.find(digest(number)) is None for number in range(50_000, 52_000))
    assert {row.hash for row in all_of(rows)} == {digest(number) for number in range(20_000)}


def test_hashes_that_crowd_together_are_all_found():
    rows, crowd = TokenRows(), [bytes(28) + number.to_bytes(4, "big") for number in range(planb_rows._MAX_STEPS)]
    for each in crowd:
        assert rows.add(TokenRow((), each, NOW, NOW, NOW + 9), moment=NOW)
    assert [rows.row(rows.find(each)).hash for each in crowd] == crowd


def test_a_hash_that_is_there_is_not_taken_twice_neither_from_the_same_call():
    rows = TokenRows()
    like = a_row(0)
    assert rows.extend(digest(1) + digest(2) + digest(1), like=like, moment=NOW) == [digest(1)]
    assert rows.extend(digest(2) + digest(3), like=like, moment=NOW + 500) == [digest(2)]
    assert [row.hash for row in all_of(rows)] == [digest(1), digest(2), digest(3)]


def test_a_removed_row_is_gone_and_may_come_again():
    rows = TokenRows()
    rows.add(a_row(1), moment=NOW)
    before = rows.portions(0, size=10)
    rows.remove(rows.find(digest(1)))
    assert rows.find(digest(1)) is None
    assert all_of(rows) == []
    assert [row.hash for portion in before for row in portion.alive(NOW)] == [digest(1)], "that of before"
    assert rows.add(a_row(1), moment=NOW + 1000)
    assert len(rows) == 1


def test_rows_that_are_over_are_not_shown_and_leave_with_their_bucket():
    rows = TokenRows()
    rows.add(a_row(1, until=NOW + 5), moment=NOW)
    rows.add(a_row(2, until=NOW + 9), moment=NOW)
    assert [row.hash for row in all_of(rows, now=NOW + 5)] == [digest(2)]
    rows.prune(NOW + 8)
    assert len(rows) == 2
    rows.prune(NOW + 9)
    assert (len(rows), rows.find(digest(1)), all_of(rows)) == (0, None, [])
    for number in range(5_000):  # the index forgets them when it grows
        rows.add(a_row(number), moment=NOW + 9)
    assert len(rows) == 5_000


def test_only_the_buckets_since_a_moment_are_looked_at():
    rows = TokenRows()
    for number in range(10):
        rows.add(a_row(number), moment=NOW + number * BUCKET_SECONDS)
    assert len(all_of(rows, since=NOW + 7 * BUCKET_SECONDS)) == 3


@pytest.mark.parametrize("refresh", [None, Refresh(since=NOW - 40, timestamp=NOW + 90)])
@given(
    posts=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),  # of few ids, so that many meet
            st.integers(0, 100),  # when
            st.none() | st.integers(0, 50),  # how far back its cut-off lies
            st.integers(60, 400),  # how long it is in force
            st.booleans(),  # as one of a column
            st.booleans(),  # as a rule
        ),
        max_size=12,
    ),
    after=st.integers(-10, 150),
    now=st.integers(100, 200),
)
@settings(max_examples=150)
def test_rows_in_columns_are_shown_as_rows_kept_whole(refresh, posts, after, now):
    lean, whole = PlanBList(**LIST, refresh=refresh), PlanBList(**LIST, refresh=refresh)
    for name, when, back, force, in_column, as_rule in posts:
        at = NOW + when
        cut_off, until = (at + 3 if back is None else at - back), at + force
        (row,) = jti_rows(name, issued_before=cut_off, revoked_at=at, salt=SALT)
        if as_rule:
            (row,) = claims_rows({"sub": name}, issued_before=cut_off, revoked_at=at, salt=SALT)
        whole.add(row, until=until)
        if in_column and not as_rule:
            hashes = planb_rows.base64.urlsafe_b64decode(row.hash)
            lean.add_tokens(names=("jti",), hashes=hashes, issued_before=cut_off, revoked_at=at, until=until)
        else:
            lean.add(row, until=until, single=not as_rule)
    effect, expected = latest_by_hash(lean, after, now), latest_by_hash(whole, after, now)
    assert effect == expected
    text = json.loads(lean.body(after=NOW + after, now=NOW + now))
    shown = [PlanBRow.from_dict(row) for row in text["revocations"]]
    assert shown == lean.rows(after=NOW + after, now=NOW + now)


def latest_by_hash(made, after, now):
    """What a validator is left with: the last row of each hash; one that a later row outdoes need not be sent."""
    return {row.hash: row.issued_before for row in made.rows(after=NOW + after, now=NOW + now)}


def test_an_answer_that_is_sent_slowly_is_that_of_its_beginning():
    made = PlanBList(**LIST)
    for number in range(1200):
        (row,) = jti_rows(f"j{number}", issued_before=NOW, revoked_at=NOW, salt=SALT)
        made.add(row, until=NOW + 600, single=True)
    pieces = made.pieces(after=0, now=NOW + 10)
    parts = [next(pieces), next(pieces)]
    (row,) = claims_rows({"sub": "j1100"}, issued_before=NOW + 5, revoked_at=NOW + 5, salt=SALT)
    made.add(row, until=NOW + 700)
    made.prune(NOW + 650)
    rows = json.loads(b"".join([*parts, *pieces]))["revocations"]
    assert len(rows) == 1200
    validator = PlanBTokeninfo(salt=SALT)
    validator.take(b"".join([b'{"meta":{},"revocations":', json.dumps(rows).encode(), b"}"]), now=NOW + 10)
    assert validator.refuses("x", {"jti": "j1100", "iat": NOW - 1})


def test_a_row_that_was_taken_back_is_not_shown_and_the_others_of_its_hash_are():
    made = PlanBList(**LIST)
    first, second = (
        claims_rows({"sub": "a"}, issued_before=NOW - back, revoked_at=NOW, salt=SALT)[0] for back in (5, 9)
    )
    for row in (first, second):
        made.add(row, until=NOW + 600)
    made.remove(first, until=NOW + 600)
    made.remove(first, until=NOW + 600)
    assert made.rows(after=0, now=NOW + 10) == [second]


def test_token_rows_in_columns_have_the_form_of_plan_b():
    made = PlanBList(**LIST)
    (row,) = token_rows(["raw"], iat=NOW - 9, jti=None, cut_off=NOW, revoked_at=NOW, salt=SALT)
    made.add(row, until=NOW + 600, single=True)
    assert row.type is PlanBType.TOKEN
    assert json.loads(made.body(after=0, now=NOW))["revocations"] == [row.to_dict()]


def test_the_latest_of_several_notifications_is_shown_from_its_own_moment_on():
    made = PlanBList(**LIST)
    first, second = Refresh(since=NOW - 10, timestamp=NOW), Refresh(since=NOW - 20, timestamp=NOW + 30)
    made.notify(second)
    assert made.refresh(NOW) is None
    assert made.latest_refresh(NOW) == second
    made.notify(first)
    assert made.meta(NOW + 29)["REFRESH_FROM"] == NOW - 10
    assert made.meta(NOW + 30)["REFRESH_FROM"] == NOW - 20
