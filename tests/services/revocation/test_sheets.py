"""Tokens that were revoked for good, as the store keeps them: binary, read strictly, named line by line."""

import json
import random
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenry.errors import ProtocolError
from tokenry.revocation.entries import Entry, Kind
from tokenry.secret import Secret
from tokenry_revocation.records import Actor, Record, RecordType
from tokenry_revocation.requests import TokenIdTarget
from tokenry_revocation.revoking import Fingerprints, Signature, Terms, draft_token_id
from tokenry_revocation.sheets import (
    MAX_LINES,
    Sheet,
    is_sheet,
    line_name,
    packed_name,
    parse_about,
    parse_sheet,
    place_of_line,
    spelled_name,
)
from tokenry_revocation.token_table import KeptToken, TokenTable

NOW = 1_800_000_000
TERMS = Terms(
    issuer="https://issuer.example.org",
    max_token_lifetime=3600,
    skew=2.0,
    propagation_bound=30.5,
    plan_b_bound=60.5,
    hashing_salt=Secret("a-salt-of-the-tests-only"),
)
FINGERPRINTS = Fingerprints(TERMS.hashing_salt)
ACTOR = Actor(iss="i", sub="s", client_id=None)
_numbers = random.Random(7)  # noqa: S311 -- a spread, not a secret


def some(count):
    return _numbers.randbytes(count)


def sheet(lines=1, **changes):
    values = {"ids": some(16 * lines), "id_hashes": some(32 * lines), **changes}
    return Sheet(revoked_at=NOW, in_force_until=NOW + 600, issued_before=NOW + 3, salt="salt", **values)


def a_record(*, reason=None):
    target = TokenIdTarget(jti="abc", iss=None)
    draft = draft_token_id(target, now=NOW + 0.5, reason=reason, terms=TERMS, fingerprints=FINGERPRINTS)
    name = FINGERPRINTS.identity(draft.canonical, 0)
    return draft.record(name, terms=TERMS, by=Signature(actor=ACTOR, reason=reason, ticket="T"))


SHEETS = st.builds(
    lambda lines, both, tokens, ids: sheet(
        lines,
        tokens=some(16 * lines) if both else b"",
        token_hashes=some(32 * tokens),
        id_hashes=some(32 * ids),
    ),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 3),
)


@given(SHEETS)
@settings(max_examples=50)
def test_a_sheet_comes_back_from_its_bytes_as_it_was(made):
    body = made.to_bytes(about={"id": "x", "reason": "why"})
    assert is_sheet(body)
    assert parse_sheet(body) == made
    assert parse_about(body) == (made, {"id": "x", "reason": "why"})


@given(SHEETS, st.data())
@settings(max_examples=100)
def test_a_sheet_that_was_cut_is_refused(made, data):
    body = made.to_bytes(about={"id": "x"})
    end = data.draw(st.integers(0, len(body) - len(b'{"id":"x"}')))
    with pytest.raises(ProtocolError):
        parse_sheet(body[:end])


@given(st.binary(max_size=120))
def test_no_bytes_make_reading_raise_anything_else(body):
    with suppress(ProtocolError):
        parse_about(b"\x02" + body)
    with suppress(ProtocolError):
        Record.from_bytes(b"\x02" + body)


@pytest.mark.parametrize(
    "columns",
    [
        {"ids": b""},
        {"ids": bytes(16), "tokens": bytes(32)},
        {"ids": bytes(16 * (MAX_LINES + 1))},
    ],
)
def test_columns_that_do_not_fit_are_refused(columns):
    with pytest.raises(ProtocolError):
        sheet(**columns)


def test_a_token_revoked_for_good_is_kept_as_a_sheet_and_one_revoked_as_a_test_is_not():
    record, test = a_record(), a_record(reason="test")
    assert is_sheet(record.to_bytes())
    assert not is_sheet(test.to_bytes())
    for each in (record, test):
        assert Record.from_bytes(each.to_bytes()) == each
    assert len(record.to_bytes()) < 400


