"""A `WritableStore` in memory that fails when told to: before an operation, or after it, as if its answer were lost."""

from collections.abc import Callable, Mapping

from tokenry_registry.ports import (
    GONE,
    MAX_OBJECT_BYTES,
    ObjectUnreadable,
    StoredObject,
    StoreUnavailable,
    WriteConflict,
    WriteRefused,
)


class MemoryRegistry:
    """Objects in memory; passes the contract suite of object stores."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.closed = False
        # Called before and after each operation with its name and key; may raise, and may look.
        self.before: Callable[[str, str], None] = lambda _operation, _key: None
        self.after: Callable[[str, str], None] = lambda _operation, _key: None
        self._count = 0

    def fill(self, key: str, body: bytes) -> None:
        """Put *body* there as somebody else would."""
        self._count += 1
        self.objects[key] = body, self._count

    def drop(self, key: str) -> None:
        """Delete it as somebody else would."""
        del self.objects[key]

    def etag(self, key: str) -> str | None:
        return f'"{self.objects[key][1]}"' if key in self.objects else None

    async def list(self, prefix: str) -> Mapping[str, str]:
        self.before("list", prefix)
        found = {key: f'"{version}"' for key, (_, version) in self.objects.items() if key.startswith(prefix)}
        self.after("list", prefix)
        return found

    async def get(self, key: str, *, etag: str | None = None) -> StoredObject | None:
        self.before("get", key)
        if key not in self.objects:
            raise ObjectUnreadable(GONE)
        body, current = self.objects[key][0], self.etag(key)
        if current is None or current == etag:
            return None
        if len(body) > MAX_OBJECT_BYTES:
            raise ObjectUnreadable("too_large")
        self.after("get", key)
        return StoredObject(body, current)

    async def put(self, key: str, body: bytes, *, replaces: str | None) -> str:
        if len(body) > MAX_OBJECT_BYTES:
            raise WriteRefused("too_large")
        self.before("put", key)
        if self.etag(key) != replaces:
            raise WriteConflict
        self.fill(key, body)
        self.after("put", key)
        return self.etag(key) or ""

    async def delete(self, key: str, *, replaces: str) -> None:
        self.before("delete", key)
        if self.etag(key) != replaces:
            raise WriteConflict
        self.drop(key)
        self.after("delete", key)

    async def close(self) -> None:
        self.closed = True


class Interrupted(StoreUnavailable):
    """The fault that the tests make."""

    def __init__(self) -> None:
        super().__init__("interrupted")
