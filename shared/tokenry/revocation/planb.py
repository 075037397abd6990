"""
The list in the form that the validators of Zalando's Plan B poll (`GET /revocations?from=`).

What such a validator does, and what therefore holds here:
    * It drops a row whose `issued_before` is 0 or in its future, and never asks for it again. So a row shows
      no cut-off later than now less the bound on clock differences; once the true one is not later than that,
      the row is shown anew with it, and `revoked_at` moved to that moment.
    * It keeps one row for each hash, the last that it read. So rows of one hash come in ascending cut-offs,
      and one with a later cut-off is listed again whenever one with an earlier cut-off is.
    * It asks for rows younger than the youngest that it has seen, less a tolerance. So a row that matters
      again has a new `revoked_at`.
    * It matches any string claim, and a value under each name that it has heard of. So `jti` is one.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import dump_json
from tokenry.revocation.entries import check_time
from tokenry.revocation.fingerprints import plan_b_hash
from tokenry.revocation.planb_rows import BUCKET_SECONDS, HASH_BYTES, TokenRow, TokenRows, hash_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tokenry.revocation.planb_rows import Portion

SEPARATOR: Final = "|"
HASH_ALGORITHM: Final = "SHA-256"
NOT_STRINGS: Final = frozenset({"aud", "scope", "exp", "iat", "nbf", "root_iat", "cnf", "act"})
LEAST_TIME_DELTA: Final = 2_678_400  # seconds: 31 days, what a Plan B validator asks for when it starts


class PlanBType(StrEnum):
    """The types of rows that Plan B has."""

    TOKEN = "TOKEN"  # noqa: S105 -- a type of row
    CLAIM = "CLAIM"
    GLOBAL = "GLOBAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBRow:
    """
    One row, as it is stored with its revocation.

    Attributes:
        type: What it names.
        issued_before: Exclusive cut-off in Unix seconds; may still lie ahead.
        revoked_at: Unix seconds of the revocation.
        hash: Plan B's hash of the token or of the claim values; None for GLOBAL.
        names: Names of the claims, ascending (CLAIM).

    Raises:
        ProtocolError: A member is missing, of another type of row, or out of range.
    """

    type: PlanBType
    issued_before: int
    revoked_at: int
    hash: str | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what a Plan B validator would drop or crash on."""
        check_time(self.issued_before, "issued_before")
        check_time(self.revoked_at, "revoked_at")
        hashed, named = self.type is not PlanBType.GLOBAL, self.type is PlanBType.CLAIM
        if bool(self.hash) is not hashed or bool(self.names) is not named:
            raise ProtocolError("a row has a hash unless it is GLOBAL, and names exactly when it is CLAIM")

    def to_dict(self) -> dict[str, Any]:
        """Return the row as the JSON object that is stored and sent."""
        data: dict[str, Any] = {"issued_before": self.issued_before}
        if self.type is PlanBType.TOKEN:
            data = {"token_hash": self.hash, "hash_algorithm": HASH_ALGORITHM, **data}
        elif self.type is PlanBType.CLAIM:
            data = {
                "names": list(self.names), "value_hash": self.hash, "hash_algorithm": HASH_ALGORITHM,
                "separator": SEPARATOR, **data,
            }  # fmt: skip
        return {"type": self.type.value, "revoked_at": self.revoked_at, "data": data}

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> PlanBRow:
        """
        Read a row that `to_dict` wrote.

        Raises:
            ProtocolError: It is not one.
        """
        try:
            kind, data = PlanBType(members["type"]), members["data"]
            name = {PlanBType.TOKEN: "token_hash", PlanBType.CLAIM: "value_hash"}.get(kind)
            row = cls(
                type=kind,
                issued_before=data["issued_before"],
                revoked_at=members["revoked_at"],
                hash=data[name] if name else None,
                names=tuple(data["names"]) if kind is PlanBType.CLAIM else (),
            )
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("not a row of Plan B") from None
        if row.to_dict() != members:
            raise ProtocolError("not a row of Plan B")
        return row


