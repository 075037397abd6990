"""The rules of introspection, each by its number (docs/standards.md)."""

import json
import statistics
import time

import pytest

from tests.services.tokeninfo.conftest import INTROSPECT, basic, bearer, introspector
from tests.support.access_tokens import ISSUER, KEY, KEYS, NOW, claims, token
from tests.support.hostile_tokens import STRANGER
from tokenry.errors import ConfigurationError
from tokenry.jose import jws
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet
from tokenry.jose.sealing import EnvelopeKey
from tokenry.secret import Secret
from tokenry.serving.outgoing import Answer
from tokenry_tokeninfo.settings import Settings
from tokenry_tokeninfo.signed_answers import MEDIA_TYPE, AnswerSigner, accepts_jwt, read_answer_keys

INACTIVE = b'{"active":false}'
PATH = "/oauth2/introspect"
ENVELOPE = EnvelopeKey.generate()
ANSWER_KEY = PrivateKey.generate()


def sealed(key=ANSWER_KEY, *, use="introspection", publish_at=NOW - 10, activate_at=NOW - 5, retire_at=NOW + 10_000):
    return {
        "version": 1, "kid": key.kid, "use": use, "public_jwk": key.public.to_jwk(), "publish_at": publish_at,
        "activate_at": activate_at, "retire_at": retire_at,
        "sealed": ENVELOPE.seal(key.to_pkcs8_der(), kid=key.kid, use=use).to_dict(),
    }  # fmt: skip


def envelope_text(envelope=ENVELOPE):
    from tokenry.jose.encoding import b64url_encode

    return Secret(b64url_encode(envelope.to_bytes()))


def signing(*keys):
    document = {"keys": list(keys)} if keys else sealed()
    return {
        "introspection_keys": Secret(dump_json(document).decode()),
        "introspection_envelope_key": envelope_text(),
    }


SIGNED = {"Accept": MEDIA_TYPE}


async def ask_signed(service, text, *, caller=None, **form):
    headers = (caller if caller is not None else bearer(introspector())) | SIGNED
    return await service.introspect(text, headers=headers, **form)


async def verified(service, answer):
    """Return header and claims of a signed answer, verified with the published keys."""
    assert (answer.status, answer.headers["Content-Type"]) == (200, MEDIA_TYPE)
    published = await service.ask("GET", "/oauth2/introspect/keys")
    parts = jws.split(answer.body.decode())
    key = KeySet.parse(published.body, issuer=ISSUER).find(ISSUER, parts.header["kid"])
    key.verify(parts.signing_input, parts.signature, low_s=True)
    return parts.header, json.loads(parts.payload)


async def test_I01_only_post_with_a_form(service):
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
        answer = await service.ask(method, PATH, headers=bearer(introspector()), params={"token": token()})
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    answer = await service.ask("POST", PATH, headers=bearer(introspector()), json={"token": token()})
    assert answer.status == 415


async def test_I02_a_caller_that_is_not_authenticated_is_refused(start):
    async with start(**signing()) as service:
        assert (await service.introspect(token(), headers={})).status == 401
        answer = await ask_signed(service, token(), caller={})
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")


async def test_I03_wrong_credentials_are_401(start):
    async with start(**signing()) as service:
        service.calls.handle = lambda _: Answer(status=401, body=b'{"error":"invalid_client"}')
        for extra in ({}, SIGNED):
            answer = await service.introspect(token(), headers=basic("gateway", "wrong") | extra)
            assert answer.status == 401
            answer = await service.introspect(token(), headers=bearer(introspector(exp=NOW)) | extra)
            assert answer.status == 401


async def test_I04_being_a_client_is_not_enough(service):
    answer = await service.introspect(token(), headers=bearer(introspector(scope="orders.read")))
    assert (answer.status, answer.json["error"]) == (403, "insufficient_scope")


async def test_I05_callers_are_throttled_one_by_one(start):
    async with start(introspection_rate=1, introspection_burst=2, **signing()) as service:
        statuses = [(await service.introspect("guess", headers=bearer(introspector()) | SIGNED)).status for _ in "123"]
        assert statuses == [200, 200, 429]
        other = bearer(introspector(client_id="other", azp="other", sub="other"))
        assert (await service.introspect("guess", headers=other)).status == 200


BAD = {
    "malformed": "x",
    "unknown": "a.b.c",
    "expired": token(exp=NOW - 1, iat=NOW - 100),
    "not yet valid": token(nbf=NOW + 100),
    "wrongly signed": token(key=STRANGER),
    "of another signature": token()[:-4] + "AAAA",
    "revoked": token(sub="revoked"),
    "for others only": token(aud="https://payments.example"),
}


