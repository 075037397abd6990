"""
ECDSA signatures at the edges of their numbers, as Wycheproof's vectors probe them (RFC 7518 section 3.4).

The vectors are made here: each is a signature that some verifier somewhere accepted, or crashed on.
"""

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tokenry.jose.encoding import b64url_encode
from tokenry.jose.jwk import P256, P384, Algorithm, BadSignature, PublicKey

MESSAGE = b"signing input"
N, HALF = P256.order, P256.order // 2
PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1


def scalar(secret):
    return ec.derive_private_key(secret % N, ec.SECP256R1())


def public(key):
    numbers = key.public_key().public_numbers()
    x, y = (b64url_encode(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return PublicKey.from_jwk({"kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y})


def signature_with(secret, nonce, message=MESSAGE):
    """The textbook signature with a chosen nonce: (r, s) as numbers."""
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    r = scalar(nonce).public_key().public_numbers().x % N
    return r, pow(nonce, -1, N) * (digest + r * secret) % N


def raw(r, s):
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


SECRET = 0xC0FFEE
KEY = public(scalar(SECRET))
R, S = signature_with(SECRET, 12345)
LOW = min(S, N - S)


def accepts(signature, *, key=KEY, low_s=False, message=MESSAGE):
    try:
        key.verify(message, signature, low_s=low_s)
    except BadSignature:
        return False
    return True


def test_both_halves_of_s_verify_and_only_one_of_them_is_the_low_one():
    assert accepts(raw(R, LOW))
    assert accepts(raw(R, N - LOW))
    assert accepts(raw(R, LOW), low_s=True)
    assert not accepts(raw(R, N - LOW), low_s=True)


EDGES = [0, 1, 2, HALF, HALF + 1, N - 1, N, N + 1, PRIME - 1, PRIME, PRIME + 1, 2**255, 2**256 - 1]


@pytest.mark.parametrize("r", EDGES)
@pytest.mark.parametrize("s", EDGES)
def test_numbers_at_the_edges_are_no_signature(r, s):
    assert not accepts(raw(r, s))
    assert not accepts(raw(r, s), low_s=True)


@pytest.mark.parametrize("edge", EDGES)
def test_one_good_number_does_not_save_a_bad_one(edge):
    assert not accepts(raw(edge, S))
    assert not accepts(raw(R, edge))
    assert not accepts(raw(edge, LOW), low_s=True)


def test_numbers_beyond_n_do_not_count_modulo_n():
    # Choose a small s, and the key that makes (r, s) a signature: then s + n still fits into 32 bytes.
    r, digest = (
        scalar(777).public_key().public_numbers().x % N,
        int.from_bytes(hashlib.sha256(MESSAGE).digest(), "big"),
    )
    for s in (1, 2**100, 2**256 - N - 1):
        key = public(scalar(pow(r, -1, N) * (s * 777 - digest)))
        assert accepts(raw(r, s), key=key)
        assert not accepts(raw(r, s + N), key=key)


LENGTHS = [0, 1, 31, 32, 33, 63, 65, 66, 72, 96, 128, 1024]


@pytest.mark.parametrize("length", LENGTHS)
def test_every_other_length_is_refused(length):
    signature = raw(R, LOW)
    assert not accepts((signature * 16)[:length])
    assert not accepts(signature.rjust(length, b"\0")[-length:] if length > 64 else signature[:length])
    assert not accepts(signature.ljust(length, b"\0") if length > 64 else signature[:length])


def test_der_is_not_raw_even_where_it_happens_to_have_64_bytes():
    for nonce in range(1, 400):
        r, s = signature_with(SECRET, nonce)
        der = encode_dss_signature(r, s)
        assert not accepts(der)
        assert not accepts(der.ljust(64, b"\0")[:64])


def test_s_at_the_very_half_is_low():
    # Choose r and s first, and then the key that makes them a signature: Q = r^-1 (s R - z G).
    r = scalar(777).public_key().public_numbers().x % N
    digest = int.from_bytes(hashlib.sha256(MESSAGE).digest(), "big")
    for s, is_low in [(HALF, True), (HALF + 1, False), (1, True), (N - 1, False)]:
        secret = pow(r, -1, N) * (s * 777 - digest) % N
        key = public(scalar(secret))
        assert accepts(raw(r, s), key=key)
        assert accepts(raw(r, s), key=key, low_s=True) is is_low


def test_numbers_with_zeros_in_front_verify():
    # The DER form drops them; the raw form keeps its length.
    r = scalar(777).public_key().public_numbers().x % N
    digest = int.from_bytes(hashlib.sha256(MESSAGE).digest(), "big")
    for s in (1, 127, 128, 255, 256, 2**120, 2**127, 2**128, 2**247, 2**248 - 1, 2**248, 2**254):
        key = public(scalar(pow(r, -1, N) * (s * 777 - digest)))
        assert accepts(raw(r, s), key=key, low_s=True)


def test_an_r_with_zeros_in_front_verifies():
    nonce = next(nonce for nonce in range(1, 5000) if signature_with(SECRET, nonce)[0] < 2**248)
    r, s = signature_with(SECRET, nonce)
    assert accepts(raw(r, min(s, N - s)), low_s=True)


def test_an_r_beyond_n_on_the_curve_is_not_reduced():
    # x of a point may lie between n and p; its r is x - n. Then r itself must be given, never x.
    assert P256.order < PRIME
    assert not accepts(raw(PRIME - 1, S))


@pytest.mark.parametrize("message", [b"", b"\0", MESSAGE + b"\0", MESSAGE[:-1], MESSAGE.upper()])
def test_another_message_does_not_verify(message):
    assert not accepts(raw(R, S), message=message)


def test_our_der_is_what_the_cryptography_writes():
    for nonce in range(1, 300):
        r, s = signature_with(SECRET, nonce)
        assert P256.der(raw(r, s), low_s=False) == encode_dss_signature(r, s)
    largest = P384.order - 1
    raw384 = largest.to_bytes(48, "big") * 2
    assert P384.der(raw384, low_s=False) == encode_dss_signature(largest, largest)


def test_verification_agrees_with_the_cryptography_on_mutations():
    verifier = scalar(SECRET).public_key()
    good = raw(R, LOW)
    for position in range(64):
        for bit in (1, 0x80):
            changed = good[:position] + bytes([good[position] ^ bit]) + good[position + 1 :]
            r, s = (int.from_bytes(half, "big") for half in (changed[:32], changed[32:]))
            with pytest.raises(InvalidSignature):
                verifier.verify(encode_dss_signature(r, s), MESSAGE, ec.ECDSA(hashes.SHA256()))
            assert not accepts(changed)


def test_a_key_of_another_algorithm_does_not_take_the_signature():
    p384 = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
    x, y = (b64url_encode(number.to_bytes(48, "big")) for number in (p384.x, p384.y))
    key = PublicKey.from_jwk({"kty": "EC", "crv": "P-384", "kid": "k", "x": x, "y": y}, algorithms=(Algorithm.ES384,))
    assert not accepts(raw(R, S), key=key)
    assert not accepts(raw(R, S).rjust(96, b"\0"), key=key)
