import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.revocation_entries import (
    ENTRIES,
    LIFETIME,
    NOW,
    SALT,
    SALTS,
    all_entry,
    claims_entry,
    jti_entry,
    judged,
    key_entry,
    list_of,
    token_entry,
    undo_entry,
)
from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import b64url_encode
from tokenry.revocation.blocks import Block
from tokenry.revocation.entries import Kind
from tokenry.revocation.lists import MAX_ENTRIES, TooManyEntries
from tokenry.revocation.wire import (
    MAX_BINARY_BYTES,
    MAX_JSON_BYTES,
    EpochRefused,
    ListDocument,
    document_of,
    format_binary_list,
    format_list,
    max_binary_bytes,
    parse_binary_list,
    parse_list,
)

ONE_OF_EACH = (
    jti_entry("j"),
    jti_entry("test", undoable=True),
    token_entry("h.p"),
    claims_entry({"realm": "/services", "sub": "x"}, block_until=NOW + 5),
    key_entry("k"),
    all_entry(),
    undo_entry("old"),
)


def document(*entries, **more: Any) -> ListDocument:
    defaults: dict[str, Any] = {"cursor": "c-1", "epoch": 1, "salts": SALTS, "max_token_lifetime": LIFETIME}
    return ListDocument(entries=entries, **defaults | more)


def as_json(*entries):
    return json.loads(format_list(document(*entries)))


def read(members):
    return parse_list(json.dumps(members).encode())


# --- the JSON form ---


def test_the_json_form_has_the_members_of_the_contract_and_no_others():
    assert as_json(claims_entry({"realm": "/services", "sub": "x"})) == {
        "cursor": "c-1",
        "epoch": 1,
        "kinds": ["jti", "token", "claims", "key", "all", "undo"],
        "salts": {"s1": b64url_encode(SALT)},
        "max_token_lifetime": LIFETIME,
        "entries": [
            {
                "id": "rule",
                "kind": "claims",
                "fingerprint": b64url_encode(claims_entry({"realm": "/services", "sub": "x"}).fingerprint),
                "salt": "s1",
                "names": ["realm", "sub"],
                "issued_before": NOW,
                "in_force_until": NOW + LIFETIME + 120,
            }
        ],
    }
    assert as_json(undo_entry("x"))["entries"][0] == {
        "id": "undo-x", "kind": "undo", "in_force_until": NOW + LIFETIME + 120, "undoes": "x",
    }  # fmt: skip
    assert as_json(key_entry("k"))["entries"][0]["in_force_until"] is None
    assert as_json(jti_entry("j", undoable=True))["entries"][0]["undoable"] is True


@given(st.lists(ENTRIES, max_size=6))
def test_what_was_written_as_json_is_what_is_read(entries):
    written = document(*entries)
    assert parse_list(format_list(written)) == written


CREATED = NOW - 0.25


@pytest.mark.parametrize("entry", ONE_OF_EACH)
def test_the_moment_of_creation_is_written_only_for_readers_who_ask_for_it(entry):
    made = document(replace(entry, created_at=CREATED))
    assert b"created_at" not in format_list(made)
    assert format_list(made) == format_list(document(entry))
    told = parse_list(format_list(made, created_at=True))
    assert [each.created_at for each in told.entries] == [CREATED]
    assert parse_list(format_list(document(entry), created_at=True)).entries[0].created_at is None


@pytest.mark.parametrize("entry", ONE_OF_EACH)
def test_the_moment_of_creation_decides_nothing(entry):
    told = replace(entry, created_at=CREATED)
    assert told == entry
    held = list_of([entry])
    assert held.has(told)
    assert held.merge([told], now=NOW, salts=SALTS) is held
    assert repr(list_of([told]).entries()) == repr(held.entries())
    assert not list_of([]).has(told)


@pytest.mark.parametrize("moment", ["1", True, 0, -1, None, [1], 2**32, float(2**32)])
def test_a_moment_of_creation_that_is_none_refuses_the_list(moment):
    members = as_json(jti_entry("j"))
    members["entries"][0]["created_at"] = moment
    with pytest.raises(ProtocolError):
        read(members)


