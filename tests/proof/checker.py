"""
Decides whether a history keeps the promise. Pure: it reads no clock, and knows nothing of how the system works.

P0  an expired token is accepted by nobody
P1  after an acknowledged revocation and the bound, nobody accepts what it covers (T while nothing was broken, S
    whatever was broken)
P2  what anybody refused as revoked, nobody accepts later than the bound after that, acknowledged or not
P3  what one validator refused as revoked it never accepts again
P4  who accepts by a list "complete up to t" knows everything that was acknowledged before t; no bound in this one
P5  nothing is refused as revoked without a cause: a covering request that may have been done and was not taken back
P6  nobody says "cannot tell", or refuses a good token, unless something was declared broken
P7  the list of one validator never goes back: not its epoch, not across a restart; not its time, while it lives

A grow-only set with a bound in real time needs no search through orders of events: one pass over the validations,
each compared with the revocations that cover its token. What cannot be known is never a violation: a request of
unknown outcome, a cut-off that only the server knew, an undo that may have been done.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.proof.history import Event, Fault, History, Mint, Outcome, Result, Revoke, Undo, Validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PROPERTIES: Final = tuple(f"P{number}" for number in range(8))
_FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """
    What was promised.

    Attributes:
        propagation: T, seconds, while nothing is broken.
        closer: A shorter T for some validators, by name, as long as nothing was ever broken: a reader whose held
            requests broke off polls for some minutes before it lets them be held again.
        refuse: S, seconds, whatever is broken.
        recovery: Seconds after the end of a fault during which only S is owed.
        clock_error: Seconds by which the clocks of the system may differ from the driver's.
        sweep: Seconds that what was never acknowledged may take longer: its write may come to the store late, where a
            replica finds it when it reads everything, and the other replica when it does so itself.
    """

    propagation: float
    refuse: float
    closer: Mapping[str, float] = field(default_factory=dict)
    recovery: float = 0.0
    clock_error: float = 1.0
    sweep: float = 0.0

    def of(self, process: str) -> float:
        """Return the T of one validator that nothing has touched."""
        return self.closer.get(process, self.propagation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """
    A broken promise.

    Attributes:
        property: `P0` to `P7`.
        message: What is wrong.
        events: The events that show it; the last one is the validation.
    """

    property: str
    message: str
    events: tuple[Event, ...]

    def __str__(self) -> str:
        """Return it with its events, for a person."""
        return "\n    ".join([f"{self.property}: {self.message}", *map(str, self.events)])


@dataclass(slots=True, kw_only=True)
class Report:
    """
    What the checker found.

    Attributes:
        violations: Empty for a history that keeps the promise.
        armed: How often each property could have been broken: a clean run says nothing about one at zero.
        counts: Validations by result and requests by outcome.
    """

    violations: list[Violation] = field(default_factory=list)
    armed: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        """Tell whether the promise was kept."""
        return not self.violations

    @property
    def broken(self) -> tuple[str, ...]:
        """Return the properties that were violated, in order."""
        return tuple(sorted({violation.property for violation in self.violations}))

    def text(self, *, most: int = 5) -> str:
        """Return the first violations of each property, for a failed test."""
        shown: list[str] = []
        for name in self.broken:
            found = [each for each in self.violations if each.property == name]
            shown.append(f"{name}: {len(found)} violations")
            shown.extend(f"  {each}" for each in found[:most])
        return "\n".join(shown)


def check(history: History, bounds: Bounds) -> Report:
    """Judge *history* by *bounds*."""
    return _Checker(history, bounds).run()


class _Faults:
    """When something was broken, each with the time that it takes to recover."""

    def __init__(self, faults: Iterable[Fault], recovery: float) -> None:
        self._all = sorted(faults, key=lambda fault: fault.start)
        self._recovery = recovery

    def between(self, start: float, end: float, process: str, *, clock: bool = False) -> bool:
        """Tell whether *process* may have been touched at some moment of the span."""
        for fault in self._all:
            if fault.start > end:
                return False
            touches = not fault.processes or process in fault.processes
            if touches and (fault.clock or not clock) and start <= fault.end + self._recovery:
                return True
        return False

    def ever(self, end: float, process: str) -> bool:
        """Tell whether anything was broken before *end*; what has no length excuses a beginning, no more."""
        return any(
            fault.start <= end and fault.end > fault.start and (not fault.processes or process in fault.processes)
            for fault in self._all
        )


class _Revocations:
    """The requests by what they name, and what took them back."""

    def __init__(self, events: Sequence[Revoke], undos: Iterable[Undo]) -> None:
        self._by_target: dict[tuple[Any, ...], list[Revoke]] = defaultdict(list)
        self._names: set[tuple[str, ...]] = set()
        for revoke in sorted(events, key=lambda each: each.invoked):
            self._by_target[revoke.target].append(revoke)
            if revoke.target[0] == "claims":
                self._names.add(revoke.target[1])
        self._by_number = {each.number: each for each in events}
        self._maybe_lifted: dict[int, float] = {}
        self._lifted: dict[int, float] = {}
        for undo in undos:
            self._take_back(undo)

    def _take_back(self, undo: Undo) -> None:
        """Note what *undo* may have, and what it has certainly, taken back: requests that say the same are one."""
        undone = self._by_number[undo.number]
        for each in self._by_target[undone.target]:
            if undo.outcome is not Outcome.FAIL and each.invoked <= undo.returned and _may_be_one(each, undone):
                _least(self._maybe_lifted, each.number, undo.invoked)
            same = each is undone or (each.record is not None and each.record == undone.record)
            if undo.outcome is Outcome.OK and same and each.returned <= undo.invoked:
                _least(self._lifted, each.number, undo.returned)

    def naming(self, token: Mint) -> list[Revoke]:
        """Return the requests that name *token*, whatever their cut-offs, by the time they were made."""
        targets: list[tuple[Any, ...]] = [("all",), ("token", token.token), ("key", token.iss, token.kid)]
        if token.jti is not None:
            targets.append(("jti", token.iss, token.jti))
        carried = (names for names in self._names if all(name in token.claims for name in names))
        targets.extend(("claims", names, tuple(token.claims[name] for name in names)) for names in carried)
        found = [revoke for target in targets for revoke in self._by_target.get(target, ())]
        return sorted(found, key=lambda each: each.invoked)

    def maybe_lifted_at(self, revoke: Revoke) -> float:
        """Return from when it may have been taken back."""
        return self._maybe_lifted.get(revoke.number, _FOREVER)

    def lifted_at(self, revoke: Revoke) -> float:
        """Return from when it was certainly taken back."""
        return self._lifted.get(revoke.number, _FOREVER)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The first time that a token was refused as revoked, and what may have been the cause."""

    event: Validate
    causes: tuple[Revoke, ...]