async def bad_answers(start):
    async with start(introspection_audiences='{"gateway": ["https://orders.example"]}') as service:
        service.simulator.revoke_claims({"sub": "revoked"}, issued_before=NOW + 1)
        service.renew_list()
        assert (await service.introspect(token())).json["active"]
        yield {name: await service.introspect(text) for name, text in BAD.items()}, service


async def test_I06_every_token_that_is_not_good_gives_the_same_bytes(start):
    async for answers, _ in bad_answers(start):
        assert {(answer.status, answer.body) for answer in answers.values()} == {(200, INACTIVE)}


async def test_I07_the_cases_cannot_be_told_apart(start):
    changing = {"Date", "X-Request-Id", "X-Request-ID"}
    async for answers, service in bad_answers(start):
        heads = {
            tuple(sorted((name, value) for name, value in answer.headers.items() if name not in changing))
            for answer in answers.values()
        }
        assert len(heads) == 1
        # In time: no more than by a verification of the signature, which does not depend on the token's content.
        seconds = {}
        for name, text in BAD.items():
            took = []
            for _ in range(15):
                began = time.perf_counter()
                await service.introspect(text)
                took.append(time.perf_counter() - began)
            seconds[name] = statistics.median(took)
        assert max(seconds.values()) < 10 * min(seconds.values()), seconds


async def test_I08_a_wrong_hint_changes_nothing(service):
    plain = await service.introspect(token())
    for hint in ("refresh_token", "access_token", "nonsense"):
        assert (await service.introspect(token(), token_type_hint=hint)).body == plain.body


async def test_I09_an_active_answer_has_all_members(service):
    answer = (await service.introspect(token())).json
    assert answer["active"] is True
    assert {"exp", "iat", "sub", "client_id", "scope", "aud", "iss", "jti", "token_type"} <= set(answer)
    assert answer["claims"] == claims()


@pytest.mark.parametrize("form", ["text", "array"])
async def test_I10_scope_is_narrowed_to_the_caller_where_configured(start, form):
    scope = "admin orders.read orders.write uid"
    good = token(scope=scope if form == "text" else scope.split())
    async with start(introspection_scopes='{"gateway": ["orders.*", "uid"]}') as service:
        answer = (await service.introspect(good)).json
        assert answer["scope"] == "orders.read orders.write uid"
        shown = answer["claims"]["scope"]
        assert (shown if form == "text" else " ".join(shown)) == "orders.read orders.write uid"
        assert "admin" not in json.dumps(answer)
        other = bearer(introspector(client_id="other", azp="other", sub="other"))
        assert (await service.introspect(good, headers=other)).json["scope"] == scope


async def test_I11_answers_are_not_cached(start):
    async with start(**signing()) as service:
        for answer in (
            await service.introspect(token()),
            await service.introspect("x"),
            await ask_signed(service, "x"),
        ):
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Vary"] == "Accept"


async def test_I12_the_signed_answer_has_its_type_and_members(start):
    async with start(**signing()) as service:
        header, payload = await verified(service, await ask_signed(service, token()))
        assert (header["typ"], header["alg"], header["kid"]) == ("token-introspection+jwt", "ES256", ANSWER_KEY.kid)
        assert set(payload) == {"iss", "aud", "iat", "token_introspection"}
        assert (payload["iss"], payload["aud"], payload["iat"]) == (ISSUER, "gateway", NOW)
        assert payload["token_introspection"] == (await service.introspect(token())).json


async def test_I13_it_has_no_top_level_sub_or_exp(start):
    async with start(**signing()) as service:
        _, payload = await verified(service, await ask_signed(service, token()))
        assert {"sub", "exp", "scope", "client_id", "jti"}.isdisjoint(payload)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
async def test_I14_inactive_in_signed_form_says_nothing_more(start, text):
    async with start(introspection_audiences='{"gateway": ["https://orders.example"]}', **signing()) as service:
        service.simulator.revoke_claims({"sub": "revoked"}, issued_before=NOW + 1)
        service.renew_list()
        _, payload = await verified(service, await ask_signed(service, text))
        assert payload["token_introspection"] == {"active": False}


async def test_I15_it_is_refused_as_an_access_token(start):
    # Also if its key were in the issuer's set by mistake: the type alone refuses it.
    async with start(**signing(sealed(KEY))) as service:
        answer = (await ask_signed(service, token())).body.decode()
        assert KEYS.find(ISSUER, jws.split(answer).header["kid"]) is not None
        assert (await service.info(answer)).status == 401
        assert (await service.introspect(answer)).body == INACTIVE
        assert (await service.introspect(token(), headers=bearer(answer))).status == 401
        assert service.metric("tokenry_validations_total", result="wrong_type") == 2