def token_rows(
    spellings: Iterable[str], *, iat: int | None, jti: str | None, cut_off: int, revoked_at: int, salt: str
) -> tuple[PlanBRow, ...]:
    """
    Return the rows of a revoked token: one for each of its *spellings*, and one for its id.

    Args:
        spellings: The raw token, and where wanted the one with the other form of the signature.
        iat: The verified `iat`; None when the signature could not be verified.
        jti: The verified `jti`; None when there is none or it was not verified.
        cut_off: The default cut-off of a claims rule, for when *iat* is None.
        revoked_at: Unix seconds.
        salt: Plan B's hashing salt.
    """
    issued_before = cut_off if iat is None else iat + 1
    rows = tuple(
        PlanBRow(
            type=PlanBType.TOKEN,
            hash=plan_b_hash(token, salt=salt),
            issued_before=issued_before,
            revoked_at=revoked_at,
        )
        for token in spellings
    )
    if jti is None:
        return rows
    return (*rows, *jti_rows(jti, issued_before=issued_before, revoked_at=revoked_at, salt=salt))


def jti_rows(jti: str, *, issued_before: int, revoked_at: int, salt: str) -> tuple[PlanBRow, ...]:
    """
    Return the row of a revoked token id, shown as a claim.

    None for an id with the separator in it: such a row could hit other tokens.
    """
    if SEPARATOR in jti:
        return ()
    return claims_rows({"jti": jti}, issued_before=issued_before, revoked_at=revoked_at, salt=salt)


def claims_rows(claims: Mapping[str, str], *, issued_before: int, revoked_at: int, salt: str) -> tuple[PlanBRow, ...]:
    """
    Return the rows of a claims rule.

    Args:
        claims: Names and values, `client_id` standing for `azp` too, `realm` with its leading slash.
        issued_before: Exclusive cut-off in Unix seconds.
        revoked_at: Unix seconds.
        salt: Plan B's hashing salt.

    Returns:
        One row; two where `client_id` is among the names: Plan B's own tokens carry only `azp`.

    Raises:
        ProtocolError: A value is empty or contains the separator, so that the rule would be ambiguous; or a
            name is one of a claim that is no string, which would end every Plan B validator.
    """
    if not NOT_STRINGS.isdisjoint(claims):
        raise ProtocolError("a Plan B validator ends when it meets a rule on a claim that is no string")
    if not claims or any(not value or SEPARATOR in value for value in claims.values()):
        raise ProtocolError("a claim's value in Plan B's list is neither empty nor contains |")
    spellings = [claims]
    if "client_id" in claims:
        spellings.append({"azp" if name == "client_id" else name: value for name, value in claims.items()})
    return tuple(
        PlanBRow(
            type=PlanBType.CLAIM,
            names=tuple(sorted(spelling)),
            hash=plan_b_hash(SEPARATOR.join(value for _, value in sorted(spelling.items())), salt=salt),
            issued_before=issued_before,
            revoked_at=revoked_at,
        )
        for spelling in spellings
    )


def global_rows(*, issued_before: int, revoked_at: int) -> tuple[PlanBRow, ...]:
    """Return the row that revokes every token issued before *issued_before*."""
    return (PlanBRow(type=PlanBType.GLOBAL, issued_before=issued_before, revoked_at=revoked_at),)


