"""The pages Keys and Clients: what the admin service says, and what it is asked to do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from tokenry_console.asking import part
from tokenry_console.backends import NotConfigured, path_of
from tokenry_console.pictures import key_timeline
from tokenry_console.plots import Plot
from tokenry_console.views import Preview, moment, text
from tokenry_console.wording import when

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aiohttp import web

    from tokenry_console.asking import Part
    from tokenry_console.site import Site
    from tokenry_console.views import Client
    from tokenry_console.visiting import Visit

STATES: Final = ("scheduled", "published", "active", "retiring", "retired")
ACTIONS: Final = {"disable": "disabled", "enable": "enabled", "rotate-secret": "given a new secret"}
OLD_SECRET_DAYS: Final = 90
MAX_REALM: Final = 200
CHANGE_SECONDS: Final = 185.0  # the admin service waits for issuers for up to three minutes
PATIENCE_SECONDS: Final = 3.0  # for which a person looks at a page that loads


class Registry:
    """Shows and changes keys and clients."""

    def __init__(self, site: Site, *, patience: float = PATIENCE_SECONDS) -> None:
        """Answer for *site*; a change that takes more than *patience* seconds goes on without the page."""
        self._site = site
        self._patience = patience

    # --- keys ------------------------------------------------------------------------------------------------

    async def keys(self, request: web.Request) -> web.Response:
        """Show the life of every key."""
        visit, ask = await self._site.enter(request)
        known, published = await asyncio.gather(part(ask.keys()), part(ask.published_keys()))
        keys, said = known.value if known.value is not None else ([], {})
        now = self._site.now
        places = list(self._site.parts.history.places.values())
        return self._site.show(
            request,
            visit,
            "keys.html",
            plots=[
                Plot(
                    id="keys",
                    title="The life of each signing key",
                    columns=["kid", "use", "state", "published", "signs from", "signs until", "removable after"],
                    rows=[
                        [
                            each.kid,
                            each.use,
                            each.state,
                            when(each.publish_at),
                            when(each.activate_at),
                            when(each.retire_at),
                            when(each.removable_at),
                        ]
                        for each in keys
                    ],
                    picture=key_timeline(keys, now=now) if keys else None,
                    time=False,
                    promql="tokenry_signing_key_expiry_timestamp_seconds",
                    note="Near to now the picture is stretched. The thin line is the moment at which the last token of "
                    "a key has expired: from then on it is safe to remove.",
                    empty="The admin service tells of no key.",
                )
            ]
            if known.fault is None
            else [],
            known=known,
            keys=keys,
            published=published,
            is_configured=not isinstance(known.fault, NotConfigured),
            next_rotation_at=moment(said, "next_rotation_at"),
            scraped=[
                (place, {state: place.value(f"tokenry_signing_keys_{state}") for state in STATES})
                for place in places
                if place.value("tokenry_signing_keys_active") is not None
            ],
            expiries=sorted(
                {
                    (kid, until)
                    for place in places
                    for kid, until in place.labelled("tokenry_signing_key_expiry_timestamp_seconds").items()
                }
            ),
        )

    async def rotate_keys(self, request: web.Request) -> web.Response:
        """Begin a rotation: make a key, publish it, and sign with it once everybody has it."""
        visit, _ = await self._site.enter(request)
        form = await self._site.parts.door.read_form(request, visit.session)
        if (form.one("typed") or "").strip() != "rotate":
            return self._not_typed(visit, "rotate", "/keys")
        body = {"use": "token"} | ({"reason": reason} if (reason := form.one("reason")) else {})
        done = await part(self._site.parts.backends.admin.post("/keys/rotate", body, bearer=visit.bearer))
        if done.value is None:
            return self._failed(visit, done, "/keys")
        key = done.value[1]
        kid = text(key, "kid") or text(inner if isinstance(inner := key.get("key"), dict) else {}, "kid") or "a new key"
        said = f"Made: {kid}. It signs from {when(moment(key, 'activate_at'))} on, once every validator has it."
        visit.session.tell("good", said)
        return self._site.go(visit, "/keys")

    async def retire_key(self, request: web.Request) -> web.Response:
        """Take a key out of the JWK Set, or say what that it signed is in use."""
        visit, _ = await self._site.enter(request)
        form = await self._site.parts.door.read_form(request, visit.session)
        kid = request.match_info["kid"]
        if (form.one("typed") or "").strip() != kid:
            return self._not_typed(visit, kid, "/keys")
        done = await part(self._site.parts.backends.admin.post(f"/keys{path_of(kid)}/retire", {}, bearer=visit.bearer))
        if done.value is None:
            return self._failed(visit, done, "/keys")
        visit.session.tell("good", f"Retired: {kid}.")
        return self._site.go(visit, "/keys")

    # --- clients ---------------------------------------------------------------------------------------------

    async def clients(self, request: web.Request) -> web.Response:
        """Show the clients."""
        visit, ask = await self._site.enter(request)
        realm = request.query.get("realm", "").strip()[:MAX_REALM] or None
        known = await part(ask.clients(realm))
        words = request.query.get("q", "").strip()[:MAX_REALM]
        shown = [each for each in known.value or () if _mentions(each, words)]
        return self._site.show(
            request,
            visit,
            "clients.html",
            known=known,
            shown=sorted(shown, key=lambda each: (each.realm, each.client_id)),
            total=len(known.value or ()),
            words=words,
            realm=realm,
            is_configured=not isinstance(known.fault, NotConfigured),
            old_secret=OLD_SECRET_DAYS * 86_400,
        )

    async def client(self, request: web.Request) -> web.Response:
        """Show one client, and how many of its tokens live."""
        visit, ask = await self._site.enter(request)
        realm, client_id = request.match_info["realm"], request.match_info["id"]
        known = await part(ask.client(realm, client_id))
        counted = await part(self._count(visit, realm, client_id)) if known.value is not None else None
        status = 200 if known.fault is None else known.fault.page_status
        return self._site.show(
            request,
            visit,
            "client.html",
            known=known,
            counted=counted,
            realm=realm,
            client_id=client_id,
            old_secret=OLD_SECRET_DAYS * 86_400,
            status=status,
        )

    async def _count(self, visit: Visit, realm: str, client_id: str) -> Preview:
        """Return what a revocation of all tokens of a client would hit; nothing is revoked."""
        body = {"type": "CLAIM", "data": {"claims": {"client_id": client_id, "realm": f"/{realm.strip('/')}"}}}
        _, said = await self._site.parts.backends.revocation.post(
            "/revocations", body, bearer=visit.bearer, query={"dry_run": "true"}
        )
        return Preview.of(said)

    async def change_client(self, request: web.Request) -> web.Response:
        """Disable or enable a client, or give it a new secret."""
        visit, _ = await self._site.enter(request)
        form = await self._site.parts.door.read_form(request, visit.session)
        realm, client_id, action = (request.match_info[name] for name in ("realm", "id", "action"))
        place = "/clients" + path_of(realm, client_id)
        if (form.one("typed") or "").strip() != client_id.strip():
            return self._not_typed(visit, client_id, place)
        body: dict[str, object] = {}
        if action == "disable" and form.one("revoke") == "yes":
            body["revoke"] = True
        asked = self._site.parts.backends.admin.post(
            f"{place}/{action}", body, bearer=visit.bearer, seconds=CHANGE_SECONDS
        )
        task = self._site.parts.errands.run(self._change(visit, asked, client_id, action))
        finished, _ = await asyncio.wait([task], timeout=self._patience)
        if not finished:
            said = f"{client_id}: it goes on, and waits for every issuer to know it; that takes a minute or two."
            visit.session.tell("info", said)
        return self._site.go(visit, place)

    async def _change(
        self, visit: Visit, asked: Awaitable[tuple[int, dict[str, Any]]], client_id: str, action: str
    ) -> None:
        """Wait for a change that may take minutes, and put its outcome onto the person's next page."""
        done = await part(asked)
        if done.value is None:
            visit.session.tell("bad", _said(done))
            return
        said = f"{client_id} is {ACTIONS[action]}."
        if action == "rotate-secret":
            # It is in the application's bucket; if the answer had it, it is not shown.
            said += " It is in the application's bucket; the old one holds until the new one is in use everywhere."
        visit.session.tell("good", said)

    # --- both ------------------------------------------------------------------------------------------------

    def _not_typed(self, visit: Visit, word: str, place: str) -> web.Response:
        visit.session.tell("bad", f"Nothing was done: type {word} to confirm.")
        return self._site.go(visit, place)

    def _failed(self, visit: Visit, done: Part[Any], place: str) -> web.Response:
        visit.session.tell("bad", _said(done))
        return self._site.go(visit, place)


def _said(done: Part[Any]) -> str:
    fault = done.fault
    return "" if fault is None else f"{fault.part}: {fault.cause}. {fault.advice}"


def _mentions(one: Client, words: str) -> bool:
    return not words or any(words.lower() in each.lower() for each in (one.realm, one.client_id, *one.scopes))
