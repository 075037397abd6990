"""The rules of validation, each by its number (docs/standards.md), with real tokens that are really broken."""

import ast
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import tokenry.client
from tests.support.access_tokens import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    KEY,
    KEYS,
    LIFETIME,
    NOW,
    claims,
    header,
    signed,
    token,
)
from tests.support.hostile_tokens import HOSTILE, STRANGER
from tokenry.aiohttp import auth_middleware, require
from tokenry.errors import (
    InsufficientScope,
    InvalidToken,
    ProtocolError,
    Reason,
    UnknownKey,
    Unready,
    ValidatorNotReady,
)
from tokenry.http.fetch import Response
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.jose.jwk import Algorithm, PublicKey
from tokenry.jose.jwks import KeySet
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import token_fingerprint
from tokenry.revocation.lists import RevocationList
from tokenry.sources.keys import KeySource
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer
from tokenry.validation.policy import TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator

TRUSTED = TrustedIssuer(issuer=ISSUER, max_token_lifetime=LIFETIME)
POLICY = ValidationPolicy(issuers=(TRUSTED,), audience=AUDIENCE)
EMPTY = RevocationList.empty()
OTHER = "https://other.example"


def validate(compact, *, validator=None, now=NOW, keys=KEYS, revocations=EMPTY, list_age=1.0, **narrowing):
    validator = validator or Validator(POLICY)
    return validator.validate(compact, now=now, keys=keys, revocations=revocations, list_age=list_age, **narrowing)


def refusal(compact, **world):
    with pytest.raises(InvalidToken) as refused:
        validate(compact, **world)
    return refused.value.reason


def headed(**changes):
    return token(head=changes)


# --- algorithm, type, key -------------------------------------------------------------------------------------


def test_V01_only_the_issuers_algorithms_are_tried_in_their_own_spelling():
    for name in ("RS256", "ES384", "ES512", "PS256", "EdDSA", "es256", "ES256K", "Es256"):
        assert refusal(headed(alg=name)) is Reason.WRONG_ALGORITHM
    foreign = TrustedIssuer(issuer=ISSUER, max_token_lifetime=LIFETIME, algorithms=(Algorithm.RS256,), foreign=True)
    other = Validator(replace(POLICY, issuers=(foreign,)))
    assert refusal(token(), validator=other) is Reason.WRONG_ALGORITHM


def test_V02_the_algorithm_is_that_of_the_key():
    both = (Algorithm.ES256, Algorithm.ES384)
    foreign = TrustedIssuer(issuer=ISSUER, max_token_lifetime=LIFETIME, algorithms=both, foreign=True)
    assert (
        refusal(headed(alg="ES384"), validator=Validator(replace(POLICY, issuers=(foreign,)))) is Reason.WRONG_ALGORITHM
    )


@pytest.mark.parametrize("name", [name for name, (_, reason) in HOSTILE.items() if reason is Reason.WRONG_ALGORITHM])
def test_V03_none_and_mac_are_refused(name):
    assert refusal(HOSTILE[name][0]) is Reason.WRONG_ALGORITHM


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512"])
def test_V03_none_and_mac_are_refused_in_any_spelling_and_with_any_signature(alg):
    for signature in (b"", b"\0" * 64):
        compact = f"{b64url_encode(dump_json(header(alg=alg)))}.{b64url_encode(dump_json(claims()))}."
        assert refusal(compact + b64url_encode(signature)) is Reason.WRONG_ALGORITHM
    assert refusal(headed(alg=alg)) is Reason.WRONG_ALGORITHM


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_V04_the_type_of_an_access_token_is_accepted(typ):
    assert validate(headed(typ=typ))


@pytest.mark.parametrize(
    "typ",
    ["JWT", "jwt", ABSENT, "token-introspection+jwt", "client-authentication+jwt", "txntoken+jwt", "statuslist+jwt",
     "wit+jwt", "dpop+jwt", "logout+jwt", "revocation-list+jwt", "at+jwt ", ""],
)  # fmt: skip
def test_V04_any_other_type_is_refused(typ):
    assert refusal(headed(typ=typ)) is Reason.WRONG_TYPE


