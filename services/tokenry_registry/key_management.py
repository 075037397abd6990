"""What is needed of a key management service: to make keys that never leave it, and to sign with them."""

from __future__ import annotations

from typing import Protocol

from tokenry.errors import TokenryError


class KeyManagementUnavailable(TokenryError):
    """
    The key management service did not do what was asked: it may the next time.

    Attributes:
        code: A short word for metrics, such as `timeout` or `AccessDeniedException`.
    """

    def __init__(self, code: str) -> None:
        """Fail with *code*."""
        self.code = code
        super().__init__(f"the key management service does not answer as it should ({code})")


class KeyManagement(Protocol):
    """
    A key management service. Every call blocks, for no longer than its adapter's deadlines: call it in a thread.

    Every call raises `KeyManagementUnavailable`.
    """

    def create(self, *, use: str) -> str:
        """Make a P-256 key that signs for *use* and return its id there."""
        ...

    def public_key(self, key_id: str) -> bytes:
        """Return the public half of the key *key_id* (SubjectPublicKeyInfo, DER)."""
        ...

    def sign(self, key_id: str, message: bytes) -> bytes:
        """Return an ECDSA signature with SHA-256 over *message* (DER) by the key *key_id*."""
        ...

    def discard(self, key_id: str) -> None:
        """Have the key *key_id* deleted after the service's waiting time."""
        ...
