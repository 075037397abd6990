"""`POST /oauth2/revoke` (RFC 7009): a client and its own token."""

import aiohttp
import pytest

from tests.services.revocation.conftest import NOW
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jws import twin

PATH = "/oauth2/revoke"
BASIC = {"Authorization": aiohttp.encode_basic_auth("basket", "s3cret")}


def hits(world, service, token):
    return service.feed.revocations.hits(world.judged(token), now=world.clock.now())


async def test_R01_a_client_that_does_not_authenticate_is_refused(world, service):
    token = world.token()
    answer = await service.call("POST", PATH, form={"token": token})
    assert answer.status == 401
    assert answer.json["error"] == "invalid_client"
    assert answer.headers.getall("WWW-Authenticate")[0] == "Bearer"
    assert not hits(world, service, token)


async def test_R01_only_post_is_taken(service):
    answer = await service.get(PATH)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_client_revokes_its_own_token_with_a_bearer(world, service):
    token = world.token()
    answer = await service.call("POST", PATH, token=world.token(), form={"token": token})
    assert (answer.status, answer.body) == (200, b"")
    assert hits(world, service, token)
    assert world.audit[-1]["actor"]["client_id"] == "basket"


async def test_a_token_can_revoke_itself(world, service):
    token = world.token()
    assert (await service.call("POST", PATH, token=token, form={"token": token})).status == 200
    assert (await service.call("POST", PATH, token=token, form={"token": token})).status == 401


@pytest.mark.parametrize("method", ["basic", "post"])
async def test_a_client_revokes_its_own_token_with_its_secret(world, service, method):
    token = world.token()
    if method == "basic":
        answer = await service.call("POST", PATH, form={"token": token}, headers=BASIC)
    else:
        form = {"token": token, "client_id": "basket", "client_secret": "s3cret", "realm": "/services"}
        answer = await service.call("POST", PATH, form=form)
        assert b"realm=%2Fservices" in world.issuer.requests[-1].body
    assert answer.status == 200
    assert hits(world, service, token)
    assert world.issuer.requests[-1].url == "https://issuer.example.org/oauth2/token"


async def test_R01_a_wrong_secret_is_refused(world, service):
    token = world.token()
    answer = await service.call(
        "POST", PATH, form={"token": token}, headers={"Authorization": aiohttp.encode_basic_auth("basket", "x")}
    )
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert not hits(world, service, token)


async def test_an_issuer_that_cannot_say_is_503(world, service):
    world.issuer.status = 500
    answer = await service.call("POST", PATH, form={"token": world.token()}, headers=BASIC)
    assert answer.status == 503
    assert answer.json["error"] == "temporarily_unavailable"


async def test_R02_another_clients_token_is_refused_and_stays(world, service):
    token = world.token(client_id="other", azp="other")
    answer = await service.call("POST", PATH, token=world.token(), form={"token": token})
    assert answer.status == 400
    assert answer.json["error"] == "unauthorized_client"
    assert not hits(world, service, token)
    assert world.store.appended == 0


async def test_R02_a_client_of_the_same_name_in_another_realm_is_another_client(world, service):
    token = world.token(realm="/customers")
    answer = await service.call("POST", PATH, token=world.token(), form={"token": token})
    assert (answer.status, answer.json["error"]) == (400, "unauthorized_client")
    assert not hits(world, service, token)


async def test_the_issuer_is_asked_in_the_realm_of_the_request_or_else_of_the_token(world, service):
    token = world.token()
    await service.call("POST", PATH, form={"token": token}, headers=BASIC)
    assert b"realm=%2Fservices" in world.issuer.requests[-1].body
    await service.call("POST", PATH, form={"token": token, "realm": "/other"}, headers=BASIC)
    assert b"realm=%2Fother" in world.issuer.requests[-1].body
    await service.call("POST", PATH, form={"token": "x"}, headers=BASIC)
    assert b"realm" not in world.issuer.requests[-1].body


