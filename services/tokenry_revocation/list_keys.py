"""
The keys that sign revocation lists: `keys/<kid>.json` with the use `list`, sealed as the issuer's own keys are.

They are this service's alone: its envelope key opens them, and no key of another use is ever opened here, so
that whoever takes this service over can mint no token. The issuer publishes their public halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jwk import BadSignature, PrivateKey
from tokenry.jose.sealing import Sealed, UnsealingFailed
from tokenry_revocation.rules import RuleObjects, RulesUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection

    from tokenry.jose.jwk import PublicKey
    from tokenry.jose.sealing import EnvelopeKey

KEYS_FOLDER: Final = "keys/"
LIST_USE: Final = "list"
_VERSION: Final = 1
_PROBE: Final = b"this key signs and verifies"
_MEMBERS: Final = frozenset({
    "version", "kid", "use", "public_jwk", "publish_at", "activate_at", "retire_at", "sealed",
})  # fmt: skip

_log = structlog.get_logger("tokenry.revocation.list_keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListKey:
    """
    A key that signs lists.

    Attributes:
        private: Signs.
        publish_at: Unix seconds from which the issuer publishes it.
        activate_at: From which it signs.
        retire_at: From which it is gone.
    """

    private: PrivateKey
    publish_at: int
    activate_at: int
    retire_at: int


def read_list_key(document: bytes, *, kid: str, envelope: EnvelopeKey) -> ListKey | None:
    """
    Return the key *kid* that *document* describes; None when it is for another use.

    Raises:
        ProtocolError: It is malformed, does not open, or its halves do not belong together.
    """
    members = parse_json_object(document)
    if members.get("use") != LIST_USE:
        return None
    if members.keys() != _MEMBERS or members["version"] != _VERSION or members["kid"] != kid:
        raise ProtocolError("a key object is malformed, or named after another key")
    try:
        private = PrivateKey.from_pkcs8_der(envelope.open(_sealed(members), kid=kid, use=LIST_USE))
        private.public.verify(_PROBE, private.sign(_PROBE), low_s=True)
    except UnsealingFailed:
        raise ProtocolError("a list key does not open: is it sealed with another envelope key?") from None
    except (BadSignature, ValueError):
        raise ProtocolError("a list key does not sign") from None
    if private.kid != kid:
        raise ProtocolError("kid is not the thumbprint of the key")
    publish_at, activate_at, retire_at = (_time(members, name) for name in ("publish_at", "activate_at", "retire_at"))
    if not publish_at <= activate_at < retire_at:
        raise ProtocolError("a key is published, then active, then retired")
    return ListKey(private=private, publish_at=publish_at, activate_at=activate_at, retire_at=retire_at)


def signing_key(keys: Collection[ListKey], *, now: float, revoked: Collection[str] = ()) -> PrivateKey | None:
    """Return the key that signs at *now* (Unix seconds): the newest that is due and not *revoked*."""
    due = [key for key in keys if key.activate_at <= now < key.retire_at and key.private.kid not in revoked]
    newest = max(due, key=lambda key: (key.activate_at, key.publish_at, key.private.kid), default=None)
    return None if newest is None else newest.private


class ListKeys:
    """The list keys of a place, read again when they change. Calls block: they are made in a thread."""

    def __init__(self, objects: RuleObjects, *, envelope: EnvelopeKey) -> None:
        """Have none yet."""
        self._objects = objects
        self._envelope = envelope
        self._held: dict[str, tuple[str, ListKey | None]] = {}

    def refresh(self) -> None:
        """Bring the keys up to date; while the place does not answer those that are held stay."""
        try:
            listed = self._objects.list()
            fresh = {kid: tag for kid, tag in listed.items() if self._held.get(kid, ("",))[0] != tag}
            documents = {kid: self._objects.get(kid) for kid in fresh}
        except RulesUnavailable as error:
            _log.warning("the list keys cannot be refreshed; those held stay", error=str(error))
            return
        self._held = {kid: held for kid, held in self._held.items() if kid in listed}
        for kid, document in documents.items():
            try:
                self._held[kid] = (fresh[kid], read_list_key(document, kid=kid, envelope=self._envelope))
            except ProtocolError as error:
                self._held[kid] = (fresh[kid], None)
                _log.error("a list key was refused", kid=kid, error=str(error))

    def keys(self) -> tuple[ListKey, ...]:
        """Return the keys."""
        return tuple(key for _, key in self._held.values() if key is not None)

    def find(self, kid: str) -> PublicKey | None:
        """Return the public half of the key *kid*, or None."""
        return next((key.private.public for key in self.keys() if key.private.kid == kid), None)


def _sealed(members: dict[str, Any]) -> Sealed:
    sealed = members["sealed"]
    if not isinstance(sealed, dict):
        raise ProtocolError("a key object has no sealed half")
    return Sealed.from_dict(sealed)


def _time(members: dict[str, Any], name: str) -> int:
    value = members[name]
    if type(value) is not int or value < 0:
        raise ProtocolError(f"{name} of a key is a number of seconds")
    return value
