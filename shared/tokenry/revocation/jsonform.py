"""
The JSON form of a list, read strictly: one thing that is not understood refuses the whole document.

A reader that skipped what it does not know would accept tokens that the writer meant to be refused.
"""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import b64url_decode, b64url_decode_many, b64url_encode, dump_json, parse_json_object
from tokenry.revocation.documents import ListDocument
from tokenry.revocation.entries import FINGERPRINT_BYTES, Entry, Kind
from tokenry.revocation.lists import MAX_ENTRIES, TooManyEntries

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_JSON_BYTES: Final = 32 * 2**20  # 200,000 entries; longer lists travel in the binary form

_FINGERPRINT_CHARACTERS: Final = (FINGERPRINT_BYTES * 8 + 5) // 6
_DOCUMENT: Final = frozenset({"cursor", "epoch", "kinds", "salts", "max_token_lifetime", "entries"})
_REQUIRED: Final = frozenset({"id", "kind", "in_force_until"})
_OPTIONAL: Final = frozenset(
    {"fingerprint", "salt", "names", "issued_before", "block_until", "undoes", "undoable", "created_at"}
)
_SINGLE: Final = frozenset({"id", "kind", "fingerprint", "salt", "in_force_until"})
_SINGLES: Final = (_SINGLE, _SINGLE | {"created_at"})
_KINDS: Final[Mapping[str, Kind]] = {kind.value: kind for kind in Kind}


def parse_list(body: bytes, *, max_entries: int = MAX_ENTRIES) -> ListDocument:
    """
    Read the JSON of `changes` or `snapshot`.

    Raises:
        TooManyEntries: It has more than *max_entries*; none of them was read.
        ProtocolError: Anything in it is missing, unknown, mistyped, out of range, or written twice.
    """
    if len(body) > MAX_JSON_BYTES:
        raise ProtocolError("the list is larger than this reader takes as JSON")
    return document_from(parse_json_object(body), max_entries=max_entries)


def document_from(members: dict[str, Any], *, max_entries: int = MAX_ENTRIES) -> ListDocument:
    """
    Read a document from its parsed JSON.

    Raises:
        TooManyEntries: It has more than *max_entries*; none of them was read.
        ProtocolError: Anything in it is missing, unknown, mistyped or out of range.
    """
    if members.keys() != _DOCUMENT:
        raise ProtocolError("a member of the list is missing or unknown")
    if len(_typed(members["entries"], list)) > max_entries:
        raise TooManyEntries(max_entries)
    return ListDocument(
        cursor=members["cursor"],
        epoch=members["epoch"],
        kinds=tuple(map(_kind, _typed(members["kinds"], list))),
        salts={name: b64url_decode(_typed(salt, str)) for name, salt in _typed(members["salts"], dict).items()},
        max_token_lifetime=members["max_token_lifetime"],
        entries=_entries(members["entries"]),
    )


def format_list(document: ListDocument, *, created_at: bool = False) -> bytes:
    """
    Return *document* as JSON, with what is known of the creation of its entries if *created_at*.

    Raises:
        ProtocolError: It has a block of bare fingerprints, which only the binary form can carry.
    """
    if document.block:
        raise ProtocolError("a list with a block of fingerprints has no JSON form")
    return dump_json(document_members(document, created_at=created_at))


def document_members(document: ListDocument, *, created_at: bool = False) -> dict[str, Any]:
    """Return *document*, but for its block, as the members of its JSON object."""
    return {
        "cursor": document.cursor,
        "epoch": document.epoch,
        "kinds": [kind.value for kind in document.kinds],
        "salts": {name: b64url_encode(salt) for name, salt in document.salts.items()},
        "max_token_lifetime": document.max_token_lifetime,
        "entries": [entry_members(entry, created_at=created_at) for entry in document.entries],
    }


