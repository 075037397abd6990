"""A `KeyManagement` in memory: real P-256 keys, signatures as KMS gives them, and switches for its troubles."""

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tokenry_registry.key_management import KeyManagementUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable


class MemoryKeyManagement:
    """Passes the tests of the adapter for AWS."""

    def __init__(self) -> None:
        self.outage: str | None = None  # every call fails with this code
        self.before_sign: Callable[[], None] = lambda: None  # may wait
        self.signed = 0
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.discarded: list[str] = []

    def _check(self) -> None:
        if self.outage is not None:
            raise KeyManagementUnavailable(self.outage)

    def create(self, *, use: str) -> str:
        self._check()
        name = f"arn:aws:kms:eu-central-1:1:key/{use}-{len(self.keys)}"
        self.keys[name] = ec.generate_private_key(ec.SECP256R1())
        return name

    def public_key(self, key_id: str) -> bytes:
        return (
            self._key(key_id)
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    def sign(self, key_id: str, message: bytes) -> bytes:
        self.before_sign()
        self.signed += 1
        return self._key(key_id).sign(message, ec.ECDSA(hashes.SHA256()))

    def discard(self, key_id: str) -> None:
        self._key(key_id)
        self.discarded.append(key_id)

    def _key(self, key_id: str) -> ec.EllipticCurvePrivateKey:
        self._check()
        if key_id not in self.keys:
            raise KeyManagementUnavailable("NotFoundException")
        return self.keys[key_id]