@pytest.mark.parametrize(
    "make",
    [
        lambda world: "x",
        lambda world: "a.b.c",
        lambda world: world.token(iss="https://elsewhere.example.org"),
        lambda world: world.token(iss="https://foreign.example.org"),
        lambda world: world.token(key=PrivateKey.generate()),
        lambda world: world.token()[:-4] + "AAAA",
    ],
)
async def test_R03_an_unknown_token_is_200_and_never_stored(world, service, make):
    answer = await service.call("POST", PATH, token=world.token(), form={"token": make(world)})
    assert (answer.status, answer.body) == (200, b"")
    assert world.store.appended == 0


async def test_R03_an_expired_token_is_200(world, service):
    token = world.token(iat=NOW - 600, exp=NOW - 300)
    assert (await service.call("POST", PATH, token=world.token(), form={"token": token})).status == 200
    assert (await service.snapshot()).entries == ()


async def test_R03_a_revoked_token_is_200_again(world, service):
    token = world.token()
    for _ in range(2):
        assert (await service.call("POST", PATH, token=world.token(), form={"token": token})).status == 200
    assert world.store.appended == 1


@pytest.mark.parametrize("hint", ["refresh_token", "access_token", "nonsense", ""])
async def test_R04_a_hint_changes_nothing(world, service, hint):
    token = world.token()
    form = {"token": token, "token_type_hint": hint}
    assert (await service.call("POST", PATH, token=world.token(), form=form)).status == 200
    assert hits(world, service, token)


@pytest.mark.parametrize("body", [b"", b"token=", b"token=a&token=b", b"token_type_hint=x"])
async def test_R05_without_one_token_it_is_invalid_request(world, service, body):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await service.call("POST", PATH, token=world.token(), raw=body, headers=headers)
    assert answer.status == 400
    assert answer.json["error"] == "invalid_request"


async def test_R06_what_is_not_stored_is_503(world, service):
    token = world.token()
    bearer = world.token()
    world.store.down = True
    answer = await service.call("POST", PATH, token=bearer, form={"token": token})
    assert answer.status == 503
    assert answer.json["error"] == "temporarily_unavailable"
    assert "Retry-After" in answer.headers
    assert not hits(world, service, token)


async def test_R07_after_200_the_token_is_refused_here_at_once(world, service):
    token = world.token(scope="revocation.write")
    await service.call("POST", PATH, token=world.token(), form={"token": token})
    assert (await service.get("/validators", token=token)).status == 401


async def test_R08_the_twin_revokes_the_token(world, service):
    token = world.token()
    assert (await service.call("POST", PATH, token=world.token(), form={"token": twin(token)})).status == 200
    assert hits(world, service, token)


async def test_a_token_whose_key_cannot_be_had_now_may_be_alive_and_is_503(world, service):
    world.keys.away = True
    form = {"token": world.token(key=PrivateKey.generate())}
    assert (await service.call("POST", PATH, token=world.token(), form=form)).status == 503


async def test_a_key_that_appears_when_asked_for_is_used(world, service):
    late = PrivateKey.generate()
    world.keys.late = [late]
    token = world.token(key=late)
    assert (await service.call("POST", PATH, token=world.token(), form={"token": token})).status == 200
    assert hits(world, service, token)


async def test_two_methods_of_authentication_are_refused(world, service):
    form = {"token": world.token(), "client_id": "basket", "client_secret": "s3cret"}
    for credentials in ({"token": world.token()}, {"headers": BASIC}):
        answer = await service.call("POST", PATH, form=form, **credentials)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")


async def test_credentials_and_tokens_in_the_query_are_refused(world, service):
    for query in ("token=x", "client_secret=x", "client_id=x"):
        answer = await service.call("POST", f"{PATH}?{query}", token=world.token(), form={"token": "x"})
        assert answer.status == 400


async def test_json_is_not_a_form(world, service):
    assert (await service.call("POST", PATH, token=world.token(), body={"token": "x"})).status == 415
