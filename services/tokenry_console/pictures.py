"""Pictures that need no script: shapes with places, drawn as SVG by a template. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenry_console.wording import clock, duration, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tokenry_console.propagation import Reach
    from tokenry_console.views import Revocation, SigningKey

WIDTH: Final = 760.0
LEFT: Final = 150.0  # where the names of lanes and keys end
COLOURS: Final = 6  # classes c1 to c6 of the style sheet
_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """
    One shape.

    Attributes:
        kind: rect, line, circle or text.
        x: Left edge, or centre.
        y: Top edge, centre, or base line.
        w: Width; the second x of a line; the radius of a circle.
        h: Height; the second y of a line.
        look: Classes of the style sheet.
        said: A text's words; what else is said of a shape when one points at it.
    """

    kind: str
    x: float
    y: float
    w: float = 0.0
    h: float = 0.0
    look: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """
    Shapes on a ground.

    Attributes:
        height: In its own units; the width is `WIDTH`.
        shapes: From the ground up.
        legend: Looks and their names.
        said: The picture in one sentence.
    """

    height: float
    shapes: Sequence[Shape]
    legend: Sequence[tuple[str, str]] = ()
    said: str = ""
    width: float = WIDTH


def key_timeline(keys: Iterable[SigningKey], *, now: float) -> Picture:
    """Return one bar a key in four shades (published, signing, retired, removable), and now (P2)."""
    rows = [each for each in keys if each.publish_at is not None]
    ends = [
        moment
        for each in rows
        for moment in (each.publish_at, each.activate_at, each.retire_at, each.removable_at)
        if moment is not None
    ]
    if not rows:
        return Picture(height=0, shapes=(), said="No key with times is known.")
    begin, end = min([*ends, now - _DAY]), max([*ends, now + _DAY])
    # A rotation takes minutes, a key's life months: what is near to now gets half of the room.
    scale = _Around(begin, end, now)
    shapes: list[Shape] = []
    row_height = 30.0
    for index, each in enumerate(rows):
        top = 8 + index * row_height
        shapes.append(Shape(kind="text", x=LEFT - 8, y=top + 14, look="name", said=_short(each.kid)))
        for first, last, look, what in (
            (each.publish_at, each.activate_at, "k-published", "published, does not sign yet"),
            (each.activate_at, each.retire_at, "k-signing", "signs"),
            (each.retire_at, each.removable_at, "k-retired", "does not sign any more; its tokens live"),
            (each.removable_at, end, "k-removed", "no token of it lives: may be removed"),
        ):
            if first is None:
                continue
            until = end if last is None else last
            x, right = scale(first), scale(until)
            if right - x > 0.2:  # noqa: PLR2004 -- thinner than that is not seen
                said = f"{each.kid}: {what} from {when(first)}" + ("" if last is None else f" to {when(last)}")
                shapes.append(Shape(kind="rect", x=x, y=top, w=right - x, h=20, look=look, said=said))
        if each.removable_at is not None:
            x = scale(each.removable_at)
            said = f"{each.kid}: its last token has expired at {when(each.removable_at)}"
            shapes.append(Shape(kind="line", x=x, y=top - 3, w=x, h=top + 23, look="edge", said=said))
    bottom = 8 + len(rows) * row_height
    x = scale(now)
    shapes.append(Shape(kind="line", x=x, y=0, w=x, h=bottom + 4, look="now", said=f"now: {when(now)}"))
    shapes.append(Shape(kind="text", x=x, y=bottom + 18, look="tick middle", said="now"))
    for moment, look in ((begin, "tick"), (end, "tick end")):
        shapes.append(Shape(kind="text", x=scale(moment), y=bottom + 18, look=look, said=when(moment)[:10]))
    legend = (
        ("k-published", "published"),
        ("k-signing", "signing"),
        ("k-retired", "retired"),
        ("k-removed", "removable"),
    )
    signing = [
        each.kid
        for each in rows
        if each.activate_at is not None and each.activate_at <= now < (each.retire_at or math.inf)
    ]
    said = f"{len(rows)} keys; signing now: {', '.join(signing) or 'none'}."
    return Picture(height=bottom + 26, shapes=shapes, legend=legend, said=said)


class _Around:
    """Places of moments: linear near to now, and by the logarithm further away."""

    def __init__(self, begin: float, end: float, now: float) -> None:
        self._now = now
        self._before = max(1.0, now - begin)
        self._after = max(1.0, end - now)

    def __call__(self, moment: float) -> float:
        middle = LEFT + (WIDTH - LEFT - 10) / 2
        half = (WIDTH - LEFT - 10) / 2
        away = moment - self._now
        reach = self._after if away >= 0 else self._before
        part = min(1.0, math.log1p(abs(away) / _DAY * 4) / math.log1p(reach / _DAY * 4))
        return middle + math.copysign(part * half, away)


def revocation_timeline(revocations: Iterable[Revocation], *, now: float, seconds: float) -> Picture:
    """Return a dot a revocation in a lane a type; its size is how many tokens were refused by it (P3)."""
    lanes = ("TOKEN", "CLAIM", "KEY", "GLOBAL")
    shapes: list[Shape] = []
    room = WIDTH - LEFT - 20
    for index, name in enumerate(lanes):
        y = 20.0 + index * 34
        shapes.append(Shape(kind="text", x=LEFT - 8, y=y + 5, look="name", said=name))
        shapes.append(Shape(kind="line", x=LEFT, y=y, w=WIDTH - 10, h=y, look="lane"))
    shown = 0
    for each in revocations:
        if each.at is None or each.type not in lanes or not now - seconds <= each.at <= now + 60:
            continue
        shown += 1
        x = LEFT + room * (each.at - (now - seconds)) / seconds
        radius = 5.0 + min(10.0, 2.5 * math.log10(1 + (each.denied or 0)))
        look = {"undone": "dot undone", "ended": "dot ended", "waiting": "dot waiting"}.get(each.state, "dot")
        refused = "" if each.denied is None else f", refused {each.denied} tokens"
        said = f"{when(each.at)} {each.what} ({each.state}{refused}) {each.ticket or ''} {each.actor or ''}".strip()
        shapes.append(Shape(kind="circle", x=x, y=20.0 + lanes.index(each.type) * 34, w=radius, look=look, said=said))
    bottom = 20.0 + len(lanes) * 34
    for part in range(5):
        x = LEFT + room * part / 4
        look = "tick end" if part == 4 else "tick middle" if part else "tick"  # noqa: PLR2004 -- the last one
        shapes.append(
            Shape(kind="text", x=x, y=bottom, look=look, said=clock(now - seconds * (1 - part / 4))[:5] + "Z")
        )
    legend = (
        ("dot", "in force"),
        ("dot waiting", "waits for approval"),
        ("dot undone", "undone"),
        ("dot ended", "ended"),
    )
    return Picture(
        height=bottom + 8, shapes=shapes, legend=legend, said=f"{shown} revocations in the last {duration(seconds)}."
    )


def strip(
    bars: Sequence[tuple[str, float | None, str]],
    *,
    limit: float,
    unit: str = "s",
    looks: Mapping[str, str] | None = None,
) -> Picture:
    """
    Return one bar each, sorted by age, with a line at *limit* (P4).

    Args:
        bars: Name, age in seconds (None: not known, drawn to the top), and the group that its colour tells.
        limit: Seconds from which one is too old.
        unit: Of the ages.
        looks: Looks of the groups; None for a colour each, and a sign for those beyond the limit.
    """
    groups = sorted({group for _, _, group in bars})
    look_of = looks or {group: f"c{index % COLOURS + 1}" for index, group in enumerate(groups)}
    # The limit is at half the height, so that what is late is seen at once; what is older than twice that is cut.
    height, top = 96.0, 2 * limit
    ranked = sorted(bars, key=lambda bar: (bar[1] is None, bar[1] or 0.0, bar[0]))
    left = 58.0
    room = WIDTH - left - 6
    width = min(24.0, room / max(1, len(ranked)))
    shapes: list[Shape] = []
    for index, (name, age, group) in enumerate(ranked):
        part = 1.0 if age is None else min(1.0, max(0.03, age / top))
        late = looks is None and (age is None or age > limit)
        said = f"{name}: {'not known' if age is None else f'{age:.1f} {unit}'} ({group})"
        shapes.append(
            Shape(
                kind="rect",
                x=left + index * width,
                y=height - part * (height - 6),
                w=max(0.6, width - (2 if width > 5 else 0.2)),  # noqa: PLR2004 -- room for a gap
                h=part * (height - 6),
                look=f"{look_of.get(group, 'c1')}{' late' if late else ''}",
                said=said,
            )
        )
    y = height - (height - 6) / 2
    shapes.append(Shape(kind="line", x=left, y=y, w=WIDTH - 6, h=y, look="limit", said=f"limit: {limit:g} {unit}"))
    shapes.append(Shape(kind="text", x=left - 4, y=y + 4, look="name", said=f"{limit:g} {unit}"))
    shapes.append(Shape(kind="text", x=left - 4, y=height, look="name", said="0"))
    late_ones = sum(1 for _, age, _ in bars if age is None or age > limit)
    legend = [(look, group) for group in groups[:COLOURS] if (look := look_of.get(group))]
    said = f"{len(bars)} in all, {late_ones} beyond {limit:g} {unit} or not known."
    return Picture(height=height + 4, shapes=shapes, legend=legend, said=said)


_REACH: Final = {
    "enforcing": ("good", "enforces it"),
    "delivered": ("c1", "has the list, did not report the moment"),
    "waiting": ("bad", "not yet"),
    "silent": ("mute", "not heard of"),
}


def reach_strip(reached: Sequence[Reach], *, target: float) -> Picture:
    """Return one bar a validator: the seconds until it enforced a revocation; to the top where it does not yet."""
    bars = [(each.name, each.seconds, _REACH[each.state][1]) for each in reached]
    return strip(bars, limit=target, looks={name: look for look, name in _REACH.values()})


def heat_map(
    times: Sequence[float], rows: Sequence[tuple[str, Sequence[float | None]]], *, line_after: str | None = None
) -> Picture:
    """
    Return a cell for each step and bucket, the darker the more observations (P7).

    Args:
        times: Ends of the steps, Unix seconds.
        rows: Name of the bucket and observations a second, the fastest first.
        line_after: Name of the bucket above which a line is drawn.
    """
    # Each column is of its own scale: where the time goes, not how much traffic there is.
    left, size = 74.0, 15.0
    room = WIDTH - left - 8
    width = room / max(1, len(times))
    totals = [sum(values[index] or 0.0 for _, values in rows) for index in range(len(times))]
    shapes: list[Shape] = []
    height = len(rows) * size
    for number, (name, values) in enumerate(rows):
        y = height - (number + 1) * size
        shapes.append(Shape(kind="text", x=left - 6, y=y + size - 4, look="name", said=name))
        for index, value in enumerate(values):
            if not value or not totals[index]:
                continue
            part = value / totals[index]
            level = min(5, 1 + int(part * 5))
            said = f"{clock(times[index])}: {100 * part:.0f} % within {name}"
            shapes.append(
                Shape(
                    kind="rect",
                    x=left + index * width,
                    y=y,
                    w=width + 0.3,
                    h=size - 0.6,
                    look=f"heat{level}",
                    said=said,
                )
            )
        if name == line_after:
            shapes.append(Shape(kind="line", x=left, y=y, w=WIDTH - 8, h=y, look="limit", said=f"the line: {name}"))
    if times:
        shapes.append(Shape(kind="text", x=left, y=height + 14, look="tick", said=clock(times[0])[:5] + "Z"))
        shapes.append(Shape(kind="text", x=WIDTH - 8, y=height + 14, look="tick end", said=clock(times[-1])[:5] + "Z"))
    return Picture(height=height + 20, shapes=shapes, said="Share of validations by duration, for each step of time.")


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:8]}…{name[-8:]}"  # noqa: PLR2004 -- what fits left of the bars
