"""Workloads that have no secret: platform tokens stand in for it (RFC 7523 sections 2.1 and 2.2)."""

import json

import pytest
from structlog.testing import capture_logs

from tests.services.issuer.support import ISSUER_URL, NOW, SECRET, running
from tests.services.issuer.test_token_endpoint import refused
from tests.support.foreign_tokens import foreign_key
from tests.support.platform_tokens import (
    AWS,
    AWS_KEY,
    ES256_KEY,
    GITHUB,
    GITHUB_KEY,
    KUBERNETES,
    KUBERNETES_KEY,
    aws,
    github,
    kubernetes,
    signed,
)
from tokenry.client.credentials import AssertionFile
from tokenry.client.token_endpoint import Grant, vouched_token_request
from tokenry.http.fetch import Failure, FetchFailed, Headers, Response
from tokenry.oauth.assertions import CLIENT_ASSERTION_TYPE
from tokenry.oauth.token_endpoint import JWT_BEARER
from tokenry_registry.bootstrap import hash_secret

REALM = "realms/services/realm.json"
RULES = {
    "payments": {
        "issuer": KUBERNETES, "algorithms": ["RS256"], "jwks": KUBERNETES_KEY.jwks, "single_use": False,
        "conditions": {"kubernetes.io": {"namespace": "payments", "serviceaccount": {"name": "api"}}},
    },
    "deployer": {
        "issuer": GITHUB, "algorithms": ["RS256"], "jwks": GITHUB_KEY.jwks,
        "conditions": {"repository_id": "74", "environment": "prod"},
    },
    "lambda": {
        "issuer": AWS, "algorithms": ["ES384", "RS256"], "jwks": AWS_KEY.jwks,
        "conditions": {"sub": "arn:aws:iam::123456789012:role/DataProcessingRole",
                       "https://sts.amazonaws.com/": {"org_id": "o-abc1234567"}},
    },
    "spire": {
        "issuer": "https://spire.example.org", "algorithms": ["ES256"], "jwks": ES256_KEY.jwks, "single_use": False,
        "conditions": {"sub": "spiffe://example.org/spire"},
    },
}  # fmt: skip


def install(issuer, rules=None):
    for name, rule in (rules or RULES).items():
        members = {"name": name, "client_id": name, "audience": ISSUER_URL, **rule}
        issuer.store.put(f"realms/services/trust/{name}.json", members)
        client = {"client_id": name, "scopes": ["x.read", "x.write"], "default_scopes": ["x.read"]}
        issuer.store.put(
            f"realms/services/clients/{name}.json", {**client, "grant_types": ["client_credentials", JWT_BEARER]}
        )
    issuer.store.change(REALM, grant_types=["client_credentials", "password", JWT_BEARER])


@pytest.fixture
async def issuer():
    async with running() as around:
        install(around)
        await around.refresh()
        yield around


def as_secret(token, **members):
    """The token in place of the client's secret (RFC 7523 section 2.2)."""
    return {"grant_type": "client_credentials", "realm": "services", "client_assertion_type": CLIENT_ASSERTION_TYPE,
            "client_assertion": token, **members}  # fmt: skip


def as_grant(token, **members):
    """The token as the grant itself (RFC 7523 section 2.1)."""
    return {"grant_type": JWT_BEARER, "realm": "services", "assertion": token, **members}


async def ask(issuer, form):
    return await issuer.token(form, client=None)


def k8s(**changes):
    return signed(KUBERNETES_KEY, kubernetes(audience=ISSUER_URL, now=NOW, **changes))


def gh(number=1, **changes):
    return signed(GITHUB_KEY, github(audience=ISSUER_URL, now=NOW, jti=f"gh-{number}", **changes))


def sts(number=1, **changes):
    return signed(AWS_KEY, aws(audience=ISSUER_URL, now=NOW, jti=f"aws-{number}", **changes))


FORMS = [as_secret, as_grant]
REFUSED = {as_secret: (401, "invalid_client"), as_grant: (400, "invalid_grant")}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("token", "client"), [(k8s, "payments"), (gh, "deployer"), (sts, "lambda")])
async def test_each_platforms_token_stands_for_its_client(issuer, form, token, client):
    answer = await ask(issuer, form(token()))
    assert answer.status == 200, answer.body
    assert answer.claims["client_id"] == answer.claims["sub"] == client
    assert answer.json["scope"] == "x.read"
    # nothing of the foreign token is in ours
    assert set(answer.claims) == {"iss", "sub", "aud", "client_id", "azp", "exp", "iat", "jti", "scope", "realm"}


