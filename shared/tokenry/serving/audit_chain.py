"""
An audit log that shows when it was changed: each record carries the hash of the one before it (a hash chain).

A record is JSON. Its `hash` is the SHA-256 of its canonical form without that member; its `previous` is the hash of
the record before, so that nobody can change, remove or put in a record without making all that follow anew. Every
run of a process has a chain of its own, its *instance*. Whoever could make a whole chain anew is caught by its heads,
which are kept where that person cannot write: `verify` compares with them.

Pure: time is an argument, and where records go is somebody else's business.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.serving.access_log import redact_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIRST: Final = 1  # the number of a chain's first record
NOTHING: Final = "0" * 64  # what the first record has in place of the hash of the one before
# What a log line has around a record: the logging adds it, and it is not covered by the hash.
AROUND: Final = frozenset(
    {"ts", "level", "service", "environment", "request_id", "audit", "trace_id", "span_id", "logger"}
)
_OURS: Final = frozenset({"instance", "seq", "time", "previous", "hash"})
_HEX: Final = frozenset("0123456789abcdef")


class BrokenChain(TokenryError):
    """
    The log is not what was written.

    Attributes:
        instance: Whose chain it is.
        seq: The number of the first record that is wrong or missing.
    """

    def __init__(self, instance: str, seq: int, what: str) -> None:
        """Name the record."""
        self.instance = instance
        self.seq = seq
        super().__init__(f"record {seq} of {instance} {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """
    The last record of a chain, as it stood at some time.

    Attributes:
        instance: Whose chain it is.
        seq: Number of the record; 0 before the first.
        hash: Its hash.
    """

    instance: str
    seq: int
    hash: str

    def members(self) -> dict[str, Any]:
        """Return it as the members of a JSON object."""
        return {"instance": self.instance, "seq": self.seq, "hash": self.hash}

    @classmethod
    def read(cls, members: object) -> Head:
        """
        Return the head that *members* are.

        Raises:
            ProtocolError: They are none.
        """
        if not isinstance(members, dict):
            raise ProtocolError("not the head of an audit log")
        instance, seq, digest = members.get("instance"), members.get("seq"), members.get("hash")
        if not isinstance(instance, str) or type(seq) is not int or seq < 0 or not _is_hash(digest):
            raise ProtocolError("not the head of an audit log")
        return cls(instance=instance, seq=seq, hash=str(digest))


class AuditChain:
    """The records of one instance, as they are made."""

    def __init__(self, instance: str) -> None:
        """Begin the chain of *instance*: a name that no other run of any process has."""
        self.head = Head(instance=instance, seq=FIRST - 1, hash=NOTHING)

    @classmethod
    def after(cls, head: Head) -> AuditChain:
        """Return the chain that goes on after *head*, its last record so far: where only one writes at a time."""
        chain = cls(head.instance)
        chain.head = head
        return chain

    def record(self, event: str, fields: Mapping[str, object], *, now: float) -> dict[str, Any]:
        """
        Return the next record.

        Args:
            event: What happened: a text of ours.
            fields: What belongs to it: JSON values. What looks like a token or a secret in them is replaced, as the
                log would do it: the hash is of what is written.
            now: Unix seconds.
        """
        taken = fields.keys() & (_OURS | AROUND | {"event"})
        if taken:
            raise ValueError(f"a field of an audit record cannot be called {min(taken)}")
        said = redact_value(dict(fields))
        record: dict[str, Any] = {
            "event": event,
            "instance": self.head.instance,
            "seq": self.head.seq + 1,
            "time": _spelled(now),
            **(said if isinstance(said, dict) else {}),
            "previous": self.head.hash,
        }
        record["hash"] = record_hash(record)
        self.head = Head(instance=self.head.instance, seq=record["seq"], hash=record["hash"])
        return record


def record_hash(record: Mapping[str, Any]) -> str:
    """
    Return the hash of *record*, in hexadecimal digits.

    Canonical form: compact JSON in UTF-8 with the members in the order of their names, at all levels.

    Raises:
        ValueError: It has a value that JSON has not.
    """
    members = {name: value for name, value in record.items() if name != "hash"}
    return hashlib.sha256(dump_json(_sorted(members))).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """
    One chain that is whole.

    Attributes:
        instance: Whose it is.
        first: Number of its first record here.
        last: Number of its last one.
        hash: Hash of that one: what a later look can be compared with.
    """

    instance: str
    first: int
    last: int
    hash: str


def record_of(line: str) -> dict[str, Any] | None:
    """
    Return the audit record that a line of the log has, without what the logging puts around it; None for other lines.

    Raises:
        ProtocolError: It is an audit record, but not one of a chain.
    """
    if '"audit"' not in line and '"previous"' not in line:
        return None
    try:
        members = parse_json_object(line.encode())
    except ProtocolError:
        return None
    if members.get("audit") is not True and not members.keys() >= _OURS:
        return None
    record = {name: value for name, value in members.items() if name not in AROUND}
    check_record(record)
    return record


def check_record(record: Mapping[str, Any]) -> None:
    """
    Refuse what has not the members of a record.

    Raises:
        ProtocolError: It has not.
    """
    seq = record.get("seq")
    if not isinstance(record.get("instance"), str) or type(seq) is not int or seq < FIRST:
        raise ProtocolError("an audit record without an instance and a number")
    if not _is_hash(record.get("previous")) or not _is_hash(record.get("hash")):
        raise ProtocolError("an audit record without hashes")


def verify(
    records: Iterable[Mapping[str, Any]], *, heads: Iterable[Head] = (), from_the_first: bool = True
) -> list[Verified]:
    """
    Return the chains of *records*, each of them whole.

    Args:
        records: In any order; the same one may be there several times.
        heads: Heads that were kept elsewhere: each chain has to reach and contain those of its instance.
        from_the_first: Whether a chain has to begin with its first record; else with any.

    Raises:
        BrokenChain: A record was changed or is missing; of each chain the first one is found, of several chains the
            one whose name comes first.
    """
    chains: dict[str, dict[int, Mapping[str, Any]]] = {}
    for record in records:
        chain = chains.setdefault(record["instance"], {})
        known = chain.setdefault(record["seq"], record)
        if known != record:
            raise BrokenChain(record["instance"], record["seq"], "is there twice, with different content")
    known_heads: dict[str, list[Head]] = {}
    for head in heads:
        known_heads.setdefault(head.instance, []).append(head)
    verified = [
        _verify_chain(instance, chains[instance], known_heads.get(instance, ()), from_the_first=from_the_first)
        for instance in sorted(chains)
    ]
    for instance in sorted(known_heads.keys() - chains.keys()):
        if any(head.seq >= FIRST for head in known_heads[instance]):
            raise BrokenChain(instance, FIRST, "is missing, and all that follow")
    return verified


def _verify_chain(
    instance: str, chain: Mapping[int, Mapping[str, Any]], heads: Iterable[Head], *, from_the_first: bool
) -> Verified:
    first = FIRST if from_the_first else min(chain)
    last = max(*chain, *(head.seq for head in heads), first)
    previous: str | None = NOTHING if first == FIRST else None
    hashes = {}
    for seq in range(first, last + 1):
        record = chain.get(seq)
        if record is None:
            raise BrokenChain(instance, seq, "is missing")
        if previous is not None and record["previous"] != previous:
            raise BrokenChain(instance, seq, "does not follow the one before it: it or one before was changed")
        try:
            digest = record_hash(record)
        except ValueError:
            digest = ""
        if digest != record["hash"]:
            raise BrokenChain(instance, seq, "was changed: its content does not have its hash")
        hashes[seq] = previous = digest
    for head in heads:
        if first <= head.seq and hashes[head.seq] != head.hash:
            raise BrokenChain(instance, head.seq, "is not the one that the kept head names: the chain was made anew")
    return Verified(instance=instance, first=first, last=last, hash=hashes[last])


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value


def _is_hash(text: object) -> bool:
    return isinstance(text, str) and len(text) == len(NOTHING) and set(text) <= _HEX


def _spelled(now: float) -> str:
    return datetime.fromtimestamp(int(now * 1000) / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
