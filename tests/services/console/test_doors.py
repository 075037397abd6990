"""Logging in and out, sessions, and forms that somebody else's page sends."""

import base64
import json

import pytest

from tests.services.console.conftest import ISSUER, NOW, REVOCATION, TOKENINFO, bearer
from tokenry.errors import ConfigurationError
from tokenry.secret import Secret
from tokenry.serving.outgoing import Unreachable
from tokenry_console.login import local_path
from tokenry_console.sessions import MAX_OF_ONE, Forged, Person, Sessions, TooManySessions
from tokenry_console.settings import Settings

PAGES = ["/", "/revocations", "/propagation", "/validators", "/keys", "/clients", "/audit", "/inspect"]


# --- nobody is in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/revocations/x", "/clients/a/b", "/audit/export"])
async def test_whoever_is_not_logged_in_is_sent_to_the_login_page_and_nothing_is_asked(console, path):
    reply = await console.browser.get(path)
    assert (reply.status, reply.headers["Location"].partition("?")[0]) == (303, "/login")
    assert not [each for each in console.platform.asked if not each[1].endswith("/metrics")]


@pytest.mark.parametrize(
    "path",
    ["/logout", "/revocations/preview", "/revocations/confirm", "/revocations/a/undo", "/revocations/a/approve",
     "/keys/rotate", "/keys/a/retire", "/clients/r/c/disable", "/audit/verify", "/inspect"],
)  # fmt: skip
async def test_whoever_is_not_logged_in_changes_nothing(console, path):
    reply = await console.browser.send("POST", path, form={"csrf": "x", "typed": "rotate"})
    assert (reply.status, reply.headers["Location"]) == (303, "/login")
    assert not console.platform.posted("https://")


async def test_a_page_that_refreshes_itself_is_told_that_nobody_is_in(console):
    assert (await console.browser.get("/", **{"X-Tokenry-Live": "1"})).status == 401


async def test_one_logs_in_with_a_token_and_is_back_where_one_wanted_to_go(console):
    there = (await console.browser.get("/validators?x=1")).headers["Location"]
    page = await console.browser.get(there)
    assert 'value="/validators?x=1"' in page.text
    await console.browser.submit("/login", token=f"Bearer {bearer()}\n", next="/validators?x=1")
    assert console.browser.page.status == 200
    assert "j.doe" in console.browser.page.words


