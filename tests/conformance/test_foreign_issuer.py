"""Our library against an issuer that we did not write: Authlib's server, which takes the RFCs by the letter."""

import time

import pytest
import requests
from flask import Flask, request
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from tokenry import ClientCredentials, TokenFetchError
from tokenry.http.fetch import Headers, Response
from tokenry.jose.jwks import KeySet as OurKeySet
from tokenry.testing.server import LoopbackServer
from tokenry.validation.policy import TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
KEY = ECKey.generate_key("P-256", {"kid": "foreign-1", "use": "sig", "alg": "ES256"})
SECRET = "s3cret&ü%+:"  # without a space: Authlib reads "+" literally, RFC 6749 section 2.3.1 does not


class Client:
    """A client as Authlib's server sees one."""

    client_id = "orders"

    def check_client_secret(self, secret):
        return secret == SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"

    def get_allowed_scope(self, scope):
        return " ".join(name for name in scope.split() if name in {"a", "b"})


@pytest.fixture
def issuer():
    from authlib.integrations.flask_oauth2 import AuthorizationServer
    from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant

    app = Flask("foreign")
    place = {}

    def token(grant_type, client, user=None, scope=None, **_):
        now, granted = int(time.time()), client.get_allowed_scope(scope or "")
        claims = {
            "iss": place["url"],
            "sub": client.client_id,
            "client_id": client.client_id,
            "aud": "shop",
            "iat": now,
            "exp": now + 600,
            "jti": f"{now}",
            "scope": granted,
        }
        text = jwt.encode({"alg": "ES256", "kid": "foreign-1", "typ": "at+jwt"}, claims, KEY)
        return {"access_token": text, "token_type": "Bearer", "expires_in": 600, "scope": granted}

    server = AuthorizationServer(
        app,
        query_client=lambda client_id: Client() if client_id == "orders" else None,
        save_token=lambda _token, _request: None,
    )
    server.register_token_generator("default", token)
    server.register_grant(ClientCredentialsGrant)

    @app.post("/token")
    def issue():
        return server.create_token_response()

    @app.get("/.well-known/oauth-authorization-server")
    def metadata():
        return {"issuer": place["url"], "token_endpoint": f"{place['url']}/token", "jwks_uri": f"{place['url']}/jwks"}

    @app.get("/jwks")
    def jwks():
        assert request.method == "GET"
        return KeySet([KEY]).as_dict(private=False)

    def answer(asked):
        path = asked.url.removeprefix(place["url"])
        with app.test_client() as client:
            got = client.open(path, method=asked.method, headers=list(asked.headers.items()), data=asked.body)
            return Response(status=got.status_code, headers=Headers(got.headers.items()), body=got.data)

    served = LoopbackServer(answer)
    place["url"] = served.url
    yield served.url
    served.close()


def source(issuer, scope="a b", secret=SECRET):
    return ClientCredentials(scope, issuer=issuer, client_id="orders", client_secret=secret, environ={})


def test_a_token_is_had_by_the_metadata_and_judged_by_the_published_keys(issuer):
    got = source(issuer).get()
    assert got.scope == {"a", "b"}
    keys = OurKeySet.parse(requests.get(f"{issuer}/jwks", timeout=5).content, issuer=issuer)
    trusted = TrustedIssuer(issuer=issuer, max_token_lifetime=3600, foreign=True)
    policy = ValidationPolicy(issuers=(trusted,), audience="shop", requires_list=False)
    info = Validator(policy).validate(got.value, now=time.time(), keys=keys, revocations=None, list_age=0.0)
    assert (info.sub, info.scope) == ("orders", {"a", "b"})


def test_a_wrong_secret_is_one_clear_error(issuer):
    with pytest.raises(TokenFetchError) as caught:
        source(issuer, secret="wrong").get()
    assert (caught.value.error, caught.value.retryable) == ("invalid_client", False)
    assert "orders" in str(caught.value)


def test_an_issuer_that_grants_less_is_believed(issuer):
    assert source(issuer, scope="a nothing").get().scope == {"a"}  # RFC 6749 section 5.1
