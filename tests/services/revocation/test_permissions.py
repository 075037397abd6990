"""Who may revoke what: bearer tokens, scopes and rules."""

import pytest

from tests.services.revocation.conftest import ISSUER, NOW
from tokenry.errors import ProtocolError
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jws import twin
from tokenry.serving.audit_chain import verify
from tokenry_revocation.authorization import parse_rule

TEAM_RULE = {
    "caller": {"client_id": "shop-tools"},
    "may_revoke": {"fixed": {"realm": "customers"}, "free": ["sub"]},
}


async def put_rule(world, service, name="shop", **members):
    world.rules.put(name, **(members or TEAM_RULE))
    await service.rules.refresh()


async def as_shop(world, service, data, **caller):
    token = world.caller(**{"client_id": "shop-tools", "azp": "shop-tools", **caller})
    return await service.call("POST", "/revocations", token=token, body={"type": "CLAIM", "data": data})


async def test_D70_without_a_token_it_is_401_with_a_bare_challenge(service):
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer"}):
        answer = await service.call("POST", "/revocations", body={}, headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_contract_4_17_a_valid_token_alone_opens_nothing_that_administers(world, service):
    token = {"type": "TOKEN", "data": {"jti": "a"}}
    posts = {"/revocations": token, "/revocations/batch": token, "/counters": {}}
    posts |= {f"/revocations/abc/{action}": {} for action in ("undo", "approve")}
    posts |= {"/notifications/REFRESH_FROM?value=1": {}}
    for scope in ("", "uid", "orders.read"):
        for path, body in posts.items():
            answer = await service.call("POST", path, token=world.caller(scope), body=body)
            assert answer.status == 403, path
        for path in ("/validators", "/revocations/abc", "/jobs/abc"):
            assert (await service.get(path, token=world.caller(scope))).status == 403, path
    assert world.store.appended == 0
    assert service.app_jobs() == []


async def test_D70_with_a_token_that_lacks_the_scope_it_is_403_and_names_it(world, service):
    for scope in ("", "uid", "revocation.writer", "xrevocation.write", "revocation.undo"):
        answer = await service.post("TOKEN", {"jti": "a"}, scope=scope)
        assert answer.status == 403
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        assert 'scope="revocation.write"' in answer.headers["WWW-Authenticate"]
    assert world.store.appended == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda world: "x",
        lambda world: world.caller(exp=NOW),
        lambda world: world.caller(aud="orders"),
        lambda world: world.caller(iss="https://foreign.example.org"),
        lambda world: world.token(key=PrivateKey.generate(), scope="revocation.write"),
        lambda world: twin(world.caller()),
        lambda world: world.caller() + "=",
        lambda world: world.token(header={"typ": "JWT"}, scope="revocation.write"),
    ],
)
async def test_D70_a_bad_token_is_401_invalid_token_and_nothing_more(world, service, make):
    answer = await service.call("POST", "/revocations", token=make(world), body={"type": "TOKEN", "data": {"jti": "a"}})
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert world.store.appended == 0


async def test_two_authorization_fields_are_refused(world, service):
    headers = [("Authorization", f"Bearer {world.caller()}"), ("Authorization", f"Bearer {world.caller()}")]
    async with service.session.post(f"{service.url}/revocations", headers=headers, data=b"{}") as response:
        assert response.status == 400


async def test_a_token_in_the_query_is_no_authentication(world, service):
    answer = await service.call("POST", f"/revocations?access_token={world.caller()}", body={})
    assert answer.status == 401


async def test_a_caller_whose_own_token_was_revoked_is_refused(world, service):
    token = world.caller("revocation.write")
    await service.post("TOKEN", {"token": token})
    for spelling in (f"Bearer {token}", f"bearer {token}", f"BEARER {token}"):
        answer = await service.call("POST", "/revocations", body={}, headers={"Authorization": spelling})
        assert answer.status == 401


async def test_R13_keys_and_everything_need_the_administrators_scope(world, service):
    for kind, data in (
        ("KEY", {"kid": "x"}),
        ("GLOBAL", {"confirm": True, "issued_before": NOW - 5}),
        ("CLAIM", {"claims": {"sub": "a"}}),
    ):
        answer = await service.post(kind, data, scope="revocation.write")
        assert answer.status == 403
        assert 'scope="revocation.admin"' in answer.headers["WWW-Authenticate"]
        assert (await service.post(kind, data, scope="revocation.admin")).status == 201


async def test_a_block_needs_the_administrators_scope_also_under_a_rule(world, service):
    await put_rule(world, service)
    data = {"claims": {"sub": "a", "realm": "/customers"}}
    assert (await as_shop(world, service, {**data, "block_until": NOW + 60})).status == 403
    assert (await as_shop(world, service, data)).status == 201


