"""
Token requests answered at once (see `tokenry.serving.quick`): those of a client whose secret needs no slow check.

Invariants:
    * Nothing is decided here. The request goes through `TokenIssuance.issue`, with every one of its steps, or, if it
      is the same as one that was granted a moment ago, through `TokenIssuance.again`; only aiohttp's machinery around
      them is left out.
    * Where that would wait (a slow hash, a delay), nothing has been counted yet: it is broken off there, and the
      request goes the ordinary way from its beginning. Requests that could have done something before they wait (an
      assertion is used up, a token is exchanged, a key management service signs, a failure is delayed) are not begun
      here.
    * An answer is the one that the ordinary way gives, the refusals among them.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import hdrs
from multidict import istr

from tokenry.errors import TokenryError
from tokenry.oauth.errors import OAuthError
from tokenry.oauth.form import FORM, parse_form, parse_query
from tokenry.oauth.token_endpoint import CLIENT_CREDENTIALS
from tokenry.serving.access_log import record_request
from tokenry.serving.addresses import FORWARDED_FOR, client_address, peer_address
from tokenry.serving.application import render_refusal, request_id_of, request_ids
from tokenry.serving.client_certificates import presented_certificate
from tokenry.serving.keys import current_request_id
from tokenry_issuer.issuance import RawRequest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from multidict import CIMultiDictProxy

    from tokenry.clock import Clock
    from tokenry.oauth.mutual_tls import PresentedCertificate
    from tokenry.oauth.token_endpoint import TokenResponse
    from tokenry.serving.health import Health
    from tokenry.serving.metrics import LoopSeries, Metrics
    from tokenry_issuer.decisions import Decisions
    from tokenry_issuer.issuance import TokenIssuance
    from tokenry_issuer.settings import Settings

_HEAD = b"HTTP/1.1 200 OK\r\nX-Request-Id: "
_GRANTED = (
    "\r\nCache-Control: no-store\r\nPragma: no-cache\r\nContent-Type: application/json"
    "\r\nX-Content-Type-Options: nosniff\r\nDate: "
)
_SECURITY = "\r\nX-Content-Type-Options: nosniff\r\nDate: "
_NO_QUERY = parse_query("")
_PROOF = istr("DPoP")  # lowered once


class QuickTokens:
    """The quick answers of the token endpoint."""

    def __init__(
        self,
        issuance: TokenIssuance,
        *,
        decisions: Decisions,
        paths: Collection[str],
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        waits: Callable[[], bool],
    ) -> None:
        """
        Answer by *issuance*.

        Args:
            issuance: Decides.
            decisions: Recognises requests that come again; the one of *issuance*.
            paths: Where the token endpoint is.
            settings: Name the proxies that are trusted.
            clock: Where the time comes from.
            metrics: Where requests are counted.
            health: Tells whether the service is draining: then connections are to be closed, the ordinary way.
            waits: Tells whether something may have to be waited for after a request was judged: a signature elsewhere,
                or the delay of a failure.
        """
        self._waits = waits
        self._issuance = issuance
        self._decisions = decisions
        self._paths = frozenset(paths)
        self._settings = settings
        self._clock = clock
        self._requests = metrics.requests
        self._timers: dict[tuple[str, int], LoopSeries] = {}
        self._health = health
        self._new_request_id = request_ids()
        self._shared: tuple[int, str, bytes] = (-1, "", b"")

    def takes(self, method: str, path: str) -> bool:
        """Tell whether it is a token request without a query."""
        return method == hdrs.METH_POST and path in self._paths and not self._health.draining and not self._waits()

    def __call__(
        self, path: str, headers: CIMultiDictProxy[str], body: bytes, transport: asyncio.Transport
    ) -> bytes | None:
        """Return the answer to a token request that need not wait, or None; see `QuickForms`."""
        began = self._clock.monotonic()
        if headers.get(hdrs.CONTENT_TYPE) != FORM or hdrs.CONTENT_ENCODING in headers or hdrs.EXPECT in headers:
            return None
        if _PROOF in headers:
            return None  # it is used up
        try:
            caller = self._caller(headers, transport)
        except TokenryError:
            return None  # the ordinary way says, counts and records what is wrong
        request_id = request_id_of(headers, self._new_request_id)
        reset = current_request_id.set(request_id)
        try:
            found = self._find(headers, body, caller, request_id)
            if found is None:
                return None
            status, answer = found
            self._observe(path, status, self._clock.monotonic() - began, caller.address)
            return answer
        finally:
            current_request_id.reset(reset)

    def _caller(self, headers: CIMultiDictProxy[str], transport: asyncio.Transport) -> _Caller:
        peer, settings = peer_address(transport), self._settings
        proxies = settings.trusted_proxies
        return _Caller(
            client_address(peer, forwarded_for=headers.getall(FORWARDED_FOR, ()), trusted_proxies=proxies),
            presented_certificate(settings, peer=peer, headers=headers, transport=transport),
        )

    def _find(
        self, headers: CIMultiDictProxy[str], body: bytes, caller: _Caller, request_id: str
    ) -> tuple[int, bytes] | None:
        """Return status and answer, or None for the ordinary way."""
        authorization, host = headers.getall(hdrs.AUTHORIZATION, ()), headers.get(hdrs.HOST)
        identity = None
        if caller.certificate is None:  # tokens may be bound to it
            identity = self._decisions.identity(authorization, host, body)
        if identity is not None and (again := self._issuance.again(identity, caller.address)) is not None:
            return 200, self._granted(again, request_id)
        try:
            form = parse_form(body, content_type=FORM)
            if form.one("grant_type") != CLIENT_CREDENTIALS or "client_assertion" in form:
                return None
        except TokenryError:
            return None
        raw = RawRequest(
            form=form,
            query=_NO_QUERY,
            authorization=authorization,
            host=host,
            address=caller.address,
            certificate=caller.certificate,
            identity=identity,
        )
        return self._at_once(raw, request_id)

    def _at_once(self, raw: RawRequest, request_id: str) -> tuple[int, bytes] | None:
        """
        Return status and answer to *raw*, or None where they have to be waited for.

        A refusal is made into its answer here: kept in a local it would hold its own frames, with the form in them, and
        wait for the garbage collector.
        """
        issuing = self._issuance.issue(raw)
        try:
            issuing.send(None)
        except StopIteration as done:
            response: TokenResponse = done.value
            return 200, self._granted(response.to_json(), request_id)
        except OAuthError as refusal:
            return refusal.status, self._refusal(refusal, request_id)
        issuing.close()
        return None

    def _observe(self, path: str, status: int, seconds: float, address: str) -> None:
        timer = self._timers.get((path, status))
        if timer is None:
            timer = self._timers[path, status] = self._requests.labels(hdrs.METH_POST, path, str(status))
        timer.observe(seconds)
        record_request(method=hdrs.METH_POST, route=path, status=status, seconds=seconds, client_address=address)

    def _granted(self, body: bytes, request_id: str) -> bytes:
        _, _, shared = self._of_this_second()
        return b"%b%b%b\r\nContent-Length: %d\r\n\r\n%b" % (_HEAD, request_id.encode("ascii"), shared, len(body), body)

    def _refusal(self, refusal: OAuthError, request_id: str) -> bytes:
        rendered = render_refusal(refusal, as_problem=False, request_id=request_id)
        body = rendered.body
        assert isinstance(body, bytes)  # noqa: S101 -- `render_refusal` gives nothing else
        _, date, _ = self._of_this_second()
        fields = "".join(f"\r\n{name}: {value}" for name, value in rendered.headers.items())
        head = (
            f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\nX-Request-Id: {request_id}"
            f"{fields}{_SECURITY}{date}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("utf-8") + body

    def _of_this_second(self) -> tuple[int, str, bytes]:
        """Return the second, its date, and the fields that all granted answers within it have in common."""
        second = int(self._clock.now())
        if self._shared[0] != second:
            date = formatdate(second, usegmt=True)
            self._shared = (second, date, (_GRANTED + date).encode("ascii"))
        return self._shared


class _Caller(NamedTuple):
    address: str
    certificate: PresentedCertificate | None