def _entries(listed: list[Any]) -> tuple[Entry, ...]:
    """Read *listed*; nearly all are single tokens, by the thousand, whose fingerprints are decoded all at once."""
    singles = [type(each) is dict and each.keys() in _SINGLES for each in listed]
    texts = [each["fingerprint"] for each in compress(listed, singles)]
    if not all(type(text) is str for text in texts):
        raise ProtocolError("a fingerprint is 16 bytes")
    decoded = iter(b64url_decode_many(texts, size=FINGERPRINT_BYTES))
    return tuple([
        _single(each, next(decoded)) if single else parse_entry(each)
        for each, single in zip(listed, singles, strict=True)
    ])  # fmt: skip


def _single(members: dict[str, Any], fingerprint: bytes) -> Entry:
    created_at = members.get("created_at")
    if created_at is None and "created_at" in members:
        raise ProtocolError("a member of an entry is null")
    return Entry(
        id=members["id"],
        kind=_kind(members["kind"]),
        fingerprint=fingerprint,
        salt=members["salt"],
        in_force_until=members["in_force_until"],
        created_at=created_at,
    )


def parse_entry(members: Any) -> Entry:  # noqa: ANN401 -- from the wire
    """
    Read one entry from its parsed JSON.

    Raises:
        ProtocolError: Anything in it is missing, unknown, mistyped or out of range.
    """
    given = _typed(members, dict).keys()
    if not given >= _REQUIRED or not given <= _REQUIRED | _OPTIONAL:
        raise ProtocolError("a member of an entry is missing or unknown")
    if any(members[name] is None for name in given & _OPTIONAL):
        raise ProtocolError("a member of an entry is null")
    return Entry(
        id=members["id"],
        kind=_kind(members["kind"]),
        fingerprint=_fingerprint(members["fingerprint"]) if "fingerprint" in members else None,
        salt=members.get("salt"),
        names=_names(members["names"]) if "names" in members else (),
        issued_before=members.get("issued_before"),
        in_force_until=members["in_force_until"],
        block_until=members.get("block_until"),
        undoes=members.get("undoes"),
        undoable=members.get("undoable", False),
        created_at=members.get("created_at"),
    )


def entry_members(entry: Entry, *, created_at: bool = False) -> dict[str, object]:
    """
    Return *entry* as the members of its JSON object; what does not apply is left out.

    Readers of the first version refuse a list with *created_at*: it is written only for those who ask for it.
    """
    members: dict[str, object] = {"id": entry.id, "kind": entry.kind.value}
    if entry.fingerprint is not None:
        members["fingerprint"] = b64url_encode(entry.fingerprint)
        members["salt"] = entry.salt
    if entry.names:
        members["names"] = list(entry.names)
    if entry.issued_before is not None:
        members["issued_before"] = entry.issued_before
    members["in_force_until"] = entry.in_force_until  # null: never over
    if entry.block_until is not None:
        members["block_until"] = entry.block_until
    if entry.undoes is not None:
        members["undoes"] = entry.undoes
    if entry.undoable:
        members["undoable"] = True
    if entry.created_at is not None and created_at:
        members["created_at"] = round(entry.created_at, 3)
    return members


def _kind(text: Any) -> Kind:  # noqa: ANN401 -- from the wire
    kind = _KINDS.get(text) if type(text) is str else None
    if kind is None:
        raise ProtocolError("the list has a kind that this reader does not know")
    return kind


def _fingerprint(text: Any) -> bytes:  # noqa: ANN401 -- from the wire
    if type(text) is not str or len(text) != _FINGERPRINT_CHARACTERS:
        raise ProtocolError("a fingerprint is 16 bytes")
    return b64url_decode(text)


def _names(value: Any) -> tuple[str, ...]:  # noqa: ANN401 -- from the wire
    names = tuple(_typed(value, list))
    if not names:
        raise ProtocolError("names are given but empty")
    return names


def _typed(value: Any, kind: type) -> Any:  # noqa: ANN401 -- from the wire
    if type(value) is not kind:
        raise ProtocolError(f"a member of the list is not of JSON's kind for {kind.__name__}")
    return value
