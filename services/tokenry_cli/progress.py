"""
How far long work has come: a bar on a terminal, a line every five seconds where there is none, or lines of JSON.

All of it goes to standard error. A total that is not known is not made up: then there is a count, and no percentage.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tokenry_cli.invocation import current
from tokenry_cli.output import escape, people, span

if TYPE_CHECKING:
    from collections.abc import Callable

SAY_SECONDS: Final = 5.0


class ProgressForm(StrEnum):
    """How progress is said."""

    AUTO = "auto"
    JSON = "json"
    NONE = "none"


ProgressOption = Annotated[
    ProgressForm,
    typer.Option(
        "--progress",
        help="auto: a bar, or a line every 5 s where there is no terminal; json: a line of JSON each; none. All of it "
        "on standard error.",
    ),
]


def event(name: str, **members: Any) -> None:  # noqa: ANN401 -- any JSON value
    """Write one event as a line of JSON to standard error."""
    sys.stderr.write(json.dumps({"event": name, **members}, ensure_ascii=False) + "\n")
    sys.stderr.flush()


class Reporter:
    """
    Says how far one piece of work has come.

    Args:
        verb: What is done, such as `revoked`.
        total: How much there is; None where nobody knows.
        form: How it is said.
        now: Seconds of a clock that is never set.
    """

    def __init__(
        self,
        verb: str,
        *,
        total: int | None,
        form: ProgressForm = ProgressForm.AUTO,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Say nothing yet."""
        self._verb, self._total, self._now = verb, total, now
        self._form = ProgressForm.NONE if current().quiet and form is ProgressForm.AUTO else form
        self._done = self._errors = 0
        self._began = now()
        self._over = threading.Event()
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        on_terminal = people.is_terminal and self._form is ProgressForm.AUTO
        self._bar = Progress(*columns, console=people, transient=True, disable=not on_terminal)
        self._task = self._bar.add_task(verb, total=total, said="")
        self._says_lines = not people.is_terminal and self._form is ProgressForm.AUTO
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Begin."""
        self._bar.start()
        if self._says_lines:
            threading.Thread(target=self._keep_saying, daemon=True, name="progress").start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; the last event is said in any case."""
        self._over.set()
        self._bar.stop()
        if self._form is ProgressForm.JSON:
            self._event("end")

    def update(self, done: int, *, errors: int = 0) -> None:
        """Note that *done* are done, with *errors* so far."""
        with self._lock:
            self._done, self._errors = done, errors
        said = f"{self._rate():,.0f}/s" + (f" errors {errors}" if errors else "")
        self._bar.update(self._task, completed=done, said=said)
        if self._form is ProgressForm.JSON:
            self._event("progress")

    def line(self) -> str:
        """Return how far it has come, in one line."""
        with self._lock:
            done, errors = self._done, self._errors
        rate = self._rate()
        parts = [f"{self._verb} {done:,}" + (f"/{self._total:,}" if self._total is not None else "")]
        if self._total:
            parts.append(f"{100 * done // self._total} %")
        parts.append(f"{rate:,.0f}/s")
        if self._total is not None and rate > 0:
            parts.append(f"eta {span(max(0.0, self._total - done) / rate)}")
        parts.append(f"errors {errors}")
        return "  ".join(parts)

    def _rate(self) -> float:
        return self._done / max(self._now() - self._began, 1e-3)

    def _keep_saying(self) -> None:
        while not self._over.wait(SAY_SECONDS):
            people.print(escape(self.line()))

    def _event(self, name: str) -> None:
        seconds = round(self._now() - self._began, 3)
        event(name, verb=self._verb, done=self._done, total=self._total, errors=self._errors, seconds=seconds)
