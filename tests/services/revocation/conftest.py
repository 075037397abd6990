"""The revocation service behind loopback sockets, over a store in memory, with a clock and keys of the test's own."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tokenry.errors import Unready, ValidatorNotReady
from tokenry.http.fetch import Response
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet
from tokenry.jose.jws import sign
from tokenry.revocation.judged import JudgedToken
from tokenry.revocation.wire import LIST_HEADER, ListStamp, parse_list
from tokenry.serving.keys import HEALTH
from tokenry.serving.server import serve
from tokenry.testing.clock import FakeClock
from tokenry.validation.snapshots import Snapshot
from tokenry_revocation.adapters.memory import MemoryStore
from tokenry_revocation.app import FEED, RULES, create_app
from tokenry_revocation.ports import StoreUnavailable
from tokenry_revocation.settings import Settings

ISSUER = "https://issuer.example.org"
FOREIGN = "https://foreign.example.org"
SALT = "a-salt-of-the-tests-only"
LIFETIME = 3600
NOW = 1_800_000_000


class FakeKeys:
    """Keys that a test adds and takes away; `late` ones appear when somebody asks for fresh ones."""

    def __init__(self, clock, issuer=ISSUER):
        self.clock = clock
        self.issuer = issuer
        self.held = []
        self.late = []
        self.away = False
        self.refetches = 0

    def start(self):
        pass

    def stop(self):
        pass

    def snapshot(self):
        if not self.held:
            return None
        keys = KeySet.of(self.issuer, [key.public for key in self.held])
        return Snapshot(value=keys, as_of=NOW, age_at_request=0.0, requested_at=self.clock.monotonic())

    def request_refetch(self, issuer):
        self.refetches += 1

    def refetch(self, issuer):
        self.refetches += 1

    async def arefetch(self, issuer):
        self.refetches += 1
        if self.away:
            raise ValidatorNotReady(Unready.KEY_FETCH_FAILED)
        self.held += self.late
        self.late = []


class FaultyStore(MemoryStore):
    """A store in memory that can go away, be sure of nothing, or tell that our clock is off."""

    clock_offset = None

    def __init__(self, clock):
        super().__init__(clock)
        self.down = False
        self.loses_answers = False
        self.reading_fails = False
        self.appended = 0
        self.hold = None

    async def close(self):
        """Stay open: replicas of one test share it, and one may be stopped before another."""

    def _check(self):
        if self.down:
            raise StoreUnavailable("append: no quorum of 10.1.2.3")

    async def append(self, record):
        self._check()
        self.appended += 1
        await super().append(record)
        if self.loses_answers:
            raise StoreUnavailable("append: timed out")

    async def get(self, record_id):
        self._check()
        return await super().get(record_id)

    async def read(self, after):
        self._check()
        if self.reading_fails:
            raise StoreUnavailable("read: no quorum")
        return await super().read(after)

    async def pages(self):
        self._check()
        async for batch in super().pages():
            yield batch
            if self.hold is not None:
                await self.hold.wait()

    async def remember(self, key, value, *, ttl_seconds):
        self._check()
        await super().remember(key, value, ttl_seconds=ttl_seconds)

    async def recall(self, key):
        self._check()
        return await super().recall(key)


class FakeRules:
    """Rule objects in a dictionary."""

    def __init__(self):
        self.objects = {}

    def list(self):
        return {name: str(hash(document)) for name, document in self.objects.items()}

    def get(self, name):
        return self.objects[name]

    def put(self, name, **members):
        self.objects[name] = json.dumps(members).encode()


class FakeIssuer:
    """The issuer's token endpoint, as far as this service uses it."""

    def __init__(self, world):
        self.world = world
        self.secrets = {"basket": "s3cret"}
        self.status = None
        self.requests = []

    def fetch(self, request):
        from base64 import b64decode
        from urllib.parse import parse_qs

        self.requests.append(request)
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if self.status is not None:
            return Response(status=self.status, body=b"{}")
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            client, _, secret = b64decode(authorization.split(" ")[1]).decode().partition(":")
        else:
            client, secret = form["client_id"], form["client_secret"]
        if self.secrets.get(client) != secret:
            return Response(status=401, body=b'{"error":"invalid_client"}')
        token = self.world.token(client_id=client, sub=client)
        return Response(status=200, body=dump_json({"access_token": token, "token_type": "Bearer"}))

    def cancel(self):
        pass


