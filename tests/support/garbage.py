"""
What only the garbage collector can free: frames of ours that are held by an exception that they themselves hold.

A request that leaves its frames behind leaves what was sent to it in memory, and has the collector run far more often.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_ROOT / folder}/" for folder in ("services", "shared"))


@contextmanager
def frames_left() -> Iterator[list[str]]:
    """Within, nothing is collected; behind it the list has the names of our functions whose frames were garbage."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += [
            each.f_code.co_qualname
            for each in gc.garbage
            if isinstance(each, FrameType) and each.f_code.co_filename.startswith(_OURS)
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.collect()
