"""docs/operations/faults.md as data: each fault with its metric, its alert, its bound and the tests that show it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/operations/faults.md"
_TEST: Final = re.compile(r"`(tests/[\w/.]+\.py)::(\w+)`")
_CODE: Final = re.compile(r"`([\w{}=\"]+)`")
_LINK: Final = re.compile(r"\[(\w+)\]\(\.\./runbooks/(\w+)\.md\)")
_SECONDS: Final = re.compile(r"(\d+) s")
_COLUMNS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    One row.

    Attributes:
        number: As in `F12`.
        what: The fault.
        metrics: Names of the metrics that show it.
        alert: Name of the alert that tells it; None where the row says why there is none.
        back_seconds: Within which everything is as before once the fault is over; None where nothing was ever away.
        tests: Path and name of each test.
        cells: The row as it is written.
    """

    number: str
    what: str
    metrics: tuple[str, ...]
    alert: str | None
    back_seconds: float | None
    tests: tuple[tuple[str, str], ...]
    cells: tuple[str, ...]

    @property
    def applies(self) -> bool:
        """Tell whether the fault can happen here at all."""
        return not self.cells[1].startswith("does not apply")


@cache
def faults() -> dict[str, Fault]:
    """Return the rows by number."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split(" | "))
        if not re.match(r"\| F\d+ ", line) or len(cells) != _COLUMNS:
            continue
        fault = _read(cells)
        found[fault.number] = fault
    return found


def _read(cells: tuple[str, ...]) -> Fault:
    name, _, _, metric, alert, within, shown = cells
    number, _, what = name.partition(" ")
    link, seconds = _LINK.search(alert), _SECONDS.search(within)
    return Fault(
        number=number,
        what=what,
        metrics=tuple(_CODE.findall(metric)),
        alert=None if link is None else link[1],
        back_seconds=None if seconds is None else float(seconds[1]),
        tests=tuple(_TEST.findall(shown)),
        cells=cells,
    )
