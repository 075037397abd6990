"""
Access tokens that are always fresh.

Invariants:
    * `get` returns at once while a good token is held; it waits only when there is none.
    * At most one request is under way per source, for all threads and event loops.
    * A failed renewal is invisible while the held token is good.
    * No secret and no token is in an error, a log line or a `repr`.
    * A forked child keeps the token, and fetches its own next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import Counter
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Final

from tokenry.client.access_token import AccessToken
from tokenry.client.advice import advice_on
from tokenry.client.credentials import (
    CLIENT_CREDENTIALS,
    PASSWORD,
    ClientAssertion,
    ClientKey,
    ClientSecrets,
    KeyFile,
    find_credentials,
)
from tokenry.client.schedule import Plan, Schedule
from tokenry.client.token_endpoint import (
    Grant,
    Refused,
    read_token_response,
    signed_token_request,
    token_request,
    vouched_token_request,
)
from tokenry.clock import Clock, SystemClock
from tokenry.errors import ConfigurationError, ProtocolError, TokenFetchError
from tokenry.http.fetch import Fetcher, FetchFailed, HttpFetcher, Request, check_url
from tokenry.http.forking import renew_after_fork
from tokenry.scope import parse_scope, scope_of
from tokenry.sources.metadata import MAX_METADATA_BYTES, metadata_urls, parse_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from tokenry.client.access_token import Prover
    from tokenry.client.credentials import Identity
    from tokenry.client.token_endpoint import Issued
    from tokenry.jose.jwk import PrivateKey
    from tokenry.secret import Secret

log = logging.getLogger("tokenry")
log.addHandler(logging.NullHandler())

TRIES: Final = 3  # while somebody waits; a renewal in the background tries once
BUDGET_SECONDS: Final = 10.0  # for all tries together
TRY_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.25  # after the first try, doubling
METADATA_SECONDS: Final = 3600.0
_JTI_BYTES: Final = 16  # random bytes of an assertion's id


@dataclass(slots=True, kw_only=True)
class _Effort:
    """The tries of one flight, and what is left of its time."""

    tries: int
    made: int = 0
    begun: float = field(default_factory=time.monotonic)

    def deadline(self) -> float:
        """Return the seconds for the next try."""
        return min(TRY_SECONDS, max(0.1, BUDGET_SECONDS - self._spent()))

    def pause(self, retry_after: float | None) -> float | None:
        """Return the seconds to wait before the next try, or None if there is none."""
        pause = max(PAUSE_SECONDS * 2.0 ** (self.made - 1), retry_after or 0.0)
        return pause if self.made < self.tries and self._spent() + pause < BUDGET_SECONDS else None

    def _spent(self) -> float:
        return time.monotonic() - self.begun

    def __str__(self) -> str:
        return f"tried {self.made} time{'s' if self.made != 1 else ''} in {self._spent():.1f} s"


class ClientCredentials:
    """
    Tokens for this client, by client credentials (or the password grant where asked for).

    What is not given as an argument is taken from the environment: `TOKENRY_ISSUER` or `TOKENRY_TOKEN_URL`
    (`OAUTH2_ACCESS_TOKEN_URL`), `TOKENRY_CLIENT_ID` with `TOKENRY_CLIENT_SECRET` or `…_FILE`, or with
    `TOKENRY_CLIENT_KEY_FILE` (which needs the issuer's identifier), or `TOKENRY_CLIENT_ASSERTION_FILE` (the platform's
    token), or `CREDENTIALS_DIR` with `client.json` (and `user.json`), `TOKENRY_REALM`.

    Args:
        scope: Scopes to ask for: names, or one string with spaces; none: the client's default scopes.
        issuer: Issuer identifier; the token endpoint is found from its metadata.
        token_url: The token endpoint, where it is not to be found.
        client_id: Client identifier.
        client_secret: Its secret.
        private_key: In place of a secret: the P-256 key whose public half is registered with the client, or the
            PEM file with it, read anew for each request. Needs the issuer's identifier.
        assertion_file: In place of both: the file with the platform's token, such as Kubernetes' projected service
            account token, which the issuer trusts for this client; read anew for each request.
        credentials_dir: Folder with `client.json`; read anew for each request.
        grant: `client_credentials`, or `password` with the user of `user.json`.
        realm: Realm to ask in.
        audience: Audience to ask for.
        dpop: Have tokens bound to a key of this source (RFC 9449), which then signs a proof for each request; the
            issuer has to be set to that for this client.
        allow_plain_http: Send the secret unencrypted to other machines. Only where the network itself encrypts.
        clock: Where the time comes from.
        fetcher: Performs the requests.
        credentials_name: Read `<name>-client-id` and `<name>-client-secret` of the folder, as Kubernetes mounts
            them, in place of `client.json`.
        environ: In place of the process's environment.
        pause: In place of `time.sleep`, between two tries.

    Raises:
        ConfigurationError: Something is missing or malformed; all faults are named.
    """

    def __init__(
        self,
        scope: str | Iterable[str] = (),
        *,
        issuer: str | None = None,
        token_url: str | None = None,
        client_id: str | None = None,
        client_secret: str | Secret | None = None,
        private_key: PrivateKey | Path | str | None = None,
        assertion_file: Path | str | None = None,
        credentials_dir: Path | str | None = None,
        credentials_name: str | None = None,
        grant: str = CLIENT_CREDENTIALS,
        realm: str | None = None,
        audience: str | None = None,
        dpop: bool = False,
        allow_plain_http: bool = False,
        clock: Clock | None = None,
        fetcher: Fetcher | None = None,
        environ: Mapping[str, str] | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Find the credentials; nothing is fetched before the first `get`."""
        environ = os.environ if environ is None else environ
        self._clock = clock or SystemClock()
        self._owns_fetcher = fetcher is None
        self._fetcher = fetcher or HttpFetcher(allow_plain_http=allow_plain_http)
        self._pause = pause
        self._grant = Grant(
            grant_type=_checked_grant(grant),
            scope=parse_scope(scope) if isinstance(scope, str) else scope_of(scope),
            realm=realm or environ.get("TOKENRY_REALM"),
            audience=audience,
        )
        self._credentials = find_credentials(
            environ=environ,
            client_id=client_id,
            client_secret=client_secret,
            folder=credentials_dir,
            name=credentials_name,
            grant=grant,
            private_key=private_key,
            assertion_file=assertion_file,
        )
        self._name = issuer or environ.get("TOKENRY_ISSUER")
        if self._name is None and _signs(self._credentials):
            raise ConfigurationError(["a private key needs the issuer's identifier: set issuer, or TOKENRY_ISSUER"])
        self._issuer, self._token_url = _endpoint(issuer, token_url, environ, allow_plain_http=allow_plain_http)
        self._prover = _proof_key(self._clock) if dpop else None
        self._found: tuple[float, str] | None = None
        self._schedule = Schedule()
        self.refreshes: Counter[str] = Counter()
        self._flight: Future[AccessToken] | None = None
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Keep the token; forget a flight whose thread the child does not have."""
        self._lock = threading.Lock()
        self._flight = None

    @property
    def description(self) -> str:
        """Where the credentials and the tokens come from, for people; no secret."""
        return f"{self._credentials.description}, {self._token_url or self._issuer}"

    @property
    def expires_at(self) -> float | None:
        """Unix seconds at which the held token ends, for metrics; None without one."""
        held = self._schedule.held
        return held.token.expires_at if held is not None else None

    def get(self) -> AccessToken:
        """
        Return a token that is good now; waits, at most some 10 s, only when there is none (for threads).

        Raises:
            TokenFetchError: None could be had.
        """
        token, flight = self._ask()
        if token is not None:
            return token
        try:
            return flight.result(2 * BUDGET_SECONDS)
        except FutureTimeout:
            raise TokenFetchError(f"no token in {2 * BUDGET_SECONDS:g} s (source: {self.description})") from None
        except TokenFetchError as error:
            raise _again(error) from None

    async def aget(self) -> AccessToken:
        """Do as `get` does, for asyncio: the loop goes on meanwhile."""
        token, flight = self._ask()
        if token is not None:
            return token
        try:
            return await asyncio.wait_for(asyncio.wrap_future(flight), 2 * BUDGET_SECONDS)
        except TimeoutError:
            raise TokenFetchError(f"no token in {2 * BUDGET_SECONDS:g} s (source: {self.description})") from None
        except TokenFetchError as error:
            raise _again(error) from None

    def request(self) -> Future[AccessToken]:
        """
        Return a future of a token, done already while a good one is held: for callers that must not wait.

        It may be shared with other callers; cancelling it has no effect.

        Raises:
            TokenFetchError: None could be had a moment ago.
        """
        token, flight = self._ask()
        if token is None:
            return flight
        done: Future[AccessToken] = Future()
        done.set_result(token)
        return done

    def invalidate(self, token: AccessToken | str | None = None) -> bool:
        """
        Drop *token*, or whichever is held, because a service refused it.

        Returns:
            Whether the next `get` may give another one. A service that refuses every token gets no new one at
            each request: a token younger than 10 s is dropped once in 30 s at most.
        """
        value = token.value if isinstance(token, AccessToken) else token
        with self._lock:
            return self._schedule.drop(value, now=self._clock.monotonic())

    def _ask(self) -> tuple[AccessToken | None, Future[AccessToken]]:
        """Return the held token if it is good, else the flight that brings another one."""
        held, now = self._schedule.held, self._clock.monotonic()
        if held is not None and now < held.renew_at:
            return held.token, _NO_FLIGHT
        with self._lock:
            plan, held = self._schedule.plan(now), self._schedule.held
            error = self._schedule.last_error
            if plan is Plan.USE and held is not None:
                return held.token, _NO_FLIGHT
            if plan is Plan.FAIL and error is not None and self._flight is None:
                raise _again(error)
            flight = self._flight or self._take_off(tries=1 if plan is Plan.USE_AND_RENEW else TRIES)
        if plan is Plan.USE_AND_RENEW and held is not None:
            return held.token, _NO_FLIGHT
        return None, flight

    def _take_off(self, *, tries: int) -> Future[AccessToken]:
        flight: Future[AccessToken] = Future()
        flight.set_running_or_notify_cancel()  # one waiter that gives up must not cancel it for the others
        delay = self._schedule.begin(self._clock.monotonic())
        thread = threading.Thread(target=self._fly, args=(flight, delay, tries), name="tokenry-token", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is shutting down
            raise TokenFetchError(f"no thread to fetch a token in (source: {self.description})") from None
        self._flight = flight
        return flight

    def _fly(self, flight: Future[AccessToken], delay: float, tries: int) -> None:
        """Fetch one token and settle *flight*, whatever happens."""
        if delay > 0:
            self._pause(delay)
        effort, started = _Effort(tries=tries), self._clock.monotonic()
        try:
            token, lifetime = self._fetch(effort)
            self._hang_up()
        except (TokenFetchError, FetchFailed, ProtocolError) as cause:
            self._land(flight, error=self._explain(cause, effort), cause=cause)
        except Exception as defect:
            log.exception("tokenry: a defect while a token was fetched")
            error = TokenFetchError(f"a defect: {type(defect).__name__} (source: {self.description})")
            self._land(flight, error=error, cause=defect)
        else:
            with self._lock:
                self._schedule.fetched(token, lifetime=lifetime, started=started)
                self._flight = None if self._flight is flight else self._flight
            self.refreshes["ok"] += 1
            flight.set_result(token)

    def _hang_up(self) -> None:
        """Close the connection: the next flight is most of an hour away."""
        if self._owns_fetcher:
            self._fetcher.cancel()

    def _land(self, flight: Future[AccessToken], *, error: TokenFetchError, cause: Exception) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._schedule.failed(error, now=now, retry_after=getattr(cause, "retry_after", None))
            self._flight = None if self._flight is flight else self._flight
        self.refreshes[error.error or "failed"] += 1
        log.warning("tokenry: %s", error)
        flight.set_exception(error)

    def _fetch(self, effort: _Effort) -> tuple[AccessToken, float]:
        """Return a token and its lifetime, after as many tries as *effort* allows."""
        while True:
            effort.made += 1
            try:
                return self._fetch_once(deadline=effort.deadline())
            except (FetchFailed, Refused) as problem:
                pause = effort.pause(getattr(problem, "retry_after", None))
                if pause is None or not getattr(problem, "retryable", True):
                    raise
            self._pause(pause)

    def _fetch_once(self, *, deadline: float) -> tuple[AccessToken, float]:
        prover = self._prover
        started = self._clock.now()
        try:
            issued = self._ask_once(deadline)
        except Refused as refused:
            if prover is None or refused.error != "use_dpop_nonce":
                raise
            issued = self._ask_once(deadline)  # with the nonce of the refusal (RFC 9449 section 8)
        value = issued.value.reveal()
        token = AccessToken(value=value, expires_at=started + issued.lifetime, scope=issued.scope, prover=prover)
        return token, issued.lifetime

    def _ask_once(self, deadline: float) -> Issued:
        request, prover = self._request(self._credentials.read(), deadline), self._prover
        if prover is not None:
            # A proof is good once: a request that died on the way has to be made anew.
            headers = {**request.headers, "DPoP": prover.prove(request.method, request.url)}
            request = replace(request, headers=headers, repeatable=False)
        response = self._fetcher.fetch(request)
        nonce = response.headers.get("dpop-nonce")
        if prover is not None and nonce is not None:
            prover.learn(request.url, nonce)
        return read_token_response(response, wanted=self._grant.scope, bound=prover is not None)

    def _request(self, secrets: Identity, deadline: float) -> Request:
        url = self._url(deadline)
        if isinstance(secrets, ClientSecrets):
            return token_request(url, self._grant, secrets, deadline_seconds=deadline)
        if isinstance(secrets, ClientAssertion):
            return vouched_token_request(url, self._grant, secrets, deadline_seconds=deadline)
        return signed_token_request(
            url,
            self._grant,
            secrets,
            audience=self._name or "",
            now=self._clock.now(),
            jti=token_urlsafe(_JTI_BYTES),
            deadline_seconds=deadline,
        )

    def _url(self, deadline: float) -> str:
        """Return the token endpoint, found in the issuer's metadata at most an hour ago."""
        if self._token_url is not None:
            return self._token_url
        now = self._clock.monotonic()
        if self._found is None or now - self._found[0] > METADATA_SECONDS:
            self._found = (now, self._discover(deadline))
        return self._found[1]

    def _discover(self, deadline: float) -> str:
        issuer = self._issuer or ""
        answers = []
        for url in metadata_urls(issuer):
            response = self._fetcher.fetch(Request(url=url, max_bytes=MAX_METADATA_BYTES, deadline_seconds=deadline))
            answers.append(str(response.status))
            if response.status == 200:  # noqa: PLR2004 -- OK
                endpoint = parse_metadata(response.body, issuer=issuer).token_endpoint
                if endpoint is None:
                    raise ProtocolError("the issuer's metadata name no token_endpoint")
                return endpoint
        raise Refused(
            f"the issuer's metadata were answered with status {' and '.join(answers)}",
            error=None,
            retryable=True,
        )

    def _explain(self, cause: Exception, effort: _Effort) -> TokenFetchError:
        """Return the error for people: what, for whom, from where, how often, how long."""
        client, error = _name_of(self._credentials), getattr(cause, "error", None)
        advice = advice_on(error)
        return TokenFetchError(
            f"no token{client}: {cause} (source: {self.description}; {effort}){f' - {advice}' if advice else ''}",
            error=error,
            retryable=getattr(cause, "retryable", True),
        )

    def __repr__(self) -> str:
        """Show where tokens come from."""
        return f"ClientCredentials({self.description})"