async def test_a_rule_lets_its_callers_revoke_by_just_its_names(world, service):
    await put_rule(world, service)
    allowed = {"claims": {"sub": "jdoe", "realm": "/customers"}}
    assert (await as_shop(world, service, allowed)).status == 201
    assert (await as_shop(world, service, {"claims": {"sub": "x", "realm": "customers"}})).status == 201
    for claims in (
        {"sub": "jdoe"},
        {"realm": "/customers"},
        {"sub": "jdoe", "realm": "/services"},
        {"sub": "jdoe", "realm": "/customers", "client_id": "x"},
        {"client_id": "jdoe", "realm": "/customers"},
    ):
        assert (await as_shop(world, service, {"claims": claims})).status == 403
    assert (await as_shop(world, service, allowed, client_id="other", azp="other")).status == 403
    assert (await as_shop(world, service, allowed, scope="other")).status == 403


async def test_a_rule_about_a_client_holds_whether_the_token_says_azp_or_client_id(world, service):
    for name in ("azp", "client_id"):
        await put_rule(world, service, name, caller={name: "shop-tools"}, may_revoke={"free": ["sub"]})
    data = {"claims": {"sub": "a"}}
    assert (await as_shop(world, service, data, azp=None)).status == 201
    assert (await as_shop(world, service, {"claims": {"sub": "b"}}, client_id=None)).status == 201
    assert (await as_shop(world, service, data, client_id="other")).status == 403, "client_id comes first"


async def test_rules_that_are_gone_are_out_of_force_and_broken_ones_leave_the_last_good_version(world, service):
    await put_rule(world, service)
    data = {"claims": {"sub": "jdoe", "realm": "/customers"}}
    world.rules.objects["shop"] = b'{"caller":{}}'
    await service.rules.refresh()
    assert (await as_shop(world, service, data)).status == 201
    assert (await service.get("/readyz?verbose")).json["checks"]["rules"]["status"] == "degraded"
    assert b"tokenry_authorization_rules_rejected_total 1.0" in (await service.get("/metrics")).body
    del world.rules.objects["shop"]
    await service.rules.refresh()
    world.clock.advance(1)
    assert (await as_shop(world, service, data)).status == 403
    assert (await service.get("/readyz?verbose")).json["checks"]["rules"]["status"] == "ok"


async def test_while_the_source_of_rules_is_away_they_stay(world, service):
    from tokenry_revocation.rules import RulesUnavailable

    await put_rule(world, service)

    def away():
        raise RulesUnavailable("no answer")

    world.rules.list = away
    assert not await service.rules.refresh()
    world.rules.list = lambda: 1 / 0
    assert not await service.rules.refresh()
    assert (await as_shop(world, service, {"claims": {"sub": "a", "realm": "/customers"}})).status == 201


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"caller":{"sub":"a"}}',
        b'{"caller":{},"may_revoke":{"free":["sub"]}}',
        b'{"caller":{"sub":"a"},"may_revoke":{}}',
        b'{"caller":{"sub":"a"},"may_revoke":{"free":"sub"}}',
        b'{"caller":{"sub":"a"},"may_revoke":{"free":[""]}}',
        b'{"caller":{"sub":"a"},"may_revoke":{"free":[5]}}',
        b'{"caller":{"sub":"a"},"may_revoke":{"fixed":{"sub":""}}}',
        b'{"caller":{"sub":["a"]},"may_revoke":{"free":["sub"]}}',
        b'{"caller":{"azp":"a","client_id":"b"},"may_revoke":{"free":["sub"]}}',
        b'{"caller":{"sub":"a"},"may_revoke":{"fixed":{"azp":"a"},"free":["client_id"]}}',
        b'{"caller":{"sub":"a"},"may_revoke":{"free":["sub"],"any":true}}',
        b'{"caller":{"sub":"a"},"may_revoke":{"free":["sub"]},"until":5}',
        b'{"caller":{"sub":"a"},"caller":{"sub":"b"},"may_revoke":{"free":["sub"]}}',
        b" " * 65537,
    ],
)
def test_rules_that_are_not_understood_allow_nothing(document):
    with pytest.raises(ProtocolError):
        parse_rule("r", document)


async def test_R13_every_call_is_audited_with_actor_reason_rule_and_number(world, service):
    await put_rule(world, service)
    token = world.caller(client_id="shop-tools", azp="shop-tools")
    body = {
        "type": "CLAIM",
        "data": {"claims": {"sub": "canary", "realm": "/customers"}},
        "reason": "laptop stolen",
        "ticket": "SEC-481",
    }
    accepted = await service.call("POST", "/revocations", token=token, body=body)
    await service.call("POST", "/revocations", token=token, body={"type": "KEY", "data": {"kid": "x"}})
    await service.call("POST", "/revocations", token=token, body={"type": "TOKEN", "data": {"token": "x"}})
    first, second, third = world.audit
    assert first["event"] == "revocation accepted"
    assert first["actor"] == {"iss": ISSUER, "sub": "operator", "client_id": "shop-tools"}
    assert (first["id"], first["reason"], first["ticket"]) == (accepted.json["id"], "laptop stolen", "SEC-481")
    assert first["rule"].startswith("shop@")
    assert first["names"] == ["realm", "sub"]
    assert [line["seq"] for line in world.audit] == [1, 2, 3]
    verify(world.audit)
    assert (second["event"], second["status"]) == ("revocation refused", 403)
    assert (third["event"], third["status"]) == ("revocation refused", 400)
    assert "canary" not in str(world.audit)
