"""Keys in AWS KMS (`ECC_NIST_P256`). boto3 blocks, so every call belongs into a thread; nothing else knows about it."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenry_registry.adapters import aws
from tokenry_registry.key_management import KeyManagementUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_SECONDS = 1.0
READ_SECONDS = 2.0  # KMS signs in some 10 ms
MAX_ATTEMPTS = 2  # the second one goes to another host; more would prolong an overload
CONNECTIONS = 16  # signatures under way at once
MAX_RAW_BYTES = 4096  # what KMS hashes itself; of longer messages it takes the digest
DELETION_DAYS = 30  # before a discarded key is really gone: the longest that KMS allows
_ALGORITHM = "ECDSA_SHA_256"


make_client = partial(
    aws.make_client,
    "kms",
    connect_seconds=CONNECT_SECONDS,
    read_seconds=READ_SECONDS,
    attempts=MAX_ATTEMPTS,
    connections=CONNECTIONS,
)
"""Makes a KMS client with short deadlines; `endpoint_url`, `region` and `access_key` as of `aws.make_client`."""


class AwsKeyManagement:
    """`KeyManagement` by AWS KMS. May be used by several threads."""

    def __init__(self, client: Callable[[], Any] = make_client) -> None:
        """Connect to nothing yet; *client* makes the client at the first call: importing boto3 takes a second."""
        self._make_client = client
        self._client: Any = None
        self._connecting = threading.Lock()

    def create(self, *, use: str) -> str:
        """Make a P-256 key that signs for *use* and return its ARN."""
        answer = self._call(
            "create_key",
            KeySpec="ECC_NIST_P256",
            KeyUsage="SIGN_VERIFY",
            Description=f"Tokenry signing key ({use})",
            Tags=[{"TagKey": "tokenry-use", "TagValue": use}],
        )
        return str(answer["KeyMetadata"]["Arn"])

    def public_key(self, key_id: str) -> bytes:
        """Return the public half of the key *key_id* (SubjectPublicKeyInfo, DER)."""
        return bytes(self._call("get_public_key", KeyId=key_id)["PublicKey"])

    def sign(self, key_id: str, message: bytes) -> bytes:
        """Return an ECDSA signature with SHA-256 over *message* (DER) by the key *key_id*."""
        raw = len(message) <= MAX_RAW_BYTES
        answer = self._call(
            "sign",
            KeyId=key_id,
            Message=message if raw else hashlib.sha256(message).digest(),
            MessageType="RAW" if raw else "DIGEST",
            SigningAlgorithm=_ALGORITHM,
        )
        return bytes(answer["Signature"])

    def discard(self, key_id: str) -> None:
        """Have the key *key_id* deleted after `DELETION_DAYS`; until then that can be taken back."""
        self._call("schedule_key_deletion", KeyId=key_id, PendingWindowInDays=DELETION_DAYS)

    def _call(self, operation: str, **arguments: object) -> Any:  # noqa: ANN401 -- as the client's class
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with self._connecting:
                if self._client is None:
                    self._client = self._make_client()
            return getattr(self._client, operation)(**arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", type(error).__name__))
            raise KeyManagementUnavailable(code) from None
        except (BotoCoreError, OSError, ValueError) as error:
            raise KeyManagementUnavailable(type(error).__name__) from None
