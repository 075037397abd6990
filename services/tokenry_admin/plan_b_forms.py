"""
The bodies of Plan B's administration ("raw-sync"), and what they make of a stored object. Pure.

What has no meaning here is taken and dropped: redirect URIs, pictures and home pages belong to browser flows, values
of a user's scopes to nothing that a service asks for. What this release adds to a client (its audiences, grants,
keys, whether it is enabled) is not Plan B's to change: it stays.

Unlike Plan B: a client without `is_confidential` is a confidential one, where Plan B answered 500; an unknown member
is refused, since a misspelt one would be a credential that does not work; a disabled client stays disabled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import parse_json_object
from tokenry_admin.documents import NotValid
from tokenry_registry.fields import MAX_ITEMS, Fields
from tokenry_registry.realms import MAX_SECRETS
from tokenry_registry.secret_hashes import parse_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NEW_CLIENT: Final[Mapping[str, Any]] = {"grant_types": ["password"]}  # all that Plan B's clients do
_DROPPED_TEXTS: Final = ("image_uri", "homepage_url")


def read_client(body: bytes, *, before: Mapping[str, Any] | None, partial: bool, now: int) -> dict[str, Any]:
    """
    Return the members of a client after `PUT` (or `PATCH`: *partial*) of *body*.

    Args:
        body: JSON.
        before: What is stored; None: nothing.
        partial: Keep what is absent, null or an empty list.
        now: Unix seconds, for new hashes.

    Raises:
        ProtocolError: It is malformed.
    """
    fields = _fields(body)
    text = fields.optional_text("secret_hash")
    scopes, default_scopes = fields.names("scopes"), fields.names("default_scopes")
    confidential = fields.flag("is_confidential", default=True)
    name, description = fields.optional_text("name"), fields.optional_text("description")
    fields.names("redirect_uris")
    for member in _DROPPED_TEXTS:
        fields.optional_text(member)
    fields.finish()
    if not confidential and text is not None:
        raise ProtocolError("a client that is not confidential has no secret_hash")
    kept = dict(NEW_CLIENT if before is None else before)
    said: dict[str, Any] = {
        "secrets": [] if text is None else _hashes([text], now=now),
        "scopes": sorted(scopes),
    }
    if default_scopes:
        said["default_scopes"] = sorted(default_scopes)
    elif not partial:
        kept.pop("default_scopes", None)  # then the realm's count, as there
    if described := description or name:
        said["description"] = described
    elif not partial:
        kept.pop("description", None)
    return _merged(kept, said, partial=partial)


def read_user(body: bytes, *, before: Mapping[str, Any] | None, partial: bool, now: int) -> dict[str, Any]:
    """
    Return the members of a user after `PUT` (or `PATCH`: *partial*) of *body*; arguments as in `read_client`.

    Raises:
        ProtocolError: It is malformed.
    """
    fields = _fields(body)
    hashes, scopes = fields.names("password_hashes"), fields.optional_object("scopes") or {}
    fields.finish()
    if len(scopes) > MAX_ITEMS:
        raise ProtocolError(f"scopes has more than {MAX_ITEMS} members")
    said = {"password_hashes": _hashes(hashes, now=now), "scopes": sorted(scopes)}
    return _merged(dict(before or {}), said, partial=partial)


def add_password(body: bytes, *, before: Mapping[str, Any], now: int) -> dict[str, Any]:
    """
    Return the members of a user after `POST …/password` of *body*: one more hash, beside those that are there.

    Raises:
        ProtocolError: It is malformed.
        NotValid: There is no room for one more.
    """
    fields = _fields(body)
    text = fields.text("password_hash")
    fields.finish()
    held: Sequence[Mapping[str, Any]] = before.get("password_hashes", ())
    kept = [each for each in held if each["hash"] != text and _lives(each, now)]
    if len(kept) >= MAX_SECRETS:
        raise NotValid(f"there are {MAX_SECRETS} passwords already: PATCH password_hashes to those in use first")
    return {**before, "password_hashes": [*kept, *_hashes([text], now=now)]}


def _lives(secret: Mapping[str, Any], now: int) -> bool:
    return secret.get("expires_at") is None or secret["expires_at"] > now


def _fields(body: bytes) -> Fields:
    """Return the members of *body*; null means absent."""
    return Fields({name: value for name, value in parse_json_object(body).items() if value is not None})


def _hashes(texts: Sequence[str], *, now: int) -> list[dict[str, Any]]:
    for text in texts:
        parse_hash(text)
    return [{"hash": text, "created_at": now} for text in texts]


def _merged(kept: dict[str, Any], said: Mapping[str, Any], *, partial: bool) -> dict[str, Any]:
    return {**kept, **{name: value for name, value in said.items() if value or not partial}}
