"""Applications' credentials in a bucket, as Plan B's agents read them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tokenry_admin.plan_b_files import PROBE_BODY, PROBE_NAME
from tokenry_admin.ports import FilesUnavailable
from tokenry_registry.adapters.s3 import make_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

THREADS = 4


class ApplicationBucket:
    """`ApplicationFiles` in a bucket of the applications' account, which becomes the owner of what we write."""

    def __init__(self, bucket: str, *, prefix: str = "", client: Callable[[], S3Client] = make_client) -> None:
        """
        Connect to nothing yet.

        Args:
            bucket: Name of the bucket.
            prefix: What every key begins with; empty, or ending in a slash.
            client: Makes the client, once, in a thread.
        """
        self._bucket = bucket
        self._prefix = prefix
        self._make_client = client
        self._client: S3Client | None = None
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="applications")
        self._connecting = threading.Lock()

    async def probe(self, application: str) -> None:
        """See that files of *application* can be written."""
        await self.put(application, PROBE_NAME, PROBE_BODY)

    async def put(self, application: str, name: str, body: bytes) -> None:
        """Write the file *name* of *application*."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._put, f"{application}/{name}", body)

    async def close(self) -> None:
        """Let go of the threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _put(self, key: str, body: bytes) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with self._connecting:
                if self._client is None:
                    self._client = self._make_client()
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + key,
                Body=body,
                ContentType="application/json",
                ACL="bucket-owner-full-control",
            )
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            raise FilesUnavailable(self._bucket, code) from None
        except (BotoCoreError, OSError, ValueError) as error:
            raise FilesUnavailable(self._bucket, type(error).__name__) from None