HOSTILE_MEMBERS = [
    ("cursor", ""), ("cursor", 5), ("cursor", None), ("cursor", "two words"), ("cursor", 'quo"te'),
    ("cursor", "x" * 513), ("cursor", "é"),
    ("epoch", 0), ("epoch", -1), ("epoch", "1"), ("epoch", 1.0), ("epoch", True), ("epoch", 2**53),
    ("kinds", ["jti", "nonce"]), ("kinds", ["jti", "jti"]), ("kinds", "jti"), ("kinds", [5]),
    ("kinds", [["jti"]]),
    ("kinds", ["token"]), ("kinds", ["JTI"]),
    ("salts", []), ("salts", {}), ("salts", {"s1": 5}), ("salts", {"s1": "c2hvcnQ"}),
    ("salts", {"": b64url_encode(SALT)}),
    ("salts", {"s1": b64url_encode(SALT) + "="}),
    ("salts", {f"s{n}": b64url_encode(SALT) for n in range(1, 10)}),
    ("max_token_lifetime", 0), ("max_token_lifetime", "3600"), ("max_token_lifetime", 400 * 86400),
    ("max_token_lifetime", None),
    ("entries", {}), ("entries", None), ("entries", [5]), ("entries", [None]), ("entries", [[]]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), HOSTILE_MEMBERS)
def test_a_document_with_one_bad_member_is_refused_whole(name, value):
    with pytest.raises(ProtocolError):
        read(as_json(*ONE_OF_EACH) | {name: value})


@pytest.mark.parametrize("name", ["cursor", "epoch", "kinds", "salts", "max_token_lifetime", "entries"])
def test_a_document_that_lacks_a_member_is_refused(name):
    members = as_json(jti_entry("j"))
    del members[name]
    with pytest.raises(ProtocolError):
        read(members)


def test_a_document_with_an_unknown_member_is_refused():
    with pytest.raises(ProtocolError):
        read(as_json() | {"except_for": ["me"]})


HOSTILE_ENTRY_MEMBERS = [
    ("id", None), ("id", 5), ("id", ""), ("id", "x" * 129),
    ("kind", "nonce"), ("kind", None), ("kind", ["claims"]), ("kind", "Claims"), ("kind", "jti"),
    ("kind", "undo"),
    ("fingerprint", ""), ("fingerprint", "A" * 21), ("fingerprint", "A" * 23),
    ("fingerprint", "A" * 21 + "B"),
    ("fingerprint", "A" * 20 + "=="), ("fingerprint", "+" * 22), ("fingerprint", None), ("fingerprint", 5),
    ("salt", "s9"), ("salt", None), ("salt", 5),
    ("names", []), ("names", ["sub", "realm"]), ("names", ["sub", "sub"]), ("names", ["azp"]),
    ("names", "sub"),
    ("names", [""]), ("names", [5]), ("names", list("abcdefghi")), ("names", None), ("names", {"sub": 1}),
    ("issued_before", -1), ("issued_before", 0), ("issued_before", 1e30), ("issued_before", 10**19),
    ("issued_before", "1"), ("issued_before", True), ("issued_before", None), ("issued_before", 1.5),
    ("in_force_until", -1), ("in_force_until", None), ("in_force_until", 2**32), ("in_force_until", "x"),
    ("block_until", 0), ("block_until", None), ("block_until", 2**32 - 1), ("block_until", "x"),
    ("undoes", "x"), ("undoes", None), ("undoable", True), ("undoable", 1), ("undoable", None),
    ("comment", "?"), ("Names", ["sub"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), HOSTILE_ENTRY_MEMBERS)
def test_one_bad_entry_among_a_thousand_refuses_the_whole_document(name, value):
    members = as_json(*[claims_entry({"sub": str(number)}, entry_id=str(number)) for number in range(1_000)])
    read(members)
    members["entries"][500][name] = value
    with pytest.raises(ProtocolError):
        read(members)


@pytest.mark.parametrize("name", ["id", "kind", "fingerprint", "salt", "names", "issued_before", "in_force_until"])
def test_an_entry_that_lacks_a_member_is_refused(name):
    members = as_json(claims_entry({"sub": "x"}))
    del members["entries"][0][name]
    with pytest.raises(ProtocolError):
        read(members)


def test_a_member_name_that_occurs_twice_is_refused():
    body = format_list(document(jti_entry("j")))
    twice = body.replace(b'"id":"jti-j"', b'"id":"jti-j","id":"jti-k"')
    assert twice != body
    with pytest.raises(ProtocolError):
        parse_list(twice)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html></html>",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"entries":NaN}',
        b"[" * 10**5,
    ],
)
def test_what_is_no_document_is_refused(body):
    with pytest.raises(ProtocolError):
        parse_list(body)


