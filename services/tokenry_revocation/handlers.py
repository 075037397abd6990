"""Revoking over HTTP: who asks, what for, is it allowed, do it, say so."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn

from aiohttp import web

from tokenry.errors import ProtocolError, TokenryError, ValidatorNotReady
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwks import KeySet
from tokenry.oauth.bearer import bearer_token
from tokenry.oauth.client_authentication import CHALLENGE_REALM, read_client_credential
from tokenry.oauth.errors import (
    OAuthError,
    bearer_challenge,
    invalid_client,
    invalid_request,
    temporarily_unavailable,
    unauthorized_client,
)
from tokenry.oauth.form import parse_form, parse_query
from tokenry.oauth.revocation import parse_revocation_request
from tokenry.revocation.fingerprints import key_fingerprint
from tokenry.revocation.lists import RevocationList
from tokenry.revocation.planb import RefreshConflict, next_refresh
from tokenry.serving.application import authorization_values, read_body
from tokenry.serving.keys import CLIENT_ADDRESS
from tokenry.serving.problem import Problem
from tokenry_revocation.acceptance import Attempt, Conflict, KeyReused, NotFound
from tokenry_revocation.approving import SamePerson, waiting_answer
from tokenry_revocation.authorization import NotAllowed, authorize, authorize_admin, authorize_reading, authorize_undo
from tokenry_revocation.callers import Caller, authenticate
from tokenry_revocation.last_key import LIST_SECONDS, LastKey
from tokenry_revocation.pending import Pending
from tokenry_revocation.ports import RecordOutlivesStore, StoreUnavailable
from tokenry_revocation.presented_token import claimed_realm, examine
from tokenry_revocation.records import Actor, Record, RecordType
from tokenry_revocation.refusals import REFUSALS, denied
from tokenry_revocation.requests import (
    Bounds,
    ClaimsTarget,
    GlobalTarget,
    InvalidRequest,
    KeyTarget,
    Revoke,
    TokenIdTarget,
    TokenTarget,
    parse_flag,
    parse_idempotency_key,
    parse_revoke,
    parse_seconds,
    parse_undo,
)
from tokenry_revocation.revoking import (
    Draft,
    Signature,
    draft_claims,
    draft_global,
    draft_key,
    draft_token,
    draft_token_id,
    refresh,
)

if TYPE_CHECKING:
    from tokenry.claims import TokenInfo
    from tokenry.clock import Clock
    from tokenry.oauth.form import Form
    from tokenry.serving.bearers import Judge
    from tokenry.token_validator import Keys
    from tokenry_revocation.acceptance import Acceptance, Outcome
    from tokenry_revocation.approving import SecondPerson
    from tokenry_revocation.audit import AuditLog
    from tokenry_revocation.client_login import ClientLogin
    from tokenry_revocation.counting import Counting
    from tokenry_revocation.feed import Feed
    from tokenry_revocation.instances import Instances
    from tokenry_revocation.metrics import ServiceMetrics
    from tokenry_revocation.ports import RevocationStore
    from tokenry_revocation.presented_token import PresentedToken
    from tokenry_revocation.requests import Target
    from tokenry_revocation.revoking import Fingerprints, Terms
    from tokenry_revocation.rules import RuleBook

MAX_BODY_BYTES: Final = 64 * 1024
RETRY_SECONDS: Final = 2  # a store that lost its quorum comes back within seconds, or not for minutes
READ: Final = "read"
STILL_KNOWN: Final = "validators of Plan B keep the revocation until they restart"

_STATUS: Final[dict[type[TokenryError], int]] = {
    InvalidRequest: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    SamePerson: HTTPStatus.CONFLICT,
    KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    RecordOutlivesStore: HTTPStatus.UNPROCESSABLE_ENTITY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    Everything that the handlers work with.

    Attributes:
        clock: Where the time comes from.
        terms: What of the settings decides about records.
        fingerprints: The hashes.
        issuers: Issuers whose tokens may be revoked.
        claim_names: String claims beyond those that are always there.
        keys: The issuer's keys.
        judge: Judges callers' tokens.
        login: Authenticates clients by their secrets.
        rules: Who may revoke by which claims.
        store: The store, for its clock.
        acceptance: Writes records.
        feed: What is published.
        second_person: Keeps what has to be approved.
        counting: Knows how many tokens live.
        instances: Which validators there are.
        audit: The audit log.
        metrics: Counts refusals.
        other_keys: The keys of the further issuers whose tokens may be revoked; None where there are none.
    """

    clock: Clock
    terms: Terms
    fingerprints: Fingerprints
    issuers: frozenset[str]
    claim_names: frozenset[str]
    keys: Keys
    judge: Judge
    login: ClientLogin
    rules: RuleBook
    store: RevocationStore
    acceptance: Acceptance
    feed: Feed
    second_person: SecondPerson
    counting: Counting
    instances: Instances
    audit: AuditLog
    metrics: ServiceMetrics
    other_keys: Keys | None = None

    @property
    def bounds(self) -> Bounds:
        """Return what a request may ask for now."""
        return Bounds(
            now=self.clock.now(),
            skew=self.terms.skew,
            retention=self.terms.retention,
            claim_names=self.claim_names,
        )

    @property
    def clock_is_off(self) -> bool:
        """Tell whether our clock is outside its half of the bound, as far as the store can tell."""
        offset: float | None = getattr(self.store, "clock_offset", None)
        return offset is not None and abs(offset) > self.terms.skew / 2

    async def denied(self, record: Record) -> dict[str, Any] | None:
        """Tell how often validators have refused a token because of *record*; None when not known."""
        now, instances = self.clock.now(), self.instances
        try:
            kept = await self.store.recall_members(REFUSALS)
        except StoreUnavailable:
            return None
        kept[instances.replica] = instances.refusals.to_bytes(now=now)
        return denied(record.entries, kept.values()).members(now=now)

    def held_keys(self) -> KeySet | None:
        """Return the keys of our issuer that are at hand."""
        snapshot = self.keys.snapshot()
        return None if snapshot is None else snapshot.value

    def known_keys(self) -> KeySet | None:
        """Return the keys of all configured issuers that are at hand: for tokens to be revoked, not for callers."""
        theirs = None if self.other_keys is None else self.other_keys.snapshot()
        sets = [keys for keys in (self.held_keys(), None if theirs is None else theirs.value) if keys is not None]
        return KeySet.union(*sets) if sets else None

    async def refetch_keys(self, issuer: str) -> None:
        """
        Wait, at most a second, for fresh keys of *issuer*.

        Raises:
            ValidatorNotReady: They cannot be had.
        """
        if issuer == self.terms.issuer:
            await self.keys.arefetch(issuer)
        elif self.other_keys is not None:
            await self.other_keys.arefetch(issuer)


