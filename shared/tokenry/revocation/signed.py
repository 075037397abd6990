"""
The signed list: all that is revoked, as a JWS that a file server, a bucket or a CDN can carry.

    header      {"alg": "ES256", "kid": "…", "typ": "revocation-list+jwt"}
    payload     iss, iat, epoch, stream, seq, as_of, next_update, prev
                and what a snapshot has: cursor, kinds, salts, max_token_lifetime, entries
                and, where the list is long, `fingerprints` and `expiries`: the columns of its binary form

Whoever carries it can withhold it and serve an old one, and nothing else: what an old one may do is bounded by
`seq`, `as_of` and `next_update`.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_bytes, b64url_decode, b64url_encode, dump_json, parse_json_object
from tokenry.jose.typed import verified_payload
from tokenry.revocation.blocks import Block
from tokenry.revocation.entries import FINGERPRINT_BYTES
from tokenry.revocation.jsonform import document_from, document_members
from tokenry.revocation.lists import MAX_ENTRIES, TooManyEntries

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.jose.jwk import PublicKey, Signer
    from tokenry.revocation.documents import ListDocument

SIGNED_LIST_TYPE: Final = "revocation-list+jwt"
SIGNED_LIST_MEDIA_TYPE: Final = f"application/{SIGNED_LIST_TYPE}"
# `MAX_ENTRIES` take 200 MB, 4/3 of that as base64url in the payload, and 4/3 of that as a JWS.
MAX_SIGNED_BYTES: Final = 400 * 2**20
MAX_SEQ: Final = 2**53 - 1

_OWN: Final = frozenset({"iss", "iat", "stream", "seq", "as_of", "next_update", "prev"})
_COLUMNS: Final = frozenset({"fingerprints", "expiries"})
_BYTES_PER_ENTRY: Final = 36  # 20, and twice 4/3 of that
_STREAM = re.compile(r"[A-Za-z0-9_-]{16,64}")
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")
_MAX_SECONDS: Final = 10**11


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedList:
    """
    One issue of the list.

    Attributes:
        issuer: Whose list it is.
        issued_at: Unix seconds at which it was signed.
        as_of: Unix seconds up to which every acknowledged revocation is contained.
        next_update: Unix seconds by which the next one is out.
        stream: Random name of the publisher's run.
        seq: Its number; grows strictly within a stream.
        previous: SHA-256 of the issue before, base64url; None for the first.
        content: What a snapshot has.

    Raises:
        ProtocolError: A part is missing, mistyped or contradicts another.
    """

    issuer: str
    issued_at: int
    as_of: float
    next_update: int
    stream: str
    seq: int
    previous: str | None
    content: ListDocument = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what no publisher writes."""
        for seconds in (self.issued_at, self.as_of, self.next_update):
            if type(seconds) not in {int, float} or not math.isfinite(seconds) or not 0 <= seconds < _MAX_SECONDS:
                raise ProtocolError("a time of the signed list is no number of seconds")
        if not self.as_of <= self.issued_at + 1 or not self.issued_at < self.next_update:
            raise ProtocolError("the times of the signed list are out of order")
        if type(self.seq) is not int or not 0 < self.seq <= MAX_SEQ:
            raise ProtocolError("seq of the signed list is a positive whole number")
        if type(self.stream) is not str or _STREAM.fullmatch(self.stream) is None:
            raise ProtocolError("stream of the signed list is a random text of base64url")
        if self.previous is not None and (type(self.previous) is not str or _DIGEST.fullmatch(self.previous) is None):
            raise ProtocolError("prev of the signed list is the base64url of a SHA-256")

    def sign(self, signer: Signer) -> str:
        """Return it as a JWS under the key of *signer*."""
        content = self.content
        members: dict[str, Any] = {
            "iss": self.issuer,
            "iat": self.issued_at,
            "stream": self.stream,
            "seq": self.seq,
            "as_of": self.as_of,
            "next_update": self.next_update,
            "prev": self.previous,
            **document_members(replace(content, block=Block())),
        }
        payload = dump_json(members)
        if content.block:  # put in behind the others: an encoder of JSON would hold every other thread up over it
            fingerprints, expiries = map(b64url_bytes, content.block.columns())
            payload = b"".join((payload[:-1], b',"fingerprints":"', fingerprints, b'","expiries":"', expiries, b'"}'))
        return jws.sign({"typ": SIGNED_LIST_TYPE}, payload, signer)


def digest_of(text: str) -> str:
    """Return the SHA-256 of a signed list as the next one's `prev` has it."""
    return b64url_encode(hashlib.sha256(text.encode("ascii", "replace")).digest())


def max_signed_bytes(max_entries: int) -> int:
    """Return how long a signed list may be for a reader of *max_entries*."""
    return MAX_SIGNED_BYTES + max(0, max_entries - MAX_ENTRIES) * _BYTES_PER_ENTRY


def read_signed_list(
    text: str, *, issuer: str, find: Callable[[str], PublicKey | None], max_entries: int = MAX_ENTRIES
) -> SignedList:
    """
    Return the signed list *text* of *issuer*.

    Args:
        text: As received.
        issuer: Whose list it has to be.
        find: Returns the issuer's list key of an id, or None; never a key that signs access tokens.
        max_entries: A longer list is refused.

    Raises:
        TooManyEntries: It has more than *max_entries*; none of them was read.
        UnknownSigner: It names a key that is not at hand.
        ProtocolError: Its signature, type or issuer is not right, or anything in it is missing, unknown,
            mistyped or out of range.
    """
    payload = verified_payload(text, typ=SIGNED_LIST_TYPE, find=find, max_bytes=max_signed_bytes(max_entries))
    members = parse_json_object(payload)
    if not members.keys() >= _OWN:
        raise ProtocolError("a member of the signed list is missing")
    own = {name: members.pop(name) for name in _OWN}
    if own["iss"] != issuer:
        raise ProtocolError("the signed list is another issuer's")
    columns = {name: members.pop(name) for name in _COLUMNS & members.keys()}
    content = document_from(members, max_entries=max_entries)
    if columns:
        content = replace(content, block=_block(columns, others=len(content.entries), max_entries=max_entries))
    return SignedList(
        issuer=issuer,
        issued_at=own["iat"],
        as_of=own["as_of"],
        next_update=own["next_update"],
        stream=own["stream"],
        seq=own["seq"],
        previous=own["prev"],
        content=content,
    )


def _block(columns: dict[str, Any], *, others: int, max_entries: int) -> Block:
    if columns.keys() != _COLUMNS or not all(type(value) is str for value in columns.values()):
        raise ProtocolError("the columns of the signed list come together, as texts")
    if others + len(columns["fingerprints"]) * 3 // 4 // FINGERPRINT_BYTES > max_entries:
        raise TooManyEntries(max_entries)
    return Block.read(b64url_decode(columns["fingerprints"]), b64url_decode(columns["expiries"]))
