"""Every framework gives the same answer, to the byte, in the same situation."""

import pytest

from tests.support.frameworks import APPLICATIONS
from tokenry.testing import FakeClock, FakeIssuer

NAMED = {"realm": "orders", "resource_metadata": "https://orders.example/.well-known/oauth-protected-resource"}
NAMES = f'realm="orders", resource_metadata="{NAMED["resource_metadata"]}"'


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


@pytest.fixture(params=APPLICATIONS)
def make(request):
    return APPLICATIONS[request.param]


@pytest.fixture
def app(make, issuer):
    return make(issuer.validator())


def bearer(token):
    return [("Authorization", f"Bearer {token}")]


def ask(app, path, token=None, method="GET"):
    return app.call(method, path, [] if token is None else bearer(token))


def test_a_good_token_gets_through_and_the_handler_knows_whose_it_is(app, issuer):
    answer = ask(app, "/orders", issuer.token("basket", scope="orders.read"))
    assert (answer.status, answer.json) == (200, {"caller": "basket"})
    assert ask(app, "/plain", issuer.token("basket")).json == {"caller": "basket"}


def test_no_token_gets_a_bare_challenge_and_no_body(app):
    for path in ("/orders", "/plain"):
        answer = ask(app, path)
        assert (answer.status, answer.challenge, answer.body) == (401, "Bearer", b""), path
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", sorted(set(APPLICATIONS) - {"fastapi"}))
def test_what_does_not_exist_needs_a_token_too(name, issuer):
    # FastAPI resolves dependencies after the route; there, the paths that exist can be told.
    app = APPLICATIONS[name](issuer.validator())
    assert ask(app, "/nowhere").status == 401
    assert ask(app, "/nowhere", issuer.token()).status == 404


@pytest.mark.parametrize(
    "bad",
    [{"expired": True}, {"wrong_key": True}, {"alg": "none"}, {"audience": "other"}, {"claims": {"iat": None}}],
    ids=str,
)
def test_a_bad_token_gets_the_same_words_whatever_the_reason(app, issuer, bad):
    answer = ask(app, "/orders", issuer.token(scope="orders.read", **bad))
    assert (answer.status, answer.challenge) == (401, 'Bearer error="invalid_token"')
    assert answer.json == {"error": "invalid_token"}
    assert answer.headers["content-type"] == "application/json"


def test_a_revoked_token_is_refused(app, issuer):
    token = issuer.token(scope="orders.read")
    assert ask(app, "/orders", token).status == 200
    issuer.revoke(token)
    assert ask(app, "/orders", token).status == 401


def test_a_token_without_the_scope_is_403_and_names_the_scope(app, issuer):
    answer = ask(app, "/orders", issuer.token(scope="other"))
    assert (answer.status, answer.json) == (403, {"error": "insufficient_scope"})
    assert answer.challenge == 'Bearer error="insufficient_scope", scope="orders.read"'


def test_all_of_and_any_of(app, issuer):
    for scope, all_of, any_of in (("a b", 200, 200), ("a", 403, 200), ("b", 403, 200), ("c", 403, 403)):
        token = issuer.token(scope=scope)
        assert (ask(app, "/both", token).status, ask(app, "/either", token).status) == (all_of, any_of), scope


def test_public_is_open_also_with_a_bad_token(app, issuer):
    assert ask(app, "/healthz").json == {"caller": None}
    assert ask(app, "/healthz", issuer.token(expired=True)).status == 200


def test_two_tokens_are_a_bad_request(app, issuer):
    answer = app.call("GET", "/plain", [*bearer(issuer.token()), *bearer(issuer.token())])
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert answer.challenge == 'Bearer error="invalid_request"'


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Negotiate x, Bearer y", "bearer"])
def test_another_scheme_is_no_token(app, value):
    answer = app.call("GET", "/plain", [("Authorization", value)])
    assert (answer.status, answer.challenge) == (401, "Bearer")


def test_the_scheme_is_read_in_any_case(app, issuer):
    assert app.call("GET", "/plain", [("authorization", f"bEaReR {issuer.token()}")]).status == 200


def test_a_validator_that_cannot_judge_is_503_and_never_401(app, issuer, clock):
    token = issuer.token(scope="orders.read")
    issuer.down = True
    clock.advance(minutes=20)
    answer = ask(app, "/orders", token)
    assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.challenge is None


def test_M10_realm_and_metadata_stand_in_every_challenge(make, issuer):
    app = make(issuer.validator(), **NAMED)
    assert ask(app, "/plain").challenge == f"Bearer {NAMES}"
    bad = ask(app, "/plain", issuer.token(expired=True)).challenge
    assert bad == f'Bearer realm="orders", error="invalid_token", {NAMES.partition(", ")[2]}'
    lacking = ask(app, "/orders", issuer.token()).challenge
    assert lacking.startswith('Bearer realm="orders", error="insufficient_scope", scope="orders.read"')
    assert lacking.endswith(NAMES.partition(", ")[2])


def test_a_method_that_is_not_allowed_needs_a_token_too(app):
    assert ask(app, "/plain", method="DELETE").status in {401, 405}
    assert ask(app, "/orders", method="OPTIONS").status in {401, 405}


def test_no_answer_repeats_the_token(app, issuer):
    for token in (issuer.token(expired=True), issuer.token(), "no.token.at-all", "x" * 9000):
        answer = ask(app, "/orders", token)
        assert token not in str(answer.headers)
        assert token.encode() not in answer.body


@pytest.mark.parametrize("name", sorted(set(APPLICATIONS) - {"asgi", "wsgi"}))
def test_the_routes_can_be_listed_with_what_they_ask_for(name, issuer):
    listed = {
        route.path: str(route.access)
        for route in APPLICATIONS[name](issuer.validator()).routes()
        if route.method in {"GET", "*"}
    }
    expected = {
        "/orders": "orders.read",
        "/both": "a and b",
        "/either": "a or b",
        "/plain": "any valid token",
        "/healthz": "public",
    }
    assert expected.items() <= listed.items()
