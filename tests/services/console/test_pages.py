"""What pages show, what they never show, and what becomes of them when services say nothing, or anything."""

import json
import re

import aiohttp
import pytest
from aiohttp import hdrs

from tests.services.console.conftest import (
    ADMIN,
    ISSUER,
    NOW,
    REVOCATION,
    TOKENINFO,
    about,
    bearer,
    client,
    entry,
    key,
    record,
    validator,
)  # fmt: skip
from tokenry.serving.audit_chain import AuditChain
from tokenry.serving.outgoing import TimedOut, TooLarge, Unreachable
from tokenry_console.rendering import POLICY, static_files

PAGES = ["/", "/revocations", "/revocations/rev-1", "/propagation", "/propagation?id=rev-1", "/validators", "/keys",
         "/clients", "/clients/services/basket", "/audit", "/inspect"]  # fmt: skip
HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>{{7*7}}\u202e\x07"


# --- every page ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/login", "/nowhere", "/static/none.js", "/healthz"])
async def test_every_answer_carries_the_header_fields_that_protect_it(inside, path):
    headers = (await inside.browser.get(path)).headers
    assert headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none';")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", PAGES)
async def test_no_page_has_anything_inline_or_from_elsewhere(inside, path):
    await inside.scrape(rounds=3)
    text = (await inside.browser.get(path)).text
    assert not re.search(
        r"<script(?![^>]* src=\"/static/)|<style|\sstyle=|\son[a-z]+=|javascript:", text, re.IGNORECASE
    )
    assert not re.search(r"(src|href|action)=\"(?!/|\?|#)", text)


@pytest.mark.parametrize("path", PAGES)
async def test_no_page_and_no_log_has_the_token_or_the_session(inside, path, capsys):
    await inside.scrape(rounds=2)
    page = await inside.browser.get(path)
    assert page.status == 200
    said = page.text + str(page.headers) + "".join(capsys.readouterr())
    assert "s1gnature" not in said
    assert inside.browser.cookies["tokenry-console"] not in said


@pytest.mark.parametrize("path", PAGES)
async def test_each_page_says_where_one_is_and_as_whom(inside, path):
    page = await inside.browser.get(path)
    assert page.text.count('aria-current="page"') == 1
    assert "development" in page.words
    assert "j.doe" in page.words
    assert re.search(r"<title>[^<]+ · tokenry development</title>", page.text)


async def test_scripts_and_styles_are_served_under_names_that_change_with_them(inside):
    for path, (media_type, content) in static_files().items():
        reply = await inside.browser.get(f"/static/{path}")
        assert reply.headers["Content-Type"].startswith(media_type)
        assert "immutable" in reply.headers["Cache-Control"]
        assert reply.text.encode() == content
    for path in ("console.css", "../settings.py", "..%2fsettings.py", "vendor/uplot/LICENSE"):
        assert (await inside.browser.get(f"/static/{path}")).status == 404


async def test_everything_that_pages_refer_to_is_there(inside):
    text = "".join([(await inside.browser.get(path)).text for path in PAGES])
    for path in set(re.findall(r'(?:src|href)="(/static/[^"]+)"', text)):
        assert (await inside.browser.get(path)).status == 200
    for path in set(re.findall(r'href="(/[^"#]*)"', text)) - {"/audit/export"}:
        assert (await inside.browser.get(path.replace("&amp;", "&"))).status == 200, path


# --- hostile names -------------------------------------------------------------------------------------------


