"""The report of a drill: what was done when, what was measured, and whether it was as it should be. Pure."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenry_cli.drill_measure import Measured

FORMAT: Final = 1
_NONE: Final = "–"  # noqa: RUF001 -- a dash in a table


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """
    One step that was taken.

    Attributes:
        at: Seconds from the start of the drill.
        seconds: How long it took.
        text: What was done, or what was waited for.
        undo: How to take it back; None where there is nothing to take back, or no way.
        outcome: What came of it, in words; empty where there is nothing to say.
    """

    at: float
    seconds: float
    text: str
    undo: str | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    One drill.

    Attributes:
        scenario: Which.
        started_at: Unix seconds.
        seconds: How long it took.
        platform: What it was done to, in words.
        environment: Name of the environment.
        version: Version of this program.
        steps: What was done.
        measured: What was measured.
        recovered: Seconds from the end of the fault until all was as before; None where there was no fault.
        may_be_unavailable: Who was expected not to answer.
        contains: Whether something had to be contained.
        faults: What did not go as it should; empty: everything did.
        notes: What was not done, and why.
        in_vain: Whether it was given up because a validator did not enforce in time.
    """

    scenario: str
    started_at: float
    seconds: float
    platform: str
    environment: str
    version: str
    steps: Sequence[StepDone]
    measured: Measured
    recovered: float | None
    may_be_unavailable: frozenset[str]
    contains: bool
    faults: Sequence[str] = ()
    notes: Sequence[str] = ()
    in_vain: bool = False

    @property
    def name(self) -> str:
        """Name of its files, without ending: the date, the time and the scenario."""
        return f"{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime(self.started_at))}-{self.scenario}"

    @property
    def findings(self) -> tuple[str, ...]:
        """What is not as it should be; empty: the drill went well."""
        measured = self.measured
        found = list(self.faults)
        if self.contains and measured.time_to_contain is None:
            late = [each.name for each in measured.validators if each.contained is None]
            found.append(f"not contained at {', '.join(late) or 'any validator'}")
        if measured.wrongly_accepted:
            found.append(f"{measured.wrongly_accepted} times a token was accepted that had to be refused")
        if measured.wrongly_refused:
            found.append(f"{measured.wrongly_refused} times a good token or client was refused")
        away = {name for name, count in measured.unavailable.items() if count} - self.may_be_unavailable
        found += [f"{name} did not answer {measured.unavailable[name]} times" for name in sorted(away)]
        return tuple(found)

    @property
    def went_well(self) -> bool:
        """Whether everything was as it should be."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return it for machines; seconds everywhere."""
        measured = self.measured
        return {
            "format": FORMAT,
            "scenario": self.scenario,
            "started_at": self.started_at,
            "seconds": _rounded(self.seconds),
            "platform": self.platform,
            "environment": self.environment,
            "version": self.version,
            "went_well": self.went_well,
            "findings": list(self.findings),
            "time_to_contain": _rounded(measured.time_to_contain),
            "recovered": _rounded(self.recovered),
            "wrongly_accepted": measured.wrongly_accepted,
            "wrongly_refused": measured.wrongly_refused,
            "unavailable": dict(measured.unavailable),
            "may_be_unavailable": sorted(self.may_be_unavailable),
            "mints": {
                "asked": measured.mints,
                "refused": measured.mints_refused,
                "unavailable": measured.mints_unavailable,
                "longest_gap": _rounded(measured.longest_mint_gap),
                "born_dead": measured.born_dead,
            },
            "validators": [
                asdict(each) | {"contained": _rounded(each.contained), "longest_gap": _rounded(each.longest_gap)}
                for each in measured.validators
            ],
            "steps": [
                asdict(step) | {"at": _rounded(step.at), "seconds": _rounded(step.seconds)} for step in self.steps
            ],
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """Return it for people."""
        measured = self.measured
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.started_at))
        where = f"{self.platform} (environment `{self.environment}`, Tokenry {self.version})"
        issuer = (
            f"| issuer | {measured.mints} | {measured.mints_unavailable}{self._expected('issuer')} | "
            f"{_seconds(measured.longest_mint_gap)} | {_NONE} | {_NONE} |"
        )
        lines = [
            f"# Drill: {self.scenario}",
            "",
            f"{when}, {self.seconds:.0f} s, on {where}.",
            "",
            "**It went as it should.**" if self.went_well else "**It did not go as it should:**",
            *([""] if self.findings else []),
            *(f"- {finding}" for finding in self.findings),
            "",
            "| measured | |",
            "|---|---|",
            f"| time to contain (first step to the last validator that enforces) | {self._contained()} |",
            f"| everything as before, after the end of the fault | {_seconds(self.recovered)} |",
            f"| wrongly accepted | {measured.wrongly_accepted} |",
            f"| wrongly refused | {measured.wrongly_refused} |",
            f"| tokens that were dead when they were issued | {measured.born_dead} |",
            "",
            "| who | asked | unavailable | longest gap | contained after | accepted until then |",
            "|---|---|---|---|---|---|",
            issuer,
        ]
        lines += [
            f"| {each.name} | {each.asked} | {each.unavailable}{self._expected(each.name)} | "
            f"{_seconds(each.longest_gap)} | {_seconds(each.contained)} | {each.accepted_meanwhile} |"
            for each in measured.validators
        ]
        lines += ["", "| at | took | step | undo |", "|---|---|---|---|"]
        lines += [
            f"| {step.at:.1f} s | {step.seconds:.1f} s | {_cell(step.text)}"
            f"{f': {_cell(step.outcome)}' if step.outcome else ''} | {_cell(step.undo or _NONE)} |"
            for step in self.steps
        ]
        if self.notes:
            lines += ["", "Not done, or not as in production:", "", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def _contained(self) -> str:
        return _seconds(self.measured.time_to_contain) if self.contains else "nothing was to be contained"

    def _expected(self, name: str) -> str:
        return " (expected)" if name in self.may_be_unavailable and self.measured.unavailable.get(name) else ""


def _seconds(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f} s"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
