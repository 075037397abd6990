"""What is needed of the place where credentials and keys are kept: to list it and to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tokenry.errors import TokenryError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_OBJECT_BYTES = 256 * 1024  # a client with eight hashes and 256 scopes stays below 64 KiB
GONE = "no_such_key"  # the code of `ObjectUnreadable` for an object that is not there
MAX_OBJECTS = 500_000  # keys of one listing: ten times the largest registry that is planned for


class StoreUnavailable(TokenryError):
    """
    The store did not answer, or not as it should: it may the next time.

    Attributes:
        code: A short word for metrics, such as `timeout` or `AccessDenied`.
    """

    def __init__(self, code: str) -> None:
        """Fail with *code*."""
        self.code = code
        super().__init__(f"the object store is not available ({code})")


class ObjectUnreadable(TokenryError):
    """
    The store works and this object cannot be had: it is gone, forbidden or too large.

    Attributes:
        code: A short word for metrics and logs.
    """

    def __init__(self, code: str) -> None:
        """Fail with *code*."""
        self.code = code
        super().__init__(f"the object cannot be read ({code})")


class WriteConflict(TokenryError):
    """Another version is there than the one that was to be replaced: read again, and decide again."""

    def __init__(self) -> None:
        """Say that nothing was written."""
        super().__init__("the object was changed meanwhile; nothing was written")


class WriteRefused(TokenryError):
    """
    The store works and does not let us write this.

    Attributes:
        code: A short word for metrics and logs.
    """

    def __init__(self, code: str) -> None:
        """Fail with *code*."""
        self.code = code
        super().__init__(f"the object cannot be written ({code})")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """
    One version of an object.

    Attributes:
        body: Its bytes; at most `MAX_OBJECT_BYTES`.
        etag: Names this version: another content has another one.
    """

    body: bytes = field(repr=False)
    etag: str


class ObjectStore(Protocol):
    """
    Objects by key, read only. No call waits for longer than its adapter's deadline.

    Keys are below the prefix that the adapter was made with.
    """

    async def list(self, prefix: str) -> Mapping[str, str]:
        """
        Return the keys that begin with *prefix* and the ETag of each.

        Raises:
            StoreUnavailable: Nothing is known; an empty mapping means that there really is nothing.
        """
        ...

    async def get(self, key: str, *, etag: str | None = None) -> StoredObject | None:
        """
        Return the object at *key*, or None when its version is still *etag*.

        Raises:
            ObjectUnreadable: There is no such object, it is forbidden, or larger than `MAX_OBJECT_BYTES`.
            StoreUnavailable: It cannot be told.
        """
        ...

    async def close(self) -> None:
        """Let go of threads and connections."""
        ...


class WritableStore(ObjectStore, Protocol):
    """
    Objects that can be written as well, never blindly: every write names the version that it replaces.

    A write that raises `StoreUnavailable` may have happened: it may take effect while its answer is lost.
    """

    async def put(self, key: str, body: bytes, *, replaces: str | None) -> str:
        """
        Write *body* at *key* and return its ETag.

        Args:
            key: Where.
            body: At most `MAX_OBJECT_BYTES`.
            replaces: ETag of the version that is to be replaced; None: only where there is no object.

        Raises:
            WriteConflict: Another version is there, or none, or one where none was to be.
            WriteRefused: It is forbidden, too large, or has a key that cannot be.
            StoreUnavailable: It is not known whether it was written.
        """
        ...

    async def delete(self, key: str, *, replaces: str) -> None:
        """
        Delete the version *replaces* of the object at *key*.

        Raises:
            WriteConflict: Another version is there, or none.
            WriteRefused: It is forbidden.
            StoreUnavailable: It is not known whether it was deleted.
        """
        ...