def spoil(platform):
    """Write something hostile into every field that any service answers."""
    platform.validators = [validator(HOSTILE, version=HOSTILE)]
    platform.records = [record(event=HOSTILE, actor={"sub": HOSTILE, "client_id": HOSTILE}, id=HOSTILE, type=HOSTILE,
                               names=[HOSTILE], reason=HOSTILE, ticket=HOSTILE, hash=HOSTILE)]  # fmt: skip
    platform.entries = [entry(id=HOSTILE, kind=HOSTILE, names=[HOSTILE])]
    platform.keys = [key(HOSTILE, HOSTILE, use=HOSTILE, alg=HOSTILE, custody=HOSTILE)]
    platform.clients = [client(HOSTILE, realm=HOSTILE, scopes=[HOSTILE], grant_types=[HOSTILE])]
    spoiled = about(HOSTILE, type=HOSTILE, names=[HOSTILE], by={"sub": HOSTILE}, reason=HOSTILE, ticket=HOSTILE,
                    approved_by={"sub": HOSTILE}, undone={"id": HOSTILE})  # fmt: skip
    platform.said_of_revocations = spoiled
    platform.answers["GET", "/clients/services/basket"] = (200, platform.clients[0])
    platform.answers["GET", "/audit"] = (
        200, {"records": platform.records, "head": {"instance": HOSTILE, "seq": HOSTILE, "hash": HOSTILE}},
    )  # fmt: skip
    escaped = HOSTILE.replace("\\", "\\\\").replace('"', '\\"').replace("\x07", "").encode()
    platform.metrics = b"\n".join(
        [b'tokenry_build_info{service="' + escaped + b'",version="' + escaped + b'"} 1',
         b'tokenry_validations_total{result="' + escaped + b'"} 5',
         b'tokenry_signing_key_faults{fault="' + escaped + b'"} 1',
         b'tokenry_signing_key_expiry_timestamp_seconds{kid="' + escaped + b'"} 5',
         b"tokenry_signing_keys_active 1", b""]
    )  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
async def test_names_from_every_field_of_every_service_stay_text(inside, path):
    spoil(inside.platform)
    await inside.scrape(rounds=3)
    page = await inside.browser.get(path)
    assert page.status in {200, 404}
    assert "<img" not in page.text
    assert "<script>" not in page.text
    assert "alert('x')</script>" not in page.text
    assert "49" not in re.findall(r">(\d+)<", page.text)  # nothing is a template
    if path != "/inspect":
        assert "&lt;script&gt;" in page.text, "the name is not on the page, so this shows nothing"


async def test_a_services_own_words_stay_text_too(inside):
    inside.platform.answers["GET", "/validators"] = (503, {"title": "x", "detail": HOSTILE})
    page = await inside.browser.get("/validators")
    assert "&lt;script&gt;" in page.text
    assert "<img" not in page.text


async def test_what_people_type_comes_back_as_text(inside):
    for path in ("/revocations?q=", "/clients?q=", "/clients?realm=", "/audit?q=", "/propagation?id="):
        page = await inside.browser.get(path + "%3Cscript%3E%22%3E%3Cimg%3E")
        assert "<img>" not in page.text
        assert "<script>" not in page.text
    await inside.browser.get("/revocations")
    page = await inside.browser.submit(
        "/revocations/preview", kind="claims", name0="sub", value0=HOSTILE, ticket=HOSTILE
    )
    assert "<img" not in page.text
    assert "&lt;img" in page.text


async def test_a_spreadsheet_takes_no_name_for_a_formula(inside):
    inside.platform.validators = [validator("=cmd|' /C calc'!A0"), validator("@sum"), validator('a,"b"\nc')]
    reply = await inside.browser.get("/validators?csv=freshness")
    assert reply.headers["Content-Type"].startswith("text/csv")
    assert reply.headers["Content-Disposition"] == 'attachment; filename="tokenry-freshness.csv"'
    rows = reply.text.split("\r\n")
    assert rows[1].startswith("'=cmd")
    assert rows[2].startswith("'@sum")
    assert rows[3].startswith('"a,""b""\nc"')


async def test_a_plot_that_is_not_on_the_page_has_no_csv(inside):
    assert (await inside.browser.get("/validators?csv=curve")).status == 404


# --- services that are away, or say anything -----------------------------------------------------------------


@pytest.mark.parametrize("away", [REVOCATION, ADMIN, ISSUER, TOKENINFO])
@pytest.mark.parametrize("path", PAGES)
async def test_one_service_that_is_away_never_breaks_a_page(inside, path, away):
    inside.platform.away[away] = Unreachable("nothing accepts connections there")
    await inside.scrape(rounds=2)
    page = await inside.browser.get(path)
    assert page.status in {200, 502}
    assert "could not be made" not in page.words
    assert 'aria-current="page"' in page.text  # the rest of the page is there


