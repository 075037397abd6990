import copy
import pickle

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import b64url_decode, b64url_encode
from tokenry.jose.jwk import P256, P384, Algorithm, BadSignature, PrivateKey, PublicKey, thumbprint

KEY = PrivateKey.generate()
JWK = KEY.public.to_jwk()
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ALL = tuple(Algorithm)


def number(value, size=None):
    return b64url_encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def rsa_jwk(key=RSA, **changes):
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": "r", "n": number(numbers.n), "e": number(numbers.e), **changes}


def p384_jwk(key):
    numbers = key.public_key().public_numbers()
    return {"kty": "EC", "kid": "k", "crv": "P-384", "x": number(numbers.x, 48), "y": number(numbers.y, 48)}


def test_a_published_key_has_exactly_the_members_that_verifying_takes():
    assert set(JWK) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert JWK["kty"] == "EC"
    assert JWK["crv"] == "P-256"
    assert JWK["use"] == "sig"
    assert JWK["alg"] == "ES256"
    assert JWK["kid"] == thumbprint(JWK) == KEY.kid
    assert PublicKey.from_jwk(JWK) == KEY.public


def test_contract_4_10_coordinates_keep_the_zeros_in_front():
    # The private number 0x... is small enough to search: the x of this point begins with a zero byte.
    secret = next(
        n
        for n in range(1, 5000)
        if ec.derive_private_key(n, ec.SECP256R1()).public_key().public_numbers().x >> 248 == 0
    )
    key = PrivateKey(ec.derive_private_key(secret, ec.SECP256R1()))
    x = b64url_decode(key.public.to_jwk()["x"])
    assert len(x) == 32
    assert x[0] == 0
    assert PublicKey.from_jwk(key.public.to_jwk()) == key.public
    with pytest.raises(ProtocolError, match="32 bytes"):
        PublicKey.from_jwk(key.public.to_jwk() | {"x": b64url_encode(x[1:])})


def test_the_thumbprint_is_that_of_the_rfc():
    # RFC 7638 section 3.1
    jwk = {
        "kty": "RSA",
        "n": (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1"
            "L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4"
            "QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbO"
            "pbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csF"
            "Cur-kEgU8awapJzKnqDKgw"
        ),
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "oct", "k": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA"},
        {"kty": 5},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": 1},
    ],
)
def test_a_key_without_its_members_has_no_thumbprint(jwk):
    with pytest.raises(ProtocolError):
        thumbprint(jwk)


UNUSABLE = {
    "no kid": {"kid": None},
    "a kid that is a number": {"kid": 5},
    "an empty kid": {"kid": ""},
    "a kid of 10 kB": {"kid": "k" * 10_000},
    "meant for encryption": {"use": "enc"},
    "use is null": {"use": None},
    "operations without verify": {"key_ops": ["sign"]},
    "operations that are no list": {"key_ops": "verify"},
    "a private key": {"d": "AA"},
    "private, even if null": {"d": None},
    "a symmetric secret beside": {"k": "AA"},
    "another alg": {"alg": "RS256"},
    "alg none": {"alg": "none"},
    "alg null": {"alg": None},
    "alg in small letters": {"alg": "es256"},
    "another kty": {"kty": "OKP"},
    "kty oct": {"kty": "oct"},
    "no kty": {"kty": None},
    "kty a list": {"kty": ["EC"]},
    "another curve": {"crv": "P-521"},
    "the curve of Bitcoin": {"crv": "secp256k1"},
    "the larger curve with the smaller point": {"crv": "P-384", "alg": "ES384"},
    "no curve": {"crv": None},
    "no x": {"x": None},
    "an empty x": {"x": ""},
    "x with padding": {"x": JWK["x"] + "="},
    "x with a zero too many": {"x": b64url_encode(b"\0" + b64url_decode(JWK["x"]))},
    "x one byte short": {"x": b64url_encode(b64url_decode(JWK["x"])[1:])},
    "x as a number": {"x": 5},
    "off the curve": {"x": JWK["y"]},
    "the point at infinity": {"x": number(0, 32), "y": number(0, 32)},
    "a coordinate beyond the field": {"x": b64url_encode(b"\xff" * 32)},
}


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_key_that_is_malformed_or_for_something_else_is_refused(change):
    with pytest.raises(ProtocolError):
        PublicKey.from_jwk({**JWK, **change}, algorithms=ALL)


@pytest.mark.parametrize("without", ["use", "alg", "key_ops"])
def test_members_that_only_confirm_may_be_absent(without):
    jwk = {**JWK, "key_ops": ["verify"]}
    del jwk[without]
    assert PublicKey.from_jwk(jwk) == KEY.public


def test_an_algorithm_that_is_not_configured_is_refused():
    with pytest.raises(ProtocolError, match="not configured"):
        PublicKey.from_jwk(rsa_jwk())
    with pytest.raises(ProtocolError, match="not configured"):
        PublicKey.from_jwk(JWK, algorithms=(Algorithm.RS256,))


def small_rsa(bits):
    return rsa_jwk(n=number((1 << (bits - 1)) | 1))