class RefreshConflict(TokenryError):
    """A second refresh within the retention: it kills a validator that has not changed since Plan B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """
    The notification that makes Plan B validators drop what is younger than a moment and fetch it again.

    Attributes:
        since: `REFRESH_FROM`, Unix seconds: rows with `revoked_at` at or after it are dropped.
        timestamp: `REFRESH_TIMESTAMP`, Unix seconds: when the notification was given.
    """

    since: int
    timestamp: int

    def __post_init__(self) -> None:
        """Refuse what a validator would take for no notification."""
        check_time(self.since, "REFRESH_FROM")
        check_time(self.timestamp, "REFRESH_TIMESTAMP")
        if self.since > self.timestamp:
            raise ProtocolError("REFRESH_FROM lies in the future")

    def in_force(self, now: float, *, retention: int) -> bool:
        """Tell whether it is still shown at *now*: validators remember it as long as any row."""
        return now < self.timestamp + max_time_delta(retention)


def next_refresh(held: Refresh | None, *, since: int, now: float, retention: int, force: bool = False) -> Refresh:
    """
    Return the notification to show from now on; *held* itself when it asks for the same.

    Args:
        held: The notification shown so far.
        since: The wanted `REFRESH_FROM`, Unix seconds.
        now: Unix seconds.
        retention: Seconds that a revocation is kept.
        force: Replace one in force, although that kills unchanged Plan B validators.

    Raises:
        RefreshConflict: Another one is in force, and *force* is not given.
        ProtocolError: *since* is no time in the past.
    """
    refresh = Refresh(since=since, timestamp=int(now))
    if held is None or not held.in_force(now, retention=retention):
        return refresh
    if held.since == since:
        return held
    if not force:
        raise RefreshConflict(f"REFRESH_FROM={held.since} is in force; a second one kills Plan B validators")
    if held.timestamp == refresh.timestamp:  # they tell notifications apart by this number alone
        return replace(refresh, timestamp=refresh.timestamp + 1)
    return refresh


def max_time_delta(retention: int) -> int:
    """Return `MAX_TIME_DELTA`: how many seconds back a validator may ask."""
    return max(retention, LEAST_TIME_DELTA)


class PlanBList:
    """
    All rows in force, kept up to date and ready to be answered from.

    Rows of single tokens lie in columns (`planb_rows.py`); they leave these when another row has their hash.

    Invariants:
        * What is shown is a function of the rows, the notifications and the moment alone: every replica says
          the same.
        * Rows of one hash are shown in ascending `issued_before`, with `revoked_at` that never descends.
    """

    __slots__ = ("_groups", "_moments", "_refreshes", "_retention", "_skew", "_tokens")

    def __init__(
        self,
        rows: Iterable[PlanBRow] = (),
        *,
        now: float = 0.0,
        skew: float,
        retention: int,
        refresh: Refresh | None = None,
    ) -> None:
        """
        Begin with *rows*.

        Args:
            rows: Those in force; what was undone is not among them.
            now: Unix seconds at which it begins; what is shown depends on the moment of each question only.
            skew: Bound on the difference of any two clocks of the platform, in seconds.
            retention: Seconds that a revocation is kept.
            refresh: The notification to show.
        """
        del now
        self._skew = skew
        self._retention = retention
        self._refreshes: frozenset[Refresh] = frozenset() if refresh is None else frozenset({refresh})
        self._tokens = TokenRows()
        self._groups: dict[str, tuple[_Held, ...]] = {}
        self._moments: dict[int, dict[str, None]] = {}
        for row in rows:
            self.add(row)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._tokens) + sum(map(len, self._groups.values()))

    # --- what is in force -----------------------------------------------------------------------------------

    def add(self, row: PlanBRow, *, until: int | None = None, single: bool = False) -> None:
        """
        Show *row* too.

        Args:
            row: The row; the same one again is harmless.
            until: Unix seconds until which it matters; None for ever.
            single: Whether it names one token and is never removed, so that it may be kept in little memory.
        """
        digest = None if row.hash is None else base64.urlsafe_b64decode(row.hash)
        place = None if digest is None else self._tokens.find(digest)
        key = _group(row)
        if single and until is not None and digest is not None and len(digest) == HASH_BYTES:
            if place is None and key not in self._groups:
                self._tokens.add(
                    TokenRow(row.names, digest, row.issued_before, row.revoked_at, until),
                    moment=self._settles(row),
                )
                return
            if place is not None and self._is_held(place, row, until):
                return
        if place is not None:
            self._unpack(place)
        held = self._groups.get(key, ())
        if (row, until) not in held:
            self._regroup(key, (*held, _Held(row, until)))

    def add_tokens(
        self, *, names: tuple[str, ...], hashes: bytes, issued_before: int, revoked_at: int, until: int
    ) -> None:
        """
        Show one row for each 32 bytes of *hashes*, alike in everything else, and each of them `single`.

        Args:
            names: Names of the claims; empty for TOKEN rows.
            hashes: Plan B's hashes, not encoded.
            issued_before: The exclusive cut-off, Unix seconds.
            revoked_at: Unix seconds.
            until: Unix seconds until which the rows matter.
        """
        like = TokenRow(names, b"", issued_before, revoked_at, until)
        moment = max(revoked_at, settles_at(issued_before, skew=self._skew))
        met = [digest for digest in _cut(hashes) if hash_text(digest) in self._groups] if self._groups else []
        if met:
            hashes = b"".join(digest for digest in _cut(hashes) if digest not in set(met))
        known = self._tokens.extend(hashes, like=like, moment=moment)
        for digest in (*met, *known):
            self.add(_row_of(like._replace(hash=digest)), until=until, single=True)

    def remove(self, row: PlanBRow, *, until: int | None = None) -> None:
        """Show *row* no more, which was added with *until*: it was taken back."""
        key = _group(row)
        held = self._groups.get(key)
        if held is not None:
            self._regroup(key, tuple(each for each in held if each != (row, until)))

    def notify(self, refresh: Refresh) -> None:
        """Show *refresh* from its timestamp on; of several in force the latest one is shown."""
        self._refreshes |= {refresh}

    def prune(self, now: float) -> None:
        """Forget what is over at *now* (Unix seconds)."""
        for _ in self.prune_some(now):
            pass

    def prune_some(self, now: float) -> Iterator[None]:
        """Do the same in steps of a millisecond."""
        self._tokens.prune(now)
        keys = list(self._groups)
        for start in range(0, len(keys), _PORTION):
            yield
            for key in keys[start : start + _PORTION]:
                held = self._groups.get(key, ())
                if any(_is_over(each, now) for each in held):
                    self._regroup(key, tuple(each for each in held if not _is_over(each, now)))

    def _settles(self, row: PlanBRow) -> int:
        return max(row.revoked_at, settles_at(row.issued_before, skew=self._skew))

    def _is_held(self, place: int, row: PlanBRow, until: int) -> bool:
        """Tell whether the row at *place* is *row*, or may be replaced by it; then it is."""
        held = self._tokens.row(place)
        cut, at = held.issued_before <= row.issued_before, held.revoked_at <= row.revoked_at
        if held.names != row.names or not (cut and at and held.until <= until):
            return False
        if (held.issued_before, held.revoked_at, held.until) != (row.issued_before, row.revoked_at, until):
            # The later one says everything that the earlier one said, and for longer.
            self._tokens.remove(place)
            self._tokens.add(
                held._replace(issued_before=row.issued_before, revoked_at=row.revoked_at, until=until),
                moment=self._settles(row),
            )
        return True

    def _unpack(self, place: int) -> None:
        """Keep the row at *place* as one of a group."""
        held = self._tokens.row(place)
        self._tokens.remove(place)
        row = _row_of(held)
        key = _group(row)
        self._regroup(key, (*self._groups.get(key, ()), _Held(row, held.until)))

    def _regroup(self, key: str, rows: tuple[_Held, ...]) -> None:
        """Let *rows* be those of one hash."""
        before = self._groups.pop(key, ())
        if before:
            keys = self._moments[self._time(before)]
            del keys[key]
            if not keys:
                del self._moments[self._time(before)]
        if rows:
            rows = tuple(sorted(rows, key=_order))
            self._groups[key] = rows
            self._moments.setdefault(self._time(rows), {})[key] = None

    def _time(self, rows: Iterable[_Held]) -> int:
        """Return the bucket of the moment from which all of *rows* are shown as they are."""
        return max(self._settles(row) for row, _ in rows) // BUCKET_SECONDS

    # --- what is shown --------------------------------------------------------------------------------------

    def rows(self, *, after: float, now: float) -> list[PlanBRow]:
        """
        Return what is shown at *now* with `revoked_at` later than *after*, in the order to send it.

        Args:
            after: The `from` of the question, however old.
            now: Unix seconds.
        """
        return [shown.row() for portion in self._portions(after, now) for shown in portion]

    def body(self, *, after: float, now: float) -> bytes:
        """Return the whole answer as JSON (arguments as for `rows`)."""
        return b"".join(self.pieces(after=after, now=now))

    def pieces(self, *, after: float, now: float) -> Iterator[bytes]:
        """
        Yield the whole answer as JSON in pieces of some hundred rows (arguments as for `rows`).

        The answer is that of the moment of the first piece, whatever happens to the list before the last one.
        """
        portions = self._portions(after, now)
        yield b'{"meta":' + dump_json(self.meta(now)) + b',"revocations":['
        comma = b""
        for portion in portions:
            yield comma + b",".join(map(_json, portion)) if portion else b""
            comma = b"," if portion else comma
        yield b"]}"

    def meta(self, now: float) -> dict[str, int | None]:
        """Return the answer's `meta` at *now* (Unix seconds); null where there is no notification."""
        refresh = self.refresh(now)
        return {
            "MAX_TIME_DELTA": max_time_delta(self._retention),
            "REFRESH_FROM": None if refresh is None else refresh.since,
            "REFRESH_TIMESTAMP": None if refresh is None else refresh.timestamp,
        }

    def refresh(self, now: float) -> Refresh | None:
        """Return the notification that is shown at *now* (Unix seconds)."""
        shown = [each for each in self._refreshes if each.timestamp <= now and self._remembers(each, now)]
        return max(shown, key=_timestamp, default=None)

    def latest_refresh(self, now: float) -> Refresh | None:
        """Return the latest notification that is or will be shown; None when it has had its time at *now*."""
        return max((each for each in self._refreshes if self._remembers(each, now)), key=_timestamp, default=None)

    def _remembers(self, refresh: Refresh, now: float) -> bool:
        return refresh.in_force(now, retention=self._retention)

    def _portions(self, after: float, now: float) -> Iterator[list[_Shown]]:
        """Return what is shown, as of this moment, to be worked out a portion at a time."""
        refresh = self.refresh(now)
        reach = after
        if refresh is not None and refresh.timestamp > after:  # rows from its beginning on are shown again
            reach = min(after, refresh.since - 1)
        first = reach // BUCKET_SECONDS
        times = sorted(time for time in self._moments if time >= first)
        groups = [self._groups[key] for time in times for key in self._moments[time]]
        view = _View(now, self._skew, refresh)
        return _walk(self._tokens.portions(reach, size=_PORTION), groups, view, after)


