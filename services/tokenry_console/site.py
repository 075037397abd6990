"""What all pages share: the parts of the console, its navigation, and how a page is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import hdrs, web

from tokenry_console.asking import Part, Questions
from tokenry_console.backends import SignedOut
from tokenry_console.plots import as_csv
from tokenry_console.rendering import page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tokenry.clock import Clock
    from tokenry_console.backends import Backends
    from tokenry_console.errands import Errands
    from tokenry_console.history import History
    from tokenry_console.plots import Plot
    from tokenry_console.ports import Randomness
    from tokenry_console.settings import Settings
    from tokenry_console.visiting import Door, Visit

NAVIGATION: Final = (
    ("/", "Overview"),
    ("/revocations", "Revocations"),
    ("/propagation", "Propagation"),
    ("/validators", "Validators"),
    ("/keys", "Keys"),
    ("/clients", "Clients"),
    ("/audit", "Audit"),
    ("/inspect", "Inspect"),
)
WRITE_SCOPES: Final = ("revocation.write", "revocation.admin")
CSV_NAME: Final = "tokenry-{}.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """
    Everything that the pages work with.

    Attributes:
        settings: What the console is told.
        clock: Where the time comes from.
        random: Where ids come from.
        door: Lets people in.
        backends: The services.
        history: The scraped hour.
        errands: What goes on beyond a request.
    """

    settings: Settings
    clock: Clock
    random: Randomness
    door: Door
    backends: Backends
    history: History
    errands: Errands


class Site:
    """Answers pages."""

    def __init__(self, parts: Parts) -> None:
        """Work with *parts*."""
        self.parts = parts

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.parts.clock.now()

    @property
    def monotonic(self) -> float:
        """Seconds of a clock that is never set."""
        return self.parts.clock.monotonic()

    async def enter(self, request: web.Request) -> tuple[Visit, Questions]:
        """Return the visit of *request*, and somebody who asks services for it."""
        visit = await self.parts.door.enter(request)
        return visit, Questions(self.parts.backends, visit)

    def show(
        self,
        request: web.Request,
        visit: Visit,
        template: str,
        *,
        plots: Sequence[Plot] = (),
        status: int = 200,
        live: int = 0,
        **context: Any,  # noqa: ANN401 -- templates take anything
    ) -> web.Response:
        """
        Return the page that *template* makes, or one of its *plots* as CSV where the query asks for it.

        Args:
            request: What is answered.
            visit: Of whom.
            template: Name of the template.
            plots: The page's plots.
            status: HTTP status.
            live: Seconds after which the page is fetched again by itself; 0 for never.
            context: What else the template shows.
        """
        wanted = request.query.get("csv")
        if wanted is not None:
            return _csv(wanted, plots)
        session, settings = visit.session, self.parts.settings
        if any(isinstance(each.fault, SignedOut) for each in _parts(context.values())):
            session.doubt()  # the page says so; whether it is the token or that service, the next request finds out
        response = page(
            template,
            {
                "navigation": NAVIGATION,
                "here": request.path,
                "query": {name: value for name, value in request.query.items() if name != "csv"},
                "person": session.person,
                "csrf": session.csrf,
                "notices": session.take_notices(),
                "environment": settings.environment,
                "issuer": settings.issuer,
                "runbooks_url": settings.runbooks_url,
                "proxied": self.parts.door.is_proxied,
                "now": self.now,
                "live": live,
                "plots": {plot.id: plot for plot in plots},
                "may_write": session.may(*WRITE_SCOPES),
                "may_approve": session.may("revocation.admin"),
                "may_undo": session.may("revocation.undo"),
                "may_register": session.may("registry.admin"),
                **context,
            },
            status=status,
        )
        return self.answer(visit, response)

    def answer(self, visit: Visit, response: web.Response) -> web.Response:
        """Return *response*, with the cookie of a session that has just begun."""
        if visit.is_new:
            self.parts.door.set_cookie(response, self.parts.door.cookie, visit.name)
        return response

    def go(self, visit: Visit, path: str) -> web.Response:
        """Return the answer that sends a browser to *path* of this console after a form."""
        return self.answer(visit, see_other(path))


def _parts(values: Iterable[object]) -> Iterator[Part[Any]]:
    """Yield the parts among *values*, and those in lists of them."""
    for value in values:
        if isinstance(value, Part):
            yield value
        elif isinstance(value, list):
            yield from (each for each in value if isinstance(each, Part))


def see_other(path: str) -> web.Response:
    """Return a 303 to *path* of this console."""
    return web.Response(status=303, headers={hdrs.LOCATION: path})


def _csv(name: str, plots: Sequence[Plot]) -> web.Response:
    for plot in plots:
        if plot.id == name:
            disposition = f'attachment; filename="{CSV_NAME.format(plot.id)}"'
            return web.Response(
                text=as_csv(plot),
                content_type="text/csv",
                charset="utf-8",
                headers={hdrs.CONTENT_DISPOSITION: disposition},
            )
    raise web.HTTPNotFound
