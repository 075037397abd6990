import hashlib
import hmac
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry.errors import ConfigurationError
from tokenry.revocation.entries import Kind
from tokenry.revocation.fingerprints import (
    claims_fingerprint,
    derive_list_salt,
    fingerprint,
    jti_fingerprint,
    key_fingerprint,
    plan_b_hash,
    token_fingerprint,
)
from tokenry.secret import Secret

SALT = b"0123456789abcdef"
PAIRS = st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), min_size=1, max_size=3)


def by_hand(kind, *pairs):
    message = kind + b"\x00"
    for name, value in pairs:
        message += struct.pack(">I", len(name)) + name + struct.pack(">I", len(value)) + value
    return hmac.new(SALT, message, hashlib.sha256).digest()[:16]


def test_a_fingerprint_is_half_an_hmac_over_kind_and_lengths():
    assert jti_fingerprint("https://i", "j", salt=SALT) == by_hand(b"jti", (b"iss", b"https://i"), (b"jti", b"j"))
    assert token_fingerprint("h.p", salt=SALT) == by_hand(b"token", (b"token", b"h.p"))
    assert key_fingerprint("i", "k", salt=SALT) == by_hand(b"key", (b"iss", b"i"), (b"kid", b"k"))
    expected = by_hand(b"claims", (b"realm", b"/services"), (b"sub", "jörg".encode()))
    assert claims_fingerprint([("sub", "jörg"), ("realm", "/services")], salt=SALT) == expected


def test_the_vectors_stay_as_they_are():
    # Lists and state files of other versions hold these.
    assert jti_fingerprint("https://issuer.example", "0123", salt=SALT).hex() == "57f69f66f45e09fa65205a4c178d43ec"
    assert token_fingerprint("aGVhZGVy.cGF5bG9hZA", salt=SALT).hex() == "8b1494202b05884955a98c76116b173d"
    assert key_fingerprint("https://issuer.example", "kid-1", salt=SALT).hex() == "7bdeafba11c2f51f85d4681711bd5c94"
    assert claims_fingerprint([("sub", "jdoe"), ("realm", "/s")], salt=SALT).hex() == "19ba024c98e7fd88b90588938002e416"


@given(PAIRS, st.randoms(use_true_random=False))
def test_names_are_hashed_in_byte_order_whatever_order_they_come_in(pairs, random):
    items = list(pairs.items())
    random.shuffle(items)
    ordered = sorted(pairs.items(), key=lambda pair: pair[0].encode("utf-8", "surrogatepass"))
    expected = by_hand(
        b"claims",
        *((n.encode("utf-8", "surrogatepass"), v.encode("utf-8", "surrogatepass")) for n, v in ordered),
    )
    assert claims_fingerprint(items, salt=SALT) == expected


@given(PAIRS, PAIRS)
def test_different_claims_have_different_fingerprints(one, other):
    same = claims_fingerprint(one.items(), salt=SALT) == claims_fingerprint(other.items(), salt=SALT)
    assert same is (one == other)


def test_the_separator_of_plan_b_means_nothing_in_a_value():
    one = claims_fingerprint([("realm", "/a|b"), ("sub", "c")], salt=SALT)
    other = claims_fingerprint([("realm", "/a"), ("sub", "b|c")], salt=SALT)
    assert one != other


def test_kinds_are_told_apart():
    pairs = [("iss", "i"), ("jti", "j")]
    assert len({fingerprint(kind, pairs, salt=SALT) for kind in Kind}) == len(Kind)


def test_a_lone_surrogate_does_not_raise():
    assert len(claims_fingerprint([("sub", "\ud800")], salt=SALT)) == 16


def test_plan_b_hashes_are_those_of_plan_b():
    salt = "seasaltisthebest"
    assert plan_b_hash("jdoe", salt=salt) == "w2sGZC-G0eNf6ByQOgNOjgCXmz3XPZmQ9aEdtrWVafY="
    assert plan_b_hash("jdoe|/services", salt=salt) == "yhFIzQD4WJKx5Yz8DHkM9IgRR8J7Ylob7kt_Od2kA4w="


def test_the_salt_of_the_list_is_the_same_everywhere_and_not_the_hashing_salt():
    name, salt = derive_list_salt(Secret("seasaltisthebest"))
    assert (name, salt) == derive_list_salt(Secret("seasaltisthebest"))
    assert len(salt) == 32
    assert b"seasalt" not in salt
    other_name, other_salt = derive_list_salt(Secret("seasaltisthebest2"))
    assert other_name != name
    assert other_salt != salt


def test_an_empty_hashing_salt_is_refused():
    with pytest.raises(ConfigurationError, match="salt"):
        derive_list_salt(Secret(""))


def test_hashes_are_right_when_threads_make_them_at_once():
    texts = [f"token-{number}" for number in range(400)]
    expected = [(plan_b_hash(text, salt="s"), token_fingerprint(text, salt=SALT)) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(lambda text: (plan_b_hash(text, salt="s"), token_fingerprint(text, salt=SALT)), texts * 5)
        )
    assert found == expected * 5


@given(st.binary(min_size=16, max_size=100), st.text(max_size=300))
def test_a_fingerprint_is_hmac_sha256_for_salts_of_any_length(salt: bytes, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    message = b"token\x00\x00\x00\x00\x05token" + len(data).to_bytes(4, "big") + data
    assert token_fingerprint(text, salt=salt) == hmac.digest(salt, message, "sha256")[:16]
