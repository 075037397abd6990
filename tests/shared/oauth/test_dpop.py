"""Proofs of possession (RFC 9449): made, read, and refused step by step; with the RFC's own examples."""

import hashlib
import threading

import pytest
from joserfc import jwk as other_jwk
from joserfc import jwt as other_jwt

from tokenry.dpop import Asked, Dpop
from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.jose.encoding import b64url_decode, b64url_encode, dump_json, parse_json_object
from tokenry.jose.jwk import P256, PrivateKey
from tokenry.oauth.dpop import (
    BadProof,
    MemoryFull,
    Proof,
    ProofFault,
    SeenProofs,
    dpop_token,
    make_proof,
    read_proof,
    target,
    token_hash,
)
from tokenry.testing.clock import FakeClock

KEY = PrivateKey.generate()
URL = "https://orders.example/orders/42"
TOKEN = "the.access.token"
NOW = 1_760_000_000.0

# RFC 9449 section 4.1 and section 7.1.
AT_TOKEN_ENDPOINT = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo"
    "RjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJq"
    "dGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0Ijox"
    "NTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
RFC_THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
RFC_TOKEN, RFC_ATH = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU", "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def made(**changes):
    return make_proof(**({"key": KEY, "method": "GET", "url": URL, "now": NOW, "jti": "one", "token": TOKEN} | changes))


def signed(*, header=None, claims=None, key=KEY, high_s=False):
    """A proof with members replaced, added or (None) removed."""
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": dict(key.public.members)} | (header or {})
    body = {"jti": "one", "htm": "GET", "htu": URL, "iat": int(NOW), "ath": token_hash(TOKEN)} | (claims or {})
    parts = [b64url_encode(dump_json({k: v for k, v in each.items() if v is not None})) for each in (head, body)]
    signature = key.sign(".".join(parts).encode())
    return ".".join([*parts, b64url_encode(P256.twin(signature) if high_s else signature)])


def read(proof, **changes):
    values = [proof] if isinstance(proof, str) else proof
    asked = {"method": "GET", "is_target": target(URL).__eq__, "now": NOW, "token": TOKEN} | changes
    return read_proof(values, **asked)


def fault(proof, **changes):
    with pytest.raises(BadProof) as refused:
        read(proof, **changes)
    return refused.value.fault


def test_V26_a_proof_of_ours_is_good_for_its_request():
    assert read(made()) == Proof(jkt=KEY.kid, jti="one", good_until=NOW + 60)


def test_V26_the_proof_of_the_rfc_is_good():
    proof = read_proof(
        [AT_TOKEN_ENDPOINT],
        method="POST",
        is_target="https://server.example.com/token".__eq__,
        now=1562262616,
    )
    assert (proof.jkt, proof.jti) == (RFC_THUMBPRINT, "-BwC3ESc6acc2lTc")
    assert token_hash(RFC_TOKEN) == RFC_ATH


def test_another_implementation_reads_our_proof():
    proof = made()
    header = parse_json_object(b64url_decode(proof.partition(".")[0]))
    claims = other_jwt.decode(proof, other_jwk.ECKey.import_key(header["jwk"]), algorithms=["ES256"]).claims
    ath = b64url_encode(hashlib.sha256(TOKEN.encode()).digest())
    assert claims == {"jti": "one", "htm": "GET", "htu": URL, "iat": int(NOW), "ath": ath}
    assert sorted(header) == ["alg", "jwk", "typ"]
    assert sorted(header["jwk"]) == ["crv", "kty", "x", "y"]  # nothing private


@pytest.mark.parametrize("values", [[], [""], ["a.b.c", "a.b.c"]])
def test_V26_there_is_one_header_field(values):
    assert fault(values) is ProofFault.NOT_ONE


def test_V26_two_fields_that_a_server_joined_are_two():
    assert fault(f"{made()},{made()}") is ProofFault.NOT_ONE
    assert fault(f"{made()}, x") is ProofFault.NOT_ONE


@pytest.mark.parametrize("text", ["x", "a.b", "a.b.c.d", "é.é.é", "." * 2, "A" * 5000])
def test_V26_what_is_no_jws_is_refused(text):
    assert fault(text) is ProofFault.MALFORMED


@pytest.mark.parametrize("typ", [None, "JWT", "at+jwt", "dpop+jwt2", "application/dpop+jwt"])
def test_V26_the_type_is_that_of_a_proof(typ):
    assert fault(signed(header={"typ": typ})) is ProofFault.WRONG_TYPE


