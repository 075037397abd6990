import hashlib
import hmac
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenry.errors import ProtocolError, Reason
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_decode, b64url_encode
from tokenry.jose.jwk import P256, BadSignature, PrivateKey, PublicKey

KEY = PrivateKey.generate()


def compact(header, payload=b"{}", signature=b"\1" * 64):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return f"{b64url_encode(head)}.{b64url_encode(payload)}.{b64url_encode(signature)}"


def verify(token, key=KEY.public, *, low_s=True):
    parts = jws.split(token)
    key.verify(parts.signing_input, parts.signature, low_s=low_s)
    return parts


def test_what_was_signed_comes_back_verified():
    token = jws.sign({"typ": "at+jwt"}, b"payload", KEY)
    parts = verify(token)
    assert parts.header == {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}
    assert parts.payload == b"payload"
    assert token.startswith(parts.signing_input.decode() + ".")
    assert len(parts.signature) == 64
    assert "=" not in token


def test_the_same_bytes_give_the_same_token_so_that_no_nonce_can_repeat_for_others():
    assert jws.sign({}, b"payload", KEY) == jws.sign({}, b"payload", KEY)


@given(st.binary(max_size=50))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_our_signatures_have_the_low_s(payload):
    verify(jws.sign({}, payload, KEY), low_s=True)


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "ES384"}, {"kid": "another"}, {"kid": None}])
def test_a_header_cannot_name_another_key_than_the_signers(header):
    with pytest.raises(ValueError, match="signer"):
        jws.sign(header, b"", KEY)


def test_a_header_may_repeat_what_the_signer_says():
    assert verify(jws.sign({"alg": "ES256", "kid": KEY.kid}, b"", KEY)).header["kid"] == KEY.kid


def test_the_example_of_the_rfc_verifies_where_any_s_is_accepted():
    # RFC 7515 appendix A.3; its s is above n/2, which we do not accept from ourselves.
    token = (
        "eyJhbGciOiJFUzI1NiJ9"
        ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    key = PublicKey.from_jwk(
        {
            "kty": "EC",
            "kid": "appendix A.3",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }
    )
    parts = verify(token, key, low_s=False)
    assert json.loads(parts.payload)["iss"] == "joe"
    with pytest.raises(BadSignature):
        verify(token, key, low_s=True)
    verify(jws.twin(token), key, low_s=True)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", Reason.NOT_COMPACT),
        ("a.b", Reason.NOT_COMPACT),
        ("a.b.c.d", Reason.NOT_COMPACT),
        ("a.b.c.d.e", Reason.NOT_COMPACT),
        ('{"payload":"e30","signatures":[]}', Reason.NOT_COMPACT),
        ("x" * 8193, Reason.TOO_LARGE),
        ("." * 21_000_000, Reason.TOO_LARGE),
        ("é.e30.AA", Reason.NOT_CANONICAL),
        ("\udc80.e30.AA", Reason.NOT_CANONICAL),
        ("e30=.e30.AA", Reason.NOT_CANONICAL),
        ("e30.e30=.AA", Reason.NOT_CANONICAL),
        ("e30.e30.AA==", Reason.NOT_CANONICAL),
        ("e30.e30.AB", Reason.NOT_CANONICAL),
        ("e31.e30.AA", Reason.NOT_CANONICAL),
        ("e30.e31.AA", Reason.NOT_CANONICAL),
        ("e30 .e30.AA", Reason.NOT_CANONICAL),
        ("e30.e3/.AA", Reason.NOT_CANONICAL),
        ("e30\n.e30.AA", Reason.NOT_CANONICAL),
        (".e30.AA", Reason.MALFORMED_HEADER),
        (compact(b"[]"), Reason.MALFORMED_HEADER),
        (compact(b'{"alg":"none","alg":"ES256"}'), Reason.MALFORMED_HEADER),
        (compact(b"\xef\xbb\xbf{}"), Reason.MALFORMED_HEADER),
        (compact('{"alg":"ES256"}'.encode("utf-16")), Reason.MALFORMED_HEADER),
        (compact({"alg": ["ES256"]}), Reason.MALFORMED_HEADER),
        (compact({"alg": None}), Reason.MALFORMED_HEADER),
        (compact({"cty": 5}), Reason.MALFORMED_HEADER),
        (compact({"jwk": "x"}), Reason.MALFORMED_HEADER),
        (compact({"x5c": "x"}), Reason.MALFORMED_HEADER),
        (compact({"b64": False}), Reason.UNSUPPORTED_CRITICAL),
        (compact({"crit": ["exp"]}), Reason.UNSUPPORTED_CRITICAL),
        (compact({"crit": ["x"], "x": 1}), Reason.UNSUPPORTED_CRITICAL),
        (compact({"crit": []}), Reason.UNSUPPORTED_CRITICAL),
        (compact({"crit": None}), Reason.UNSUPPORTED_CRITICAL),
        (compact({"crit": ["b64"], "b64": False}), Reason.UNSUPPORTED_CRITICAL),
    ],
)
def test_what_is_not_a_compact_jws_is_refused_with_its_reason(token, reason):
    with pytest.raises(jws.MalformedJws) as refused:
        jws.split(token)
    assert refused.value.reason is reason
    assert isinstance(refused.value, ProtocolError)


