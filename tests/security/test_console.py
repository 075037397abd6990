"""
The console under attack: a running process in front of running services, and the same with services that lie.

Between the console and each service stands a switch (`HttpFaults`), so that a service can be made to say anything. The
administration writes into a copy of the platform's registry; what is done there hurts nobody else.
"""

import itertools
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.security.test_generated import VALUES, changed, places
from tests.security.test_tokens import LEFT_OUT
from tests.security.test_transport import (
    CANARY,
    MALFORMED,
    half_a_body,
    many_half_open,
    post,
    silent,
    slow_body,
    slow_head,
    statuses,
)
from tests.support.attacked import MAX_GROWTH_BYTES, AttackedPlatform, canaries, given_away, raw_exchange
from tests.support.faulted import until
from tests.support.hostile_tokens import HOSTILE, hostile_tokens
from tests.support.http import call
from tests.support.http_faults import Exchanged, HttpFaults
from tests.support.processes import Process, free_port
from tests.support.visitor import FORM, Page, Visitor

pytestmark = pytest.mark.processes
ATTACKS_THE_PLATFORM = True

COOKIE = "tokenry-console"
PROXY = "127.0.0.5"
BEARER_FIELD = "X-Forwarded-Access-Token"
ALL_SCOPES = "audit.read registry.admin revocation.admin revocation.undo"
PAGES = ("/", "/revocations", "/propagation", "/validators", "/keys", "/clients", "/clients/services/demo", "/audit",
         "/inspect")  # fmt: skip
MARKUP = "\"'><zqx onzqx=1><script src=//zqx.example></script>{{7*7}}&lt;javascript:zqx"
JSON = {"Content-Type": "application/json"}
WITHIN_SECONDS = 60.0
SLOW = HealthCheck.too_slow
GENERATED = settings(deadline=None, suppress_health_check=[SLOW, HealthCheck.function_scoped_fixture])


@dataclass
class Console:
    """
    The running console.

    Attributes:
        platform: What stands behind it.
        name: Of its process.
        lines: The switch in front of each service.
        registry: Where the administration writes.
        visitors: Everybody who was there.
    """

    platform: AttackedPlatform
    name: str
    lines: dict[str, HttpFaults]
    registry: Path
    visitors: list[Visitor] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def address(self) -> tuple[str, int]:
        return self.platform.address(self.name)

    def visitor(self, *, source: str | None = None) -> Visitor:
        """Return a browser at an address from which nobody has come before, so that nobody has used up its logins."""
        number = next(self.numbers)
        made = Visitor(self.address, source=source or f"127.1.{number // 250}.{number % 250 + 1}")
        self.visitors.append(made)
        return made

    def token(self, scope: str = ALL_SCOPES, **claims) -> str:
        number = next(self.numbers)
        members = {"sub": f"person-{number}", "jti": f"console-{number}-{time.monotonic_ns()}", "scope": scope}
        token = self.platform.forge(now=int(time.time()) - 10).token(**{**members, **claims})
        self.platform.sent.add(token)
        return token

    def inside(self, scope: str = ALL_SCOPES, **claims) -> Visitor:
        """Return the browser of somebody who is logged in."""
        visitor = self.visitor()
        answer = visitor.log_in(self.token(scope, **claims))
        assert (answer.status, answer.field("location")) == (303, "/"), answer.words
        return visitor

    def state(self) -> tuple[dict[str, bytes], set[str]]:
        """Return the registry, and the ids of the revocations that are in force."""
        listed = call("GET", self.platform.url("revocation", "/revocations/snapshot")).json["entries"]
        files = {str(path): path.read_bytes() for path in self.registry.rglob("*.json")}
        return files, {each["id"] for each in listed}

    def mend(self) -> None:
        for line in self.lines.values():
            line.pass_()

    def process(self) -> Process:
        return self.platform.process(self.name)

    def raw(self, head: str, *, cookie: str = "", body: bytes = b"") -> bytes:
        """Send *head* (a request line and fields) as it is, and return the whole answer."""
        more = f"Host: x\r\nConnection: close\r\n{cookie}"
        more += f"Content-Length: {len(body)}\r\n" if body else ""
        answer, _ = raw_exchange(self.address, head.encode("latin-1") + more.encode("latin-1") + b"\r\n" + body)
        return answer


def start(platform: AttackedPlatform, name: str, module: str, environment: dict[str, str]) -> None:
    """Start a process that is watched as the others of the platform are."""
    url = platform._urls[name] = f"http://127.0.0.1:{free_port()}"
    common = {"TOKENRY_LISTEN_ADDRESS": url.removeprefix("http://"), "TOKENRY_ENVIRONMENT": "dev"}
    common["TOKENRY_ISSUER"] = platform._environment("issuer")["TOKENRY_ISSUER"]
    started = platform._processes.start(name, [platform.python, "-m", module], env=common | environment)
    platform._running[name] = started
    started.wait_until_http(url + "/readyz", seconds=60)


def stop(platform: AttackedPlatform, *names: str) -> None:
    for name in names:
        platform._running.pop(name).kill()
        del platform._urls[name]


