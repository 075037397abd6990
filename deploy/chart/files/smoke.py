"""Are the services of SMOKE_* ready, and does a token of SMOKE_CLIENT_ID live and die as it should?"""

import base64
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

URLS = {role: os.environ.get(f"SMOKE_{role.upper()}") for role in ("issuer", "tokeninfo", "revocation")}


def ask(url, *, form=None, authorization=None):
    """Return status and body."""
    body = urllib.parse.urlencode(form).encode() if form else None
    request = urllib.request.Request(url, body, {"Authorization": authorization} if authorization else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def expect(what, seen, wanted):
    """End with 1 unless *seen* is what was *wanted*."""
    print(f"{'ok' if seen == wanted else 'WRONG'}  {what}: {seen}")
    if seen != wanted:
        sys.exit(1)


# Plain requests of each service's own business: /readyz is on the port for operations.
if URLS["issuer"]:
    expect("issuer: JWK Set", ask(URLS["issuer"] + "/.well-known/jwks.json")[0], 200)
if URLS["tokeninfo"]:
    expect("token info: no token", ask(URLS["tokeninfo"] + "/oauth2/tokeninfo", authorization="Bearer x")[0], 401)
if URLS["revocation"]:
    expect("revocation: no bearer", ask(URLS["revocation"] + "/revocations", form={"a": "b"})[0], 401)
if os.environ.get("SMOKE_CLIENT_ID") and URLS["issuer"]:
    pair = f"{os.environ['SMOKE_CLIENT_ID']}:{os.environ['SMOKE_CLIENT_SECRET']}"
    basic = "Basic " + base64.b64encode(pair.encode()).decode()
    grant = {"grant_type": "client_credentials", "realm": os.environ["SMOKE_REALM"]}
    status, body = ask(URLS["issuer"] + "/oauth2/token", form=grant, authorization=basic)
    expect("issuer: a token", status, 200)
    bearer = "Bearer " + json.loads(body)["access_token"]
    if URLS["tokeninfo"]:
        expect("token info: judges it", ask(URLS["tokeninfo"] + "/oauth2/tokeninfo", authorization=bearer)[0], 200)
    if URLS["revocation"]:
        own = {"token": bearer.removeprefix("Bearer ")}
        status, _ = ask(URLS["revocation"] + "/oauth2/revoke", form=own, authorization=basic)
        expect("revocation: takes it back (RFC 7009)", status, 200)