async def test_the_librarys_own_request_is_taken(issuer, tmp_path):
    (tmp_path / "token").write_text(k8s() + "\n")
    grant = Grant(grant_type="client_credentials", scope=frozenset({"x.read"}), realm="/services")
    for client_id, status in ((None, 200), ("payments", 200), ("deployer", 401)):
        identity = AssertionFile(path=tmp_path / "token", client_id=client_id).read()
        request = vouched_token_request(f"{ISSUER_URL}/oauth2/token", grant, identity, deadline_seconds=1)
        assert (await issuer.token(request.body, client=None)).status == status


@pytest.mark.parametrize("form", FORMS)
async def test_X8_es256_es384_and_rs256_as_configured_and_no_other(issuer, form):
    spiffe = {"iss": "https://spire.example.org", "sub": "spiffe://example.org/spire", "aud": [ISSUER_URL],
              "iat": NOW, "exp": NOW + 300}  # fmt: skip
    assert (await ask(issuer, form(signed(ES256_KEY, spiffe)))).claims["client_id"] == "spire"
    with_other = foreign_key(ES256_KEY.kid + "-rsa", "RS256")
    assert refused(await ask(issuer, form(signed(with_other, spiffe))), *REFUSED[form])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "aud",
    [KUBERNETES, [ISSUER_URL, KUBERNETES], "https://other.example.org", f"{ISSUER_URL}/", [], "sts.amazonaws.com"],
)
async def test_X6_the_audience_is_ours_and_only_ours(issuer, form, aud):
    assert refused(await ask(issuer, form(k8s(aud=aud))), *REFUSED[form])


@pytest.mark.parametrize("form", FORMS)
async def test_X6_an_issuer_without_a_rule_is_nobody(issuer, form):
    stranger = foreign_key("stranger", "RS256")
    token = stranger.sign({**kubernetes(audience=ISSUER_URL, now=NOW), "iss": "https://evil.example.org"})
    assert refused(await ask(issuer, form(token)), *REFUSED[form])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "token",
    [
        lambda: k8s(**{"kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "api"}}}),
        lambda: k8s(**{"kubernetes.io": {"namespace": "payments"}}),
        lambda: gh(environment="staging"),
        lambda: gh(repository_id="75"),
        lambda: sts(sub="arn:aws:iam::123456789012:role/Other"),
        lambda: sts(**{"https://sts.amazonaws.com/": {"org_id": "o-other"}}),
    ],
)
async def test_X7_another_workload_of_the_same_platform_is_refused(issuer, form, token):
    assert refused(await ask(issuer, form(token())), *REFUSED[form])


@pytest.mark.parametrize("form", FORMS)
async def test_X9_a_token_with_a_jti_is_used_once_and_one_that_is_kept_by_design_again(issuer, form):
    token = gh()
    assert (await ask(issuer, form(token))).status == 200
    for again in FORMS:
        assert refused(await ask(issuer, again(token)), *REFUSED[again])
    kept = k8s()
    for _ in range(3):
        assert (await ask(issuer, form(kept))).status == 200


async def test_X9_a_rule_for_single_use_refuses_a_token_without_a_jti(issuer):
    claims = github(audience=ISSUER_URL, now=NOW)
    del claims["jti"]
    assert refused(await ask(issuer, as_secret(signed(GITHUB_KEY, claims))), 401, "invalid_client")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "changes", [{"exp": NOW}, {"exp": NOW + 7200}, {"nbf": NOW + 60}, {"iat": NOW + 60}, {"iat": NOW - 86_400}]
)
async def test_times_are_judged(issuer, form, changes):
    assert refused(await ask(issuer, form(k8s(**changes))), *REFUSED[form])


@pytest.mark.parametrize("form", FORMS)
async def test_a_forged_token_is_refused(issuer, form):
    forger = foreign_key("forger", "RS256")
    forged = forger.sign(kubernetes(audience=ISSUER_URL, now=NOW), kid=KUBERNETES_KEY.kid)
    assert refused(await ask(issuer, form(forged)), *REFUSED[form])
    # an own access token is no foreign one
    own = (await ask(issuer, as_secret(k8s()))).json["access_token"]
    assert refused(await ask(issuer, form(own)), *REFUSED[form])