def test_V05_the_key_belongs_to_the_issuer_that_the_token_names():
    jwk = STRANGER.public.to_jwk() | {"kid": KEY.kid}
    keys = KeySet.union(KEYS, KeySet.parse(dump_json({"keys": [jwk]}), issuer=OTHER))
    both = Validator(replace(POLICY, issuers=(TRUSTED, replace(TRUSTED, issuer=OTHER))))
    assert validate(token(iss=OTHER, key=STRANGER, head={"kid": KEY.kid}), validator=both, keys=keys).iss == OTHER
    assert refusal(token(iss=OTHER), validator=both, keys=keys) is Reason.BAD_SIGNATURE
    assert refusal(token(key=STRANGER, head={"kid": KEY.kid}), validator=both, keys=keys) is Reason.BAD_SIGNATURE
    assert refusal(token(iss="https://unknown.example"), validator=both, keys=keys) is Reason.UNTRUSTED_ISSUER
    assert refusal(token(iss=ISSUER + "/"), validator=both, keys=keys) is Reason.UNTRUSTED_ISSUER


# --- audience and times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("aud", [ABSENT, [], "", AUDIENCE + "/", AUDIENCE.upper(), [AUDIENCE + "x", "x"]])
def test_V06_without_our_name_in_the_audience_it_is_refused(aud):
    assert refusal(token(aud=aud)) is Reason.WRONG_AUDIENCE
    assert validate(token(aud=["x", AUDIENCE]))


@pytest.mark.parametrize("exp", [ABSENT, None, str(NOW + 60), True, NOW + 60.5, float(NOW + 60), 10**30, -1, [], {}])
def test_V07_an_end_that_is_absent_or_no_date_is_refused(exp):
    assert refusal(token(exp=exp)) is Reason.MALFORMED_CLAIMS


def test_V07_a_token_is_dead_from_its_end_on():
    assert validate(token(exp=NOW + 1))
    assert refusal(token(exp=NOW)) is Reason.EXPIRED
    assert refusal(token(exp=NOW + 1), now=NOW + 1) is Reason.EXPIRED


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_V08_a_beginning_in_the_future_is_refused_beyond_the_leeway(name):
    assert validate(token(**{name: NOW + 5}))
    assert refusal(token(**{name: NOW + 6})) is Reason.NOT_YET_VALID


# --- form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", [" ", "\n", "\t", "\0", "=", "+", "/", "~", "é", "\u2028", "%", ","])
def test_V09_a_character_outside_the_alphabet_is_refused(character):
    good = token()
    for place in (0, 10, len(good) // 2, len(good)):
        assert refusal(good[:place] + character + good[place:]) is Reason.NOT_CANONICAL


def test_V10_another_spelling_of_the_same_bytes_is_refused():
    good = token()
    others = [text for name, (text, _) in HOSTILE.items() if "unused bits" in name]
    assert len(others) >= 15
    for text in (f"{good}=", f"{good}==", *others):
        assert refusal(text) is Reason.NOT_CANONICAL


def test_V11_a_member_that_is_there_twice_is_refused():
    twice = dump_json(header())[:-1] + b',"alg":"ES256"}'
    assert refusal(signed(twice, dump_json(claims()))) is Reason.MALFORMED_HEADER
    for member in (b'"sub":"stock"', b'"exp":1', b'"\\u0073ub":"admin"'):
        assert refusal(signed(dump_json(header()), dump_json(claims())[:-1] + b"," + member + b"}")) is (
            Reason.MALFORMED_CLAIMS
        )


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], ["unknown"], "exp", None])
def test_V12_a_critical_extension_is_refused(crit):
    assert refusal(headed(crit=crit)) is Reason.UNSUPPORTED_CRITICAL


def test_V13_keys_and_addresses_in_the_header_are_never_used():
    hints = {
        "jwk": STRANGER.public.to_jwk(),
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/certificate",
        "x5c": ["MIIB"],
    }
    assert validate(headed(**hints))
    with pytest.raises(UnknownKey):
        validate(token(key=STRANGER, head=hints))
    assert refusal(token(key=STRANGER, head=hints | {"kid": KEY.kid})) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "k1' OR '1'='1", "k1\0", "x" * 10_000, "", "http://evil.example", "\u202e", None, 5]
)
def test_V14_a_kid_of_any_content_looks_up_nothing_but_the_key_map(kid):
    assert refusal(headed(kid=kid)) in {Reason.UNKNOWN_KEY, Reason.MALFORMED_HEADER, Reason.TOO_LARGE}


@pytest.mark.parametrize("coding", ["utf-16", "utf-32", "utf-8-sig", "latin-1"])
def test_V15_json_that_is_not_utf_8_is_refused(coding):
    text = dump_json(claims(sub="josé")).decode()
    assert refusal(signed(dump_json(header()), text.encode(coding))) is Reason.MALFORMED_CLAIMS
    text = dump_json(header(x="é")).decode()
    assert refusal(signed(text.encode(coding), dump_json(claims()))) is Reason.MALFORMED_HEADER


