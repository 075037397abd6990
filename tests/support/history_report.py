"""What a history on real parts shows, as data and as a table: each kind of fault, and what happened while it lasted."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from tests.proof.checker import check
from tests.proof.history import Fault, Outcome, Result, Revoke, Undo, Validate
from tests.support.history_driver import RECOVERY_SECONDS, Driver
from tests.support.history_platform import POLLING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.proof.checker import Bounds, Report
    from tests.proof.history import History
    from tests.support.history_driver import Spread

UNTOUCHED: Final = "nothing yet"
CALM: Final = "nothing, later"


@dataclass(slots=True)
class Row:
    """
    What happened while faults of one kind lasted; what happened while two did counts for both.

    Attributes:
        fault: The kind; `nothing yet` for the time before the first one, in which held requests are owed a second, and
            `nothing, later` for the time in which nothing was broken, nor had been a minute before.
        times: How often it was injected.
        seconds: How long altogether.
        operations: Posts and validations.
        acknowledged: Posts answered 200 or 201.
        refused: Posts refused for certain.
        unavailable: Posts of unknown outcome.
        cannot_tell: Validations that said neither yes nor no.
        violations: Validations that broke a promise.
        held: Seconds from acknowledgement to the first refusal: p50, p99, max; of validators that hold requests.
        polling: The same of the one that polls.
        unseen: Revocations that the validator asked did not enforce while it was asked (45 s at most).
    """

    fault: str
    times: int = 0
    seconds: float = 0.0
    operations: int = 0
    acknowledged: int = 0
    refused: int = 0
    unavailable: int = 0
    cannot_tell: int = 0
    violations: int = 0
    held: tuple[float, float, float] | None = None
    polling: tuple[float, float, float] | None = None
    unseen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    One run.

    Attributes:
        seed: Of its random choices.
        seconds: How long it lasted.
        rows: The first is the time before all faults, the second that between them.
        total: All of it.
        violations: By property.
        armed: How often each property could have been broken.
        lag: p50, p99, max of the seconds by which the driver itself was woken late before the first fault.
        unchased: Revocations of which nobody was asked when they took effect, because too many were being watched.
        power: Share of revocations that a defect has to hit to be seen with 95 % (3 / acknowledged).
    """

    seed: int | str
    seconds: float
    rows: Sequence[Row]
    total: Row
    violations: dict[str, int]
    armed: dict[str, int]
    lag: tuple[float, float, float] | None
    unchased: int
    power: float
    texts: str = field(default="")

    def markdown(self) -> str:
        """Return the table."""
        columns = ["Broken", "times", "seconds", "operations", "acknowledged", "refused", "unavailable"]
        columns += ["cannot tell", "violations", "held p50 / p99 / max (s)", "polling p50 / p99 / max (s)"]
        head = (f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1))
        return "\n".join([*head, *map(_line, (*self.rows, self.total))])


def summarize(driver: Driver, bounds: Bounds) -> tuple[Summary, Report]:
    """Judge the history of *driver* and count."""
    history = driver.history
    report = check(history, bounds)
    times = [event.at if hasattr(event, "at") else getattr(event, "end", 0.0) for event in history.events]
    times += [event.returned for event in history.events if isinstance(event, Validate)]
    start = min(event.at for event in history.events if hasattr(event, "at"))
    seconds = max(times) - start
    faults = [fault for fault in history.of(Fault) if fault.name != "start"]
    by_kind: dict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        by_kind[fault.name.partition(":")[0]].append(fault)
    broken = Counter(id(violation.events[-1]) for violation in report.violations)
    first = min((fault.start for fault in faults), default=start + seconds)
    rows = [
        _row(UNTOUCHED, history, driver.spread, broken, _Until(first)),
        _row(CALM, history, driver.spread, broken, _Calm(faults, first)),
    ]
    rows += [_row(kind, history, driver.spread, broken, _During(some)) for kind, some in sorted(by_kind.items())]
    total = _row("all", history, driver.spread, broken, _Always())
    total.times, total.seconds = len(faults), seconds
    violations = Counter(violation.property for violation in report.violations)
    summary = Summary(
        seed=history.seed,
        seconds=seconds,
        rows=rows,
        total=total,
        violations=dict(violations),
        armed=dict(report.armed),
        lag=_quantiles(lag for at, lag in driver.lags if at < first),
        unchased=driver.unchased,
        power=3 / max(1, total.acknowledged),
        texts=report.text(most=3),
    )
    rows[0].seconds = first - start
    rows[1].seconds = seconds - _covered(faults, start, start + seconds) - rows[0].seconds
    return summary, report