@pytest.fixture(scope="module")
def services(platform: AttackedPlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The administration runs beside the platform. Returns the settings of a console in front of all of it."""
    registry = tmp_path_factory.mktemp("console") / "registry"
    shutil.copytree(platform.credentials, registry)
    environment = platform._environment("issuer")
    start(
        platform,
        "admin",
        "tokenry_admin",
        {
            "TOKENRY_REVOCATION_URL": platform.url("revocation", ""),
            "TOKENRY_ENVELOPE_KEY_FILE": environment["TOKENRY_ENVELOPE_KEY_FILE"],
            "TOKENRY_CREDENTIALS_URL": registry.as_uri() + "/",
            "TOKENRY_REQUESTS_PER_MINUTE": "1000000",
        },
    )
    yield {"registry": str(registry)}
    stop(platform, "admin")


@pytest.fixture(scope="module")
def console(platform: AttackedPlatform, services: dict[str, str]) -> Iterator[Console]:
    lines = {name: HttpFaults(platform.address(name)) for name in ("revocation", "tokeninfo", "admin")}
    urls = {name: f"http://127.0.0.1:{line.address[1]}" for name, line in lines.items()}
    start(
        platform,
        "console",
        "tokenry_console",
        {
            "TOKENRY_REVOCATION_URL": urls["revocation"],
            "TOKENRY_TOKENINFO_URL": urls["tokeninfo"],
            "TOKENRY_CONSOLE_ADMIN_URL": urls["admin"],
            "TOKENRY_CONSOLE_SCRAPE_INTERVAL": "1s",
            "TOKENRY_CONSOLE_CALL_DEADLINE": "3s",
            "TOKENRY_CONSOLE_MAX_SESSIONS": "10000",
        },
    )
    made = Console(platform, "console", lines, Path(services["registry"]))
    warm = made.inside()
    for path in PAGES * 3:
        assert warm.get(path).status == 200, path
    before = platform.resident_bytes("console")
    yield made
    metrics = call("GET", platform.url("console", "/metrics")).body.decode()
    assert not [line for line in metrics.splitlines() if 'status_code="500"' in line]
    assert "tokenry_unhandled_errors_total 0.0" in metrics
    assert not given_away(platform.sent, metrics)
    assert platform.resident_bytes("console") - before < MAX_GROWTH_BYTES
    stop(platform, "console")
    for line in lines.values():
        line.close()


@pytest.fixture(scope="module")
def proxied(platform: AttackedPlatform, services: dict[str, str]) -> Iterator[Console]:
    """A console behind a proxy at 127.0.0.5, which hands on tokens."""
    start(
        platform,
        "console-behind",
        "tokenry_console",
        {
            "TOKENRY_REVOCATION_URL": platform.url("revocation", ""),
            "TOKENRY_TOKENINFO_URL": platform.url("tokeninfo", ""),
            "TOKENRY_TRUSTED_PROXIES": f"{PROXY}/32",
            "TOKENRY_CONSOLE_BEARER_HEADER": BEARER_FIELD,
        },
    )
    yield Console(platform, "console-behind", {}, Path(services["registry"]))
    stop(platform, "console-behind")


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest, unharmed: None) -> Iterator[None]:
    """After each test: services say the truth again, and ids and secrets of sessions are searched for in all output."""
    yield
    for name in ("console", "proxied"):
        if name in request.fixturenames:
            console = request.getfixturevalue(name)
            console.mend()
            for visitor in console.visitors:
                console.platform.sent |= visitor.given
            console.visitors.clear()


class Markup(HTMLParser):
    """What a browser makes of a page: its elements, and what they load or lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        allowed_script = tag != "script" or (dict(attrs).get("src") or "").startswith("/static/")
        if "zqx" in tag or not allowed_script or tag in {"style", "iframe", "object", "embed", "base"}:
            self.faults.append(f"<{tag} {attrs}>")
        for name, value in attrs:
            if name.startswith("on") or name == "style" or "zqx" in name:
                self.faults.append(f"<{tag} {name}>")
            if name in {"href", "src", "action", "formaction"} and not re.match(r"/(?![/\\])|\?|#", value or ""):
                self.faults.append(f"<{tag} {name}={value!r}>")

    handle_startendtag = handle_starttag


def is_clean(page: Page) -> bool:
    found = Markup(page.text).faults
    assert not found, found[:3]
    return True


# --- what every answer has ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target"),
    [*(("GET", path) for path in PAGES), ("GET", "/login"), ("GET", "/nowhere"), ("PUT", "/keys"), ("POST", "/login"),
     ("POST", "/keys/rotate"), ("GET", "/?csv=issuing"), ("GET", "/audit/export"), ("GET", "/healthz")],
)  # fmt: skip
@pytest.mark.parametrize("known", [True, False])
def test_every_answer_forbids_frames_scripts_from_elsewhere_and_storing(console, method, target, known) -> None:
    visitor = console.inside() if known else console.visitor()
    page = visitor.send(method, target, form={"csrf": "x"} if method == "POST" else None)
    policy = page.field("content-security-policy") or ""
    assert "frame-ancestors 'none'" in policy
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert page.field("x-frame-options") == "DENY"
    assert page.field("x-content-type-options") == "nosniff"
    assert page.field("cache-control") == "no-store"
    assert page.field("cross-origin-opener-policy") == "same-origin"
    assert page.field("referrer-policy") == "same-origin"
    assert page.field("server") is None
    assert not [name for name, _ in page.fields if name.startswith("access-control-")]


def test_only_what_carries_its_content_in_its_name_may_be_kept_by_a_cache(console) -> None:
    found = set(re.findall(r'"(/static/[^"]+)"', console.visitor().get("/login").text))
    assert found
    for path in found:
        page = console.visitor().get(path)
        assert (page.status, page.field("cache-control")) == (200, "public, max-age=31536000, immutable")
        assert not page.every("set-cookie")


# --- D1 to D34: tokens at the login ------------------------------------------------------------------------------


def test_D1_to_D32_no_hostile_token_gets_anybody_in_and_all_are_refused_alike(console, platform) -> None:
    forge = platform.forge()
    attempts = {
        name: token
        for name, (token, _) in zip(HOSTILE, hostile_tokens(forge).values(), strict=True)
        if name not in LEFT_OUT and token == token.strip() and len(token) < 20_000
    }
    assert len(attempts) > 150
    said: dict[str, set[str]] = {}
    for name, token in attempts.items():
        platform.sent.add(token)
        visitor = console.visitor()
        page = visitor.log_in(token)
        assert page.status in {400, 403}, (name, page.status)  # 400: bytes that no form can carry
        assert COOKIE not in visitor.cookies, name
        if page.status == 403:
            said.setdefault(re.sub(r'value="[^"]{43}"', "", page.text), set()).add(name)
    assert len(said) == 1, [sorted(names)[:3] for names in said.values()]


def test_D34_a_revoked_token_gets_nobody_in_and_its_session_ends(console, platform) -> None:
    token = console.token()
    visitor = console.visitor()
    assert visitor.log_in(token).status == 303
    revoked = {"type": "TOKEN", "data": {"token": token}}
    answer = call("POST", platform.url("revocation", "/revocations"), document=revoked, bearer=platform.admin_bearer())
    assert answer.status == 201
    until(lambda: visitor.get("/revocations").status == 303, seconds=WITHIN_SECONDS, every=0.3)
    assert visitor.get("/inspect").field("location") == "/login?next=%2Finspect"
    until(lambda: console.visitor().log_in(token).status == 403, seconds=WITHIN_SECONDS, every=0.3)


def test_D20_a_session_ends_with_its_token(console) -> None:
    visitor = console.visitor()
    assert visitor.log_in(console.token(exp=int(time.time()) + 4)).status == 303
    until(lambda: visitor.get("/inspect").status == 303, seconds=WITHIN_SECONDS)


@pytest.mark.parametrize("scope", ["orders.read", "", "audit.reader", "audit.read2", "AUDIT.READ", "audit .read"])
def test_D70_a_token_without_the_scope_gets_nobody_in(console, scope) -> None:
    visitor = console.visitor()
    page = visitor.log_in(console.token(scope))
    assert (page.status, "does not allow to look" in page.words) == (403, True)
    assert visitor.get("/").status == 303


