"""The console over real sockets, with every service around it a fake."""

import asyncio
import html
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import aiohttp
import pytest
from yarl import URL

from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.serving.outgoing import Answer, TimedOut, Unreachable
from tokenry.serving.server import serve
from tokenry.testing.clock import FakeClock
from tokenry_console.app import SCRAPER, create_app
from tokenry_console.settings import Settings

NOW = 1_800_000_000
ISSUER = "https://issuer.example"
TOKENINFO = "https://tokeninfo.example"
REVOCATION = "https://revocation.example"
ADMIN = "https://admin.example"
ALL_SCOPES = ("audit.read", "registry.admin", "revocation.admin", "revocation.undo")


def bearer(name="j.doe", scopes=ALL_SCOPES):
    """A token of the fake platform: what it says is written into it, so that a test can look for it everywhere."""
    return f"token-of-{name}~{'+'.join(scopes)}~s1gnature"


class Platform:
    """
    All services as one fake: answers by path, remembers what was asked, and can be away, or say anything.

    Attributes:
        asked: Every call: method, URL, header fields and body.
        away: Services that do not answer, by base URL; and how.
        gate: Closed, no service answers until it is opened.
        answers: What to say in place of the usual, by method and path.
    """

    def __init__(self):
        self.asked = []
        self.away = {}
        self.answers = {}
        self.expires_in = 3600
        self.gate = asyncio.Event()
        self.gate.set()
        self.refused = set()
        self.validators = [validator("orders-1"), validator("orders-2", enforced_at=NOW - 98.5)]
        self.records = [record()]
        self.entries = [entry()]
        self.keys = [key("2026-a", "active"), key("2026-b", "published")]
        self.clients = [client("basket"), client("old", grant_types=["password"], enabled=False)]
        self.said_of_revocations = {}
        self.said_of_previews = {}
        self.metrics = METRICS

    async def call(self, method, url, *, headers, body=None, deadline_seconds, max_bytes):
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}"
        assert 0 < deadline_seconds <= 185
        await self.gate.wait()
        self.asked.append((method, url, dict(headers), body))
        if base in self.away:
            raise self.away[base]
        if (method, parts.path) in self.answers:
            if isinstance(self.answers[method, parts.path], Exception):
                raise self.answers[method, parts.path]
            status, said = self.answers[method, parts.path]
            return Answer(status=status, body=said if isinstance(said, bytes) else dump_json(said))
        if parts.path == "/metrics":
            return Answer(status=200, body=self.metrics)
        if parts.path == "/.well-known/jwks.json":
            return ok({"keys": [{"kid": each["kid"]} for each in self.keys]})
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.refused or not token.startswith("token-of-"):
            return ok({"error": "invalid_token", "error_description": "Access Token not valid"}, 401)
        scopes = token.split("~")[-2].split("+") if "~" in token else []
        return self._answer(method, base, unquote(parts.path), dict(parse_qsl(parts.query)), body, token, scopes)

    def _answer(self, method, base, path, query, body, token, scopes):
        if base == TOKENINFO:
            name = token.removeprefix("token-of-").partition("~")[0]
            return ok({"uid": name, "realm": "/employees", "scope": scopes, "iss": ISSUER, "client_id": "cli",
                       "expires_in": self.expires_in, "access_token": token})  # fmt: skip
        return self._read(path) if method == "GET" else self._change(path, query, body)

    def _read(self, path):
        fixed = {
            "/validators": {"now": NOW, "replicas": 1, "validators": self.validators},
            "/revocations/snapshot": {"cursor": "c", "entries": self.entries},
            "/audit": {"records": self.records, "head": {"instance": "r-1", "seq": 1, "hash": "ab" * 32}},
            "/keys": {"keys": self.keys, "next_rotation_at": NOW + 7200},
            "/clients": {"clients": self.clients},
        }
        if path in fixed:
            return ok(fixed[path])
        if path.startswith("/clients/"):
            return ok(next(each for each in self.clients if path.endswith(each["client_id"])))
        if path.startswith("/revocations/"):
            return ok(about(path.removeprefix("/revocations/"), **self.said_of_revocations))
        return ok({"title": "Not Found", "status": 404, "detail": "there is nothing here"}, 404)

    def _change(self, path, query, body):
        if path == "/revocations" and query.get("dry_run") == "true":
            return ok({"dry_run": True, "type": parse_json_object(body)["type"], "live_tokens": 1312, "clients": 1,
                       "all_live_tokens": 50_000, "as_of": NOW - 7, "complete": True, "needs_second_person": False,
                       "hits_caller": False, "issued_before": NOW, "in_force_until": NOW + 3700,
                       "horizon": [[NOW + 300, 1000], [NOW + 3000, 312]], **self.said_of_previews})  # fmt: skip
        if path == "/revocations":
            return ok({"id": "rev-new", "type": "CLAIM", "revoked_at": NOW, "in_force_until": NOW + 3700}, 201)
        return ok({"id": "done", "kid": "2026-c", "activate_at": NOW + 3600}, 201)

    def posted(self, base=REVOCATION):
        """Return path, query and JSON of everything that would have changed something at a service."""
        return [
            (unquote(urlsplit(url).path), dict(parse_qsl(urlsplit(url).query)), parse_json_object(body))
            for method, url, _, body in self.asked
            if method == "POST" and url.startswith(base) and "dry_run" not in url
        ]