class _Held(NamedTuple):
    """A row, and the Unix second until which it matters (None: for ever)."""

    row: PlanBRow
    until: int | None


class _Shown(NamedTuple):
    """
    One row as it is shown: its hash is bytes where it names a token, text where it is kept whole.

    The type follows from the rest: no hash is GLOBAL, no names TOKEN.
    """

    names: tuple[str, ...]
    hash: bytes | str | None
    issued_before: int
    revoked_at: int

    def row(self) -> PlanBRow:
        """Return it as a row."""
        kind = PlanBType.CLAIM if self.names else PlanBType.GLOBAL if self.hash is None else PlanBType.TOKEN
        digest = self.hash
        return PlanBRow(
            type=kind,
            hash=hash_text(digest) if isinstance(digest, bytes) else digest,
            names=self.names,
            issued_before=self.issued_before,
            revoked_at=self.revoked_at,
        )


class _View(NamedTuple):
    """What decides how a row is shown: the moment, the bound on clocks, and the notification shown."""

    now: float
    skew: float
    refresh: Refresh | None

    def times(self, row: PlanBRow | TokenRow) -> tuple[int, int]:
        """Return `issued_before` and `revoked_at` of *row* as they are shown."""
        cut_off, revoked_at = row.issued_before, row.revoked_at
        moment = settles_at(cut_off, skew=self.skew)
        if self.now >= moment:
            revoked_at = max(revoked_at, moment)
        else:
            cut_off = max(1, min(cut_off, math.floor(self.now - self.skew)))
        refresh = self.refresh
        if refresh is not None and refresh.since <= revoked_at < refresh.timestamp:
            revoked_at = refresh.timestamp  # a validator that drops it for the notification asks from there
        return cut_off, revoked_at