async def test_the_part_of_a_service_that_is_away_says_so_and_what_to_do(inside):
    inside.platform.away[REVOCATION] = Unreachable("nothing accepts connections there")
    page = await inside.browser.get("/validators")
    assert "the revocation service : it cannot be reached: nothing accepts connections there" in page.words
    assert "/readyz?verbose" in page.words
    assert "TOKENRY_REVOCATION_URL" in page.words
    assert "Services whose metrics are read here" in page.words


@pytest.mark.parametrize(
    "said",
    [b"", b"<html>", b"[]", b"null", b"{}", b'{"validators": 5, "now": "x"}', b'{"records": {}}', b'{"entries": null}',
     b'{"validators": [1, null, {}, {"name": 5, "lag": "x", "last_poll": 1e400}]}',
     b'{"validators": [{"name": "a", "last_poll": 1e15, "lag": -5, "applied_as_of": true}], "now": -1}',
     b'{"keys": [{}, {"publish_at": 5}, {"publish_at": 1e18}], "clients": [{}], "records": [{}]}',
     b'{"entries": [{}, {"id": 1}, {"id": "a", "kind": "jti", "created_at": "x"}]}'],
)  # fmt: skip
async def test_whatever_a_service_answers_there_is_a_page(inside, said):
    for path in ("/validators", "/revocations", "/revocations/rev-1", "/revocations/snapshot", "/audit", "/keys",
                 "/clients", "/clients/services/basket", "/.well-known/jwks.json", "/metrics"):  # fmt: skip
        inside.platform.answers["GET", path] = (200, said)
    await inside.scrape(rounds=2)
    for path in PAGES:
        page = await inside.browser.get(path)
        assert "could not be made" not in page.words, (path, page.words)
        assert page.status in {200, 502}


@pytest.mark.parametrize("status", [301, 302, 400, 404, 429, 500, 503])
async def test_every_status_of_a_service_has_words(inside, status):
    for path in ("/validators", "/revocations/snapshot", "/audit", "/keys", "/clients", "/revocations/rev-1"):
        inside.platform.answers["GET", path] = (status, b"")
    for path in PAGES:
        page = await inside.browser.get(path)
        assert "could not be made" not in page.words, path
    words = (await inside.browser.get("/validators")).words
    assert str(status) in words or "there is no such thing" in words


async def test_a_person_who_may_not_look_at_a_part_is_told_the_scope_and_it_is_no_alarm(console):
    console.platform.answers["GET", "/audit"] = (
        403,
        {"title": "Forbidden", "detail": "this needs the scope audit.read"},
    )
    await console.scrape(rounds=2)
    await console.browser.log_in(bearer("reader", ["revocation.write"]))
    assert "audit.read" not in console.browser.page.words
    assert "needs the scope audit.read" in (await console.browser.get("/audit")).words
    assert "this needs the scope audit.read" in (await console.browser.get("/revocations")).words


@pytest.mark.parametrize("how", ["too large", "406"])
async def test_a_list_that_is_too_long_for_a_page_is_no_alarm_and_nothing_is_called_ended(inside, how):
    if how == "406":
        inside.platform.answers["GET", "/revocations/snapshot"] = (406, {"detail": "the list is too long for JSON"})
    else:
        inside.platform.answers["GET", "/revocations/snapshot"] = TooLarge("the answer is larger than 8388608 bytes")
    page = await inside.browser.get("/revocations")
    assert "This table is not complete" in page.words
    assert "SEC-481" in page.words
    assert "in force" in page.words.partition("1 known")[2]  # as the record itself says
    await inside.scrape(rounds=2, every=1.0)
    assert "too long" not in (await inside.browser.get("/")).words


# --- the scraped hour and the signals ------------------------------------------------------------------------


