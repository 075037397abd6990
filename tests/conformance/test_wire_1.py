"""
What the first release has put on the wire and into stores is still read, by what reads it today.

`tests/fixtures/wire-1` was recorded from running services (`tests/support/wire_fixtures.py`) and never changes:
neighbouring releases run side by side. And what a newer release adds is ignored where a standard says so (metadata,
keys), and refused where it could change a decision (a list, a stored object, a record).
"""

import io
import json
from pathlib import Path

import pytest

from tokenry.errors import InvalidToken, ProtocolError
from tokenry.jose.encoding import b64url_decode, b64url_encode
from tokenry.jose.jwks import KeySet
from tokenry.jose.sealing import EnvelopeKey
from tokenry.revocation.binary import format_binary_list
from tokenry.revocation.jsonform import format_list
from tokenry.revocation.lists import RevocationList
from tokenry.revocation.signed import read_signed_list
from tokenry.revocation.wire import parse_binary_list, parse_list
from tokenry.sources.metadata import parse_metadata
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import RevokedToken, Validator
from tokenry_registry.realms import ObjectKind, RefusedObject, read_key, read_object
from tokenry_registry.signing_keys import KeyUse, open_key, read_key_name, read_stored_key
from tokenry_revocation.list_keys import read_list_key
from tokenry_revocation.portable import check
from tokenry_revocation.records import Record, RecordType

FOLDER = Path(__file__).parents[1] / "fixtures" / "wire-1"
FACTS = json.loads((FOLDER / "tokens.json").read_bytes())
TOKENS, ISSUER, NOW = FACTS["tokens"], FACTS["issuer"], FACTS["recorded_at"]
LISTS = ("snapshot.json", "snapshot-created-at.json", "snapshot.bin", "changes.json", "signed-list.jwt")
REVOKED = {"revoked", "revoked_by_id", "of_a_leaked_client"}
STORED = sorted(path.relative_to(FOLDER / "stored").as_posix() for path in (FOLDER / "stored").rglob("*.json"))
ENVELOPE = EnvelopeKey.from_text((FOLDER / "envelope-key.txt").read_text().strip())


def body_of(name):
    return (FOLDER / name).read_bytes()


def the_list(name):
    if name == "signed-list.jwt":
        keys = KeySet.parse(body_of("list-jwks.json"), issuer=ISSUER)
        return read_signed_list(body_of(name).decode(), issuer=ISSUER, find=lambda kid: keys.find(ISSUER, kid)).content
    return parse_binary_list(body_of(name)) if name.endswith(".bin") else parse_list(body_of(name))


def judge(name, document):
    """What a validator of today says of a token of then, by a list of then."""
    held = RevocationList.of(
        document.entries,
        salts=document.salts,
        epoch=document.epoch,
        max_token_lifetime=document.max_token_lifetime,
        now=NOW,
    )
    if document.block:
        held = held.merge((), now=NOW, block=document.block)
    trusted = TrustedIssuer(
        issuer=ISSUER, max_token_lifetime=document.max_token_lifetime, accept_untyped=name == "plan_b"
    )
    validator = Validator(ValidationPolicy(issuers=(trusted,), audience=ANY_AUDIENCE))
    return validator.validate(
        TOKENS[name],
        now=NOW,
        keys=KeySet.parse(body_of("jwks.json"), issuer=ISSUER),
        revocations=held,
        list_age=0.0,
    )


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("token", sorted(TOKENS))
def test_a_token_of_then_is_judged_by_a_list_of_then_as_then(name, token):
    if token in REVOKED:
        with pytest.raises(RevokedToken):
            judge(token, the_list(name))
    else:
        assert judge(token, the_list(name)).claims["iss"] == ISSUER


def test_a_token_of_then_still_needs_its_signature():
    head, claims, signature = TOKENS["good"].split(".")
    changed = b64url_encode(b64url_decode(claims).replace(b'"demo"', b'"root"'))
    assert changed != claims
    TOKENS["changed"] = f"{head}.{changed}.{signature}"
    try:
        with pytest.raises(InvalidToken):
            judge("changed", the_list("snapshot.json"))
    finally:
        del TOKENS["changed"]


