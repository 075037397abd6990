"""
Who is at the door: logging in, finding the session of a request, and checking that a form is one of ours.

A request gets to a page in these steps; the first that fails ends it.

1. The session of the cookie, or the bearer that a trusted proxy hands on; neither: the login page.
2. Every half minute a service judges the token again; one that it refuses ends the session.
3. A request that changes something came from a page of ours (`Sec-Fetch-Site`, `Origin`).
4. And its form carries the session's secret, compared in constant time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import b64url_decode, parse_json_object
from tokenry.oauth.form import parse_form
from tokenry.secret import Secret
from tokenry.serving.addresses import is_trusted_peer, parse_listen_address
from tokenry.serving.application import read_body
from tokenry_console.backends import BackendError, NotPermitted, SignedOut
from tokenry_console.sessions import Forged, Person, Session
from tokenry_console.views import number, text, texts

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry.oauth.form import Form
    from tokenry_console.backends import Backends
    from tokenry_console.sessions import Sessions
    from tokenry_console.settings import Settings

JUDGE_SECONDS: Final = 30.0
MAX_TOKEN: Final = 16_384  # characters
MAX_FORM_BYTES: Final = 65_536
LIVE: Final = "X-Tokenry-Live"  # sent by our script when it refreshes a page by itself
_BEARER: Final = "bearer "


class NobodyThere(TokenryError):
    """There is no session; people are sent to the login page."""


class Refused(TokenryError):
    """
    A token does not get anybody in.

    Attributes:
        cause: Why, in words that may be shown.
        advice: What to do next.
    """

    def __init__(self, cause: str, advice: str) -> None:
        """Refuse for *cause*."""
        self.cause = cause
        self.advice = advice
        super().__init__(cause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """
    One request of somebody who is logged in.

    Attributes:
        session: Their session.
        name: Its id as the browser has it; new when *is_new*.
        is_new: Whether the answer has to set the cookie.
    """

    session: Session
    name: str
    is_new: bool = False

    @property
    def bearer(self) -> Secret:
        """Their token."""
        return self.session.bearer


class Door:
    """Lets people in."""

    def __init__(self, settings: Settings, *, clock: Clock, sessions: Sessions, backends: Backends) -> None:
        """Keep *sessions*, for tokens that *backends* accept."""
        self._settings = settings
        self._clock = clock
        self._sessions = sessions
        self._backends = backends
        local = parse_listen_address(settings.listen_address).is_local
        # Plain HTTP is spoken on loopback, or behind a proxy that speaks TLS to the browser.
        self.is_secure = not local or settings.tls_certificate_file is not None or bool(settings.trusted_proxies)
        self.cookie = "__Host-tokenry-console" if self.is_secure else "tokenry-console"
        self.login_cookie = "__Host-tokenry-login" if self.is_secure else "tokenry-login"

    @property
    def is_proxied(self) -> bool:
        """Whether a proxy in front brings the tokens, so that nobody pastes one."""
        return self._settings.bearer_header is not None

    # --- steps 1 and 2 ---------------------------------------------------------------------------------------

    async def enter(self, request: web.Request) -> Visit:
        """
        Return the visit of *request*.

        Raises:
            NobodyThere: Nobody is logged in, or not any more.
            Refused: The proxy's token does not get anybody in.
        """
        now, name = self._clock.monotonic(), request.cookies.get(self.cookie)
        session = self._sessions.find(name, now=now, attended=LIVE not in request.headers)
        if self.is_proxied:
            return await self._enter_by_proxy(request, name, session)
        if session is None or name is None:
            raise NobodyThere("nobody is logged in")
        if now - session.judged_at >= JUDGE_SECONDS:
            await self._judge_again(session, name)
        return Visit(session=session, name=name)

    async def _enter_by_proxy(self, request: web.Request, name: str | None, session: Session | None) -> Visit:
        bearer = self._bearer_of_proxy(request)
        if session is not None and name is not None:
            if session.bearer == bearer:
                if self._clock.monotonic() - session.judged_at >= JUDGE_SECONDS:
                    await self._judge_again(session, name)
                return Visit(session=session, name=name)
            # Another token: another person, or the proxy has refreshed it. Either way it begins anew.
            self._sessions.end(name)
        person = await self.judge(bearer)
        fresh, begun = self._sessions.begin(person, bearer, now=self._clock.monotonic())
        return Visit(session=begun, name=fresh, is_new=True)

    def _bearer_of_proxy(self, request: web.Request) -> Secret:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        address = peer[0] if isinstance(peer, tuple) else None
        if not is_trusted_peer(address, self._settings.trusted_proxies):
            raise Refused(
                "this address is not one of the proxies that log people in",
                "Come by the proxy; TOKENRY_TRUSTED_PROXIES names it.",
            )
        values = request.headers.getall(self._settings.bearer_header or "", [])
        if len(values) != 1 or not values[0]:
            raise Refused(
                "the proxy in front did not hand on a token",
                "Log in at the proxy, and let it send the access token in the configured field.",
            )
        value = values[0]
        return _checked(value[len(_BEARER) :] if value[: len(_BEARER)].lower() == _BEARER else value)

    async def _judge_again(self, session: Session, name: str) -> None:
        try:
            await self.judge(session.bearer)
        except Refused:
            self._sessions.end(name)
            raise NobodyThere("the token is not accepted any more") from None
        except BackendError:
            return  # nobody can say; whoever gives data decides by itself, and the next request asks again
        session.judged_at = self._clock.monotonic()

    # --- logging in ------------------------------------------------------------------------------------------

    async def login(self, pasted: str, *, before: str | None) -> Visit:
        """
        Return a new session for the token that somebody *pasted*; the one of *before* is over.

        Raises:
            Refused: The token does not get anybody in.
            BackendError: Nobody could judge it.
            TooManySessions: There is no room.
        """
        bearer = _checked(pasted.strip())
        person = await self.judge(bearer)
        self._sessions.end(before)
        name, session = self._sessions.begin(person, bearer, now=self._clock.monotonic())
        return Visit(session=session, name=name, is_new=True)

    def logout(self, request: web.Request) -> None:
        """End the session of *request*."""
        self._sessions.end(request.cookies.get(self.cookie))

    async def judge(self, bearer: Secret) -> Person:
        """
        Return who *bearer* says that it is, as token info judges it, else the revocation service.

        Raises:
            Refused: It is no good token of our issuer, or does not allow to look.
            BackendError: Neither could be asked.
        """
        try:
            said = await self._backends.tokeninfo.get("/oauth2/tokeninfo", bearer=bearer)
            person, iss = _person(said, expires_in=number(said, "expires_in")), text(said, "iss")
        except SignedOut:
            raise _not_accepted() from None
        except BackendError as error:
            if error.status is not None and error.status < 500:  # noqa: PLR2004 -- it was judged
                raise _not_accepted() from None
            person, iss = await self._judge_by_revocation(bearer, error)
        if iss != self._settings.issuer:
            raise Refused("this token is of another issuer", f"Get one of {self._settings.issuer}.")
        if person.scopes.isdisjoint(self._settings.read_scopes):
            raise Refused(
                "this token does not allow to look at the console",
                f"It needs one of the scopes {', '.join(self._settings.read_scopes)}.",
            )
        return person

    async def _judge_by_revocation(self, bearer: Secret, error: BackendError) -> tuple[Person, str | None]:
        """Let the revocation service say whether the token is good; what is in it is then read here."""
        try:
            await self._backends.revocation.get("/validators", bearer=bearer)
        except SignedOut:
            raise _not_accepted() from None
        except NotPermitted:
            pass  # good, and without a scope of that service
        except BackendError:
            raise error from None
        try:
            said = parse_json_object(b64url_decode(bearer.reveal().split(".")[1]))
        except (ProtocolError, IndexError, ValueError):
            raise _not_accepted() from None
        expires = number(said, "exp")
        left = None if expires is None else expires - self._clock.now()
        scopes = text(said, "scope")
        said = {**said, "uid": said.get("sub"), "scope": (scopes or "").split(" ")}
        return _person(said, expires_in=left), text(said, "iss")

    # --- steps 3 and 4 ---------------------------------------------------------------------------------------

    async def read_form(self, request: web.Request, session: Session) -> Form:
        """
        Return the form of *request*.

        Raises:
            Forged: It was not sent by a page of this session.
        """
        check_origin(request)
        form = await _read_form(request)
        session.check_form(form.one("csrf"))
        return form

    async def read_login_form(self, request: web.Request) -> Form:
        """
        Return the login form of *request*: its secret is that of the cookie that came with the form.

        Raises:
            Forged: It was not sent by our login page.
        """
        check_origin(request)
        form = await _read_form(request)
        held = request.cookies.get(self.login_cookie)
        if not held or not Secret(held).matches(form.one("csrf") or ""):
            raise Forged("the form is not one of this browser")
        return form

    def set_cookie(self, response: web.StreamResponse, name: str, value: str) -> None:
        """Let the browser keep *value* until it is closed."""
        response.set_cookie(name, value, httponly=True, samesite="Strict", secure=self.is_secure, path="/")

    def drop_cookie(self, response: web.StreamResponse, name: str) -> None:
        """Let the browser forget it."""
        response.set_cookie(name, "", max_age=0, httponly=True, samesite="Strict", secure=self.is_secure, path="/")


def check_origin(request: web.Request) -> None:
    """
    Return when *request* was made by a page of ours, as far as the browser says.

    Raises:
        Forged: The browser says that it was not.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site != "same-origin":
        raise Forged("the form was sent by a page of another site")
    origin = request.headers.get(hdrs.ORIGIN)
    if site is None and origin is not None and _authority(origin) != request.headers.get(hdrs.HOST):
        raise Forged("the form was sent by a page of another site")


