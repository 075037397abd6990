"""What people change through the console, and what it takes."""

import html
import re
from urllib.parse import quote, urlsplit

import pytest

from tests.services.console.conftest import ADMIN, NOW, REVOCATION, TOKENINFO, bearer, client
from tests.support.odd_names import ODD_NAMES
from tokenry.serving.outgoing import TimedOut, Unreachable

CLAIM = {"kind": "claims", "name0": "sub", "value0": "basket", "reason": "leak", "ticket": "SEC-481"}


async def preview(console, **form):
    await console.browser.get("/revocations")
    return await console.browser.submit("/revocations/preview", **(form or CLAIM))


def draft_of(page):
    return page.text.partition('name="draft" value="')[2].partition('"')[0]


async def confirm(console, typed, draft=None):
    draft = draft_of(console.browser.page) if draft is None else draft
    return await console.browser.submit("/revocations/confirm", draft=draft, typed=typed)


# --- revoking ------------------------------------------------------------------------------------------------


async def test_the_dry_run_stands_beside_the_form_before_anything_is_revoked(inside):
    page = await preview(inside)
    assert page.status == 200
    assert "Would revoke sub = basket" in page.words
    assert "1 312 of 50 000" in page.words
    assert "Type basket to confirm" in page.words
    assert 'value="basket"' in page.text  # the form keeps what was typed
    assert 'id="table-horizon"' in page.text  # wait or revoke?
    assert not inside.platform.posted()
    method, url, headers, body = next(each for each in inside.platform.asked if "dry_run" in each[1])
    assert (method, url) == ("POST", f"{REVOCATION}/revocations?dry_run=true")
    assert headers["Authorization"] == f"Bearer {bearer()}"
    assert b'"claims":{"sub":"basket"}' in body


async def test_what_was_previewed_is_revoked_once_its_word_was_typed(inside):
    await preview(inside)
    page = await confirm(inside, " basket ")
    assert inside.platform.posted() == [
        (
            "/revocations",
            {},
            {"type": "CLAIM", "data": {"claims": {"sub": "basket"}}, "reason": "leak", "ticket": "SEC-481"},
        )
    ]
    assert "is revoked. Undo with: tokenry revoke undo rev-new" in page.words
    assert "Propagation" in page.text.partition("<title>")[2][:20]


@pytest.mark.parametrize("typed", ["", "Basket", "baske", "basket!", "yes"])
async def test_another_word_revokes_nothing(inside, typed):
    await preview(inside)
    page = await confirm(inside, typed)
    assert (page.status, "Nothing was done" in page.words) == (400, True)
    assert not inside.platform.posted()
    await confirm(inside, "basket")  # and one can type again
    assert len(inside.platform.posted()) == 1


async def test_a_preview_is_confirmed_once(inside):
    await preview(inside)
    draft, csrf = draft_of(inside.browser.page), inside.browser.page.csrf
    await confirm(inside, "basket")
    page = await inside.browser.submit("/revocations/confirm", csrf=csrf, draft=draft, typed="basket")
    assert (page.status, "confirmed already" in page.words) == (409, True)
    assert len(inside.platform.posted()) == 1


async def test_an_old_preview_is_looked_at_again(inside):
    await preview(inside)
    draft = draft_of(inside.browser.page)
    inside.clock.advance(601)
    assert (await confirm(inside, "basket", draft)).status == 409
    assert not inside.platform.posted()


async def test_a_preview_of_another_person_cannot_be_confirmed(inside):
    await preview(inside)
    draft = draft_of(inside.browser.page)
    other = inside.another()
    await other.log_in(bearer("eve"))
    await other.get("/revocations")
    page = await other.submit("/revocations/confirm", draft=draft, typed="basket")
    assert page.status == 409
    assert not inside.platform.posted()


async def test_a_timeout_says_that_nobody_knows_and_sending_again_has_the_same_name(inside):
    await preview(inside)
    inside.platform.away[REVOCATION] = TimedOut("no answer within 4 s")
    page = await confirm(inside, "basket")
    assert (page.status, "may or may not have been done" in page.words) == (502, True)
    del inside.platform.away[REVOCATION]
    await confirm(inside, "basket")
    sent = [each for each in inside.platform.asked if each[0] == "POST" and each[1].endswith("/revocations")]
    assert len(sent) == 2
    assert len({each[2]["Idempotency-Key"] for each in sent}) == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [((403, {"detail": "not you"}), 403), ((409, {"detail": "used"}), 409), ((500, b""), 502), ((201, b"<html>"), 502)],
)
async def test_a_refusal_is_passed_on_and_a_fault_of_the_service_is_none_of_ours(inside, answer, status):
    await preview(inside)
    inside.platform.answers["POST", "/revocations"] = answer
    page = await confirm(inside, "basket")
    assert (page.status, "the revocation service: " in page.words) == (status, True)
    inside.platform.answers["GET", "/revocations/rev-9"] = answer
    assert (await inside.browser.get("/revocations/rev-9")).status == status