def test_D60_D61_a_token_in_a_header_field_or_in_the_query_is_no_login(console) -> None:
    token = console.token()
    visitor = console.visitor()
    for target, headers in (
        ("/", {"Authorization": f"Bearer {token}"}),
        ("/", {BEARER_FIELD: token}),
        (f"/?access_token={token}", {}),
        (f"/login?token={token}", {}),
        ("/", {"Cookie": f"{COOKIE}={token}"}),
        ("/", {"Authorization": b"Bearer \xff\xfe", "X-Forwarded-User": "admin", "X-Forwarded-For": "127.0.0.1"}),
    ):
        page = visitor.send("GET", target, headers=headers)
        assert page.status == (200 if target.startswith("/login") else 303), target
        assert not [each for each in page.every("set-cookie") if each.startswith(COOKIE)]
        assert token not in page.text


# --- sessions and their cookies ----------------------------------------------------------------------------------


def test_the_cookie_is_for_this_host_this_browser_and_no_script(console) -> None:
    visitor = console.visitor()
    answer = visitor.log_in(console.token())
    (cookie,) = [each for each in answer.every("set-cookie") if each.startswith(COOKIE)]
    value, *attributes = (part.strip() for part in cookie.removeprefix(f"{COOKIE}=").split(";"))
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]  # plain HTTP on loopback: no Secure
    assert re.fullmatch(r"[\w-]{43}", value)
    assert visitor.get("/keys").csrf != value
    assert not visitor.get("/keys").every("set-cookie")


def test_no_altered_and_no_invented_id_is_a_session(console) -> None:
    inside = console.inside()
    good = inside.cookies[COOKIE]
    flipped = [good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :] for at in range(len(good))]
    invented = ["", "0", "null", "None", good[:-1], good + "A", good * 2, good.swapcase(), "A" * 43, good + "%00",
                "../" + good, good[::-1], inside.get("/keys").csrf, "a" * 5000]  # fmt: skip
    stranger = console.visitor()
    for value in [*flipped, *invented]:
        stranger.cookies = {COOKIE: value}
        assert stranger.get("/inspect").status == 303, value
    assert inside.get("/inspect").status == 200


def test_an_id_that_was_planted_before_the_login_is_worth_nothing_after_it(console) -> None:
    mine = console.inside()
    planted = console.visitor()
    planted.cookies[COOKIE] = mine.cookies[COOKIE]  # the attacker's own, good session in the victim's browser
    token = console.token()
    assert planted.log_in(token).status == 303
    assert planted.cookies[COOKIE] != mine.cookies[COOKIE]
    assert mine.get("/inspect").status == 303  # nobody looks at the victim's session, and the planted one is over
    # Two cookies of one name, as a neighbouring host can make a browser send: one of the two, or none.
    other = console.inside()
    for pair in ((planted, other), (other, planted)):
        both = "; ".join(f"{COOKIE}={each.cookies[COOKIE]}" for each in pair)
        assert console.visitor().send("GET", "/inspect", headers={"Cookie": both}).status in {200, 303}


def test_whoever_logs_out_is_out_wherever_the_cookie_was_copied_to(console) -> None:
    inside, copy = console.inside(), console.visitor()
    copy.cookies = dict(inside.cookies)
    assert copy.get("/inspect").status == 200
    answer = inside.submit(inside.get("/inspect"), "/logout")
    assert (answer.status, answer.field("location")) == (303, "/login")
    assert copy.get("/inspect").status == 303
    assert copy.submit(console.inside().get("/inspect"), "/keys/rotate", typed="rotate").status == 303


def test_one_person_takes_no_ones_room(console) -> None:
    other = console.inside()
    token = console.token()
    held = []
    for _ in range(8):
        visitor = console.visitor()
        assert visitor.log_in(token).status == 303
        held.append(visitor)
    assert [each.get("/inspect").status for each in held] == [303] * 3 + [200] * 5
    assert other.get("/inspect").status == 200


def test_D67_guessing_is_slowed_down_whatever_address_it_claims_to_come_from(console) -> None:
    source = "127.2.0.1"
    visitor = console.visitor(source=source)
    answers = []
    for number in range(16):
        login = visitor.get("/login")
        claimed = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.0.0.{number}", "X-Real-IP": "10.1.1.1"}
        answers.append(visitor.submit(login, "/login", headers=claimed, token=f"guess-{number}").status)
    assert answers[:10] == [403] * 10
    assert 429 in answers[10:13]
    page = visitor.log_in(console.token())
    assert (page.status, "too many attempts" in page.words) == (429, True)  # the right one, too
    assert console.visitor().log_in(console.token()).status == 303  # another address is not concerned


# --- forms that others send --------------------------------------------------------------------------------------


def forms(console: Console, visitor: Visitor) -> dict[str, dict[str, str]]:
    """Return every form that changes something, filled in so that only what is tested stands in its way."""
    kid = next(path.stem for path in sorted(console.registry.glob("keys/*.json")))
    number = next(console.numbers)
    document = {"type": "CLAIM", "data": {"claims": {"sub": f"nobody-{number}"}}}
    bearer = console.platform.admin_bearer()
    made = call("POST", console.platform.url("revocation", "/revocations"), document=document, bearer=bearer).json
    page = visitor.submit(visitor.get("/revocations"), "/revocations/preview", kind="jti", jti=f"jti-{number}")
    draft = page.draft if 'name="draft"' in page.text else "none"
    return {
        "/keys/rotate": {"typed": "rotate"},
        f"/keys/{kid}/retire": {"typed": kid},
        "/clients/services/demo/disable": {"typed": "demo", "revoke": "yes"},
        "/clients/services/demo/enable": {"typed": "demo"},
        "/clients/services/demo/rotate-secret": {"typed": "demo"},
        f"/revocations/{made['id']}/undo": {"typed": "undo"},
        f"/revocations/{made['id']}/approve": {"typed": "approve"},
        "/revocations/confirm": {"draft": draft, "typed": "one token"},
        "/revocations/preview": {"kind": "jti", "jti": f"jti-{number}"},
        "/audit/verify": {},
        "/inspect": {"jti": "a"},
        "/logout": {},
    }