class Revocations:
    """The handlers that change something, and those that tell what was changed."""

    def __init__(self, service: Service) -> None:
        """Work with *service*."""
        self._service = service
        self._last_key = LastKey(service.store, new_name=lambda: secrets.token_hex(16))

    # --- POST /revocations ----------------------------------------------------------------------------------

    async def post(self, request: web.Request) -> web.Response:
        """Revoke a token, an id, claims, a key, or everything."""
        caller = await authenticate(request, self._service.judge)
        by = Signature(actor=caller.actor)
        try:
            # 1. what is asked for
            dry_run = parse_flag(request.query.get("dry_run"), name="dry_run")
            body = await read_body(request, limit=MAX_BODY_BYTES)
            key = parse_idempotency_key(request.headers.getall("Idempotency-Key", ()))
            revoke = parse_revoke(body, bounds=self._service.bounds)
            by = replace(by, reason=revoke.reason, ticket=revoke.ticket)
            # 2. whether this caller may
            permission = authorize(caller.info, revoke.target, rules=self._service.rules.rules())
            by = replace(by, rule=permission.rule)
            # 3. whether it can be done now
            self._check_clock(revoke.target)
            draft = await self._draft(revoke)
            # 4. say what it would do, or do it
            if dry_run:
                self._service.audit.previewed(by, action=draft.type.value)
                return await self._preview(draft, revoke.target, caller)
            self._check_confirmed(revoke.target)
            attempt = None if key is None else self._attempt(caller, key, body)
            if await self._needs_second_person(draft, revoke.target):
                return await self._hold(draft, revoke.target, by, attempt)
            outcome = await self._put_in_force(draft, revoke.target, by, attempt)
        except TokenryError as error:
            self._refuse(error, by, action="revoke")
        # 5. a token that had expired is not in force by the first record either: taken, as it was then
        return self._accepted(outcome, created=outcome.created or draft.stillborn)

    async def revoke_line(self, caller: Caller, line: bytes, *, attempt: Attempt) -> Outcome:
        """
        Do what *line* of a batch asks for, as if it had been posted by itself.

        Raises:
            TokenryError: It is refused, or not known to be stored; as for a post.
        """
        service = self._service
        revoke = parse_revoke(line, bounds=service.bounds)
        permission = authorize(caller.info, revoke.target, rules=service.rules.rules())
        by = Signature(actor=caller.actor, rule=permission.rule, reason=revoke.reason, ticket=revoke.ticket)
        self._check_clock(revoke.target)
        draft = await self._draft(revoke)
        self._check_confirmed(revoke.target)
        if await self._needs_second_person(draft, revoke.target):
            raise Conflict("this needs a second person: post it by itself")
        outcome = await self._put_in_force(draft, revoke.target, by, attempt)
        service.audit.accepted(outcome.record, created=outcome.created)
        return outcome

    async def _put_in_force(self, draft: Draft, target: Target, by: Signature, attempt: Attempt | None) -> Outcome:
        """Write what may be written; a key of our issuer only while another one is left, whoever else asks."""
        service = self._service
        if not isinstance(target, KeyTarget) or not self._is_ours(target):
            return await service.acceptance.revoke(draft, by=by, attempt=attempt)
        fingerprint = key_fingerprint(service.terms.issuer, target.kid, salt=service.fingerprints.salt)
        async with self._last_key.announced(fingerprint) as others:
            self._check_other_keys(target, dying=others)
            return await service.acceptance.revoke(draft, by=by, attempt=attempt)

    async def _needs_second_person(self, draft: Draft, target: Target) -> bool:
        """Ask the counters only where the answer depends on them."""
        second = self._service.second_person
        if not second.is_needed(draft, share=None):
            return False
        return second.is_needed(draft, share=(await self._service.counting.estimate(draft.type, target)).share)

    async def _hold(self, draft: Draft, target: Target, by: Signature, attempt: Attempt | None) -> web.Response:
        """Keep what one person asks for until another one approves it."""
        known = None if attempt is None else attempt.key
        pending = await self._service.second_person.hold(draft, target, by=by, attempt=known)
        self._service.audit.waiting(pending)
        return _json(waiting_answer(pending), status=HTTPStatus.ACCEPTED)

    async def approve(self, request: web.Request) -> web.Response:
        """Put in force what another person asked for."""
        caller = await authenticate(request, self._service.judge)
        by, service = Signature(actor=caller.actor), self._service
        try:
            authorize_admin(caller.info)
            name = request.match_info["id"]
            pending = await service.second_person.find(name)
            if pending is not None and pending.is_defaulted and service.clock_is_off:
                raise _clock_is_off("try another replica")
            outcome = await service.second_person.approve(name, by=by.actor, pending=pending)
        except TokenryError as error:
            self._refuse(error, by, action="approve")
        service.audit.approved(outcome.record, by, created=outcome.created)
        return _json(_answer(outcome.record), status=HTTPStatus.CREATED if outcome.created else HTTPStatus.OK)

    def _check_clock(self, target: Target) -> None:
        """Refuse what our clock would decide while it is off; cut-offs that the caller chose are taken."""
        defaulted = isinstance(target, ClaimsTarget | GlobalTarget) and target.issued_before is None
        if defaulted and self._service.clock_is_off:
            raise _clock_is_off("send issued_before")

    @staticmethod
    def _check_confirmed(target: Target) -> None:
        if isinstance(target, GlobalTarget) and not target.confirmed:
            raise InvalidRequest('revoking all tokens asks for "confirm": true')

    async def _draft(self, revoke: Revoke) -> Draft:
        service, target = self._service, revoke.target
        now, terms, fingerprints = service.clock.now(), service.terms, service.fingerprints
        match target:
            case TokenTarget():
                token = await self._examine(target)
                return draft_token(token, now=now, reason=revoke.reason, terms=terms, fingerprints=fingerprints)
            case TokenIdTarget():
                self._check_issuer(target.iss)
                return draft_token_id(target, now=now, reason=revoke.reason, terms=terms, fingerprints=fingerprints)
            case ClaimsTarget():
                return draft_claims(target, now=now, terms=terms, fingerprints=fingerprints)
            case KeyTarget():
                self._check_issuer(target.iss)
                self._check_other_keys(target)
                return draft_key(target, now=now, terms=terms, fingerprints=fingerprints)
            case GlobalTarget():
                return draft_global(target, now=now, terms=terms, fingerprints=fingerprints)

    async def _examine(self, target: TokenTarget) -> PresentedToken:
        """Return what can be believed of the token; keys that are not at hand are fetched once."""
        service = self._service
        token = examine(target.token, issuers=service.issuers, keys=service.known_keys())
        if token.verified is None:
            try:
                await service.refetch_keys(token.iss)
            except ValidatorNotReady:
                return token
            token = examine(target.token, issuers=service.issuers, keys=service.known_keys())
        return token

    def _check_issuer(self, iss: str | None) -> None:
        if iss is not None and iss not in self._service.issuers:
            raise InvalidRequest("iss is not an issuer that is configured here")

    def _is_ours(self, target: KeyTarget) -> bool:
        return (target.iss or self._service.terms.issuer) == self._service.terms.issuer

    def _check_other_keys(self, target: KeyTarget, *, dying: frozenset[bytes] = frozenset()) -> None:
        """
        Refuse to revoke the last key of our issuer: nothing could be signed, and old validators keep old
        keys. Those *dying* are being revoked at this moment.
        """
        service = self._service
        if not self._is_ours(target):
            return
        issuer, keys, publication = service.terms.issuer, service.held_keys(), service.feed.publication
        if keys is None or not keys.has_issuer(issuer):
            raise Problem(503, "the issuer's keys are not known here now", retry_after=RETRY_SECONDS)
        if publication is None or service.feed.age() > LIST_SECONDS:
            raise Problem(503, "which keys are revoked is not known here now", retry_after=RETRY_SECONDS)
        revoked = {entry.fingerprint for live in publication.of_type(RecordType.KEY) for entry in live.entries}
        others = {
            key_fingerprint(issuer, kid, salt=service.fingerprints.salt) for kid in keys.kids(issuer) - {target.kid}
        }
        if not others - revoked:
            raise Conflict("this would leave the issuer no key to sign with: publish another key first")
        if not others - revoked - dying:
            raise Conflict("the only other key is being revoked at this moment: publish another key, or try again")

    async def _preview(self, draft: Draft, target: Target, caller: Caller) -> web.Response:
        service, entries = self._service, draft.entries("dry-run")
        preview = RevocationList.of(
            entries, salts=service.feed.salts, epoch=1, max_token_lifetime=service.terms.max_token_lifetime
        )
        hit = preview.hits(caller.judged, now=draft.now)
        counted = await service.counting.estimate(draft.type, target)
        return _json({
            "dry_run": True,
            "type": draft.type.value,
            "issued_before": next((e.issued_before for e in entries if e.issued_before is not None), None),
            "in_force_until": draft.in_force_until,
            "clients": counted.clients,
            "live_tokens": counted.live_tokens,
            "all_live_tokens": counted.total,
            "as_of": counted.as_of,
            "complete": counted.is_complete,
            "needs_second_person": service.second_person.is_needed(draft, share=counted.share),
            "hits_caller": hit is not None,
            # "wait or revoke?": only where it is counted
            **({"horizon": [list(each) for each in counted.horizon]} if counted.horizon else {}),
        })  # fmt: skip

    def _attempt(self, caller: Caller, key: str, body: bytes) -> Attempt:
        """Return what makes a retry recognisable; only keyed hashes of caller, key and body are kept."""
        info, private = caller.info, self._service.fingerprints.private
        who = dump_json([info.iss, info.sub, info.client_id, key]).decode("utf-8")
        return Attempt(key=f"idempotency-{private(who)}", request=private(body.decode("utf-8")))

    def _accepted(self, outcome: Outcome, *, created: bool) -> web.Response:
        self._service.audit.accepted(outcome.record, created=outcome.created)
        status = HTTPStatus.CREATED if created else HTTPStatus.OK
        return _json(_answer(outcome.record), status=status)

    def _refuse(self, error: TokenryError, by: Signature, *, action: str) -> NoReturn:
        """Raise what the caller is told for *error*; refusals are counted and audited."""
        told = refusal(error, action=action)
        self._service.metrics.refused(told.status)
        detail = told.detail if isinstance(told, Problem) else told.description
        self._service.audit.refused(by, action=action, status=told.status, detail=detail)
        raise told from None

    # --- GET /revocations/{id}, POST /revocations/{id}/undo -------------------------------------------------

    async def get(self, request: web.Request) -> web.Response:
        """Tell who revoked what, when and why, and how often it was refused since."""
        caller = await authenticate(request, self._service.judge)
        by = Signature(actor=caller.actor)
        try:
            authorize_reading(caller.info)
            record = await self._find(request.match_info["id"])
            if isinstance(record, Pending):
                return _json(waiting_answer(record))
            undone = await self._service.acceptance.find_undo(record.id) if record.undoable else None
        except TokenryError as error:
            self._refuse(error, by, action=READ)
        refused = await self._service.denied(record)
        return _json({
            **_answer(record),
            "in_force": record.in_force(self._service.clock.now()) and undone is None,
            "issued_before": record.issued_before,
            "names": list(record.names),
            "by": _actor(record.actor),
            "approved_by": None if record.approved_by is None else _actor(record.approved_by),
            "rule": record.rule,
            "reason": record.reason,
            "ticket": record.ticket,
            "undone": None if undone is None else _undone(undone),
            "denied": None if refused is None else refused["count"],
            "refused": refused,
        })  # fmt: skip

    async def _find(self, name: str) -> Record | Pending:
        """Return the record *name*, or what waits under that name."""
        try:
            return await self._service.acceptance.find(name)
        except NotFound:
            pending = await self._service.second_person.find(name)
            if pending is None:
                raise
            return pending

    async def undo(self, request: web.Request) -> web.Response:
        """Take a mistake back."""
        caller = await authenticate(request, self._service.judge)
        by = Signature(actor=caller.actor)
        try:
            reason, ticket = parse_undo(await read_body(request, limit=MAX_BODY_BYTES))
            by = replace(by, reason=reason, ticket=ticket)
            authorize_undo(caller.info)
            outcome = await self._service.acceptance.undo(request.match_info["id"], by=by)
        except TokenryError as error:
            self._refuse(error, by, action="undo")
        return self._accepted(outcome, created=outcome.created)

    # --- POST /notifications/REFRESH_FROM -------------------------------------------------------------------

    async def refresh_from(self, request: web.Request) -> web.Response:
        """Tell Plan B's validators to drop what they have and fetch it again."""
        caller = await authenticate(request, self._service.judge)
        by, service = Signature(actor=caller.actor), self._service
        try:
            authorize_admin(caller.info)
            force = parse_flag(request.query.get("force"), name="force")
            value, now = int(parse_seconds(request.query.get("value"), name="value")), service.clock.now()
            if not 0 < value <= now:
                raise InvalidRequest("value is a number of Unix seconds that have passed")
            record = self._notification(value, now, by, force=force)
            outcome = await service.acceptance.publish(record)
        except TokenryError as error:
            self._refuse(error, by, action="refresh")
        service.audit.accepted(record, created=outcome.created)
        answer = {"REFRESH_FROM": record.refresh_from, "REFRESH_TIMESTAMP": record.revoked_at}
        return _json(answer, status=HTTPStatus.CREATED if outcome.created else HTTPStatus.OK)

    def _notification(self, value: int, now: float, by: Signature, *, force: bool) -> Record:
        """Return the notification for *value*: the latest one, when it says just that."""
        service = self._service
        publication = service.feed.publication
        if publication is None:
            raise Problem(503, "the store was not read yet", retry_after=RETRY_SECONDS)
        terms, effective = service.terms, service.terms.default_cutoff(now)
        latest = publication.plan_b.latest_refresh(now)
        try:
            notice = next_refresh(latest, since=value, now=effective, retention=terms.retention, force=force)
        except RefreshConflict:
            raise Conflict(
                "another value was sent within the retention, and a second one kills an unchanged "
                "planb-tokeninfo: send force=true if there is none"
            ) from None
        return refresh(notice, now=now, terms=terms, fingerprints=service.fingerprints, by=by)

    # --- POST /oauth2/revoke --------------------------------------------------------------------------------

    async def revoke_own(self, request: web.Request) -> web.Response:
        """Revoke a token of the client that asks (RFC 7009 section 2)."""
        if parse_query(request.query_string).names() & {"token", "client_id", "client_secret"}:
            raise invalid_request("send the parameters in the body, not in the query string")
        body = await read_body(request, limit=MAX_BODY_BYTES)
        form = parse_form(body, content_type=request.headers.get("Content-Type"))
        authorization = authorization_values(request)
        if not authorization and "client_secret" not in form:
            raise _not_authenticated()
        token = parse_revocation_request(form)
        caller = await self._client(request, form, realm=form.one("realm") or claimed_realm(token))
        try:
            presented = await self._examine_own(TokenTarget(token=token))
        except InvalidRequest:
            return web.Response()  # section 2.2: what is no token of ours is as good as revoked
        if presented is None or presented.verified is None:
            return web.Response()
        actor = Actor(iss=caller.iss, sub=caller.sub, client_id=caller.client_id)
        by = Signature(actor=actor)
        owner = (presented.verified.realm, presented.verified.client_id)
        if caller.client_id is None or owner != (caller.realm, caller.client_id):
            self._service.metrics.refused(HTTPStatus.BAD_REQUEST)
            self._service.audit.refused(by, action="revoke own", status=400, detail="not its token")
            raise unauthorized_client("the token was issued to another client; it stays valid")
        await self._revoke_own(presented, by)
        return web.Response()

    async def _client(self, request: web.Request, form: Form, *, realm: str | None) -> TokenInfo:
        """Return what the client's token says: the bearer itself, or one had for its credentials."""
        authorization = authorization_values(request)
        bearer = bearer_token(authorization)
        if bearer is not None:
            if form.names() & {"client_secret", "client_assertion"}:
                raise invalid_request("use one method of authentication, not two")
            return await self._service.judge.avalidate(bearer)
        credential = read_client_credential(authorization, form)
        if credential is None:
            raise _not_authenticated()
        return await self._service.login.authenticate(
            credential,
            authorization=authorization[0] if authorization else None,
            realm=realm,
            address=request[CLIENT_ADDRESS],
        )

    async def _examine_own(self, target: TokenTarget) -> PresentedToken | None:
        """Return the token if it is verified; one whose key cannot be had may be alive: 503."""
        service = self._service
        token = examine(target.token, issuers=service.issuers, keys=service.held_keys())
        if token.verified is None and token.iss == service.terms.issuer:
            try:
                await service.keys.arefetch(token.iss)
            except ValidatorNotReady:
                raise temporarily_unavailable("the token's key cannot be had now", retry_after=RETRY_SECONDS) from None
            token = examine(target.token, issuers=service.issuers, keys=service.held_keys())
        return token if token.verified is not None else None

    async def _revoke_own(self, presented: PresentedToken, by: Signature) -> None:
        service = self._service
        draft = draft_token(
            presented,
            now=service.clock.now(),
            reason=None,
            terms=service.terms,
            fingerprints=service.fingerprints,
        )
        try:
            outcome = await service.acceptance.revoke(draft, by=by)
        except TokenryError as error:
            service.metrics.refused(HTTPStatus.SERVICE_UNAVAILABLE)
            service.audit.refused(by, action="revoke own", status=503, detail=type(error).__name__)
            raise temporarily_unavailable(
                "not stored: the token may still be accepted", retry_after=RETRY_SECONDS
            ) from None
        service.audit.accepted(outcome.record, created=outcome.created)


