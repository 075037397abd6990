import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.tokeninfo.conftest import bearer
from tests.support.access_tokens import NOW, token
from tokenry.errors import InsufficientScope
from tokenry_tokeninfo.auth_policy import (
    AuthPolicy,
    PolicyFault,
    identity_headers,
    policy_from_header,
    policy_from_query,
)

GOOD = [
    "scope=orders.read", "scope=orders.read&scope=orders.write", "scope=orders.read+orders.write",
    "authenticated=1", "scope=orders.read&scope=x&any=1", "scope=orders.read&any=0",
    "scope=orders.read&audience=https://orders.example",
]  # fmt: skip


@pytest.mark.parametrize("query", GOOD)
async def test_a_token_that_has_what_the_query_asks_passes(service, query):
    answer = await service.ask("GET", f"/auth?{query}", headers=bearer(token()))
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", ["/auth?authenticated=1", "/auth/orders/1?x=y"])
async def test_every_method_is_judged_alike(service, method, path):
    required = {"Tokenry-Require": "authenticated=1"}
    answer = await service.ask(method, path, headers=bearer(token()) | required)
    assert answer.status == 200
    assert (await service.ask(method, path, headers=required)).status == 401


async def test_who_the_token_speaks_for_is_told_in_headers(service):
    answer = await service.ask("GET", "/auth?authenticated=1", headers=bearer(token()))
    assert {name: answer.headers[name] for name in answer.headers if name.startswith("X-Auth-")} == {
        "X-Auth-Subject": "stock",
        "X-Auth-Client": "stock",
        "X-Auth-Scopes": "orders.read orders.write",
        "X-Auth-Realm": "/services",
    }


@pytest.mark.parametrize(
    ("subject", "shown"),
    [("a b", "a%20b"), ("a\r\nX-Auth-Realm: /evil", "a%0D%0AX-Auth-Realm:%20/evil"), ("jos\u00e9", "jos%C3%A9"),
     ("100%", "100%25"), ("~!*'()", "~!*'()"), ("a\x00", "a%00"), ("\x7f", "%7F")],
)  # fmt: skip
async def test_what_is_not_printable_ascii_is_percent_encoded(service, subject, shown):
    answer = await service.ask("GET", "/auth?authenticated=1", headers=bearer(token(sub=subject)))
    assert (answer.status, answer.headers["X-Auth-Subject"]) == (200, shown)


@pytest.mark.parametrize(
    ("query", "missing"),
    [("scope=admin", "admin"), ("scope=orders.read&scope=admin", "admin"), ("scope=b&scope=a&any=1", "a b"),
     ("scope=ORDERS.READ", "ORDERS.READ"), ("scope=orders", "orders")],
)  # fmt: skip
async def test_missing_scopes_are_403_and_named(service, query, missing):
    answer = await service.ask("GET", f"/auth?{query}", headers=bearer(token()))
    assert (answer.status, answer.json["error"]) == (403, "insufficient_scope")
    assert answer.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{missing}"'
    assert not [name for name in answer.headers if name.startswith("X-Auth-")]


async def test_no_token_is_401_with_a_bare_challenge(service):
    answer = await service.ask("GET", "/auth?authenticated=1")
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_two_tokens_are_401(service):
    twice = [("Authorization", f"Bearer {token()}")] * 2
    answer = await service.ask("GET", "/auth?authenticated=1", headers=twice)
    assert answer.status == 401
    assert 'error="invalid_request"' in answer.headers["WWW-Authenticate"]


async def test_a_token_in_the_query_is_none(service):
    answer = await service.ask("GET", f"/auth?authenticated=1&access_token={token()}")
    assert answer.status == 500  # an unknown member of the policy


@pytest.mark.parametrize("bad", [token(exp=NOW), token(aud="x"), "garbage"])
async def test_a_bad_token_is_401(service, bad):
    answer = await service.ask("GET", "/auth?authenticated=1&audience=https://orders.example", headers=bearer(bad))
    assert (answer.status, answer.json["error"]) == (401, "invalid_token")


