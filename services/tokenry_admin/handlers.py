"""Administration over HTTP: who asks, may they, do it, say so."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aiohttp import web

from tokenry.errors import ProtocolError, TokenryError
from tokenry.http.fetch import FetchFailed, Request
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.oauth.errors import OAuthError
from tokenry.serving.application import deadline, read_body
from tokenry.serving.problem import Problem
from tokenry_admin.callers import authenticate, authorize
from tokenry_admin.clients import Changed, Editor
from tokenry_admin.disabling import disable_and_revoke
from tokenry_admin.documents import NotThere, NotValid, Taken, WrongRealm, object_key, path_of
from tokenry_admin.issuers import NotSettled
from tokenry_admin.ports import FilesUnavailable
from tokenry_admin.secret_rotation import RotationBusy, RotationLost, SecretRotation, TooManySecrets
from tokenry_admin.views import view
from tokenry_registry.ports import StoreUnavailable, WriteConflict, WriteRefused
from tokenry_registry.realms import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher
    from tokenry.serving.bearers import Judge
    from tokenry.serving.rate_limit import TokenBuckets
    from tokenry_admin.audit import AuditLog
    from tokenry_admin.callers import Caller
    from tokenry_admin.documents import Document, Documents
    from tokenry_admin.issuers import Settling
    from tokenry_admin.metrics import AdminMetrics
    from tokenry_admin.ports import ApplicationFiles
    from tokenry_registry.realms import ObjectKey

MAX_BODY_BYTES: Final = 64 * 1024
PAGE: Final = 200  # clients of one answer unless asked otherwise: read from the store one by one
MAX_PAGE: Final = 1000
MAX_REMEMBERED: Final = 10_000  # documents kept by their version, so that a list costs one listing of the store
RETRY_SECONDS: Final = 5
ROTATION_SECONDS: Final = 180.0  # waiting for issuers takes at most 75, and writing files some more
REVOKE_SECONDS: Final = 10.0
MAX_REASON: Final = 500
KINDS: Final = {"clients": ObjectKind.CLIENT, "users": ObjectKind.USER}

_STATUS: Final[dict[type[TokenryError], int]] = {
    NotThere: HTTPStatus.NOT_FOUND,
    NotValid: HTTPStatus.UNPROCESSABLE_ENTITY,
    WrongRealm: HTTPStatus.UNPROCESSABLE_ENTITY,
    ProtocolError: HTTPStatus.BAD_REQUEST,
    Taken: HTTPStatus.CONFLICT,
    RotationBusy: HTTPStatus.CONFLICT,
    RotationLost: HTTPStatus.CONFLICT,
    TooManySecrets: HTTPStatus.CONFLICT,
    FilesUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    NotSettled: HTTPStatus.SERVICE_UNAVAILABLE,
    WriteRefused: HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    Everything that the handlers work with.

    Attributes:
        clock: Where the time comes from.
        documents: The registry.
        judge: Judges callers' tokens.
        limits: How often each caller may ask.
        audit: The audit log.
        metrics: Counts changes.
        files: Where applications' files are.
        settled: Waits until the issuers have what was written.
        fetcher: Asks the revocation service; it blocks, so it is called in threads.
        revocation_url: Where that is; None: nowhere.
        overlap: Seconds for which old secrets go on.
    """

    clock: Clock
    documents: Documents
    judge: Judge
    limits: TokenBuckets
    audit: AuditLog
    metrics: AdminMetrics
    files: Sequence[ApplicationFiles]
    settled: Settling
    fetcher: Fetcher
    revocation_url: str | None
    overlap: int

    async def caller(self, request: web.Request, *, write: bool, action: str) -> Caller:
        """
        Return who sent *request*, who may do *action*.

        Raises:
            Problem: 401, 403, or 429: too many requests.
            OAuthError: 400: two tokens.
            InvalidToken: The token must not be acted upon.
            ValidatorNotReady: It cannot be judged now.
        """
        caller = await authenticate(request, self.judge)
        try:
            authorize(caller, write=write)
        except Problem as refused:
            self.audit.noted("refused", actor=caller.actor, asked=action, status=refused.status)
            raise
        if wait := self.limits.take(caller.name, now=self.clock.monotonic()):
            raise Problem(429, "too many requests", retry_after=int(wait) + 1)
        return caller

    def editor(self, caller: Caller) -> Editor:
        """Return what writes in the name of *caller*."""
        return Editor(self.documents, audit=self.audit, actor=caller.actor)

    def rotation(self, actor: Mapping[str, Any]) -> SecretRotation:
        """Return what rotates secrets in the name of *actor*."""
        return SecretRotation(
            self.documents,
            files=self.files,
            settled=self.settled,
            clock=self.clock,
            audit=self.audit,
            actor=actor,
            overlap=self.overlap,
        )

    async def write(self, caller: Caller, action: str, do: Callable[[], Awaitable[Any]], *, versioned: bool) -> Any:  # noqa: ANN401 -- as *do*
        """
        Do a write, count it, and say in HTTP's words why it was not done.

        Raises:
            Problem: It was refused.
            OAuthError: The same, where another service has refused.
        """
        try:
            done = await do()
        except TokenryError as error:
            answer = refusal(error, versioned=versioned)
            self.metrics.wrote(action, str(int(answer.status)))
            self.audit.noted("refused", actor=caller.actor, asked=action, status=int(answer.status))
            raise answer from None
        self.metrics.wrote(action, "done")
        return done