def test_V16_nested_tokens_are_refused():
    nested = jws.sign({"typ": "at+jwt", "cty": "JWT"}, token().encode(), KEY)
    assert refusal(nested) is Reason.MALFORMED_CLAIMS
    assert refusal(f"{token()}.a.b") is Reason.NOT_COMPACT  # the five parts of an encrypted one


ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize(
    ("r", "s"), [(0, 0), (0, 1), (1, 0), (ORDER, 1), (1, ORDER), (ORDER + 1, 1), (1, ORDER - 1), (1, 1)]
)
def test_V17_r_and_s_must_be_in_range(r, s):
    signing_input = token().rpartition(".")[0]
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert refusal(f"{signing_input}.{b64url_encode(signature)}") is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("length", [0, 63, 65, 70, 72, 128])
def test_V17_a_signature_of_another_length_is_refused(length):
    signing_input, _, _ = token().rpartition(".")
    whole = jws.split(token()).signature * 2
    assert refusal(f"{signing_input}.{b64url_encode(whole[:length])}") is Reason.BAD_SIGNATURE


def test_V17_a_key_that_is_not_on_the_curve_is_refused():
    jwk = KEY.public.to_jwk()
    with pytest.raises(ProtocolError):
        PublicKey.from_jwk(jwk | {"y": jwk["x"]})


# --- over HTTP: RFC 6750 --------------------------------------------------------------------------------------


@pytest.fixture
def issuer():
    return FakeIssuer(clock=FakeClock())


@pytest.fixture
async def http(issuer):
    @require("orders.read")
    async def orders(_request):
        return web.Response(text="ok")

    app = web.Application(middlewares=[auth_middleware(issuer.validator())])
    app.router.add_get("/orders", orders)
    app.router.add_post("/orders", orders)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_V18_a_token_in_the_query_is_ignored(http, issuer):
    answer = await http.get("/orders", params={"access_token": issuer.token(scope="orders.read")})
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    answer = await http.post("/orders", data={"access_token": issuer.token(scope="orders.read")})
    assert answer.status == 401


async def test_V19_a_token_sent_twice_is_invalid_request(http, issuer):
    value = f"Bearer {issuer.token(scope='orders.read')}"
    answer = await http.get("/orders", headers=[("Authorization", value), ("Authorization", value)])
    assert answer.status == 400
    assert 'error="invalid_request"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
async def test_V20_the_scheme_may_be_in_any_letter_case(http, issuer, scheme):
    answer = await http.get("/orders", headers={"Authorization": f"{scheme} {issuer.token(scope='orders.read')}"})
    assert answer.status == 200


async def test_V21_without_a_token_the_challenge_has_no_error_code(http):
    answer = await http.get("/orders")
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_V22_a_bad_token_is_401_and_a_missing_scope_403(http, issuer):
    bad = await http.get("/orders", headers=issuer.headers(scope="orders.read", wrong_key=True))
    assert bad.status == 401
    assert 'error="invalid_token"' in bad.headers["WWW-Authenticate"]
    lacking = await http.get("/orders", headers=issuer.headers(scope="orders.write"))
    assert lacking.status == 403
    assert 'error="insufficient_scope"' in lacking.headers["WWW-Authenticate"]


async def test_V23_challenges_name_each_attribute_once(http, issuer):
    for headers in ({}, issuer.headers(), issuer.headers(wrong_key=True), {"Authorization": 'Bearer "x\\'}):
        challenge = (await http.get("/orders", headers=headers)).headers["WWW-Authenticate"]
        names = [part.partition("=")[0].strip() for part in challenge.removeprefix("Bearer").split(",") if part.strip()]
        assert len(names) == len(set(names))
        assert all(0x20 <= ord(character) < 0x7F for character in challenge)


def test_V24_scopes_are_compared_whole_and_in_their_own_case():
    for asked in ("orders", "orders.rea", "orders.read.all", "Orders.read", "ORDERS.READ", "rders.read"):
        with pytest.raises(InsufficientScope):
            validate(token(), scope=frozenset({asked}))
    assert validate(token(), scope=frozenset({"orders.read"}))


# --- bound tokens, revocation, outages ------------------------------------------------------------------------


@pytest.mark.parametrize("cnf", [{"x5t#S256": "A" * 43}, {"unknown": 1}, {}, {"jwk": {}}, None, "x"])
def test_V25_a_token_that_is_bound_is_refused_where_its_binding_is_not_checked(cnf):
    assert refusal(token(cnf=cnf)) in {Reason.UNCONFIRMED, Reason.MALFORMED_CLAIMS}


