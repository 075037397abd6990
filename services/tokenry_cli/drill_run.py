"""One drill under way: its steps, what has to be undone if it fails, and what it waits for."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tokenry.errors import TokenryError
from tokenry_cli.drill_measure import Condemned, Target, Verdict, measure
from tokenry_cli.drill_report import StepDone
from tokenry_cli.drill_stage import DrillBroken, Fault, NotContained, Part
from tokenry_cli.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenry_cli.drill_measure import Minted
    from tokenry_cli.drill_probe import Probes
    from tokenry_cli.drill_stage import People, Stage

T = TypeVar("T")

PROMISE_SECONDS: Final = 31.0  # from the acknowledgement to the last validator
LOOK_SECONDS: Final = 0.1
SAY_SECONDS: Final = 5.0
# A busy machine answers late; what is *measured* is another thing, and told.
PATIENCE_SECONDS: Final = 120.0
NAMES: Final = {
    Part.ISSUER: "the issuer",
    Part.REVOCATION: "the revocation service",
    Part.CREDENTIALS: "the place of credentials and keys",
    Part.NODE: "one node of Cassandra",
}
_MARGIN: Final = 1.0  # of the refusal limit: an age is looked at when a question has arrived


class Holding(Platform):
    """A platform for somebody who has a token already: it is of use while the issuer is away."""

    def __init__(self, platform: Platform) -> None:
        """Get the token now."""
        super().__init__(platform.context)
        self._held = platform.bearer()

    def bearer(self, *, scope: Any = ()) -> dict[str, str]:  # noqa: ANN401 -- as in the class above
        """Return the header field with the token that is held."""
        _ = scope
        return self._held


@dataclass(slots=True)
class _Undo:
    text: str
    act: Callable[[], None]


class Run:
    """One drill on *stage*, heard by *probes*."""

    def __init__(
        self,
        stage: Stage,
        probes: Probes,
        *,
        hold: float,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Do nothing yet.

        Args:
            stage: Where it takes place.
            probes: Asking already.
            hold: Seconds for which something stays broken.
            say: Shows a line of progress.
            sleep: Waits.
        """
        self.stage = stage
        self.probes = probes
        self.hold = hold
        self.steps: list[StepDone] = []
        self.recovered: float | None = None
        self._say = say
        self._sleep = sleep
        self._undo: list[_Undo] = []

    @property
    def people(self) -> People:
        """Who takes part."""
        return self.stage.people()

    @property
    def now(self) -> float:
        """Seconds of the drill."""
        return self.probes.now()

    # --- steps ---

    def step(
        self,
        text: str,
        act: Callable[[], T],
        *,
        undo: str | None = None,
        outcome: Callable[[T], str] = lambda _: "",
    ) -> T:
        """
        Do *act*, say so, and return what it returns.

        Raises:
            DrillBroken: It failed.
        """
        self._say(f"→ {text}")
        at = self.now
        try:
            result = act()
        except DrillBroken:
            raise
        except TokenryError as error:
            raise DrillBroken(f"{text}: {error}") from error
        told = outcome(result)
        self.steps.append(StepDone(at=at, seconds=self.now - at, text=text, undo=undo, outcome=told))
        self._say(f"✓ {text}{f': {told}' if told else ''} ({self.now - at:.1f} s){f'; undo: {undo}' if undo else ''}")
        return result

    def until(self, text: str, holds: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> float:
        """
        Wait until *holds*, and return the seconds that took.

        Raises:
            DrillBroken: It does not within *seconds*.
        """

        def waiting() -> float:
            began = said = self.now
            while not holds():
                if self.now - began > seconds:
                    raise DrillBroken(f"{text}: not within {seconds:g} s")
                if self.now - said > SAY_SECONDS:
                    said = self.now
                    self._say(f"  … {text} ({self.now - began:.0f} s)")
                self._sleep(LOOK_SECONDS)
            return self.now - began

        return self.step(text, waiting)

    def wait(self, text: str, seconds: float) -> None:
        """Let the probes go on for a while."""
        end = self.now + seconds
        self.until(text, lambda: self.now >= end, seconds=seconds + PATIENCE_SECONDS)

    def take_away(self, part: Part, fault: Fault = Fault.DOWN) -> None:
        """Break *part*; it is brought back also if the drill fails."""
        undo = f"bring {NAMES[part]} back"
        self._undo.append(_Undo(undo, lambda: self.stage.bring_back(part, fault)))
        words = {Fault.DOWN: "take away", Fault.SILENT: "silence"}[fault]
        self.step(f"{words} {NAMES[part]}", lambda: self.stage.take_away(part, fault), undo=undo)

    def bring_back(self, part: Part, fault: Fault = Fault.DOWN) -> float:
        """Bring *part* back, and return the moment."""
        self.step(f"bring {NAMES[part]} back", lambda: self.stage.bring_back(part, fault))
        self.undone()
        return self.now

    def on_failure(self, text: str, act: Callable[[], None]) -> None:
        """Have *act* done if the drill fails from here on, until `undone`."""
        self._undo.append(_Undo(text, act))

    def undone(self) -> None:
        """Forget the last thing that had to be undone: it was."""
        self._undo.pop()

    def mend(self) -> list[str]:
        """Undo what is still broken, the last first, and return what could not be."""
        failed = []
        while self._undo:
            undo = self._undo.pop()
            self._say(f"↩ {undo.text}")
            try:
                undo.act()
            except (TokenryError, OSError) as error:
                failed.append(f"{undo.text}: {error}")
        return failed

    # --- what several scenarios do ---

    def well_before(self) -> None:
        """
        See that all is well, and that a token which was revoked before is refused everywhere.

        Raises:
            DrillBroken: It is not: nobody learns from a drill on a platform that is broken already.
        """
        dead = self.step("mint a token and revoke it, before anything is broken", self.probes.mint)
        self.revoke(Platform(self.people.admin), dead)
        self.until("every validator refuses it", lambda: self.all_say(dead, Verdict.REFUSED), seconds=PATIENCE_SECONDS)
        self.probes.dead(dead)
        self.until("every validator accepts a good one", self.all_accept)

    def all_say(self, token: Minted, *verdicts: Verdict) -> bool:
        """Tell whether every validator says one of *verdicts* of *token* now."""
        return all(self.probes.ask(name, token) in verdicts for name in self.probes.validators)

    def all_accept(self) -> bool:
        """Tell whether a token that is minted now is accepted by every validator."""
        try:
            return self.all_say(self.probes.mint(), Verdict.ACCEPTED)
        except TokenryError:
            return False

    def mints(self) -> bool:
        """Tell whether the issuer gives the bystander a token."""
        try:
            self.probes.mint()
        except TokenryError:
            return False
        return True

    def revoke(self, admin: Platform, token: Minted) -> Mapping[str, Any]:
        """Revoke one token as a test, and return the answer."""
        text = self.probes.text(token).reveal()
        return admin.revoke({"type": "TOKEN", "data": {"token": text, "reason": "test"}})

    def revoke_and_contain(self, admin: Platform, *, while_: str) -> None:
        """Revoke a token of the bystander, and wait until nobody accepts it."""
        token = self.step("mint a token that will be revoked", lambda: self._watched_token(admin))
        place = self.condemn(Target.TOKEN, token.name)
        self.step(
            f"revoke it {while_}",
            lambda: self.revoke(admin, token),
            undo="none is needed: one token, revoked as a test",
            outcome=lambda answer: f"stored as {answer.get('id')}",
        )
        self.acknowledged(place)
        self.contained()

    def _watched_token(self, admin: Platform) -> Minted:
        # While the issuer is away there is the youngest that is held.
        token = self.probes.last() if isinstance(admin, Holding) else self.probes.mint()
        if token is None:
            raise DrillBroken("the probes hold no token yet")
        self.probes.watch(token)
        return token

    def condemn(self, target: Target, value: str, *, owed_at: float | None = None) -> int:
        """Take note that the first step against *value* is taken now; returns its place for what follows."""
        self.probes.condemned.append(Condemned(target=target, value=value, at=self.now, owed_at=owed_at))
        return len(self.probes.condemned) - 1

    def acknowledged(self, place: int, *, within: float = PROMISE_SECONDS) -> None:
        """Take note that the platform has promised it, from now on."""
        condemned = self.probes.condemned
        condemned[place] = replace(condemned[place], owed_at=self.now + within)

    def good_again(self, place: int) -> None:
        """Take note that what is minted from now on is good."""
        condemned = self.probes.condemned
        condemned[place] = replace(condemned[place], until=self.now)

    def over(self, place: int) -> None:
        """Take note that it is being taken back from now on."""
        condemned = self.probes.condemned
        condemned[place] = replace(condemned[place], ended=self.now)

    def contained(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """
        Wait until the last word of every validator on what is condemned is not a yes.

        Raises:
            NotContained: One still says yes after *seconds*.
        """
        since = self.now

        def quiet() -> bool:
            nonlocal since
            measured = measure(self.probes.history())
            asked = {sample.where for sample in self.probes.samples() if sample.asked > since}
            return set(self.probes.validators) <= asked and measured.time_to_contain is not None

        try:
            self.until("every validator enforces it", quiet, seconds=seconds)
        except DrillBroken as error:
            raise NotContained(str(error)) from None

    def recover(self, since: float, text: str, holds: Callable[[], bool]) -> None:
        """Wait until all is as before, and keep how long that took since the fault ended at *since*."""
        self.until(text, holds)
        self.recovered = self.now - since


def limit_of_lists(stage: Stage) -> float:
    """Return the seconds after which a validator of *stage* that hears nothing must judge nothing."""
    return stage.refuse_age + _MARGIN