_PORTION: Final = 500  # rows written at a stretch: one or two milliseconds
_NAMES_OF_IDS: Final = ("jti",)
_ID_ROW: Final = (
    b'{"type":"CLAIM","revoked_at":%d,"data":{"names":["jti"],"value_hash":"%b","hash_algorithm":"SHA-256",'
    b'"separator":"|","issued_before":%d}}'
)
_TOKEN_ROW: Final = (
    b'{"type":"TOKEN","revoked_at":%d,"data":{"token_hash":"%b","hash_algorithm":"SHA-256","issued_before":%d}}'
)


def _walk(
    portions: Iterable[Portion], groups: Sequence[tuple[_Held, ...]], view: _View, after: float
) -> Iterator[list[_Shown]]:
    """Yield what is shown of *portions* and *groups* with `revoked_at` later than *after*, some hundred at a time."""
    for portion in portions:
        rows = [_Shown(row.names, row.hash, *view.times(row)) for row in portion.alive(view.now)]
        yield [shown for shown in rows if shown.revoked_at > after]
    for start in range(0, len(groups), _PORTION):
        rows = [shown for group in groups[start : start + _PORTION] for shown in _shown(group, view)]
        yield [shown for shown in rows if shown.revoked_at > after]


def _shown(group: Iterable[_Held], view: _View) -> Iterator[_Shown]:
    """Yield the rows of one hash as they are shown."""
    latest = 0
    for row, until in group:
        if until is None or until > view.now:
            cut_off, revoked_at = view.times(row)
            latest = max(latest, revoked_at)
            yield _Shown(row.names, row.hash, cut_off, latest)