@pytest.mark.parametrize(
    ("form", "data", "word"),
    [
        ({"kind": "jti", "jti": "j-1"}, {"type": "TOKEN", "data": {"jti": "j-1"}}, "one token"),
        ({"kind": "key", "kid": "2026-a"}, {"type": "KEY", "data": {"kid": "2026-a"}}, "2026-a"),
        ({"kind": "all"}, {"type": "GLOBAL", "data": {}, "confirm": True}, "all tokens"),
        ({"kind": "all", "issued_before": "2027-01-15T08:00:00Z"},
         {"type": "GLOBAL", "data": {"issued_before": NOW}, "confirm": True}, "all tokens"),
        ({"kind": "claims", "name0": "sub", "value0": "a", "name2": "realm", "value2": "/b", "jti": "left over"},
         {"type": "CLAIM", "data": {"claims": {"sub": "a", "realm": "/b"}}}, "a"),
    ],
)  # fmt: skip
async def test_each_kind_is_asked_for_as_the_contract_wants_it(inside, form, data, word):
    await preview(inside, **form)
    await confirm(inside, word)
    assert inside.platform.posted() == [("/revocations", {}, data)]


async def test_a_pasted_token_is_sent_to_the_service_and_is_on_no_page(inside):
    page = await preview(inside, kind="token", token="leaked.token.value")
    assert "leaked.token.value" not in page.text
    done = await confirm(inside, "one token")
    assert inside.platform.posted()[0][2]["data"] == {"token": "leaked.token.value"}
    assert "leaked.token.value" not in done.text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"kind": "claims"}, "at least one claim"),
        ({"kind": "claims", "name0": "sub"}, "one of them is missing"),
        ({"kind": "claims", "name0": "sub", "value0": "a", "name1": "sub", "value1": "b"}, "stands there twice"),
        ({"kind": "jti"}, "the token's id"),
        ({"kind": "everything"}, "Say what to revoke"),
        ({}, "Say what to revoke"),
        ({"kind": "all", "issued_before": "yesterday"}, "2026-11-21T05:58:00Z"),
        ({"kind": "all", "issued_before": "1969-12-31T23:59:59Z"}, "before 1970"),
        ({"kind": "all", "issued_before": "0001-01-01T00:00:00+23:59"}, "before 1970"),
        ({"kind": "all", "issued_before": "9999-12-31T23:59:59-23:59"}, "too far ahead"),
    ],
)
async def test_a_form_that_says_nothing_is_not_sent_anywhere(inside, form, said):
    page = await preview(inside, **{"ticket": "T", **form})
    assert (page.status, said in page.words) == (400, True)
    assert not [each for each in inside.platform.asked if each[0] == "POST"]


async def test_a_refused_dry_run_can_not_be_confirmed(inside):
    inside.platform.answers["POST", "/revocations"] = (
        403,
        {"detail": "no rule lets this caller revoke by these claims"},
    )
    page = await preview(inside)
    assert "no rule lets this caller revoke" in page.words
    assert 'name="draft"' not in page.text


async def test_it_is_said_when_one_would_lock_oneself_out_and_when_somebody_else_has_to_agree(inside):
    inside.platform.said_of_previews = {"hits_caller": True, "needs_second_person": True, "live_tokens": None}
    words = (await preview(inside)).words
    assert "It hits your own token" in words
    assert "A second person has to approve it" in words
    assert "not counted for this" in words


async def test_what_waits_for_a_second_person_is_not_said_to_be_in_force(inside):
    await preview(inside)
    inside.platform.answers["POST", "/revocations"] = (
        202, {"id": "pending-1", "status": "pending", "expires_at": NOW + 900, "type": "CLAIM"},
    )  # fmt: skip
    inside.platform.said_of_revocations = {"status": "pending", "in_force": False, "expires_at": NOW + 900}
    page = await confirm(inside, "basket")
    assert "Nothing is in force yet" in page.words
    assert "Approve" in page.words


# --- one of them ---------------------------------------------------------------------------------------------


async def test_a_mistake_is_taken_back(inside):
    await inside.browser.get("/revocations/rev-1")
    page = await inside.browser.submit("/revocations/rev-1/undo", typed="undo", reason="wrong one", ticket="OPS-1")
    assert inside.platform.posted() == [("/revocations/rev-1/undo", {}, {"reason": "wrong one", "ticket": "OPS-1"})]
    assert "Taken back" in page.words


