"""
The endpoints: from a request to a validation, and from its outcome to an answer.

Invariants:
    * A good token is answered 200, a bad one the same 401 whatever is wrong with it, and what cannot be told
      503: a 401 makes callers drop a good token, a 200 lets a bad one through.
    * Every answer says by which list it was judged (`Tokenry-List`). The stamp is taken before the
      validation, so it never claims more than the list that was looked at had.
    * Nothing of a request is logged but the reason of a refusal.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import hdrs, web

from tokenry.errors import InsufficientScope, InvalidToken, ValidatorNotReady
from tokenry.jose.encoding import dump_json
from tokenry.oauth.bearer import bearer_token
from tokenry.oauth.client_authentication import read_client_credential
from tokenry.oauth.errors import OAuthError, bearer_challenge, invalid_request, temporarily_unavailable
from tokenry.oauth.form import FORM, Form, parse_form, parse_query
from tokenry.oauth.introspection import INACTIVE, parse_introspection_request
from tokenry.revocation.stamps import LIST_HEADER
from tokenry.scope import NO_SCOPE, Scope
from tokenry.serving.access_log import record
from tokenry.serving.application import authorization_values, read_body
from tokenry.serving.client_certificates import client_certificate
from tokenry.serving.keys import CLIENT_ADDRESS, REQUEST_ID
from tokenry.serving.outgoing import TimedOut, Unreachable
from tokenry.serving.problem import Problem
from tokenry.validation.validator import ANY_CONFIRMATION
from tokenry_tokeninfo.answers import (
    DOTS_OF_A_JWS,
    INVALID_TOKEN_BODY,
    INVALID_TOKEN_CHALLENGE,
    NO_TOKEN_BODY,
    TOKEN_REFUSED,
    token_info_body,
)
from tokenry_tokeninfo.auth_policy import (
    REQUIRE_HEADER,
    AuthPolicy,
    PolicyFault,
    identity_headers,
    policy_from_header,
    policy_from_query,
)
from tokenry_tokeninfo.callers import INTROSPECT_SCOPE, not_authenticated
from tokenry_tokeninfo.introspected import introspection, opaque_introspection
from tokenry_tokeninfo.signed_answers import MEDIA_TYPE, accepts_jwt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.claims import TokenInfo
    from tokenry.clock import Clock
    from tokenry.jose.jwks import KeySet
    from tokenry.serving.rate_limit import TokenBuckets
    from tokenry.serving.turns import Turns
    from tokenry.validation.snapshots import SnapshotSource
    from tokenry.validation.validator import Confirmation
    from tokenry_tokeninfo.callers import ClientExchange
    from tokenry_tokeninfo.measures import Measures
    from tokenry_tokeninfo.ports import Validation
    from tokenry_tokeninfo.signed_answers import AnswerSigner
    from tokenry_tokeninfo.stamps import Stamps
    from tokenry_tokeninfo.upstream import Upstream, UpstreamAnswer

LIST_STAMP = web.RequestKey("list_stamp", str)
JSON = "application/json"
JWKS_CACHE = "public, max-age=60"  # seconds: below the time for which a key is published before it signs

_log = structlog.get_logger("tokenry.tokeninfo")


class Handlers:
    """All endpoints, over one validation."""

    def __init__(
        self,
        *,
        issuer: str,
        clock: Clock,
        validation: Validation,
        keys: SnapshotSource[KeySet],
        stamps: Stamps,
        measures: Measures,
        turns: Turns,
        exchange: ClientExchange,
        introspection_limit: TokenBuckets,
        introspection_audiences: Mapping[str, frozenset[str]],
        upstream: Upstream | None,
        introspection_scopes: Mapping[str, tuple[str, ...]],
        signer: AnswerSigner | None,
    ) -> None:
        """See `tokenry_tokeninfo.app.create_app`."""
        self._introspection_scopes = introspection_scopes
        self._signer = signer
        self._vary = {} if signer is None else {hdrs.VARY: hdrs.ACCEPT}
        self._issuer = issuer
        self._clock = clock
        self._validation = validation
        self._keys = keys
        self._stamps = stamps
        self._measures = measures
        self._turns = turns
        self._exchange = exchange
        self._introspection_limit = introspection_limit
        self._introspection_audiences = introspection_audiences
        self._upstream = upstream
        self._jwks: tuple[KeySet | None, bytes, str] = (None, b"", "")

    # --- token info ---------------------------------------------------------------------------------------

    async def token_info(self, request: web.Request) -> web.Response:
        """Answer `GET` and `POST /oauth2/tokeninfo`."""
        self._stamp(request)
        token, audience = await _token_and_audience(request)
        if token is None:
            return web.Response(status=400, body=NO_TOKEN_BODY, content_type=JSON)
        try:
            if self._upstream is not None and token.count(".") != DOTS_OF_A_JWS:
                answer = await self._ask_upstream(self._upstream, token)
                cache = "HIT" if answer.remembered else "MISS"
                return web.Response(body=answer.body, content_type=JSON, headers={"X-Cache": cache})
            info = await self._validate(token, audience=audience, confirmation=_certificate(request))
        except InvalidToken as error:
            return _invalid_token(error)
        body = token_info_body(token, info, now=self._clock.now())
        return web.Response(body=body, content_type=JSON)

    async def _ask_upstream(self, upstream: Upstream, token: str) -> UpstreamAnswer:
        results = self._measures.upstream
        try:
            answer = await upstream.ask(token)
        except InvalidToken:
            results["invalid"].inc()
            raise
        except TimedOut:
            results["timeout"].inc()
            raise Problem(504, "the upstream token info did not answer in time") from None
        except Unreachable as error:
            results["failed"].inc()
            _log.warning("upstream token info failed", problem=str(error))
            raise Problem(502, "the upstream token info cannot be used now") from None
        results["hit" if answer.remembered else "miss"].inc()
        return answer

    # --- introspection ------------------------------------------------------------------------------------

    async def introspect(self, request: web.Request) -> web.Response:
        """Answer `POST /oauth2/introspect` (RFC 7662 section 2), signed where that was asked for (RFC 9701)."""
        self._stamp(request)
        signer = self._signer if accepts_jwt(request.headers.getall(hdrs.ACCEPT, ())) else None
        form = parse_form(await read_body(request), content_type=request.headers.get(hdrs.CONTENT_TYPE))
        caller = await self._authenticate(request, form, signed=signer is not None)
        self._throttle(caller)
        token = parse_introspection_request(form)
        try:
            answer = await self._introspected(token, caller, audience=form.one("audience"))
        except InvalidToken:
            answer = None
        self._measures.introspections["inactive" if answer is None else "active"].inc()
        if signer is not None:
            return self._signed(signer, answer or {"active": False}, caller)
        body = INACTIVE if answer is None else dump_json(answer)
        return web.Response(body=body, content_type=JSON, headers=self._vary)

    async def _introspected(self, token: str, caller: TokenInfo, *, audience: str | None) -> dict[str, Any] | None:
        """Return what *caller* is told of *token*, or None for nothing."""
        narrowed = self._introspection_scopes.get(_name(caller))
        if self._upstream is not None and token.count(".") != DOTS_OF_A_JWS:
            if audience is not None or _name(caller) in self._introspection_audiences:
                return None  # an opaque token has no audience
            answer = await self._ask_upstream(self._upstream, token)
            return opaque_introspection(answer.members, narrowed_to=narrowed, now=self._clock.now())
        # RFC 8705 section 3.2: the caller is told what the token is bound to, and compares.
        info = await self._validate(token, audience=audience, confirmation=ANY_CONFIRMATION)
        return introspection(info, narrowed_to=narrowed) if self._may_see(caller, info) else None

    def _signed(self, signer: AnswerSigner, answer: dict[str, Any], caller: TokenInfo) -> web.Response:
        signed = signer.sign(answer, caller=_name(caller), now=self._clock.now())
        if signed is None:
            raise temporarily_unavailable("no key may sign answers now")
        return web.Response(body=signed.encode("ascii"), content_type=MEDIA_TYPE, headers=self._vary)

    async def introspection_keys(self, _request: web.Request) -> web.Response:
        """Answer `GET /oauth2/introspect/keys`: what signed answers are verified with."""
        if self._signer is None:
            raise web.HTTPNotFound
        body = self._signer.jwks(now=self._clock.now())
        return web.Response(body=body, content_type=JSON, headers={hdrs.CACHE_CONTROL: JWKS_CACHE})

    async def _authenticate(self, request: web.Request, form: Form, *, signed: bool) -> TokenInfo:
        """Return the token of the caller (RFC 7662 section 2.1)."""
        authorization = authorization_values(request)
        bearer = bearer_token(authorization)
        if bearer is not None:
            if "client_secret" in form:
                raise invalid_request("use one method of authentication, not two")
            return await self._validation.avalidate(
                bearer,
                scope=frozenset({INTROSPECT_SCOPE}),
                audience=self._issuer,
                confirmation=_certificate(request),
            )
        credential = read_client_credential(authorization, form)
        if credential is None:
            # RFC 9701 section 4 has another status for it.
            raise invalid_request("authenticate to get a signed answer") if signed else not_authenticated()
        return await self._exchange.authenticate(
            credential,
            authorization=authorization,
            realm=_realm(request, form),
            address=request[CLIENT_ADDRESS],
        )

    def _throttle(self, caller: TokenInfo) -> None:
        wait = self._introspection_limit.take(_name(caller), now=self._clock.monotonic())
        if wait:
            self._measures.introspections["throttled"].inc()
            raise OAuthError(
                "temporarily_unavailable",
                "too many introspections; slow down",
                status=429,
                retry_after=int(wait) + 1,
            )

    def _may_see(self, caller: TokenInfo, info: TokenInfo) -> bool:
        allowed = self._introspection_audiences.get(_name(caller))
        return allowed is None or not allowed.isdisjoint(info.aud)

    # --- gateways -----------------------------------------------------------------------------------------

    async def auth_by_query(self, request: web.Request) -> web.Response:
        """Answer `/auth`: the query holds the policy; a `Tokenry-Require` header is the caller's, void."""
        self._stamp(request)
        try:
            policy = policy_from_query(request.rel_url.raw_query_string)
        except PolicyFault as fault:
            return self._policy_fault(request, fault)
        return await self._auth(request, policy)

    async def auth_by_header(self, request: web.Request) -> web.Response:
        """Answer `/auth/<anything>`: path and query are the caller's own, the policy is in the header."""
        self._stamp(request)
        try:
            policy = policy_from_header(request.headers.getall(REQUIRE_HEADER, []))
        except PolicyFault as fault:
            return self._policy_fault(request, fault)
        return await self._auth(request, policy)

    async def _auth(self, request: web.Request, policy: AuthPolicy) -> web.Response:
        try:
            token = bearer_token(authorization_values(request))
        except OAuthError as error:
            # A gateway takes 400 for an outage; two tokens are no token.
            challenge = bearer_challenge(error="invalid_request", description=error.description)
            return _unauthorized(dump_json(error.body()), challenge)
        if token is None:
            return _unauthorized(NO_TOKEN_BODY, bearer_challenge())  # RFC 6750 section 3.1: no error code
        try:
            info = await self._validate(token, audience=policy.audience, confirmation=_certificate(request))
        except InvalidToken as error:
            return _invalid_token(error)
        policy.check(info.scope)
        return web.Response(headers=identity_headers(info))

    def _policy_fault(self, request: web.Request, fault: Exception) -> web.Response:
        self._measures.policy_faults.inc()
        _log.error("the gateway's policy is missing or not understood", problem=str(fault))
        body = {"error": "server_error", "error_description": f"policy; request id {request[REQUEST_ID]}"}
        return web.Response(status=500, body=dump_json(body), content_type=JSON)

    # --- keys and health ----------------------------------------------------------------------------------

    async def jwks(self, request: web.Request) -> web.Response:
        """Answer `GET /oauth2/connect/keys`: our issuer's keys; others publish their own."""
        held = self._keys.snapshot()
        if held is None:
            raise temporarily_unavailable("no keys are held yet")
        body, etag = self._jwks_body(held.value)
        headers = {hdrs.CACHE_CONTROL: JWKS_CACHE, hdrs.ETAG: f'"{etag}"'}
        if any(tag.value in {etag, "*"} for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=JSON, headers=headers)

    def _jwks_body(self, keys: KeySet) -> tuple[bytes, str]:
        known, body, etag = self._jwks
        if known is not keys:
            body = keys.to_jwks(self._issuer)
            etag = hashlib.sha256(body).hexdigest()[:32]
            self._jwks = (keys, body, etag)
        return body, etag

    async def health(self, _request: web.Request) -> web.Response:
        """Answer `GET /health` as Plan B did: OK when there is a key."""
        held = self._keys.snapshot()
        if held is None or not len(held.value):
            return web.Response(status=503, text="NO KEYS")
        return web.Response(text="OK")

    # --- shared -------------------------------------------------------------------------------------------

    async def _validate(
        self, token: str, *, audience: str | None, confirmation: str | Confirmation | None, scope: Scope = NO_SCOPE
    ) -> TokenInfo:
        if not self._validation.remembers(token):
            await self._turns.come()  # a signature is to be verified: those that are known go first
        began = self._clock.monotonic()
        try:
            info = await self._validation.avalidate(token, scope=scope, audience=audience, confirmation=confirmation)
        except (InvalidToken, InsufficientScope, ValidatorNotReady) as error:
            self._measures.validated(self._clock.monotonic() - began, error)
            raise
        self._measures.validated(self._clock.monotonic() - began)
        return info

    def _stamp(self, request: web.Request) -> None:
        stamp, _ = self._stamps.stamp()
        if stamp is not None:
            request[LIST_STAMP] = stamp


