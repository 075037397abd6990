"""
The registry as its administrators see it: documents that are checked by the issuer's own reader before they are
written, and written only over the version that was read.

A realm's own object names its environment. Nothing is written into a realm of another environment, so that a
command with the wrong settings does nothing.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import parse_json_object
from tokenry.oauth.errors import OAuthError
from tokenry.oauth.token_endpoint import realm_name
from tokenry_registry.ports import GONE, MAX_OBJECT_BYTES, ObjectUnreadable, WriteConflict
from tokenry_registry.realms import ObjectKey, ObjectKind, RefusedObject, check_name, read_key, read_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenry_registry.ports import WritableStore
    from tokenry_registry.realms import Client, Realm, User
    from tokenry_registry.trust_rules import TrustRule

REALMS_PREFIX: Final = "realms/"
CONCURRENT_READS: Final = 8  # as many as the S3 adapter has threads
_FOLDERS: Final = {ObjectKind.CLIENT: "clients", ObjectKind.USER: "users", ObjectKind.TRUST: "trust"}
_OTHER: Final = {ObjectKind.CLIENT: ObjectKind.USER, ObjectKind.USER: ObjectKind.CLIENT}


class NotThere(TokenryError):
    """There is no such object."""


class NotValid(TokenryError):
    """What was to be written is not what an issuer would take; the text says what is wrong."""


class Taken(TokenryError):
    """The name is taken: there is such an object already, or a client has the name of a user."""


class WrongRealm(TokenryError):
    """The realm is not there, or belongs to another environment than the one that was set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """
    One stored object.

    Attributes:
        key: What it describes.
        members: Its JSON.
        value: What the issuer reads from it.
        etag: The version that was read.
    """

    key: ObjectKey
    members: Mapping[str, Any] = field(repr=False)
    value: Realm | Client | User | TrustRule = field(repr=False)
    etag: str


def object_key(kind: ObjectKind, realm: str, name: str = "") -> ObjectKey:
    """
    Return the key of an object; *realm* with or without its leading slash.

    Raises:
        NotValid: A name cannot be one.
    """
    try:
        slashed = realm_name(realm)
        if kind is not ObjectKind.REALM:
            check_name(name)
    except (OAuthError, RefusedObject) as error:
        raise NotValid(error.description if isinstance(error, OAuthError) else str(error)) from None
    return ObjectKey(kind, slashed, name)


def path_of(key: ObjectKey) -> str:
    """Return the key in the store at which *key* is kept."""
    folder = f"{REALMS_PREFIX}{key.realm.removeprefix('/')}/"
    return folder + ("realm.json" if key.kind is ObjectKind.REALM else f"{_FOLDERS[key.kind]}/{key.name}.json")


def encoded(members: Mapping[str, Any]) -> bytes:
    """Return *members* as they are stored: for people who look, too."""
    return json.dumps(members, indent=2, ensure_ascii=False).encode("utf-8") + b"\n"


