import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import b64url_decode, dump_json, parse_json_object
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jws import sign, split, twin
from tokenry.jose.typed import UnknownSigner, UntrustedStatement
from tokenry.revocation.documents import ListDocument, document_of
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.lists import MAX_ENTRIES, RevocationList, TooManyEntries
from tokenry.revocation.signed import (
    MAX_SIGNED_BYTES,
    SIGNED_LIST_TYPE,
    SignedList,
    digest_of,
    max_signed_bytes,
    read_signed_list,
)

ISSUER = "https://issuer.example.org"
SALTS = {"salt-1": b"0123456789abcdef"}
KEY = PrivateKey.generate()
NOW = 1_800_000_000


def entry(number=1, **changes):
    return Entry(
        **{
            "id": f"r{number}", "kind": Kind.JTI, "fingerprint": bytes([number]) * 16, "salt": "salt-1",
            "in_force_until": NOW + 100, **changes,
        }
    )  # fmt: skip


def content(*entries):
    return ListDocument(cursor="c1", epoch=7, salts=SALTS, max_token_lifetime=3600, entries=entries)


def issue(**changes):
    return SignedList(
        **{
            "issuer": ISSUER, "issued_at": NOW, "as_of": NOW - 2.25, "next_update": NOW + 30, "stream": "s" * 22,
            "seq": 5, "previous": None, "content": content(entry()), **changes,
        }
    )  # fmt: skip


def find(kid):
    return KEY.public if kid == KEY.kid else None


def read(text, *, issuer=ISSUER):
    return read_signed_list(text, issuer=issuer, find=find)


def resigned(change, *, typ=SIGNED_LIST_TYPE, key=KEY):
    members = json.loads(split(issue().sign(KEY)).payload)
    change(members)
    return sign({"typ": typ}, dump_json(members), key)


def test_what_was_signed_is_read():
    signed = issue(previous=digest_of("the one before"))
    assert read(signed.sign(KEY)) == signed


def test_its_payload_has_the_members_of_a_snapshot_beside_its_own():
    members = parse_json_object(split(issue().sign(KEY)).payload)
    assert members.keys() == {
        "iss", "iat", "epoch", "stream", "seq", "as_of", "next_update", "prev",
        "cursor", "kinds", "salts", "max_token_lifetime", "entries",
    }  # fmt: skip
    assert members["epoch"] == 7
    assert members["entries"][0]["id"] == "r1"
    assert split(issue().sign(KEY)).header == {"alg": "ES256", "kid": KEY.kid, "typ": "revocation-list+jwt"}


def test_a_long_list_travels_in_columns_and_is_the_same_list():
    rules = entry(9, kind=Kind.CLAIMS, names=("sub",), issued_before=NOW, fingerprint=b"r" * 16)
    held = RevocationList.of([*(entry(n) for n in range(1, 9)), rules], salts=SALTS, epoch=7, max_token_lifetime=3600)
    text = issue(content=document_of(held, cursor="c1")).sign(KEY)
    members = parse_json_object(split(text).payload)
    assert len(b64url_decode(members["fingerprints"])) == 8 * 16
    again = read(text).content.onto(None, now=NOW)
    assert len(again) == 9
    assert again.block.columns() == held.block.columns()
    assert again.entries() == (rules,)


def test_a_list_of_more_entries_than_the_reader_takes_is_refused_before_its_columns_are_read():
    columns = {"fingerprints": "?" * 107, "expiries": "?"}  # of five, and no base64url
    text = resigned(lambda members: members.update(columns))
    with pytest.raises(TooManyEntries, match="more than 5 entries"):  # one of them is not in the columns
        read_signed_list(text, issuer=ISSUER, find=find, max_entries=5)
    with pytest.raises(ProtocolError, match="base64url"):
        read_signed_list(text, issuer=ISSUER, find=find, max_entries=6)


def test_a_reader_of_more_entries_takes_as_many_more_bytes():
    assert max_signed_bytes(1) == max_signed_bytes(MAX_ENTRIES) == MAX_SIGNED_BYTES
    assert max_signed_bytes(MAX_ENTRIES + 1_000) == MAX_SIGNED_BYTES + 36_000


@pytest.mark.parametrize("typ", ["at+jwt", "JWT", "REVOCATION-LIST+JWT", "revocation-list-extension+jwt", ""])
def test_a_statement_of_another_type_is_no_list(typ):
    with pytest.raises(UntrustedStatement, match="another type"):
        read(resigned(lambda members: None, typ=typ))


def test_the_type_may_be_written_in_full():
    assert read(resigned(lambda members: None, typ=f"application/{SIGNED_LIST_TYPE}")).seq == 5


def test_a_list_under_a_key_that_is_not_the_issuers_list_key_is_refused():
    with pytest.raises(UnknownSigner):
        read(issue().sign(PrivateKey.generate()))


def test_a_changed_list_is_refused():
    head, _, tail = issue().sign(KEY).split(".")
    other = issue(seq=6).sign(KEY).split(".")[1]
    with pytest.raises(UntrustedStatement, match="signature"):
        read(f"{head}.{other}.{tail}")


def test_the_other_spelling_of_its_signature_is_refused():
    with pytest.raises(UntrustedStatement, match="signature"):
        read(twin(issue().sign(KEY)))


def test_a_list_that_names_no_algorithm_of_its_key_is_refused():
    for header in ({"alg": "none"}, {"alg": "HS256"}, {"alg": "RS256"}):
        head = sign({"typ": SIGNED_LIST_TYPE}, b"{}", KEY).split(".")
        forged = sign({"typ": SIGNED_LIST_TYPE, "x": 1}, b"{}", KEY).split(".")
        from tokenry.jose.encoding import b64url_encode

        bad = b64url_encode(dump_json({"typ": SIGNED_LIST_TYPE, "kid": KEY.kid, **header}))
        with pytest.raises(UntrustedStatement):
            read(f"{bad}.{head[1]}.{forged[2]}")


def test_another_issuers_list_is_refused():
    with pytest.raises(ProtocolError, match="another issuer"):
        read(issue(issuer="https://other.example.org").sign(KEY))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("seq"),
        lambda m: m.pop("as_of"),
        lambda m: m.pop("entries"),
        lambda m: m.update(seq=0),
        lambda m: m.update(seq=True),
        lambda m: m.update(seq="5"),
        lambda m: m.update(seq=2**53),
        lambda m: m.update(iat=None),
        lambda m: m.update(iat=True),
        lambda m: m.update(iat=-1),
        lambda m: m.update(as_of="1"),
        lambda m: m.update(as_of=NOW + 10),
        lambda m: m.update(next_update=NOW),
        lambda m: m.update(next_update=1e300),
        lambda m: m.update(stream="x"),
        lambda m: m.update(stream=1),
        lambda m: m.update(prev="short"),
        lambda m: m.update(prev=0),
        lambda m: m.update(surprise=1),
        lambda m: m.update(fingerprints=""),
        lambda m: m.update(fingerprints="AAAA", expiries="AAAA"),
        lambda m: m.update(fingerprints=1, expiries=2),
        lambda m: m.update(epoch="7"),
        lambda m: m["entries"][0].update(kind="stranger"),
        lambda m: m.update(salts={}),
    ],
)
def test_a_list_with_anything_amiss_is_refused_whole(change):
    with pytest.raises(ProtocolError):
        read(resigned(change))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_list_or_refused(text):
    with pytest.raises(ProtocolError):
        read(text)
