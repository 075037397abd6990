"""JWK Set, metadata, health: what everybody may read."""

import json
import random

import jwt
import pytest
from aiohttp.test_utils import make_mocked_request

from tests.services.issuer.support import DAY, ISSUER_URL, running
from tokenry.jose.jwks import KeySet
from tokenry.sources.metadata import metadata_urls, parse_metadata
from tokenry_issuer.handlers import JwkSetEndpoint
from tokenry_issuer.keyring import JwkSet
from tokenry_issuer.metadata import build_metadata, metadata_paths

JWKS = ["/.well-known/jwks.json", "/oauth2/connect/keys"]
LIST_JWKS = "/.well-known/revocation-list-jwks.json"
DOCUMENTS = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]
GRANT = {"grant_type": "client_credentials", "realm": "services"}


# --- keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", JWKS)
async def test_M05_the_jwk_set_is_complete_and_public(issuer, path):
    answer = await issuer.call("GET", path)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    keys = answer.json["keys"]
    assert len(keys) == 2
    assert len({key["kid"] for key in keys}) == 2
    for key in keys:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert KeySet.parse(answer.body, issuer=ISSUER_URL).rejected == ()


async def test_a_token_verifies_with_the_jwk_set_in_another_library(issuer):
    keys = jwt.PyJWKSet.from_dict((await issuer.call("GET", JWKS[0])).json)
    answer = await issuer.token(GRANT)
    claims = jwt.decode(
        answer.json["access_token"],
        keys[answer.header["kid"]],
        algorithms=["ES256"],
        audience=ISSUER_URL,
        options={"verify_iat": False, "verify_exp": False},
    )
    assert claims["iss"] == ISSUER_URL


async def test_M08_the_jwk_set_may_be_cached_for_a_jittered_time_below_the_announce_time(issuer):
    ages = []
    for _ in range(60):
        control = (await issuer.call("GET", JWKS[0])).headers["Cache-Control"]
        assert control.startswith("public, max-age=")
        ages.append(int(control.removeprefix("public, max-age=")))
    assert len(set(ages)) > 10
    assert 150 <= min(ages) <= max(ages) <= 300


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_whoever_has_the_jwk_set_gets_304(issuer, form):
    etag = (await issuer.call("GET", JWKS[0])).headers["ETag"]
    assert etag.startswith('"')
    again = await issuer.call("GET", JWKS[0], headers={"If-None-Match": form.format(etag)})
    assert again.status == 304
    assert again.body == b""
    assert again.headers["ETag"] == etag
    assert "max-age" in again.headers["Cache-Control"]


async def test_another_etag_gets_the_whole_set(issuer):
    answer = await issuer.call("GET", JWKS[0], headers={"If-None-Match": '"other"'})
    assert answer.status == 200


async def test_a_new_key_changes_the_etag_and_a_list_key_does_not(issuer, tmp_path):
    before = (await issuer.call("GET", JWKS[0])).headers["ETag"]
    issuer.add_key(use="list", folder=tmp_path)
    await issuer.refresh()
    assert (await issuer.call("GET", JWKS[0])).headers["ETag"] == before
    kid = issuer.add_key(activate_at=int(issuer.clock.now()) + DAY, folder=tmp_path)
    await issuer.refresh()
    answer = await issuer.call("GET", JWKS[0])
    assert answer.headers["ETag"] != before
    assert kid in {key["kid"] for key in answer.json["keys"]}


async def test_M06_a_key_put_there_too_late_is_published_and_does_not_sign_yet(issuer, tmp_path):
    now = int(issuer.clock.now())
    old = (await issuer.token(GRANT)).header["kid"]
    new = issuer.add_key(publish_at=now, activate_at=now, folder=tmp_path)
    await issuer.refresh()
    assert new in {key["kid"] for key in (await issuer.call("GET", JWKS[0])).json["keys"]}
    assert (await issuer.token(GRANT)).header["kid"] == old
    issuer.clock.advance(660)
    assert (await issuer.token(GRANT)).header["kid"] == new
    verbose = (await issuer.call("GET", "/readyz?verbose")).json
    assert "published less than" in verbose["checks"]["keys"]["detail"]


async def test_contract_4_10_without_keys_the_set_is_503_and_never_empty():
    async with running(load=False) as issuer:
        answer = await issuer.call("GET", JWKS[0])
        assert answer.status == 503
        assert answer.error == "temporarily_unavailable"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_at_start_a_request_for_the_keys_waits_a_moment_and_not_longer():
    async with running(load=False) as issuer:
        assert (await issuer.call("GET", JWKS[0])).status == 503
        assert sum(issuer.slept) == pytest.approx(1.0)
        issuer.slept.clear()
        await issuer.refresh()
        assert (await issuer.call("GET", JWKS[0])).status == 200
        assert issuer.slept == []