class Answer:
    """An HTTP answer, read whole."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def stamp(self):
        return ListStamp.parse(self.headers[LIST_HEADER])

    @property
    def list(self):
        return parse_list(self.body)


class Replica:
    """One instance of the service."""

    def __init__(self, world, app, url, session):
        self.world, self.app, self.url, self.session = world, app, url, session
        self.feed, self.rules = app[FEED], app[RULES]

    async def call(self, method, path, *, token="", body=None, form=None, headers=None, raw=None):
        headers = dict(headers or {})
        if token == "":
            token = None
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = raw
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if form is not None:
            data = form
        async with self.session.request(
            method, self.url + path, data=data, headers=headers, allow_redirects=False
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def post(self, kind, data, *, scope="revocation.write revocation.admin", path="", headers=None, **members):
        return await self.call(
            "POST",
            f"/revocations{path}",
            token=self.world.caller(scope),
            body={"type": kind, "data": data, **members},
            headers=headers,
        )

    async def get(self, path, *, token="", headers=None):
        return await self.call("GET", path, token=token, headers=headers)

    def app_jobs(self):
        """Names of the jobs that the store knows."""
        return [key.removeprefix("job-") for key in self.world.store._all.keys if key.startswith("job-")]

    async def snapshot(self):
        return (await self.get("/revocations/snapshot")).list

    async def changes(self, cursor, *, wait=0):
        return await self.get(f"/revocations/changes?after={cursor}&wait={wait}")

    async def plan_b(self, since=0):
        return (await self.get(f"/revocations?from={since}")).json


class World:
    """Clock, keys, store, rules, and as many replicas as a test wants."""

    def __init__(self):
        self.clock = FakeClock(float(NOW))
        self.keys = FakeKeys(self.clock)
        self.key = PrivateKey.generate()
        self.standby = PrivateKey.generate()
        self.keys.held = [self.key, self.standby]
        self.other_keys = FakeKeys(self.clock, FOREIGN)
        self.store = FaultyStore(self.clock)
        self.rules = FakeRules()
        self.issuer = FakeIssuer(self)
        self.audit = []
        self.numbers = 0

    def claims(self, **changes):
        self.numbers += 1
        now = int(self.clock.now())
        claims = {
            "iss": ISSUER,
            "sub": "jdoe",
            "aud": "orders",
            "client_id": "basket",
            "azp": "basket",
            "realm": "/services",
            "iat": now,
            "exp": now + LIFETIME,
            "jti": f"token-{self.numbers}",
            "scope": "",
        }
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def token(self, *, key=None, header=None, **changes):
        changes = {"aud": ISSUER, **changes}
        return sign({"typ": "at+jwt", **(header or {})}, dump_json(self.claims(**changes)), key or self.key)

    def caller(self, scope="revocation.write", **changes):
        """A caller's token from a minute ago, so that a default cut-off hits it, and long enough alive."""
        return self.token(**{"sub": "operator", "client_id": "ops", "azp": "ops", "scope": scope, **changes})

    def judged(self, token):
        from tokenry.jose.encoding import parse_json_object
        from tokenry.jose.jws import split

        jws = split(token)
        claims = parse_json_object(jws.payload)
        return JudgedToken(
            iss=claims["iss"],
            jti=claims.get("jti"),
            kid=jws.header["kid"],
            iat=claims["iat"],
            claims=claims,
            signing_input=jws.signing_input.decode(),
        )

    def settings(self, **changes):
        values: dict[str, Any] = {
            "TOKENRY_ISSUER": ISSUER,
            "TOKENRY_STORE_URL": "sqlite:////nowhere/store.db",
            "TOKENRY_REVOCATION_HASHING_SALT": SALT,
            "TOKENRY_MAX_TOKEN_LIFETIME": str(LIFETIME),
            "TOKENRY_TRUSTED_ISSUERS": FOREIGN,
            "TOKENRY_REVOCABLE_CLAIMS": "team",
        }
        return Settings.from_environment({**values, **changes})

    @asynccontextmanager
    async def replica(self, *, ready=True, publishing=None, **changes):
        async def open_store():
            return self.store

        app = create_app(
            self.settings(**changes),
            clock=self.clock,
            open_store=open_store,
            keys=self.keys,
            other_keys=self.other_keys,
            rules=self.rules,
            fetcher=self.issuer,
            audit=lambda event, fields: self.audit.append({"event": event, **fields}),
            publishing=publishing,
        )
        async with serve(app, ["127.0.0.1:0"]) as server, aiohttp.ClientSession() as session:
            replica = Replica(self, app, server.url, session)
            if ready:
                while replica.feed.publication is None:
                    await replica.feed.read()
                    await asyncio.sleep(0)
                await replica.rules.refresh()
            yield replica
            app[HEALTH].drain()


@pytest.fixture
def world():
    return World()


@pytest.fixture
async def service(world):
    async with world.replica() as replica:
        yield replica
