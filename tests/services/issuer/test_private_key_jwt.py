"""Client authentication by assertion (RFC 7523 section 2.2) at the token endpoint."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from tests.services.issuer.support import ISSUER_URL, NOW, SECRET, basic, running
from tests.services.issuer.test_token_endpoint import GRANT, ORDERS, refused
from tests.support.foreign_tokens import foreign_key
from tokenry.http.fetch import Failure, FetchFailed, Headers, Response
from tokenry.oauth.assertions import CLIENT_ASSERTION_TYPE
from tokenry_issuer.trust_keys import MAX_SOURCES

KEY, OTHER = foreign_key("orders-1"), foreign_key("stock-1")
ENDPOINT = f"{ISSUER_URL}/oauth2/token"


def claims(number=1, *, client="orders", **changes):
    good = {"iss": client, "sub": client, "aud": ISSUER_URL, "exp": NOW + 60, "iat": NOW, "jti": f"id-{number}"}
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def form(assertion, **members):
    return {**GRANT, "client_assertion_type": CLIENT_ASSERTION_TYPE, "client_assertion": assertion, **members}


@pytest.fixture
async def issuer():
    async with running() as around:
        around.store.change(ORDERS, jwks=KEY.jwks)
        stock = {"client_id": "stock", "jwks": OTHER.jwks, "scopes": ["stock.read"], "default_scopes": ["stock.read"]}
        around.store.put("realms/services/clients/stock.json", stock)
        around.store.put("realms/services/clients/off.json", {"client_id": "off", "jwks": KEY.jwks, "enabled": False})
        await around.refresh()
        yield around


async def ask(issuer, assertion, **members):
    return await issuer.token(form(assertion, **members), client=None)


async def test_a_client_proves_itself_by_its_key(issuer):
    answer = await ask(issuer, KEY.sign(claims(), typ="client-authentication+jwt"))
    assert answer.status == 200, answer.body
    assert answer.claims["sub"] == answer.claims["client_id"] == "orders"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_a_client_with_keys_alone_needs_no_secret_and_one_with_both_may_use_either(issuer):
    assert (await ask(issuer, OTHER.sign(claims(client="stock")))).claims["client_id"] == "stock"
    assert (await issuer.token(GRANT)).status == 200


async def test_client_id_may_stand_beside_it_and_must_be_the_same(issuer):
    assert (await ask(issuer, KEY.sign(claims(1)), client_id="orders")).status == 200
    assert refused(await ask(issuer, KEY.sign(claims(2)), client_id="stock"), 401, "invalid_client")


async def test_C10_an_assertion_is_used_once(issuer):
    assertion = KEY.sign(claims())
    assert (await ask(issuer, assertion)).status == 200
    assert refused(await ask(issuer, assertion), 401, "invalid_client")
    # also when it is signed anew under the same id, and whatever became of the first request
    assert refused(await ask(issuer, KEY.sign(claims(exp=NOW + 120))), 401, "invalid_client")
    assert refused(await ask(issuer, KEY.sign(claims(2)), scope="nope"), 400, "invalid_scope")
    assert refused(await ask(issuer, KEY.sign(claims(2))), 401, "invalid_client")


async def test_C10_ids_are_each_clients_own(issuer):
    assert (await ask(issuer, KEY.sign(claims(7)))).status == 200
    assert (await ask(issuer, OTHER.sign(claims(7, client="stock")))).status == 200


async def test_C10_a_failed_presentation_uses_nothing_up(issuer):
    forged = OTHER.sign(claims(), kid=KEY.kid)
    assert refused(await ask(issuer, forged), 401, "invalid_client")
    assert (await ask(issuer, KEY.sign(claims()))).status == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "stock"}, {"sub": "stock"}, {"aud": ENDPOINT}, {"aud": [ISSUER_URL, ENDPOINT]},
        {"aud": ISSUER_URL + "/"}, {"exp": ...}, {"exp": NOW}, {"exp": NOW + 301}, {"nbf": NOW + 60}, {"jti": ...},
    ],
)  # fmt: skip
async def test_C05_C06_C09_what_is_wrong_in_an_assertion_is_not_told(issuer, changes):
    answer = await ask(issuer, KEY.sign(claims(**changes)))
    assert refused(answer, 401, "invalid_client")
    assert "WWW-Authenticate" not in answer.headers
    assert answer.json["error_description"] == "client authentication failed"


async def test_C07_a_list_of_the_issuer_alone(issuer):
    assert (await ask(issuer, KEY.sign(claims(aud=[ISSUER_URL])))).status == 200


async def test_C11_another_clients_key(issuer):
    assert refused(await ask(issuer, OTHER.sign(claims())), 401, "invalid_client")
    assert refused(await ask(issuer, OTHER.sign(claims(), kid=KEY.kid)), 401, "invalid_client")


async def test_C04_unknown_disabled_keyless_and_wrong_are_answered_alike(issuer):
    answers = [await ask(issuer, KEY.sign(claims(1, client=client))) for client in ("nobody", "off", "public", "robot")]
    answers.append(await ask(issuer, OTHER.sign(claims(2), kid=KEY.kid)))
    answers.append(await ask(issuer, "garbage"))
    assert len({(answer.status, answer.body) for answer in answers}) == 1
    assert refused(answers[0], 401, "invalid_client")


async def test_C04_every_failure_costs_a_signature_check(issuer):
    spent = []
    judge = issuer.issuer.issuance.assertions
    judge.spend = lambda unverified: spent.append(unverified.sub)
    await ask(issuer, KEY.sign(claims(1, client="nobody")))
    await ask(issuer, KEY.sign(claims(2, client="public")))
    await ask(issuer, OTHER.sign(claims(3)))  # a key that the client does not have
    assert spent == ["nobody", "public", "orders"]


async def test_C01_an_assertion_beside_another_method_is_refused(issuer):
    assertion = KEY.sign(claims())
    for more, authorization in (
        ({"client_secret": SECRET, "client_id": "orders"}, []),
        ({}, [basic("orders", SECRET)]),
    ):
        answer = await issuer.token(form(assertion, **more), client=None, authorization=authorization)
        assert refused(answer, 400, "invalid_request")
    assert (await ask(issuer, assertion)).status == 200  # nothing was used up


@pytest.mark.parametrize("missing", ["client_assertion", "client_assertion_type"])
async def test_half_an_assertion_is_malformed(issuer, missing):
    members = form(KEY.sign(claims()))
    del members[missing]
    assert refused(await issuer.token(members, client=None), 400, "invalid_request")


async def test_an_assertion_of_another_type_is_refused(issuer):
    saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
    answer = await ask(issuer, KEY.sign(claims()), client_assertion_type=saml)
    assert refused(answer, 401, "invalid_client")


async def test_T04_an_assertion_sent_twice_is_refused(issuer):
    members = [*form(KEY.sign(claims())).items(), ("client_assertion", "x")]
    assert refused(await issuer.token(members, client=None), 400, "invalid_request")


async def test_D58_an_assertion_in_the_query_is_refused(issuer):
    answer = await issuer.token(GRANT, client=None, path="/oauth2/token?client_assertion=x")
    assert refused(answer, 400, "invalid_request")


async def test_a_client_may_be_allowed_to_name_the_token_endpoint_and_that_is_counted(issuer):
    issuer.store.change(ORDERS, assertion_audience="token_endpoint")
    await issuer.refresh()
    assert (await ask(issuer, KEY.sign(claims(1)))).status == 200
    assert (await ask(issuer, KEY.sign(claims(2, aud=ENDPOINT)))).status == 200
    assert refused(
        await ask(issuer, KEY.sign(claims(3, aud=f"{ISSUER_URL}/oauth2/access_token"))), 401, "invalid_client"
    )
    metrics = (await issuer.call("GET", "/metrics")).body.decode()
    assert "tokenry_assertions_for_the_token_endpoint_total 1.0" in metrics


async def test_T22_failed_assertions_count_like_failed_secrets():
    async with running(failures_per_client=3) as issuer:
        issuer.store.change(ORDERS, jwks=KEY.jwks)
        await issuer.refresh()
        for number in range(3):
            await ask(issuer, OTHER.sign(claims(number), kid=KEY.kid))
        assert refused(await ask(issuer, KEY.sign(claims(9))), 429, "temporarily_unavailable")
        assert (await issuer.token(GRANT)).status == 429  # nor is the secret a way around


async def test_the_key_may_be_named_by_its_thumbprint(issuer):
    jwk = {name: value for name, value in KEY.jwk.items() if name in {"kty", "crv", "x", "y"}}
    issuer.store.change(ORDERS, jwks={"keys": [jwk, OTHER.jwk]})
    await issuer.refresh()
    from tokenry.jose.jwk import thumbprint

    assert (await ask(issuer, KEY.sign(claims(), kid=thumbprint(jwk)))).status == 200


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"keys": []},
        {"keys": "x"},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}]},
        {"keys": [{**KEY.jwk, "d": "AAAA"}]},
        {"keys": [KEY.jwk, {**OTHER.jwk, "kid": KEY.kid}]},
        {"keys": [KEY.jwk, {"kty": "EC"}]},
        {"keys": [foreign_key("p384", "ES384").jwk]},
        {"keys": [KEY.jwk] * 17},
    ],
)
async def test_a_client_whose_keys_are_not_sound_keeps_its_last_good_version(issuer, jwks):
    issuer.store.change(ORDERS, jwks=jwks, scopes=[], default_scopes=[])
    await issuer.refresh()
    assert issuer.issuer.credentials.refused == 1
    assert (await ask(issuer, KEY.sign(claims()))).json["scope"] == "orders.read"


async def test_a_key_that_is_taken_away_proves_nothing_any_more(issuer):
    issuer.store.change(ORDERS, jwks=OTHER.jwks)
    await issuer.refresh()
    assert refused(await ask(issuer, KEY.sign(claims())), 401, "invalid_client")


async def test_the_record_says_how_the_client_proved_itself_and_why_not(issuer):
    assertion = KEY.sign(claims())
    with capture_logs() as logs:
        await ask(issuer, assertion)
        await ask(issuer, assertion)
        await ask(issuer, KEY.sign(claims(2, aud="x")))
        await ask(issuer, KEY.sign(claims(3, client="nobody")), client_id="typed-in-the-wrong-place")
    audit = [entry for entry in logs if entry["event"] in {"token_issued", "token_refused"}]
    assert audit[0]["method"] == "private_key_jwt"
    assert (audit[0]["client_id"], audit[0]["assertion_jti"], audit[0]["assertion_kid"]) == ("orders", "id-1", KEY.kid)
    assert [entry["reason"] for entry in audit[1:]] == [
        "the assertion was used before",
        "the assertion is not valid (wrong_audience)",
        "unknown client",
    ]
    text = json.dumps(logs, default=str)
    assert assertion not in text
    assert "typed-in-the-wrong-place" not in text


async def test_a_large_assertion_fits_into_a_request_and_a_larger_one_is_just_wrong(issuer):
    padded = KEY.sign(claims(more="x" * 10_000))
    assert (await ask(issuer, padded)).status == 200
    assert refused(await ask(issuer, KEY.sign(claims(2, more="x" * 20_000))), 401, "invalid_client")


# --- keys that the client publishes -------------------------------------------------------------------------

PLACE = "https://orders.example.org/jwks.json"


class Web:
    """The places where clients have their keys."""

    def __init__(self, **keys):
        self.keys = keys or {PLACE: KEY.jwks}
        self.asked = []

    def fetch(self, request):
        self.asked.append(request.url)
        if request.url not in self.keys:
            raise FetchFailed(Failure.CONNECT, "there is nothing here")
        return Response(status=200, headers=Headers([]), body=json.dumps(self.keys[request.url]).encode())

    def cancel(self):
        pass


@asynccontextmanager
async def publishing(web, *, hosts="orders.example.org", **members):
    async with running(fetchers=lambda: web, trust_jwks_hosts=hosts) as issuer:
        members = {"client_id": "orders", "jwks_uri": PLACE, "scopes": ["orders.read"]} | members
        issuer.store.put(ORDERS, members)
        await issuer.refresh()
        yield issuer


async def at_hand(issuer):
    async with asyncio.timeout(5):
        while issuer.issuer.trust_keys.missing:  # noqa: ASYNC110 -- another thread's state
            await asyncio.sleep(0.01)


async def test_C12_a_client_may_publish_its_keys_at_a_listed_host():
    web = Web()
    async with publishing(web) as issuer:
        await at_hand(issuer)
        assert (await ask(issuer, KEY.sign(claims()))).status == 200
        assert refused(await ask(issuer, OTHER.sign(claims(2))), 401, "invalid_client")
        assert set(web.asked) == {PLACE}


async def test_C12_no_other_host_is_asked_for_a_clients_keys_and_readiness_says_so():
    for hosts in ("", "example.org", "orders.example.org:8443"):
        web = Web()
        async with publishing(web, hosts=hosts) as issuer:
            assert refused(await ask(issuer, KEY.sign(claims())), 401, "invalid_client")
            assert "foreign issuers or clients" in (await issuer.call("GET", "/readyz?verbose")).body.decode()
            assert web.asked == []


@pytest.mark.parametrize(
    "members",
    [
        {"jwks_uri": "http://orders.example.org/jwks.json"},
        {"jwks_uri": "https://user@orders.example.org/jwks.json"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": PLACE, "jwks": KEY.jwks},
    ],
)
async def test_C12_what_is_no_place_for_a_clients_keys_is_refused_with_the_object(members):
    web = Web()
    async with publishing(web, **members) as issuer:
        assert issuer.issuer.credentials.refused == 1
        assert web.asked == []


async def test_a_client_that_publishes_a_new_key_is_known_by_it_at_once_and_made_up_names_fetch_nothing():
    web, new = Web(), foreign_key("orders-2")
    async with publishing(web) as issuer:
        await at_hand(issuer)
        web.keys[PLACE] = {"keys": [KEY.jwk, new.jwk]}
        issuer.clock.advance(11)  # beyond the cooldown
        assert (await ask(issuer, new.sign(claims(1)))).status == 200
        asked = len(web.asked)
        for number in range(5):
            stranger = foreign_key("stranger").sign(claims(f"f{number}"))
            assert refused(await ask(issuer, stranger), 401, "invalid_client")
        assert len(web.asked) <= asked + 1


async def test_a_client_whose_keys_are_not_at_hand_is_answered_as_nobody_is():
    web = Web()
    held = web.keys.pop(PLACE)
    async with publishing(web) as issuer:
        absent = await ask(issuer, KEY.sign(claims(1)))
        nobody = await ask(issuer, KEY.sign(claims(1, client="nobody")))
        assert (absent.status, absent.body) == (nobody.status, nobody.body) == (401, absent.body)
        web.keys[PLACE] = held
        issuer.clock.advance(60)
        for source in issuer.issuer.trust_keys._sources.values():
            source._poller.wake()
        await at_hand(issuer)
        assert (await ask(issuer, KEY.sign(claims(1, exp=NOW + 120)))).status == 200


async def test_two_clients_at_one_place_are_two_and_a_client_that_goes_stops_the_fetching():
    web = Web()
    async with publishing(web) as issuer:
        issuer.store.put("realms/services/clients/twin.json", {"client_id": "twin", "jwks_uri": PLACE})
        await issuer.refresh()
        await at_hand(issuer)
        assert len(issuer.issuer.trust_keys._sources) == 2
        # Signed with the same key, and yet each only for itself.
        assert (await ask(issuer, KEY.sign(claims(1, client="twin")))).claims["client_id"] == "twin"
        assert refused(await ask(issuer, KEY.sign(claims(2, client="twin", sub="orders"))), 401, "invalid_client")
        sources = list(issuer.issuer.trust_keys._sources.values())
        issuer.store.delete("realms/services/clients/twin.json")
        issuer.store.change(ORDERS, enabled=False)
        await issuer.refresh()
        assert not issuer.issuer.trust_keys._sources
        assert not any(source._poller.running for source in sources)


async def test_places_beyond_the_bound_are_not_read_and_rules_come_first():
    web = Web()
    async with publishing(web) as issuer:
        for number in range(MAX_SOURCES + 5):
            name = f"client-{number:02d}"
            issuer.store.put(f"realms/services/clients/{name}.json", {"client_id": name, "jwks_uri": PLACE})
        await issuer.refresh()
        assert len(issuer.issuer.trust_keys._sources) == MAX_SOURCES
        assert issuer.issuer.trust_keys.missing >= 6