async def test_I16_a_revocation_is_seen_as_soon_as_the_list_has_it(service):
    good = token()
    for _ in range(3):
        assert (await service.introspect(good)).json["active"]
    service.simulator.revoke_token(iss=ISSUER, jti=None, signing_input=good.rpartition(".")[0], exp=NOW + 3600)
    service.renew_list()
    assert (await service.introspect(good)).body == INACTIVE


# --- keys and form of signed answers --------------------------------------------------------------------------


async def test_answers_are_not_signed_unless_configured(service):
    answer = await ask_signed(service, token())
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert (await service.ask("GET", "/oauth2/introspect/keys")).status == 404


async def test_the_keys_of_answers_are_in_no_other_set(start):
    async with start(**signing()) as service:
        assert ANSWER_KEY.kid in (await service.ask("GET", "/oauth2/introspect/keys")).body.decode()
        assert ANSWER_KEY.kid not in (await service.ask("GET", "/oauth2/connect/keys")).body.decode()


def test_the_newest_key_signs_and_all_that_count_are_published():
    old, new, standby, gone = (PrivateKey.generate() for _ in range(4))
    documents = Secret(
        dump_json(
            {
                "keys": [
                    sealed(old, activate_at=NOW - 9, publish_at=NOW - 9),
                    sealed(new, activate_at=NOW - 8, publish_at=NOW - 8),
                    sealed(standby, activate_at=NOW + 9, publish_at=NOW - 9),
                    sealed(gone, activate_at=NOW - 99, publish_at=NOW - 99, retire_at=NOW),
                ]
            }
        ).decode()
    )
    signer = AnswerSigner(read_answer_keys(documents, envelope_key=envelope_text()), issuer=ISSUER)

    def kid(now):
        return jws.split(signer.sign({"active": False}, caller="c", now=now)).header["kid"]

    assert (kid(NOW), kid(NOW + 9)) == (new.kid, standby.kid)
    assert signer.sign({"active": False}, caller="c", now=NOW + 10**6) is None
    published = KeySet.parse(signer.jwks(now=NOW), issuer=ISSUER)
    assert set(published.kids(ISSUER)) == {old.kid, new.kid, standby.kid}
    assert signer.jwks(now=NOW + 10**6) == b'{"keys":[]}'


@pytest.mark.parametrize(
    "document",
    [
        {}, {"keys": []}, {"keys": {}}, {"keys": [1]}, {"keys": [sealed()] * 11}, {"keys": [sealed(), sealed()]},
        sealed(use="token"), sealed() | {"use": "token"}, sealed() | {"version": 2}, sealed() | {"more": 1},
        sealed() | {"kid": PrivateKey.generate().kid}, sealed() | {"kid": 1}, sealed() | {"sealed": 1},
        sealed() | {"public_jwk": PrivateKey.generate().public.to_jwk()}, sealed(publish_at=NOW, activate_at=NOW - 1),
        sealed() | {"retire_at": True}, sealed() | {"retire_at": "1"},
    ],
)  # fmt: skip
def test_keys_that_are_not_what_they_should_be_stop_the_start(document):
    with pytest.raises(ConfigurationError, match="TOKENRY_INTROSPECTION_KEYS"):
        Settings.from_environment(
            {
                "TOKENRY_ISSUER": ISSUER,
                "TOKENRY_INTROSPECTION_KEYS": json.dumps(document),
                "TOKENRY_INTROSPECTION_ENVELOPE_KEY": envelope_text().reveal(),
            }
        )


def test_so_does_another_envelope_key_and_half_of_the_settings():
    environ = {"TOKENRY_ISSUER": ISSUER, "TOKENRY_INTROSPECTION_KEYS": json.dumps(sealed())}
    for more in ({}, {"TOKENRY_INTROSPECTION_ENVELOPE_KEY": envelope_text(EnvelopeKey.generate()).reveal()}):
        with pytest.raises(ConfigurationError, match="TOKENRY_INTROSPECTION_KEYS") as raised:
            Settings.from_environment(environ | more)
        assert sealed()["sealed"]["ciphertext"] not in str(raised.value)


@pytest.mark.parametrize(
    ("accept", "signed"),
    [
        ([MEDIA_TYPE], True), ([MEDIA_TYPE.upper()], True), ([f"application/json, {MEDIA_TYPE};q=0.5"], True),
        (["application/json", MEDIA_TYPE], True), ([f"{MEDIA_TYPE};q=0"], False), ([f"{MEDIA_TYPE}; q=0.0"], False),
        (["application/*"], False), (["*/*"], False), ([], False), ([""], False), ([f"{MEDIA_TYPE}x"], False),
    ],
)  # fmt: skip
def test_a_signed_answer_is_given_only_to_who_names_it(accept, signed):
    assert accepts_jwt(accept) is signed


def test_the_scope_of_callers_is_named_as_documented():
    assert INTROSPECT == "token.introspect"
