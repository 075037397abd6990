"""The plots that are made of the scraped hour: P5, P6, P7, P9 and what was denied. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypedDict

from tokenry_console.exposition import POLLS, bucket_bound
from tokenry_console.pictures import heat_map
from tokenry_console.plots import Cell, Plot
from tokenry_console.wording import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tokenry_console.history import History

MAX_LINES: Final = 8  # what a plot can show; the smallest are added up
LATENCY_LINE: Final = 0.0005  # seconds: what a validation may take
HEAT_COLUMNS: Final = 60
_OTHERS: Final = "others"
_DURATIONS: Final = "tokenry_validation_duration_seconds_bucket"


def issuing(history: History) -> Plot:
    """Return tokens issued and refused, a second (P5)."""
    issued, refused = history.rates("tokenry_tokens_issued_total"), history.rates("tokenry_token_request_errors_total")
    lines = {name or "issued": values for name, values in issued.lines.items()}
    lines |= {f"refused: {name}": values for name, values in refused.lines.items() if any(values)}
    return Plot(
        id="issuing",
        title="Tokens issued and refused, a second",
        kind="lines",
        **_table(issued.times, lines),
        unit="/s",
        promql="sum by (grant_type) (rate(tokenry_tokens_issued_total[5m]))  or  "
        "sum by (error) (rate(tokenry_token_request_errors_total[5m]))",
    )


def validating(history: History) -> Plot:
    """Return validations by their outcome, a second (P6)."""
    found = history.rates("tokenry_validations_total")
    lines = dict(sorted(found.lines.items(), key=lambda item: item[0] != "ok"))
    return Plot(
        id="validating",
        title="Validations by outcome, a second",
        kind="stacked",
        **_table(found.times, lines),
        unit="/s",
        note="Of the places whose metrics are read here; services with the library in their own process count by "
        "themselves.",
        promql="sum by (result) (rate(tokenry_validations_total[5m]))",
    )


def denied(history: History, *, span: float = 0.0) -> Plot:
    """Return tokens refused as revoked, a minute, over *span* seconds (the lower half of P3)."""
    found = history.rates("tokenry_validations_total")
    line = found.lines.get("revoked", [None] * len(found.times))
    lines = {"revoked": [None if value is None else 60 * value for value in line]}
    return Plot(
        id="denied",
        span=span,
        title="Tokens refused as revoked, a minute: are they still trying?",
        kind="lines",
        **_table(found.times, lines),
        unit="/min",
        promql='60 * sum(rate(tokenry_validations_total{result="revoked"}[1m]))',
    )


def latency(history: History) -> Plot:
    """Return the durations of validations as a heat map, with the line at half a millisecond (P7)."""
    found = history.rates(_DURATIONS)
    bounds = sorted(found.lines, key=bucket_bound)
    rows: list[tuple[str, list[float | None]]] = []
    below: Sequence[float | None] = [0.0] * len(found.times)
    for bound in bounds:
        values = found.lines[bound]
        rows.append((_bound(bound), [_less(value, under) for value, under in zip(values, below, strict=True)]))
        below = values
    times, rows = _fewer(found.times, rows)
    line = next((_bound(bound) for bound in bounds if bucket_bound(bound) >= LATENCY_LINE), None)
    table: list[list[Cell]] = [[at, *(values[index] for _, values in rows)] for index, at in enumerate(times)]
    return Plot(
        id="latency",
        title=f"Duration of validations, with the line at {duration(LATENCY_LINE)}",
        columns=["time", *(f"≤ {name}" for name, _ in rows)],
        rows=table,
        picture=heat_map(times, rows, line_after=line) if times and rows else None,
        note="Each column is a step of time; the darker a cell, the larger its share of that step. The table has "
        "observations a second in each bucket.",
        promql=f"sum by (le) (rate({_DURATIONS}[1m]))",
    )


def list_size(history: History) -> Plot:
    """Return the size of the whole list (P9)."""
    found = history.levels("tokenry_revocation_list_bytes")
    return Plot(
        id="list-size",
        title="Size of the revocation list, bytes",
        kind="lines",
        **_table(found.times, {f"snapshot as {name}": values for name, values in found.lines.items()}),
        unit="B",
        promql="max by (form) (tokenry_revocation_list_bytes)",
        note="Before compression, as last rendered; a form that nobody asked for is not rendered.",
    )


def polling(history: History) -> Plot:
    """Return the polls a second, and what they would cost if each took the whole list (P9)."""
    polls, sizes = history.rates(POLLS), history.levels("tokenry_revocation_list_bytes")
    names = {"/revocations": "Plan B", "/revocations/changes": "changes", "/revocations/snapshot": "snapshots"}
    lines = {names.get(route, route): values for route, values in polls.lines.items()}
    size = max((value for values in sizes.lines.values() for value in values[-1:] if value is not None), default=None)
    total = [_sum(values[index] for values in polls.lines.values()) for index in range(len(polls.times))]
    note = "Polls for changes get what is new since the last one."
    if size is not None and total and total[-1] is not None:
        note += f" If every poll of the last step had taken the whole list: {size * total[-1] / 1000:.1f} kB/s."
    return Plot(
        id="polling",
        title="Polls for the list, a second",
        kind="stacked",
        **_table(polls.times, lines),
        unit="/s",
        promql="sum by (http_route) "
        '(rate(http_server_request_duration_seconds_count{http_route=~"/revocations.*"}[5m]))',
        note=note + " Bytes sent are not measured.",
    )


class _Table(TypedDict):
    columns: list[str]
    rows: list[list[Cell]]


def _table(times: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> _Table:
    """Return columns and rows of *lines*, without those that are always zero; the smallest of too many are added up."""
    moved = {name: values for name, values in lines.items() if any(values)}
    lines = moved or dict(list(lines.items())[:1])
    if len(lines) > MAX_LINES:
        ranked = sorted(lines, key=lambda name: -sum(value or 0.0 for value in lines[name]))
        kept, rest = set(ranked[: MAX_LINES - 1]), ranked[MAX_LINES - 1 :]
        others = [_sum(lines[name][index] for name in rest) for index in range(len(times))]
        lines = {**{name: values for name, values in lines.items() if name in kept}, _OTHERS: others}
    rows: list[list[Cell]] = [
        [at, *(values[index] if index < len(values) else None for values in lines.values())]
        for index, at in enumerate(times)
    ]
    return {"columns": ["time", *lines], "rows": rows if lines else []}


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _less(value: float | None, under: float | None) -> float | None:
    return None if value is None else max(0.0, value - (under or 0.0))


def _bound(text: str) -> str:
    bound = bucket_bound(text)
    return "more" if math.isinf(bound) else duration(bound)


def _fewer(
    times: Sequence[float], rows: Sequence[tuple[str, list[float | None]]]
) -> tuple[list[float], list[tuple[str, list[float | None]]]]:
    """Return at most `HEAT_COLUMNS` steps: neighbours are added up."""
    group = max(1, math.ceil(len(times) / HEAT_COLUMNS))
    starts = range(0, len(times), group)
    joined = [(name, [_sum(values[start : start + group]) for start in starts]) for name, values in rows]
    return [times[min(len(times), start + group) - 1] for start in starts], joined