class _Checker:
    """One pass over the validations in the order of their invocations."""

    def __init__(self, history: History, bounds: Bounds) -> None:
        self._bounds = bounds
        self._validations: Sequence[Validate] = sorted(history.of(Validate), key=lambda each: each.invoked)
        self._tokens: dict[str, Mint] = {mint.token: mint for mint in history.of(Mint)}
        self._revocations = _Revocations(tuple(history.of(Revoke)), history.of(Undo))
        self._faults = _Faults(history.of(Fault), bounds.recovery)
        self._naming: dict[str, list[Revoke]] = {}
        self._refused: dict[str, _Refusal] = {}
        self._refused_by: dict[tuple[str, str], _Refusal] = {}
        self._epochs: dict[str, Validate] = {}
        self._as_ofs: dict[tuple[str, int], Validate] = {}
        self._report = Report()
        for event in history.events:
            match event:
                case Validate():
                    self._report.counts[f"validate {event.result}"] += 1
                case Revoke() | Undo():
                    self._report.counts[f"{event.kind} {event.outcome}"] += 1

    def run(self) -> Report:
        for event in self._validations:
            token = self._tokens[event.token]
            naming = self._naming.get(event.token)
            if naming is None:
                naming = self._naming[event.token] = self._revocations.naming(token)
            match event.result:
                case Result.ACCEPT:
                    self._check_accepted(event, token, naming)
                case Result.REVOKED:
                    self._check_refused(event, token, naming)
                case _:
                    self._check_available(event, token)
            self._check_order(event)
        return self._report

    # --- accepted -----------------------------------------------------------------------------------------------

    def _check_accepted(self, event: Validate, token: Mint, naming: list[Revoke]) -> None:
        self._check_alive(event, token)
        if naming:
            for revoke in naming:
                if self._must_cover(revoke, token, event):
                    self._check_acknowledged(event, token, revoke)
            self._check_remembered(event, token)

    def _check_alive(self, event: Validate, token: Mint) -> None:
        self._report.armed["P0"] += 1
        late = event.invoked - token.exp - self._bounds.clock_error
        if late >= 0 and not self._clock_is_off(event):
            self._violated("P0", f"accepted {late:.1f} s after it had expired", token, event)

    def _check_acknowledged(self, event: Validate, token: Mint, revoke: Revoke) -> None:
        """*revoke* covers the token for certain, and was not taken back as far as anybody knows."""
        if revoke.outcome is not Outcome.OK:
            return
        bound = self._bound(revoke.returned, event)
        self._report.armed["P1"] += 1
        if event.invoked > revoke.returned + bound:
            late = event.invoked - revoke.returned
            message = f"accepted {late:.2f} s after the revocation was acknowledged; the bound is {bound:g} s"
            self._violated("P1", message, token, revoke, event)
        if event.as_of is not None:
            self._report.armed["P4"] += 1
            if revoke.returned < event.as_of:
                early = event.as_of - revoke.returned
                message = f"the list says that it has everything up to {early:.3f} s after this acknowledgement"
                self._violated("P4", message, token, revoke, event)

    def _check_remembered(self, event: Validate, token: Mint) -> None:
        first = self._refused.get(event.token)
        if first is not None and self._still_holds(first, token, event):
            self._report.armed["P2"] += 1
            bound = self._bound(first.event.returned, event)
            if any(cause.outcome is not Outcome.OK for cause in first.causes):
                bound += self._bounds.sweep
            if event.invoked > first.event.returned + bound:
                late = event.invoked - first.event.returned
                message = f"accepted {late:.2f} s after {first.event.process} had refused it; the bound is {bound:g} s"
                self._violated("P2", message, token, *first.causes, first.event, event)
        own = self._refused_by.get((event.memory, event.token))
        if own is not None and event.invoked >= own.event.returned and self._still_holds(own, token, event):
            self._report.armed["P3"] += 1
            self._violated("P3", "accepted by the very validator that had refused it", token, own.event, event)

    def _must_cover(self, revoke: Revoke, token: Mint, event: Validate) -> bool:
        if self._revocations.maybe_lifted_at(revoke) <= event.returned:
            return False
        if _certainly_covers(revoke, token):
            return True
        blocks = revoke.block_until is not None and event.returned < revoke.block_until - self._bounds.clock_error
        return blocks and not self._clock_is_off(event)

    def _still_holds(self, refusal: _Refusal, token: Mint, event: Validate) -> bool:
        """Tell whether every possible cause of *refusal* still covers the token."""
        return bool(refusal.causes) and all(
            _certainly_covers(cause, token) and self._revocations.maybe_lifted_at(cause) > event.returned
            for cause in refusal.causes
        )

    # --- refused ------------------------------------------------------------------------------------------------

    def _check_refused(self, event: Validate, token: Mint, naming: list[Revoke]) -> None:
        self._report.armed["P5"] += 1
        last = bisect_right(naming, event.returned, key=lambda each: each.invoked)
        causes = tuple(each for each in naming[:last] if self._may_cover(each, token, event))
        if not causes:
            self._violated("P5", "refused as revoked, and nothing that may be in force covers it", token, event)
            return
        refusal = _Refusal(event, causes)
        self._refused.setdefault(event.token, refusal)
        self._refused_by.setdefault((event.memory, event.token), refusal)

    def _may_cover(self, revoke: Revoke, token: Mint, event: Validate) -> bool:
        if revoke.outcome is Outcome.FAIL:
            return False
        lifted = self._revocations.lifted_at(revoke)
        if lifted + self._bounds.propagation < event.invoked and not self._faults.between(
            lifted, event.returned, event.process
        ):
            return False
        if revoke.block_until is not None and (
            event.invoked < revoke.block_until + self._bounds.clock_error or self._clock_is_off(event)
        ):
            return True
        return revoke.cutoff is None or token.iat < revoke.cutoff[1]

    # --- neither ------------------------------------------------------------------------------------------------

    def _check_available(self, event: Validate, token: Mint) -> None:
        if event.result is Result.INVALID:
            slack = self._bounds.clock_error
            alive = token.iat <= event.invoked + slack and event.returned < token.exp - slack
            if event.spelling != "same" or not alive:
                return
        self._report.armed["P6"] += 1
        if not self._faults.between(event.invoked, event.returned, event.process):
            self._violated("P6", f"{event.result} while nothing was declared broken", token, event)

    # --- the list ---------------------------------------------------------------------------------------------------

    def _check_order(self, event: Validate) -> None:
        if event.epoch is not None:
            self._report.armed["P7"] += 1
            highest = self._epochs.get(event.process)
            if highest is not None and highest.epoch is not None and event.epoch < highest.epoch:
                self._violated("P7", f"the list went back to epoch {event.epoch}", highest, event)
            else:
                self._epochs[event.process] = event
        if event.as_of is not None:
            life = (event.process, event.run)
            latest = self._as_ofs.get(life)
            if latest is not None and latest.as_of is not None and event.as_of < latest.as_of:
                if latest.returned <= event.invoked and latest.epoch == event.epoch:
                    self._violated("P7", f"the list went back by {latest.as_of - event.as_of:.3f} s", latest, event)
            else:
                self._as_ofs[life] = event

    def _clock_is_off(self, event: Validate) -> bool:
        """Tell whether a clock beyond its bound may have decided *event*."""
        return self._faults.between(event.invoked, event.returned, event.process, clock=True)

    def _bound(self, since: float, event: Validate) -> float:
        """Return what is owed: S around a fault, T, and a shorter T to whom no fault ever touched."""
        if self._faults.between(since, event.returned, event.process):
            return self._bounds.refuse
        if self._faults.ever(event.returned, event.process):
            return self._bounds.propagation
        return self._bounds.of(event.process)

    def _violated(self, name: str, message: str, *events: Event) -> None:
        self._report.violations.append(Violation(property=name, message=message, events=events))


def _certainly_covers(revoke: Revoke, token: Mint) -> bool:
    """Tell whether *revoke*, which names *token*, hits it for good: by its identity, or by its `iat`."""
    return revoke.cutoff is None or token.iat < revoke.cutoff[0]


def _may_be_one(one: Revoke, other: Revoke) -> bool:
    """Tell whether two requests with one target may be one record."""
    if one is other or (one.record is not None and other.record is not None):
        return one.record == other.record
    if one.cutoff is None or other.cutoff is None:
        return True
    return one.cutoff[0] <= other.cutoff[1] and other.cutoff[0] <= one.cutoff[1]


def _least(times: dict[int, float], number: int, at: float) -> None:
    times[number] = min(at, times.get(number, at))
