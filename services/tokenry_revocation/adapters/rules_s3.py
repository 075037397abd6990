"""Rule objects in the credentials' bucket (boto3, which blocks: the caller uses a thread)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tokenry_registry.adapters import aws
from tokenry_revocation.authorization import MAX_RULE_BYTES
from tokenry_revocation.rules import FOLDER, MAX_RULES, SUFFIX, RulesUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_SECONDS = 5.0
_make_client = partial(aws.make_client, "s3", connect_seconds=TIMEOUT_SECONDS, read_seconds=TIMEOUT_SECONDS, attempts=2)


class RulesBucket:
    """The rules below one prefix of one bucket; this service only reads it."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        folder: str = FOLDER,
        client: Any = None,  # noqa: ANN401 -- untyped driver
    ) -> None:
        """
        Read *bucket* below *prefix*, with the credentials and region that boto3 finds.

        Args:
            bucket: Name of the bucket.
            prefix: Empty, or ends with a slash.
            folder: Of the rules, or of other objects of that form.
            client: An S3 client; by default one with short deadlines.
        """
        self._bucket = bucket
        self._prefix = f"{prefix}{folder}"
        self._client = _make_client() if client is None else client

    def list(self) -> dict[str, str]:
        """Return the names of the rules, each with its object's ETag."""
        return {
            item["Key"].removeprefix(self._prefix).removesuffix(SUFFIX): item["ETag"]
            for item in self._items()
            if item["Key"].endswith(SUFFIX) and "/" not in item["Key"].removeprefix(self._prefix)
        }

    def _items(self) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix, PaginationConfig={"MaxItems": 2 * MAX_RULES}
        )
        try:
            for page in pages:
                yield from page.get("Contents", ())
        except _driver_errors() as error:
            raise RulesUnavailable(f"the rules cannot be listed ({type(error).__name__})") from None

    def get(self, name: str) -> bytes:
        """Return the object of the rule *name*; one byte more than allowed shows that it is too long."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}{name}{SUFFIX}")
            with answer["Body"] as body:
                document: bytes = body.read(MAX_RULE_BYTES + 1)
        except _driver_errors() as error:
            raise RulesUnavailable(f"a rule cannot be read ({type(error).__name__})") from None
        return document


def _driver_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)