def test_a_longer_jws_is_read_where_it_is_allowed():
    token = compact({}, payload=b"x" * 10_000)
    with pytest.raises(jws.MalformedJws):
        jws.split(token)
    assert jws.split(token, max_bytes=20_000).payload == b"x" * 10_000


def test_the_largest_token_is_split_and_not_one_character_more():
    token = f"e30.{'A' * 8184}.AAA"
    assert len(token) == jws.MAX_TOKEN_BYTES
    assert len(jws.split(token).payload) == 6138
    with pytest.raises(jws.MalformedJws) as refused:
        jws.split(f"{token}A")
    assert refused.value.reason is Reason.TOO_LARGE


def test_the_parts_are_not_printed():
    assert "ey" not in repr(jws.split(compact({"alg": "ES256"}, b'{"sub":"x"}')))
    assert "sub" not in repr(jws.split(compact({"alg": "ES256"}, b'{"sub":"x"}')))


def test_the_twin_verifies_where_any_s_is_accepted_and_only_there():
    token = jws.sign({}, b"payload", KEY)
    other = jws.twin(token)
    assert other != token
    assert jws.twin(other) == token
    assert jws.split(other).signing_input == jws.split(token).signing_input
    verify(other, low_s=False)
    with pytest.raises(BadSignature):
        verify(other, low_s=True)


def test_a_token_with_another_kind_of_signature_has_no_twin():
    for header in ({"alg": "RS256"}, {"alg": "none"}, {}):
        assert jws.twin(compact(header)) == compact(header)
    assert jws.twin(compact({"alg": "ES384"}, signature=b"\1" * 96)) != compact({"alg": "ES384"}, signature=b"\1" * 96)


@pytest.mark.parametrize(
    "signature", [b"", b"\1" * 63, b"\1" * 65, bytes(64), b"\1" * 32 + P256.order_bytes, b"\xff" * 64]
)
def test_what_is_no_signature_has_no_twin(signature):
    with pytest.raises(jws.MalformedJws) as refused:
        jws.twin(compact({"alg": "ES256"}, signature=signature))
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_a_mac_with_the_public_key_is_no_signature():
    signing_input = b64url_encode(b'{"alg":"HS256"}') + ".e30"
    x = b64url_decode(dict(KEY.public.members)["x"])
    mac = hmac.new(x, signing_input.encode(), hashlib.sha256).digest()
    with pytest.raises(BadSignature):
        verify(f"{signing_input}.{b64url_encode(mac)}")
