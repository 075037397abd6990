"""
What happened in one run, as its driver saw it: everything that the checker may judge by.

All times are Unix seconds on *one* clock, the driver's; nothing in a history was measured by the system under
test except what validators say about their list (`epoch`, `as_of`). A history is a file of JSON lines, so that a
run can be judged again, by this checker or by a later one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


class Outcome(StrEnum):
    """What the client of a request that changes something knows about it."""

    OK = "ok"  # 2xx
    FAIL = "fail"  # refused: certainly not done
    UNKNOWN = "unknown"  # 503, no answer, a broken connection: done or not


class Result(StrEnum):
    """What a validator said of a token."""

    ACCEPT = "accept"
    REVOKED = "revoked"
    UNAVAILABLE = "unavailable"  # 503: cannot tell
    INVALID = "invalid"  # refused for another reason: its spelling, its times
    ERROR = "error"  # no answer, or one that no validator may give


@dataclass(frozen=True, slots=True, kw_only=True)
class Mint:
    """
    A token that exists.

    Attributes:
        at: When it was signed.
        token: The name that this history gives it.
        iss: Its issuer.
        jti: Its id; None for an issuer that gives none.
        kid: The key that signed it.
        iat: Unix seconds at which it says that it was issued.
        exp: Unix seconds from which it is dead.
        claims: The string claims that rules may name, `client_id` for `azp` too.
    """

    kind: ClassVar[str] = "mint"
    at: float
    token: str
    iss: str
    jti: str | None
    kid: str
    iat: int
    exp: int
    claims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """
    One request to revoke.

    Attributes:
        number: Names this request within the history.
        target: `("jti", iss, jti)`, `("token", name)`, `("key", iss, kid)`, `("all",)`, or `("claims", names,
            values)` with both as tuples in the order of the names.
        invoked: When it was sent.
        returned: When the answer, or the failure to get one, was there.
        outcome: What the client knows.
        cutoff: For rules, the least and the greatest that the exclusive cut-off can be: equal where it is known.
        block_until: Until when the rule hits whatever the `iat`.
        record: The id that the service gave it: requests that say the same share one.
        via: Who took it, for the reader of the history.
    """

    kind: ClassVar[str] = "revoke"
    number: int
    target: tuple[Any, ...]
    invoked: float
    returned: float
    outcome: Outcome
    cutoff: tuple[int, int] | None = None
    block_until: int | None = None
    record: str | None = None
    via: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """A request to take the revocation *number* back, and with it all that share its record."""

    kind: ClassVar[str] = "undo"
    number: int
    invoked: float
    returned: float
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Validate:
    """
    One judgement.

    Attributes:
        process: Which validator; it keeps its name across restarts.
        memory: What it may remember: grows a suffix with each restart that loses the list (`v1#2`).
        run: Which of its lives this is.
        token: Name of the token.
        spelling: `same`, or how the text differed from the one that was minted.
        invoked: When it was asked.
        returned: When it had answered.
        result: What it said.
        epoch: Of the list that it judged by, where it said so.
        as_of: Up to when that list was complete, by its own word.
        seq: Number of the signed list, where that was the source.
    """

    kind: ClassVar[str] = "validate"
    process: str
    memory: str
    run: int
    token: str
    invoked: float
    returned: float
    result: Result
    spelling: str = "same"
    epoch: int | None = None
    as_of: float | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    Something that was broken on purpose.

    Attributes:
        name: What it was.
        start: When it began.
        end: When it was over.
        processes: Which validators it can touch; none named: all.
        clock: Whether it took a clock beyond its bound.
    """

    kind: ClassVar[str] = "fault"
    name: str
    start: float
    end: float
    processes: tuple[str, ...] = ()
    clock: bool = False


Event: TypeAlias = Mint | Revoke | Undo | Validate | Fault
_KINDS: dict[str, type[Any]] = {each.kind: each for each in (Mint, Revoke, Undo, Validate, Fault)}


@dataclass(slots=True)
class History:
    """
    All events of one run.

    Attributes:
        seed: What the run's random choices came from.
        events: In no particular order; the checker sorts.
    """

    seed: int | str = 0
    events: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Note *event*."""
        self.events.append(event)

    def of(self, kind: type[Any]) -> Iterator[Any]:
        """Return the events of one kind."""
        return (event for event in self.events if type(event) is kind)

    def write(self, path: Path) -> None:
        """Write it as JSON lines."""
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"seed": self.seed}) + "\n")
            file.writelines(line(event) + "\n" for event in self.events)

    @classmethod
    def read(cls, path: Path) -> History:
        """Read what `write` wrote."""
        with path.open(encoding="utf-8") as file:
            head = json.loads(file.readline())
            return cls(seed=head["seed"], events=list(parse(file)))


def line(event: Event) -> str:
    """Return *event* as one line of JSON."""
    return json.dumps({"event": event.kind, **asdict(event)}, separators=(",", ":"))


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Read what `line` returned."""
    for text in lines:
        members = json.loads(text)
        kind = _KINDS[members.pop("event")]
        names = {each.name for each in fields(kind)}
        yield kind(**{name: _typed(name, value) for name, value in members.items() if name in names})


def _typed(name: str, value: Any) -> Any:
    match name:
        case "outcome":
            return Outcome(value)
        case "result":
            return Result(value)
        case _:
            return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
