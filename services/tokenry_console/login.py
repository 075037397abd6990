"""The login page, and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenry.serving.keys import CLIENT_ADDRESS
from tokenry.serving.rate_limit import TokenBuckets
from tokenry_console.backends import BackendError
from tokenry_console.rendering import page
from tokenry_console.sessions import TooManySessions
from tokenry_console.site import see_other
from tokenry_console.visiting import Refused

if TYPE_CHECKING:
    from aiohttp import web

    from tokenry_console.site import Site

LOGINS_A_SECOND: Final = 0.5  # of one address: each asks a service
LOGINS_AT_ONCE: Final = 10
MAX_PATH: Final = 500


class Login:
    """Lets people in and out."""

    def __init__(self, site: Site) -> None:
        """Answer for *site*."""
        self._site = site
        self._door = site.parts.door
        self._limit = TokenBuckets(rate=LOGINS_A_SECOND, burst=LOGINS_AT_ONCE)

    async def get(self, request: web.Request) -> web.Response:
        """Show the form."""
        return self._form(local_path(request.query.get("next")))

    async def post(self, request: web.Request) -> web.Response:
        """Begin a session for a pasted token."""
        if self._door.is_proxied:
            return see_other("/")
        form = await self._door.read_login_form(request)
        target = local_path(form.one("next"))
        wait = self._limit.take(request[CLIENT_ADDRESS], now=self._site.monotonic)
        if wait > 0:
            advice = f"Try again in {wait:.0f} s."
            return self._form(target, cause="there were too many attempts from this address", advice=advice, status=429)
        try:
            visit = await self._door.login(form.one("token") or "", before=request.cookies.get(self._door.cookie))
        except Refused as error:
            return self._form(target, cause=error.cause, advice=error.advice, status=403)
        except BackendError as error:
            cause = f"nobody can judge the token now: {error.part}: {error.cause}"
            advice = "Without a judge nobody gets in. The command line (tokenry revoke) asks the services itself."
            return self._form(target, cause=cause, advice=advice, status=503)
        except TooManySessions:
            advice = "Try again later, or raise TOKENRY_CONSOLE_MAX_SESSIONS."
            return self._form(target, cause="too many people are logged in", advice=advice, status=503)
        response = self._site.go(visit, target)
        self._door.drop_cookie(response, self._door.login_cookie)
        return response

    async def logout(self, request: web.Request) -> web.Response:
        """End the session."""
        visit = await self._door.enter(request)
        await self._door.read_form(request, visit.session)
        self._door.logout(request)
        response = see_other("/login")
        self._door.drop_cookie(response, self._door.cookie)
        return response

    def _form(self, target: str, *, cause: str = "", advice: str = "", status: int = 200) -> web.Response:
        settings, secret = self._site.parts.settings, self._site.parts.random()
        response = page(
            "login.html",
            {
                "environment": settings.environment,
                "issuer": settings.issuer,
                "scopes": settings.read_scopes,
                "proxied": self._door.is_proxied,
                "cause": cause,
                "advice": advice,
                "next": target,
                "csrf": secret,
                "live": 0,
            },
            status=status,
        )
        self._door.set_cookie(response, self._door.login_cookie, secret)
        return response


def local_path(asked: str | None) -> str:
    """Return the path *asked* for if it is one of this console, else the first page."""
    if asked is None or len(asked) > MAX_PATH or not asked.startswith("/") or asked.startswith(("//", "/\\")):
        return "/"
    return asked if all("!" <= each <= "~" and each != "\\" for each in asked) else "/"