async def test_a_clients_own_assertion_is_not_a_grant(issuer):
    key = foreign_key("own-1")
    issuer.store.change("realms/services/clients/payments.json", jwks=key.jwks)
    await issuer.refresh()
    own = key.sign({"iss": "payments", "sub": "payments", "aud": ISSUER_URL, "exp": NOW + 60, "jti": "1"})
    assert refused(await ask(issuer, as_grant(own)), 400, "invalid_grant")
    assert (await ask(issuer, as_secret(own))).status == 200


async def test_client_id_narrows_the_rules_and_another_clients_is_refused(issuer):
    assert (await ask(issuer, as_secret(k8s(), client_id="payments"))).status == 200
    assert refused(await ask(issuer, as_secret(k8s(), client_id="orders")), 401, "invalid_client")


async def test_where_rules_of_several_clients_fit_the_client_has_to_be_named(issuer):
    install(issuer, {"batch": RULES["payments"]})
    await issuer.refresh()
    assert refused(await ask(issuer, as_secret(k8s())), 401, "invalid_client")
    assert (await ask(issuer, as_secret(k8s(), client_id="batch"))).claims["client_id"] == "batch"


async def test_a_client_that_authenticates_besides_has_to_be_the_same(issuer):
    stored = {"hash": hash_secret(SECRET), "created_at": 1}
    issuer.store.change("realms/services/clients/payments.json", secrets=[stored])
    await issuer.refresh()
    assert (await issuer.token(as_grant(k8s()), client=("payments", SECRET))).status == 200
    assert refused(await issuer.token(as_grant(k8s()), client=("orders", SECRET)), 400, "invalid_grant")
    assert refused(await issuer.token(as_grant(k8s()), client=("payments", "wrong")), 401, "invalid_client")


async def test_T06_the_grant_has_to_be_allowed_for_realm_and_client(issuer):
    issuer.store.change("realms/services/clients/payments.json", grant_types=["client_credentials"])
    await issuer.refresh()
    assert refused(await ask(issuer, as_grant(k8s())), 400, "unauthorized_client")
    issuer.store.change(REALM, grant_types=["client_credentials"])
    await issuer.refresh()
    assert refused(await ask(issuer, as_grant(k8s())), 400, "unsupported_grant_type")
    assert (await ask(issuer, as_secret(k8s()))).status == 200


async def test_a_rule_or_client_that_is_off_or_gone_lets_nobody_in(issuer):
    for key, changes in (
        ("realms/services/trust/payments.json", {"enabled": False}),
        ("realms/services/clients/deployer.json", {"enabled": False}),
    ):
        issuer.store.change(key, **changes)
    issuer.store.delete("realms/services/clients/lambda.json")
    await issuer.refresh()
    for token in (k8s(), gh(), sts()):
        assert refused(await ask(issuer, as_secret(token)), 401, "invalid_client")


async def test_rules_belong_to_their_realm(issuer):
    assert refused(await ask(issuer, as_secret(k8s(), realm="modern")), 401, "invalid_client")


async def test_the_assertion_grant_needs_its_assertion_and_nothing_else_does(issuer):
    assert refused(await ask(issuer, {"grant_type": JWT_BEARER, "realm": "services"}), 400, "invalid_request")
    answer = await ask(issuer, {"grant_type": "client_credentials", "realm": "services", "assertion": k8s()})
    assert refused(answer, 401, "invalid_client")
    assert refused(await ask(issuer, as_grant("garbage")), 400, "invalid_grant")


async def test_T22_failures_count_for_the_address():
    async with running(failures_per_client=3) as issuer:
        install(issuer)
        await issuer.refresh()
        for _ in range(3):
            await ask(issuer, as_secret(k8s(aud="x")))
        assert refused(await ask(issuer, as_secret(k8s())), 429, "temporarily_unavailable")
        assert (await ask(issuer, as_secret(gh()))).status == 200  # another issuer's


async def test_the_record_names_the_rule_and_the_workload(issuer):
    token = k8s()
    with capture_logs() as logs:
        await ask(issuer, as_secret(token))
        await ask(issuer, as_grant(k8s(aud="x")))
        await ask(issuer, as_grant(gh(environment="staging")))
    audit = [entry for entry in logs if entry["event"] in {"token_issued", "token_refused"}]
    assert audit[0]["trust_rule"] == "payments"
    assert audit[0]["assertion_issuer"] == KUBERNETES
    assert audit[0]["assertion_subject"] == "system:serviceaccount:payments:api"
    assert [entry["reason"] for entry in audit[1:]] == [
        "the assertion is not valid (wrong_audience)",
        "no trust rule fits",
    ]
    assert audit[1]["method"] == JWT_BEARER
    assert token not in json.dumps(logs, default=str)