def test_no_form_without_the_secret_of_its_session_changes_anything(console) -> None:
    inside, other = console.inside(), console.inside()
    wanted = forms(console, inside)
    good, before = inside.get("/inspect").csrf, console.state()
    login = console.visitor().get("/login").csrf
    wrong = [None, "", "x", good[:-1], good + "a", good.swapcase(), other.get("/inspect").csrf, login, "é" * 43,
             inside.cookies[COOKIE], "\x00"]  # fmt: skip
    for path, form in wanted.items():
        for secret in wrong:
            page = inside.send("POST", path, form=form if secret is None else {**form, "csrf": secret})
            assert (page.status, "not one of this session" in page.words) == (403, True), (path, secret)
            assert good not in page.text
        twice = f"csrf={good}&csrf={good}&" + "&".join(f"{name}={quote(value)}" for name, value in form.items())
        assert inside.send("POST", path, body=twice.encode(), headers={"Content-Type": FORM}).status == 400
        assert inside.send("POST", f"{path}?csrf={good}", form=form).status == 403  # only the body counts
    assert console.state() == before
    assert inside.get("/inspect").status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
     {"Sec-Fetch-Site": ""}, {"Sec-Fetch-Site": b"\xff"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
     {"Origin": ""}, {"Origin": "http://["}, {"Origin": b"http://\xff"}, {"Origin": "http://127.0.0.1"},
     {"Origin": "http://127.0.0.1.evil.example"}, {"Origin": "http://evil.example", "Sec-Fetch-Mode": "navigate"},
     {"Origin": "http://evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}],
    ids=str,
)  # fmt: skip
def test_no_form_of_another_site_changes_anything_even_with_the_secret(console, headers) -> None:
    inside = console.inside()
    wanted = forms(console, inside)
    page, before = inside.get("/inspect"), console.state()
    for path, form in wanted.items():
        answer = inside.submit(page, path, headers=headers, **form)
        assert (answer.status, "another site" in answer.words) == (403, True), path
    visitor = console.visitor()
    login = visitor.get("/login")
    assert visitor.submit(login, "/login", headers=headers, token=console.token()).status == 403
    assert COOKIE not in visitor.cookies
    assert console.state() == before


def test_D70_whoever_may_only_look_changes_nothing_whatever_they_send(console) -> None:
    for scope in ("audit.read", "registry.read", "revocation.undo"):
        viewer = console.inside(scope)
        wanted = forms(console, viewer)
        if scope == "revocation.undo":
            wanted = {path: form for path, form in wanted.items() if not path.endswith("/undo")}
        before = console.state()
        for path, form in wanted.items():
            if path == "/logout":
                continue
            answer = viewer.submit(viewer.get("/inspect"), path, **form)
            assert answer.status in {200, 303, 403, 409, 422}, (path, answer.status)
        assert console.state() == before, scope


def test_a_change_that_a_service_refuses_is_said_to_be_refused(console) -> None:
    writer = console.inside("audit.read registry.read")
    assert writer.submit(writer.get("/inspect"), "/keys/rotate", typed="rotate").status == 303
    words = writer.get("/keys").words
    assert "registry.admin" in words
    assert "Made:" not in words


def test_D42_a_confirmation_that_is_sent_twenty_times_at_once_revokes_once(console) -> None:
    inside = console.inside()
    name = f"twice-{next(console.numbers)}"
    page = inside.submit(inside.get("/revocations"), "/revocations/preview", kind="claims", name0="sub", value0=name)
    before = console.state()[1]
    form = {"csrf": page.csrf, "draft": page.draft, "typed": name}
    turns = itertools.count()

    def one_after_another(target: str, ask: Callable[[], Exchanged]) -> Exchanged:
        """Let them arrive in several seconds: the cut-off that a service fills in is then another one each time."""
        if target == "/revocations":
            time.sleep(0.6 * (next(turns) % 5))
        return ask()

    console.lines["revocation"].change(one_after_another)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: inside.send("POST", "/revocations/confirm", form=form), range(20)))
    assert {each.status for each in answers} <= {303, 409}
    assert len({each.field("location") for each in answers if each.status == 303}) == 1
    (made,) = console.state()[1] - before
    assert inside.send("POST", "/revocations/confirm", form=form).status == 409
    records = call("GET", console.platform.url("revocation", "/audit?limit=1000"), bearer=console.token()).json
    about = [each["event"] for each in records["records"] if each.get("id") == made]
    assert [event for event in about if event != "revocation repeated"] == ["revocation accepted"]


def test_a_draft_of_somebody_else_or_of_another_session_is_worth_nothing(console) -> None:
    inside, other = console.inside(), console.inside()
    page = inside.submit(inside.get("/revocations"), "/revocations/preview", kind="claims", name0="sub", value0="x")
    before = console.state()
    answer = other.submit(other.get("/revocations"), "/revocations/confirm", draft=page.draft, typed="x")
    assert (answer.status, console.state()) == (409, before)


# --- D45 to D58: methods, bodies, what is written down -----------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
@pytest.mark.parametrize("target", ["/", "/login", "/keys/rotate", "/revocations/abc/undo", "/audit/export"])
def test_D45_D63_other_methods_are_refused_and_nothing_is_echoed(console, method, target) -> None:
    inside = console.inside()
    page = inside.send(method, target, headers={"X-Echo": CANARY})
    assert page.status in {400, 404, 405}, page.status  # 404: the target of CONNECT is no path
    if page.status == 405:
        assert set((page.field("allow") or "").split(",")) <= {"GET", "HEAD", "POST"}
    assert CANARY not in page.text
    assert inside.cookies[COOKIE] not in page.text


def test_D45_nothing_is_changed_by_a_get(console) -> None:
    inside = console.inside()
    wanted, before = forms(console, inside), console.state()
    secret = inside.get("/inspect").csrf
    for path, form in wanted.items():
        query = "&".join(f"{name}={quote(value)}" for name, value in {**form, "csrf": secret}.items())
        assert inside.get(f"{path}?{query}").status in {200, 404, 405}
    assert console.state() == before


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [("application/json", b'{"csrf":"a"}', 415), ("multipart/form-data; boundary=b", b"--b--", 415),
     ("text/plain", b"csrf=a", 415), ("", b"csrf=a", 415), (f"{FORM}; charset=bogus", b"csrf=a", 400),
     (f"{FORM}; charset=utf-16", b"c\0s\0", 400), (FORM, b"csrf=%ff", 400), (FORM, b"csrf=\xff", 400),
     (FORM, b"csrf=%ED%A0%80", 400), (FORM, b"&".join([b"a=b"] * 100_000), 413), (FORM, b"&".join([b"a=b"] * 65), 400),
     (FORM, b"a" * ((1 << 20) + 1), 413), (FORM, b"", 403), (FORM, b"=&=&=", 403)],
)  # fmt: skip
@pytest.mark.parametrize("target", ["/login", "/keys/rotate", "/revocations/preview"])
def test_D46_D47_D51_D52_a_body_that_is_no_form_is_refused(console, target, content_type, body, status) -> None:
    inside = console.inside()
    page = inside.send("POST", target, body=body, headers={"Content-Type": content_type})
    assert page.status == status
    assert (page.field("connection") == "close") is (status == 413)
    assert is_clean(page)


