"""
A migration from Plan B: its tokens and ours side by side against one token info process.

Plan B's tokens have a scope that is an array, no `typ`, no `aud`, no `jti` and no `client_id`; here even the `kid` is
the one of our own key.
"""

import json
import time

import pytest

from tests.services.tokeninfo.test_process import tokeninfo, wait_until
from tests.support.access_tokens import signed
from tests.support.http import call
from tokenry.http.fetch import Headers, Response
from tokenry.jose import jws
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry.testing.issuer import FakeIssuer
from tokenry.testing.server import LoopbackServer

pytestmark = pytest.mark.processes

KID = "one-kid-in-two-issuers"
OURS, THEIRS = PrivateKey.generate(), PrivateKey.generate()


def key_set(key):
    body = dump_json({"keys": [key.public.to_jwk() | {"kid": KID}]})
    return LoopbackServer(lambda _: Response(status=200, headers=Headers([]), body=body))


@pytest.fixture
def places():
    ours, theirs = key_set(OURS), key_set(THEIRS)
    with FakeIssuer() as platform:
        platform.serve()
        yield platform, ours, theirs
    ours.close()
    theirs.close()


def plan_b(issuer, *, key=THEIRS, **changes):
    now = int(time.time())
    head = {"alg": "ES256", "kid": KID}
    claims = {"iss": issuer, "sub": "stups_orders", "realm": "/services", "scope": ["uid", "orders.read"],
              "iat": now, "exp": now + 600, "azp": "stups_orders"}  # fmt: skip
    return signed(dump_json(head), dump_json(claims | changes), key=key)


def our_own(issuer, *, key=OURS, **head):
    now = int(time.time())
    claims = {"iss": issuer, "sub": "orders", "client_id": "orders", "realm": "/services", "scope": "orders.read",
              "aud": "stock", "jti": "j1", "iat": now, "exp": now + 600}  # fmt: skip
    return signed(dump_json({"alg": "ES256", "kid": KID, "typ": "at+jwt"} | head), dump_json(claims), key=key)


def test_tokens_of_plan_b_and_ours_are_judged_side_by_side(places):
    platform, ours, theirs = places
    old = theirs.url
    trusted = [{"issuer": old, "jwks_uri": f"{old}/keys", "max_token_lifetime": 86_400, "accept_untyped": True}]
    with tokeninfo(
        TOKENRY_ISSUER=platform.issuer,
        TOKENRY_JWKS_URL=f"{ours.url}/keys",
        TOKENRY_REVOCATION_URL=platform.issuer,
        TOKENRY_TRUSTED_ISSUERS=json.dumps(trusted),
        OPENID_PROVIDER_REFRESH_INTERVAL="10s",
    ) as (_, url):

        def info(token):
            return call("GET", f"{url}/oauth2/tokeninfo", bearer=token)

        def until_known(token):
            wait_until(lambda: info(token).status == 200)
            return info(token).json

        new = until_known(our_own(platform.issuer))
        assert (new["uid"], new["scope"], new["aud"], new["jti"]) == ("orders", ["orders.read"], "stock", "j1")
        found = until_known(plan_b(old))
        assert (found["uid"], found["realm"], found["scope"]) == ("stups_orders", "/services", ["orders.read", "uid"])
        assert found["orders.read"] is True
        assert {"aud", "jti"}.isdisjoint(found)
        assert call("GET", f"{url}/auth?scope=orders.read", bearer=plan_b(old)).status == 200

        # A key vouches for its own issuer only, although the names of both are the same.
        for forged in (
            plan_b(old, key=OURS),
            plan_b(platform.issuer),
            our_own(old, key=OURS),
            our_own(platform.issuer, key=THEIRS),
            our_own("https://third.example"),
        ):
            assert info(forged).status == 401
        # Each issuer has its own profile: what is let pass for Plan B's tokens is not for ours.
        assert info(our_own(platform.issuer, typ="JWT")).status == 401
        assert info(plan_b(old, exp=int(time.time()) + 100_000)).status == 401

        # A revocation by claims hits both, and the high half of s is the foreign issuer's affair only.
        platform.revoke_claim(sub="stups_orders", issued_before=int(time.time()) + 1)
        wait_until(lambda: info(plan_b(old, iat=int(time.time()) - 5)).status == 401)
        assert info(our_own(platform.issuer)).status == 200
        assert info(jws.twin(our_own(platform.issuer))).status == 401
        assert info(jws.twin(plan_b(old, sub="stups_stock"))).status == 200