class StaticTokenSource:
    """
    One token that somebody else takes care of.

    Args:
        value: The token.
        expires_at: Unix seconds at which it ends, if known.
    """

    def __init__(self, value: str, *, expires_at: float = float("inf")) -> None:
        """Hold *value*."""
        self._token = AccessToken(value=value, expires_at=expires_at)
        self.description = "a fixed token"

    def get(self) -> AccessToken:
        """Return the token."""
        return self._token

    async def aget(self) -> AccessToken:
        """Return the token."""
        return self._token

    def invalidate(self, token: AccessToken | str | None = None) -> bool:  # noqa: ARG002 -- the port's signature
        """There is no other one."""
        return False


class FileTokenSource:
    """
    The token in a file that is replaced from outside, such as a mounted `<name>-token-secret`.

    The file is looked at for each `get`, and read when it has changed. A `<name>-token-type` beside it has to
    say `Bearer`.

    Args:
        path: The file; space around the token is ignored.
    """

    def __init__(self, path: Path | str) -> None:
        """Remember where."""
        from pathlib import Path

        self._path = Path(path)
        self._seen: tuple[Any, AccessToken] | None = None
        self.description = f"file {self._path}"

    def get(self) -> AccessToken:
        """
        Return the token in the file.

        Raises:
            TokenFetchError: The file cannot be read, or holds no token.
        """
        from tokenry.client.credentials import read_secret_text

        mark = self._mark()
        if self._seen is None or self._seen[0] != mark:
            self._check_type()
            token = AccessToken(value=read_secret_text(self._path), expires_at=float("inf"))
            self._seen = (mark, token)
        return self._seen[1]

    async def aget(self) -> AccessToken:
        """Return the token in the file: a local read, too short to leave the loop for."""
        return self.get()

    def invalidate(self, token: AccessToken | str | None = None) -> bool:
        """Read the file again; tell whether it holds another token by now."""
        before = token.value if isinstance(token, AccessToken) else token
        self._seen = None
        try:
            return self.get().value != before
        except TokenFetchError:
            return False

    def _check_type(self) -> None:
        from tokenry.client.credentials import read_secret_text

        name = self._path.name
        beside = self._path.with_name(name.removesuffix("-secret") + "-type")
        if not name.endswith("-token-secret") or not beside.exists():
            return
        if read_secret_text(beside).lower() != "bearer":
            raise TokenFetchError(f"{beside} says that {name} is no bearer token")

    def _mark(self) -> object:
        try:
            status = self._path.stat()
        except OSError as error:
            raise TokenFetchError(f"{self._path} cannot be used: {error.strerror}") from None
        return status.st_mtime_ns, status.st_ino, status.st_size