def test_a_document_cut_anywhere_is_refused():
    body = format_list(document(*ONE_OF_EACH))
    for end in range(len(body)):
        with pytest.raises(ProtocolError):
            parse_list(body[:end])


def test_a_document_that_is_too_large_is_refused_unread():
    with pytest.raises(ProtocolError, match="larger"):
        parse_list(b" " * (MAX_JSON_BYTES + 1))
    with pytest.raises(ProtocolError, match="larger"):
        parse_binary_list(bytes(MAX_BINARY_BYTES + 1))


def test_a_document_of_more_entries_than_the_reader_takes_is_refused_before_one_of_them_is_read():
    members = as_json(jti_entry("j")) | {"entries": [{"no": "entry"}] * 5}
    with pytest.raises(TooManyEntries, match="more than 4 entries"):
        parse_list(json.dumps(members).encode(), max_entries=4)
    with pytest.raises(ProtocolError, match="member of an entry"):  # which five would have been
        parse_list(json.dumps(members).encode(), max_entries=5)


def test_an_error_does_not_repeat_the_document():
    members = as_json(claims_entry({"sub": "x"}))
    members["entries"][0]["kind"] = "secret-thing"
    with pytest.raises(ProtocolError) as caught:
        read(members)
    assert "secret-thing" not in str(caught.value)


@given(st.integers(0, 2000), st.integers(0, 255))
@settings(max_examples=300)
def test_a_flipped_byte_is_refused_or_leaves_a_document(place, byte):
    body = bytearray(format_list(document(*ONE_OF_EACH)))
    body[place % len(body)] = byte
    try:
        found = parse_list(bytes(body))
    except ProtocolError:
        return
    assert len(found.entries) == len(ONE_OF_EACH)


def test_a_block_has_no_json_form():
    with pytest.raises(ProtocolError, match="JSON"):
        format_list(document(block=Block.of({b"f" * 16: NOW})))


# --- the binary form ---


def test_the_binary_form_is_laid_out_as_documented():
    entry = jti_entry("j")
    head = format_list(document())
    assert format_binary_list(document(entry)) == b"".join((
        b"TOKREVL", b"\x01", len(head).to_bytes(4, "big"), head, (1).to_bytes(4, "big"),
        entry.fingerprint, entry.in_force_until.to_bytes(4, "big"),
    ))  # fmt: skip


@given(st.lists(ENTRIES, max_size=8))
def test_both_forms_make_the_same_list(entries):
    by_json = parse_list(format_list(document(*entries))).onto(None, now=NOW)
    by_binary = parse_binary_list(format_binary_list(document(*entries))).onto(None, now=NOW)
    assert format_binary_list(document_of(by_json, cursor="c")) == format_binary_list(
        document_of(by_binary, cursor="c")
    )
    assert format_binary_list(document_of(by_json, cursor="c")) == format_binary_list(
        document_of(list_of(entries), cursor="c")
    )


def test_a_binary_document_that_no_reader_would_take_is_not_written():
    long = claims_entry({f"{number:0100}": "x" for number in range(8)})
    entries = [replace(long, id=f"{number:0128}") for number in range(33_000)]
    with pytest.raises(ProtocolError, match="more rules"):
        format_binary_list(document(*entries))


def test_a_binary_document_cut_or_lengthened_anywhere_is_refused():
    body = format_binary_list(document(*ONE_OF_EACH))
    for end in range(len(body)):
        with pytest.raises(ProtocolError):
            parse_binary_list(body[:end])
    with pytest.raises(ProtocolError):
        parse_binary_list(body + b"\x00")


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"TOKREVL\x01", b"TOKREVL\x02"), (b"TOKREVL\x01", b"TOKREVX\x01"), (b'"epoch":1', b'"epoch":0')],
)
def test_a_binary_document_of_another_kind_is_refused(old, new):
    body = format_binary_list(document(*ONE_OF_EACH))
    assert old in body
    with pytest.raises(ProtocolError):
        parse_binary_list(body.replace(old, new))


def test_a_binary_document_that_is_not_sorted_is_refused():
    body = format_binary_list(document(jti_entry("a"), jti_entry("b")))
    swapped = body[:-40] + body[-24:-8] + body[-40:-24] + body[-8:]
    assert sorted(swapped) == sorted(body)
    with pytest.raises(ProtocolError, match="sorted"):
        parse_binary_list(swapped)


