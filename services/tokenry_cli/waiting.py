"""Waiting until validators enforce a revocation: who does since when, who does not, and how that is shown."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tokenry.errors import TokenryError
from tokenry_cli.output import escape, people
from tokenry_cli.progress import ProgressForm, event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOOK_SECONDS: Final = 0.5
SAY_SECONDS: Final = 5.0  # between two lines where there is no terminal
ALIVE_SECONDS: Final = 60.0  # a validator that was not heard of for two polls is not waited for
MAX_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """
    Who enforces one revocation at one moment.

    Attributes:
        seconds: From the post to the enforcement, by validator; never less than zero.
        missing: Validators that were heard of lately and are not known to enforce it, the furthest behind last.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether all do; when none was heard of nobody can say that."""
        return bool(self.seconds) and not self.missing

    @property
    def count(self) -> int:
        """How many validators there are."""
        return len(self.seconds) + len(self.missing)

    def percentile(self, percent: float) -> float:
        """Return the seconds within which *percent* of those that enforce it did (nearest rank)."""
        ranked = sorted(self.seconds.values())
        return ranked[max(0, -(-len(ranked) * percent // 100).__int__() - 1)]

    def slowest(self) -> list[tuple[str, float]]:
        """Return the slowest by name."""
        return sorted(self.seconds.items(), key=lambda item: (-item[1], item[0]))[:MAX_NAMED]


def tally(answer: Mapping[str, Any], *, revoked_at: int, posted_at: float, before: Tally | None = None) -> Tally:
    """
    Return who enforces a revocation.

    A validator's own report tells the moment. Without one it is known to enforce it once it has polled with a
    list that is complete up to a later moment; that can be half a minute after the fact.

    Args:
        answer: What the service knows of its validators.
        revoked_at: Unix second in which the service took the revocation.
        posted_at: Unix seconds at which it was posted.
        before: The tally before this one: who enforced it does so still.
    """
    seconds, missing = dict(before.seconds) if before else {}, []
    for each in answer["validators"]:
        name, since, complete = each["name"], each.get("enforced_at"), each["applied_as_of"]
        if since is not None:
            seconds[name] = max(0.0, since - posted_at)
        elif name in seconds:
            continue
        elif complete is not None and complete >= revoked_at + 1:
            seconds[name] = max(0.0, answer["now"] - posted_at)
        elif answer["now"] - max(each["last_poll"], each["reported_at"] or 0.0) < ALIVE_SECONDS:
            missing.append((complete or 0.0, name))
    return Tally(seconds=seconds, missing=tuple(name for _, name in sorted(missing, reverse=True)))


def summary(result: Tally) -> str:
    """Return one line for people."""
    if not result.count:
        return "no validator was heard of: nobody can say who enforces it"
    if not result.seconds:
        return f"none of {result.count} validators is known to enforce it"
    slow = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.slowest())
    text = (
        f"{len(result.seconds)} of {result.count} validators enforce it: p50 {result.percentile(50):.1f} s, "
        f"p99 {result.percentile(99):.1f} s, slowest {slow}"
    )
    if result.missing:
        rest = len(result.missing) - MAX_NAMED
        text += f"; not yet {', '.join(result.missing[:MAX_NAMED])}" + (f" and {rest} more" if rest > 0 else "")
    return text


def wait(
    look: Callable[[], Mapping[str, Any]],
    *,
    revoked_at: int,
    posted_at: float,
    seconds: float,
    form: ProgressForm = ProgressForm.AUTO,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Tally:
    """
    Return who enforces the revocation, as soon as all do or *seconds* are over; shown meanwhile.

    Args:
        look: Asks the service about its validators; an answer that fails is asked for again.
        revoked_at: Unix second in which the service took the revocation.
        posted_at: Unix seconds at which it was posted.
        seconds: How long to wait at most.
        form: How it is shown.
        now: Seconds of a clock that is never set.
        sleep: Waits.
    """
    end, said_at = now() + seconds, now()
    result = Tally()
    bar = Progress(
        TextColumn("enforced by"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
        TimeElapsedColumn(), console=people, transient=True,
        disable=not people.is_terminal or form is not ProgressForm.AUTO,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None)
        while True:
            try:
                result = tally(look(), revoked_at=revoked_at, posted_at=posted_at, before=result)
            except TokenryError as error:
                bar.update(task, description=f"[red]{escape(str(error))}[/red]")
            else:
                missing = f"waiting for {', '.join(result.missing[:MAX_NAMED])}" if result.missing else ""
                bar.update(task, completed=len(result.seconds), total=result.count, description=escape(missing))
            if form is ProgressForm.JSON:
                event("progress", verb="enforced", done=len(result.seconds), total=result.count)
            if result.is_complete or now() >= end:
                return result
            if form is ProgressForm.AUTO and not people.is_terminal and now() - said_at >= SAY_SECONDS:
                said_at = now()
                people.print(escape(summary(result)))
            sleep(LOOK_SECONDS)
