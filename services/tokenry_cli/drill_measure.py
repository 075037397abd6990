"""
What a drill measures, from what its probes heard. Pure: samples and condemnations in, numbers out.

All moments are seconds of one clock that is never set, counted from the start of the drill.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ISSUER: Final = "issuer"


class Verdict(StrEnum):
    """What one validator, or the issuer, said once."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"  # 503, or no answer: neither yes nor no


class Target(StrEnum):
    """What a condemnation is about."""

    TOKEN = "token"  # noqa: S105 -- a kind of target
    CLIENT = "client"
    KEY = "key"
    # Nothing was revoked, and nobody may say yes any more: the list is too old to tell.
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """
    One token in the probes' hands, without the token.

    Attributes:
        name: What the drill calls it.
        client: Whose it is.
        kid: Id of the key that signed it.
        at: When the issuer's answer had come.
    """

    name: str
    client: str
    kid: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """
    One question and its answer.

    Attributes:
        asked: When it was asked.
        came: When the answer had come.
        where: Who was asked: `issuer`, or a validator's name.
        token: Name of the token that was asked about; of a mint: whose it was to be.
        verdict: What was said.
    """

    asked: float
    came: float
    where: str
    token: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemned:
    """
    What must be refused, and from when on.

    Attributes:
        target: What it is about.
        value: Name of the token, id of the client or of the key; empty for everything.
        at: When the first step against it was taken.
        owed_at: From when on nobody may accept it: the promise, or the limit; None if nothing was ever acknowledged.
        until: Tokens of the client that were minted later are good; None: none is.
        ended: From when on nothing is owed any more, because it was taken back; None: it was not. Then a refusal is
            still right: taking back takes its time, too.
    """

    target: Target
    value: str
    at: float
    owed_at: float | None
    until: float | None = None
    ended: float | None = None

    def covers(self, token: Minted) -> bool:
        """Tell whether *token* is one of those."""
        match self.target:
            case Target.TOKEN:
                found = token.name == self.value
            case Target.CLIENT:
                found = token.client == self.value
            case Target.KEY:
                found = token.kid == self.value
            case Target.EVERYTHING:
                return True
        return found and (self.until is None or token.at < self.until)

    def may_refuse(self, token: Minted) -> bool:
        """Tell whether saying no to *token* is right; an old list is no reason for that, only for saying nothing."""
        return self.target is not Target.EVERYTHING and self.covers(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class AtValidator:
    """
    What one validator did.

    Attributes:
        name: Its name.
        contained: Seconds from the first step until it accepted nothing condemned any more; None: it still does, or
            was never asked about it.
        accepted_meanwhile: How often it accepted something condemned after the first step, until it was contained.
        wrongly_accepted: How often it accepted what was owed to be refused, or what had been revoked before the drill.
        wrongly_refused: How often it refused a token that was good.
        unavailable: How often it did not answer, or said that it could not tell.
        longest_gap: The longest time in a row in which that was so, in seconds.
        asked: How often it was asked.
    """

    name: str
    contained: float | None
    accepted_meanwhile: int
    wrongly_accepted: int
    wrongly_refused: int
    unavailable: int
    longest_gap: float
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """
    What a drill came to.

    Attributes:
        validators: Each of them.
        mints: How often the issuer was asked for a token of the client that has nothing to do with it.
        mints_refused: How often it refused, which is wrong.
        mints_unavailable: How often it did not answer or was not able to.
        longest_mint_gap: The longest time in a row in which that was so, in seconds.
        born_dead: Tokens of that client that were issued after the first step and condemned already.
    """

    validators: tuple[AtValidator, ...]
    mints: int = 0
    mints_refused: int = 0
    mints_unavailable: int = 0
    longest_mint_gap: float = 0.0
    born_dead: int = 0

    @property
    def time_to_contain(self) -> float | None:
        """Seconds from the first step to the last validator that enforces; None: one does not."""
        each = [validator.contained for validator in self.validators]
        return max((seconds for seconds in each if seconds is not None), default=None) if None not in each else None

    @property
    def wrongly_accepted(self) -> int:
        """How often a validator accepted what it had to refuse."""
        return sum(validator.wrongly_accepted for validator in self.validators)

    @property
    def wrongly_refused(self) -> int:
        """How often a good token, or a good client, was refused."""
        return sum(validator.wrongly_refused for validator in self.validators) + self.mints_refused

    @property
    def unavailable(self) -> Mapping[str, int]:
        """How often somebody did not answer, by name."""
        return {ISSUER: self.mints_unavailable} | {each.name: each.unavailable for each in self.validators}


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """
    Everything that was heard.

    Attributes:
        samples: Questions and answers, in any order.
        tokens: The tokens that they are about, by name.
        dead: Names of the tokens that were revoked, and refused everywhere, before the drill began.
        bystander: The client that has nothing to do with it.
        condemned: What the drill took out of force.
    """

    samples: Sequence[Sample]
    tokens: Mapping[str, Minted]
    dead: frozenset[str]
    bystander: str
    condemned: Sequence[Condemned] = field(default_factory=tuple)


def measure(history: History) -> Measured:
    """Return what *history* came to."""
    samples = sorted(history.samples, key=lambda sample: (sample.asked, sample.came))
    names = sorted({sample.where for sample in samples} - {ISSUER})
    mints = [sample for sample in samples if sample.where == ISSUER and sample.token == history.bystander]
    return Measured(
        validators=tuple(_at(name, [each for each in samples if each.where == name], history) for name in names),
        mints=len(mints),
        mints_refused=sum(mint.verdict is Verdict.REFUSED for mint in mints),
        mints_unavailable=sum(mint.verdict is Verdict.UNAVAILABLE for mint in mints),
        longest_mint_gap=longest_gap(mints),
        born_dead=sum(_is_born_dead(token, history) for token in history.tokens.values()),
    )


def _at(name: str, samples: Sequence[Sample], history: History) -> AtValidator:
    accepted = [sample for sample in samples if sample.verdict is Verdict.ACCEPTED]
    refused = [sample for sample in samples if sample.verdict is Verdict.REFUSED]
    contained = {condemned: _contained(condemned, samples, history) for condemned in history.condemned}
    meanwhile = (any(_concerns(condemned, sample, history) for condemned in history.condemned) for sample in accepted)
    return AtValidator(
        name=name,
        contained=None if None in contained.values() else max(
            (seconds for seconds in contained.values() if seconds is not None), default=None
        ),
        accepted_meanwhile=sum(meanwhile),
        wrongly_accepted=sum(_is_wrong_yes(sample, history) for sample in accepted),
        wrongly_refused=sum(_is_wrong_no(sample, history) for sample in refused),
        unavailable=sum(sample.verdict is Verdict.UNAVAILABLE for sample in samples),
        # What was dead before is refused also by those that can tell nothing else.
        longest_gap=longest_gap(sample for sample in samples if sample.token not in history.dead),
        asked=len(samples),
    )  # fmt: skip


def _concerns(condemned: Condemned, sample: Sample, history: History) -> bool:
    """Tell whether *sample* is an answer about something condemned, asked for since the first step."""
    in_force = sample.asked >= condemned.at and (condemned.ended is None or sample.asked < condemned.ended)
    return in_force and condemned.covers(history.tokens[sample.token])


def _contained(condemned: Condemned, samples: Sequence[Sample], history: History) -> float | None:
    """Return the seconds until the answer from which on no yes is heard; None: the last word was yes, or none came."""
    answers = [sample for sample in samples if _concerns(condemned, sample, history)]
    yes = [number for number, sample in enumerate(answers) if sample.verdict is Verdict.ACCEPTED]
    rest = answers[yes[-1] + 1 :] if yes else answers
    return rest[0].came - condemned.at if rest else None


def _is_wrong_yes(sample: Sample, history: History) -> bool:
    if sample.token in history.dead:
        return True
    return any(
        condemned.owed_at is not None and sample.asked > condemned.owed_at and _concerns(condemned, sample, history)
        for condemned in history.condemned
    )


def _is_wrong_no(sample: Sample, history: History) -> bool:
    token = history.tokens[sample.token]
    # An answer that came after the first step may be due to it, whenever it was asked for.
    due = (each for each in history.condemned if sample.came >= each.at)
    return sample.token not in history.dead and not any(each.may_refuse(token) for each in due)


def _is_born_dead(token: Minted, history: History) -> bool:
    return token.client == history.bystander and any(
        token.at > condemned.at and condemned.may_refuse(token) for condemned in history.condemned
    )


def longest_gap(samples: Iterable[Sample]) -> float:
    """
    Return the longest time between two answers with nothing but unavailability between them, in seconds.

    At the beginning and at the end, where there is no answer on one side, it is counted from the first question or
    until the last one.
    """
    ordered = sorted(samples, key=lambda sample: sample.asked)
    if not any(sample.verdict is Verdict.UNAVAILABLE for sample in ordered):
        return 0.0
    answered = [sample for sample in ordered if sample.verdict is not Verdict.UNAVAILABLE]
    edges = [ordered[0].asked, *(sample.asked for sample in answered), ordered[-1].came]
    away = [sample.asked for sample in ordered if sample.verdict is Verdict.UNAVAILABLE]
    return max(
        (after - before for before, after in pairwise(edges) if any(before <= at <= after for at in away)), default=0.0
    )
