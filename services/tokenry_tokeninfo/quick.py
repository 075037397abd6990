"""
Tokens at `/oauth2/tokeninfo` and `/auth`, answered at once (see `tokenry.serving.quick`).

Invariants:
    * Every request is judged: signature (remembered or not), times, audience, revocation, readiness. What is
      remembered of a token is the text of its answer, used only while the validator hands out the very finding that it
      was made of.
    * Answered here are good tokens that have what is asked of them, and bad ones; whatever has to be waited for, or
      needs more of the request than its header, goes the ordinary way.
    * An answer is the one that the ordinary way gives.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from aiohttp import hdrs

from tokenry.errors import InvalidToken, Reason, TokenryError, UnknownKey
from tokenry.revocation.stamps import LIST_HEADER
from tokenry.serving.access_log import RepeatedRecord, record_request
from tokenry.serving.addresses import caller_address
from tokenry.serving.application import request_id_of, request_ids
from tokenry.serving.keys import current_request_id
from tokenry.validation.memory import SecondSight
from tokenry_tokeninfo.answers import (
    DOTS_OF_A_JWS,
    INVALID_TOKEN_BODY,
    INVALID_TOKEN_CHALLENGE,
    TOKEN_REFUSED,
    token_info_parts,
)
from tokenry_tokeninfo.auth_policy import (
    REQUIRE_HEADER,
    AuthPolicy,
    identity_headers,
    policy_from_header,
    policy_from_query,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from multidict import CIMultiDictProxy

    from tokenry.claims import TokenInfo
    from tokenry.clock import Clock
    from tokenry.serving.addresses import Network
    from tokenry.serving.health import Health
    from tokenry.serving.metrics import Metrics
    from tokenry.serving.turns import Turns
    from tokenry_tokeninfo.measures import Measures
    from tokenry_tokeninfo.ports import Validation
    from tokenry_tokeninfo.stamps import Stamps

TOKEN_INFO = "/oauth2/tokeninfo"  # noqa: S105 -- a path
AUTH_BY_QUERY = "/auth?"
AUTH_BY_HEADER = "/auth/"
FINISHED = 20_000  # answers remembered at most, as many as signatures: about 1 kB each
POLICIES = 256  # of gateways; more are parsed anew each time
_SCHEME = "Bearer "
_PLAIN_QUERY = re.compile(r"[A-Za-z0-9._=&:/-]*")  # in which nothing can be spelled in two ways
AUTH_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
AUTH_ROUTES = ("/auth", "/auth/{rest}")
_HEAD = b"HTTP/1.1 200 OK\r\nX-Request-Id: "
_REFUSED = b"HTTP/1.1 401 Unauthorized\r\nX-Request-Id: "
_REFUSED_END = (
    f"\r\nWWW-Authenticate: {INVALID_TOKEN_CHALLENGE}\r\nContent-Type: application/json"
    f"\r\nContent-Length: {len(INVALID_TOKEN_BODY)}\r\n\r\n"
).encode("ascii") + INVALID_TOKEN_BODY
_JSON = b"\r\nContent-Type: application/json"
_NO_BODY = b"\r\nContent-Length: 0\r\n\r\n"


_REFUSALS = {reason: RepeatedRecord(TOKEN_REFUSED, {"reason": str(reason)}) for reason in Reason}
_NOTHING: dict[str, object] = {}


class _Finished:
    """The answers to one token, but for what changes from second to second."""

    __slots__ = ("after", "before", "identity", "info")

    def __init__(self, info: TokenInfo) -> None:
        self.info = info
        self.before = self.after = self.identity = b""


class Quick:
    """The quick answers of token info."""

    def __init__(
        self,
        *,
        clock: Clock,
        validation: Validation,
        stamps: Stamps,
        metrics: Metrics,
        measures: Measures,
        health: Health,
        turns: Turns,
        trusted_proxies: Sequence[Network] = (),
        knows_opaque: bool = False,
        remembered: int = FINISHED,
    ) -> None:
        """
        Answer tokens.

        Args:
            clock: Where the time comes from.
            validation: Judges tokens.
            stamps: Tells by which list they are judged.
            metrics: Where requests are counted.
            measures: Where validations are counted.
            health: Tells whether the service is draining: then connections are to be closed, the ordinary way.
            turns: In which tokens that are not known are judged, a few at a time.
            trusted_proxies: Networks of proxies that are believed whom they speak for.
            knows_opaque: Whether what is no JWT is asked about elsewhere.
            remembered: Tokens whose answers are kept at most.
        """
        self._clock = clock
        self._validation = validation
        self._stamps = stamps
        self._measures = measures
        self._health = health
        self._turns = turns
        self._trusted_proxies = trusted_proxies
        self._knows_opaque = knows_opaque
        self._finished: SecondSight[_Finished] = SecondSight(remembered)
        self._new_request_id = request_ids()
        labels = metrics.requests.labels
        self._timers = {
            (method, route): (labels(method, route, "200"), labels(method, route, "401"))
            for method, route in (("GET", TOKEN_INFO), *product(AUTH_METHODS, AUTH_ROUTES))
        }
        self._shared: tuple[str, bytes] = ("", b"")

    def __call__(
        self,
        method: str,
        path: str,
        headers: CIMultiDictProxy[str],
        transport: asyncio.Transport,
        *,
        waited: bool = False,
    ) -> bytes | Turns | None:
        """Return the answer to a token that needs no waiting, or None; see `QuickAnswers`."""
        began = self._clock.monotonic()
        policy: AuthPolicy | None = None
        if path == TOKEN_INFO:
            route = TOKEN_INFO
        else:
            policy = self._policy(path, headers)
            if policy is None:
                return None
            route = "/auth/{rest}" if path.startswith(AUTH_BY_HEADER) else "/auth"
        timers = self._timers.get((method, route))
        values = headers.getall(hdrs.AUTHORIZATION, ())
        if timers is None or len(values) != 1 or not values[0].startswith(_SCHEME) or self._health.draining:
            return None
        shared, second = self._shared_fields()
        if not shared:
            return None
        token = values[0][len(_SCHEME) :]
        finished = self._finished.get(token)
        if finished is None and not waited and not self._turns.take():
            return self._turns  # a signature is to be verified: those that are known go first
        found = self._judged(token, finished, policy, began=began)
        if found is None:
            return None
        request_id = request_id_of(headers, self._new_request_id)
        seconds = self._clock.monotonic() - began
        if isinstance(found, Reason):
            timers[1].observe(seconds)
            self._log_refusal(found, method, route, seconds, request_id, caller=(transport, headers))
            return b"".join((_REFUSED, request_id.encode("ascii"), shared, _REFUSED_END))
        timers[0].observe(seconds)
        start = _HEAD + request_id.encode("ascii")
        if policy is not None:
            return b"".join((start, shared, _identity(found), _NO_BODY))
        return b"".join((start, shared, _JSON, _body(found, token, second)))

    def _log_refusal(
        self,
        reason: Reason,
        method: str,
        route: str,
        seconds: float,
        request_id: str,
        *,
        caller: tuple[asyncio.Transport, CIMultiDictProxy[str]],
    ) -> None:
        reset = current_request_id.set(request_id)
        try:
            _REFUSALS[reason].write(_NOTHING)
            record_request(
                method=method,
                route=route,
                status=401,
                seconds=seconds,
                client_address=caller_address(*caller, trusted_proxies=self._trusted_proxies),
            )
        finally:
            current_request_id.reset(reset)

    def _policy(self, path: str, headers: CIMultiDictProxy[str]) -> AuthPolicy | None:
        """Return what a gateway asks for at *path*, or None for what is no plain policy."""
        try:
            if path.startswith(AUTH_BY_QUERY):
                return _policy_of_query(path[len(AUTH_BY_QUERY) :])
            if path.startswith(AUTH_BY_HEADER):
                required = headers.getall(REQUIRE_HEADER, ())
                return _policy_of_header(required[0]) if len(required) == 1 else None
        except TokenryError:
            pass  # the ordinary way raises the alarm
        return None

    def _judged(
        self, token: str, finished: _Finished | None, policy: AuthPolicy | None, *, began: float
    ) -> _Finished | Reason | None:
        """
        Return the answers to *token* if it has what *policy* asks for, what is wrong with it, or None.

        Not the exception itself: kept in a local it would hold its own frames, and wait for the garbage collector.
        """
        try:
            if policy is None:
                info = self._validation.validate_at_once(token)
            else:
                info = self._validation.validate(token, audience=policy.audience)
                policy.check(info.scope)
        except UnknownKey:
            return None  # the ordinary way waits for the key
        except InvalidToken as refused:
            if refused.reason is Reason.UNCONFIRMED:  # the ordinary way looks at the caller's certificate
                return None
            if self._knows_opaque and token.count(".") != DOTS_OF_A_JWS:
                return None
            self._measures.validated(self._clock.monotonic() - began, refused)
            return refused.reason
        except TokenryError:
            return None
        self._measures.validated(self._clock.monotonic() - began)
        if finished is None or finished.info is not info:
            finished = _Finished(info)
            self._finished.admit(token, finished)
        return finished

    def _shared_fields(self) -> tuple[bytes, int]:
        """Return the fields that all answers within one second have in common, and the end of that second."""
        stamp, second = self._stamps.stamp()
        if stamp is None:
            return b"", second
        known, fields = self._shared
        if known is not stamp:
            date = formatdate(second, usegmt=True)
            fields = (
                f"\r\n{LIST_HEADER}: {stamp}\r\nDate: {date}"
                "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff"
            ).encode("ascii")
            self._shared = (stamp, fields)
        return fields, second


def _body(finished: _Finished, token: str, second: int) -> bytes:
    """Return length, end of the head and body of token info."""
    if not finished.before:
        finished.before, finished.after = token_info_parts(token, finished.info)
    left = b"%d" % max(0, finished.info.exp - second)
    length = len(finished.before) + len(left) + len(finished.after)
    return b"\r\nContent-Length: %d\r\n\r\n%b%b%b" % (length, finished.before, left, finished.after)


def _identity(finished: _Finished) -> bytes:
    """Return the fields that tell a gateway who calls; their values are ASCII without white space but one space."""
    if not finished.identity:
        fields = identity_headers(finished.info)
        finished.identity = "".join(f"\r\n{name}: {value}" for name, value in fields.items()).encode("ascii")
    return finished.identity


@lru_cache(maxsize=POLICIES)
def _policy_of_query(query: str) -> AuthPolicy | None:
    return policy_from_query(query) if _PLAIN_QUERY.fullmatch(query) else None


@lru_cache(maxsize=POLICIES)
def _policy_of_header(value: str) -> AuthPolicy | None:
    return policy_from_header([value])
