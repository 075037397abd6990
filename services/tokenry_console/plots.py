"""
Plots as data: a table that everybody can read, which a script draws where there is one. Pure.

The table is the plot: what is drawn is read from it, so the two cannot differ.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenry_console.wording import cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenry_console.pictures import Picture

Cell = float | int | str | None

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """
    One plot with its table.

    Attributes:
        id: Its name within the page.
        title: What it shows.
        kind: How a script draws it: lines, stacked, curves or bars; empty for one that has a picture.
        columns: Names of the columns; the first is the x axis.
        rows: The table.
        promql: The same asked of a Prometheus; empty when there is none.
        note: What one has to know to read it.
        unit: Of the y axis.
        time: Whether x is Unix seconds.
        marks: Vertical lines: seconds and name.
        span: Seconds that the x axis shows, up to the last moment; 0 for what there is.
        picture: A picture drawn here, which needs no script.
        empty: What to say when there are no rows.
        plain: What the sender of the page says in one sentence, for those who look at neither.
    """

    id: str
    title: str
    kind: str = ""
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    promql: str = ""
    note: str = ""
    unit: str = ""
    time: bool = True
    marks: Sequence[tuple[float, str]] = ()
    span: float = 0.0
    picture: Picture | None = None
    empty: str = "Nothing was read yet."
    plain: str = ""


def as_csv(plot: Plot) -> str:
    """Return the table of *plot*; a text that a spreadsheet would take for a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(map(_safe, plot.columns))
    writer.writerows([_safe(value) for value in row] for row in plot.rows)
    return out.getvalue()


def _safe(value: Cell) -> str:
    said = cell(value)
    return f"'{said}" if isinstance(value, str) and said.startswith(_FORMULA) else said