async def test_the_overview_says_at_once_that_nothing_is_wrong(inside):
    inside.platform.validators = [validator("orders-1", enforced_at=NOW - 99.0)]
    await inside.scrape(rounds=2, every=1.0)
    page = await inside.browser.get("/")
    assert "Nothing is wrong that this console can see" in page.words
    assert "1/1 slowest 1.0 s" in page.words  # the open incident
    assert "1 284" in page.words


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (lambda p: setattr(p, "validators", [validator("a", lag=75.0)]), "1 validator is more than 60.0 s behind: a"),
        (lambda p: setattr(p, "validators", [validator("a", last_poll=NOW - 99.0, reported_at=None)]), "not heard of"),
        (lambda p: setattr(p, "validators", []), "no validator was heard of"),
        (
            lambda p: setattr(p, "validators", [validator("a", applied_as_of=NOW - 101.0)]),
            "SEC-481 is not enforced by 1",
        ),
        (
            lambda p: setattr(p, "metrics", p.metrics.replace(b"tokenry_ready 1.0", b"tokenry_ready 0.0")),
            "is not ready",
        ),
        (lambda p: setattr(p, "metrics", p.metrics.replace(b"age_seconds 4.0", b"age_seconds 99.0")), "99.0 s old"),
        (
            lambda p: setattr(p, "metrics", p.metrics.replace(str(NOW).encode(), str(NOW + 60).encode())),
            "ahead of ours",
        ),
        (
            lambda p: setattr(p, "metrics", p.metrics + b'tokenry_signing_key_faults{fault="no_next_key"} 1\n'),
            "no next key",
        ),
        (lambda p: setattr(p, "metrics", b"<html>"), "metrics cannot be read"),
        (
            lambda p: p.away.__setitem__(REVOCATION, Unreachable("nothing accepts connections there")),
            "cannot be reached",
        ),
        (
            lambda p: p.away.__setitem__(ADMIN, TimedOut("no answer within 4 s")),
            "the admin service: it cannot be reached",
        ),
    ],
)
async def test_the_overview_says_at_once_what_is_wrong(inside, spoilt, said):
    spoilt(inside.platform)
    await inside.scrape(rounds=2, every=1.0)
    page = await inside.browser.get("/")
    assert said in page.words
    assert "wrong" in page.words.partition("Issuing")[0]
    assert "Nothing is wrong" not in page.words


async def test_faults_of_ours_are_an_alarm_while_they_go_on(inside):
    await inside.scrape()
    inside.platform.metrics = inside.platform.metrics.replace(b'code="503"} 0', b'code="503"} 7')
    await inside.scrape()
    assert "requests were answered with a fault of ours" in (await inside.browser.get("/")).words


async def test_plots_have_a_table_a_query_and_csv(inside):
    await inside.scrape(rounds=4)
    for path, plots in (
        ("/", ["issuing", "validating", "denied", "latency"]),
        ("/revocations", ["timeline", "denied"]),
        ("/propagation", ["curve", "reach", "list-size", "polling"]),
        ("/validators", ["freshness", "keys-age"]),
        ("/keys", ["keys"]),
    ):
        text = (await inside.browser.get(path)).text
        for plot in plots:
            assert f'id="table-{plot}"' in text, plot
            assert f"csv={plot}" in text
            assert (await inside.browser.get(f"{path}?csv={plot}")).headers["Content-Type"].startswith("text/csv")
        assert '<code id="promql-' in text


# --- Propagation ---------------------------------------------------------------------------------------------


async def test_who_enforces_a_revocation_is_counted_and_who_does_not_is_named_with_the_reason(inside):
    inside.platform.validators = [
        validator("quick", enforced_at=NOW - 99.5),
        validator("slow", enforced_at=NOW - 80.0),
        validator("delivered", applied_as_of=NOW - 98.0),
        validator("behind", applied_as_of=NOW - 130.0, lag=130.0, version="1.3.0"),
        validator("gone", applied_as_of=NOW - 130.0, lag=130.0, last_poll=NOW - 130.0, reported_at=NOW - 130.0),
    ]
    words = (await inside.browser.get("/propagation?id=rev-1")).words
    assert "3 of 5" in words
    assert "its list is 130 s behind; it runs 1.3.0, most run 1.4.0" in words
    assert "last heard of 130 s ago: down, or cut off" in words
    assert "p50 2.0 s" in words
    assert "slowest 20.0 s" in words
    assert "denied since 1 284" in words