def test_D56_nothing_that_is_typed_writes_a_line_into_the_log(console) -> None:
    line = '\r\n{"event": "logged in", "level": "info", "zqx": "forged"}'
    inside = console.inside()
    console.visitor().log_in(f"token{line}", next=f"/a{line}")
    page = inside.get("/revocations")
    inside.submit(page, "/revocations/preview", kind="claims", name0=f"sub{line}", value0=f"x{line}", ticket=line)
    inside.submit(page, "/keys/rotate", typed=line, reason=line)
    inside.submit(page, "/inspect", jti=line)
    inside.get(f"/revocations?q={quote(line)}")
    inside.get(f"/clients/{quote(line, safe='')}/{quote(line, safe='')}", X_Request_Id="zqx forged", User_Agent="zqx")
    written = console.process().output()
    assert "zqx" not in written
    assert all(json.loads(each) for each in written.splitlines())


def test_D58_what_stands_in_a_query_is_in_no_log(console) -> None:
    inside = console.inside()
    secret = f"{CANARY}-{next(console.numbers)}"
    console.platform.sent.add(secret)  # `unharmed` looks for it everywhere
    for path in (*PAGES, "/login", "/nowhere", "/static/x"):
        inside.get(f"{path}?q={secret}&token={secret}&next=/{secret}&{secret}")
        console.visitor().get(f"{path}?q={secret}")


def test_no_page_has_the_token_the_id_of_the_session_or_what_another_person_has(console) -> None:
    token = console.token()
    inside, other = console.visitor(), console.inside()
    inside.log_in(token)
    secrets = [*canaries({token}), inside.cookies[COOKIE], *other.given]
    previewed = inside.submit(inside.get("/revocations"), "/revocations/preview", kind="token", token=token)
    shown = [*map(inside.get, PAGES), previewed, inside.get("/audit/export"), inside.submit(previewed, "/audit/verify")]
    console.lines["revocation"].answer(500, b'{"detail": "no"}')
    shown += [inside.get("/revocations"), inside.submit(previewed, "/revocations/confirm", draft="x", typed="y")]
    for page in shown:
        said = page.text + str(page.fields)
        assert not [secret[:6] for secret in secrets if secret in said], page.words[:80]


# --- paths, hosts, where one is sent -----------------------------------------------------------------------------


ODD_PATHS = (
    "/..", "/../etc/passwd", "/static/../app.py", "/static/..%2f..%2fapp.py", "/static/%2e%2e/%2e%2e/settings.py",
    "/static//etc/passwd", "/static/%00", "/static/vendor/uplot/", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
    "/\\..\\..", "/%5c..%5c", "/keys/%2e%2e/retire", "/revocations/%2e%2e", "/revocations/..%2fvalidators",
    "/revocations/a%2fundo", "/revocations/%2f..%2f..%2fkeys", "/clients/%2e%2e/%2e%2e", "/clients/..%2f..%2fkeys/x",
    "/clients/services/%2e%2e%2f%2e%2e%2fkeys", "/revocations/%ff", "/revocations/%ED%A0%80", "/revocations/\xff",
    "/\xff", "/?q=\xff", "/audit?before=\xff", "/clients?realm=%ff%00", "/propagation?id=..", "/propagation?id=%2e",
    "/propagation?id=a%2fundo", "/propagation?id=%00", "/%zz", "/%", "/;a=b", "/keys;/rotate", "/keys/", "/KEYS",
    "/?csv=../../x", "/audit?before=-1", f"/audit?before={'9' * 300}", "/audit?before=1e9", "/audit?before=%D9%A1",
    "/revocations?q=" + "%F0%9F%92%A9" * 300, "/" + "a" * 7000, "/" + "/" * 3000, "/?" + "a=b&" * 2000,
)  # fmt: skip


@pytest.mark.parametrize("path", ODD_PATHS, ids=lambda path: path[:40].encode("ascii", "backslashreplace").decode())
def test_an_odd_path_is_a_page_or_a_refusal_and_asks_no_service_for_more(console, path) -> None:
    inside = console.inside()
    cookie = f"Cookie: {COOKIE}={inside.cookies[COOKIE]}\r\n"
    began, before = time.monotonic(), console.state()
    for method in ("GET", "HEAD", "POST"):
        for who in ("", cookie):
            answer = console.raw(f"{method} {path} HTTP/1.1\r\n", cookie=who)
            assert statuses(answer)[0][0] in "234", (method, answer[:200])
            assert b"root:" not in answer
    asked = [each for line in console.lines.values() for each in line.since(began) if not each.startswith("/metrics")]
    # Names stay one segment: nothing below these paths was reached that the page does not ask for.
    assert not [each for each in asked if "/../" in each or "/undo" in each.partition("?")[0].replace("%2Fundo", "")]
    assert console.state() == before


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "/\n/evil",
     "///evil.example", "javascript:alert(1)", "data:text/html,x", "/..//evil.example", "/.//evil.example",
     "http:evil.example", "/%09/evil.example", "/%2f/evil.example", "/%5cevil.example", "/@evil.example",
     "evil.example", "/login?next=//evil.example", "/keys\r\nLocation: https://evil.example", "/a#//evil.example",
     " //evil.example", "\x00//evil.example", "/" + "a" * 600, "//evil.example%2f..", "/;@evil.example"],
)  # fmt: skip
def test_after_the_login_nobody_is_sent_to_another_site(console, target) -> None:
    visitor = console.visitor()
    login = visitor.get(f"/login?next={quote(target, safe='')}")
    assert is_clean(login)
    hidden = re.search(r'name="next" value="([^"]*)"', login.text)
    assert hidden
    for sent in (target, hidden[1]):
        answer = visitor.log_in(console.token(), next=sent)
        assert answer.status == 303
        place = answer.field("location") or ""
        # As a browser reads it: backslashes are slashes, tabs and line breaks are nothing.
        read = re.sub(r"[\t\r\n]", "", place.strip()).replace("\\", "/")
        assert urlsplit(urljoin("http://console.example/login", read)).netloc == "console.example", place
        assert len(answer.every("location")) == 1


@pytest.mark.parametrize("name", ["a%0d%0aX-Injected:%201", "a%0aX-Injected:1", "%E5%98%8A%E5%98%8DX-Injected:1"])
def test_a_name_in_a_path_writes_no_header_field(console, name) -> None:
    inside = console.inside()
    page = inside.get("/inspect")
    for path in (f"/clients/services/{name}/disable", f"/revocations/{name}/undo", f"/keys/{name}/retire"):
        answer = inside.submit(page, path, typed="no")
        assert answer.status in {303, 404}
        assert answer.field("x-injected") is None
    stranger = console.visitor().get(f"/revocations/{name}")
    assert (stranger.status, stranger.field("x-injected")) == (303, None)