async def test_the_metadata_name_the_grant_and_the_algorithms(issuer):
    metadata = (await issuer.call("GET", "/.well-known/oauth-authorization-server")).json
    assert JWT_BEARER in metadata["grant_types_supported"]
    assert metadata["token_endpoint_auth_signing_alg_values_supported"] == ["ES256", "ES384", "RS256"]


# --- keys that are fetched ----------------------------------------------------------------------------------

PLACE = "https://token.actions.githubusercontent.com/.well-known/jwks"


class Web:
    """The places where foreign issuers have their keys."""

    def __init__(self):
        self.keys = {PLACE: GITHUB_KEY.jwks}
        self.asked = []

    def fetch(self, request):
        self.asked.append(request.url)
        if request.url not in self.keys:
            raise FetchFailed(Failure.CONNECT, "there is nothing here")
        return Response(status=200, headers=Headers([]), body=json.dumps(self.keys[request.url]).encode())

    def cancel(self):
        pass


async def loaded(issuer):
    import asyncio

    async with asyncio.timeout(5):
        while issuer.issuer.trust_keys.missing:  # noqa: ASYNC110 -- another thread's state
            await asyncio.sleep(0.01)


def fetched(web, **changes):
    settings = {"trust_jwks_hosts": "token.actions.githubusercontent.com", **changes}
    return running(fetchers=lambda: web, **settings)


def by_place(**changes):
    rule = {name: value for name, value in RULES["deployer"].items() if name != "jwks"}
    return {"deployer": {**rule, "jwks_uri": PLACE, **changes}}


async def test_C12_keys_are_fetched_in_the_background_from_a_listed_host():
    web = Web()
    async with fetched(web) as issuer:
        install(issuer, by_place())
        await issuer.refresh()
        await loaded(issuer)
        assert (await ask(issuer, as_secret(gh()))).status == 200
        assert web.asked == [PLACE]


async def test_C12_no_other_host_is_asked_and_readiness_says_so():
    web = Web()
    for hosts in ("", "githubusercontent.com", "token.actions.githubusercontent.com:8443"):
        async with fetched(web, trust_jwks_hosts=hosts) as issuer:
            install(issuer, by_place())
            await issuer.refresh()
            assert refused(await ask(issuer, as_secret(gh())), 503, "temporarily_unavailable")
            ready = (await issuer.call("GET", "/readyz?verbose")).json
            assert "foreign issuers" in json.dumps(ready)
    assert web.asked == []


async def test_before_the_first_keys_it_is_503_and_nothing_is_used_up():
    web = Web()
    keys = web.keys.pop(PLACE)
    async with fetched(web) as issuer:
        install(issuer, by_place())
        await issuer.refresh()
        token = gh()
        assert refused(await ask(issuer, as_secret(token)), 503, "temporarily_unavailable")
        web.keys[PLACE] = keys
        issuer.clock.advance(60)
        for source in issuer.issuer.trust_keys._sources.values():
            source._poller.wake()
        await loaded(issuer)
        assert (await ask(issuer, as_secret(token))).status == 200


async def test_a_new_key_is_fetched_when_the_first_token_names_it():
    web, new = Web(), foreign_key("new-key", "RS256")
    async with fetched(web) as issuer:
        install(issuer, by_place())
        await issuer.refresh()
        await loaded(issuer)
        web.keys[PLACE] = {"keys": [GITHUB_KEY.jwk, new.jwk]}
        issuer.clock.advance(11)  # beyond the cooldown
        token = new.sign(github(audience=ISSUER_URL, now=NOW, jti="n"))
        assert (await ask(issuer, as_secret(token))).status == 200
        asked = len(web.asked)
        stranger = foreign_key("stranger", "RS256")
        for number in range(5):
            forged = stranger.sign(github(audience=ISSUER_URL, now=NOW, jti=f"f{number}"))
            assert (await ask(issuer, as_secret(forged))).status == 401
        assert len(web.asked) <= asked + 1  # one fetch a cooldown, however many names are made up


async def test_a_rule_that_goes_stops_the_fetching():
    async with fetched(Web()) as issuer:
        install(issuer, by_place())
        await issuer.refresh()
        await loaded(issuer)
        [source] = issuer.issuer.trust_keys._sources.values()
        issuer.store.delete("realms/services/trust/deployer.json")
        await issuer.refresh()
        assert not issuer.issuer.trust_keys._sources
        assert not source._poller.running