def ok(members, status=200):
    return Answer(status=status, body=dump_json(members))


def validator(name, **changes):
    return {"name": name, "version": "1.4.0", "last_poll": NOW - 4.0, "applied_as_of": NOW - 5.0, "lag": 5.0,
            "list_age": 4.5, "reported_at": NOW - 6.0, "verified": True, **changes}  # fmt: skip


def record(**changes):
    return {"event": "revocation accepted", "instance": "r-1", "seq": 1, "time": "2027-01-15T07:58:20.000Z",
            "actor": {"iss": ISSUER, "sub": "j.doe", "client_id": "cli"}, "id": "rev-1", "type": "CLAIM",
            "names": ["sub"], "reason": "leak", "ticket": "SEC-481", "previous": "0" * 64, "hash": "ab" * 32,
            **changes}  # fmt: skip


def entry(**changes):
    return {"id": "rev-1", "kind": "claims", "fingerprint": "AAAA", "salt": "s", "names": ["sub"],
            "issued_before": NOW - 100, "in_force_until": NOW + 3600, "created_at": NOW - 100.0, **changes}  # fmt: skip


def about(name, **changes):
    return {"id": name, "type": "CLAIM", "revoked_at": NOW - 100, "in_force_until": NOW + 3600, "in_force": True,
            "propagated_by": NOW - 69, "issued_before": NOW - 100, "names": ["sub"], "by": {"sub": "j.doe"},
            "approved_by": None, "rule": None, "reason": "leak", "ticket": "SEC-481", "undone": None, "denied": 1284,
            **changes}  # fmt: skip


def key(kid, state, **changes):
    return {"kid": kid, "use": "token", "alg": "ES256", "custody": "file", "state": state, "publish_at": NOW - 9000,
            "activate_at": NOW - 5000, "retire_at": NOW + 9000, "removable_at": NOW + 13_000, **changes}  # fmt: skip


def client(name, **changes):
    return {"realm": "services", "client_id": name, "enabled": True, "scopes": ["orders.read"],
            "grant_types": ["client_credentials"],
            "secrets": [{"created_at": NOW - 86_400, "expires_at": None}], **changes}  # fmt: skip


METRICS = f"""\
# HELP tokenry_ready x
# TYPE tokenry_ready gauge
tokenry_ready 1.0
tokenry_build_info{{service="tokeninfo",version="1.4.0"}} 1.0
tokenry_clock_timestamp_seconds {NOW}
tokenry_validations_total{{result="ok"}} 100.0
tokenry_validations_total{{result="revoked"}} 3.0
tokenry_validation_duration_seconds_bucket{{le="0.000025"}} 90.0
tokenry_validation_duration_seconds_bucket{{le="0.0005"}} 100.0
tokenry_validation_duration_seconds_bucket{{le="+Inf"}} 103.0
tokenry_tokens_issued_total{{grant_type="client_credentials",profile="rfc9068"}} 7.0
tokenry_jwks_last_success_timestamp_seconds {NOW - 20}
tokenry_revocation_list_age_seconds 4.0
http_server_request_duration_seconds_count{{http_route="/auth",http_response_status_code="503"}} 0
""".encode()