def test_the_host_field_and_the_forwarded_ones_are_not_believed(console) -> None:
    inside = console.inside()
    cookie = f"Cookie: {COOKIE}={inside.cookies[COOKIE]}\r\n"
    for path in (*PAGES, "/login", "/nowhere", "/keys/rotate"):
        for who in ("", cookie):
            request = (
                f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\n{who}"
                "Forwarded: host=evil.example;proto=https\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /evil\r\n"
                "X-Original-URL: /keys\r\nX-HTTP-Method-Override: POST\r\nConnection: close\r\n\r\n"
            )
            answer, _ = raw_exchange(console.address, request.encode())
            assert b"evil" not in answer
            assert b"Strict-Transport-Security" not in answer


# --- D86: what is not HTTP, and what never ends ------------------------------------------------------------------


@pytest.mark.parametrize("name", MALFORMED)
def test_D86_what_is_no_request_is_refused_once_and_the_connection_closed(console, platform, name) -> None:
    make, allowed = MALFORMED[name]
    sent = make("console")
    raw = sent if isinstance(sent, bytes) else sent.encode("utf-8")
    platform.sent.add(CANARY)
    answer, _ = raw_exchange(console.address, raw)
    # A chunked body that is well-formed but for its size is a form without the secret.
    assert statuses(answer)[0] in (allowed | {"403"} if "401" in allowed else allowed), answer[:300]
    assert len(statuses(answer)) == 1, answer
    assert CANARY.encode() not in answer
    assert b"aiohttp" not in answer.lower()


def test_D86_who_is_slow_is_cut_off_and_disturbs_nobody(console, platform) -> None:
    attacks = (slow_body, slow_head, silent, half_a_body, many_half_open)
    inside = console.inside()
    with ThreadPoolExecutor(len(attacks)) as pool:
        outcomes = [pool.submit(attack, platform, "console") for attack in attacks]
        assert inside.get("/revocations").status == 200
        for outcome in outcomes:
            outcome.result()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip"])
def test_D86_F40_compressed_bodies_are_refused_unread(console, platform, coding) -> None:
    before = platform.resident_bytes("console")
    head = post("console", f"Content-Encoding: {coding}\r\nContent-Length: {30 << 20}\r\n")
    answer, _ = raw_exchange(console.address, head.encode() + bytes(1 << 20), half_close=True)
    assert statuses(answer) == ["415"], answer[:200]
    assert platform.resident_bytes("console") - before < 10 << 20


def test_pipelined_pages_are_each_for_the_session_of_their_own_cookie(console) -> None:
    people = [console.inside(sub=f"pipelined-{number}-zz") for number in range(3)]
    order = people * 5
    lines = [
        f"GET /inspect HTTP/1.1\r\nHost: x\r\nCookie: {COOKIE}={each.cookies[COOKIE]}\r\n" for each in order
    ]  # the last one closes
    sent = "\r\n".join(lines) + "Connection: close\r\n\r\n"
    answer, _ = raw_exchange(console.address, sent.encode())
    found = re.findall(rb"pipelined-(\d)-zz", answer)
    assert [int(each) for each in found] == [0, 1, 2] * 5


@pytest.mark.parametrize(
    "cookie",
    [b"=;=;" * 500, b"tokenry-console", b"tokenry-console=\xff\xfe", b'tokenry-console="\\377"', b"a=b; " * 1500,
     b"$Version=1; tokenry-console=x; $Path=/", b"tokenry-console=" + b"x" * 7000, b"\x80=\x80", b'tokenry-console="'],
    ids=lambda cookie: str(cookie[:24]),
)  # fmt: skip
def test_odd_cookies_are_nobodys(console, cookie) -> None:
    for method, target in (("GET", "/keys"), ("GET", "/login"), ("POST", "/login"), ("POST", "/keys/rotate")):
        form = {"csrf": "x", "token": "y"} if method == "POST" else None
        page = console.visitor().send(method, target, form=form, headers={"Cookie": cookie})
        assert page.status in {200, 303, 403}, (method, target, page.status)


# --- what services say -------------------------------------------------------------------------------------------


def spoilt(value: object, *, keep: frozenset[str] = frozenset(), name: str = "") -> object:
    """Return the JSON *value* with markup in every text but those of the members *keep*."""
    if isinstance(value, dict):
        return {key: spoilt(inner, keep=keep, name=key) for key, inner in value.items()}
    if isinstance(value, list):
        return [spoilt(inner, keep=keep, name=name) for inner in value]
    return MARKUP if isinstance(value, str) and name not in keep else value


def saying(change: Callable[[object], object]) -> Callable[[str, Callable[[], Exchanged]], Exchanged]:
    """Return what makes a switch answer with changed JSON, and with markup in the labels of metrics."""

    def answer(target: str, ask: Callable[[], Exchanged]) -> Exchanged:
        said = ask()
        if target.startswith("/metrics"):
            label = MARKUP.replace('"', '\\"').encode()
            return Exchanged(200, said.headers, re.sub(rb'="[^"]*"', b'="' + label + b'"', said.body, count=400))
        try:
            document = json.loads(said.body)
        except ValueError:
            return said
        return Exchanged(said.status, said.headers, json.dumps(change(document)).encode())

    return answer


@pytest.mark.parametrize("keep", [frozenset(), frozenset({"kind", "type", "status", "state", "id", "time", "event"})])
def test_names_reasons_and_versions_that_services_tell_stay_text(console, keep) -> None:
    inside = console.inside()
    page = inside.get("/revocations")
    for service in ("revocation", "admin"):
        console.lines[service].change(saying(lambda document: spoilt(document, keep=keep)))
    until(lambda: "zqx" in inside.get("/validators").text, seconds=WITHIN_SECONDS)
    shown = 0
    for path in (*PAGES, "/revocations/abc", "/propagation?id=abc", "/clients/a/b", f"/revocations/{quote(MARKUP)}"):
        got = inside.get(path)
        assert got.status in {200, 404}, (path, got.status)
        assert is_clean(got)
        shown += "zqx" in got.text
    assert shown > 5
    for path, form in (
        ("/revocations/preview", {"kind": "claims", "name0": "sub", "value0": "a"}),
        ("/inspect", {"jti": "a"}),
        ("/audit/verify", {}),
    ):
        assert is_clean(inside.submit(page, path, **form))
    for target in ("/audit?csv=audit", "/validators?csv=freshness", "/revocations?csv=timeline", "/audit/export"):
        got = inside.get(target)
        assert got.status == 200, target
        assert got.field(
            "content-disposition",
        ).startswith("attachment")
        assert not (got.field("content-type") or "").startswith("text/html")


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 503])
def test_words_of_a_refusal_stay_text(console, status) -> None:
    inside = console.inside()
    page = inside.submit(inside.get("/revocations"), "/revocations/preview", kind="jti", jti="a")
    body = json.dumps({"title": MARKUP, "detail": MARKUP, "error": MARKUP, "status": status}).encode()
    for service in ("revocation", "admin"):
        console.lines[service].answer(status, body, **JSON)
    pages = [*map(inside.get, PAGES), inside.submit(page, "/revocations/confirm", draft=page.draft, typed="one token"),
             inside.submit(page, "/revocations/preview", kind="jti", jti="a")]  # fmt: skip
    inside.submit(page, "/keys/rotate", typed="rotate")
    pages.append(inside.get("/keys"))
    assert all(is_clean(each) for each in pages)
    assert sum("zqx" in each.text for each in pages) > 4
    assert {each.status for each in pages} <= {200, 422, 502, status} - {500, 503}