@pytest.mark.parametrize(
    "jwk",
    [
        small_rsa(1024),
        small_rsa(2047),
        small_rsa(8193),
        rsa_jwk(n=""),
        rsa_jwk(n=b64url_encode(b"\0" + b64url_decode(rsa_jwk()["n"]))),
        rsa_jwk(n=number((1 << 2047) | 2)),
        rsa_jwk(n=None),
        rsa_jwk(e=number(1)),
        rsa_jwk(e=number(3)),
        rsa_jwk(e=number(65538)),
        rsa_jwk(e=number((1 << 32) + 1)),
        rsa_jwk(e=b64url_encode(b"\0\1\0\1")),
        rsa_jwk(e=""),
        rsa_jwk(alg="PS256"),
        rsa_jwk(p="AA"),
    ],
)
def test_an_unsound_rsa_key_is_refused(jwk):
    with pytest.raises(ProtocolError):
        PublicKey.from_jwk(jwk, algorithms=ALL)


def test_rs256_verifies_for_a_foreign_issuer():
    key = PublicKey.from_jwk(rsa_jwk(alg="RS256"), algorithms=(Algorithm.RS256,))
    signature = RSA.sign(b"input", padding.PKCS1v15(), hashes.SHA256())
    key.verify(b"input", signature, low_s=False)
    assert PublicKey.from_jwk(key.to_jwk(), algorithms=ALL) == key
    for data, bad in [
        (b"inpuT", signature),
        (b"input", signature[:-1]),
        (b"input", b"\0" + signature),
        (b"input", b""),
    ]:
        with pytest.raises(BadSignature):
            key.verify(data, bad, low_s=False)
    pss = RSA.sign(b"input", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    with pytest.raises(BadSignature):
        key.verify(b"input", pss, low_s=False)


def test_es384_verifies_for_a_foreign_issuer():
    private = ec.generate_private_key(ec.SECP384R1())
    key = PublicKey.from_jwk(p384_jwk(private), algorithms=(Algorithm.ES384,))
    for message in (b"a", b"b", b"c", b"d", b"e", b"f"):
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
        key.verify(message, signature, low_s=False)
        key.verify(message, P384.twin(signature), low_s=False)
        with pytest.raises(BadSignature):
            key.verify(b"another", signature, low_s=False)
        with pytest.raises(BadSignature):
            key.verify(message, max(signature, P384.twin(signature)), low_s=True)
    assert PublicKey.from_jwk(key.to_jwk(), algorithms=ALL) == key


def test_keys_are_equal_by_what_they_verify():
    assert PublicKey.from_jwk(JWK) == PublicKey.from_jwk(dict(JWK))
    assert len({PublicKey.from_jwk(JWK), PublicKey.from_jwk(dict(JWK))}) == 1
    assert PublicKey.from_jwk(JWK | {"kid": "other"}) != KEY.public
    assert PrivateKey.generate().public != KEY.public


def test_a_private_key_survives_its_file():
    der = KEY.to_pkcs8_der()
    assert PrivateKey.from_pkcs8_der(der).kid == KEY.kid
    pem = serialization.load_der_private_key(der, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    again = PrivateKey.from_pem(pem)
    KEY.public.verify(b"input", again.sign(b"input"), low_s=True)


def pem_of(key, encryption=None):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem_of(RSA),
        pem_of(ed25519.Ed25519PrivateKey.generate()),
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"password")),
    ],
    ids=["empty", "garbage", "rsa", "ed25519", "p-384", "encrypted"],
)
def test_a_file_that_is_no_p256_key_is_refused_without_being_quoted(pem):
    with pytest.raises(ProtocolError) as refused:
        PrivateKey.from_pem(pem)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    with pytest.raises(ProtocolError):
        PrivateKey.from_pkcs8_der(pem)


def test_a_private_key_is_neither_printed_nor_copied_out():
    assert repr(KEY) == str(KEY) == f"PrivateKey(kid={KEY.kid!r})"
    for dump in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="pickled"):
            dump(KEY)


def test_a_public_key_is_printed_by_its_id_only():
    assert repr(KEY.public) == f"PublicKey(kid={KEY.kid!r}, algorithm=<Algorithm.ES256: 'ES256'>)"


@pytest.mark.parametrize("curve", [P256, P384])
@given(data=st.data())
def test_J08_the_short_way_to_raw_is_the_long_one_for_every_pair_of_numbers(curve, data):
    """Also where a number is short, or begins with a bit that DER pads."""
    number = st.integers(1, curve.order - 1) | st.integers(0, 8 * curve.size - 1).map(lambda bits: 1 << bits)
    r, s = (min(data.draw(number), curve.order - 1) for _ in range(2))
    der = encode_dss_signature(r, s)
    raw = curve.low_raw_of_ours(der)
    assert raw == curve.low_raw(der)
    assert (len(raw), raw[curve.size :] <= curve.half_order_bytes) == (2 * curve.size, True)


def test_signing_twice_gives_the_same_bytes():
    # RFC 6979: a nonce that repeats, or is biased, gives the key away; this one is derived.
    assert KEY.sign(b"input") == KEY.sign(b"input")
    assert KEY.sign(b"input") != KEY.sign(b"inpuT")


def test_the_nonce_is_that_of_the_rfc():
    # RFC 6979 appendix A.2.5, SHA-256, "sample": r as printed, s replaced by n - s where it is the high one.
    key = PrivateKey(
        ec.derive_private_key(0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721, ec.SECP256R1())
    )
    signature = key.sign(b"sample")
    s = 0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8
    assert signature[:32].hex().upper() == "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
    assert int.from_bytes(signature[32:], "big") == min(s, P256.order - s)
