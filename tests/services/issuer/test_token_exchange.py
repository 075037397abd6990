"""Token exchange (RFC 8693) at the token endpoint: always less than before, never longer, and revoked with its root."""

import json
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.services.issuer.support import ISSUER_URL, NOW, SECRET, running
from tests.services.issuer.test_token_endpoint import refused
from tokenry.jose import jws
from tokenry.jose.encoding import dump_json
from tokenry.oauth.token_endpoint import ACCESS_TOKEN_TYPE, JWT_TYPE, TOKEN_EXCHANGE
from tokenry.revocation.judged import JudgedToken
from tokenry.testing.revocations import RevocationSimulator
from tokenry_registry.bootstrap import hash_secret

ORDERS, STOCK, BILLING = "https://orders.example.org", "https://stock.example.org", "https://billing.example.org"
REALM = "realms/services/realm.json"
HASH = [{"hash": hash_secret(SECRET), "created_at": 1}]


def install(around, **policy):
    """Three services in a row: web calls orders, orders calls stock, stock calls billing."""
    around.store.change(REALM, grant_types=["client_credentials", "password", TOKEN_EXCHANGE])
    for name, audience, onward in (
        ("web", None, [ORDERS]),
        ("orders", ORDERS, [STOCK]),
        ("stock", STOCK, [BILLING, ORDERS]),
    ):
        client = {
            "client_id": name, "secrets": HASH, "scopes": ["a", "b", "c"], "default_scopes": ["a", "b", "c"],
            "audiences": onward, "grant_types": ["client_credentials", TOKEN_EXCHANGE],
        }  # fmt: skip
        if audience is not None:
            client["token_exchange"] = {"subject_audiences": [audience], **policy}
        around.store.put(f"realms/services/clients/{name}.json", client)


@pytest.fixture
async def issuer():
    async with exchanging() as around:
        yield around


@asynccontextmanager
async def exchanging(**policy):
    async with running(with_list=True) as around:
        around.simulator = RevocationSimulator(clock=around.clock, max_token_lifetime=3600)
        install(around, **policy)
        publish(around)
        await around.refresh()
        yield around


def publish(around, *, age=0.0):
    around.revocations.publish(around.simulator.snapshot().value, age=age)


async def first(issuer, **members):
    form = {"grant_type": "client_credentials", "realm": "services", "audience": ORDERS, **members}
    return (await issuer.token(form, client=("web", SECRET))).json["access_token"]


async def exchange(issuer, token, *, client="orders", **members):
    form = {
        "grant_type": TOKEN_EXCHANGE, "realm": "services", "subject_token": token,
        "subject_token_type": ACCESS_TOKEN_TYPE, "audience": STOCK, **members,
    }  # fmt: skip
    return await issuer.token(
        {name: value for name, value in form.items() if value is not ...}, client=(client, SECRET)
    )


async def test_X2_a_token_is_swapped_for_one_aimed_at_the_next_service(issuer):
    subject = await first(issuer)
    answer = await exchange(issuer, subject)
    assert answer.status == 200, answer.body
    assert answer.json["issued_token_type"] == ACCESS_TOKEN_TYPE
    assert answer.json["token_type"] == "Bearer"
    claims = answer.claims
    assert (claims["sub"], claims["client_id"], claims["azp"]) == ("web", "orders", "orders")
    assert claims["aud"] == STOCK
    assert claims["act"] == {"sub": "orders"}
    assert claims["realm"] == "/services"
    assert "refresh_token" not in answer.json
    assert (
        "issued_token_type" not in (await issuer.token({"grant_type": "client_credentials", "realm": "services"})).json
    )


async def test_the_chain_of_actors_and_the_root_are_kept(issuer):
    subject = await first(issuer)
    one = await exchange(issuer, subject)
    issuer.clock.advance(1)
    two = await exchange(issuer, one.json["access_token"], client="stock", audience=BILLING)
    assert two.claims["act"] == {"sub": "stock", "act": {"sub": "orders"}}
    assert two.claims["sub"] == "web"
    root = decoded(subject)
    for answer in (one, two):
        assert (answer.claims["root_jti"], answer.claims["root_iat"]) == (root["jti"], root["iat"])
    assert "via_jti" not in one.claims
    assert two.claims["via_jti"] == [one.claims["jti"]]


def decoded(token):
    return json.loads(jws.split(token).payload)


async def test_the_type_may_be_called_a_jwt(issuer):
    answer = await exchange(issuer, await first(issuer), subject_token_type=JWT_TYPE, requested_token_type=JWT_TYPE)
    assert answer.json["issued_token_type"] == JWT_TYPE


