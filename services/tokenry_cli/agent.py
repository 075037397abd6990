"""
`tokenry serve agent`: token info and a source of tokens on a unix socket of this machine, for programs in any language.

It answers what token info answers (`/auth`, `/oauth2/tokeninfo`, …), and `GET /token?scope=…&audience=…` with a token
of this program's own identity. Whoever may connect to the socket may have such a token: its group decides.

Invariants:
    * It listens on a unix socket (mode 0660) or on loopback, and nowhere else.
    * Tokens are given for the listed scopes and audiences only; none is listed: none are given.
    * A request for a token needs the field `Tokenry-Agent`, which no page in a browser and no redirect can send.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from aiohttp import web
from pydantic import Field

from tokenry.client.default import default_source
from tokenry.clock import Clock, SystemClock
from tokenry.errors import TokenFetchError
from tokenry.oauth.errors import (
    NO_STORE,
    OAuthError,
    invalid_request,
    invalid_scope,
    invalid_target,
    temporarily_unavailable,
)
from tokenry.scope import InvalidScope, Scope, format_scope, parse_scope, scope_of
from tokenry.serving.addresses import parse_listen_address
from tokenry.serving.server import command
from tokenry.serving.settings import ListenOn, Names
from tokenry_tokeninfo.__main__ import compose as compose_tokeninfo
from tokenry_tokeninfo.settings import Settings as TokeninfoSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tokenry.client.access_token import TokenSource

FIELD: Final = "Tokenry-Agent"
MAX_SOURCES: Final = 64  # different pairs of scope and audience that are asked for; each holds a token
UNKNOWN_SECONDS: Final = 60  # after which to ask again for a token that somebody else takes care of
_PARAMETERS: Final = frozenset({"scope", "audience"})


class AgentSettings(TokeninfoSettings):
    """What the agent is told: what token info is, where it listens, and which tokens it gives."""

    own_prefixes: ClassVar[tuple[str, ...]] = (*TokeninfoSettings.own_prefixes, "TOKENRY_AGENT_")

    listen_address: ListenOn = Field(
        "unix:/run/tokenry/agent.sock",
        description="The unix socket (mode 0660: its group may ask), or a port of loopback, where every program of "
        "this machine may ask.",
    )
    agent_scopes: Names = Field(
        (), description="Scopes for which GET /token gives tokens, separated by commas. Default: no tokens at all."
    )
    agent_audiences: Names = Field(
        (),
        description="Audiences for which it gives them. Default: only without one, for the issuer's default audience.",
    )

    def contradictions(self) -> Iterator[str]:
        """Yield what cannot be meant."""
        yield from super().contradictions()
        if not parse_listen_address(self.listen_address).is_local:
            yield "TOKENRY_LISTEN_ADDRESS: the agent listens on unix:/path or on loopback only"
        try:
            scope_of(self.agent_scopes)
        except InvalidScope:
            yield "TOKENRY_AGENT_SCOPES: one of them is no scope (RFC 6749 section 3.3)"


class Giver:
    """
    Gives tokens of one identity.

    Args:
        scopes: For which scopes.
        audiences: For which audiences.
        source: Makes the source of tokens for scope and audience.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        *,
        scopes: Scope,
        audiences: frozenset[str],
        source: Callable[[Scope, str | None], TokenSource],
        clock: Clock,
    ) -> None:
        """Make no source yet."""
        self._scopes, self._audiences = scopes, audiences
        self._make, self._clock = source, clock
        self._sources: dict[tuple[Scope, str | None], TokenSource] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """
        Answer `GET /token`.

        1. The field that says that a program asks.
        2. Only known parameters, each once.
        3. Listed scopes (none: all that are listed) and a listed audience (none: the default one).
        4. The token, from memory where one is held.

        Raises:
            OAuthError: With the answer.
        """
        if request.headers.getall(FIELD, []) != ["1"]:
            raise invalid_request(f"send the header field {FIELD}: 1")
        scope, audience = self._wanted(request)
        try:
            token = await self._source(scope, audience).aget()
        except TokenFetchError as error:
            if error.retryable:
                raise temporarily_unavailable("no token could be had from the issuer") from error
            raise OAuthError("server_error", "the issuer refuses the agent: see the agent's log", status=502) from error
        left = min(token.expires_at - self._clock.now(), UNKNOWN_SECONDS if token.expires_at == float("inf") else 1e9)
        body = {
            "access_token": token.value,
            "token_type": "Bearer",
            "expires_in": max(1, int(left)),
            "scope": format_scope(token.scope or scope),
        }
        return web.json_response(body, headers=dict(NO_STORE))

    def _wanted(self, request: web.Request) -> tuple[Scope, str | None]:
        query = request.query
        if set(query) - _PARAMETERS or len(query) != len(set(query)):
            raise invalid_request("the parameters are scope and audience, each once")
        try:
            scope = parse_scope(query.get("scope", ""))
        except InvalidScope:
            raise invalid_scope() from None
        if refused := scope - self._scopes:
            raise invalid_scope(refused)
        audience = query.get("audience")
        if audience is not None and audience not in self._audiences:
            raise invalid_target()
        return scope or self._scopes, audience

    def _source(self, scope: Scope, audience: str | None) -> TokenSource:
        found = self._sources.get((scope, audience))
        if found is None:
            if len(self._sources) >= MAX_SOURCES:
                raise temporarily_unavailable(f"more than {MAX_SOURCES} kinds of tokens are asked for", retry_after=60)
            found = self._sources[scope, audience] = self._make(scope, audience)
        return found


def compose(
    environ: Mapping[str, str], settings: AgentSettings, *, clock: Clock | None = None
) -> Callable[[], web.Application]:
    """
    Return what makes the application inside the event loop.

    Raises:
        ConfigurationError: Tokens are to be given, and there is no identity to get them with.
    """
    clock = clock or SystemClock()
    make_tokeninfo = compose_tokeninfo(settings, clock=clock)
    known = {name: value for name, value in environ.items() if name != "TOKENRY_ENDPOINT_SOCKET"}
    known.setdefault("TOKENRY_ISSUER", settings.issuer_identifier)

    def source(scope: Scope, audience: str | None) -> TokenSource:
        plain = bool(settings.plain_http_hosts)
        return default_source(scope, environ=known, audience=audience, allow_plain_http=plain)

    if settings.agent_scopes:
        source(scope_of(settings.agent_scopes), None)  # so that what is missing is said at start

    def make() -> web.Application:
        app = make_tokeninfo()
        if settings.agent_scopes:
            giver = Giver(
                scopes=scope_of(settings.agent_scopes),
                audiences=frozenset(settings.agent_audiences),
                source=source,
                clock=clock,
            )
            app.router.add_get("/token", giver.answer, allow_head=False)
        return app

    return make


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the agent and return the exit code of the process."""
    given = os.environ if environ is None else environ
    return command(
        sys.argv[1:] if argv is None else argv,
        given,
        service="agent",
        settings_class=AgentSettings,
        compose=partial(compose, given),
    )