@pytest.mark.parametrize(
    "query",
    ["", "any=1", "authenticated=0", "scope=", "scope=a&x=1", "scope=a&any=2", "scope=a&any=yes", "authenticated=true",
     "authenticated=1&any=1", "scope=a%22", "scope=a%ff", "scope=a&any=0&any=1", "authenticated", "scope=a&audience=",
     "&".join(["scope=a"] * 65)],
)  # fmt: skip
async def test_a_policy_that_is_missing_or_not_understood_is_500_and_an_alarm(service, query):
    for headers in (bearer(token()), {}):
        answer = await service.ask("GET", f"/auth?{query}", headers=headers)
        assert (answer.status, answer.json["error"]) == (500, "server_error")
    assert service.metric("tokenry_auth_policy_faults_total") == 2


async def test_the_callers_header_does_not_set_the_policy_of_the_query(service):
    headers = bearer(token()) | {"Tokenry-Require": "authenticated=1"}
    assert (await service.ask("GET", "/auth?scope=admin", headers=headers)).status == 403
    assert (await service.ask("GET", "/auth", headers=headers)).status == 500


# --- /auth/<anything> ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/auth/", "/auth/orders/1", "/auth/x?authenticated=1", "/auth/x?scope=", "/auth//a/../b"]
)
@pytest.mark.parametrize(
    ("required", "status"),
    [("scope=orders.read", 200), ("scope=orders.read orders.write; any=0", 200), ("scope=x orders.read;any=1", 200),
     ("authenticated=1", 200), ("scope=admin", 403), ("scope=orders.read; audience=other", 401)],
)  # fmt: skip
async def test_below_auth_the_header_alone_is_the_policy(service, path, required, status):
    answer = await service.ask("GET", path, headers=bearer(token()) | {"Tokenry-Require": required})
    assert answer.status == status


@pytest.mark.parametrize(
    "values",
    [[], [""], ["scope=orders.read", "scope=orders.read"], ["scope=orders.read; x=1"], ["scope=a; scope=b"],
     ["scope=a, any=1"], ["scope=orders.read; any=0, scope=x"], ["any=1"], ["scope=orders.read;"],
     ["scope=" + "a" * 5000], ["authenticated=1; authenticated=1"]],
)  # fmt: skip
async def test_below_auth_a_policy_not_understood_is_500_whatever_the_query_says(service, values):
    headers = [("Authorization", f"Bearer {token()}"), *(("Tokenry-Require", value) for value in values)]
    answer = await service.ask("GET", "/auth/x?authenticated=1&scope=orders.read", headers=headers)
    assert answer.status in {403, 500}
    assert answer.status == 500 or values == ["scope=a, any=1"]  # one scope of an odd name, which nobody has


# --- the pure part ------------------------------------------------------------------------------------------


@given(st.text(max_size=60))
def test_a_query_is_a_policy_or_a_fault(query):
    try:
        policy = policy_from_query(query)
    except PolicyFault:
        return
    assert policy.scope or "authenticated" in query


@given(st.lists(st.text(max_size=40), max_size=3))
def test_a_header_is_a_policy_or_a_fault(values):
    try:
        policy = policy_from_header(values)
    except PolicyFault:
        return
    assert policy.scope or "authenticated" in values[0]


@pytest.mark.parametrize(
    ("scope", "any_of", "granted", "passes"),
    [({"a", "b"}, False, {"a", "b", "c"}, True), ({"a", "b"}, False, {"a"}, False), ({"a", "b"}, True, {"b"}, True),
     ({"a", "b"}, True, {"c"}, False), (set(), False, set(), True)],
)  # fmt: skip
def test_all_or_one_of_the_scopes_are_needed(scope, any_of, granted, passes):
    policy = AuthPolicy(scope=frozenset(scope), any_of=any_of)
    if passes:
        policy.check(frozenset(granted))
    else:
        with pytest.raises(InsufficientScope):
            policy.check(frozenset(granted))


@given(st.text(min_size=1, max_size=30))
def test_no_subject_can_leave_its_header(subject):
    from urllib.parse import unquote

    from tokenry.claims import TokenInfo

    info = TokenInfo(
        iss="i", sub=subject, client_id=None, aud=(), scope=frozenset(), exp=2, iat=1, jti=None, realm=None,
        kid="k", claims={},
    )  # fmt: skip
    value = identity_headers(info)["X-Auth-Subject"]
    assert all(0x21 <= ord(character) <= 0x7E for character in value)
    assert unquote(value, errors="surrogatepass") == subject