class Documents:
    """Reads and writes realms, clients, users and trust rules."""

    def __init__(
        self, store: WritableStore, *, environment: str, max_token_lifetime: int, remember_realms: bool = False
    ) -> None:
        """
        Work on *store*.

        Args:
            store: Where the objects are.
            environment: The environment whose objects these must be.
            max_token_lifetime: Seconds; the platform's bound on every token.
            remember_realms: Look at a realm's own object once, not before each write: for a command, which ends soon.
        """
        self._realms: set[str] | None = set() if remember_realms else None
        self.store = store
        self.environment = environment
        self._max_token_lifetime = max_token_lifetime

    async def find(self, key: ObjectKey) -> Document | None:
        """
        Return the object at *key*, or None when there is none.

        Raises:
            NotValid: What is stored is not readable, so that nobody should build upon it.
            StoreUnavailable: It cannot be told.
        """
        try:
            found = await self.store.get(path_of(key))
        except ObjectUnreadable as error:
            if error.code == GONE:
                return None
            raise NotValid(f"{path_of(key)}: {error}") from None
        if found is None:
            return None  # cannot be: no version was named
        members, value = self._read(key, found.body)
        return Document(key=key, members=members, value=value, etag=found.etag)

    async def get(self, key: ObjectKey) -> Document:
        """
        Return the object at *key*.

        Raises:
            NotThere: There is none.
            NotValid: It is not readable.
            StoreUnavailable: It cannot be told.
        """
        found = await self.find(key)
        if found is None:
            raise NotThere(f"there is no {key.kind} {key.name or key.realm} in {key.realm}")
        return found

    async def create(self, key: ObjectKey, members: Mapping[str, Any]) -> str:
        """
        Write the new object *key* and return its version.

        Raises:
            Taken: There is one, or a client has the name of a user.
            NotValid: An issuer would refuse it.
            WrongRealm: Its realm is not there, or belongs to another environment.
            WriteRefused: The store does not let us.
            StoreUnavailable: It is not known whether it was written.
        """
        body = await self._checked(key, members)
        other = _OTHER.get(key.kind)
        if other is not None and await self._is_there(ObjectKey(other, key.realm, key.name)):
            raise Taken(f"{key.name} is the name of a {other} of {key.realm}: a token's subject has to be one of them")
        try:
            return await self._put(key, body, replaces=None)
        except WriteConflict:
            raise Taken(f"there is a {key.kind} {key.name or key.realm} in {key.realm} already") from None

    async def replace(self, before: Document, members: Mapping[str, Any]) -> str:
        """
        Write *members* over the version *before* and return the new version.

        Raises:
            WriteConflict: Somebody else has written meanwhile.
            NotValid: An issuer would refuse it.
            WrongRealm: Its realm is not there, or belongs to another environment.
            WriteRefused: The store does not let us.
            StoreUnavailable: It is not known whether it was written.
        """
        body = await self._checked(before.key, members)
        return await self._put(before.key, body, replaces=before.etag)

    async def delete(self, before: Document) -> None:
        """
        Delete the version *before*.

        Raises:
            WriteConflict: Somebody else has written meanwhile.
            WrongRealm: Its realm belongs to another environment.
            WriteRefused: The store does not let us.
            StoreUnavailable: It is not known whether it was deleted.
        """
        await self._check_realm(before.key)
        await self.store.delete(path_of(before.key), replaces=before.etag)

    async def keys(self, *, realm: str | None = None, kinds: Iterable[ObjectKind] = ()) -> list[ObjectKey]:
        """Return what is stored, in order; keys that the layout has no place for are left out."""
        return self.known(await self.etags(realm=realm), kinds=kinds)

    async def etags(self, *, realm: str | None = None) -> Mapping[str, str]:
        """Return the version of everything that is stored, by its place, or of what is of one *realm*."""
        prefix = REALMS_PREFIX if realm is None else f"{REALMS_PREFIX}{object_key(ObjectKind.REALM, realm).realm[1:]}/"
        return await self.store.list(prefix)

    @staticmethod
    def known(paths: Iterable[str], *, kinds: Iterable[ObjectKind] = ()) -> list[ObjectKey]:
        """Return what is at *paths*, in order; those that the layout has no place for are left out."""
        wanted = set(kinds) or set(ObjectKind)
        found = []
        for path in paths:
            try:
                key = read_key(path)
            except RefusedObject:
                continue
            if key.kind in wanted:
                found.append(key)
        return sorted(found, key=lambda key: (key.realm, key.kind, key.name))

    async def read_all(self, keys: Iterable[ObjectKey]) -> tuple[list[Document], dict[ObjectKey, str]]:
        """Return the objects at *keys* in their order, and why others of them cannot be read."""
        slots = asyncio.Semaphore(CONCURRENT_READS)
        faults: dict[ObjectKey, str] = {}

        async def read(key: ObjectKey) -> Document | None:
            async with slots:
                try:
                    return await self.find(key)
                except NotValid as error:
                    faults[key] = str(error)
                    return None

        found = await asyncio.gather(*map(read, keys))
        return [each for each in found if each is not None], faults

    def check(self, key: ObjectKey, members: Mapping[str, Any]) -> bytes:
        """
        Return *members* as they would be stored.

        Raises:
            NotValid: An issuer would refuse them.
        """
        try:
            body = encoded(members)
        except UnicodeEncodeError:
            raise NotValid(f"{key.name or key.realm}: there is a text that is no Unicode") from None
        if len(body) > MAX_OBJECT_BYTES:
            raise NotValid(f"{key.name or key.realm} is larger than {MAX_OBJECT_BYTES} bytes")
        self._read(key, body)
        return body

    async def _checked(self, key: ObjectKey, members: Mapping[str, Any]) -> bytes:
        body = self.check(key, members)
        if key.kind is not ObjectKind.REALM:
            await self._check_realm(key)
        return body

    async def _check_realm(self, key: ObjectKey) -> None:
        if self._realms is not None and key.realm in self._realms:
            return
        realm = ObjectKey(ObjectKind.REALM, key.realm, "")
        try:
            found = await self.find(realm)
        except NotValid as error:
            raise WrongRealm(str(error)) from None
        if found is None:
            raise WrongRealm(f"there is no realm {key.realm}: create it first")
        if self._realms is not None:
            self._realms.add(key.realm)

    async def _is_there(self, key: ObjectKey) -> bool:
        try:
            await self.store.get(path_of(key))
        except ObjectUnreadable as error:
            return error.code != GONE
        return True

    async def _put(self, key: ObjectKey, body: bytes, *, replaces: str | None) -> str:
        try:
            return await self.store.put(path_of(key), body, replaces=replaces)
        except WriteConflict:
            # A driver that tries again after a lost answer meets what it has written itself.
            try:
                found = await self.store.get(path_of(key))
            except ObjectUnreadable:
                raise WriteConflict from None
            if found is None or found.body != body:
                raise
            return found.etag

    def _read(self, key: ObjectKey, body: bytes) -> tuple[Mapping[str, Any], Realm | Client | User | TrustRule]:
        try:
            value = read_object(key, body, environment=self.environment, max_token_lifetime=self._max_token_lifetime)
            return parse_json_object(body), value
        except ProtocolError as error:  # RefusedObject among them
            raise NotValid(f"{path_of(key)}: {error}") from None
