"""What administrators do to clients and users one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenry_admin.documents import object_key
from tokenry_admin.views import ID_MEMBERS
from tokenry_registry.ports import WriteConflict
from tokenry_registry.realms import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry_admin.audit import AuditLog
    from tokenry_admin.documents import Document, Documents
    from tokenry_registry.realms import ObjectKey


@dataclass(frozen=True, slots=True)
class Changed:
    """
    What a write has done.

    Attributes:
        members: The object as it is now; None when it is gone.
        etag: Its version; None when it is gone.
        was_needed: Whether anything was written at all.
    """

    members: Mapping[str, Any] | None
    etag: str | None
    was_needed: bool = True


class Editor:
    """Writes single objects, and an audit record for each write."""

    def __init__(self, documents: Documents, *, audit: AuditLog, actor: Mapping[str, Any]) -> None:
        """Write as *actor*."""
        self.documents = documents
        self.audit = audit
        self.actor = actor

    async def create(self, key: ObjectKey, members: Mapping[str, Any], *, action: str = "created") -> Changed:
        """
        Write the new object *key*.

        Raises:
            Taken: There is one, or a client has the name of a user.
            NotValid: An issuer would refuse it.
            WrongRealm: Its realm is not there, or belongs to another environment.
            WriteRefused: The store does not let us.
            StoreUnavailable: It is not known whether it was written.
        """
        named = {ID_MEMBERS[key.kind]: key.name or key.realm, **members}
        etag = await self.documents.create(key, named)
        self.audit.written(action, key, actor=self.actor, before=None, after=named)
        return Changed(named, etag)

    async def replace(self, before: Document, members: Mapping[str, Any], *, action: str = "changed") -> Changed:
        """
        Write *members* over *before*; nothing is written where they are the same.

        Raises:
            WriteConflict: Somebody else has written meanwhile.
            NotValid: An issuer would refuse it.
            WrongRealm: Its realm is not there, or belongs to another environment.
            WriteRefused: The store does not let us.
            StoreUnavailable: It is not known whether it was written.
        """
        if before.members == members:
            return Changed(members, before.etag, was_needed=False)
        etag = await self.documents.replace(before, members)
        self.audit.written(action, before.key, actor=self.actor, before=before.members, after=members)
        return Changed(members, etag)

    async def delete(self, before: Document, *, action: str = "deleted") -> Changed:
        """
        Delete *before*.

        Raises:
            WriteConflict: Somebody else has written meanwhile.
            WriteRefused: The store does not let us.
            StoreUnavailable: It is not known whether it was deleted.
        """
        await self.documents.delete(before)
        self.audit.written(action, before.key, actor=self.actor, before=before.members, after=None)
        return Changed(None, None)

    async def switch(self, key: ObjectKey, *, enabled: bool, version: str | None = None) -> Changed:
        """
        Enable or disable the client or user *key*; with *version* only if it is still that one.

        Raises:
            NotThere: There is none.
            WriteConflict: It is another version, or somebody else has written meanwhile.
            NotValid: What is stored is not readable.
            WrongRealm: Its realm is not there, or belongs to another environment.
            WriteRefused: The store does not let us.
            StoreUnavailable: It is not known whether it was written.
        """
        before = await self.documents.get(key)
        check_version(before, version)
        return await self.replace(
            before, {**before.members, "enabled": enabled}, action="enabled" if enabled else "disabled"
        )


def check_version(document: Document, version: str | None) -> None:
    """
    Refuse a write that was meant for another *version*; None fits all.

    Raises:
        WriteConflict: It was.
    """
    if version is not None and version != document.etag:
        raise WriteConflict


def client_key(realm: str, name: str) -> ObjectKey:
    """
    Return the key of the client *name*.

    Raises:
        NotValid: A name cannot be one.
    """
    return object_key(ObjectKind.CLIENT, realm, name)


def user_key(realm: str, name: str) -> ObjectKey:
    """
    Return the key of the user *name*.

    Raises:
        NotValid: A name cannot be one.
    """
    return object_key(ObjectKind.USER, realm, name)
