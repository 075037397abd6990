import copy
import json
import pickle
from dataclasses import replace

import pytest

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import b64url_encode
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.sealing import EnvelopeKey, Sealed, UnsealingFailed

ENVELOPE = EnvelopeKey.generate()
SEALED = ENVELOPE.seal(b"the secret", kid="k1", use="token")


def test_what_was_sealed_opens_again_also_from_its_json():
    assert ENVELOPE.open(SEALED, kid="k1", use="token") == b"the secret"
    again = Sealed.from_dict(json.loads(json.dumps(SEALED.to_dict())))
    assert again == SEALED
    assert EnvelopeKey.from_bytes(ENVELOPE.to_bytes()).open(again, kid="k1", use="token") == b"the secret"


def test_a_signing_key_survives_its_rest():
    key = PrivateKey.generate()
    sealed = ENVELOPE.seal(key.to_pkcs8_der(), kid=key.kid, use="token")
    assert PrivateKey.from_pkcs8_der(ENVELOPE.open(sealed, kid=key.kid, use="token")).public == key.public


def test_the_json_has_the_four_members_and_not_the_secret():
    members = SEALED.to_dict()
    assert set(members) == {"method", "data_key", "nonce", "ciphertext"}
    assert members["method"] == "local"
    assert b"the secret" not in SEALED.ciphertext


def test_nothing_is_used_twice():
    sealed = [ENVELOPE.seal(b"same", kid="k", use="token") for _ in range(50)]
    assert len({each.nonce for each in sealed}) == 50
    assert len({each.data_key[:12] for each in sealed}) == 50
    assert len({each.ciphertext for each in sealed}) == 50


@pytest.mark.parametrize(
    ("kid", "use"),
    [("k2", "token"), ("k1", "list"), ("", "token"), ("k1", ""), ("k1t", "oken"), ('k1","use":"token', "")],
)
def test_it_opens_for_no_other_kid_or_use(kid, use):
    with pytest.raises(UnsealingFailed):
        ENVELOPE.open(SEALED, kid=kid, use=use)


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize("part", ["data_key", "nonce", "ciphertext"])
def test_a_change_of_any_byte_is_noticed(part):
    data = getattr(SEALED, part)
    for changed in [
        *(flipped(data, position) for position in range(len(data))),
        data[:-1],
        data + b"\0",
        b"",
    ]:
        with pytest.raises(UnsealingFailed):
            ENVELOPE.open(replace(SEALED, **{part: changed}), kid="k1", use="token")


def test_another_key_or_another_method_does_not_open():
    with pytest.raises(UnsealingFailed):
        EnvelopeKey.generate().open(SEALED, kid="k1", use="token")
    with pytest.raises(UnsealingFailed):
        ENVELOPE.open(replace(SEALED, method="kms"), kid="k1", use="token")


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": None},
        {"nonce": 5},
        {"nonce": "A"},
        {"nonce": "AA=="},
        {"method": None},
        {"more": "x"},
        {"data_key": [1]},
    ],
)
def test_json_of_another_form_is_refused(change):
    with pytest.raises(ProtocolError):
        Sealed.from_dict(SEALED.to_dict() | change)
    members = SEALED.to_dict()
    del members["nonce"]
    with pytest.raises(ProtocolError):
        Sealed.from_dict(members)


def test_an_envelope_key_is_read_from_its_file():
    assert EnvelopeKey.from_text(ENVELOPE.to_text() + "\n").to_bytes() == ENVELOPE.to_bytes()


@pytest.mark.parametrize(
    "text", ["", "AAAA", "x" * 44, b64url_encode(bytes(31)), b64url_encode(bytes(33)), "not base64!"]
)
def test_what_is_no_envelope_key_is_refused(text):
    with pytest.raises(ProtocolError):
        EnvelopeKey.from_text(text)
    with pytest.raises(ProtocolError):
        EnvelopeKey.from_bytes(text.encode()[:31])


def test_an_envelope_key_is_neither_printed_nor_copied_out():
    assert repr(ENVELOPE) == str(ENVELOPE) == "EnvelopeKey(…)"
    assert "nonce" not in repr(SEALED)
    for dump in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="pickled"):
            dump(ENVELOPE)
