"""Token info over real sockets, with everything around it a fake."""

import asyncio
from base64 import b64encode
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from tests.support.access_tokens import ISSUER, KEYS, LIFETIME, NOW, token
from tokenry.jose.encoding import dump_json
from tokenry.serving.keys import METRICS
from tokenry.serving.outgoing import Answer
from tokenry.serving.quick import QUICK
from tokenry.serving.server import serve
from tokenry.testing.clock import FakeClock
from tokenry.testing.revocations import RevocationSimulator
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry.validation.snapshots import Snapshot
from tokenry_tokeninfo.app import create_app
from tokenry_tokeninfo.settings import Settings

INTROSPECT = "token.introspect"


class Held:
    """A source that holds what a test puts there."""

    def __init__(self, snapshot=None):
        self.held = snapshot
        self.refetched = []

    def start(self):
        pass

    def stop(self):
        pass

    def snapshot(self):
        return self.held

    def request_refetch(self, issuer):
        pass  # whoever answers at once leaves the waiting to the ordinary way

    def refetch(self, issuer):
        self.refetched.append(issuer)

    async def arefetch(self, issuer):
        self.refetched.append(issuer)


class Calls:
    """The other services: answers with what `handle` returns or raises, and remembers what was asked."""

    def __init__(self):
        self.asked = []
        self.handle = lambda _call: Answer(status=500, body=b"")

    async def call(self, method, url, *, headers, body=None, deadline_seconds):
        call = {
            "method": method,
            "url": url,
            "headers": dict(headers),
            "form": {name: values[0] for name, values in parse_qs((body or b"").decode()).items()},
            "deadline": deadline_seconds,
        }
        self.asked.append(call)
        answer = self.handle(call)
        return await answer if hasattr(answer, "__await__") else answer


@dataclass
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        import json

        return json.loads(self.body)


@dataclass
class Service:
    """The running service and its surroundings."""

    clock: object
    keys: Held
    revocations: Held
    simulator: RevocationSimulator
    calls: Calls
    app: object = None
    session: aiohttp.ClientSession = None
    address: str = ""
    headers: dict = field(default_factory=dict)

    async def ask(self, method, path, **more):
        async with self.session.request(method, path, **more) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def info(self, access_token, **more):
        return await self.ask("GET", "/oauth2/tokeninfo", headers=bearer(access_token), **more)

    async def introspect(self, access_token, *, headers=None, **form):
        caller = headers if headers is not None else bearer(introspector())
        return await self.ask("POST", "/oauth2/introspect", headers=caller, data={"token": access_token, **form})

    def metric(self, name, **labels):
        return self.app[METRICS].registry.get_sample_value(name, labels or None)

    def renew_list(self):
        self.revocations.held = self.simulator.snapshot()


def bearer(access_token):
    return {"Authorization": f"Bearer {access_token}"}


def basic(client_id, secret):
    return {"Authorization": "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()}


def introspector(**changes):
    return token(
        **{
            "sub": "gateway",
            "client_id": "gateway",
            "azp": "gateway",
            "aud": ISSUER,
            "scope": INTROSPECT,
            "jti": "of-the-caller",
        }
        | changes
    )


def issued(**changes):
    """The issuer's answer to a client that has the scope."""
    body = {"access_token": introspector(**changes), "token_type": "Bearer", "expires_in": 3600, "scope": INTROSPECT}
    return Answer(status=200, body=dump_json(body))


@pytest.fixture
def clock():
    """A clock that stands at the moment at which the tests' tokens are issued."""
    return FakeClock(start=NOW)


@pytest.fixture
def start(clock):
    """A function that runs the service with the given settings."""

    @asynccontextmanager
    async def run(*, trusted=None, **settings):
        simulator = RevocationSimulator(clock=clock, max_token_lifetime=LIFETIME)
        keys = Held(Snapshot(value=KEYS, as_of=clock.now(), age_at_request=0, requested_at=clock.monotonic()))
        service = Service(clock, keys, Held(simulator.snapshot()), simulator, Calls())
        options = Settings(issuer=ISSUER, **settings)
        policy = ValidationPolicy(
            issuers=(trusted or TrustedIssuer(issuer=ISSUER, max_token_lifetime=LIFETIME),),
            audience=ANY_AUDIENCE,
            list_warn_age=options.list_warn_age,
            list_refuse_age=options.list_refuse_age,
        )
        validation = TokenValidator.from_sources(policy, keys=keys, revocations=service.revocations, clock=clock)
        service.app = create_app(
            options,
            clock=clock,
            validation=validation,
            keys=keys,
            revocations=service.revocations,
            calls=service.calls,
        )
        async with serve(service.app, ["127.0.0.1:0"]) as server, aiohttp.ClientSession(server.url) as session:
            service.session, service.address = session, server.addresses[0]
            yield service

    return run


@pytest.fixture
async def service(start):
    """The service with its defaults."""
    async with start() as running:
        yield running


class Caller(asyncio.Transport):
    """A connection from a stated address."""

    def get_extra_info(self, name, default=None):
        return ("192.0.2.7", 1234) if name == "peername" else default


CALLER = Caller()


def answered_at_once(service, access_token, *, path="/oauth2/tokeninfo", method="GET", **headers):
    """Return what the connection would write, or None for what goes the ordinary way."""
    fields = CIMultiDict(bearer(access_token) | headers)
    return service.app[QUICK](method, path, CIMultiDictProxy(fields), CALLER, waited=True)