def test_a_binary_document_of_more_entries_than_the_reader_takes_is_refused_before_its_columns_are_read():
    body = format_binary_list(document(claims_entry({"sub": "x"})))
    unsorted = body[:-4] + (4).to_bytes(4, "big") + bytes(4 * 20)
    with pytest.raises(TooManyEntries, match="more than 4 entries"):  # those of the head count, too
        parse_binary_list(unsorted, max_entries=4)
    with pytest.raises(ProtocolError, match="sorted"):
        parse_binary_list(unsorted, max_entries=5)


def test_a_reader_of_more_entries_takes_as_many_more_bytes():
    assert max_binary_bytes(1) == max_binary_bytes(MAX_ENTRIES) == MAX_BINARY_BYTES
    assert max_binary_bytes(MAX_ENTRIES + 1_000) == MAX_BINARY_BYTES + 20_000
    with pytest.raises(ProtocolError, match="not a binary"):
        parse_binary_list(bytes(MAX_BINARY_BYTES + 1), max_entries=MAX_ENTRIES + 1)


def test_a_count_that_promises_more_than_is_there_is_refused():
    body = bytearray(format_binary_list(document(jti_entry("a"))))
    body[-24:-20] = b"\xff\xff\xff\xff"
    with pytest.raises(ProtocolError, match="longer"):
        parse_binary_list(bytes(body))


def test_a_block_needs_a_salt_and_a_kind():
    block = Block.of({b"f" * 16: NOW + 5})
    with pytest.raises(ProtocolError, match="salt"):
        document(block=block, salts={})
    with pytest.raises(ProtocolError, match="salt"):
        document(block=block, kinds=(Kind.CLAIMS,))


@given(st.binary(max_size=200))
def test_noise_is_refused(noise):
    for parse in (parse_list, parse_binary_list):
        with pytest.raises(ProtocolError):
            parse(noise)
    with pytest.raises(ProtocolError):
        parse_binary_list(b"TOKREVL\x01" + noise)


# --- documents put onto lists ---


def test_the_first_document_makes_the_list():
    made = document(jti_entry("j"), epoch=7).onto(None, now=NOW)
    assert (made.epoch, made.max_token_lifetime, len(made)) == (7, LIFETIME, 1)
    assert made.hits(judged(jti="j"), now=NOW) is not None


def test_a_document_that_says_nothing_new_leaves_the_very_same_list():
    held = document(*ONE_OF_EACH).onto(None, now=NOW)
    assert document(*ONE_OF_EACH).onto(held, now=NOW) is held
    assert parse_binary_list(format_binary_list(document(*ONE_OF_EACH))).onto(held, now=NOW) is held
    assert document().onto(held, now=NOW) is held  # nor does it take anything away


def test_a_lower_epoch_is_refused_and_a_higher_one_waits_for_an_operator():
    held = document(jti_entry("j"), epoch=5).onto(None, now=NOW)
    for epoch in (1, 4, 6, 7):
        with pytest.raises(EpochRefused) as caught:
            document(epoch=epoch).onto(held, now=NOW)
        assert (caught.value.held, caught.value.offered) == (5, epoch)
    with pytest.raises(EpochRefused):
        document(epoch=4).onto(held, now=NOW, accept_epoch=4)
    with pytest.raises(EpochRefused):
        document(epoch=7).onto(held, now=NOW, accept_epoch=6)


def test_an_accepted_epoch_keeps_what_was_seen_before():
    held = document(jti_entry("j"), epoch=5).onto(None, now=NOW)
    after = document(jti_entry("k"), epoch=6).onto(held, now=NOW, accept_epoch=6)
    assert after.epoch == 6
    assert after.hits(judged(jti="j"), now=NOW) is not None
    assert after.hits(judged(jti="k"), now=NOW) is not None


def test_the_first_document_may_not_be_too_long_either():
    with pytest.raises(TokenryError, match="more than 1"):
        document(jti_entry("j"), jti_entry("k")).onto(None, now=NOW, max_entries=1)


def test_the_longest_token_lifetime_heard_of_counts():
    held = document(max_token_lifetime=7200).onto(None, now=NOW)
    assert document(max_token_lifetime=3600).onto(held, now=NOW) is held
    assert document(max_token_lifetime=9000).onto(held, now=NOW).max_token_lifetime == 9000


def test_a_document_whose_entries_are_not_announced_cannot_be_made():
    with pytest.raises(ProtocolError, match="announce"):
        document(jti_entry("j"), kinds=(Kind.TOKEN,))
    with pytest.raises(ProtocolError, match="salt"):
        document(replace(jti_entry("j"), salt="s2"))
