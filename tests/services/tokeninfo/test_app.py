import json

import pytest

from tests.support.access_tokens import ISSUER, KEY, token
from tokenry.errors import ConfigurationError
from tokenry.jose.jwk import Algorithm
from tokenry.serving.outgoing import HttpCalls, TimedOut, Unreachable
from tokenry.serving.settings import describe
from tokenry_tokeninfo.__main__ import main, policy_of
from tokenry_tokeninfo.openapi import document
from tokenry_tokeninfo.settings import Settings

# --- keys and health ----------------------------------------------------------------------------------------


async def test_the_keys_that_it_validates_with_are_published(service):
    answer = await service.ask("GET", "/oauth2/connect/keys")
    assert answer.json == {"keys": [KEY.public.to_jwk()]}
    assert answer.headers["Cache-Control"].startswith("public, max-age=")
    unchanged = {"If-None-Match": answer.headers["ETag"]}
    assert (await service.ask("GET", "/oauth2/connect/keys", headers=unchanged)).status == 304
    other = {"If-None-Match": '"other"'}
    assert (await service.ask("GET", "/oauth2/connect/keys", headers=other)).status == 200


async def test_without_keys_there_is_none_to_publish(service):
    service.keys.held = None
    assert (await service.ask("GET", "/oauth2/connect/keys")).status == 503


async def test_plan_bs_health_is_ok_when_a_key_is_held(service):
    answer = await service.ask("GET", "/health")
    assert (answer.status, answer.body) == (200, b"OK")
    service.keys.held = None
    assert (await service.ask("GET", "/health")).status == 503


@pytest.mark.parametrize(
    ("seconds", "status", "state"),
    [(0, 200, "ok"), (121, 200, "degraded"), (899, 200, "degraded"), (901, 503, "failed")],
)
async def test_readiness_follows_the_age_of_the_list(service, seconds, status, state):
    service.clock.advance(seconds)
    answer = await service.ask("GET", "/readyz?verbose")
    assert (answer.status, answer.json["checks"]["revocations"]["status"]) == (status, state)


async def test_it_is_not_ready_without_keys_or_list_and_alive_all_the_same(service):
    service.keys.held = service.revocations.held = None
    answer = await service.ask("GET", "/readyz?verbose")
    assert answer.status == 503
    failed = {name for name, check in answer.json["checks"].items() if check["status"] == "failed"}
    assert failed == {"keys", "revocations"}
    assert (await service.ask("GET", "/healthz")).status == 200


async def test_the_metrics_tell_ages_and_outcomes(service):
    await service.info(token())
    service.clock.advance(30)
    text = (await service.ask("GET", "/metrics")).body.decode()
    for line in (
        'tokenry_validations_total{result="ok"} 1.0',
        "tokenry_validation_duration_seconds_count 1.0",
        "tokenry_revocation_list_age_seconds 30.0",
        "tokenry_revocation_list_entries 0.0",
        "tokenry_jwks_last_success_timestamp_seconds 1.8e+09",
        "tokenry_jwks_keys 1.0",
    ):
        assert line in text.splitlines()
    service.revocations.held = None
    assert "tokenry_revocation_list_age_seconds NaN" in (await service.ask("GET", "/metrics")).body.decode()


# --- the OpenAPI document -----------------------------------------------------------------------------------


async def test_the_document_names_every_route_and_method(service):
    described = {(path, method.upper()) for path, item in document()["paths"].items() for method in item}
    operations = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
    for route in service.app.router.routes():
        path = route.resource.canonical
        if path in operations or route.method == "HEAD":
            continue
        methods = {method for at, method in described if at == path}
        assert route.method in methods or (route.method == "*" and len(methods) >= 7), path
    assert (await service.ask("GET", "/openapi.json")).json == json.loads(json.dumps(document()))


# --- settings -----------------------------------------------------------------------------------------------

PLAN_B = {
    "OPENID_PROVIDER_CONFIGURATION_URL": "https://issuer.test/.well-known/openid-configuration",
    "OPENID_PROVIDER_REFRESH_INTERVAL": "10s",
    "REVOCATION_PROVIDER_URL": "https://revocation.test/revocations",
    "REVOCATION_PROVIDER_REFRESH_INTERVAL": "30s",
    "REVOCATION_REFRESH_TOLERANCE": "60s",
    "REVOCATION_HASHING_SALT": "seasaltisthebest",
    "UPSTREAM_TOKENINFO_URL": "https://old.test/tokeninfo",
    "UPSTREAM_CACHE_MAX_SIZE": "5",
    "UPSTREAM_CACHE_TTL": "1m",
    "UPSTREAM_TIMEOUT": "100ms",
    "LISTEN_ADDRESS": "127.0.0.1:9021",
    "METRICS_LISTEN_ADDRESS": "127.0.0.1:9020",
}


def test_the_environment_of_planb_tokeninfo_works_as_it_is():
    settings = Settings.from_environment(PLAN_B)
    assert settings.issuer_identifier == "https://issuer.test"
    assert settings.token_endpoint == "https://issuer.test/oauth2/token"
    assert settings.revocation_base_url == "https://revocation.test"
    assert (settings.upstream_url, settings.upstream_cache_size) == ("https://old.test/tokeninfo", 5)
    assert settings.keys_refresh_interval == 10.0
    assert (settings.upstream_cache_ttl, settings.upstream_timeout) == (60.0, 0.1)
    assert (settings.listen_address, settings.metrics_listen_address) == ("127.0.0.1:9021", "127.0.0.1:9020")
    assert "seasalt" not in repr(settings)


