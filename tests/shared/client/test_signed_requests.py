"""A client that signs instead of sending a secret: what it sends is what the issuer's own reader accepts, once."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tokenry.client.credentials import ClientKey, find_credentials
from tokenry.client.default import default_source
from tokenry.client.token_endpoint import Grant, signed_token_request
from tokenry.client.token_source import ClientCredentials
from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.http.fetch import Headers, Response
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet
from tokenry.oauth.assertions import MAX_CLIENT_ASSERTION_AHEAD, AssertionRules, read_assertion, verify_assertion
from tokenry.oauth.client_authentication import read_client_assertion
from tokenry.oauth.form import parse_form
from tokenry.scope import NO_SCOPE
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer

ISSUER = "https://issuer.example.org"
KEY = PrivateKey.generate()
IDENTITY = ClientKey(client_id="orders", key=KEY)
GRANT = Grant(grant_type="client_credentials", scope=frozenset({"b", "a"}), realm="/services", audience="stock")


def pem(key=None):
    private = key or ec.generate_private_key(ec.SECP256R1())
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def form_of(request):
    return parse_form(request.body, content_type=request.headers["Content-Type"])


def verified(form, *, now, key=KEY):
    presented = read_client_assertion([], form)
    rules = AssertionRules(
        issuer="orders",
        subject="orders",
        keys=KeySet.of("orders", [key.public]),
        audiences=frozenset({ISSUER}),
        max_ahead=MAX_CLIENT_ASSERTION_AHEAD,
        types=frozenset({"client-authentication+jwt"}),
    )
    return verify_assertion(read_assertion(presented.assertion.reveal()), rules, now=now)


class Recorder:
    """A token endpoint that remembers what it was sent."""

    def __init__(self):
        self.requests = []
        self.answers = [(200, b'{"access_token":"t","token_type":"Bearer","expires_in":60}')]

    def fetch(self, request):
        self.requests.append(request)
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Response(status=status, headers=Headers([]), body=body)

    def cancel(self):
        pass


def source(recorder, **more):
    arguments = {"issuer": ISSUER, "token_url": f"{ISSUER}/oauth2/token", "client_id": "orders", "private_key": KEY}
    return ClientCredentials("a", **{**arguments, **more}, fetcher=recorder, environ={}, clock=FakeClock(),
                             pause=lambda _: None)  # fmt: skip


def test_C08_the_request_is_one_that_our_issuer_accepts():
    request = signed_token_request(
        "https://i/oauth2/token", GRANT, IDENTITY, audience=ISSUER, now=1000.7, jti="id", deadline_seconds=5
    )
    form = form_of(request)
    assertion = verified(form, now=1000.7)
    assert (assertion.jti, assertion.expires_at) == ("id", 1060)
    presented = read_client_assertion([], form)
    assert read_assertion(presented.assertion.reveal()).jws.header == {
        "alg": "ES256",
        "kid": KEY.kid,
        "typ": "client-authentication+jwt",
    }
    assert (form.one("scope"), form.one("realm"), form.one("audience")) == ("a b", "/services", "stock")
    assert "Authorization" not in request.headers
    assert "client_secret" not in form
    # One that died on the way may have been read: sent again it would be a replay.
    assert not request.repeatable


def test_each_request_and_each_retry_has_an_assertion_of_its_own():
    recorder = Recorder()
    recorder.answers.insert(0, (503, b"{}"))
    assert source(recorder).get().value == "t"
    ids = [verified(form_of(request), now=1_800_000_000).jti for request in recorder.requests]
    assert len(ids) == len(set(ids)) == 2
    assert all(len(jti) >= 22 for jti in ids)  # 128 random bits


def test_the_key_may_be_in_a_file_that_is_replaced(tmp_path):
    file = tmp_path / "key.pem"
    file.write_bytes(pem())
    found = find_credentials(
        environ={"TOKENRY_CLIENT_ID": "orders", "TOKENRY_CLIENT_KEY_FILE": str(file)},
        client_id=None, client_secret=None, folder=None, grant="client_credentials",
    )  # fmt: skip
    first = found.read()
    file.write_bytes(pem())
    assert found.read().key.kid != first.key.kid
    assert found.description == f"TOKENRY_CLIENT_KEY_FILE={file}"


@pytest.mark.parametrize("content", [b"", b"secret-garbage", pem(ec.generate_private_key(ec.SECP384R1()))])
def test_a_file_without_a_usable_key_is_named_and_its_content_is_not(tmp_path, content):
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    with pytest.raises(TokenFetchError) as refused:
        source(Recorder(), private_key=file).get()
    assert str(file) in str(refused.value)
    assert "garbage" not in str(refused.value)


def test_the_environment_is_enough(tmp_path):
    file = tmp_path / "key.pem"
    file.write_bytes(pem())
    environ = {
        "TOKENRY_ISSUER": ISSUER, "TOKENRY_TOKEN_URL": f"{ISSUER}/t", "TOKENRY_CLIENT_ID": "orders",
        "TOKENRY_CLIENT_KEY_FILE": str(file),
    }  # fmt: skip
    recorder = Recorder()
    assert default_source(environ=environ, fetcher=recorder, clock=FakeClock()).get().value == "t"
    key = PrivateKey.from_pem(file.read_bytes())
    assert verified(form_of(recorder.requests[0]), now=1_800_000_000, key=key).audience == ISSUER


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"client_id": None}, "client_id"),
        ({"client_secret": "x"}, "not both"),
        ({"grant": "password"}, "password grant"),
        ({"issuer": None}, "issuer's identifier"),
    ],
)
def test_half_a_configuration_is_none(changes, fault):
    with pytest.raises(ConfigurationError, match=fault):
        source(Recorder(), **changes)


def test_secret_and_key_in_the_environment_contradict_each_other():
    environ = {"TOKENRY_CLIENT_ID": "a", "TOKENRY_CLIENT_SECRET": "b", "TOKENRY_CLIENT_KEY_FILE": "/c"}
    with pytest.raises(ConfigurationError, match="set one of"):
        ClientCredentials(issuer=ISSUER, environ=environ)


def test_the_key_does_not_show():
    shown = repr(IDENTITY) + repr(source(Recorder()))
    assert KEY.to_pkcs8_der().hex()[:20] not in shown
    request = signed_token_request(
        "https://i/t", Grant(grant_type="client_credentials", scope=NO_SCOPE), IDENTITY, audience=ISSUER, now=1.0,
        jti="id", deadline_seconds=5,
    )  # fmt: skip
    assert "client_assertion" not in repr(request)


# --- workload identity: what the platform says of the client ---


def test_the_platforms_token_stands_for_a_secret_and_is_read_anew(tmp_path):
    platform = tmp_path / "token"
    platform.write_text("first.platform.token\n")
    issuer = FakeIssuer(clock=FakeClock())
    environ = {"TOKENRY_ISSUER": issuer.issuer, "TOKENRY_CLIENT_ASSERTION_FILE": str(platform), "TOKENRY_REALM": "/a"}
    source = ClientCredentials("orders.read", environ=environ, fetcher=issuer, clock=issuer.clock, pause=lambda _: None)
    for text in ("first.platform.token", "second.platform.token"):
        platform.write_text(text)
        with pytest.raises(TokenFetchError):  # the fake issuer trusts no platform
            source.get()
        sent = issuer.token_requests()[-1]
        assert sent.headers.get("authorization") is None
        assert {
            name: sent.form.one(name) for name in ("grant_type", "client_assertion", "client_id", "scope", "realm")
        } == {
            "grant_type": "client_credentials",
            "client_assertion": text,
            "client_id": None,
            "scope": "orders.read",
            "realm": "/a",
        }
        assert sent.form.one("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        issuer.clock.advance(60)
    assert "platform.token" not in repr(source)
    platform.unlink()
    with pytest.raises(TokenFetchError, match="cannot be used") as failed:
        source.get()
    assert "platform.token" not in str(failed.value)


@pytest.mark.parametrize(
    "environ",
    [
        {"TOKENRY_CLIENT_ASSERTION_FILE": "/a", "TOKENRY_CLIENT_ID": ""},
        {"TOKENRY_CLIENT_ASSERTION_FILE": "/a", "TOKENRY_CLIENT_ID": "orders", "TOKENRY_CLIENT_SECRET": "x"},
        {"TOKENRY_CLIENT_ASSERTION_FILE": "/a", "TOKENRY_CLIENT_KEY_FILE": "/b"},
    ],
)
def test_the_platforms_token_is_alone(environ):
    with pytest.raises(ConfigurationError, match="TOKENRY_CLIENT"):
        ClientCredentials(environ={"TOKENRY_ISSUER": "https://issuer.example"} | environ)
    with pytest.raises(ConfigurationError, match="one of assertion_file"):
        ClientCredentials(issuer="https://i.example", assertion_file="/a", client_id="a", client_secret="b", environ={})


def test_default_source_finds_it(tmp_path):
    source = default_source(environ={"TOKENRY_ISSUER": "https://i.example", "TOKENRY_CLIENT_ASSERTION_FILE": "/a"})
    assert source.description == "TOKENRY_CLIENT_ASSERTION_FILE=/a, https://i.example"