async def test_another_person_approves(inside):
    inside.platform.said_of_revocations = {"status": "pending", "in_force": False, "expires_at": NOW + 900}
    await inside.browser.get("/revocations/rev-1")
    await inside.browser.submit("/revocations/rev-1/approve", typed="approve")
    assert inside.platform.posted() == [("/revocations/rev-1/approve", {}, {})]


async def test_the_same_person_is_told_that_it_takes_another_one(inside):
    inside.platform.answers["POST", "/revocations/rev-1/approve"] = (409, {"detail": "somebody else has to approve it"})
    await inside.browser.get("/revocations/rev-1")
    page = await inside.browser.submit("/revocations/rev-1/approve", typed="approve")
    assert "somebody else has to approve it" in page.words


@pytest.mark.parametrize(
    ("page", "path", "word"),
    [
        ("/revocations/rev-1", "/revocations/rev-1/undo", "undo"),
        ("/revocations/rev-1", "/revocations/rev-1/approve", "approve"),
        ("/keys", "/keys/rotate", "rotate"),
        ("/keys", "/keys/2026-a/retire", "2026-a"),
        ("/clients/services/basket", "/clients/services/basket/disable", "basket"),
        ("/clients/services/basket", "/clients/services/basket/rotate-secret", "basket"),
        ("/clients/services/basket", "/clients/services/basket/enable", "basket"),
    ],
)
async def test_every_change_takes_its_word_typed(inside, page, path, word):
    for typed in ("", word.upper() + "x", "yes"):
        await inside.browser.get(page)
        reply = await inside.browser.submit(path, typed=typed)
        assert "Nothing was done" in reply.words
    assert not inside.platform.posted("https://")
    await inside.browser.get(page)
    await inside.browser.submit(path, typed=word)
    assert [each[0] for each in inside.platform.posted("https://")] == [path]


# --- keys and clients ----------------------------------------------------------------------------------------


async def test_a_rotation_says_when_the_new_key_signs(inside):
    await inside.browser.get("/keys")
    page = await inside.browser.submit("/keys/rotate", typed="rotate", reason="leak")
    assert inside.platform.posted(ADMIN) == [("/keys/rotate", {}, {"use": "token", "reason": "leak"})]
    assert "Made: 2026-c. It signs from 2027-01-15 09:00:00Z on" in page.words


async def test_a_key_whose_tokens_live_is_not_retired_and_the_reason_is_said(inside):
    inside.platform.answers["POST", "/keys/2026-a/retire"] = (409, {"detail": "48 210 of its tokens may live"})
    await inside.browser.get("/keys")
    page = await inside.browser.submit("/keys/2026-a/retire", typed="2026-a")
    assert "48 210 of its tokens may live" in page.words


@pytest.mark.parametrize(("checked", "body"), [({"revoke": "yes"}, {"revoke": True}), ({}, {})])
async def test_a_client_is_disabled_with_or_without_its_tokens(inside, checked, body):
    await inside.browser.get("/clients/services/basket")
    page = await inside.browser.submit("/clients/services/basket/disable", typed="basket", **checked)
    assert inside.platform.posted(ADMIN) == [("/clients/services/basket/disable", {}, body)]
    assert "basket is disabled" in page.words


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_every_client_is_opened_and_changed_from_the_page_that_links_to_it(inside, name):
    inside.platform.clients = [client(name)]
    link = html.unescape(re.search(r'<td><a href="(/clients/[^"]*)"', (await inside.browser.get("/clients")).text)[1])
    page = await inside.browser.get(link)
    assert (page.status, html.unescape(re.search("<h1>(.*)</h1>", page.text)[1])) == (200, name)
    form = html.unescape(re.search(r'action="([^"]*/disable)"', page.text)[1])
    page = await inside.browser.submit(form, typed=name)
    assert (page.status, "is disabled" in page.words) == (200, True)
    assert inside.platform.posted(ADMIN) == [(f"/clients/services/{name}/disable", {}, {})]
    # The name was one segment of every address that the service was asked under.
    asked = [urlsplit(url) for _, url, _, _ in inside.platform.asked if "/clients/" in url]
    expected = f"/clients/services/{quote(name, safe='')}"
    assert {each.path for each in asked} == {expected, f"{expected}/disable"}
    assert not [each for each in asked if each.query or each.fragment]


