"""The signed list as an object of a bucket, written conditionally (boto3, which blocks)."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from tokenry.revocation.signed import SIGNED_LIST_MEDIA_TYPE
from tokenry_registry.adapters import aws
from tokenry_revocation.publisher import OBJECT_NAME, Overtaken, Placed, ShelfUnavailable

TIMEOUT_SECONDS: Final = 5.0  # for each piece of a body
CACHE_SECONDS: Final = 5  # that a CDN may keep it: part of the 61 s within which it is in force
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_OVERTAKEN: Final = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
_make_client = partial(
    aws.make_client,
    "s3",
    connect_seconds=TIMEOUT_SECONDS,
    read_seconds=TIMEOUT_SECONDS,
    # One attempt: a write that was repeated after a lost answer would find itself overtaken by itself.
    attempts=1,
)


class S3Shelf:
    """A `Shelf` in one bucket; the server compares the version and writes in one step."""

    def __init__(self, bucket: str, prefix: str, *, client: Any = None) -> None:  # noqa: ANN401 -- untyped driver
        """
        Put the list into *bucket* below *prefix*, with the credentials and region that boto3 finds.

        Args:
            bucket: Name of the bucket.
            prefix: Empty, or ends with a slash.
            client: An S3 client; by default one with short deadlines.
        """
        self._place = {"Bucket": bucket, "Key": f"{prefix}{OBJECT_NAME}"}
        self._client = _make_client() if client is None else client

    def version(self) -> str | None:
        """Return the object's ETag."""
        try:
            return str(self._client.head_object(**self._place)["ETag"])
        except _driver_errors() as error:
            if _code(error) in _MISSING:
                return None
            raise _unavailable(error) from None

    def read(self) -> Placed | None:
        """Return the object."""
        try:
            answer = self._client.get_object(**self._place)
            with answer["Body"] as body:
                return Placed(body.read(), str(answer["ETag"]))
        except _driver_errors() as error:
            if _code(error) in _MISSING:
                return None
            raise _unavailable(error) from None

    def write(self, body: bytes, *, replaces: str | None) -> str:
        """Put the object if it is still the version *replaces*."""
        condition = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
        try:
            answer = self._client.put_object(
                **self._place,
                **condition,
                Body=body,
                ContentType=SIGNED_LIST_MEDIA_TYPE,
                CacheControl=f"public, max-age={CACHE_SECONDS}",
            )
        except _driver_errors() as error:
            if _code(error) in _OVERTAKEN or (replaces is not None and _code(error) in _MISSING):
                raise Overtaken("the list is of another version than the one to replace") from None
            raise _unavailable(error) from None
        return str(answer["ETag"])


def _driver_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError, OSError)


def _code(error: Exception) -> str:
    response = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", type(error).__name__))


def _unavailable(error: Exception) -> ShelfUnavailable:
    return ShelfUnavailable(f"the bucket of the list does not answer as it should ({_code(error)})")
