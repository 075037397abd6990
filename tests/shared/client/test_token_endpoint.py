import base64
import json

import pytest

from tokenry.client.credentials import ClientSecrets
from tokenry.client.token_endpoint import Grant, Refused, read_token_response, token_request
from tokenry.http.fetch import Headers, Response
from tokenry.oauth.client_authentication import read_client_credential
from tokenry.oauth.form import Form, parse_form, parse_query
from tokenry.oauth.token_endpoint import parse_token_request
from tokenry.scope import NO_SCOPE
from tokenry.secret import Secret

SECRETS = ClientSecrets(client_id="orders", client_secret=Secret("s3cr3t"))
GOOD = {"access_token": "abc", "token_type": "Bearer", "expires_in": 3600, "scope": "a b"}


def answer(status=200, headers=(), **members):
    return Response(status=status, headers=Headers(headers), body=json.dumps(members).encode())


def test_the_request_is_one_that_our_issuer_reads():
    grant = Grant(grant_type="client_credentials", scope=frozenset({"b", "a"}), realm="/services", audience="x")
    request = token_request("https://i/oauth2/token", grant, SECRETS, deadline_seconds=5)
    form = parse_form(request.body, content_type=request.headers["Content-Type"])
    read = parse_token_request(form, query=parse_query(""))
    assert (read.grant_type, read.scope, read.realm, read.targets) == (
        "client_credentials",
        {"a", "b"},
        "/services",
        ("x",),
    )


def test_the_password_grant_carries_the_user():
    secrets = ClientSecrets(client_id="a", client_secret=Secret("b"), username="ü ser", password=Secret("p&w=1+2"))
    request = token_request("https://i/t", Grant(grant_type="password", scope=NO_SCOPE), secrets, deadline_seconds=5)
    form = parse_form(request.body, content_type=request.headers["Content-Type"])
    assert (form.one("username"), form.one("password"), form.one("scope")) == ("ü ser", "p&w=1+2", None)


@pytest.mark.parametrize("text", ["plain", "a:b", "50%", "a+b c", "ünï", "&=?/#", "%41"])
def test_id_and_secret_are_form_encoded_before_they_are_joined(text):
    secrets = ClientSecrets(client_id=text, client_secret=Secret(text))
    request = token_request(
        "https://i/t", Grant(grant_type="client_credentials", scope=NO_SCOPE), secrets, deadline_seconds=5
    )
    credential = read_client_credential([request.headers["Authorization"]], Form())
    assert (credential.readings[0].client_id, credential.readings[0].secret.reveal()) == (text, text)
    assert base64.b64decode(request.headers["Authorization"].split()[1]).count(b":") == 1


def test_nothing_secret_shows_in_the_request():
    request = token_request(
        "https://i/t", Grant(grant_type="client_credentials", scope=NO_SCOPE), SECRETS, deadline_seconds=5
    )
    assert "s3cr3t" not in repr(request)
    assert "?" not in request.url


def test_a_good_answer_is_read():
    issued = read_token_response(answer(**GOOD), wanted=NO_SCOPE)
    assert (issued.value.reveal(), issued.lifetime, issued.scope) == ("abc", 3600.0, {"a", "b"})
    assert "abc" not in repr(issued)


def test_a_scope_that_is_not_said_is_the_one_that_was_asked_for():
    members = {name: value for name, value in GOOD.items() if name != "scope"}
    assert read_token_response(answer(**members), wanted=frozenset({"x"})).scope == {"x"}


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": ""},
        {"access_token": None},
        {"access_token": 5},
        {"access_token": "a b"},
        {"access_token": "a\r\nX-Injected: 1"},
        {"access_token": "x" * 20_000},
        {"token_type": "mac"},
        {"token_type": None},
        {"expires_in": None},
        {"expires_in": "3600"},
        {"expires_in": True},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": 1e12},
        {"scope": 'a"b'},
    ],
)
def test_an_answer_that_is_not_one_gives_no_token(changes):
    with pytest.raises(Refused) as caught:
        read_token_response(answer(**(GOOD | changes)), wanted=NO_SCOPE)
    assert caught.value.retryable


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"access_token":"a","access_token":"b"}'])
def test_a_body_that_is_no_object_gives_no_token(body):
    with pytest.raises(Refused, match="no JSON object"):
        read_token_response(Response(status=200, body=body), wanted=NO_SCOPE)


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (401, "invalid_client", False),
        (400, "invalid_scope", False),
        (429, "temporarily_unavailable", True),
        (503, "temporarily_unavailable", True),
        (500, "server_error", True),
        (302, None, False),
        (404, None, False),
    ],
)
def test_a_refusal_says_its_code_and_whether_to_try_again(status, code, retryable):
    response = answer(status, [("Retry-After", "7")], error=code, error_description="s3cr3t said")
    with pytest.raises(Refused) as caught:
        read_token_response(response, wanted=NO_SCOPE)
    refused = caught.value
    assert (refused.error, refused.retryable, refused.retry_after) == (code, retryable, 7.0)
    assert "s3cr3t" not in str(refused)


@pytest.mark.parametrize("code", ["<script>", "a" * 100, 5, None, ["x"], "x\ny"])
def test_a_code_that_is_none_is_not_repeated(code):
    with pytest.raises(Refused) as caught:
        read_token_response(answer(400, error=code), wanted=NO_SCOPE)
    assert caught.value.error is None
    assert "status 400" in str(caught.value)