async def test_the_cookie_is_a_random_id_that_scripts_and_other_sites_do_not_get(console):
    await console.browser.get("/login")
    reply = await console.browser.send("POST", "/login", form={"csrf": console.browser.page.csrf, "token": bearer()})
    cookie = reply.cookies["tokenry-console"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (True, "Strict", "/", "")
    assert cookie.value.startswith("random-")
    assert not cookie["secure"]  # plain HTTP on loopback; see the next one
    assert not cookie["max-age"]
    assert not cookie["expires"]


async def test_behind_a_proxy_the_cookie_goes_over_tls_alone(run):
    async with run(trusted_proxies="10.0.0.0/8") as console:
        reply = await console.browser.get("/login")
        assert reply.cookies["__Host-tokenry-login"]["secure"]


async def test_each_login_begins_a_session_with_another_id_and_ends_the_one_before(console):
    await console.browser.log_in()
    first = dict(console.browser.cookies)
    await console.browser.log_in()
    assert console.browser.cookies["tokenry-console"] != first["tokenry-console"]
    old = console.another()
    old.cookies = first
    assert (await old.get("/")).status == 303


async def test_an_id_that_a_browser_brings_along_is_never_taken_over(console):
    console.browser.cookies["tokenry-console"] = "chosen-by-somebody-else"
    await console.browser.log_in()
    assert console.browser.cookies["tokenry-console"] != "chosen-by-somebody-else"


@pytest.mark.parametrize(
    "token", ["", " ", "x", "token-of-eve\r\nX-Evil: 1", "token-of-é.revocation.admin.s", "a" * 20_000]
)
async def test_what_is_no_good_token_gets_nobody_in(console, token):
    page = await console.browser.log_in(token or " ")
    assert page.status == 403
    assert "not accepted" in page.words
    assert token.strip() == "" or len(token) < 5 or token not in page.text
    assert "tokenry-console" not in console.browser.cookies


async def test_a_token_of_another_issuer_gets_nobody_in(console):
    console.platform.answers["GET", "/oauth2/tokeninfo"] = (
        200, {"uid": "eve", "scope": ["revocation.admin"], "iss": "https://other.example", "expires_in": 60},
    )  # fmt: skip
    page = await console.browser.log_in()
    assert (page.status, "another issuer" in page.words) == (403, True)


async def test_a_token_without_any_of_the_scopes_gets_nobody_in(console):
    page = await console.browser.log_in(bearer("shop", ["orders.read"]))
    assert (page.status, "does not allow to look" in page.words) == (403, True)


async def test_guessing_is_slowed_down(console):
    answers = [(await console.browser.log_in("x")).status for _ in range(12)]
    assert answers[:10] == [403] * 10
    assert set(answers[10:]) == {429}
    assert len([each for each in console.platform.asked if each[1].startswith(TOKENINFO + "/oauth2")]) == 10


async def test_the_revocation_service_judges_where_token_info_is_away(console):
    claims = {"sub": "j.doe", "iss": ISSUER, "exp": NOW + 60, "scope": "revocation.admin audit.read"}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    console.platform.away[TOKENINFO] = Unreachable("nothing accepts connections there")
    await console.browser.log_in(f"token-of-h.{body}.s")
    assert (console.browser.page.status, "j.doe" in console.browser.page.words) == (200, True)
    console.clock.advance(61)
    assert (await console.browser.get("/keys")).status == 303  # the token has expired


async def test_nobody_gets_in_where_nobody_can_judge(console):
    console.platform.away |= {
        each: Unreachable("nothing accepts connections there") for each in (TOKENINFO, REVOCATION)
    }
    page = await console.browser.log_in()
    assert page.status == 503
    assert "nobody can judge the token now" in page.words
    assert "tokenry revoke" in page.words  # what to do next


# --- sessions ------------------------------------------------------------------------------------------------


async def test_a_session_ends_when_nobody_is_there(inside):
    for _ in range(4):
        inside.clock.advance(850)
        if inside.clock.now() < NOW + 2600:
            assert (await inside.browser.get("/inspect")).status == 200
    inside.clock.advance(901)
    assert (await inside.browser.get("/inspect")).status == 303


async def test_a_page_that_refreshes_itself_keeps_no_session_alive(inside):
    inside.clock.advance(600)
    assert (await inside.browser.get("/inspect", **{"X-Tokenry-Live": "1"})).status == 200
    inside.clock.advance(301)
    assert (await inside.browser.get("/inspect")).status == 303


async def test_a_session_never_outlives_its_token(run):
    async with run() as console:
        console.platform.expires_in = 120
        await console.browser.log_in()
        console.clock.advance(119)
        assert (await console.browser.get("/inspect")).status == 200
        console.clock.advance(1)
        assert (await console.browser.get("/inspect")).status == 303


async def test_a_token_that_was_revoked_meanwhile_ends_its_session(inside):
    inside.platform.refused.add(bearer())
    inside.clock.advance(31)
    assert (await inside.browser.get("/inspect")).status == 303


@pytest.mark.parametrize(("page", "asked"), [("/validators", "/validators"), ("/revocations", "/audit")])
async def test_a_service_that_does_not_accept_the_token_is_believed_once_the_judge_says_so_too(inside, page, asked):
    inside.platform.answers["GET", asked] = (401, {"title": "Unauthorized", "detail": "audience"})
    shown = await inside.browser.get(page)
    assert (shown.status, "does not accept your token" in shown.words) == (200, True)
    assert (await inside.browser.get("/inspect")).status == 200  # it is that service alone
    inside.platform.refused.add(bearer())
    await inside.browser.get(page)
    assert (await inside.browser.get("/inspect")).status == 303


async def test_while_nobody_can_judge_a_session_goes_on_and_services_decide_by_themselves(inside):
    inside.platform.away |= {each: Unreachable("away") for each in (TOKENINFO, REVOCATION)}
    inside.clock.advance(31)
    assert (await inside.browser.get("/inspect")).status == 200


async def test_logging_out_ends_the_session_here_not_only_in_the_browser(inside):
    kept = dict(inside.browser.cookies)
    await inside.browser.get("/inspect")
    await inside.browser.submit("/logout")
    assert "tokenry-console" not in inside.browser.cookies
    inside.browser.cookies = kept
    assert (await inside.browser.get("/inspect")).status == 303


def person(name="a"):
    return Person(sub=name, client_id=None, realm=None, scopes=frozenset(), lives_for=100.0)


def sessions(**changes):
    numbers = iter(range(10_000))
    return Sessions(
        **{"random": lambda: str(next(numbers)), "idle": 50.0, "limit": 80.0, "max_sessions": 10, **changes}
    )


def test_one_person_has_so_many_sessions_and_the_oldest_makes_room():
    held = sessions()
    names = [held.begin(person(), Secret("t"), now=0.0)[0] for _ in range(MAX_OF_ONE + 2)]
    assert [held.find(name, now=1.0) is not None for name in names] == [False, False] + [True] * MAX_OF_ONE


def test_all_together_have_so_many_and_nobody_is_thrown_out_for_a_newcomer():
    held = sessions(max_sessions=3)
    names = [held.begin(person(str(number)), Secret("t"), now=0.0)[0] for number in range(3)]
    with pytest.raises(TooManySessions):
        held.begin(person("4"), Secret("t"), now=1.0)
    assert all(held.find(name, now=1.0) for name in names)
    held.begin(person("4"), Secret("t"), now=60.0)  # the others were idle for too long


def test_a_session_has_an_end_however_busy_it_is():
    held = sessions()
    name, _ = held.begin(person(), Secret("t"), now=0.0)
    assert [held.find(name, now=float(at)) is not None for at in (40, 79, 80)] == [True, True, False]


def test_ids_that_are_none_find_nothing():
    held = sessions()
    held.begin(person(), Secret("t"), now=0.0)
    assert [held.find(name, now=0.0) for name in (None, "", "x", "\udc80", "0" * 1000)] == [None] * 5


def test_nothing_of_a_session_shows_what_is_secret():
    _, session = sessions(random=lambda: "r-a-n-d-o-m").begin(person(), Secret("t-o-k-e-n"), now=0.0)
    assert session.csrf == "r-a-n-d-o-m"
    assert "t-o-k-e-n" not in repr(session)
    assert "r-a-n-d-o-m" not in repr(session)


# --- forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("csrf", ["", "x", "random-" + "0" * 40, "\udc80é"])
async def test_a_form_without_the_secret_of_its_session_changes_nothing(inside, csrf):
    await inside.browser.get("/keys")
    reply = await inside.browser.send(
        "POST", "/keys/rotate", form={"csrf": csrf.encode("utf-8", "replace").decode(), "typed": "rotate"}
    )
    assert (reply.status, "not one of this session" in reply.text) == (403, True)
    assert not inside.platform.posted("https://admin.example")


async def test_the_secret_of_another_persons_session_is_no_good(inside):
    other = inside.another()
    await other.log_in(bearer("eve"))
    await other.get("/keys")
    await inside.browser.get("/keys")
    reply = await inside.browser.submit("/keys/rotate", csrf=other.page.csrf, typed="rotate")
    assert reply.status == 403
    assert not inside.platform.posted("https://admin.example")


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
     {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://["}, {"Origin": "http://[::1"},
     {"Origin": ""}],
)  # fmt: skip
async def test_a_form_of_another_site_changes_nothing_even_with_the_secret(inside, headers):
    await inside.browser.get("/keys")
    reply = await inside.browser.submit("/keys/rotate", headers=headers, typed="rotate")
    assert (reply.status, "another site" in reply.text) == (403, True)
    assert not inside.platform.posted("https://admin.example")


