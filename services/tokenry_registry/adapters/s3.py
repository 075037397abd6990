"""Objects in an S3 bucket. boto3 blocks, so it has threads of its own; nothing else knows about it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tokenry_registry.adapters import aws
from tokenry_registry.ports import (
    GONE,
    MAX_OBJECT_BYTES,
    MAX_OBJECTS,
    ObjectUnreadable,
    StoredObject,
    StoreUnavailable,
    WriteConflict,
    WriteRefused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeVar

    from mypy_boto3_s3 import S3Client

    T = TypeVar("T")

PAGE_SIZE = 1000  # keys; the most that S3 gives at once
THREADS = 8  # as many reads at once; the first load of 50,000 objects is what they are for
CONNECT_SECONDS = 1.0
READ_SECONDS = 4.0  # for each piece that is read
MAX_ATTEMPTS = 2  # the second one goes to another host; more would prolong an overload
_NOT_MODIFIED = {"304", "NotModified"}
_MISSING = {"404", "NoSuchKey"}
_FORBIDDEN = {"403", "AccessDenied"}
# A condition that is not met; or two writers at once, of whom S3 took the other one.
_CONFLICT = {"404", "NoSuchKey", "409", "ConditionalRequestConflict", "412", "PreconditionFailed"}


make_client = partial(
    aws.make_client,
    "s3",
    connect_seconds=CONNECT_SECONDS,
    read_seconds=READ_SECONDS,
    attempts=MAX_ATTEMPTS,
    connections=THREADS,
)
"""Makes an S3 client with short deadlines; `endpoint_url`, `region` and `access_key` as of `aws.make_client`."""


class S3Store:
    """A `WritableStore` over the objects of a bucket below a prefix."""

    def __init__(
        self, bucket: str, *, prefix: str = "", page_size: int = PAGE_SIZE, client: Callable[[], S3Client] = make_client
    ) -> None:
        """
        Connect to nothing yet.

        Args:
            bucket: Name of the bucket.
            prefix: What every key in the bucket begins with; empty, or ending in a slash.
            page_size: Keys asked for at once when listing.
            client: Makes the client, once, in a thread: importing boto3 takes a second.
        """
        self._bucket = bucket
        self._prefix = prefix
        self._page_size = page_size
        self._make_client = client
        self._client: S3Client | None = None
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
        self._connecting = asyncio.Lock()

    async def list(self, prefix: str) -> Mapping[str, str]:
        """Return the keys that begin with *prefix* and the ETag of each."""
        client = await self._connected()
        return await self._in_thread(lambda: self._list(client, prefix))

    async def get(self, key: str, *, etag: str | None = None) -> StoredObject | None:
        """Return the object at *key*, or None when its version is still *etag*."""
        client = await self._connected()
        return await self._in_thread(lambda: self._get(client, key, etag))

    async def put(self, key: str, body: bytes, *, replaces: str | None) -> str:
        """Write *body* at *key* over the version *replaces* (None: over nothing) and return its ETag."""
        if len(body) > MAX_OBJECT_BYTES:
            raise WriteRefused("too_large")
        client = await self._connected()
        return await self._in_thread(lambda: self._put(client, key, body, replaces))

    async def delete(self, key: str, *, replaces: str) -> None:
        """Delete the version *replaces* of the object at *key*."""
        client = await self._connected()
        await self._in_thread(lambda: self._delete(client, key, replaces))

    async def close(self) -> None:
        """Let go of the threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def _connected(self) -> S3Client:
        async with self._connecting:
            if self._client is None:
                self._client = await self._in_thread(self._connect)
            return self._client

    def _connect(self) -> S3Client:
        from botocore.exceptions import BotoCoreError

        try:
            return self._make_client()
        except (BotoCoreError, ValueError) as error:
            raise StoreUnavailable(type(error).__name__) from None

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _list(self, client: S3Client, prefix: str) -> dict[str, str]:
        from botocore.exceptions import BotoCoreError, ClientError

        found: dict[str, str] = {}
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket,
            Prefix=self._prefix + prefix,
            PaginationConfig={"PageSize": self._page_size},
        )
        try:
            for page in pages:
                for item in page.get("Contents", ()):
                    found[item["Key"].removeprefix(self._prefix)] = item["ETag"]
                if len(found) > MAX_OBJECTS:
                    raise StoreUnavailable("too_many_objects")
        except ClientError as error:
            raise StoreUnavailable(_code(error)) from None
        except BotoCoreError as error:
            raise StoreUnavailable(type(error).__name__) from None
        return found

    def _get(self, client: S3Client, key: str, etag: str | None) -> StoredObject | None:
        from botocore.exceptions import BotoCoreError, ClientError

        condition = {} if etag is None else {"IfNoneMatch": etag}
        try:
            answer = client.get_object(Bucket=self._bucket, Key=self._prefix + key, **condition)  # type: ignore[arg-type]  # the stubs know no optional member
            with answer["Body"] as stream:
                body = stream.read(MAX_OBJECT_BYTES + 1)
        except ClientError as error:
            code = _code(error)
            if code in _NOT_MODIFIED:
                return None
            if code in _MISSING:
                raise ObjectUnreadable(GONE) from None
            if code in _FORBIDDEN:
                raise ObjectUnreadable("forbidden") from None
            raise StoreUnavailable(code) from None
        except (BotoCoreError, OSError) as error:
            raise StoreUnavailable(type(error).__name__) from None
        if len(body) > MAX_OBJECT_BYTES:
            raise ObjectUnreadable("too_large")
        return StoredObject(body, answer["ETag"])

    def _put(self, client: S3Client, key: str, body: bytes, replaces: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
        with _writing():
            answer = client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + key,
                Body=body,
                ContentType="application/json",
                **condition,  # type: ignore[arg-type]  # the stubs know no optional member
            )
        return answer["ETag"]

    def _delete(self, client: S3Client, key: str, replaces: str) -> None:
        with _writing():
            client.delete_object(Bucket=self._bucket, Key=self._prefix + key, IfMatch=replaces)


@contextmanager
def _writing() -> Iterator[None]:
    """Say in our words what S3 says against a write."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = _code(error)
        if code in _CONFLICT:
            raise WriteConflict from None
        if code in _FORBIDDEN:
            raise WriteRefused("forbidden") from None
        raise StoreUnavailable(code) from None
    except (BotoCoreError, OSError) as error:
        raise StoreUnavailable(type(error).__name__) from None


def _code(error: Exception) -> str:
    response = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", type(error).__name__))
