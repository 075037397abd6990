"""
Good tokens at `/oauth2/tokeninfo` and `/auth`, answered at once (see `tokenry.serving.quick`).

Invariants:
    * Every request is judged: signature (remembered or not), times, audience, revocation, readiness. What is
      remembered of a token is the text of its answer, used only while the validator hands out the very finding that it
      was made of.
    * Only good tokens with what is asked of them are answered here; every other request goes the ordinary way. What
      was found wrong with a token is handed on, so that a flood of bad ones is not verified twice.
    * An answer is the one that the ordinary way gives.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING

from tokenry.errors import InvalidToken, TokenryError, UnknownKey
from tokenry.revocation.stamps import LIST_HEADER
from tokenry.serving.application import request_id_of, request_ids
from tokenry.validation.memory import SecondSight
from tokenry_tokeninfo.answers import token_info_parts
from tokenry_tokeninfo.auth_policy import (
    REQUIRE_HEADER,
    AuthPolicy,
    identity_headers,
    policy_from_header,
    policy_from_query,
)

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from tokenry.claims import TokenInfo
    from tokenry.clock import Clock
    from tokenry.serving.health import Health
    from tokenry.serving.metrics import Metrics
    from tokenry_tokeninfo.measures import Measures
    from tokenry_tokeninfo.ports import Refusals, Validation
    from tokenry_tokeninfo.stamps import Stamps

TOKEN_INFO = "/oauth2/tokeninfo"  # noqa: S105 -- a path
AUTH_BY_QUERY = "/auth?"
AUTH_BY_HEADER = "/auth/"
FINISHED = 20_000  # answers remembered at most, as many as signatures: about 1 kB each
POLICIES = 256  # of gateways; more are parsed anew each time
_SCHEME = "Bearer "
_PLAIN_QUERY = re.compile(r"[A-Za-z0-9._=&:/-]*")  # in which nothing can be spelled in two ways
_HEAD = b"HTTP/1.1 200 OK\r\nX-Request-Id: "
_JSON = b"\r\nContent-Type: application/json"
_NO_BODY = b"\r\nContent-Length: 0\r\n\r\n"


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
        refusals: Refusals,
        remembered: int = FINISHED,
    ) -> None:
        """
        Answer good tokens.

        Args:
            clock: Where the time comes from.
            validation: Judges tokens.
            stamps: Tells by which list they are judged.
            metrics: Where requests are counted.
            measures: Where validations are counted.
            health: Tells whether the service is draining: then connections are to be closed, the ordinary way.
            refusals: Told what is wrong with a token.
            remembered: Tokens whose answers are kept at most.
        """
        self._clock = clock
        self._validation = validation
        self._stamps = stamps
        self._measures = measures
        self._health = health
        self._refusals = refusals
        self._finished: SecondSight[_Finished] = SecondSight(remembered)
        self._new_request_id = request_ids()
        self._token_info_timer = metrics.requests.labels("GET", TOKEN_INFO, "200")
        self._auth_timers = {
            (method, route): metrics.requests.labels(method, route, "200")
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
            for route in ("/auth", "/auth/{rest}")
        }
        self._shared: tuple[str, bytes] = ("", b"")

    def __call__(self, method: str, path: str, headers: CIMultiDictProxy[str]) -> bytes | None:
        """Return the answer to a good token, or None; see `QuickAnswers`."""
        began = self._clock.monotonic()
        policy: AuthPolicy | None = None
        if path == TOKEN_INFO:
            if method != "GET":
                return None
            timer = self._token_info_timer
        else:
            policy = self._policy(path, headers)
            if policy is None:
                return None
            route = "/auth/{rest}" if path.startswith(AUTH_BY_HEADER) else "/auth"
            found = self._auth_timers.get((method, route))
            if found is None:
                return None
            timer = found
        values = headers.getall("Authorization", ())
        if len(values) != 1 or not values[0].startswith(_SCHEME) or self._health.draining:
            return None
        shared, second = self._shared_fields()
        token = values[0][len(_SCHEME) :]
        finished = self._judged(token, policy, began=began)
        if finished is None or not shared:
            return None
        start = _HEAD + request_id_of(headers, self._new_request_id).encode("ascii")
        timer.observe(self._clock.monotonic() - began)
        if policy is not None:
            return b"".join((start, shared, _identity(finished), _NO_BODY))
        return b"".join((start, shared, _JSON, _body(finished, token, second)))

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

    def _judged(self, token: str, policy: AuthPolicy | None, *, began: float) -> _Finished | None:
        """Return the answers to *token* if it is good and has what *policy* asks for."""
        audience = None if policy is None else policy.audience
        try:
            info = self._validation.validate(token, audience=audience)
            if policy is not None:
                policy.check(info.scope)
        except UnknownKey:
            return None  # the ordinary way waits for the key
        except InvalidToken as refused:
            self._refusals.note(token, audience, refused)
            return None
        except TokenryError:
            return None
        self._measures.validated(self._clock.monotonic() - began)
        finished = self._finished.get(token)
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