@pytest.mark.parametrize("name", [name for name in LISTS if name != "signed-list.jwt"])
def test_a_list_is_written_today_so_that_readers_of_then_take_it(name):
    """The first readers refuse a member that they do not know: the same list is still the same bytes."""
    document = the_list(name)
    if name.endswith(".bin"):
        assert format_binary_list(document) == body_of(name)
    else:
        assert format_list(document, created_at="created-at" in name) == body_of(name)


def test_all_lists_of_then_say_the_same():
    held = [the_list(name) for name in LISTS]
    assert len({(document.epoch, document.max_token_lifetime, tuple(document.salts.items())) for document in held}) == 1


@pytest.mark.parametrize("key", [key for key in STORED if key.startswith("realms/")])
def test_realms_clients_and_users_of_then_are_read(key):
    where = read_key(key)
    found = read_object(where, body_of(f"stored/{key}"), environment="dev", max_token_lifetime=3600)
    if where.kind is ObjectKind.CLIENT:
        assert found.secrets
    newer = json.dumps({**json.loads(body_of(f"stored/{key}")), "of_a_newer_release": True}).encode()
    with pytest.raises(RefusedObject):
        read_object(where, newer, environment="dev", max_token_lifetime=3600)


@pytest.mark.parametrize("key", [key for key in STORED if key.startswith("keys/")])
def test_keys_of_then_open_and_those_of_a_newer_form_do_not(key):
    kid, body = read_key_name(key), body_of(f"stored/{key}")
    stored = read_stored_key(body, kid=kid)
    if stored.use is KeyUse.LIST:
        assert read_list_key(body, kid=kid, envelope=ENVELOPE) is not None
    else:
        assert open_key(stored, envelope=ENVELOPE).public.kid == kid
    with pytest.raises(ProtocolError):
        read_stored_key(json.dumps({**json.loads(body), "of_a_newer_release": True}).encode(), kid=kid)


def records():
    lines = body_of("store.ndjson").splitlines()[1:-1]
    return [b64url_decode(json.loads(line)["body"]) for line in lines]


def test_records_of_then_are_read_and_written_as_they_were():
    found = [Record.from_bytes(body) for body in records()]
    kinds = {record.type for record in found}
    assert kinds == {RecordType.TOKEN, RecordType.CLAIM, RecordType.KEY, RecordType.UNDO}
    assert [record.to_bytes() for record in found] == records()


def test_a_record_of_a_newer_form_is_refused():
    body = next(body for body in records() if body.startswith(b"{"))
    for change in ({"format": 2}, {"of_a_newer_release": True}):
        with pytest.raises(ProtocolError):
            Record.from_bytes(json.dumps({**json.loads(body), **change}).encode())


def test_a_backup_of_then_is_restored():
    exported = check(io.BytesIO(body_of("store.ndjson")), issuer=ISSUER, environment="dev")
    assert exported.records == len(records())


def test_what_a_newer_issuer_adds_to_its_documents_is_ignored():
    newer = json.loads(body_of("jwks.json"))
    newer["of_a_newer_release"] = 1
    for key in newer["keys"]:
        key["of_a_newer_release"] = 1
    then = KeySet.parse(body_of("jwks.json"), issuer=ISSUER).kids(ISSUER)
    assert KeySet.parse(json.dumps(newer).encode(), issuer=ISSUER).kids(ISSUER) == then
    document = {**json.loads(body_of("metadata.json")), "of_a_newer_release": {"a": [1]}}
    found = parse_metadata(json.dumps(document).encode(), issuer=ISSUER)
    assert found == parse_metadata(body_of("metadata.json"), issuer=ISSUER)
    assert found.token_endpoint is not None


def test_a_newer_list_is_refused_whole():
    document = json.loads(body_of("snapshot.json"))
    entry = {**document["entries"][0], "of_a_newer_release": 1}
    kind = {**document["entries"][0], "kind": "of_a_newer_release"}
    for change in (
        {"of_a_newer_release": 1},
        {"entries": [*document["entries"], entry]},
        {"entries": [*document["entries"], kind]},
        {"kinds": [*document["kinds"], "of_a_newer_release"]},
    ):
        with pytest.raises(ProtocolError):
            parse_list(json.dumps({**document, **change}).encode())
