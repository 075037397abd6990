import json

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tokenry.errors import ConfigurationError
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.sealing import EnvelopeKey
from tokenry_registry import bootstrap
from tokenry_registry.envelope import read_envelope_key
from tokenry_registry.realms import Refusal, RefusedObject
from tokenry_registry.signing_keys import KeyUse, open_key, read_key_name, read_stored_key

ENVELOPE = EnvelopeKey.generate()


def members(envelope=ENVELOPE, *, use="token", private=None, **changes):
    private = private or PrivateKey.generate()
    return {
        "version": 1,
        "kid": private.kid,
        "use": use,
        "public_jwk": private.public.to_jwk(),
        "publish_at": 1,
        "activate_at": 2,
        "retire_at": 3,
        "sealed": envelope.seal(private.to_pkcs8_der(), kid=private.kid, use=use).to_dict(),
        **changes,
    }


def read(value, kid=None):
    return read_stored_key(json.dumps(value).encode(), kid=kid or value["kid"])


def cause(value, **options):
    with pytest.raises(RefusedObject) as refused:
        open_key(read(value, **options), envelope=ENVELOPE)
    return refused.value.cause


def test_a_key_is_unsealed_and_works():
    value = members()
    key = open_key(read(value), envelope=ENVELOPE)
    key.public.verify(b"data", key.private.sign(b"data"), low_s=True)
    assert key.private.kid == value["kid"] == key.times.kid
    assert (key.times.publish_at, key.times.activate_at, key.times.retire_at) == (1, 2, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"version": None}, {"use": "sig"}, {"use": 1}, {"publish_at": "1"}, {"publish_at": 5},
        {"retire_at": 2}, {"activate_at": -1}, {"sealed": None}, {"sealed": {}}, {"sealed": "x"}, {"public_jwk": []},
        {"kms_key_id": "arn:aws:kms:x"}, {"note": "x"}, {"kid": ""}, {"retire_at": 1e9},
    ],
    ids=str,
)  # fmt: skip
def test_a_key_object_with_a_wrong_member_is_refused(change):
    value = members()
    assert cause({**value, **change}, kid=value["kid"]) is Refusal.MALFORMED


def test_a_key_under_another_name_is_refused():
    assert cause(members(), kid="other") is Refusal.WRONG_NAME


def test_a_key_sealed_under_another_envelope_does_not_open():
    assert cause(members(EnvelopeKey.generate())) is Refusal.MALFORMED


def test_J10_a_list_key_put_in_the_place_of_a_token_key_does_not_open():
    value = members(use="list")
    assert read(value).use is KeyUse.LIST
    assert cause({**value, "use": "token"}) is Refusal.MALFORMED


def test_a_public_half_of_another_key_is_refused():
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()
    mixed = members(private=ours, public_jwk={**theirs.public.to_jwk(), "kid": ours.kid})
    assert cause(mixed) is Refusal.MALFORMED


def test_a_kid_that_is_not_the_thumbprint_is_refused():
    private = PrivateKey.generate()
    sealed = ENVELOPE.seal(private.to_pkcs8_der(), kid="mine", use="token").to_dict()
    assert cause(members(private=private, kid="mine", sealed=sealed)) is Refusal.MALFORMED


def test_sealed_content_that_is_no_key_is_refused():
    private = PrivateKey.generate()
    sealed = ENVELOPE.seal(b"hello", kid=private.kid, use="token").to_dict()
    assert cause(members(private=private, sealed=sealed)) is Refusal.MALFORMED


def test_a_changed_ciphertext_does_not_open():
    value = members()
    text = value["sealed"]["ciphertext"]
    value["sealed"]["ciphertext"] = ("B" if text[0] != "B" else "C") + text[1:]
    assert cause(value) is Refusal.MALFORMED


@pytest.mark.parametrize("key", ["keys/", "keys/.json", "keys/a/b.json", "keys/a", "realms/a.json", "a.json"])
def test_a_key_without_a_place_in_the_layout_is_refused(key):
    with pytest.raises(RefusedObject):
        read_key_name(key)


def test_a_key_is_named_by_its_file():
    assert read_key_name("keys/abc.json") == "abc"


def test_neither_half_shows_the_private_one():
    value = members()
    stored = read(value)
    assert value["sealed"]["ciphertext"] not in repr(stored)
    assert "PrivateKey" in repr(open_key(stored, envelope=ENVELOPE))


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=2))
@examples(max_examples=150)
def test_any_damage_to_a_key_object_is_refused_or_changes_nothing_that_counts(position, damage):
    body = bytearray(_BODY)
    body[position % len(body) : position % len(body) + 1] = damage
    try:
        key = open_key(read_stored_key(bytes(body), kid=_VALUE["kid"]), envelope=ENVELOPE)
    except RefusedObject:
        return
    assert key.private.kid == _VALUE["kid"]


_VALUE = members()
_BODY = json.dumps(_VALUE).encode()


# --- the envelope key's file ----------------------------------------------------------------------------------


def test_an_envelope_key_is_made_once_and_readable_by_its_owner_only(tmp_path):
    path = tmp_path / "sub" / "envelope.key"
    first = bootstrap.create_envelope_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert bootstrap.create_envelope_key(path).to_bytes() == first.to_bytes()


def fault(path):
    with pytest.raises(ConfigurationError) as refused:
        read_envelope_key(path)
    return str(refused.value)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o660, 0o620, 0o777, 0o444])
def test_an_envelope_key_that_others_may_read_or_a_group_may_write_is_refused(tmp_path, mode):
    path = tmp_path / "envelope.key"
    bootstrap.create_envelope_key(path)
    path.chmod(mode)
    assert "chmod 600" in fault(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_an_envelope_key_may_be_readable_by_a_group_as_kubernetes_and_systemd_hand_it_over(tmp_path, mode):
    path = tmp_path / "envelope.key"
    made = bootstrap.create_envelope_key(path)
    path.chmod(mode)
    assert read_envelope_key(path).to_bytes() == made.to_bytes()


@pytest.mark.parametrize("content", [b"", b"x" * 42, b"\xff" * 43, b"A" * 1000, b"not base64 at all!"])
def test_a_file_that_is_no_envelope_key_is_refused_without_its_content(tmp_path, content):
    path = tmp_path / "envelope.key"
    path.write_bytes(content)
    path.chmod(0o600)
    assert "no envelope key" in fault(path)


def test_a_missing_envelope_key_is_a_fault_that_names_the_setting(tmp_path):
    assert "TOKENRY_ENVELOPE_KEY_FILE" in fault(tmp_path / "none")