@pytest.mark.parametrize("alg", [None, "none", "HS256", "ES384", "RS256", "es256"])
def test_V26_the_algorithm_is_es256(alg):
    assert fault(signed(header={"alg": alg})) is ProofFault.WRONG_ALGORITHM


@pytest.mark.parametrize(
    "change",
    [
        {"d": b64url_encode(b"\1" * 32)},
        {"k": "AAAA"},
        {"kty": "oct", "k": "AAAA"},
        {"crv": "P-384"},
        {"x": None},
        {"x": b64url_encode(b"\1" * 32)},
        {"use": "enc"},
        {"alg": "ES384"},
    ],
    ids=str,
)
def test_V26_the_key_is_public_and_one_of_ours(change):
    members = {k: v for k, v in (dict(KEY.public.members) | change).items() if v is not None}
    assert fault(signed(header={"jwk": members})) is ProofFault.BAD_KEY


def test_V26_without_a_key_there_is_no_proof():
    assert fault(signed(header={"jwk": None, "kid": KEY.kid})) is ProofFault.BAD_KEY


def test_V26_the_signature_is_that_keys():
    other = PrivateKey.generate()
    assert fault(signed(header={"jwk": dict(other.public.members)})) is ProofFault.BAD_SIGNATURE
    proof = made()
    head, _, tail = proof.split(".")
    body = made(jti="two").split(".")[1]
    assert fault(f"{head}.{body}.{tail}") is ProofFault.BAD_SIGNATURE


def test_the_other_half_of_s_is_accepted_and_is_the_same_proof():
    proofs = [read(signed()), read(signed(high_s=True))]
    seen = SeenProofs()
    seen.use(proofs[0], now=NOW)
    with pytest.raises(BadProof):
        seen.use(proofs[1], now=NOW)


@pytest.mark.parametrize("htm", [None, "get", "POST", "", 1])
def test_V26_the_method_is_that_of_the_request(htm):
    assert fault(signed(claims={"htm": htm})) is ProofFault.WRONG_METHOD


@pytest.mark.parametrize(
    "htu",
    [
        None,
        7,
        "",
        "/orders/42",
        "http://orders.example/orders/42",
        "https://orders.example:444/orders/42",
        "https://other.example/orders/42",
        "https://orders.example/orders/43",
        "https://orders.example/Orders/42",
        "https://orders.example/orders/42/",
        "https://orders.example",
        "https://user@orders.example/orders/42",
        "https://orders.example:x/orders/42",
        "https://[::1/orders/42",
    ],
)
def test_V26_the_url_is_that_of_the_request(htu):
    assert fault(signed(claims={"htu": htu})) is ProofFault.WRONG_URL


@pytest.mark.parametrize(
    "htu",
    [URL, f"{URL}?q=1", f"{URL}#part", "HTTPS://Orders.Example:443/orders/42", "https://orders.example/%6Frders/42"],
)
def test_V26_query_fragment_and_spelling_do_not_matter(htu):
    assert read(signed(claims={"htu": htu})).jti == "one"
    assert "?" not in str(parse_json_object(b64url_decode(made(url=htu).split(".")[1]))["htu"])


@pytest.mark.parametrize(("age", "good"), [(-6, False), (-5, True), (0, True), (60, True), (61, False), (10**6, False)])
def test_V26_the_time_is_within_the_window(age, good):
    proof = signed(claims={"iat": int(NOW) - age})
    if good:
        assert read(proof).good_until == NOW - age + 60
    else:
        assert fault(proof) is ProofFault.OUTSIDE_WINDOW


@pytest.mark.parametrize("iat", [None, True, "1", -1, 1e300, [1]])
def test_V26_a_time_that_is_none_is_refused(iat):
    assert fault(signed(claims={"iat": iat})) is ProofFault.MALFORMED


def test_a_clock_that_is_no_number_refuses():
    assert fault(made(), now=float("nan")) is ProofFault.OUTSIDE_WINDOW


@pytest.mark.parametrize("ath", [None, "", token_hash("another"), TOKEN, 1])
def test_V26_the_token_is_the_one_in_the_request(ath):
    assert fault(signed(claims={"ath": ath})) is ProofFault.WRONG_TOKEN