def write(summary: Summary, history: History, folder: Path, name: str) -> None:
    """Write history, data and table below *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    history.write(folder / f"{name}.history.jsonl")
    (folder / f"{name}.json").write_text(json.dumps(asdict(summary), indent=2))
    (folder / f"{name}.md").write_text(summary.markdown() + "\n")


class _Span(Protocol):
    times: int
    seconds: float

    def covers(self, start: float, end: float) -> bool:
        """Tell whether what happened from *start* to *end* counts."""
        ...


class _Always:
    times, seconds = 0, 0.0

    def covers(self, start: float, end: float) -> bool:
        return True


class _During:
    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults
        self.times, self.seconds = len(faults), sum(fault.end - fault.start for fault in faults)

    def covers(self, start: float, end: float) -> bool:
        return any(fault.start <= end and start <= fault.end for fault in self._faults)


class _Until:
    times, seconds = 0, 0.0

    def __init__(self, first: float) -> None:
        self._first = first

    def covers(self, start: float, end: float) -> bool:
        return end < self._first


class _Calm:
    times, seconds = 0, 0.0

    def __init__(self, faults: Sequence[Fault], first: float) -> None:
        self._faults = faults
        self._first = first

    def covers(self, start: float, end: float) -> bool:
        return start > self._first and not any(
            fault.start <= end and start <= fault.end + RECOVERY_SECONDS for fault in self._faults
        )


def _row(name: str, history: History, spread: Iterable[Spread], broken: Counter[int], span: _Span) -> Row:
    row = Row(fault=name, times=span.times, seconds=span.seconds)
    for event in history.events:
        if not isinstance(event, Revoke | Undo | Validate) or not span.covers(event.invoked, event.returned):
            continue
        row.operations += 1
        if isinstance(event, Validate):
            row.cannot_tell += event.result in {Result.UNAVAILABLE, Result.ERROR}
            row.violations += broken[id(event)]
        else:
            row.acknowledged += event.outcome is Outcome.OK
            row.refused += event.outcome is Outcome.FAIL
            row.unavailable += event.outcome is Outcome.UNKNOWN
    within = [each for each in spread if span.covers(each.acknowledged, each.until)]
    row.unseen = sum(each.seconds is None for each in within)
    row.held = _quantiles(each.seconds for each in within if each.process != POLLING)
    row.polling = _quantiles(each.seconds for each in within if each.process == POLLING)
    return row


def _quantiles(values: Iterable[float | None]) -> tuple[float, float, float] | None:
    """Return p50, p99 and the greatest; what was never seen is left out, and counted beside."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return known[math.ceil(0.5 * len(known)) - 1], known[math.ceil(0.99 * len(known)) - 1], known[-1]


def _covered(faults: Sequence[Fault], start: float, end: float) -> float:
    """Return how many seconds lie in a fault or in the minute after one."""
    total, reached = 0.0, start
    for fault in sorted(faults, key=lambda each: each.start):
        begin, stop = max(reached, fault.start), min(end, fault.end + RECOVERY_SECONDS)
        if stop > begin:
            total, reached = total + stop - begin, stop
    return total


def _line(row: Row) -> str:
    def three(values: tuple[float, float, float] | None) -> str:
        return "-" if values is None else " / ".join(f"{value:.2f}" for value in values)

    numbers: list[Any] = [row.times or "-", f"{row.seconds:.0f}", row.operations, row.acknowledged, row.refused]
    numbers += [row.unavailable, row.cannot_tell, row.violations, three(row.held), three(row.polling)]
    return f"| {row.fault} | " + " | ".join(map(str, numbers)) + " |"