def test_a_line_of_a_sheet_is_a_record_of_its_own():
    made = sheet(3)
    name = spelled_name(some(15))
    about = {"id": name, "propagated_by": NOW + 31, "plan_b_by": None, "actor": {"iss": "i", "sub": "s"}, "reason": "r"}
    body = made.to_bytes(about=about)
    line = line_name(name, 2)
    assert place_of_line(line) == (name, 2)
    record = Record.from_sheet(body, line=2)
    assert record == Record(
        id=line,
        type=RecordType.TOKEN,
        revoked_at=NOW,
        in_force_until=NOW + 600,
        propagated_by=NOW + 31,
        plan_b_by=None,
        actor=Actor(iss="i", sub="s"),
        reason="r",
        entries=(Entry(id=line, kind=Kind.JTI, fingerprint=made.ids[32:], salt="salt", in_force_until=NOW + 600),),
    )
    for wrong in (3, -1, None):
        with pytest.raises(ProtocolError):
            Record.from_sheet(body, line=wrong)


@given(st.binary(min_size=20, max_size=20))
@settings(max_examples=50)
def test_a_name_of_160_bits_comes_back(bits):
    assert packed_name(spelled_name(bits)) == bits


@pytest.mark.parametrize("name", ["", "a" * 31, "a" * 33, "A" * 32, "0" * 32, "_" + "a" * 31, "+" + "a" * 31, "é" * 32])
def test_other_texts_are_no_names_of_160_bits(name):
    assert packed_name(name) is None
    assert place_of_line(name) is None


def test_the_table_keeps_tokens_by_name_moves_and_forgets_them():
    table = TokenTable()
    kept = {
        some(20): KeptToken(number, NOW, NOW + number, f"salt{number % 2}", some(16), some(16) if number % 3 else b"")
        for number in range(1, 3_000)
    }
    for bits, each in kept.items():
        table.put(bits, each)
    assert dict(table.items()) == kept
    assert table.get(some(20)) is None
    moved = next(iter(kept))
    table.move(moved, 77_777)
    assert table.get(moved) == kept[moved]._replace(position=77_777)
    gone = [bits for over in table.prune(NOW + 1_000.5) for bits, _ in over]
    assert len(gone) == 1_000
    assert all((bits in gone) == (each.in_force_until <= NOW + 1_000) for bits, each in kept.items())
    assert {bits for bits, _ in table.items()} == kept.keys() - set(gone)


# --- milliseconds ---


def test_a_sheet_knows_the_millisecond_and_one_of_an_earlier_version_does_not():
    timed = sheet(3, created_at=NOW + 0.042)
    body = timed.to_bytes(about={"id": "x"})
    assert parse_sheet(body).created_at == NOW + 0.042
    assert [entry.created_at for entry in timed.entries(1, name="a-name")] == [NOW + 0.042]
    earlier = b"\x02" + body[1:26] + body[28:]  # the same without the two bytes after the head
    assert is_sheet(earlier)
    assert parse_about(earlier) == (replace(timed, created_at=None), {"id": "x"})
    for end in range(27):
        with pytest.raises(ProtocolError):
            parse_sheet(earlier[:end])


@pytest.mark.parametrize("created_at", [None, float(NOW), NOW + 0.001, NOW + 0.5, NOW + 0.999])
def test_the_table_of_tokens_keeps_the_millisecond(created_at):
    table, bits = TokenTable(), some(20)
    kept = KeptToken.of(sheet(created_at=created_at), position=7)
    table.put(bits, kept)
    assert table.get(bits) == kept
    assert table.get(bits).created_at == created_at


def test_a_record_keeps_the_millisecond_in_both_forms():
    for reason in (None, "test"):  # as a sheet, and as JSON
        record = a_record(reason=reason)
        assert record.created_at == NOW + 0.5
        assert Record.from_bytes(record.to_bytes()) == record
    members = json.loads(a_record(reason="test").to_bytes())
    del members["created_at"]
    assert Record.from_bytes(json.dumps(members).encode()).created_at is None
