"""
Tokens from the agent on this machine (`tokenry serve agent`): the credentials are its alone.

Invariants:
    * At most one request to the agent is under way in a process; others wait for its answer.
    * A token that is good is served while the agent does not answer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from tokenry.client.access_token import AccessToken
from tokenry.client.token_endpoint import MAX_ANSWER_BYTES, Refused, read_token_response
from tokenry.clock import Clock, SystemClock
from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.http.fetch import Headers, Response
from tokenry.http.forking import renew_after_fork
from tokenry.scope import format_scope, parse_scope, scope_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ASK_SECONDS: Final = 15.0  # longer than the agent's own tries at the issuer
RENEW_SHARE: Final = 0.5  # of what is left of a token's life: the agent renews it long before
REST_SECONDS: Final = 1.0  # between two tries while the agent does not answer


class AgentTokenSource:
    """
    Tokens that the agent on a unix socket gives.

    Args:
        path: The socket (`TOKENRY_ENDPOINT_SOCKET`).
        scope: Scopes to ask for; the agent gives those only that it is set to give.
        audience: Audience to ask for.
        clock: Where the time comes from.

    Raises:
        ConfigurationError: The path is not absolute.
    """

    def __init__(
        self,
        path: Path | str,
        scope: str | Iterable[str] = (),
        *,
        audience: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Remember where; nothing is asked before the first `get`."""
        self._path = str(path)
        if not self._path.startswith("/"):
            raise ConfigurationError(["TOKENRY_ENDPOINT_SOCKET: the path of the agent's socket, from /"])
        self._scope = parse_scope(scope) if isinstance(scope, str) else scope_of(scope)
        query = {"scope": format_scope(self._scope) or None, "audience": audience}
        self._target = "/token?" + urlencode({name: value for name, value in query.items() if value is not None})
        self._clock = clock or SystemClock()
        self._held: tuple[AccessToken, float, float] | None = None  # with the moments to ask again, and of its end
        self._ask_from = float("-inf")
        self.description = f"the agent on {self._path}"
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Keep the token; take a lock that nobody holds."""
        self._lock = threading.Lock()

    def get(self) -> AccessToken:
        """
        Return a token that is good now (for threads).

        Raises:
            TokenFetchError: The agent does not answer, or refuses.
        """
        held = self._held
        if held is not None and self._clock.monotonic() < held[1]:
            return held[0]
        with self._lock:
            return self._renewed()

    async def aget(self) -> AccessToken:
        """Do as `get` does, for asyncio: the loop goes on meanwhile."""
        held = self._held
        if held is not None and self._clock.monotonic() < held[1]:
            return held[0]
        return await asyncio.to_thread(self.get)

    def invalidate(self, token: AccessToken | str | None = None) -> bool:
        """Drop *token*, because a service refused it; tell whether the next `get` may give another one."""
        value = token.value if isinstance(token, AccessToken) else token
        with self._lock:
            if self._held is not None and value in {None, self._held[0].value}:
                self._held = None
        try:
            return self.get().value != value
        except TokenFetchError:
            return False

    def _renewed(self) -> AccessToken:
        held, now = self._held, self._clock.monotonic()
        if held is not None and now < held[1]:
            return held[0]  # another thread has asked meanwhile
        good = held is not None and now < held[2]
        if held is not None and good and now < self._ask_from:
            return held[0]
        try:
            token, lifetime = self._ask()
        except TokenFetchError:
            self._ask_from = now + REST_SECONDS
            if held is not None and good:
                return held[0]
            raise
        self._held = (token, now + lifetime * RENEW_SHARE, now + lifetime)
        return token

    def _ask(self) -> tuple[AccessToken, float]:
        started = self._clock.now()
        try:
            issued = read_token_response(self._exchange(), wanted=self._scope)
        except Refused as refused:
            raise TokenFetchError(
                f"no token: {refused} (source: {self.description})".replace("the issuer", "the agent"),
                error=refused.error,
                retryable=refused.retryable,
            ) from None
        token = AccessToken(
            value=issued.value.reveal(), expires_at=started + issued.lifetime, scope=issued.scope or self._scope
        )
        return token, issued.lifetime

    def _exchange(self) -> Response:
        connection = _SocketConnection(self._path)
        try:
            # A page in a browser cannot send this field: the agent answers nobody without it.
            connection.request("GET", self._target, headers={"Tokenry-Agent": "1", "Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER_BYTES + 1)
            if len(body) > MAX_ANSWER_BYTES:
                raise TokenFetchError(f"no token: the answer is too large (source: {self.description})")
            return Response(status=answer.status, headers=Headers(answer.getheaders()), body=body)
        except (OSError, HTTPException) as error:
            said = getattr(error, "strerror", None) or type(error).__name__
            raise TokenFetchError(
                f"no token: {self.description} does not answer ({said}); is `tokenry serve agent` running?"
            ) from None
        finally:
            connection.close()

    def __repr__(self) -> str:
        """Show where tokens come from."""
        return f"AgentTokenSource({self._path})"


class _SocketConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ASK_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