async def test_at_start_a_request_for_the_keys_gets_them_as_soon_as_they_are_there():
    class Keys:
        looks = 0

        def jwk_set(self):
            self.looks += 1
            return JwkSet(b"{}", '"1"') if self.looks > 3 else None

    class NoRevocations:
        waiting = False

        def current(self):
            return None

    async def sleep(seconds):
        slept.append(seconds)

    slept = []
    endpoint = JwkSetEndpoint(Keys(), NoRevocations(), max_age=300, uniform=random.Random(1), sleep=sleep)  # noqa: S311
    answer = await endpoint.get(make_mocked_request("GET", JWKS[0]))
    assert answer.status == 200
    assert len(slept) == 3


# --- metadata -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_M01_the_metadata_name_the_issuer_byte_for_byte_and_what_is_there(issuer, path):
    answer = await issuer.call("GET", path, headers={"Host": "evil.example.com", "X-Forwarded-Host": "evil"})
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json["issuer"] == ISSUER_URL
    assert b"evil" not in answer.body
    read = parse_metadata(answer.body, issuer=ISSUER_URL)
    assert read.jwks_uri == ISSUER_URL + "/.well-known/jwks.json"
    assert read.token_endpoint == ISSUER_URL + "/oauth2/token"


async def test_J06_the_tokens_issuer_is_the_metadatas(issuer):
    metadata = (await issuer.call("GET", DOCUMENTS[0])).json
    assert (await issuer.token(GRANT)).claims["iss"] == metadata["issuer"]


async def test_the_metadata_offer_nothing_that_is_not_there(issuer):
    metadata = (await issuer.call("GET", DOCUMENTS[0])).json
    assert metadata["grant_types_supported"] == ["client_credentials", "password"]
    assert metadata["response_types_supported"] == ["none"]
    for absent in ("introspection_endpoint", "revocation_endpoint", "revocation_list_uri", "scopes_supported",
                   "revocation_list_jwks_uri", "authorization_endpoint", "registration_endpoint"):  # fmt: skip
        assert absent not in metadata


async def test_the_claims_that_are_advertised_are_those_of_a_token(issuer):
    metadata = (await issuer.call("GET", DOCUMENTS[0])).json
    assert set(metadata["claims_supported"]) == set((await issuer.token(GRANT)).claims)


async def test_the_grants_that_are_advertised_are_those_that_some_realm_allows():
    async with running(only_realm="modern") as issuer:
        assert (await issuer.call("GET", DOCUMENTS[0])).json["grant_types_supported"] == ["client_credentials"]
    async with running(load=False) as issuer:
        assert (await issuer.call("GET", DOCUMENTS[0])).json["grant_types_supported"] == ["client_credentials"]


async def test_the_openid_form_has_what_its_readers_require(issuer):
    plain, openid = [(await issuer.call("GET", path)).json for path in DOCUMENTS]
    assert openid == plain | {
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }


async def test_the_other_services_are_in_the_metadata_when_they_are_configured():
    urls = {"tokeninfo_url": "https://info.example.org/", "revocation_url": "https://revoke.example.org"}
    async with running(scopes_supported="b a", **urls) as issuer:
        metadata = (await issuer.call("GET", DOCUMENTS[0])).json
    assert metadata["introspection_endpoint"] == "https://info.example.org/oauth2/introspect"
    assert metadata["revocation_endpoint"] == "https://revoke.example.org/oauth2/revoke"
    assert metadata["revocation_list_uri"] == "https://revoke.example.org/revocations"
    assert metadata["scopes_supported"] == ["a", "b"]
    for name in ("introspection", "revocation"):
        assert metadata[f"{name}_endpoint_auth_methods_supported"]


def test_M03_no_member_is_an_empty_list():
    members = build_metadata(
        issuer=ISSUER_URL, tokeninfo_url=None, revocation_url=None, grant_types=["client_credentials"]
    )
    assert all(value != [] for value in members.values())


def test_C14_M04_signed_assertions_are_offered_first_and_with_their_algorithms():
    members = build_metadata(
        issuer=ISSUER_URL, tokeninfo_url="https://i", revocation_url="https://r", grant_types=["client_credentials"]
    )
    assert members["token_endpoint_auth_methods_supported"][0] == "private_key_jwt"
    algorithms = members["token_endpoint_auth_signing_alg_values_supported"]
    assert algorithms
    assert "none" not in algorithms
    # The other services take secrets and bearers alone, so they name no algorithm.
    for name in ("introspection", "revocation"):
        assert "private_key_jwt" not in members[f"{name}_endpoint_auth_methods_supported"]
        assert f"{name}_endpoint_auth_signing_alg_values_supported" not in members


async def test_M04_where_assertions_are_offered_their_algorithms_are_named_and_none_is_not(issuer):
    for path in DOCUMENTS:
        metadata = (await issuer.call("GET", path)).json
        offering = {
            name.removesuffix("_auth_methods_supported")
            for name, methods in metadata.items()
            if name.endswith("_auth_methods_supported") and {"private_key_jwt", "client_secret_jwt"} & set(methods)
        }
        naming = {
            name.removesuffix("_auth_signing_alg_values_supported"): values
            for name, values in metadata.items()
            if name.endswith("_auth_signing_alg_values_supported")
        }
        assert offering == set(naming) == {"token_endpoint"}
        assert all(values and "none" not in values for values in naming.values())