async def test_a_change_that_takes_minutes_goes_on_and_its_outcome_is_told_later(inside):
    await inside.browser.get("/clients/services/basket")
    inside.platform.gate.clear()
    csrf = inside.browser.page.csrf
    asked = len(inside.platform.asked)
    form = {"csrf": csrf, "typed": "basket"}
    reply = await inside.browser.send("POST", "/clients/services/basket/rotate-secret", form=form)
    assert (reply.status, len(inside.platform.asked)) == (303, asked)  # it asks, and has no answer
    inside.platform.gate.set()
    told = "".join([(await inside.browser.get("/inspect")).words for _ in range(5)])
    assert "it goes on, and waits for every issuer" in told
    assert told.count("basket is given a new secret") == 1
    assert inside.platform.posted(ADMIN) == [("/clients/services/basket/rotate-secret", {}, {})]


async def test_a_new_secret_is_on_no_page_even_if_the_answer_had_it(inside):
    inside.platform.answers["POST", "/clients/services/basket/rotate-secret"] = (200, {"client_secret": "s3cr3t-value"})
    await inside.browser.get("/clients/services/basket")
    page = await inside.browser.submit("/clients/services/basket/rotate-secret", typed="basket")
    assert "basket is given a new secret" in page.words
    assert "s3cr3t-value" not in page.text
    assert not any("show" in url for _, url, _, _ in inside.platform.asked)


async def test_how_many_tokens_of_a_client_live_is_asked_without_revoking_them(inside):
    assert "1 312" in (await inside.browser.get("/clients/services/basket")).words
    assert not inside.platform.posted()


async def test_the_password_grant_and_old_secrets_stand_out(inside):
    inside.platform.clients[0]["secrets"] = [{"created_at": NOW - 200 * 86_400, "expires_at": None}]
    page = await inside.browser.get("/clients")
    assert "password grant" in page.words
    assert "200 d" in page.words
    assert "disabled" in page.words


@pytest.mark.parametrize("path", ["/keys", "/clients"])
async def test_without_an_admin_service_the_pages_say_so_and_offer_nothing(run, path):
    async with run(admin_url=None) as console:
        await console.browser.log_in()
        page = await console.browser.get(path)
        assert page.status == 200
        assert "Not configured." in page.words
        assert "TOKENRY_CONSOLE_ADMIN_URL" in page.words
        assert page.text.count('method="post"') == 1  # to log out
        await console.scrape(rounds=2)
        assert "admin" not in (await console.browser.get("/")).words.partition("Issuing")[0]  # and it is no alarm


# --- who may -------------------------------------------------------------------------------------------------


async def test_whoever_may_only_look_is_offered_nothing(console):
    await console.browser.log_in(bearer("reader", ["audit.read"]))
    for path in ("/revocations", "/revocations/rev-1", "/keys", "/clients/services/basket"):
        page = await console.browser.get(path)
        assert page.text.count('method="post"') == 1, path  # to log out
        assert "read-only" in page.words


async def test_the_service_decides_whatever_was_offered(console):
    await console.browser.log_in(bearer("reader", ["audit.read"]))
    console.platform.answers["POST", "/keys/rotate"] = (403, {"detail": "this needs the scope registry.admin"})
    await console.browser.get("/keys")
    page = await console.browser.submit("/keys/rotate", typed="rotate")
    assert "this needs the scope registry.admin" in page.words
    assert console.platform.asked[-1][2].get("Authorization", f"Bearer {bearer('reader', ['audit.read'])}") == (
        f"Bearer {bearer('reader', ['audit.read'])}"
    )


async def test_every_call_to_a_service_carries_the_persons_own_token_and_no_other(inside):
    for path in ("/", "/revocations", "/propagation", "/validators", "/keys", "/clients", "/audit"):
        await inside.browser.get(path)
    for _, url, headers, _ in inside.platform.asked:
        said = headers.get("Authorization")
        open_to_all = url.endswith(("/metrics", "/.well-known/jwks.json"))
        assert said == (None if open_to_all else f"Bearer {bearer()}"), url


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a%2fb", "?x=1", "#", "é", "a b"])
async def test_a_name_in_an_address_stays_one_segment(inside, name):
    await inside.browser.get(f"/revocations/{quote(name, safe='')}")
    asked = [url for method, url, _, _ in inside.platform.asked if "/revocations/" in url and "snapshot" not in url]
    for url in asked:
        assert (urlsplit(url).path.count("/"), urlsplit(url).query) == (2, ""), url


async def test_a_service_that_is_away_is_said_with_what_to_do(inside):
    await inside.browser.get("/keys")
    inside.platform.away[ADMIN] = Unreachable("nothing accepts connections there")
    page = await inside.browser.submit("/keys/rotate", typed="rotate")
    assert "cannot be reached: nothing accepts connections there" in page.words
    assert TOKENINFO not in page.text