def test_V26_a_token_that_is_bound_to_a_key_is_no_bearer_token():
    assert refusal(token(cnf={"jkt": STRANGER.kid})) is Reason.UNCONFIRMED


def revoking(compact):
    fingerprint = token_fingerprint(compact.rpartition(".")[0], salt=b"s" * 32)
    entry = Entry(id="r", kind=Kind.TOKEN, fingerprint=fingerprint, salt="s", in_force_until=NOW + 2 * LIFETIME)
    return RevocationList.of([entry], salts={"s": b"s" * 32}, epoch=1, max_token_lifetime=LIFETIME)


def test_V27_revocation_is_judged_after_the_rest_and_at_every_use():
    validator, good = Validator(POLICY), token()
    for _ in range(3):
        assert validate(good, validator=validator)
    assert refusal(good, validator=validator, revocations=revoking(good)) is Reason.REVOKED
    assert refusal(good, validator=validator, revocations=revoking(good), now=NOW + LIFETIME) is Reason.EXPIRED
    stranger = token(aud="x")
    assert refusal(stranger, revocations=revoking(stranger)) is Reason.WRONG_AUDIENCE


def test_V28_on_a_list_that_is_missing_or_too_old_nothing_is_accepted():
    validator, good = Validator(POLICY), token()
    for _ in range(3):
        assert validate(good, validator=validator, list_age=900.0)
    for world, why in (({"list_age": 900.1}, Unready.LIST_TOO_OLD), ({"revocations": None}, Unready.NO_LIST)):
        with pytest.raises(ValidatorNotReady) as unready:
            validate(good, validator=validator, **world)
        assert unready.value.cause is why
    with pytest.raises(ValidatorNotReady):
        validate(good, validator=validator, list_age=float("nan"))


class Script:
    """Answers the JWK Set that a test puts there."""

    def __init__(self, body):
        self.body, self.status, self.asked = body, 200, 0

    def fetch(self, _request):
        self.asked += 1
        return Response(status=self.status, headers={}, body=self.body)

    def cancel(self):
        pass


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (404, b""), (200, b""), (200, b'{"keys":[]}'), (200, b"<html>"), (200, b'{"keys":[{"kty":"EC"}]}'),
     (200, b'{"keys":[' + b" " * 2**19 + b"]}"), (302, b"")],
)  # fmt: skip
def test_V29_good_keys_survive_a_refresh_that_fails(status, body):
    clock, script = FakeClock(start=NOW), Script(KEYS.to_jwks())
    source = KeySource(ISSUER, jwks_uri=f"{ISSUER}/keys", fetcher=script, clock=clock)
    poller = source._poller
    poller.step()
    held = source.snapshot().value
    script.status, script.body = status, body
    for _ in range(5):
        clock.advance(seconds=70)
        poller.step()
    assert script.asked > 3
    assert source.snapshot().value is held
    clock.advance(seconds=24 * 3600)
    assert source.snapshot() is None  # the bound


def test_V30_the_client_code_never_parses_the_token():
    reading = {"split", "segments", "decode", "parse_header", "b64url_decode", "verified_payload", "twin"}
    names, modules = set(), set()
    for path in Path(tokenry.client.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names.add(f"{node.value.id}.{node.attr}")
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module)
                names |= {f"{node.module}.{each.name}" for each in node.names}
    assert len(names) > 50
    assert not {name for name in names if "jws." in name and name.rpartition(".")[2] in reading}
    assert not {name for name in names if name.endswith((".b64url_decode", ".verified_payload"))}
    assert not {name for name in modules if name and (name.startswith("tokenry.validation") or name == "jwt")}


def test_V31_a_token_reaches_no_log_and_no_exception(caplog):
    caplog.set_level(logging.DEBUG)
    secret = claims(sub="a-very-secret-subject")
    bad = [
        signed(dump_json(header()), dump_json(secret), key=STRANGER),
        token(sub="a-very-secret-subject", exp=NOW),
        token(sub="a-very-secret-subject", exp="a-very-secret-subject"),
        *(text for text, _ in list(HOSTILE.values())[:60] if 20 < len(text) < 10_000),
    ]
    for compact in bad:
        with pytest.raises((InvalidToken, ValidatorNotReady)) as refused:
            validate(compact)
        said = f"{refused.value!s} {refused.value!r} {refused.value.__cause__!r} {refused.value.args!r}"
        for part in compact.split("."):
            assert len(part) < 8 or part not in said
        assert "a-very-secret-subject" not in said + caplog.text
    assert "a-very-secret-subject" not in repr(validate(token(sub="a-very-secret-subject")))