async def test_what_was_enforced_once_stays_so_on_the_curve(inside):
    inside.platform.validators = [validator("delivered", applied_as_of=NOW - 98.0)]
    assert "1 of 1" in (await inside.browser.get("/propagation?id=rev-1")).words
    inside.platform.validators = [validator("delivered", applied_as_of=NOW - 50.0)]  # polled again
    csv = (await inside.browser.get("/propagation?id=rev-1&csv=reach")).text
    assert csv.split("\r\n")[1].startswith("delivered,2,")


# --- Audit ---------------------------------------------------------------------------------------------------


def chain(count):
    made = AuditChain("r-1")
    records = [
        made.record("revocation accepted", {"id": f"rev-{number}", "type": "CLAIM", "actor": {"sub": "j.doe"}}, now=NOW)
        for number in range(count)
    ]
    return records, made.head.members()


async def verify(console, records, head):
    console.platform.answers["GET", "/audit"] = (200, {"records": records, "head": head})
    await console.browser.get("/audit")
    return (await console.browser.submit("/audit/verify")).words


async def test_a_whole_chain_is_verified(inside):
    records, head = chain(5)
    assert "The chain holds: 5 records, 1 to 5 of r-1" in await verify(inside, records, head)


@pytest.mark.parametrize("harm", ["changed", "removed", "cut", "remade"])
async def test_a_chain_that_was_tampered_with_is_broken(inside, harm):
    records, head = chain(5)
    if harm == "changed":
        records[2] = {**records[2], "actor": {"sub": "somebody"}}
    elif harm == "removed":
        del records[2]
    elif harm == "cut":
        del records[4]
    else:
        head = {**head, "hash": "cd" * 32}
    words = await verify(inside, records, head)
    assert "The chain is broken: record" in words
    assert "The chain holds" not in words


async def test_an_answer_that_is_no_audit_log_is_not_called_whole(inside):
    assert "The chain is broken" in await verify(inside, [{"seq": 1}], None)


async def test_the_log_is_exported_line_by_line(inside):
    records, head = chain(3)
    inside.platform.answers["GET", "/audit"] = (200, {"records": records, "head": head})
    reply = await inside.browser.get("/audit/export")
    assert reply.headers[hdrs.CONTENT_TYPE] == "application/x-ndjson"
    assert [json.loads(line)["seq"] for line in reply.text.splitlines()] == [3, 2, 1]


async def test_an_export_that_breaks_off_is_not_taken_for_a_whole_one(inside):
    records, head = chain(1000)
    inside.platform.answers["GET", "/audit"] = (200, {"records": records, "head": head})
    answer, asked = inside.platform.call, []

    async def first_only(method, url, **more):
        if "/audit" in url and asked:
            raise Unreachable("nothing accepts connections there")
        asked.append(url)
        return await answer(method, url, **more)

    inside.platform.call = first_only
    with pytest.raises(aiohttp.ClientError):
        await inside.browser.get("/audit/export")


# --- Inspect -------------------------------------------------------------------------------------------------


async def test_the_field_for_a_token_belongs_to_no_form_and_has_no_name(inside):
    text = (await inside.browser.get("/inspect")).text
    field = re.search(r"<textarea[^>]*>", text)[0]
    assert "name=" not in field
    assert "form=" not in field
    before = text[: text.index(field)]
    assert before.count("<form") == before.count("</form>")


async def test_without_a_script_inspect_offers_the_command(inside):
    text = (await inside.browser.get("/inspect")).text
    assert "tokenry token inspect -" in re.search(r"<noscript><div.*?</noscript>", text, re.DOTALL)[0]
    assert re.search(r'<div id="decoder" hidden>', text)


@pytest.mark.parametrize("pasted", ["eyJh.eyJi.c2ln", "a" * 256, " "])
async def test_a_token_in_the_field_for_an_id_is_neither_sent_on_nor_shown(inside, pasted):
    await inside.browser.get("/inspect")
    asked = len(inside.platform.asked)
    page = await inside.browser.submit("/inspect", jti=pasted)
    assert "this is no id of a token" in page.words
    assert pasted == " " or pasted not in page.text
    assert len(inside.platform.asked) == asked