def _clock_is_off(advice: str) -> Problem:
    detail = f"this service's clock is off, so it cannot choose a cut-off: {advice}"
    return Problem(503, detail, retry_after=RETRY_SECONDS)


def refusal(error: TokenryError, *, action: str) -> Problem | OAuthError:
    """Return what the caller is told for *error*; texts of the store's errors are for the log only."""
    if isinstance(error, Problem | OAuthError):
        return error
    if isinstance(error, NotAllowed):
        challenge = bearer_challenge(error="insufficient_scope", scope=[error.scope])
        return Problem(403, str(error), headers=[("WWW-Authenticate", challenge)])
    if isinstance(error, RecordOutlivesStore):
        return Problem(422, "it would stay in force longer than the store keeps anything")
    if isinstance(error, StoreUnavailable):
        detail = "the store does not answer" if action == READ else "not known to be stored: send it again"
        return Problem(503, detail, retry_after=RETRY_SECONDS)
    if isinstance(error, ProtocolError):
        return Problem(503, "the store has a record that this version cannot read", retry_after=RETRY_SECONDS)
    status = _STATUS.get(type(error))
    if status is None:
        raise error
    return Problem(status, str(error))


def _not_authenticated() -> OAuthError:
    """Return the refusal of a client without credentials: both ways to authenticate are offered."""
    challenges = [("WWW-Authenticate", bearer_challenge()), *invalid_client(realm=CHALLENGE_REALM).headers]
    return OAuthError("invalid_client", "client authentication failed", status=401, headers=challenges)


def _answer(record: Record) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": record.id,
        "type": record.type.value,
        "revoked_at": record.revoked_at,
        "in_force_until": record.in_force_until,
        "propagated_by": record.propagated_by,
        "plan_b_by": record.plan_b_by,
    }
    if record.undoes is not None:
        answer |= {"undoes": record.undoes, "plan_b": STILL_KNOWN}
    return answer


def _actor(actor: Actor) -> dict[str, Any]:
    return {"iss": actor.iss, "sub": actor.sub, "client_id": actor.client_id}


def _undone(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "at": record.revoked_at,
        "by": _actor(record.actor),
        "reason": record.reason,
        "ticket": record.ticket,
    }


def _json(members: dict[str, Any], *, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=dump_json(members), status=status, content_type="application/json")


__all__ = ["RETRY_SECONDS", "Revocations", "Service", "refusal"]