async def test_signed_introspection_is_named_once_there_is_a_key_for_it(tmp_path):
    url = "https://info.example.org"
    async with running(tokeninfo_url=url) as issuer:
        metadata = (await issuer.call("GET", DOCUMENTS[0])).json
        assert not {"introspection_jwks_uri", "introspection_signing_alg_values_supported"} & set(metadata)
        issuer.add_key(use="introspection", folder=tmp_path)
        await issuer.refresh()
        metadata = (await issuer.call("GET", DOCUMENTS[0])).json
        assert metadata["introspection_signing_alg_values_supported"] == ["ES256"]
        assert metadata["introspection_jwks_uri"] == url + "/oauth2/introspect/keys"
    async with running() as issuer:  # without token info there is nobody who signs
        issuer.add_key(use="introspection", folder=tmp_path)
        await issuer.refresh()
        assert "introspection_jwks_uri" not in (await issuer.call("GET", DOCUMENTS[0])).json


@pytest.mark.parametrize("issuer_url", ["https://x.example.org", "https://x.example.org/", "https://x.example.org/a/b"])
async def test_M01_the_metadata_are_where_the_standard_looks_for_them(issuer_url):
    async with running(issuer=issuer_url, only_realm="services") as issuer:
        for url in metadata_urls(issuer_url):
            answer = await issuer.call("GET", url.removeprefix("https://x.example.org"))
            assert answer.status == 200, url
            assert answer.json["issuer"] == issuer_url
        for name in ("token_endpoint", "jwks_uri"):
            path = answer.json[name].removeprefix("https://x.example.org")
            reached = await issuer.token(path=path) if name == "token_endpoint" else await issuer.call("GET", path)
            assert reached.status == 200


def test_the_two_well_known_forms_of_a_path():
    assert metadata_paths("https://x/a/") == (
        "/.well-known/oauth-authorization-server/a",
        "/a/.well-known/openid-configuration",
    )


@pytest.mark.parametrize("path", [*JWKS, *DOCUMENTS])
async def test_D45_documents_are_only_read(issuer, path):
    answer = await issuer.call("POST", path)
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/", "/oauth2", "/oauth2/token/", "/oauth2/authorize", "/.well-known/", "/admin"])
async def test_there_is_nothing_else(issuer, path):
    answer = await issuer.call("GET", path)
    assert answer.status == 404
    assert answer.json["error"] == "invalid_request"


async def test_T27_no_answer_allows_another_origin(issuer):
    for path in (*JWKS, *DOCUMENTS):
        answer = await issuer.call("GET", path, headers={"Origin": "https://evil.example.com"})
        assert not any(name.lower().startswith("access-control") for name in answer.headers)
    answer = await issuer.token(GRANT, headers={"Origin": "https://evil.example.com"})
    assert not any(name.lower().startswith("access-control") for name in answer.headers)


# --- health ---------------------------------------------------------------------------------------------------


async def test_it_is_alive_at_once_and_ready_when_it_can_issue():
    async with running(load=False) as issuer:
        assert (await issuer.call("GET", "/healthz")).status == 200
        assert (await issuer.call("GET", "/readyz")).status == 503
        await issuer.issuer.credentials.refresh()
        assert (await issuer.call("GET", "/readyz")).status == 503
        await issuer.issuer.keyring.refresh()
        assert (await issuer.call("GET", "/readyz")).status == 200


async def checks(issuer):
    answer = await issuer.call("GET", "/readyz?verbose")
    checks = answer.json["checks"].items()
    return answer.status, {name: each["status"] for name, each in checks if name != "event_loop"}


async def test_readiness_tells_the_truth_during_an_outage(issuer):
    assert await checks(issuer) == (200, {"credentials": "ok", "keys": "ok"})
    issuer.clock.advance(121)
    assert await checks(issuer) == (200, {"credentials": "degraded", "keys": "ok"})
    issuer.clock.advance(hours=24)
    assert await checks(issuer) == (503, {"credentials": "failed", "keys": "ok"})


async def test_readiness_shows_refused_objects_and_a_missing_standby(issuer):
    issuer.store.put("realms/services/clients/orders.json", b"{")
    await issuer.refresh()
    issuer.clock.advance(hours=24 * 9)
    await issuer.issuer.credentials.refresh()
    assert (await checks(issuer))[1]["credentials"] == "degraded"


async def test_a_key_that_is_about_to_retire_without_successor_is_seen_before_it_hurts():
    async with running() as issuer:
        issuer.clock.advance(hours=24 * 30 - 1)
        await issuer.issuer.credentials.refresh()
        assert (await checks(issuer))[0] == 503


async def test_the_interface_is_described(issuer):
    document = (await issuer.call("GET", "/openapi.json")).json
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {"/oauth2/token", "/oauth2/access_token", *JWKS, LIST_JWKS, *DOCUMENTS}
    assert ISSUER_URL in json.dumps(document["servers"])


async def test_the_store_is_closed_with_the_application():
    async with running() as issuer:
        pass
    assert issuer.store.closed