@pytest.mark.parametrize(("length", "headers", "status"), [(70_000, {}, 413), (10, {"Content-Encoding": "gzip"}, 415)])
async def test_a_body_that_is_not_read_ends_its_connection(inside, length, headers, status):
    reply = await inside.browser.send("POST", "/keys/rotate", form={"csrf": "x" * length}, headers=headers)
    assert (reply.status, reply.headers.get("Connection")) == (status, "close")


async def test_nobody_is_logged_in_by_a_form_of_another_site(console):
    await console.browser.get("/login")
    reply = await console.browser.submit("/login", headers={"Origin": "https://evil.example"}, token=bearer())
    assert reply.status == 403
    await console.browser.get("/login")
    secret = console.browser.page.csrf
    console.browser.cookies.clear()  # the browser has no form of ours
    reply = await console.browser.send("POST", "/login", form={"csrf": secret, "token": bearer()})
    assert reply.status == 403


def test_a_forged_form_is_refused_by_an_exception_not_by_a_flag():
    _, session = sessions().begin(person(), Secret("t"), now=0.0)
    session.check_form(session.csrf)
    for sent in (None, "", session.csrf + "x", session.csrf[:-1]):
        with pytest.raises(Forged):
            session.check_form(sent)


@pytest.mark.parametrize(
    ("asked", "got"),
    [("/keys", "/keys"), ("/a?b=c", "/a?b=c"), (None, "/"), ("", "/"), ("//evil.example", "/"),
     ("/\\evil.example", "/"), ("https://evil.example", "/"),
     ("javascript:alert(1)", "/"), ("/a\r\nX: y", "/"), ("/" + "a" * 600, "/"),
     ("/a\\b", "/")],
)  # fmt: skip
def test_after_the_login_one_stays_in_this_console(asked, got):
    assert local_path(asked) == got