def test_what_people_type_and_what_tokens_say_stays_text(console) -> None:
    inside = console.inside(sub=MARKUP, client_id=MARKUP)
    page = inside.get("/revocations")
    assert "zqx" in page.text
    form = dict.fromkeys(("name0", "value0", "jti", "kid", "issued_before", "reason", "ticket", "draft"), MARKUP)
    answers = [
        inside.get(f"{path}?q={quote(MARKUP)}&realm={quote(MARKUP)}&id={quote(MARKUP)}&{quote(MARKUP)}=1")
        for path in PAGES
    ]
    kinds = ("claims", "jti", "token", "key", "all", MARKUP)
    answers += [inside.submit(page, "/revocations/preview", **{**form, "kind": kind}) for kind in kinds]
    answers += [inside.submit(page, path, **form, typed=MARKUP) for path in ("/revocations/confirm", "/inspect")]
    name = quote(MARKUP.translate({ord("{"): None, ord("}"): None}), safe="")  # aiohttp takes no braces in a segment
    for path in ("/keys/rotate", f"/keys/{name}/retire", f"/clients/a/{name}/disable"):
        assert inside.submit(page, path, typed="x").status == 303
        answers.append(inside.get("/keys"))
    answers.append(console.visitor().get(f"/login?next=/{quote(MARKUP)}"))
    answers.append(inside.send("POST", "/login", form={"csrf": MARKUP, "token": MARKUP, "next": MARKUP}))
    assert all(is_clean(each) for each in answers)


def test_a_reason_and_a_ticket_with_markup_go_through_the_real_service_and_stay_text(console) -> None:
    inside = console.inside()
    page = inside.submit(inside.get("/revocations"), "/revocations/preview", kind="claims", name0="sub",
                         value0=f"zqx-{next(console.numbers)}", reason=MARKUP[:60], ticket=MARKUP[:60])  # fmt: skip
    word = re.search(r"Type <code>([^<]+)</code> to confirm", page.text)
    assert word, page.words
    answer = inside.submit(page, "/revocations/confirm", draft=page.draft, typed=word[1])
    assert answer.status == 303, answer.words
    made = (answer.field("location") or "").partition("id=")[2]
    for path in (f"/revocations/{made}", "/revocations", "/audit", "/propagation", "/"):
        got = inside.get(path)
        assert is_clean(got)
    assert "&lt;zqx onzqx=1&gt;" in inside.get(f"/revocations/{made}").text


def test_a_service_that_sends_the_token_elsewhere_is_not_followed(console, platform) -> None:
    inside, elsewhere = console.inside(), HttpFaults(platform.address("tokeninfo"))
    place = {"Location": f"http://127.0.0.1:{elsewhere.address[1]}/x"}
    try:
        for status in (301, 302, 303, 307, 308):
            for line in console.lines.values():
                line.answer(status, **place)
            for path in PAGES:
                page = inside.get(path)
                assert page.status in {200, 502}, path
                assert str(elsewhere.address[1]) not in page.text
            console.visitor().log_in(console.token())
        assert not elsewhere.requests
    finally:
        elsewhere.close()


def test_services_that_are_silent_or_drown_the_console_cost_a_part_of_a_page(console, platform) -> None:
    inside = console.inside()
    console.lines["admin"].answer(200, b'{"keys": [' + b'{"kid": "a"},' * 900_000 + b"{}]}", **JSON)
    before = platform.resident_bytes("console")
    assert "too long" in inside.get("/keys").words
    assert platform.resident_bytes("console") - before < MAX_GROWTH_BYTES

    def silent_for_a_while(_target: str, ask: Callable[[], Exchanged]) -> Exchanged:
        time.sleep(8)  # beyond the deadline of a call
        return ask()

    console.lines["revocation"].change(silent_for_a_while)
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(inside.get, ["/validators", "/revocations", "/audit", "/"]))
    assert [each.status for each in pages] == [200] * 4
    assert all("cannot be reached" in each.words for each in pages)
    assert inside.get("/inspect").status == 200


def endless_audit(*, slices: int) -> Callable[[str, Callable[[], Exchanged]], Exchanged]:
    """Return what makes a switch answer so many slices of an audit log, and then that the service is away."""
    asked = itertools.count()

    def answer(target: str, ask: Callable[[], Exchanged]) -> Exchanged:
        if not target.startswith("/audit"):
            return ask()
        number = next(asked)
        if number >= slices:
            return Exchanged(503, JSON, b'{"detail": "away"}')
        first = 10**6 - 1000 * number
        said = [
            {"event": "x", "seq": first - each, "time": "2026-11-21T05:58:00Z", "reason": "y" * 200}
            for each in range(1000)
        ]
        return Exchanged(200, JSON, json.dumps({"records": said}).encode())

    return answer


def test_an_export_that_breaks_off_is_not_taken_for_a_whole_one(console) -> None:
    """A service that goes away in the middle must not leave a log that ends, as it seems, where it should."""
    inside = console.inside()
    console.lines["revocation"].change(endless_audit(slices=1))
    cookie = f"Cookie: {COOKIE}={inside.cookies[COOKIE]}\r\n"
    for version in ("1.1", "1.0"):
        console.lines["revocation"].change(endless_audit(slices=1))
        answer = console.raw(f"GET /audit/export HTTP/{version}\r\n", cookie=cookie)
        assert statuses(answer) in (["200"], [])  # one answer, with nothing of another one in it; or a reset
        assert b"<html" not in answer
        assert not answer.endswith(b"0\r\n\r\n")  # the last chunk is missing, so every client knows