@pytest.mark.parametrize("jti", [None, "", 1, "x" * 257])
def test_V26_a_proof_has_an_id(jti):
    assert fault(signed(claims={"jti": jti})) is ProofFault.MALFORMED


def test_V26_an_id_is_good_once_for_each_key():
    seen = SeenProofs()
    seen.use(Proof(jkt="a", jti="one", good_until=NOW + 60), now=NOW)
    seen.use(Proof(jkt="b", jti="one", good_until=NOW + 60), now=NOW)
    seen.use(Proof(jkt="a", jti="two", good_until=NOW + 60), now=NOW)
    for later in (0, 30, 60):
        with pytest.raises(BadProof) as refused:
            seen.use(Proof(jkt="a", jti="one", good_until=NOW + 60), now=NOW + later)
        assert refused.value.fault is ProofFault.USED_BEFORE


def test_V26_the_memory_is_bounded_and_refuses_rather_than_forgets():
    seen = SeenProofs(max_remembered=4, max_per_key=2)
    for jti in ("one", "two"):
        seen.use(Proof(jkt="a", jti=jti, good_until=NOW + 60), now=NOW)
    with pytest.raises(MemoryFull):
        seen.use(Proof(jkt="a", jti="three", good_until=NOW + 60), now=NOW)
    for jkt in ("b", "c"):
        seen.use(Proof(jkt=jkt, jti="one", good_until=NOW + 90), now=NOW)
    with pytest.raises(MemoryFull):
        seen.use(Proof(jkt="d", jti="one", good_until=NOW + 60), now=NOW)
    seen.use(Proof(jkt="a", jti="three", good_until=NOW + 121), now=NOW + 61)  # those of a are over
    assert len(seen) == 3


def test_the_scheme_is_read_in_any_case_and_alone():
    assert dpop_token(["dPoP x"]) == "x"
    for values in ([], ["Bearer x"], ["DPoP"], ["DPoP "], ["DPoP x", "DPoP y"]):
        assert dpop_token(values) is None


@pytest.mark.parametrize("url", ["", "orders", "ftp://a/b", "https://", "https://u:p@a/"])
def test_a_proof_for_what_is_no_url_is_not_made(url):
    with pytest.raises(ProtocolError):
        made(url=url)


# --- the service's side ---


def asked(path="/orders/42", method="GET", proofs=None):
    return lambda: Asked(method, path, [made()] if proofs is None else proofs)


def dpop(*bases, **options):
    return Dpop(bases or ["https://orders.example"], clock=FakeClock(NOW), **options)


def test_the_base_url_is_what_callers_see():
    assert dpop().read([f"DPoP {TOKEN}"], asked())[1].jkt == KEY.kid
    assert dpop("https://orders.example/orders").read([f"DPoP {TOKEN}"], asked("/42"))[1].jkt == KEY.kid
    for other in ("https://other.example", "http://orders.example", "https://orders.example/v1"):
        with pytest.raises(BadProof):
            dpop(other).read([f"DPoP {TOKEN}"], asked())


def test_a_path_with_odd_characters_is_one():
    odd = "https://orders.example/a%20b/%C3%A9%25"
    assert dpop().read([f"DPoP {TOKEN}"], asked("/a b/é%", proofs=[made(url=odd)]))


def test_a_bearer_token_is_not_its_business():
    assert dpop().read(["Bearer x"], asked()) is None
    with pytest.raises(BadProof):
        dpop().read(["DPoP x"], None)


def test_threads_cannot_use_one_proof_twice():
    ours, outcomes, barrier = dpop(), [], threading.Barrier(8)
    proof = Proof(jkt="a", jti="one", good_until=NOW + 60)

    def use():
        barrier.wait()
        try:
            ours.use(proof)
            outcomes.append("ok")
        except BadProof:
            outcomes.append("refused")

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["ok", *["refused"] * 7]


@pytest.mark.parametrize(
    "arguments",
    [
        {"base_urls": []},
        {"base_urls": "orders.example"},
        {"base_urls": "https://orders.example?x"},
        {"base_urls": "https://orders.example", "max_age": 0},
        {"base_urls": "https://orders.example", "max_age": 301},
        {"base_urls": "https://orders.example", "leeway": -1},
        {"base_urls": "https://orders.example", "max_remembered": 0},
    ],
    ids=str,
)
def test_what_cannot_be_is_a_fault(arguments):
    with pytest.raises(ConfigurationError, match="Dpop"):
        Dpop(**arguments)
