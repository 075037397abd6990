import contextlib
import hashlib
import time

import argon2
import bcrypt
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.services.issuer.support import weak_argon2, weak_bcrypt
from tokenry.errors import ProtocolError
from tokenry_registry.bootstrap import hash_password, hash_secret, new_secret
from tokenry_registry.secret_hashes import HashKind, decoy_like, matches, parse_hash

BCRYPT_BODY = "abcdefghijklmnopqrstuv" + "A" * 31


@pytest.mark.parametrize("store", [hash_secret, weak_argon2, weak_bcrypt], ids=["sha256", "argon2id", "bcrypt"])
@pytest.mark.parametrize("secret", ["plain", "with:colon %41+ &=", "grüße-🗝", "x" * 72])
def test_what_was_stored_matches_and_nothing_else(store, secret):
    stored = parse_hash(store(secret))
    assert matches(stored, secret)
    assert not matches(stored, secret + "x")
    assert not matches(stored, secret[:-1])
    assert not matches(stored, "")


def test_a_password_is_stored_with_the_parameters_that_the_rfc_recommends():
    stored = parse_hash(hash_password("pw"))
    assert stored.kind is HashKind.ARGON2ID
    assert "m=65536,t=3,p=4" in stored.text
    assert matches(stored, "pw")


def test_both_spellings_of_sha256_are_read():
    digest = hashlib.sha256(b"secret").digest()
    assert matches(parse_hash("sha256:" + digest.hex()), "secret")
    assert matches(parse_hash(hash_secret("secret")), "secret")
    assert not matches(parse_hash("sha256:" + digest.hex()), "Secret")


@pytest.mark.parametrize("prefix", ["2a", "2b", "2y"])
def test_every_prefix_of_bcrypt_is_read(prefix):
    text = weak_bcrypt("pw").replace("$2b$", f"${prefix}$")
    assert matches(parse_hash(text), "pw")


def test_a_new_secret_has_256_bits_and_needs_no_encoding():
    secrets = {new_secret() for _ in range(200)}
    assert len(secrets) == 200
    assert all(len(secret) == 43 and secret.replace("-", "").replace("_", "").isalnum() for secret in secrets)


def test_D53_a_bcrypt_secret_beyond_72_bytes_is_refused_and_not_cut():
    stored = parse_hash(weak_bcrypt("x" * 72))
    assert matches(stored, "x" * 72)
    assert not matches(stored, "x" * 73)
    assert not matches(stored, "x" * 10_000)


def test_an_odd_secret_is_a_mismatch_and_no_exception():
    for store in (hash_secret, weak_argon2, weak_bcrypt):
        stored = parse_hash(store("pw"))
        for odd in ("pw\0", "\0", "\ud800", "\r\n", "pw\0pw"):
            assert not matches(stored, odd)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "plain", "sha256:", "sha256:" + "0" * 63, "sha256:" + "G" * 64, "sha256:" + "A" * 44,
        "sha256:" + "ABCDEF" * 10 + "0000", "sha512:" + "0" * 64, "$2x$10$" + BCRYPT_BODY,
        "$2b$10$" + BCRYPT_BODY[:-1], "$2b$10$" + BCRYPT_BODY + "A", "$2b$1$" + BCRYPT_BODY,
        "$2b$10$" + BCRYPT_BODY[:-1] + "!", "$argon2i$v=19$m=64,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAA",
        "$argon2id$m=64,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64$AAAAAAAAAAA$AAAAAAAAAAAAAAAA",
        "$argon2id$v=16$m=64,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAA", "$argon2id$", "$2", "$2b$",
    ],
)  # fmt: skip
def test_D84_what_is_no_hash_is_refused_when_it_is_read(text):
    with pytest.raises(ProtocolError):
        parse_hash(text)


@pytest.mark.parametrize(
    "text",
    [
        "$2b$15$" + BCRYPT_BODY,
        "$2b$31$" + BCRYPT_BODY,
        "$2b$03$" + BCRYPT_BODY,
        "$argon2id$v=19$m=1048576,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=65536,t=99,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=262144,t=9,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=65536,t=1,p=64$AAAAAAAAAAA$AAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=8,t=1,p=4$AAAAAAAAAAA$AAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=0,t=0,p=0$AAAAAAAAAAA$AAAAAAAAAAAAAAAA",
    ],
)
def test_a_hash_that_would_freeze_the_service_is_refused_when_it_is_read(text):
    began = time.perf_counter()
    with pytest.raises(ProtocolError):
        parse_hash(text)
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize("secret", ["pw", "", "A", "x" * 100])
def test_a_decoy_costs_what_the_original_costs_and_matches_nothing(secret):
    for stored in map(parse_hash, (hash_secret("pw"), weak_argon2("pw"), weak_bcrypt("pw"))):
        decoy = decoy_like(stored)
        assert decoy.kind is stored.kind
        assert decoy.microseconds == stored.microseconds
        assert not matches(decoy, secret)


def test_a_decoy_is_a_hash_that_its_library_accepts():
    assert parse_hash(decoy_like(parse_hash(weak_argon2("pw"))).text).kind is HashKind.ARGON2ID
    bcrypt_decoy = decoy_like(parse_hash(weak_bcrypt("pw"))).text
    assert not bcrypt.checkpw(b"pw", bcrypt_decoy.encode())
    with pytest.raises(argon2.exceptions.VerifyMismatchError):
        argon2.PasswordHasher().verify(decoy_like(parse_hash(weak_argon2("pw"))).text, "pw")


def test_costlier_hashes_are_known_to_be_costlier():
    cheap, dear = parse_hash("$2b$10$" + BCRYPT_BODY), parse_hash("$2b$12$" + BCRYPT_BODY)
    assert parse_hash(hash_secret("x")).microseconds < cheap.microseconds < dear.microseconds


def test_a_hash_does_not_show_itself():
    text = hash_secret("pw")
    assert text[10:20] not in repr(parse_hash(text))


@given(st.text(max_size=200))
@examples(max_examples=200)
def test_any_text_is_a_hash_or_a_protocol_error(text):
    try:
        stored = parse_hash(text)
    except ProtocolError:
        return
    assert stored.text == text


@given(st.sampled_from(["$argon2id$v=19$m=", "$2b$", "sha256:", "$2"]), st.text("0123456789$,=mtpAB./", max_size=120))
@examples(max_examples=300)
def test_anything_that_begins_like_a_hash_is_one_or_a_protocol_error(head, tail):
    with contextlib.suppress(ProtocolError):
        parse_hash(head + tail)