async def add_list_stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put the list's stamp on an answer (a signal of the application, so that errors have it too)."""
    stamp = request.get(LIST_STAMP)
    if stamp is not None:
        response.headers[LIST_HEADER] = stamp


async def _token_and_audience(request: web.Request) -> tuple[str | None, str | None]:
    """Return the token, from the one place that it was sent in, and the audience to check, if any."""
    query, form = Form(), Form()
    if request.rel_url.raw_query_string:
        query = parse_query(request.rel_url.raw_query_string)
    if request.method == hdrs.METH_POST and request.content_type == FORM:
        form = parse_form(await read_body(request), content_type=request.headers.get(hdrs.CONTENT_TYPE))
    token = bearer_token(
        authorization_values(request), form=form.every("access_token"), query=query.every("access_token")
    )
    return token, form.one("audience") or query.one("audience")


def _certificate(request: web.Request) -> str | None:
    presented = client_certificate(request)
    return None if presented is None else presented.thumbprint


def _invalid_token(error: InvalidToken) -> web.Response:
    """Answer the same bytes for every reason, which goes to the log alone."""
    record(TOKEN_REFUSED, {"reason": str(error.reason)})
    return _unauthorized(INVALID_TOKEN_BODY, INVALID_TOKEN_CHALLENGE)


def _unauthorized(body: bytes, challenge: str) -> web.Response:
    return web.Response(status=401, body=body, content_type=JSON, headers={hdrs.WWW_AUTHENTICATE: challenge})


def _realm(request: web.Request, form: Form) -> str | None:
    raw = request.rel_url.raw_query_string
    in_query = parse_query(raw).one("realm") if raw else None
    if in_query is not None and "realm" in form:
        raise invalid_request("realm was sent more than once")
    return in_query or form.one("realm")


def _name(caller: TokenInfo) -> str:
    return caller.client_id or caller.sub