# --- what is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"subject_token": ...}, {"subject_token_type": ...}, {"subject_token_type": "urn:x"},
        {"actor_token": "x"}, {"actor_token_type": ACCESS_TOKEN_TYPE},
        {"actor_token": "x", "actor_token_type": ACCESS_TOKEN_TYPE},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, {"subject_token": "garbage"},
        {"resource": STOCK},
    ],
)  # fmt: skip
async def test_X1_malformed_requests(issuer, changes):
    token = await first(issuer)
    members = {name: value for name, value in changes.items() if name != "subject_token"}
    answer = await exchange(issuer, changes.get("subject_token", token), **members)
    assert refused(answer, 400, "invalid_request")


@pytest.mark.parametrize("target", [..., BILLING, ORDERS, ISSUER_URL, "x"])
async def test_X3_the_target_is_named_and_one_that_the_client_may_call(issuer, target):
    assert refused(await exchange(issuer, await first(issuer), audience=target), 400, "invalid_target")


async def test_X3_a_resource_is_a_target_too(issuer):
    answer = await exchange(issuer, await first(issuer), audience=..., resource=STOCK)
    assert answer.claims["aud"] == STOCK


async def test_X4_the_scope_is_within_the_tokens_and_the_clients(issuer):
    issuer.store.change("realms/services/clients/orders.json", scopes=["b", "c", "d"], default_scopes=["d"])
    await issuer.refresh()
    token = await first(issuer, scope="a b")
    assert (await exchange(issuer, token)).json["scope"] == "b"  # not its default scopes: what is within both
    assert (await exchange(issuer, token, scope="b")).json["scope"] == "b"
    for beyond in ("a", "c", "d", "b c", "unheard-of"):
        assert refused(await exchange(issuer, token, scope=beyond), 400, "invalid_scope")


async def test_X5_it_never_lives_longer(issuer):
    token = await first(issuer)
    issuer.clock.advance(3000)
    publish(issuer)
    answer = await exchange(issuer, token)
    assert answer.json["expires_in"] == 600
    assert answer.claims["exp"] == decoded(token)["exp"]
    issuer.store.change("realms/services/clients/orders.json", token_lifetime=60)
    await issuer.refresh()
    assert (await exchange(issuer, token)).json["expires_in"] == 60


async def test_X5_an_expired_token_gives_nothing(issuer):
    token = await first(issuer)
    issuer.clock.advance(3600)
    publish(issuer)
    assert refused(await exchange(issuer, token), 400, "invalid_request")


# --- policy -----------------------------------------------------------------------------------------------------


async def test_a_client_without_a_policy_exchanges_nothing(issuer):
    token = await first(issuer)
    assert refused(await exchange(issuer, token, client="web", audience=ORDERS), 400, "unauthorized_client")


async def test_T06_grant_and_realm_have_to_allow_it(issuer):
    token = await first(issuer)
    issuer.store.change("realms/services/clients/orders.json", grant_types=["client_credentials"])
    await issuer.refresh()
    assert refused(await exchange(issuer, token), 400, "unauthorized_client")
    issuer.store.change(REALM, grant_types=["client_credentials"])
    await issuer.refresh()
    assert refused(await exchange(issuer, token), 400, "unsupported_grant_type")


async def test_a_token_that_was_meant_for_somebody_else_is_not_the_clients_to_exchange(issuer):
    token = await first(issuer)  # for orders
    assert refused(await exchange(issuer, token, client="stock", audience=BILLING), 400, "invalid_request")


async def test_only_tokens_of_named_clients_where_they_are_named():
    async with exchanging(subject_clients=["web"]) as issuer:
        token = (await exchange(issuer, await first(issuer))).json["access_token"]
        assert refused(await exchange(issuer, token, client="stock", audience=BILLING), 400, "invalid_request")


async def test_the_depth_is_bounded():
    async with exchanging(max_depth=2) as issuer:
        one = (await exchange(issuer, await first(issuer))).json["access_token"]
        two = (await exchange(issuer, one, client="stock", audience=ORDERS)).json["access_token"]
        assert refused(await exchange(issuer, two), 400, "invalid_request")


async def test_a_token_of_another_realm_stays_there(issuer):
    form = {"grant_type": "client_credentials", "realm": "modern", "audience": "stock"}
    token = (await issuer.token(form)).json["access_token"]
    issuer.store.change("realms/services/clients/orders.json", token_exchange={"subject_audiences": ["stock"]})
    await issuer.refresh()
    assert refused(await exchange(issuer, token), 400, "invalid_request")


@pytest.mark.parametrize(
    "policy",
    [{}, {"subject_audiences": []}, {"subject_audiences": [""]}, {"subject_audiences": [ORDERS], "max_depth": 0},
     {"subject_audiences": [ORDERS], "max_depth": 9}, {"subject_audiences": [ORDERS], "x": 1},
     {"subject_audiences": [ORDERS], "subject_clients": "web"}, "all"],
)  # fmt: skip
async def test_a_policy_that_is_not_sound_refuses_the_object(issuer, policy):
    issuer.store.change("realms/services/clients/orders.json", token_exchange=policy)
    await issuer.refresh()
    assert issuer.issuer.credentials.refused == 1


