"""Signing keys over HTTP: look at them, rotate, retire."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.serving.application import read_body
from tokenry.serving.problem import Problem
from tokenry_admin.handlers import MAX_BODY_BYTES, MAX_REASON, refusal
from tokenry_admin.key_custody import KeyNotMade
from tokenry_admin.key_rotation import KeyNeeded, NoSuchKey
from tokenry_admin.key_store import NoCustody
from tokenry_registry.signing_keys import KeyUse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenry_admin.callers import Caller
    from tokenry_admin.handlers import Service
    from tokenry_admin.key_actions import KeyActions
    from tokenry_registry.signing_keys import StoredKey

_STATUS: Final[dict[type[TokenryError], int]] = {
    NoSuchKey: HTTPStatus.NOT_FOUND,
    KeyNeeded: HTTPStatus.CONFLICT,
    NoCustody: HTTPStatus.UNPROCESSABLE_ENTITY,
    KeyNotMade: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Keys:
    """The handlers."""

    def __init__(self, service: Service, actions: KeyActions) -> None:
        """Act by *actions* for the callers of *service*."""
        self._service = service
        self._actions = actions

    async def list(self, request: web.Request) -> web.Response:
        """Answer all keys, and when the next one begins to sign."""
        await self._service.caller(request, write=False, action="list keys")
        try:
            views, refused = await self._actions.views()
            next_at = await self._actions.next_rotation_at()
        except TokenryError as error:
            raise _refusal(error) from None
        answer: dict[str, Any] = {"keys": [view.to_dict() for view in views], "next_rotation_at": next_at}
        return _json({**answer, "unreadable": dict(refused)} if refused else answer)

    async def rotate(self, request: web.Request) -> web.Response:
        """Let the standby sign as soon as all caches know it, with another one behind it."""
        action = "rotate_key"
        caller = await self._service.caller(request, write=True, action=action)

        async def do() -> dict[str, Any]:
            use, reason = _asked(await read_body(request, limit=MAX_BODY_BYTES))
            try:
                written = await self._actions.rotate(use)
                if not written:
                    raise KeyNeeded(
                        "a rotation is under way: the standby is published and signs when all caches know it"
                    )
                self._audit(caller, "keys rotated", written, use=str(use), reason=reason)
                newest = max(written, key=lambda key: key.times.activate_at)
                view = await self._actions.view(newest.kid)
            except TokenryError as error:
                raise _refusal(error) from None
            return {**view.to_dict(), "written": [key.kid for key in written]}

        return _json(await self._service.write(caller, action, do, versioned=False), status=HTTPStatus.CREATED)

    async def retire(self, request: web.Request) -> web.Response:
        """Take a key out of the JWK Set before its time, if nothing that it signed is in use."""
        action = "retire_key"
        caller = await self._service.caller(request, write=True, action=action)

        async def do() -> dict[str, Any]:
            try:
                written = await self._actions.retire(request.match_info["kid"])
                self._audit(caller, "key retired", written)
                view = await self._actions.view(request.match_info["kid"])
            except TokenryError as error:
                raise _refusal(error) from None
            return view.to_dict()

        return _json(await self._service.write(caller, action, do, versioned=False))

    def _audit(self, caller: Caller, event: str, written: Sequence[StoredKey], **fields: object) -> None:
        said = {name: value for name, value in fields.items() if value is not None}
        self._service.audit.noted(event, actor=caller.actor, kids=[key.kid for key in written], **said)


def _asked(body: bytes) -> tuple[KeyUse, str | None]:
    """Return the use that a body names, and the reason that it gives."""
    members = dict(parse_json_object(body)) if body else {}
    use, reason = members.pop("use", str(KeyUse.TOKEN)), members.pop("reason", None)
    if members or use not in set(map(str, KeyUse)):
        raise ProtocolError(f"the body may have use, one of {', '.join(KeyUse)}, and reason")
    if reason is not None and not (isinstance(reason, str) and 0 < len(reason) <= MAX_REASON and reason.isprintable()):
        raise ProtocolError(f"reason is a text of at most {MAX_REASON} characters")
    return KeyUse(use), reason


def _refusal(error: TokenryError) -> Exception:
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return Problem(status, str(error))
    return refusal(error)


def _json(members: dict[str, Any], *, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=dump_json(members), status=status, content_type="application/json")