_NO_FLIGHT: Final[Future[AccessToken]] = Future()


def _checked_grant(grant: str) -> str:
    if grant not in {CLIENT_CREDENTIALS, PASSWORD}:
        raise ConfigurationError([f"grant is {CLIENT_CREDENTIALS} or {PASSWORD}"])
    return grant


def _endpoint(
    issuer: str | None, token_url: str | None, environ: Mapping[str, str], *, allow_plain_http: bool
) -> tuple[str | None, str | None]:
    """Return the issuer or the token endpoint, the argument before the environment."""
    if token_url is None and issuer is None:
        token_url = environ.get("TOKENRY_TOKEN_URL") or environ.get("OAUTH2_ACCESS_TOKEN_URL")
        issuer = environ.get("TOKENRY_ISSUER") if not token_url else None
    chosen = token_url or issuer
    if not chosen:
        raise ConfigurationError(["no issuer: set TOKENRY_ISSUER, or TOKENRY_TOKEN_URL"])
    try:
        check_url(chosen, allow_plain_http=allow_plain_http)
    except FetchFailed as failed:
        raise ConfigurationError([f"issuer or token endpoint: {failed}"]) from None
    return (None, token_url) if token_url else (issuer, None)


def _proof_key(clock: Clock) -> Prover:
    from tokenry.client.proofs import ProofKey  # only who signs loads the cryptography

    return ProofKey(clock)


def _signs(credentials: object) -> bool:
    return isinstance(credentials, KeyFile) or isinstance(getattr(credentials, "secrets", None), ClientKey)


def _name_of(credentials: object) -> str:
    secrets = getattr(credentials, "secrets", None)
    if isinstance(secrets, ClientSecrets | ClientKey):
        return f" for client {secrets.client_id!r}"
    client_id = getattr(credentials, "client_id", None)
    return f" for client {client_id!r}" if client_id else ""


def _again(error: TokenFetchError) -> TokenFetchError:
    """Return a copy, so that two who are told of one failure do not share a traceback."""
    return TokenFetchError(str(error), error=error.error, retryable=error.retryable)