def _json(shown: _Shown) -> bytes:
    """Return a row as JSON; those of single tokens are written out, for there may be a million of them."""
    digest = shown.hash
    if isinstance(digest, bytes) and shown.names in {(), _NAMES_OF_IDS}:
        text = _ID_ROW if shown.names else _TOKEN_ROW
        return text % (shown.revoked_at, base64.urlsafe_b64encode(digest), shown.issued_before)
    return dump_json(shown.row().to_dict())


def _cut(hashes: bytes) -> list[bytes]:
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]


def _row_of(held: TokenRow) -> PlanBRow:
    return _Shown(held.names, held.hash, held.issued_before, held.revoked_at).row()


def _is_over(held: _Held, now: float) -> bool:
    return held.until is not None and held.until <= now


def _timestamp(refresh: Refresh) -> int:
    return refresh.timestamp


def settles_at(issued_before: int, *, skew: float) -> int:
    """
    Return the Unix second from which no clock of the platform takes a cut-off for the future.

    Until then a validator would drop a row that shows it.
    """
    return math.ceil(issued_before + skew)


def _group(row: PlanBRow) -> str:
    """Return what a validator keeps one row for: a hash, whatever it is of, or all tokens."""
    return row.hash or ""


def _order(held: _Held) -> tuple[int, int, tuple[str, ...], int]:
    row = held.row
    return (row.issued_before, row.revoked_at, row.names, held.until or 0)
