"""The keys that sign revocation lists: published by the issuer, in a set of their own, and never opened by it."""

import json

import pytest

from tests.services.issuer.support import DAY, ISSUER_URL, NOW, running
from tokenry.jose.jwks import KeySet
from tokenry.jose.sealing import EnvelopeKey
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import key_fingerprint
from tokenry.revocation.lists import RevocationList
from tokenry_registry import bootstrap

LIST_JWKS = "/.well-known/revocation-list-jwks.json"
METADATA = "/.well-known/oauth-authorization-server"
SALT = b"0123456789abcdef"


@pytest.fixture
async def issuer():
    async with running(with_list=True) as around:
        around.revocations.publish(RevocationList.of((), salts={"s": SALT}, epoch=1, max_token_lifetime=3600))
        yield around


def add_list_key(issuer, folder, *, use="list", **times):
    """Put a key there that another role's envelope key has sealed."""
    times = {"publish_at": NOW - DAY, "activate_at": NOW - DAY, "retire_at": NOW + DAY, **times}
    kid = bootstrap.create_signing_key(folder, EnvelopeKey.generate(), use=use, **times)
    issuer.store.put(f"keys/{kid}.json", (folder / "keys" / f"{kid}.json").read_bytes())
    return kid


async def test_without_a_list_key_the_metadata_name_no_place_and_there_is_no_set(issuer):
    assert "revocation_list_jwks_uri" not in (await issuer.call("GET", METADATA)).json
    answer = await issuer.call("GET", LIST_JWKS)
    assert answer.status == 503


async def test_a_list_key_is_published_by_itself_and_never_among_the_keys_of_tokens(issuer, tmp_path):
    kid = add_list_key(issuer, tmp_path)
    await issuer.refresh()
    assert (await issuer.call("GET", METADATA)).json["revocation_list_jwks_uri"] == ISSUER_URL + LIST_JWKS
    answer = await issuer.call("GET", LIST_JWKS)
    assert answer.headers["Cache-Control"].startswith("public, max-age=")
    assert KeySet.parse(answer.body, issuer=ISSUER_URL).kids(ISSUER_URL) == {kid}
    assert [key.keys() & {"d"} for key in answer.json["keys"]] == [set()]
    tokens = (await issuer.call("GET", "/.well-known/jwks.json")).json["keys"]
    assert kid not in {key["kid"] for key in tokens}
    again = await issuer.call("GET", LIST_JWKS, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


async def test_a_list_key_signs_no_token(issuer, tmp_path):
    kid = add_list_key(issuer, tmp_path, activate_at=NOW - 1)
    await issuer.refresh()
    answer = await issuer.token({"grant_type": "client_credentials", "realm": "services"})
    assert answer.header["kid"] != kid


async def test_keys_of_other_uses_are_in_neither_set(issuer, tmp_path):
    add_list_key(issuer, tmp_path, use="introspection")
    await issuer.refresh()
    assert (await issuer.call("GET", LIST_JWKS)).status == 503


async def test_a_list_key_is_published_from_its_time_on_and_until_its_end(issuer, tmp_path):
    add_list_key(issuer, tmp_path, publish_at=NOW + 100, activate_at=NOW + 200)
    await issuer.refresh()
    assert (await issuer.call("GET", LIST_JWKS)).status == 503
    issuer.clock.advance(150)
    issuer.revocations.publish(RevocationList.of((), salts={"s": SALT}, epoch=1, max_token_lifetime=3600))
    assert (await issuer.call("GET", LIST_JWKS)).status == 200
    issuer.clock.advance(2 * DAY)
    assert (await issuer.call("GET", LIST_JWKS)).status == 503


async def test_a_revoked_list_key_is_published_no_more(issuer, tmp_path):
    kid, other = add_list_key(issuer, tmp_path), add_list_key(issuer, tmp_path)
    await issuer.refresh()
    dead = Entry(id="r1", kind=Kind.KEY, fingerprint=key_fingerprint(ISSUER_URL, kid, salt=SALT), salt="s")
    issuer.revocations.publish(RevocationList.of((dead,), salts={"s": SALT}, epoch=1, max_token_lifetime=3600))
    answer = await issuer.call("GET", LIST_JWKS)
    assert {key["kid"] for key in answer.json["keys"]} == {other}


async def test_a_list_key_named_after_another_one_is_refused(issuer, tmp_path):
    one, two = add_list_key(issuer, tmp_path), add_list_key(issuer, tmp_path)
    members = json.loads(issuer.store.objects[f"keys/{one}.json"])
    members["public_jwk"] = json.loads(issuer.store.objects[f"keys/{two}.json"])["public_jwk"]
    issuer.store.put(f"keys/{one}.json", members)
    await issuer.refresh()
    answer = await issuer.call("GET", LIST_JWKS)
    assert {key["kid"] for key in answer.json["keys"]} == {two}
