"""Key sets: which keys verify for which issuer (RFC 7517 section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.jose.jwk import Algorithm, PublicKey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

MAX_DOCUMENT_BYTES = 256 * 1024
"""A hundred RSA keys with their certificates; more is not a key set but an attack on our memory."""

MAX_KEYS = 100
"""An issuer has a handful; parsing a key costs a check on the curve."""


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """
    An immutable set of public keys, each belonging to one issuer.

    A key is found by issuer *and* id, so that no issuer can vouch for another's tokens, whatever `kid` it
    chooses (RFC 8725 section 3.8).

    Attributes:
        rejected: Why keys of the document were not taken, one sentence each, for the log.
    """

    _keys: Mapping[tuple[str, str], PublicKey] = field(repr=False)
    rejected: tuple[str, ...] = ()

    @classmethod
    def of(cls, issuer: str, keys: Iterable[PublicKey]) -> KeySet:
        """
        Return the *keys* of *issuer*.

        Raises:
            ProtocolError: Two different keys have one id.
        """
        return cls(MappingProxyType(_by_id(((issuer, key.kid), key) for key in keys)))

    @classmethod
    def parse(cls, document: bytes, *, issuer: str, algorithms: Collection[Algorithm] = (Algorithm.ES256,)) -> KeySet:
        """
        Return the usable keys of a JWK Set of *issuer* (RFC 7517 section 5).

        A key that is malformed, or not for verifying with one of *algorithms*, is left out and named in
        `rejected`; it does not take the others with it.

        Raises:
            ProtocolError: The document is too large or no JWK Set, two different keys have one id, or no key
                is usable (an empty set must not replace a good one).
        """
        if len(document) > MAX_DOCUMENT_BYTES:
            raise ProtocolError(f"the JWK Set is larger than {MAX_DOCUMENT_BYTES} bytes")
        jwks = parse_json_object(document).get("keys")
        if not isinstance(jwks, list) or len(jwks) > MAX_KEYS:
            raise ProtocolError(f"not a JWK Set of at most {MAX_KEYS} keys")
        keys: list[PublicKey] = []
        rejected: list[str] = []
        for position, jwk in enumerate(jwks):
            try:
                keys.append(_parse_key(jwk, algorithms))
            except ProtocolError as error:
                rejected.append(f"key {position} of {issuer}: {error}")
        if not keys:
            raise ProtocolError("; ".join(["the JWK Set has no usable key", *rejected]))
        return cls(MappingProxyType(_by_id(((issuer, key.kid), key) for key in keys)), tuple(rejected))

    @classmethod
    def union(cls, *sets: KeySet) -> KeySet:
        """
        Return the keys of all *sets*.

        Raises:
            ProtocolError: Two different keys of one issuer have one id.
        """
        keys = _by_id(item for each in sets for item in each.items())
        return cls(MappingProxyType(keys), tuple(reason for each in sets for reason in each.rejected))

    def find(self, issuer: str, kid: str) -> PublicKey | None:
        """Return the key *kid* of *issuer*, or None."""
        return self._keys.get((issuer, kid))

    def items(self) -> Iterable[tuple[tuple[str, str], PublicKey]]:
        """Return ((issuer, kid), key) of every key."""
        return self._keys.items()

    def has_issuer(self, issuer: str) -> bool:
        """Tell whether there is any key of *issuer*."""
        return any(owner == issuer for owner, _ in self._keys)

    def kids(self, issuer: str) -> frozenset[str]:
        """Return the ids of the keys of *issuer*."""
        return frozenset(kid for owner, kid in self._keys if owner == issuer)

    def to_jwks(self, issuer: str | None = None) -> bytes:
        """Return the JWK Set of *issuer*, or of all, sorted: the same keys are always the same bytes."""
        keys = [key for (owner, _), key in sorted(self._keys.items(), key=_identity) if issuer in (None, owner)]
        return dump_json({"keys": [key.to_jwk() for key in keys]})

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)


def _identity(item: tuple[tuple[str, str], PublicKey]) -> tuple[str, str]:
    return item[0]


def _parse_key(jwk: Any, algorithms: Collection[Algorithm]) -> PublicKey:  # noqa: ANN401 -- any JSON value
    if not isinstance(jwk, dict):
        raise ProtocolError("not an object")
    return PublicKey.from_jwk(jwk, algorithms=algorithms)


def _by_id(items: Iterable[tuple[tuple[str, str], PublicKey]]) -> dict[tuple[str, str], PublicKey]:
    keys: dict[tuple[str, str], PublicKey] = {}
    for identity, key in items:
        if keys.setdefault(identity, key) != key:
            raise ProtocolError("two different keys have one kid")
    return keys