# --- a proxy in front ----------------------------------------------------------------------------------------


PROXIED = {"trusted_proxies": "127.0.0.0/8", "bearer_header": "X-Forwarded-Access-Token"}


async def test_a_trusted_proxy_brings_the_token(run):
    async with run(**PROXIED) as console:
        page = await console.browser.get("/validators", **{"X-Forwarded-Access-Token": bearer()})
        assert (page.status, "j.doe" in page.words, "Log out" in page.words) == (200, True, False)
        first = console.browser.cookies["__Host-tokenry-console"]
        await console.browser.get("/keys", **{"X-Forwarded-Access-Token": f"Bearer {bearer()}"})
        assert console.browser.cookies["__Host-tokenry-console"] == first
        await console.browser.get("/keys", **{"X-Forwarded-Access-Token": bearer("eve")})
        assert console.browser.cookies["__Host-tokenry-console"] != first
        assert "eve" in console.browser.page.words


async def test_without_the_proxys_token_the_cookie_alone_gets_nobody_in(run):
    async with run(**PROXIED) as console:
        await console.browser.get("/", **{"X-Forwarded-Access-Token": bearer()})
        assert (await console.browser.get("/")).status == 403


async def test_nobody_but_the_proxy_brings_tokens(run):
    async with run(trusted_proxies="10.0.0.0/8", bearer_header="X-Forwarded-Access-Token") as console:
        page = await console.browser.get("/", **{"X-Forwarded-Access-Token": bearer()})
        assert (page.status, "not one of the proxies" in page.words) == (403, True)


async def test_where_no_proxy_is_configured_its_field_says_nothing(console):
    assert (await console.browser.get("/", **{"X-Forwarded-Access-Token": bearer()})).status == 303


async def test_a_bad_token_of_the_proxy_gets_nobody_in(run):
    async with run(**PROXIED) as console:
        assert (await console.browser.get("/", **{"X-Forwarded-Access-Token": "x"})).status == 403


# --- settings ------------------------------------------------------------------------------------------------

GOOD = {
    "TOKENRY_ISSUER": "https://i.example",
    "TOKENRY_REVOCATION_URL": "https://r.example",
    "TOKENRY_TOKENINFO_URL": "https://t.example",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"TOKENRY_CONSOLE_BEARER_HEADER": "X-Token"}, "TOKENRY_TRUSTED_PROXIES"),
        ({"TOKENRY_CONSOLE_ADMIN_URL": "http://admin.example"}, "TOKENRY_CONSOLE_ADMIN_URL"),
        ({"TOKENRY_CONSOLE_METRICS_URLS": "http://a.example/metrics"}, "TOKENRY_CONSOLE_METRICS_URLS"),
        ({"TOKENRY_CONSOLE_METRICS_URLS": ",".join(f"https://a{n}.example" for n in range(33))}, "at most 32"),
        ({"TOKENRY_CONSOLE_SESSION_IDLE": "2h", "TOKENRY_CONSOLE_SESSION_LIMIT": "1h"}, "SESSION_IDLE"),
        ({"TOKENRY_CONSOLE_WRITE": "yes"}, "no such setting"),
        ({"TOKENRY_CONSOLE_RUNBOOKS_URL": "javascript:alert(1)"}, "RUNBOOKS_URL"),
        ({"TOKENRY_CONSOLE_SCRAPE_INTERVAL": "0.1s"}, "SCRAPE_INTERVAL"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(changes, said):
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_environment(GOOD | changes)
    assert said in str(raised.value)


def test_three_settings_are_enough():
    found = Settings.from_environment(GOOD)
    assert found.scraped == tuple(f"https://{name}.example/metrics" for name in "itr")
    assert found.admin_url is None
