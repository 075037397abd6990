"""A run of mixed load as data, as a page and as a picture."""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

WIDTH, PANEL, LEFT, RIGHT, GAP, TOP = 1200, 150, 70, 190, 46, 90
COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
_LABEL: Final = 'font-family="sans-serif" font-size="11"'


@dataclass(frozen=True, slots=True)
class Broken:
    """A fault that was: its name, when it began, when it was mended, when all was as before (seconds of the run)."""

    name: str
    began: float
    mended: float
    whole: float


@dataclass(slots=True)
class Panel:
    """One diagram: lines over the seconds of the run."""

    title: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    at_least: float = 1.0  # what the axis reaches to in any case

    def add(self, name: str, second: float, value: float) -> None:
        """Add a point to the line called *name*; what is not known, or has no bound yet, leaves a gap."""
        if not math.isfinite(value):
            return
        self.lines.setdefault(name, []).append((second, value))


def svg(title: str, panels: Sequence[Panel], broken: Iterable[Broken], *, seconds: float) -> str:
    """Return *panels* under one another, with the time of each fault shaded."""
    faults, height = list(broken), TOP + len(panels) * (PANEL + GAP)
    inner = WIDTH - LEFT - RIGHT

    def x(second: float) -> float:
        return LEFT + inner * second / max(seconds, 1.0)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-family="sans-serif" font-size="16">{html.escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        top = TOP + number * (PANEL + GAP)
        for fault in faults:
            for begin, end, colour in ((fault.began, fault.mended, "#f4b6b6"), (fault.mended, fault.whole, "#fbe6c8")):
                parts.append(
                    f'<rect x="{x(begin):.1f}" y="{top}" width="{max(0.5, x(end) - x(begin)):.1f}" '
                    f'height="{PANEL}" fill="{colour}"/>'
                )
        if number == 0 and len(faults) <= 40:
            parts += [
                f'<text x="{x(fault.began):.1f}" y="{top - 3 - 9 * (n % 3)}" font-family="sans-serif" '
                f'font-size="8">{html.escape(fault.name)}</text>'
                for n, fault in enumerate(faults)
            ]
        parts += _panel(panel, top, x, seconds, number)
    return "\n".join([*parts, "</svg>"])


def _panel(panel: Panel, top: float, x: Any, seconds: float, number: int) -> list[str]:
    highest = max([panel.at_least, *(value for points in panel.lines.values() for _, value in points)]) * 1.05
    bottom = top + PANEL

    def y(value: float) -> float:
        return bottom - PANEL * min(value, highest) / highest

    shift = 24 if number == 0 else 0
    parts = [
        f'<text x="{LEFT}" y="{top - 6 - shift}" {_LABEL} font-weight="bold">{html.escape(panel.title)}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{x(seconds) - LEFT:.1f}" height="{PANEL}" fill="none" stroke="#999"/>',
    ]
    for step in range(5):
        value = highest * step / 4
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" {_LABEL} text-anchor="end">{value:.4g}</text>')
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{x(seconds):.1f}" stroke="#ddd" fill="none"/>')
    parts += [
        f'<text x="{x(seconds * step / 6):.1f}" y="{bottom + 13}" {_LABEL} text-anchor="middle">'
        f"{seconds * step / 6:.0f} s</text>"
        for step in range(7)
    ]
    for place, (name, points) in enumerate(panel.lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        path, last = [], None
        steps = [later[0] - earlier[0] for earlier, later in pairwise(points)]
        gap = max(10.0, 1.5 * median(steps))  # a process that is away, not the width of a bin
        for second, value in points:
            path.append(f"{'M' if last is None or second - last > gap else 'L'}{x(second):.1f} {y(value):.1f}")
            last = second
        parts.append(f'<path d="{"".join(path)}" stroke="{colour}" fill="none" stroke-width="1.2"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{top + 12 + 14 * place}" {_LABEL} fill="{colour}">'
            f"{html.escape(name)}</text>"
        )
    return parts


def write(folder: Path, name: str, summary: dict[str, Any], page: str, picture: str) -> None:
    """Write the run called *name* into *folder*: JSON, Markdown and SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / f"{name}.md").write_text(page)
    (folder / f"{name}.svg").write_text(picture)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a *share* of *values* lies; 0.0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def median(values: Sequence[float]) -> float:
    """Return the middle one of *values*."""
    return percentile(values, 0.5)