def _authority(origin: str) -> str | None:
    """Return host and port of *origin*; None for what is no origin, which no browser sends."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _read_form(request: web.Request) -> Form:
    body = await read_body(request, limit=MAX_FORM_BYTES)
    return parse_form(body, content_type=request.headers.get(hdrs.CONTENT_TYPE))


def _checked(token: str) -> Secret:
    """Return *token* if it can stand in a header field; a line break would write another field."""
    if token[: len(_BEARER)].lower() == _BEARER:
        token = token[len(_BEARER) :].strip()
    if not 0 < len(token) <= MAX_TOKEN or not token.isascii() or not all("!" <= each <= "~" for each in token):
        raise _not_accepted()
    return Secret(token)


def _not_accepted() -> Refused:
    return Refused(
        "the token is not accepted",
        "It may have expired or been revoked, or be incomplete: get a new one and paste all of it.",
    )


def _person(said: dict[str, Any], *, expires_in: float | None) -> Person:
    sub = text(said, "uid")
    if sub is None or expires_in is None or expires_in <= 0:
        raise _not_accepted()
    return Person(
        sub=sub,
        client_id=text(said, "client_id"),
        realm=text(said, "realm"),
        scopes=frozenset(texts(said, "scope")),
        lives_for=expires_in,
    )
