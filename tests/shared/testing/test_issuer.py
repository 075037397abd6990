import base64
import json
import threading
import urllib.error
import urllib.request
from urllib.parse import urlencode

import pytest

from tokenry.errors import InvalidToken
from tokenry.http.fetch import FetchFailed, HttpFetcher, Request, Response
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import CLIENT_ID, CLIENT_SECRET, PASSWORD, USERNAME, FakeIssuer


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


def basic(name=CLIENT_ID, secret=CLIENT_SECRET):
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def ask(fetcher, url, **form):
    authorization = form.pop("authorization", basic())
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": authorization}
    response = fetcher.fetch(Request(url=url, method="POST", headers=headers, body=urlencode(form).encode()))
    return response.status, json.loads(response.body)


def test_the_token_endpoint_gives_a_token_that_validates(issuer):
    status, answer = ask(issuer, f"{issuer.issuer}/oauth2/token", grant_type="client_credentials", scope="b a")
    assert (status, answer["scope"], answer["expires_in"]) == (200, "a b", 3600)
    assert issuer.validator().validate(answer["access_token"], scope="a b").sub == CLIENT_ID


def test_the_password_grant_names_the_user(issuer):
    _, answer = ask(
        issuer,
        f"{issuer.issuer}/oauth2/token",
        grant_type="password",
        username=USERNAME,
        password=PASSWORD,
    )
    info = issuer.validator().validate(answer["access_token"])
    assert (info.sub, info.client_id) == (USERNAME, CLIENT_ID)


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "client_credentials", "authorization": basic(secret="wrong")}, 401, "invalid_client"),
        ({"grant_type": "password", "username": "x", "password": "y"}, 400, "invalid_grant"),
        ({"grant_type": "other"}, 400, "unsupported_grant_type"),
        ({}, 400, "invalid_request"),
        ({"grant_type": "client_credentials", "scope": "refused"}, 400, "invalid_scope"),
    ],
)
def test_the_token_endpoint_refuses_as_the_real_one(issuer, form, status, error):
    got, answer = ask(issuer, f"{issuer.issuer}/oauth2/token", **form)
    assert (got, answer["error"]) == (status, error)


def test_introspection_tells_good_from_revoked(issuer):
    token = issuer.token("basket", scope="a")
    url = f"{issuer.issuer}/oauth2/introspect"
    assert ask(issuer, url, token=token)[1]["sub"] == "basket"
    issuer.revoke(token)
    assert ask(issuer, url, token=token)[1] == {"active": False}
    bearer = "Bearer " + issuer.token(scope="token.introspect")
    assert ask(issuer, url, token=issuer.token(), authorization=bearer)[1]["active"] is True
    assert ask(issuer, url, token=token, authorization="Bearer " + issuer.token())[0] == 401


def test_rules_hit_what_was_issued_before_and_not_what_comes_after(issuer):
    validator = issuer.validator()
    before, other = issuer.token("basket"), issuer.token("orders")
    issuer.revoke_claim(sub="basket")
    after = issuer.token("basket")
    with pytest.raises(InvalidToken):
        validator.validate(before)
    validator.validate(after)
    validator.validate(other)
    name = issuer.revoke_all()
    for token in (after, other):
        with pytest.raises(InvalidToken):
            validator.validate(token)
    validator.validate(issuer.token("orders"))
    issuer.undo(name)
    validator.validate(other)


def test_a_rule_on_azp_is_one_on_client_id(issuer):
    token = issuer.token("basket")
    issuer.revoke_claim(azp="basket")
    with pytest.raises(InvalidToken):
        issuer.validator().validate(token)


def test_a_key_can_be_revoked(issuer):
    old = issuer.token()
    kid = issuer.revoke_key()
    issuer.rotate_key()
    assert kid
    with pytest.raises(InvalidToken):
        issuer.validator().validate(old)
    issuer.validator().validate(issuer.token())


def test_while_it_is_down_nothing_is_answered_and_nothing_gets_younger(issuer, clock):
    validator = issuer.validator()
    validator.validate(issuer.token())
    issuer.down = True
    with pytest.raises(FetchFailed):
        issuer.fetch(Request(url=f"{issuer.issuer}/.well-known/jwks.json"))
    clock.advance(200)
    assert validator.degraded
    issuer.down = False
    assert not validator.degraded


def test_requests_are_recorded_and_can_be_taken(issuer):
    ask(issuer, f"{issuer.issuer}/oauth2/token?realm=/services", grant_type="client_credentials")
    taken = issuer.take_request(timeout=0.1)
    assert (taken.method, taken.path) == ("POST", "/oauth2/token")
    assert (taken.form.one("grant_type"), taken.query.one("realm")) == ("client_credentials", "/services")
    with pytest.raises(TimeoutError):
        issuer.take_request(timeout=0.01)


def test_an_answer_can_be_prepared(issuer):
    issuer.enqueue(Response(status=503, body=b"{}"))
    url = f"{issuer.issuer}/oauth2/token"
    assert ask(issuer, url, grant_type="client_credentials")[0] == 503
    assert ask(issuer, url, grant_type="client_credentials")[0] == 200


def test_over_http_it_says_the_same(clock):
    with FakeIssuer(clock=clock) as issuer:
        assert issuer.issuer.startswith("http://127.0.0.1:")
        fetcher = HttpFetcher()
        metadata = json.loads(fetcher.fetch(Request(url=f"{issuer.issuer}/.well-known/openid-configuration")).body)
        assert metadata["issuer"] == issuer.issuer
        status, answer = ask(fetcher, metadata["token_endpoint"], grant_type="client_credentials")
        assert status == 200
        issuer.validator().validate(answer["access_token"])
        assert fetcher.fetch(Request(url=f"{issuer.issuer}/other")).status == 404
        issuer.down = True
        with pytest.raises(FetchFailed):
            ask(fetcher, metadata["token_endpoint"], grant_type="client_credentials")
        fetcher.close()


def test_any_http_client_may_ask_it(clock):
    with (
        FakeIssuer(clock=clock) as issuer,
        urllib.request.urlopen(f"{issuer.issuer}/.well-known/jwks.json") as answer,  # noqa: S310
    ):
        assert json.load(answer)["keys"][0]["alg"] == "ES256"


def test_closing_lets_go_of_requests_that_are_held():
    with FakeIssuer() as issuer:
        fetcher = HttpFetcher()
        answers = []
        url = f"{issuer.issuer}/revocations/changes?after=0&wait=50"
        thread = threading.Thread(
            target=lambda: answers.append(fetcher.fetch(Request(url=url, deadline_seconds=60)).status)
        )
        thread.start()
        issuer.take_request()
        issuer.revocations.close()
        thread.join(5)
        fetcher.close()
        assert answers == [200]


def test_parts_of_a_token_can_be_changed_and_left_out(issuer):
    from tokenry.jose import jws
    from tokenry.jose.encoding import parse_json_object

    parts = jws.split(issuer.token(claims={"jti": None, "team": "x"}, header={"typ": None, "x": 1}))
    claims = parse_json_object(parts.payload)
    assert "jti" not in claims
    assert claims["team"] == "x"
    assert ("typ" in parts.header, parts.header["x"]) == (False, 1)
