"""What must be made anew in the child of a fork: locks that another thread held, threads, connections."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """An object with state that a child process must not share."""

    def after_fork(self) -> None:
        """Replace locks and forget threads and connections; called in the child, while it has one thread."""
        ...


_living: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def renew_after_fork(owner: ForkAware) -> None:
    """Call `owner.after_fork()` in every child of this process, as long as *owner* lives."""
    _living.add(owner)


def _renew_all() -> None:
    for owner in list(_living):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # absent where there is no fork
    os.register_at_fork(after_in_child=_renew_all)
