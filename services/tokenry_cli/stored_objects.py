"""An issuer's objects for the commands that write them, in a folder or a bucket. Nothing is overwritten."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from tokenry.errors import TokenryError
from tokenry_registry.location import bucket_of, folder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mypy_boto3_s3.client import S3Client

    from tokenry_issuer.settings import Settings

_T = TypeVar("_T")
_THERE = frozenset({"412", "PreconditionFailed"})
_NO_BUCKET = frozenset({"404", "NoSuchBucket"})


class StoreRefused(TokenryError):
    """The store did not do what was asked; the text says what and why."""


class StoredObjects(Protocol):
    """Objects by their keys, such as `keys/….json`."""

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with *prefix*, sorted."""
        ...

    def read(self, key: str) -> bytes:
        """Return the object at *key*."""
        ...

    def create(self, key: str, body: bytes) -> bool:
        """Write the object at *key* unless there is one; tell whether it was written."""
        ...


def open_objects(settings: Settings, *, create: bool) -> StoredObjects:
    """
    Return the store of `TOKENRY_CREDENTIALS_URL`; with *create*, make folder or bucket where it is missing.

    Raises:
        StoreRefused: It is not there, or cannot be used.
    """
    if urlsplit(settings.credentials_url).scheme == "file":
        return FolderObjects(folder_of(settings.credentials_url))
    from tokenry_registry.adapters.s3 import make_client

    client = make_client(endpoint_url=settings.s3_endpoint_url, region=settings.s3_region)
    bucket, prefix = bucket_of(settings.credentials_url)
    if create:
        _create_bucket(client, bucket)
    return BucketObjects(client, bucket, prefix)


class FolderObjects:
    """Objects as files below a folder, readable by their owner alone."""

    def __init__(self, root: Path) -> None:
        """Use *root*, which is made with the first object."""
        self._root = root

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with *prefix*, sorted."""
        found = (path.relative_to(self._root).as_posix() for path in self._root.rglob("*.json"))
        return sorted(key for key in found if key.startswith(prefix))

    def read(self, key: str) -> bytes:
        """Return the object at *key*."""
        return (self._root / key).read_bytes()

    def create(self, key: str, body: bytes) -> bool:
        """Write the object at *key* unless there is one; tell whether it was written."""
        path = self._root / key
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.write_bytes(b"")
            temporary.chmod(0o600)
            temporary.write_bytes(body)
            os.link(temporary, path)  # fails where there is one, and shows a reader all or nothing
        except FileExistsError:
            return False
        except OSError as error:
            raise StoreRefused(f"{path} cannot be written: {error.strerror}") from None
        finally:
            temporary.unlink(missing_ok=True)
        return True


class BucketObjects:
    """Objects of a bucket below a prefix."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        """Use *bucket* through *client*; every key begins with *prefix* there."""
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with *prefix*, sorted."""
        return sorted(_explained(lambda: list(self._keys(prefix)), self._bucket))

    def _keys(self, prefix: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
            for item in page.get("Contents", ()):
                yield item["Key"].removeprefix(self._prefix)

    def read(self, key: str) -> bytes:
        """Return the object at *key*."""

        def get() -> bytes:
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()

        return _explained(get, self._bucket)

    def create(self, key: str, body: bytes) -> bool:
        """Write the object at *key* unless there is one (a conditional write); tell whether it was written."""
        from botocore.exceptions import ClientError

        def put() -> bool:
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + key,
                    Body=body,
                    ContentType="application/json",
                    IfNoneMatch="*",
                )
            except ClientError as error:
                if _code(error) in _THERE:
                    return False
                raise
            return True

        return _explained(put, self._bucket)


def _create_bucket(client: S3Client, bucket: str) -> None:
    from botocore.exceptions import ClientError

    def create() -> None:
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if _code(error) not in _NO_BUCKET:
                raise
            region = client.meta.region_name
            if region == "us-east-1":  # the one region that must not be named
                client.create_bucket(Bucket=bucket)
            else:
                client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})  # type: ignore[typeddict-item]  # a region is a literal to the stubs

    _explained(create, bucket)


def _explained(call: Callable[[], _T], bucket: str) -> _T:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call()
    except ClientError as error:
        raise StoreRefused(f"the bucket {bucket}: {_code(error)}") from None
    except BotoCoreError as error:
        raise StoreRefused(f"the bucket {bucket}: {type(error).__name__}") from None


def _code(error: Exception) -> str:
    response = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", type(error).__name__))
