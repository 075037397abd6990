"""
Taking over clients and users from Plan B.

Each line of the file is one of them as JSON: what the body of its `PUT /raw-sync/…` would be, with `realm` and
`client_id`, or `username`, beside it. Hashes are taken as they are (bcrypt), so nobody has to change a secret.

    {"realm": "/services", "client_id": "orders", "secret_hash": "$2b$…", "scopes": ["uid"], "is_confidential": true}
    {"realm": "/services", "username": "robot", "password_hashes": ["$2b$…"], "scopes": {"uid": "robot"}}

What is there already stays: one that says the same is passed over, another one is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry_admin.documents import NotValid, object_key
from tokenry_admin.plan_b_forms import read_client, read_user
from tokenry_admin.views import ID_MEMBERS, SECRETS
from tokenry_registry.realms import ObjectKey, ObjectKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenry_admin.clients import Editor

MAX_LINE_BYTES: Final = 256 * 1024
_IDS: Final = {"client_id": (ObjectKind.CLIENT, read_client), "username": (ObjectKind.USER, read_user)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """
    One line that was read.

    Attributes:
        number: Of the line, from 1.
        key: What it describes.
        members: Its object.
    """

    number: int
    key: ObjectKey
    members: Mapping[str, Any] = field(repr=False)


def read_lines(lines: Iterable[bytes], *, now: int) -> tuple[list[Imported], dict[int, str]]:
    """Return what *lines* describe, and what is wrong with others of them, by number; empty ones are passed over."""
    found: list[Imported] = []
    faults: dict[int, str] = {}
    seen: dict[ObjectKey, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            key, members = _read(line, now=now)
        except (ProtocolError, NotValid) as error:
            faults[number] = str(error)
            continue
        if key in seen:
            faults[number] = f"{key.name} of {key.realm} is on line {seen[key]} already"
            continue
        seen[key] = number
        found.append(Imported(number=number, key=key, members=members))
    return found, faults


def _read(line: bytes, *, now: int) -> tuple[ObjectKey, dict[str, Any]]:
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"the line is longer than {MAX_LINE_BYTES} bytes")
    members = dict(parse_json_object(line))
    realm = members.pop("realm", None)
    ids = [name for name in _IDS if name in members]
    if len(ids) != 1 or not isinstance(realm, str) or not isinstance(members[ids[0]], str):
        raise ProtocolError("a line has realm, and client_id or username")
    kind, read = _IDS[ids[0]]
    key = object_key(kind, realm, members.pop(ids[0]))
    return key, {ID_MEMBERS[kind]: key.name, **read(dump_json(members), before=None, partial=False, now=now)}


async def take_over(found: Imported, editor: Editor) -> bool:
    """
    Write one line's object unless it is there; return whether it was written.

    Raises:
        Taken: There is one of this name that says something else.
        NotValid: An issuer would refuse it.
        WrongRealm: Its realm is not there, or belongs to another environment.
        WriteRefused: The store does not let us.
        StoreUnavailable: It does not answer.
    """
    before = await editor.documents.find(found.key)
    if before is not None and _same(found.key.kind, before.members, found.members):
        return False
    await editor.create(found.key, found.members, action="imported")
    return True


def _same(kind: ObjectKind, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether they say the same but for when a hash was taken over."""

    def timeless(members: Mapping[str, Any]) -> dict[str, Any]:
        return {**members, SECRETS[kind]: [each["hash"] for each in members.get(SECRETS[kind], ())]}

    return timeless(there) == timeless(wanted)
