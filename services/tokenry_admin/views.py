"""What may be shown of a stored object: everything but the hashes of its secrets. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenry_registry.realms import ObjectKind
from tokenry_registry.secret_hashes import parse_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry_admin.documents import Document

SECRETS: Final = {ObjectKind.CLIENT: "secrets", ObjectKind.USER: "password_hashes"}
ID_MEMBERS: Final = {
    ObjectKind.REALM: "realm",
    ObjectKind.CLIENT: "client_id",
    ObjectKind.USER: "username",
    ObjectKind.TRUST: "name",
}
_HIDDEN: Final = frozenset(SECRETS.values())
_LEFT_OUT: Final = frozenset({"version", "environment"})


def view(document: Document) -> dict[str, Any]:
    """Return what callers see of *document*: no hash, and the members that are not stored with their defaults."""
    shown = {
        "realm": document.key.realm,
        ID_MEMBERS[document.key.kind]: document.key.name or document.key.realm,
        "enabled": True,
        "scopes": [],
        **without_hashes(document.members),
    }
    if document.key.kind is ObjectKind.CLIENT:
        shown.setdefault("secrets", [])
        shown.setdefault("grant_types", ["client_credentials"])
    return {name: value for name, value in shown.items() if name not in _LEFT_OUT}


def without_hashes(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return *members* with the kind and the times of each secret in place of its hash."""
    return {name: [_shown(each) for each in value] if name in _HIDDEN else value for name, value in members.items()}


def _shown(secret: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": str(parse_hash(secret["hash"]).kind),
        "created_at": secret["created_at"],
        "expires_at": secret.get("expires_at"),
    }


def changed(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what differs between two versions, by member: `{"before": …, "after": …}`, without hashes."""
    old, new = dict(before or {}), dict(after or {})
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    shown_old, shown_new = without_hashes(old), without_hashes(new)
    return {name: {"before": shown_old.get(name), "after": shown_new.get(name)} for name in sorted(names)}
