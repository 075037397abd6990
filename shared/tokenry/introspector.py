"""
The remote twin of the validator: the same `validate`, by introspection (RFC 7662), for those who may not hold
keys and lists.

Invariants:
    * An answer counts for the token and the moment that it was asked for; it is remembered only where that was
      asked for, never past the token's end, and under a hash of the token.
    * No answer, or one that is not understood, is `ValidatorNotReady`: never a yes, never a no.
    * What does not look like a token is refused without asking; after a failure nobody is asked for a second;
      a bounded number of requests is under way.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlencode

from tokenry.claims import TokenInfo
from tokenry.client.credentials import ClientSecrets
from tokenry.client.token_endpoint import basic_credentials
from tokenry.clock import Clock, SystemClock
from tokenry.errors import (
    ConfigurationError,
    InsufficientScope,
    InvalidToken,
    ProtocolError,
    Reason,
    TokenFetchError,
    Unready,
    ValidatorNotReady,
)
from tokenry.http.fetch import Fetcher, FetchFailed, HttpFetcher, Request, check_url
from tokenry.http.forking import renew_after_fork
from tokenry.jose.encoding import parse_json_object
from tokenry.oauth.confirmation import NOTHING, Shown, demanded_by, is_met
from tokenry.scope import NO_SCOPE, InvalidScope, Scope, parse_scope, scope_of
from tokenry.secret import Secret
from tokenry.sources.metadata import MAX_METADATA_BYTES, metadata_urls, parse_metadata
from tokenry.validation.policy import AnyAudience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from concurrent.futures import Future

    from tokenry.client.access_token import TokenSource

log = logging.getLogger("tokenry")

MAX_TOKEN_BYTES: Final = 8 * 1024  # what the validator takes
MAX_ANSWER_BYTES: Final = 64 * 1024
DEADLINE_SECONDS: Final = 3.0
REST_SECONDS: Final = 1.0  # after a failure, so that an outage is not answered with a flood
THREADS: Final = 16  # requests under way at once
MAX_WAITING: Final = 1024  # callers; more are told to try later
MAX_REMEMBERED: Final = 20_000
LONGEST_MEMORY_SECONDS: Final = 300.0  # a revoked token lives as long
METADATA_SECONDS: Final = 3600.0
_TOKEN = re.compile(r"[\x21-\x7e]+")
_OK: Final = 200


class Introspector:
    """
    Validates access tokens by asking token info, at each call.

    Args:
        issuer: Issuer identifier. Its metadata tell where introspection is.
        audience: The name, or names, under which tokens are issued for this service; `ANY_AUDIENCE` to accept
            tokens for anybody.
        client_id: Whom the service asks as, with *client_secret*.
        client_secret: The secret.
        realm: Realm of that client, where the issuer has several.
        source: In place of the two: where tokens with the scope `token.introspect` come from.
        introspection_url: The endpoint, where the issuer's metadata do not name it.
        remember: Seconds for which a good answer counts (0: none is remembered). A token revoked meanwhile
            lives as long.
        allow_plain_http: Speak unencrypted HTTP to other machines. Only where the network itself encrypts.
        fetcher: Performs the requests.
        clock: Where the time comes from.

    Raises:
        ConfigurationError: An argument is missing or not usable; all faults are named.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str | Iterable[str] | AnyAudience,
        client_id: str | None = None,
        client_secret: str | Secret | None = None,
        realm: str | None = None,
        source: TokenSource | None = None,
        introspection_url: str | None = None,
        remember: float = 0.0,
        allow_plain_http: bool = False,
        fetcher: Fetcher | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Check the arguments; nothing is asked before the first token."""
        self._issuer = issuer
        self._audience = _audience(audience)
        self._secrets = _secrets(client_id, client_secret, source)
        self._realm = realm
        self._source = source
        self._url = introspection_url
        self._remember = remember
        self._clock = clock or SystemClock()
        self._fetcher = fetcher or HttpFetcher(allow_plain_http=allow_plain_http)
        if not 0 <= remember <= LONGEST_MEMORY_SECONDS:
            raise ConfigurationError([f"remember: 0 to {LONGEST_MEMORY_SECONDS:g} seconds"])
        try:
            check_url(introspection_url or issuer, allow_plain_http=allow_plain_http)
        except FetchFailed as failed:
            raise ConfigurationError([f"issuer or introspection endpoint: {failed}"]) from None
        self._found: tuple[float, str] | None = None
        self._key = os.urandom(32)
        self._resting_until = float("-inf")
        self._memory: OrderedDict[bytes, tuple[float, TokenInfo]] = OrderedDict()
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Take new locks and threads: the child has none of the parent's."""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0

    # --- judging, as TokenValidator does ---

    def validate(
        self,
        token: str,
        *,
        scope: str | Iterable[str] = NO_SCOPE,
        audience: str | None = None,
        confirmation: str | Shown | None = None,
    ) -> TokenInfo:
        """
        Return what *token* says if it may be acted upon now; asks, so it waits some milliseconds (for threads).

        Args:
            token: The access token as received.
            scope: Scopes that it must have, all of them: names, or one string with spaces between.
            audience: A name that must be among its audiences as well.
            confirmation: Thumbprint (`x5t#S256`) of the certificate of the caller's connection, if there is one; or all
                that the caller has shown.

        Raises:
            InvalidToken: The token must not be acted upon (401).
            InsufficientScope: It is good and lacks scopes (403).
            ValidatorNotReady: It cannot be told (503).
        """
        required = _scope(scope)
        return self._demand(self._recall(token) or self._ask(token), required, audience, confirmation)

    validate_waiting = validate

    async def avalidate(
        self,
        token: str,
        *,
        scope: str | Iterable[str] = NO_SCOPE,
        audience: str | None = None,
        confirmation: str | Shown | None = None,
    ) -> TokenInfo:
        """Do as `validate` does, for asyncio: the loop goes on meanwhile."""
        required = _scope(scope)
        info = self._recall(token)
        if info is None:
            info = await asyncio.wrap_future(self._submit(token))
        return self._demand(info, required, audience, confirmation)

    def _demand(
        self, info: TokenInfo, scope: Scope, audience: str | None, confirmation: str | Shown | None
    ) -> TokenInfo:
        if info.exp <= self._clock.now():
            raise InvalidToken(Reason.EXPIRED)
        wanted = self._audience
        if wanted is not None and wanted.isdisjoint(info.aud):
            raise InvalidToken(Reason.WRONG_AUDIENCE)
        if audience is not None and audience not in info.aud:
            raise InvalidToken(Reason.WRONG_AUDIENCE)
        # RFC 8705 section 3.2: introspection tells what the token is bound to, and whoever acts upon it compares.
        demanded = demanded_by(info.claims["cnf"]) if "cnf" in info.claims else NOTHING
        if demanded is None or not is_met(demanded, confirmation):
            raise InvalidToken(Reason.UNCONFIRMED)
        if missing := scope - info.scope:
            raise InsufficientScope(missing)
        return info

    # --- asking ---

    def _submit(self, token: str) -> Future[TokenInfo]:
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise ValidatorNotReady(Unready.INTROSPECTION_FAILED, retry_after=1)
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="tokenry-introspect")
            self._waiting += 1
            future = self._pool.submit(self._ask, token)
        future.add_done_callback(self._done)
        return future

    def _done(self, _future: Future[TokenInfo]) -> None:
        with self._lock:
            self._waiting -= 1

    def _ask(self, token: str) -> TokenInfo:
        """Return the answer of token info about *token*."""
        _check_shape(token)
        if self._clock.monotonic() < self._resting_until:
            raise ValidatorNotReady(Unready.INTROSPECTION_FAILED, retry_after=1)
        started = self._clock.monotonic()
        try:
            members = self._answer(token)
            info = read_answer(members, issuer=self._issuer, now=self._clock.now())
        except (FetchFailed, ProtocolError, TokenFetchError) as failed:
            self._resting_until = self._clock.monotonic() + REST_SECONDS
            log.warning("tokenry: a token could not be introspected: %s", failed)
            raise ValidatorNotReady(Unready.INTROSPECTION_FAILED) from failed
        self._keep(token, info, started)
        return info

    def _answer(self, token: str) -> dict[str, Any]:
        form = {"token": token, "token_type_hint": "access_token"}
        if self._realm is not None:
            form["realm"] = self._realm
        request = Request(
            url=self._endpoint(),
            method="POST",
            headers={
                "Authorization": self._authorization(),
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
            body=urlencode(form).encode(),
            deadline_seconds=DEADLINE_SECONDS,
            max_bytes=MAX_ANSWER_BYTES,
        )
        response = self._fetcher.fetch(request)
        if response.status != _OK:
            hint = " (are this service's own credentials right?)" if response.status in {401, 403} else ""
            raise ProtocolError(f"introspection was answered with status {response.status}{hint}")
        return parse_json_object(response.body)

    def _authorization(self) -> str:
        if self._source is not None:
            return self._source.get().authorization()
        if self._secrets is None:  # pragma: no cover -- checked by the constructor
            raise TokenFetchError("no credentials for introspection")
        return basic_credentials(self._secrets)

    def _endpoint(self) -> str:
        """Return the endpoint, found in the issuer's metadata at most an hour ago."""
        if self._url is not None:
            return self._url
        now = self._clock.monotonic()
        if self._found is None or now - self._found[0] > METADATA_SECONDS:
            self._found = (now, self._discover())
        return self._found[1]

    def _discover(self) -> str:
        for url in metadata_urls(self._issuer):
            request = Request(url=url, max_bytes=MAX_METADATA_BYTES, deadline_seconds=DEADLINE_SECONDS)
            response = self._fetcher.fetch(request)
            if response.status == _OK:
                endpoint = parse_metadata(response.body, issuer=self._issuer).introspection_endpoint
                if endpoint is None:
                    raise ProtocolError("the issuer's metadata name no introspection_endpoint")
                return endpoint
        raise ProtocolError("the issuer has no metadata")

    # --- memory ---

    def _recall(self, token: str) -> TokenInfo | None:
        if not self._remember:
            return None
        name = self._name(token)
        with self._lock:
            held = self._memory.get(name)
            if held is not None and held[0] <= self._clock.monotonic():
                del self._memory[name]
                return None
        return held[1] if held is not None else None

    def _keep(self, token: str, info: TokenInfo, started: float) -> None:
        if not self._remember:
            return
        with self._lock:
            self._memory[self._name(token)] = (started + self._remember, info)
            while len(self._memory) > MAX_REMEMBERED:
                self._memory.popitem(last=False)

    def _name(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()

    # --- life, as TokenValidator's ---

    def start(self) -> None:
        """Nothing runs in the background."""

    def stop(self) -> None:
        """End the threads."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    close = stop

    @property
    def not_ready(self) -> Unready | None:
        """Whether the last request failed a moment ago."""
        return Unready.INTROSPECTION_FAILED if self._clock.monotonic() < self._resting_until else None

    @property
    def ready(self) -> bool:
        """Whether tokens can be judged now, as far as is known."""
        return self.not_ready is None

    def wait_ready(self, timeout: float = 0.0) -> None:
        """Return at once: nothing has to be loaded."""

    async def await_ready(self, timeout: float = 0.0) -> None:  # noqa: ASYNC109 -- as TokenValidator's
        """Return at once: nothing has to be loaded."""

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Run with an ASGI application: `FastAPI(lifespan=introspector.lifespan)`."""
        try:
            yield
        finally:
            self.stop()

    async def aiohttp_ctx(self, _app: object) -> AsyncIterator[None]:
        """Run with an aiohttp application: `app.cleanup_ctx.append(introspector.aiohttp_ctx)`."""
        async with self.lifespan(_app):
            yield

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def __repr__(self) -> str:
        """Show whom it asks, and no secret."""
        return f"Introspector({self._url or self._issuer})"


def read_answer(members: Mapping[str, Any], *, issuer: str, now: float) -> TokenInfo:
    """
    Return what an introspection answer (RFC 7662 section 2.2) says about a good token.

    Raises:
        InvalidToken: It is not active, over, another issuer's, or bound in a way that we cannot check.
        ProtocolError: The answer is not one of the RFC.
    """
    active = members.get("active")
    if active is False:
        raise InvalidToken(Reason.INACTIVE)
    if active is not True:
        raise ProtocolError("the answer of introspection does not say whether the token is active")
    told = members.get("claims")
    claims = dict(told) if isinstance(told, dict) else dict(members)
    _read_binding(members, claims)
    if members.get("iss", issuer) != issuer:
        raise InvalidToken(Reason.UNTRUSTED_ISSUER)
    demanded = demanded_by(claims["cnf"]) if "cnf" in claims else None
    kinds = {"bearer", "at+jwt"} if demanded is None or demanded.key is None else {"bearer", "dpop", "at+jwt"}
    if str(members.get("token_type", "Bearer")).lower() not in kinds:
        raise InvalidToken(Reason.WRONG_TYPE)
    exp, not_before = _seconds(members, "exp"), _seconds(members, "nbf")
    if exp is None:
        raise ProtocolError("the answer of introspection has no exp")
    if exp <= now:
        raise InvalidToken(Reason.EXPIRED)
    if not_before is not None and not_before > now + 5:
        raise InvalidToken(Reason.NOT_YET_VALID)
    client_id = _text(members, "client_id")
    subject = _text(members, "sub") or client_id
    if subject is None:
        raise ProtocolError("the answer of introspection names neither sub nor client_id")
    return TokenInfo(
        iss=issuer,
        sub=subject,
        client_id=client_id,
        aud=_audiences(members.get("aud")),
        scope=_granted(members.get("scope")),
        exp=exp,
        iat=_seconds(members, "iat") or 0,
        jti=_text(members, "jti"),
        realm=_text(members, "realm"),
        kid="",  # not told: token info has looked at it
        claims=claims,
    )


def _read_binding(members: Mapping[str, Any], claims: dict[str, Any]) -> None:
    """Put what the token is bound to into *claims*, wherever the answer has it; refuse what we cannot check."""
    demands = [each["cnf"] for each in (members, claims) if "cnf" in each]
    if not demands:
        return
    if demanded_by(demands[0]) is None or demands[-1] != demands[0]:
        raise InvalidToken(Reason.UNCONFIRMED)
    claims["cnf"] = demands[0]


def _seconds(members: Mapping[str, Any], name: str) -> int | None:
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ProtocolError(f"{name} in the answer of introspection is not a time")
    return value


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not (isinstance(value, str) and value):
        raise ProtocolError(f"{name} in the answer of introspection is not a name")
    return value


def _audiences(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list) or not all(isinstance(each, str) for each in several):
        raise ProtocolError("aud in the answer of introspection is neither a name nor a list of names")
    return tuple(several)


def _granted(value: object) -> Scope:
    if value is None:
        return NO_SCOPE
    if not isinstance(value, str):
        raise ProtocolError("scope in the answer of introspection is not a string")
    try:
        return parse_scope(value)
    except InvalidScope:
        raise ProtocolError("scope in the answer of introspection is malformed") from None


def _check_shape(token: str) -> None:
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidToken(Reason.TOO_LARGE)
    if not _TOKEN.fullmatch(token):
        raise InvalidToken(Reason.NOT_COMPACT)


def _audience(audience: str | Iterable[str] | AnyAudience) -> frozenset[str] | None:
    if isinstance(audience, AnyAudience):
        return None
    names = frozenset([audience] if isinstance(audience, str) else audience)
    if not names or "" in names:
        raise ConfigurationError(["audience: the name of this service; ANY_AUDIENCE to accept tokens for anybody"])
    return names


def _secrets(
    client_id: str | None, client_secret: str | Secret | None, source: TokenSource | None
) -> ClientSecrets | None:
    if source is not None:
        if client_id is not None or client_secret is not None:
            raise ConfigurationError(["give source, or client_id and client_secret, not both"])
        return None
    if not client_id or not client_secret:
        raise ConfigurationError(["introspection needs an identity: client_id and client_secret, or source"])
    secret = client_secret if isinstance(client_secret, Secret) else Secret(client_secret)
    return ClientSecrets(client_id=client_id, client_secret=secret)


def _scope(scope: str | Iterable[str]) -> Scope:
    if isinstance(scope, frozenset):
        return scope
    return parse_scope(scope) if isinstance(scope, str) else scope_of(scope)


__all__ = ["Introspector", "read_answer"]
