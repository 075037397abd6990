"""How a revocation spread over the validators. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenry_console.views import Fleet, Validator

MAX_STEPS: Final = 40  # of a curve: what 120 pixels can show


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """
    How far a revocation has come at one validator.

    Attributes:
        name: Which one.
        seconds: Seconds from the revocation until it was enforced there; None while that is not known.
        state: enforcing (it says so itself), delivered (its list is complete beyond that moment), waiting or silent.
        why: Why it does not enforce it yet, or how that is known.
    """

    name: str
    seconds: float | None
    state: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """
    Shares of validators that enforce one revocation.

    Attributes:
        id: The revocation.
        steps: Seconds since the revocation and the share then, rising.
        count: How many validators there are.
        enforcing: How many of them enforce it.
    """

    id: str
    steps: tuple[tuple[float, float], ...]
    count: int
    enforcing: int

    @property
    def is_complete(self) -> bool:
        """Whether all enforce it; when none was heard of nobody can say that."""
        return 0 < self.count == self.enforcing


def reach(fleet: Fleet, *, at: float, known: Mapping[str, Reach] | None = None) -> list[Reach]:
    """
    Return how far a revocation has come at each validator that was heard of lately, the slowest first.

    Args:
        fleet: The validators, asked about this revocation.
        at: Unix seconds at which it was accepted, by the service's clock.
        known: What was known before, by name: what is enforced once stays so, and was first seen then.
    """
    found = []
    before = known or {}
    for each in fleet.validators:
        if each.enforced_at is not None:
            seconds = max(0.0, each.enforced_at - at)
            found.append(Reach(name=each.name, seconds=seconds, state="enforcing", why="it says so itself"))
        elif each.name in before:
            found.append(before[each.name])
        elif each.complete_until is not None and each.complete_until >= at + 1:
            # It enforces it, and the moment is not known: some time between the revocation and now.
            seconds = max(0.0, each.complete_until - at)
            why = "its list is complete beyond the revocation; it did not report the moment"
            found.append(Reach(name=each.name, seconds=seconds, state="delivered", why=why))
        else:
            found.append(_missing(each, fleet))
    return sorted(found, key=lambda one: (one.seconds is not None, -(one.seconds or 0.0), one.name))


def _missing(each: Validator, fleet: Fleet) -> Reach:
    if each.is_silent:
        silent = "never" if each.silent is None else f"{each.silent:.0f} s ago"
        return Reach(name=each.name, seconds=None, state="silent", why=f"last heard of {silent}: down, or cut off")
    if each.complete_until is None:
        return Reach(name=each.name, seconds=None, state="waiting", why="it does not say what it has applied")
    why = f"its list is {each.lag or 0:.0f} s behind"
    if each.version != fleet.main_version:
        why += f"; it runs {each.version}, most run {fleet.main_version}"
    return Reach(name=each.name, seconds=None, state="waiting", why=why)


def curve(name: str, reached: Sequence[Reach]) -> Curve:
    """
    Return the curve of the revocation *name*.

    A validator that was silent before everything began (it may be gone for good) counts while it is shown.
    """
    count = len(reached)
    seconds = sorted(each.seconds for each in reached if each.seconds is not None)
    steps = [(0.0, 0.0)]
    for index, each in enumerate(seconds, start=1):
        steps.append((each, index / count))
    if len(steps) > MAX_STEPS:
        last = len(steps) - 1
        steps = [steps[round(index * last / (MAX_STEPS - 1))] for index in range(MAX_STEPS)]
    return Curve(id=name, steps=tuple(steps), count=count, enforcing=len(seconds))


def until_now(one: Curve, elapsed: float | None, *, target: float) -> tuple[tuple[float, float], ...]:
    """
    Return the steps of a curve that goes on, drawn up to now: what comes after nobody knows.

    Args:
        one: The curve.
        elapsed: Seconds since the revocation; None when not known.
        target: Seconds by which all are expected: of an old one not much more than that is of interest.
    """
    last, share = one.steps[-1]
    if elapsed is None or elapsed <= last:
        return one.steps
    return (*one.steps, (min(elapsed, max(1.2 * target, 1.2 * last)), share))


def percentile(reached: Sequence[Reach], percent: int) -> float | None:
    """Return the seconds within which *percent* of those that enforce it did (nearest rank); None for none."""
    ranked = sorted(each.seconds for each in reached if each.seconds is not None)
    return ranked[max(0, -(-len(ranked) * percent // 100) - 1)] if ranked else None
