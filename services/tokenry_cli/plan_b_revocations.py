"""
What of Plan B's list can be said here: its rows hold hashes, so a row is understood only by guessing what was hashed.

    * A rule on claims (CLAIM) is understood if its values are among the clients, users and realms that are known: their
      hashes, under Plan B's salt, are compared with the row's.
    * A GLOBAL row is a rule on the issuer of Plan B's tokens.
    * A TOKEN row is the hash of a whole token, which nobody can guess: it stays with Plan B.
    * A row whose tokens have all expired needs nobody.

Pure: time is an argument.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import parse_json_object
from tokenry.revocation.fingerprints import plan_b_hash
from tokenry.revocation.planb import SEPARATOR, PlanBRow, PlanBType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_LIST_BYTES: Final = 64 * 1024 * 1024
MAX_GUESSES: Final = 2_000_000  # for one set of names: some seconds


@dataclass(frozen=True, slots=True)
class Known:
    """
    What may have been hashed.

    Attributes:
        clients: Ids of clients.
        users: Names of users.
        realms: With a leading slash.
        salt: Plan B's hashing salt.
    """

    clients: frozenset[str]
    users: frozenset[str]
    realms: frozenset[str]
    salt: str = field(repr=False)

    @classmethod
    def of_lines(cls, lines: Iterable[bytes], *, salt: str) -> Known:
        """
        Return what the lines for `tokenry client import --from-plan-b` name.

        Raises:
            ProtocolError: A line is none.
        """
        found: dict[str, set[str]] = {"client_id": set(), "username": set(), "realm": set()}
        for number, line in enumerate(lines, 1):
            members = parse_json_object(line) if line.strip() else {}
            for name, values in found.items():
                value = members.get(name)
                if value is not None and not isinstance(value, str):
                    raise ProtocolError(f"line {number}: {name} is a text")
                if value:
                    values.add(value)
        realms = frozenset("/" + realm.removeprefix("/") for realm in found["realm"])
        return cls(frozenset(found["client_id"]), frozenset(found["username"]), realms, salt)

    def values_of(self, name: str) -> frozenset[str]:
        """Return the values that a claim *name* of Plan B's tokens can have; none for a claim that is not known."""
        if name in {"azp", "client_id"}:
            return self.clients
        if name == "sub":
            return self.users | self.clients
        return self.realms if name == "realm" else frozenset()


@dataclass(slots=True)
class Translated:
    """
    What became of the rows.

    Attributes:
        requests: What to post (`tokenry revoke bulk`).
        over: How many rows hit no token any more.
        tokens: How many rows are of single tokens.
        unknown: Names of the claims of each rule whose values were not found.
    """

    requests: list[dict[str, Any]] = field(default_factory=list)
    over: int = 0
    tokens: int = 0
    unknown: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether everything that matters can be said here."""
        return not self.tokens and not self.unknown


def read_rows(body: bytes) -> tuple[PlanBRow, ...]:
    """
    Return the rows of an answer to Plan B's `GET /revocations`.

    Raises:
        ProtocolError: It is none.
    """
    if len(body) > MAX_LIST_BYTES:
        raise ProtocolError(f"a list of Plan B has at most {MAX_LIST_BYTES} bytes")
    try:
        members = json.loads(body)
        rows = members["revocations"]
        return tuple(_row(number, row) for number, row in enumerate(rows, 1))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ProtocolError(
            'not a list of Plan B: an object with "revocations", as GET /revocations?from= has it'
        ) from None


def _row(number: int, members: Mapping[str, Any]) -> PlanBRow:
    """Read a row as Plan B writes it: with further members, and a separator that may be missing."""
    data = members["data"]
    if data.get("hash_algorithm", "SHA-256") != "SHA-256" or (data.get("separator") or SEPARATOR) != SEPARATOR:
        raise ProtocolError(f"row {number}: hashed in a way that is not known here")
    hashed = [data.get("token_hash", ""), data.get("value_hash", ""), *data.get("names", ())]
    if not all(isinstance(text, str) for text in hashed):
        raise ProtocolError(f"row {number}: not a row of Plan B")
    try:
        kind = PlanBType(members["type"])
        return PlanBRow(
            type=kind,
            issued_before=data["issued_before"],
            revoked_at=members["revoked_at"],
            hash={PlanBType.TOKEN: data.get("token_hash"), PlanBType.CLAIM: data.get("value_hash")}.get(kind),
            names=tuple(data["names"]) if kind is PlanBType.CLAIM else (),
        )
    except (ValueError, ProtocolError):
        raise ProtocolError(f"row {number}: not a row of Plan B") from None


def translate(
    rows: Sequence[PlanBRow],
    known: Known,
    *,
    issuer: str,
    longest_life: int,
    now: float,
    max_guesses: int = MAX_GUESSES,
) -> Translated:
    """
    Return what *rows* say in our words.

    Args:
        rows: Plan B's.
        known: What may have been hashed.
        issuer: The `iss` of Plan B's tokens.
        longest_life: Seconds that such a token lives at most.
        now: Unix seconds.
        max_guesses: Hashes that are made for one set of names; a rule that needs more is not understood.
    """
    done, guessed = Translated(), _Guesses(known, max_guesses)
    said: dict[tuple[tuple[str, str], ...], int] = {}
    for row in rows:
        # Plan B hits what was issued before it, also where that lies in its future; nothing later than now is there.
        cut_off = min(row.issued_before, math.floor(now))
        if cut_off + longest_life <= now:
            done.over += 1
        elif row.type is PlanBType.TOKEN:
            done.tokens += 1
        else:
            claims = {"iss": issuer} if row.type is PlanBType.GLOBAL else guessed.of(row)
            if claims is None:
                done.unknown.append(row.names)
                continue
            pairs = tuple(sorted(claims.items()))
            said[pairs] = max(cut_off, said.get(pairs, 0))
    done.requests = [
        {"type": "CLAIM", "data": {"claims": dict(pairs), "issued_before": cut_off, "reason": "taken over from Plan B"}}
        for pairs, cut_off in said.items()
    ]
    return done


class _Guesses:
    """The hashes of everything that the values of some claims can be, made once for each set of names."""

    def __init__(self, known: Known, limit: int) -> None:
        self._known = known
        self._limit = limit
        self._of: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}

    def of(self, row: PlanBRow) -> dict[str, str] | None:
        """Return the claims that *row* hits; None if its hash is of nothing that is known."""
        if row.names not in self._of:
            self._of[row.names] = self._hashes(row.names)
        values = self._of[row.names].get(row.hash or "")
        return None if values is None else dict(zip(row.names, values, strict=True))

    def _hashes(self, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        choices = [sorted(self._known.values_of(name)) for name in names]
        if math.prod(map(len, choices)) > self._limit:
            return {}
        salt = self._known.salt
        return {plan_b_hash(SEPARATOR.join(values), salt=salt): values for values in product(*choices)}
