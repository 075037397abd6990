import json

import pytest

from tokenry.errors import ProtocolError
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import MAX_DOCUMENT_BYTES, MAX_KEYS, KeySet

ISSUER = "https://issuer.example"
OTHER = "https://other.example"
ONE, TWO = PrivateKey.generate().public, PrivateKey.generate().public


def document(*jwks, **more):
    return json.dumps({"keys": list(jwks), **more}).encode()


def test_a_key_is_found_by_its_issuer_and_its_id():
    keys = KeySet.parse(document(ONE.to_jwk(), TWO.to_jwk(), unknown="member"), issuer=ISSUER)
    assert keys.find(ISSUER, ONE.kid) == ONE
    assert keys.find(ISSUER, TWO.kid) == TWO
    assert keys.find(ISSUER, "another") is None
    assert keys.find(OTHER, ONE.kid) is None
    assert keys.kids(ISSUER) == {ONE.kid, TWO.kid}
    assert keys.kids(OTHER) == frozenset()
    assert keys.has_issuer(ISSUER)
    assert not keys.has_issuer(OTHER)
    assert len(keys) == 2
    assert keys.rejected == ()


def test_contract_4_10_a_key_that_cannot_be_used_does_not_take_the_others_with_it():
    off_curve = {**TWO.to_jwk(), "x": ONE.to_jwk()["x"]}
    oct_key = {"kty": "oct", "kid": "o", "k": "AAAA"}
    for_encryption = {**TWO.to_jwk(), "use": "enc"}
    private = {**TWO.to_jwk(), "d": "AAAA"}
    keys = KeySet.parse(document(off_curve, oct_key, for_encryption, private, 5, None, ONE.to_jwk()), issuer=ISSUER)
    assert keys.kids(ISSUER) == {ONE.kid}
    assert len(keys.rejected) == 6
    assert "not on the curve" in keys.rejected[0]
    assert "private" in keys.rejected[3]
    assert all(ISSUER in reason for reason in keys.rejected)
    assert "AAAA" not in "".join(keys.rejected)


NO_KEY_SET = {
    "empty": b"",
    "no json": b"<html>",
    "an array": b"[]",
    "no keys": b"{}",
    "an empty set": document(),
    "keys that are an object": b'{"keys":{}}',
    "keys that are null": b'{"keys":null}',
    "no usable key": document({"kty": "oct", "kid": "o", "k": "AAAA"}),
    "keys twice": b'{"keys":[],"keys":[]}',
    "too many keys": document(*[ONE.to_jwk()] * (MAX_KEYS + 1)),
    "too large": document(ONE.to_jwk(), filler="x" * MAX_DOCUMENT_BYTES),
    "one id for two keys": document(ONE.to_jwk(), {**TWO.to_jwk(), "kid": ONE.kid}),
}


@pytest.mark.parametrize("body", NO_KEY_SET.values(), ids=NO_KEY_SET.keys())
def test_contract_4_10_what_must_not_replace_a_good_set_is_refused(body):
    with pytest.raises(ProtocolError):
        KeySet.parse(body, issuer=ISSUER)


def test_the_largest_set_is_read():
    keys = KeySet.parse(document(*[ONE.to_jwk()] * MAX_KEYS), issuer=ISSUER)
    assert len(keys) == 1


def test_one_key_listed_twice_is_one_key():
    assert len(KeySet.parse(document(ONE.to_jwk(), ONE.to_jwk()), issuer=ISSUER)) == 1


def test_sets_of_several_issuers_stay_apart_even_with_one_id():
    stolen = PrivateKey.generate().public
    foreign = KeySet.parse(document({**stolen.to_jwk(), "kid": ONE.kid}, 5), issuer=OTHER)
    both = KeySet.union(KeySet.of(ISSUER, [ONE]), foreign)
    assert both.find(ISSUER, ONE.kid) == ONE
    assert both.find(OTHER, ONE.kid).members == stolen.members
    assert both.rejected == foreign.rejected
    assert KeySet.union().find(ISSUER, ONE.kid) is None


def test_one_id_for_two_keys_of_one_issuer_is_refused_in_a_union_too():
    other = KeySet.parse(document({**TWO.to_jwk(), "kid": ONE.kid}), issuer=ISSUER)
    with pytest.raises(ProtocolError):
        KeySet.union(KeySet.of(ISSUER, [ONE]), other)
    with pytest.raises(ProtocolError):
        KeySet.of(ISSUER, [ONE, other.find(ISSUER, ONE.kid)])


def test_the_same_keys_are_published_as_the_same_bytes():
    keys = KeySet.of(ISSUER, [ONE, TWO])
    assert keys.to_jwks() == KeySet.of(ISSUER, [TWO, ONE]).to_jwks()
    assert KeySet.parse(keys.to_jwks(), issuer=ISSUER).kids(ISSUER) == {ONE.kid, TWO.kid}
    both = KeySet.union(keys, KeySet.of(OTHER, [PrivateKey.generate().public]))
    assert both.to_jwks(ISSUER) == keys.to_jwks()
    assert len(json.loads(both.to_jwks())["keys"]) == 3


def test_a_set_does_not_print_its_keys_and_cannot_be_changed():
    keys = KeySet.of(ISSUER, [ONE])
    assert ONE.to_jwk()["x"] not in repr(keys)
    with pytest.raises(AttributeError):
        keys.rejected = ()
    assert dict(keys.items()) == {(ISSUER, ONE.kid): ONE}
