"""Either arithmetic accepts the same signatures, and none is used that accepts what it must not."""

import hashlib
import sys
from types import ModuleType

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from tests.support.access_tokens import KEY, token
from tokenry.errors import ConfigurationError
from tokenry.jose import arithmetic, jws
from tokenry.jose.arithmetic import Arithmetic, choose, chosen, p256_verifier
from tokenry.jose.jwk import P256, BadSignature, PrivateKey, PublicKey

BOTH = [Arithmetic.OPENSSL, Arithmetic.AWS_LC]
SECRET = ec.derive_private_key(0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721, ec.SECP256R1())
N = P256.order


@pytest.fixture(autouse=True)
def as_it_was():
    before = chosen()
    yield
    choose(before)


def accepts(which, digest, signature, *, key=SECRET):
    choose(which)
    try:
        p256_verifier(key.public_key())(digest, signature)
    except InvalidSignature:
        return False
    return True


def test_AWS_LC_is_what_the_locked_requirements_bring():
    choose(Arithmetic.AUTO)
    assert chosen() is Arithmetic.AWS_LC


@pytest.mark.parametrize("which", BOTH)
def test_a_token_is_good_and_its_twins_are_not(which):
    choose(which)
    key = PublicKey.from_jwk(KEY.public.to_jwk())
    parts = jws.split(token())
    key.verify(parts.signing_input, parts.signature, low_s=True)
    for signature in (P256.twin(parts.signature), parts.signature[::-1], bytes(64), parts.signature[:-1]):
        with pytest.raises(BadSignature):
            key.verify(parts.signing_input, signature, low_s=True)
    with pytest.raises(BadSignature):
        key.verify(parts.signing_input + b" ", parts.signature, low_s=True)
    other = PrivateKey.generate().public
    with pytest.raises(BadSignature):
        other.verify(parts.signing_input, parts.signature, low_s=True)


@given(text=st.binary(max_size=200), bit=st.integers(min_value=0, max_value=8 * 96 - 1))
def test_both_accept_and_refuse_the_same(text, bit):
    digest = hashlib.sha256(text).digest()
    der = SECRET.sign(text, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    assert [accepts(which, digest, der) for which in BOTH] == [True, True]
    r_and_s = int.from_bytes(P256.low_raw(der), "big") << 256 | int.from_bytes(digest, "big")
    flipped = (r_and_s ^ 1 << bit).to_bytes(96, "big")
    r, s = int.from_bytes(flipped[:32], "big"), int.from_bytes(flipped[32:64], "big")
    changed = [accepts(which, flipped[64:], encode_dss_signature(r, s)) for which in BOTH]
    assert changed == [False, False]


# Numbers at the edges of the group, which a careless implementation takes (CVE-2022-21449 took r = s = 0).
EDGES = [0, 1, 2, N // 2, N - 2, N - 1, N, N + 1, 2**256 - 1, 2**255]


@pytest.mark.parametrize("r", EDGES)
@pytest.mark.parametrize("s", EDGES)
@pytest.mark.parametrize("digest", [bytes(32), b"\xff" * 32, N.to_bytes(32, "big"), hashlib.sha256(b"").digest()])
def test_neither_accepts_numbers_at_the_edges(r, s, digest):
    assert [accepts(which, digest, encode_dss_signature(r, s)) for which in BOTH] == [False, False]


@given(signature=st.binary(max_size=90))
def test_neither_accepts_or_trips_over_what_is_no_DER(signature):
    assert [accepts(which, bytes(32), signature) for which in BOTH] == [False, False]


@given(secret=st.integers(min_value=1, max_value=N - 1), digest=st.binary(min_size=32, max_size=32))
def test_a_key_made_for_a_digest_of_zeros_is_judged_alike(secret, digest):
    # A signature over a digest that was chosen afterwards: u1 may be anything, zero among it.
    key = ec.derive_private_key(secret, ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    r = numbers.x % N
    forged = encode_dss_signature(r or 1, r or 1)  # over the digest 0 it is good: u1 = 0, u2 = 1
    assert [accepts(which, bytes(32), forged, key=key) for which in BOTH] == [r != 0] * 2
    if any(digest):
        assert [accepts(which, digest, forged, key=key) for which in BOTH] == [False, False]


def broken(verify):
    """An awscrt whose keys verify with *verify*."""

    class Ec:
        new_key_from_der_data = staticmethod(lambda _der: Ec())

        def verify(self, digest, signature):
            return verify(digest, signature)

    module = ModuleType("awscrt.crypto")
    module.EC = Ec
    return module


def raising(*_):
    raise RuntimeError("not today")


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(broken(lambda *_: True), id="accepts everything"),
        pytest.param(broken(lambda *_: False), id="refuses everything"),
        pytest.param(broken(lambda *_: 1), id="says something else"),
        pytest.param(broken(lambda digest, _: digest == arithmetic._DIGEST), id="does not look at the signature"),
        pytest.param(broken(raising), id="raises"),
        pytest.param(ModuleType("awscrt.crypto"), id="has no such keys"),
        pytest.param(None, id="is not installed"),
    ],
)
def test_what_does_not_verify_as_it_must_is_not_used(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "awscrt.crypto", module)
    choose(Arithmetic.AUTO)
    assert chosen() is Arithmetic.OPENSSL
    with pytest.raises(ConfigurationError, match=r"install the extra tokenry\[aws-lc\], or choose openssl"):
        choose(Arithmetic.AWS_LC)
    assert chosen() is Arithmetic.OPENSSL, "what was there stays"
