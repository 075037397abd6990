"""What `/proc` says of a process and everything that it started: CPU time and memory."""

from __future__ import annotations

from pathlib import Path

_NANOSECONDS = 1e9


def tree(pid: int) -> list[int]:
    """Return *pid* and all its descendants."""
    parents = {
        each: _parent(each) for each in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    }
    found = {pid}
    while new := {each for each, parent in parents.items() if parent in found} - found:
        found |= new
    return sorted(found)


def cpu_seconds(pid: int) -> float:
    """
    Return the CPU time that the tree of *pid* has used, in nanoseconds' resolution.

    Summed over the threads that live: measure differences, and only while none of them ends.
    """
    total = 0
    for each in tree(pid):
        for schedstat in Path(f"/proc/{each}/task").glob("*/schedstat"):
            total += int(_read(schedstat).split()[0] or 0)
    return total / _NANOSECONDS


def resident_bytes(pid: int) -> int:
    """Return the memory of the tree of *pid*, what is shared counted in parts (Pss)."""
    return sum(_pss(each) for each in tree(pid))


def _pss(pid: int) -> int:
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _parent(pid: int) -> int:
    behind_name = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(behind_name[1]) if len(behind_name) > 1 else 0


def _read(path: Path) -> str:
    try:
        return path.read_text() or "0"
    except OSError:
        return "0"