@dataclass
class Reply:
    status: int
    headers: dict
    text: str
    cookies: dict = field(default_factory=dict)

    @property
    def csrf(self):
        return re.search(r'name="csrf" value="([^"]+)"', self.text)[1]

    @property
    def words(self):
        """What a reader sees, without markup."""
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", self.text)).split())


class Browser:
    """Keeps cookies as a browser does, and sends forms from the page that it is on."""

    def __init__(self, session, url):
        self.url = url
        self.cookies = {}
        self._session = session
        self.page = None

    async def send(self, method, path, *, form=None, headers=None):
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **(headers or {})}
        data = None
        if form is not None:
            data = urlencode(form)
            sent |= {"Content-Type": "application/x-www-form-urlencoded"}
        async with self._session.request(
            method, URL(self.url + path, encoded=True), data=data, headers=sent, allow_redirects=False
        ) as got:
            reply = Reply(got.status, dict(got.headers), (await got.read()).decode())
            for morsel in got.cookies.values():
                reply.cookies[morsel.key] = morsel
                if morsel["max-age"] == "0":
                    self.cookies.pop(morsel.key, None)
                else:
                    self.cookies[morsel.key] = morsel.value
        self.page = reply
        return reply

    async def get(self, path, **headers):
        return await self.send("GET", path, headers=headers)

    async def submit(self, path, *, csrf=None, headers=None, **form):
        """Send a form of the page that one is on."""
        token = self.page.csrf if csrf is None else csrf
        reply = await self.send("POST", path, form={"csrf": token, **form}, headers=headers)
        return await self.get(reply.headers["Location"]) if reply.status == 303 else reply

    async def log_in(self, token=None, **form):
        await self.get("/login")
        return await self.submit("/login", token=token or bearer(), **form)


@dataclass
class Console:
    """
    A console that runs.

    Attributes:
        platform: What it asks.
        clock: Its clock.
        browser: One that is not logged in.
        another: Makes another one.
    """

    platform: Platform
    clock: FakeClock
    browser: Browser
    another: object
    app: object

    async def scrape(self, *, rounds=1, every=5.0):
        for _ in range(rounds):
            await self.app[SCRAPER].once()
            self.clock.advance(every)


def settings(**changes):
    return Settings(
        **{
            "issuer": ISSUER,
            "tokeninfo_url": TOKENINFO,
            "revocation_url": REVOCATION,
            "admin_url": ADMIN,
            "scrape_interval": 60.0,  # the tests scrape by hand
            "drain_seconds": 0.0,
            **changes,
        }
    )


@pytest.fixture
def run(request):
    """Runs a console with other settings: `async with run(admin_url=None) as console`."""

    @asynccontextmanager
    async def running(platform=None, **changes):
        clock, numbers = FakeClock(NOW), count()
        platform = platform or Platform()
        app = create_app(
            settings(**changes),
            clock=clock,
            calls=platform,
            random=lambda: f"random-{next(numbers):040d}",
            patience=0.2,
        )
        connector = aiohttp.TCPConnector(limit=20)
        async with (
            serve(app, ["127.0.0.1:0"]) as server,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=connector) as session,
        ):
            yield Console(platform, clock, Browser(session, server.url), lambda: Browser(session, server.url), app)

    return running


@pytest.fixture
async def console(run):
    async with run() as running:
        yield running


@pytest.fixture
async def inside(console):
    """A console with somebody logged in who may do everything."""
    await console.browser.log_in()
    assert console.browser.page.status == 200, console.browser.page.text
    return console


__all__ = ["ADMIN", "ISSUER", "NOW", "REVOCATION", "TOKENINFO", "TimedOut", "Unreachable"]
