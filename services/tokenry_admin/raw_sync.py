"""Plan B's administration over HTTP ("raw-sync"): the same paths, bodies and status codes, over our registry."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from tokenry.serving.application import read_body
from tokenry_admin.clients import check_version
from tokenry_admin.documents import NotThere
from tokenry_admin.handlers import MAX_BODY_BYTES, key_of, version_of
from tokenry_admin.plan_b_forms import add_password, read_client, read_user
from tokenry_registry.ports import WriteConflict
from tokenry_registry.realms import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenry_admin.clients import Editor
    from tokenry_admin.documents import Document
    from tokenry_admin.handlers import Service
    from tokenry_registry.realms import ObjectKey

_TRIES: Final = 3  # Plan B knows no conflicts: what was written in between counts, and ours is written over it
_READERS: Final = {ObjectKind.CLIENT: read_client, ObjectKind.USER: read_user}


class RawSync:
    """The handlers."""

    def __init__(self, service: Service, kind: ObjectKind) -> None:
        """Work with *service* on clients or users."""
        self._service = service
        self._kind = kind

    async def put(self, request: web.Request) -> web.Response:
        """Create or replace a client or user."""

        def members(before: Document | None, body: bytes) -> dict[str, Any]:
            return self._read(before, body, partial=False)

        return await self._write(request, "raw_sync_put", members, needed=False)

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given; absent, null and empty lists keep what is there."""

        def members(before: Document | None, body: bytes) -> dict[str, Any]:
            return self._read(before, body, partial=True)

        return await self._write(request, "raw_sync_patch", members, needed=True)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a client or user."""
        return await self._write(request, "raw_sync_delete", lambda _before, _body: None, needed=True)

    async def add_password(self, request: web.Request) -> web.Response:
        """Give a user one password more."""

        def members(before: Document | None, body: bytes) -> dict[str, Any]:
            return add_password(body, before={} if before is None else before.members, now=self._now())

        return await self._write(request, "raw_sync_password", members, needed=True, status=HTTPStatus.CREATED)

    def _read(self, before: Document | None, body: bytes, *, partial: bool) -> dict[str, Any]:
        read = _READERS[self._kind]
        return read(body, before=None if before is None else before.members, partial=partial, now=self._now())

    def _now(self) -> int:
        return int(self._service.clock.now())

    async def _write(
        self,
        request: web.Request,
        action: str,
        members: Callable[[Document | None, bytes], Mapping[str, Any] | None],
        *,
        needed: bool,
        status: int = HTTPStatus.OK,
    ) -> web.Response:
        """Write what *members* makes of what is there and of the body (None: nothing is left of it)."""
        service = self._service
        caller = await service.caller(request, write=True, action=action)
        version = version_of(request)

        async def do() -> None:
            key, editor = key_of(request, self._kind), service.editor(caller)
            body = await read_body(request, limit=MAX_BODY_BYTES)
            for attempt in range(_TRIES):
                before = await service.documents.find(key)
                if before is None and (needed or version is not None):
                    raise NotThere(f"there is no {key.kind} {key.name} in {key.realm}")
                try:
                    if before is not None:
                        check_version(before, version)
                    await _apply(editor, key, before, members(before, body))
                except WriteConflict:
                    if version is not None or attempt == _TRIES - 1:
                        raise
                else:
                    return

        await service.write(caller, action, do, versioned=version is not None)
        return web.Response(status=status)


async def _apply(editor: Editor, key: ObjectKey, before: Document | None, after: Mapping[str, Any] | None) -> None:
    if before is None:
        await editor.create(key, after or {}, action="created by raw-sync")
    elif after is None:
        await editor.delete(before, action="deleted by raw-sync")
    else:
        await editor.replace(before, after, action="changed by raw-sync")