def test_whoever_goes_away_in_the_middle_of_an_export_is_no_fault_of_ours(console) -> None:
    inside = console.inside()
    console.lines["revocation"].change(endless_audit(slices=1000))
    head = f"GET /audit/export HTTP/1.1\r\nHost: x\r\nCookie: {COOKIE}={inside.cookies[COOKIE]}\r\n\r\n"
    for _ in range(3):
        with socket.create_connection(console.address, timeout=20) as wire:
            wire.sendall(head.encode())
            assert wire.recv(100).startswith(b"HTTP/1.1 200")
    assert inside.get("/inspect").status == 200  # and `unharmed` reads the log


# --- generated ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def somebody(console: Console) -> Visitor:
    """Somebody with all rights, for what is generated."""
    return console.inside()


FIELDS = ("kind", "name0", "value0", "name1", "value1", "jti", "kid", "token", "issued_before", "reason", "ticket",
          "draft", "typed", "revoke", "next", "csv", "q", "realm", "id", "before")  # fmt: skip
WORDS = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.sampled_from([MARKUP, "claims", "jti", "key", "sub", "realm", "\x00", "a\r\nb", "9" * 400, "é" * 200, "..", "/",
                     "2026-11-21T05:58:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "-0", "NaN",
                     "24:00", "2026-W01-1", "20261121", "\u202e", "a" * 4000, "eyJhbGciOiJub25lIn0.e30."]),
    st.datetimes().map(str),
)  # fmt: skip


@settings(GENERATED, max_examples=80)
@given(
    path=st.sampled_from(["/revocations/preview", "/revocations/confirm", "/revocations/abc/undo", "/keys/abc/retire",
                          "/revocations/abc/approve", "/clients/a/b/enable", "/inspect", "/login"]),
    form=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), WORDS, max_size=7),
)  # fmt: skip
def test_no_generated_form_breaks_a_page(console, somebody, path, form) -> None:
    visitor = console.visitor() if path == "/login" else somebody
    page = visitor.submit(visitor.get("/login" if path == "/login" else "/inspect"), path, **form)
    assert page.status in {200, 303, 400, 403, 404, 409, 422}, page.status
    assert is_clean(page)


@settings(GENERATED, max_examples=80)
@given(
    names=st.lists(WORDS | st.sampled_from(["revocations", "keys", "clients", "static", "audit"]), max_size=4),
    query=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), WORDS, max_size=4),
    is_encoded=st.booleans(),
)
def test_no_generated_path_breaks_a_page(console, somebody, names, query, is_encoded) -> None:
    def said(text: str) -> str:
        encoded = quote(text, safe="", errors="surrogateescape")
        return encoded if is_encoded else re.sub(r"[^!-~]", "", text)

    target = "/" + "/".join(map(said, names)) + "?" + "&".join(f"{said(k)}={said(v)}" for k, v in query.items())
    for visitor in (somebody, console.visitor()):
        page = visitor.get(target[:7000])
        assert page.status in {200, 303, 400, 404, 405, 422}, (target, page.status)
        if (page.field("content-type") or "").startswith("text/html"):
            assert is_clean(page)


@pytest.fixture(scope="module")
def truth(console: Console) -> dict[str, dict[str, dict]]:
    """What the services say when they are asked for the parts of the pages, by service and target."""
    bearer = console.token()
    targets = {
        "revocation": ["/validators", "/revocations/snapshot?created_at=true", "/audit?limit=500", "/audit?limit=100"],
        "admin": ["/keys", "/clients?limit=1000", "/clients/services/demo"],
    }
    return {
        service: {
            target: {
                name: value[:3] if isinstance(value, list) else value
                for name, value in call("GET", console.platform.url(service, target), bearer=bearer).json.items()
            }
            for target in asked
        }
        for service, asked in targets.items()
    }


@settings(GENERATED, max_examples=80)
@given(data=st.data(), path=st.sampled_from([*PAGES, "/audit?csv=audit", "/validators?csv=freshness"]))
def test_no_generated_answer_of_a_service_breaks_a_page(console, somebody, truth, data, path) -> None:
    """Any JSON value in any place of what services say."""
    said: dict[str, bytes] = {}
    for targets in truth.values():
        for target, document in targets.items():
            where = data.draw(st.sampled_from(list(places(document))))
            remove = bool(where) and data.draw(st.booleans())
            said[target] = json.dumps(changed(document, where, data.draw(VALUES), remove=remove)).encode()
    for line in (console.lines["revocation"], console.lines["admin"]):
        line.change(lambda target, ask: Exchanged(200, JSON, said[target]) if target in said else ask())
    page = somebody.get(path)
    console.mend()
    assert page.status in {200, 404, 502}, page.words
    if (page.field("content-type") or "").startswith("text/html"):
        assert is_clean(page)


# --- behind a proxy ----------------------------------------------------------------------------------------------


def test_behind_a_proxy_only_the_proxy_brings_tokens_and_each_time(proxied) -> None:
    token, other = proxied.token(), proxied.token()
    proxy = proxied.visitor(source=PROXY)
    page = proxy.send("GET", "/inspect", headers={BEARER_FIELD: token})
    assert page.status == 200
    (cookie,) = page.every("set-cookie")
    assert cookie.startswith("__Host-tokenry-console=")
    assert sorted(part.strip() for part in cookie.split(";")[1:]) == ["HttpOnly", "Path=/", "SameSite=Strict", "Secure"]
    stranger = proxied.visitor()
    for headers in (
        {BEARER_FIELD: token},
        {BEARER_FIELD: token, "X-Forwarded-For": PROXY},
        {BEARER_FIELD: token, "Forwarded": f"for={PROXY}"},
    ):
        stranger.cookies = dict(proxy.cookies)
        assert stranger.send("GET", "/inspect", headers=headers).status == 403
    wrong = ("", "x", f"{token}, {token}", token + "\u00e9", b"\xff")
    for headers in ({}, *({BEARER_FIELD: value} for value in wrong), {"Authorization": f"Bearer {token}"}):
        assert proxy.send("GET", "/inspect", headers=headers).status == 403, headers
    twice = f"GET /inspect HTTP/1.1\r\n{BEARER_FIELD}: {token}\r\n{BEARER_FIELD}: {other}\r\n"
    assert statuses(proxied.raw(twice)) == ["403"]
    # The cookie of one person with the token of another: never the one's session.
    answer = proxy.send("POST", "/logout", form={"csrf": page.csrf}, headers={BEARER_FIELD: other})
    assert answer.status == 403


def test_behind_a_proxy_nobody_pastes_a_token(proxied) -> None:
    proxy = proxied.visitor(source=PROXY)
    assert 'name="token"' not in proxy.get("/login").text
    answer = proxy.send("POST", "/login", form={"csrf": "x", "token": proxied.token()})
    assert (answer.status, answer.every("set-cookie")) == (303, [])
