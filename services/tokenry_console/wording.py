"""How numbers and times are written for people. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

NOT_KNOWN: Final = "\u2013"
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_UNITS: Final = ("", " k", " M", " G", " T")


def when(seconds: float | None) -> str:
    """Return Unix *seconds* as date and time in UTC."""
    if seconds is None:
        return NOT_KNOWN
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def clock(seconds: float | None) -> str:
    """Return the time of day of Unix *seconds* in UTC."""
    return NOT_KNOWN if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%SZ")


def duration(seconds: float | None) -> str:
    """Return a length of time with two digits or so."""
    if seconds is None or math.isnan(seconds):
        return NOT_KNOWN
    size = abs(seconds)
    if size == 0:
        return "0 s"
    if size < 1e-3:  # noqa: PLR2004 -- a millisecond
        return f"{seconds * 1e6:.0f} µs"
    if size < 1:
        return f"{seconds * 1e3:.3g} ms"
    if size < 2 * _MINUTE:
        return f"{seconds:.1f} s" if size < 100 else f"{seconds:.0f} s"  # noqa: PLR2004 -- three digits
    if size < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if size < 2 * _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:.0f} d"


def ago(seconds: float | None) -> str:
    """Return how long ago, or how far ahead, something is."""
    if seconds is None:
        return NOT_KNOWN
    if abs(seconds) < 1:
        return "now"
    return f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"


def quantity(value: float | None, unit: str = "") -> str:
    """Return a number with three digits or so and its thousands."""
    if value is None or math.isnan(value):
        return NOT_KNOWN
    if math.isinf(value):
        return "∞"
    size, step = abs(value), 0
    while size >= (999.5 if step else 9999.5) and step < len(_UNITS) - 1:  # four digits are read at a glance
        size, value, step = size / 1000, value / 1000, step + 1
    said = f"{value:.0f}" if size >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004 -- likewise
    joined = said + _UNITS[step] + unit if step else said + (f" {unit}" if unit else "")
    return joined.strip()


def whole(value: float | None) -> str:
    """Return a whole number, its thousands apart."""
    return NOT_KNOWN if value is None else f"{int(value):,}".replace(",", "\u202f")


def share(value: float | None) -> str:
    """Return a share as a percentage that never rounds something up to all or down to nothing."""
    if value is None:
        return NOT_KNOWN
    percent = 100 * value
    if 99.995 <= percent < 100:  # noqa: PLR2004 -- what would read as all
        return "> 99.99 %"
    if 0 < percent < 0.005:  # noqa: PLR2004 -- what would read as none
        return "< 0.01 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def cell(value: object) -> str:
    """Return what stands in a table of numbers."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)