async def test_T07_an_unauthenticated_client_exchanges_nothing(issuer):
    token = await first(issuer)
    form = {"grant_type": TOKEN_EXCHANGE, "realm": "services", "subject_token": token, "audience": STOCK,
            "subject_token_type": ACCESS_TOKEN_TYPE}  # fmt: skip
    assert refused(await issuer.token(form, client=None), 401, "invalid_client")


# --- subject tokens that are none -------------------------------------------------------------------------------


async def test_a_token_that_was_not_signed_by_us_is_refused(issuer):
    from tokenry.jose.jwk import PrivateKey

    token = await first(issuer)
    kid = jws.split(token).header["kid"]
    stranger = PrivateKey.generate()
    forged = jws.sign({"typ": "at+jwt"}, dump_json(decoded(token)), stranger)
    stranger.kid = kid
    for other in (forged, jws.sign({"typ": "at+jwt"}, dump_json(decoded(token)), stranger), jws.twin(token)):
        assert refused(await exchange(issuer, other), 400, "invalid_request")


async def test_a_token_that_was_revoked_is_not_exchanged(issuer):
    token = await first(issuer)
    claims = decoded(token)
    issuer.simulator.revoke_token(iss=ISSUER_URL, jti=claims["jti"], signing_input=token.rpartition(".")[0],
                                  exp=claims["exp"])  # fmt: skip
    publish(issuer)
    assert refused(await exchange(issuer, token), 400, "invalid_request")


@pytest.mark.parametrize(("age", "status"), [(4.9, 200), (5.1, 503)])
async def test_a_list_older_than_five_seconds_is_none(issuer, age, status):
    token = await first(issuer)
    publish(issuer, age=age)
    answer = await exchange(issuer, token)
    assert answer.status == status
    if status == 503:
        assert answer.headers["Retry-After"] == "1"
        assert await first(issuer)  # whoever asks for a first token is served


async def test_without_a_reader_of_revocations_nothing_is_exchanged():
    async with running() as issuer:
        install(issuer)
        await issuer.refresh()
        assert refused(await exchange(issuer, await first(issuer)), 503, "temporarily_unavailable")


async def test_a_revocation_of_any_token_of_the_chain_hits_what_was_made_from_it(issuer):
    subject = await first(issuer)
    one = await exchange(issuer, subject)
    two = await exchange(issuer, one.json["access_token"], client="stock", audience=BILLING)
    end = two.json["access_token"]
    ids = [(decoded(subject)["jti"], True), (one.claims["jti"], True), (two.claims["jti"], True), ("other", False)]
    for jti, hits in ids:
        simulator = RevocationSimulator(clock=issuer.clock, max_token_lifetime=3600)
        simulator.revoke_token(iss=ISSUER_URL, jti=jti, signing_input="other", exp=NOW + 3600)
        judged = JudgedToken(
            iss=ISSUER_URL, jti=two.claims["jti"], kid=two.header["kid"], iat=two.claims["iat"], claims=two.claims,
            signing_input=end.rpartition(".")[0],
        )  # fmt: skip
        assert (simulator.snapshot().value.hits(judged, now=issuer.clock.now()) is not None) is hits


async def test_a_cut_off_by_subject_hits_by_the_root_and_not_by_the_exchange(issuer):
    subject = await first(issuer)
    issuer.clock.advance(100)
    publish(issuer)
    one = await exchange(issuer, subject)
    issuer.simulator.revoke_claims({"sub": "web"}, issued_before=NOW + 50)
    publish(issuer)
    assert one.claims["iat"] > NOW + 50
    assert refused(await exchange(issuer, one.json["access_token"], client="stock", audience=BILLING), 400,
                   "invalid_request")  # fmt: skip


async def test_the_record_says_what_was_exchanged(issuer):
    subject = await first(issuer)
    with capture_logs() as logs:
        await exchange(issuer, subject)
        await exchange(issuer, "garbage")
    issued, failed = (entry for entry in logs if entry["event"] in {"token_issued", "token_refused"})
    assert issued["subject_jti"] == issued["root_jti"] == decoded(subject)["jti"]
    assert (issued["client_id"], issued["subject"], issued["subject_client"]) == ("orders", "web", "web")
    assert failed["reason"] == "the access token is not valid (not_compact)"
    assert subject not in json.dumps(logs, default=str)


SCOPES = st.frozensets(st.sampled_from("abcd"), max_size=4)


@examples(max_examples=25, deadline=None)
@given(granted=SCOPES, allowed=SCOPES, requested=st.none() | SCOPES.filter(bool))
def test_X4_no_scope_comes_from_nowhere(granted, allowed, requested):
    from tokenry.oauth.errors import OAuthError
    from tokenry_issuer.exchange import exchanged_scope

    try:
        scope = exchanged_scope(requested, subject=granted, allowed=allowed)
    except OAuthError:
        assert requested - (granted & allowed)
    else:
        assert scope <= granted & allowed
        assert requested is None or scope == requested