def refusal(error: TokenryError, *, versioned: bool = False) -> Problem | OAuthError:
    """Return what a caller is told for *error*; with *versioned* a conflict is a precondition that failed."""
    if isinstance(error, Problem | OAuthError):
        return error
    if isinstance(error, WriteConflict):
        conflict = HTTPStatus.PRECONDITION_FAILED if versioned else HTTPStatus.CONFLICT
        return Problem(conflict, "the object was changed meanwhile: read it again, and decide again")
    if isinstance(error, StoreUnavailable):
        detail = "the registry does not answer; whether it was written is not known, and doing it again is safe"
        return Problem(503, detail, retry_after=RETRY_SECONDS)
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            retry = RETRY_SECONDS if status == HTTPStatus.SERVICE_UNAVAILABLE else None
            return Problem(status, str(error), retry_after=retry)
    raise error


class Clients:
    """The handlers for clients, or for users."""

    def __init__(self, service: Service, plural: str) -> None:
        """Work with *service* on `clients` or `users`."""
        self._service = service
        self._plural = plural
        self._kind = KINDS[plural]
        self._remembered: OrderedDict[tuple[str, str], Document] = OrderedDict()

    async def page(self, request: web.Request) -> web.Response:
        """Answer a page of clients or users, by realm and name."""
        await self._service.caller(request, write=False, action="list")
        try:
            realm, after = request.query.get("realm"), request.query.get("after", "")
            limit = _limit(request.query.get("limit"))
            keys, etags = await self._keys(realm)
            rest = [key for key in keys if _mark(key) > after]
            found, faults = await self._read(rest[:limit], etags)
        except TokenryError as error:
            raise refusal(error) from None
        answer: dict[str, Any] = {self._plural: [view(each) for each in found]}
        if faults:
            answer["unreadable"] = faults
        if len(rest) > limit:
            answer["next"] = _mark(rest[limit - 1])
        return _json(answer)

    async def get(self, request: web.Request) -> web.Response:
        """Answer one client or user."""
        await self._service.caller(request, write=False, action="get")
        try:
            document = await self._service.documents.get(key_of(request, self._kind))
            rotating = await self._service.rotation({}).state(document.key)
        except TokenryError as error:
            raise refusal(error) from None
        rotation = None if rotating is None else {"step": str(rotating.step), "started_at": rotating.started_at}
        return _json({**view(document), "rotation": rotation}, etag=document.etag)

    async def enable(self, request: web.Request) -> web.Response:
        """Let a client or user authenticate again."""
        return await self._switch(request, enabled=True)

    @deadline(ROTATION_SECONDS)
    async def disable(self, request: web.Request) -> web.Response:
        """Take a client or user out of action; with `{"revoke": true}` its tokens as well."""
        return await self._switch(request, enabled=False)

    async def _switch(self, request: web.Request, *, enabled: bool) -> web.Response:
        service, action = self._service, "enable" if enabled else "disable"
        caller = await service.caller(request, write=True, action=action)
        version = version_of(request)
        members: dict[str, Any] = {}

        async def do() -> Changed:
            key, editor = key_of(request, self._kind), service.editor(caller)
            asked = await _flags(request, {"revoke"} if not enabled else set(), texts={"reason"})
            if not asked.get("revoke"):
                return await editor.switch(key, enabled=enabled, version=version)
            done = await disable_and_revoke(
                editor,
                key,
                revoke=lambda body: self._revoke(caller, body),
                settled=service.settled,
                clock=service.clock,
                reason=str(asked.get("reason", "client disabled")),
                version=version,
            )
            members["revocations"] = [dict(done.block), dict(done.final)]
            return done.changed

        changed: Changed = await service.write(caller, action, do, versioned=version is not None)
        members["enabled"], members["changed"] = enabled, changed.was_needed
        return _json(members, etag=changed.etag)

    @deadline(ROTATION_SECONDS)
    async def rotate_secret(self, request: web.Request) -> web.Response:
        """Give an application a new secret."""
        service, action = self._service, "rotate_secret"
        caller = await service.caller(request, write=True, action=action)
        show = request.query.get("show")

        async def do() -> dict[str, Any]:
            asked = await _flags(request, {"finish", "take_over", "leaked"})
            key, rotation = key_of(request, self._kind), service.rotation(caller.actor)
            if not service.files and show != "once" and not asked.get("finish"):
                raise NotValid(
                    "there is no place for applications' files here (TOKENRY_APPLICATION_FILES): with ?show=once the "
                    "secret is answered, for you to hand it over"
                )
            if asked.get("finish"):
                done = await rotation.finish(key)
            else:
                done = await rotation.rotate(
                    key, take_over=bool(asked.get("take_over")), leaked=bool(asked.get("leaked"))
                )
            answer: dict[str, Any] = {
                "step": str(done.step),
                "application": done.application,
                "old_until": done.old_until,
                "resumed": done.resumed,
            }
            return answer if done.secret is None else {**answer, "secret": done.secret.reveal()}

        return _json(await service.write(caller, action, do, versioned=False))

    async def _revoke(self, caller: Caller, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Post a revocation in the name of *caller*, whose token says whether they may."""
        service = self._service
        if service.revocation_url is None:
            raise NotValid("there is no revocation service to ask (TOKENRY_REVOCATION_URL)")
        url = f"{service.revocation_url.rstrip('/')}/revocations"
        headers = {"Authorization": f"Bearer {caller.token}", "Content-Type": "application/json"}
        asked = Request(
            url=url, method="POST", headers=headers, body=json.dumps(body).encode(), deadline_seconds=REVOKE_SECONDS
        )
        try:
            answer = await asyncio.to_thread(service.fetcher.fetch, asked)
        except FetchFailed:
            detail = "the revocation service does not answer; doing all of it again is safe"
            raise Problem(503, detail, retry_after=RETRY_SECONDS) from None
        if answer.status == HTTPStatus.FORBIDDEN:
            raise Problem(403, "the revocation service says that this needs the scope revocation.admin")
        if answer.status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
            raise Problem(502, f"the revocation service answered {answer.status}; doing all of it again is safe")
        try:
            return parse_json_object(answer.body)
        except ProtocolError:
            raise Problem(502, "the revocation service answered something that is no JSON object") from None

    # --- reading many -------------------------------------------------------------------------------------------

    async def _keys(self, realm: str | None) -> tuple[list[ObjectKey], Mapping[str, str]]:
        etags = await self._service.documents.etags(realm=realm)
        keys = self._service.documents.known(etags, kinds={self._kind})
        return sorted(keys, key=_mark), etags

    async def _read(
        self, keys: Sequence[ObjectKey], etags: Mapping[str, str]
    ) -> tuple[Sequence[Document], dict[str, str]]:
        """Return the objects at *keys*; those whose version is known are not read again."""
        held = {key: self._remembered.get((path_of(key), etags[path_of(key)])) for key in keys}
        documents, faults = await self._service.documents.read_all([key for key in keys if held[key] is None])
        fresh = {document.key: document for document in documents}
        for document in documents:
            self._remembered[path_of(document.key), document.etag] = document
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        found = [held[key] or fresh.get(key) for key in keys]
        return [each for each in found if each is not None], {_mark(key): text for key, text in faults.items()}


def _mark(key: ObjectKey) -> str:
    """Return a text by which objects are in order and which says where a page ends."""
    return f"{key.realm}/{key.name}"


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:6]) <= MAX_PAGE:
        raise Problem(400, f"limit is a whole number from 1 to {MAX_PAGE}")
    return int(text[:6])


def key_of(request: web.Request, kind: ObjectKind) -> ObjectKey:
    """
    Return the key of the object that *request* is about.

    Raises:
        NotValid: A name cannot be one.
    """
    return object_key(kind, request.match_info["realm"], request.match_info["name"])


def version_of(request: web.Request) -> str | None:
    """
    Return the version that a write is meant for; None: whichever is there.

    Raises:
        Problem: 400: there are two.
    """
    fields = request.headers.getall("If-Match", [])
    if len(fields) > 1:
        raise Problem(400, "send If-Match once")
    return None if not fields or fields[0] == "*" else _stored_etag(fields[0])


def _stored_etag(text: str) -> str:
    """Return the store's ETag of the one that we answer, which is always quoted."""
    bare = text.removeprefix('"').removesuffix('"')
    return bare.removeprefix("~") if bare.startswith("~") else f'"{bare}"'


def _answered_etag(etag: str) -> str:
    """Return a strong ETag for the store's *etag*: S3 quotes its own, a folder does not."""
    return etag if etag.startswith('"') else f'"~{quote(etag)}"'


async def _flags(request: web.Request, names: set[str], *, texts: set[str] | None = None) -> dict[str, Any]:
    """Return the members of a body, all of them optional."""
    body = await read_body(request, limit=MAX_BODY_BYTES)
    if not body:
        return {}
    members = dict(parse_json_object(body))
    allowed_texts = texts or set()
    for name, value in members.items():
        if name in names and isinstance(value, bool):
            continue
        if name in allowed_texts and isinstance(value, str) and 0 < len(value) <= MAX_REASON:
            continue
        raise ProtocolError(f"the body may have {', '.join(sorted(names | allowed_texts)) or 'no members'}")
    return members


def _json(members: Mapping[str, Any], *, status: int = HTTPStatus.OK, etag: str | None = None) -> web.Response:
    headers = {} if etag is None else {"ETag": _answered_etag(etag)}
    return web.Response(body=dump_json(dict(members)), status=status, content_type="application/json", headers=headers)