def test_the_issuer_is_required_one_way_or_the_other():
    with pytest.raises(ConfigurationError, match="TOKENRY_ISSUER"):
        Settings.from_environment({})
    with pytest.raises(ConfigurationError, match="TOKENRY_ISSUER"):
        Settings.from_environment({"OPENID_PROVIDER_CONFIGURATION_URL": "https://issuer.test/metadata"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENRY_LIST_WARN_AGE", "20m"),
        ("TOKENRY_LIST_CLIENT_ID", "tokeninfo"),
        ("TOKENRY_LIST_NEEDS_TOKEN", "true"),
        ("TOKENRY_LIST_REFUSE_AGE", "30s"),
        ("TOKENRY_LEEWAY", "61"),
        ("TOKENRY_MAX_TOKEN_LIFETIME", "0"),
        ("TOKENRY_MAX_TOKEN_LIFETIME", "0.5"),
        ("TOKENRY_KEYS_REFRESH_INTERVAL", "900ms"),
        ("TOKENRY_TRUSTED_ISSUERS", "{}"),
        ("TOKENRY_TRUSTED_ISSUERS", '[{"issuer": "https://a.test"}]'),
        ("TOKENRY_TRUSTED_ISSUERS", '[{"issuer": "https://a.test", "max_token_lifetime": 60, "x": 1}]'),
        ("TOKENRY_TRUSTED_ISSUERS", '[{"issuer": "https://a.b", "max_token_lifetime": 60, "algorithms": ["HS256"]}]'),
        ("TOKENRY_TRUSTED_ISSUERS", '[{"issuer": "https://a.test", "max_token_lifetime": "60"}]'),
        ("TOKENRY_TRUSTED_ISSUERS",
         '[{"issuer": "https://a.test", "max_token_lifetime": 60, "algorithms": ["RS256"], "foreign": false}]'),
        ("TOKENRY_INTROSPECTION_AUDIENCES", "[]"),
        ("TOKENRY_INTROSPECTION_UNKNOWN", "1"),
        ("TOKENRY_INTROSPECTION_SCOPES", '{"orders": "orders.*"}'),
        ("TOKENRY_INTROSPECTION_KEYS", "{}"),
        ("UPSTREAM_TIMEOUT", "soon"),
    ],
)  # fmt: skip
def test_F58_a_wrong_setting_stops_the_start(name, value):
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({"TOKENRY_ISSUER": ISSUER, name: value})
    assert any(
        fault.startswith(name.replace("UPSTREAM", "TOKENRY_UPSTREAM", 1) if name[0] == "U" else name)
        for fault in caught.value.faults
    )


def test_further_issuers_are_trusted_each_with_its_own_profile(tmp_path):
    path = tmp_path / "issuers.json"
    path.write_text(
        '[{"issuer": "https://cloud.test", "max_token_lifetime": 900, "algorithms": ["RS256", "ES384"],'
        ' "accept_untyped": true, "jwks_uri": "https://cloud.test/keys"}]'
    )
    settings = Settings.from_environment({"TOKENRY_ISSUER": ISSUER, "TOKENRY_TRUSTED_ISSUERS_FILE": str(path)})
    own, other = policy_of(settings).issuers
    assert (own.issuer, own.foreign, own.accept_untyped) == (ISSUER, False, False)
    assert (other.issuer, other.foreign, other.accept_untyped) == ("https://cloud.test", True, True)
    assert (other.max_token_lifetime, other.algorithms) == (900, (Algorithm.RS256, Algorithm.ES384))


def test_every_setting_is_described():
    assert all(item.description.strip() for item in describe(Settings))


def test_checking_the_settings_starts_nothing(capsys):
    assert main(["--check-settings"], {"TOKENRY_ISSUER": ISSUER}) == 0
    assert main(["--check-settings"], {}) == 2
    assert "TOKENRY_ISSUER" in capsys.readouterr().err


# --- calls to other services --------------------------------------------------------------------------------


async def test_calls_are_bounded_in_time_and_bytes_and_follow_no_redirect():
    import asyncio

    from aiohttp import web

    from tests.shared.serving.test_application import make_app
    from tokenry.serving.server import serve

    app = make_app()

    async def large(_request):
        return web.Response(body=b"x" * 5000)

    async def stuck(_request):
        await asyncio.sleep(1)

    app.router.add_get("/large", large)
    app.router.add_get("/stuck", stuck)
    async with serve(app, ["127.0.0.1:0"], finish_seconds=0) as server, HttpCalls(max_answer_bytes=1000) as calls:

        async def call(path, seconds=2.0):
            return await calls.call("GET", server.url + path, headers={}, deadline_seconds=seconds)

        assert (await call("/healthz")).body == b"ok\n"
        assert (await call("/oauth2/away")).status == 302
        with pytest.raises(Unreachable, match="larger"):
            await call("/large")
        with pytest.raises(TimedOut):
            await call("/stuck", 0.1)
    async with HttpCalls() as calls:
        with pytest.raises(Unreachable):
            await calls.call("GET", server.url, headers={}, deadline_seconds=1)
