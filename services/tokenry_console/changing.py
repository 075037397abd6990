"""
The page Revocations, and everything there that changes something.

A revocation is made in two steps: its preview is shown beside the form, and what is confirmed is what was previewed,
kept here meanwhile. The confirmation is typed. The service decides whether the person may; the console only does not
offer what it knows to be refused.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import TokenryError
from tokenry_console import metric_plots
from tokenry_console.asking import part, real_faults
from tokenry_console.backends import path_of
from tokenry_console.pictures import revocation_timeline
from tokenry_console.plots import Plot
from tokenry_console.sessions import Draft
from tokenry_console.views import Preview, text
from tokenry_console.wording import when

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp import web

    from tokenry.oauth.form import Form
    from tokenry_console.asking import Part, Questions
    from tokenry_console.site import Site
    from tokenry_console.views import Revocation
    from tokenry_console.visiting import Visit

TIMELINE_SECONDS: Final = 3600.0  # as long as metrics are kept: what is below has the same axis
CLAIM_ROWS: Final = 3
MAX_FIELD: Final = 20_000  # characters; a token has at most 8192
MAX_CUTOFF: Final = 10**11  # Unix seconds that can be written as a date
REASONS: Final = ("key-compromise", "leak", "offboarding", "test")
KINDS: Final = (
    ("claims", "Tokens by claims"),
    ("jti", "One token by its id"),
    ("token", "One token"),
    ("key", "All tokens of a signing key"),
    ("all", "All tokens"),
)
FORM_FIELDS: Final = (
    "kind", "jti", "kid", "issued_before", "reason", "ticket",
    *(f"{half}{row}" for row in range(CLAIM_ROWS) for half in ("name", "value")),
)  # fmt: skip


class Malformed(TokenryError):
    """A form was filled in in a way that says nothing; the text says what to correct."""


class Changing:
    """Shows revocations, makes them, and takes them back."""

    def __init__(self, site: Site) -> None:
        """Answer for *site*."""
        self._site = site

    # --- GET /revocations ------------------------------------------------------------------------------------

    async def list(self, request: web.Request) -> web.Response:
        """Show the timeline, the table, and the form for a new one."""
        visit, ask = await self._site.enter(request)
        return await self._page(request, visit, ask)

    async def _page(
        self,
        request: web.Request,
        visit: Visit,
        ask: Questions,
        *,
        filled: Mapping[str, str] | None = None,
        complaint: str = "",
        preview: Part[Preview] | None = None,
        draft: Draft | None = None,
        status: int = 200,
    ) -> web.Response:
        known, parts = await ask.revocations()
        words = request.query.get("q", "").strip()[:200]
        shown = [each for each in known if _mentions(each, words)] if words else known
        detailed = await ask.with_details(shown)
        history = self._site.parts.history
        plots = [_timeline(detailed, now=self._site.now), metric_plots.denied(history, span=TIMELINE_SECONDS)]
        if preview is not None and preview.value is not None and preview.value.horizon:
            plots.append(_horizon(preview.value, now=self._site.now))
        return self._site.show(
            request,
            visit,
            "revocations.html",
            plots=plots,
            status=status,
            shown=detailed,
            words=words,
            total=len(known),
            faults=real_faults(parts),
            parts=parts,
            kinds=KINDS,
            reasons=REASONS,
            claim_rows=range(CLAIM_ROWS),
            filled=filled or {},
            complaint=complaint,
            preview=preview,
            draft=draft,
        )

    # --- a new one -------------------------------------------------------------------------------------------

    async def preview(self, request: web.Request) -> web.Response:
        """Show what a revocation would do, beside the form."""
        visit, ask = await self._site.enter(request)
        form = await self._site.parts.door.read_form(request, visit.session)
        filled = {name: value for name in FORM_FIELDS if (value := form.one(name)) is not None}
        try:
            body, summary, word = read_revocation(form)
        except Malformed as error:
            return await self._page(request, visit, ask, filled=filled, complaint=str(error), status=400)
        asked = await part(self._preview(visit, body))
        draft = None
        if asked.value is not None:
            draft = Draft(
                id=self._site.parts.random(),
                body=body,
                summary=summary,
                word=word,
                preview={},
                made_at=self._site.monotonic,
            )
            visit.session.keep_draft(draft)
        return await self._page(
            request, visit, ask, filled=filled, preview=asked, draft=draft, status=200 if asked.value else 422
        )

    async def _preview(self, visit: Visit, body: Mapping[str, object]) -> Preview:
        revocation = self._site.parts.backends.revocation
        _, said = await revocation.post("/revocations", body, bearer=visit.bearer, query={"dry_run": "true"})
        return Preview.of(said)

    async def confirm(self, request: web.Request) -> web.Response:
        """Do what was previewed, once its word was typed."""
        visit, ask = await self._site.enter(request)
        form = await self._site.parts.door.read_form(request, visit.session)
        draft = visit.session.draft(form.one("draft") or "", now=self._site.monotonic)
        if draft is None:
            complaint = "The preview is too old, or was confirmed already: look at it again. Nothing was done now."
            return await self._page(request, visit, ask, complaint=complaint, status=409)
        if (form.one("typed") or "").strip() != draft.word:
            asked = await part(self._preview(visit, draft.body))
            complaint = f"Nothing was done: type {draft.word!r} to confirm, just as it is written."
            return await self._page(request, visit, ask, complaint=complaint, preview=asked, draft=draft, status=400)
        body = dict(draft.body) | ({"confirm": True} if draft.body.get("type") == "GLOBAL" else {})
        # The draft's name makes a repetition harmless: a timeout here says nothing about whether it was stored.
        done = await part(
            self._site.parts.backends.revocation.post("/revocations", body, bearer=visit.bearer, key=draft.id)
        )
        if done.value is None:
            status = 502 if done.fault is None else done.fault.page_status
            return await self._page(request, visit, ask, draft=draft, complaint=_said(done), status=status)
        visit.session.drafts.pop(draft.id, None)
        status, said = done.value
        name = text(said, "id") or ""
        if status == 202:  # noqa: PLR2004 -- accepted, and waits
            visit.session.tell(
                "info",
                f"{draft.summary} waits for a second person until {when(_seconds(said, 'expires_at'))}: "
                f"somebody else with revocation.admin approves {name}. Nothing is in force yet.",
            )
            return self._site.go(visit, "/revocations" + path_of(name))
        visit.session.tell("good", f"Stored: {draft.summary} is revoked. Undo with: tokenry revoke undo {name}")
        return self._site.go(visit, f"/propagation?id={path_of(name)[1:]}")

    # --- one of them -----------------------------------------------------------------------------------------

    async def show(self, request: web.Request) -> web.Response:
        """Show one revocation, and what can be done about it."""
        visit, ask = await self._site.enter(request)
        one = await part(ask.revocation(request.match_info["id"]))
        status = 200 if one.fault is None else one.fault.page_status
        return self._site.show(request, visit, "revocation.html", one=one, name=request.match_info["id"], status=status)

    async def undo(self, request: web.Request) -> web.Response:
        """Take a mistake back."""
        visit, _ = await self._site.enter(request)
        form = await self._site.parts.door.read_form(request, visit.session)
        name = request.match_info["id"]
        if (form.one("typed") or "").strip() != "undo":
            visit.session.tell("bad", "Nothing was done: type undo to confirm.")
            return self._site.go(visit, "/revocations" + path_of(name))
        body = {key: value for key in ("reason", "ticket") if (value := form.one(key)) is not None}
        done = await part(
            self._site.parts.backends.revocation.post(f"/revocations{path_of(name)}/undo", body, bearer=visit.bearer)
        )
        if done.value is None:
            visit.session.tell("bad", _said(done))
        else:
            visit.session.tell(
                "good",
                "Taken back: validators drop it with their next news. Validators of Plan B keep it until they restart.",
            )
        return self._site.go(visit, "/revocations" + path_of(name))

    async def approve(self, request: web.Request) -> web.Response:
        """Put in force what another person asked for."""
        visit, _ = await self._site.enter(request)
        form = await self._site.parts.door.read_form(request, visit.session)
        name = request.match_info["id"]
        if (form.one("typed") or "").strip() != "approve":
            visit.session.tell("bad", "Nothing was done: type approve to confirm.")
            return self._site.go(visit, "/revocations" + path_of(name))
        done = await part(
            self._site.parts.backends.revocation.post(f"/revocations{path_of(name)}/approve", {}, bearer=visit.bearer)
        )
        if done.value is None:
            visit.session.tell("bad", _said(done))
            return self._site.go(visit, "/revocations" + path_of(name))
        made = text(done.value[1], "id") or name
        visit.session.tell("good", f"Approved and in force. Undo with: tokenry revoke undo {made}")
        return self._site.go(visit, f"/propagation?id={path_of(made)[1:]}")


def read_revocation(form: Form) -> tuple[dict[str, Any], str, str]:
    """
    Return what the form asks the service for, in words that may be shown, and the word that confirms it.

    Raises:
        Malformed: It says nothing, or two things.
    """
    kind = form.one("kind") or ""
    data: dict[str, Any] = {}
    if kind == "claims":
        claims = dict(_claims(form))
        if not claims:
            raise Malformed("Give at least one claim: its name and its value.")
        data["claims"] = claims
        what, word = " and ".join(f"{name} = {value}" for name, value in claims.items()), next(iter(claims.values()))
        type_ = "CLAIM"
    elif kind == "jti":
        data["jti"] = _field(form, "jti", "the token's id, the value of its claim jti")
        what, word, type_ = f"the token with the id {data['jti']}", "one token", "TOKEN"
    elif kind == "token":
        data["token"] = _field(form, "token", "the token, all of it")
        what, word, type_ = "the token that was pasted", "one token", "TOKEN"
    elif kind == "key":
        data["kid"] = _field(form, "kid", "the key's id")
        what, word, type_ = f"everything that the key {data['kid']} signed", data["kid"], "KEY"
    elif kind == "all":
        what, word, type_ = "all tokens", "all tokens", "GLOBAL"
    else:
        raise Malformed("Say what to revoke.")
    cutoff = form.one("issued_before")
    if cutoff is not None and type_ in {"CLAIM", "GLOBAL"}:
        data["issued_before"] = _cutoff(cutoff)
        what += f", issued before {when(data['issued_before'])}"
    body: dict[str, Any] = {"type": type_, "data": data}
    for name in ("reason", "ticket"):
        if (value := form.one(name)) is not None:
            body[name] = value.strip()
    return body, what, word


def _claims(form: Form) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for row in range(CLAIM_ROWS):
        name, value = (form.one(f"name{row}") or "").strip(), (form.one(f"value{row}") or "").strip()
        if not name and not value:
            continue
        if not name or not value:
            raise Malformed("A claim has a name and a value; one of them is missing.")
        if name in dict(found):
            raise Malformed(f"The claim {name} stands there twice; give it once.")
        found.append((name, value))
    return found


def _field(form: Form, name: str, what: str) -> str:
    value = (form.one(name) or "").strip()
    if not value:
        raise Malformed(f"Give {what}.")
    if len(value) > MAX_FIELD:
        raise Malformed(f"This is longer than {what} can be.")
    return value


def _cutoff(said: str) -> int:
    try:
        moment = datetime.fromisoformat(said.strip())
    except ValueError:
        raise Malformed("Write the cut-off as 2026-11-21T05:58:00Z, or leave it empty: all issued up to now.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = int(moment.timestamp())
    if not 0 <= seconds < MAX_CUTOFF:  # with an offset it may also lie in a year that has no name
        raise Malformed("The cut-off lies before 1970 or too far ahead: write the moment up to which tokens are bad.")
    return seconds


def _mentions(one: Revocation, words: str) -> bool:
    said = (one.id, one.type, one.actor, one.ticket, one.reason, one.state, one.approved_by, *one.names)
    return any(words.lower() in each.lower() for each in said if each)


def _seconds(members: Mapping[str, Any], name: str) -> float | None:
    value = members.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e11 else None  # noqa: PLR2004 -- a date


def _said(done: Part[Any]) -> str:
    fault = done.fault
    return "" if fault is None else f"{fault.part}: {fault.cause}. {fault.advice}"


def _timeline(shown: Sequence[Revocation], *, now: float) -> Plot:
    dated = [each for each in shown if each.at is not None]
    return Plot(
        id="timeline",
        title="Revocations of the last hour",
        columns=["time", "type", "what", "state", "refused since", "ticket", "who", "id"],
        rows=[
            [when(each.at), each.type, each.what, each.state, each.denied, each.ticket, each.actor, each.id]
            for each in dated
        ],
        picture=revocation_timeline(dated, now=now, seconds=TIMELINE_SECONDS),
        time=False,
        promql="sum by (type) (increase(tokenry_revocations_created_total[1h]))",
        note="The larger a dot, the more tokens were refused by it since.",
        empty="No revocation is known whose time is known.",
    )


def _horizon(preview: Preview, *, now: float) -> Plot:
    left = preview.live_tokens or 0
    rows: list[list[float | int]] = [[0.0, left]]
    for end, count in sorted(preview.horizon):
        left = max(0, left - count)
        rows.append([max(0.0, round((end - now) / 60, 2)), left])
    return Plot(
        id="horizon",
        title="Wait or revoke? Live tokens of these that are left without revoking, against minutes from now",
        kind="steps",
        columns=["minutes from now", "live tokens"],
        rows=rows,
        time=False,
        note="Counted in steps of up to five minutes; tokens that are issued from now on are not in it.",
    )
