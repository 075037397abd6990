"""
How many live tokens a rule hits, as the issuers count them. Pure.

Each issuer's process pushes its counters; they are kept by hashes of the names, never by the names themselves,
until the last token that they count has expired. An upper bound: a rule with an older cut-off hits fewer, and so
does one that names more claims than are counted.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry_revocation.records import RecordType
from tokenry_revocation.requests import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

COUNTERS: Final = "counters"  # the group of the store in which they are
MAX_PUSH_BYTES: Final = 4 * 2**20
MAX_ROWS: Final = 10_000
MAX_BUCKETS: Final = 400  # a day in buckets of five minutes, and some
MAX_MEMBERS: Final = 500  # lives of issuers' processes within the longest life of a token
MAX_UNPACKED_BYTES: Final = 8 * 2**20
FRESH_SECONDS: Final = 35.0  # three pushes
COUNTED: Final = ("realm", "client_id", "sub")
_HASH_CHARACTERS: Final = 11  # 66 bits: names of one platform do not meet by chance
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_MAX_COUNT: Final = 2**40
_MAX_TIME: Final = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """
    What a revocation would hit.

    Attributes:
        live_tokens: How many live tokens at most; None when that is not counted.
        clients: How many clients have such tokens.
        total: How many tokens live.
        as_of: Unix seconds at which the oldest of the counters was read; None without any.
        is_complete: Whether every live token was counted.
        horizon: When those that are hit expire by themselves: Unix seconds, rising, and how many by then (at most so
            many buckets as a push may have); empty when that is not counted.
    """

    live_tokens: int | None = None
    clients: int | None = None
    total: int | None = None
    as_of: int | None = None
    is_complete: bool = False
    horizon: tuple[tuple[int, int], ...] = ()

    @property
    def share(self) -> float | None:
        """The part of all live tokens that is hit; None when it is not known."""
        if self.live_tokens is None or not self.total or not self.is_complete:
            return None
        return min(1.0, self.live_tokens / self.total)


def pack_push(body: bytes, *, hashed: Callable[[str], str]) -> tuple[str, bytes]:
    """
    Return under which name, and in which form, a push is kept.

    Args:
        body: As an issuer sends it.
        hashed: Returns the keyed hash of a name.

    Raises:
        InvalidRequest: It is not what an issuer sends.
    """
    try:
        members = parse_json_object(body)
    except ProtocolError:
        raise InvalidRequest("the body is not a strict JSON object") from None
    names = [members.get(name) for name in ("instance", "boot")]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise InvalidRequest("instance and boot are short names")
    times = [members.get(name) for name in ("started_at", "as_of")]
    if not all(type(time) is int and 0 <= time < _MAX_TIME for time in times):
        raise InvalidRequest("started_at and as_of are Unix seconds")
    flags = [members.get(name) for name in ("complete", "final")]
    if not all(type(flag) is bool for flag in flags):
        raise InvalidRequest("complete and final are true or false")
    rows = members.get("rows")
    if not isinstance(rows, list) or len(rows) > MAX_ROWS:
        raise InvalidRequest(f"rows are a list of at most {MAX_ROWS}")
    kept = {"times": times, "flags": flags, "rows": [_hashed_row(row, hashed) for row in rows]}
    return ".".join(map(str, names)), zlib.compress(dump_json(kept), 1)


def _hashed_row(row: Any, hashed: Callable[[str], str]) -> list[Any]:  # noqa: ANN401 -- from the wire
    if not isinstance(row, list) or len(row) != len(COUNTED) + 1:
        raise InvalidRequest("a row is realm, client, subject and buckets")
    *names, buckets = row
    if not all(isinstance(name, str) for name in names) or not isinstance(buckets, list) or len(buckets) > MAX_BUCKETS:
        raise InvalidRequest("a row is realm, client, subject and buckets")
    for bucket in buckets:
        if not isinstance(bucket, list) or len(bucket) != 2 or not all(type(number) is int for number in bucket):  # noqa: PLR2004
            raise InvalidRequest("a bucket is its end and a count")
        if not 0 <= bucket[0] < _MAX_TIME or not 0 <= bucket[1] < _MAX_COUNT:
            raise InvalidRequest("a bucket is its end and a count")
    return [*(hash_of(name, value, hashed) for name, value in zip(COUNTED, names, strict=True)), buckets]


def hash_of(name: str, value: str, hashed: Callable[[str], str]) -> str:
    """Return what stands for *value* of the claim *name* in kept counters."""
    return hashed(f"counter {name} {value}")[:_HASH_CHARACTERS]


def estimate(
    pushes: Iterable[bytes],
    kind: RecordType,
    claims: Mapping[str, str],
    *,
    now: float,
    max_token_lifetime: int,
    hashed: Callable[[str], str],
) -> Estimate:
    """
    Return what a revocation of *kind* with *claims* would hit.

    Args:
        pushes: What `pack_push` has made.
        kind: What is revoked.
        claims: By which claims, for a rule.
        now: Unix seconds.
        max_token_lifetime: Seconds; until one has counted for so long, older tokens may be uncounted.
        hashed: As for `pack_push`.
    """
    wanted = {name: hash_of(name, claims[name], hashed) for name in COUNTED if name in claims}
    members = [_unpack(push) for push in pushes]
    if not members or len(members) > MAX_MEMBERS or any(member is None for member in members):
        return Estimate()
    known = [member for member in members if member is not None]
    total = hit = 0
    clients: set[str] = set()
    ends: Counter[int] = Counter()
    for member in known:
        for *names, buckets in member["rows"]:
            live = sum(count for end, count in buckets if end > now)
            total += live
            fits = all(names[COUNTED.index(name)] == value for name, value in wanted.items())
            if live and fits:
                hit += live
                for end, count in buckets:
                    ends[end] += count if end > now else 0
                clients.add(names[COUNTED.index("client_id")])
    current = [member for member in known if not member["flags"][1]]
    is_complete = (
        all(member["flags"][0] for member in known)
        and all(now - member["times"][1] <= FRESH_SECONDS for member in current)
        and min(member["times"][0] for member in known) <= now - max_token_lifetime
    )
    bounds = {"total": total, "as_of": min(m["times"][1] for m in current or known), "is_complete": is_complete}
    if kind is RecordType.TOKEN or "jti" in claims:
        return Estimate(live_tokens=1, clients=1, **bounds)
    if kind is RecordType.GLOBAL or (kind is RecordType.CLAIM and wanted):
        horizon = tuple(sorted((+ends).items())[:MAX_BUCKETS])
        return Estimate(live_tokens=hit, clients=len(clients), horizon=horizon, **bounds)
    return Estimate(**bounds)


def _unpack(push: bytes) -> dict[str, Any] | None:
    """Return a push as it is kept; None for one of another version."""
    try:
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(push, MAX_UNPACKED_BYTES)
        members = parse_json_object(body)
    except (zlib.error, ProtocolError):
        return None
    return members if members.keys() == {"times", "flags", "rows"} else None
