"""
Liveness and readiness.

Alive (`/healthz`) means that the process answers: it depends on nothing else, so that the outage of a
dependency never makes the orchestrator restart us. Ready (`/readyz`) means that the service can do its job
now. A check that is *degraded* is shown and stays ready: it is a warning with time left to act.

    health = Health()
    health.add("keys", lambda: ok("2 keys") if source.snapshot() else failed("no key set yet"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog

_log = structlog.get_logger("tokenry.serving.health")


class Status(StrEnum):
    """How one part is."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What a check found.

    Attributes:
        status: How the part is.
        detail: One line for people; no secret.
    """

    status: Status
    detail: str = ""


Check = Callable[[], Finding]


def ok(detail: str = "") -> Finding:
    """Return the finding of a part that works."""
    return Finding(Status.OK, detail)


def degraded(detail: str) -> Finding:
    """Return the finding of a part that still works and needs attention."""
    return Finding(Status.DEGRADED, detail)


def failed(detail: str) -> Finding:
    """Return the finding of a part without which the service cannot do its job."""
    return Finding(Status.FAILED, detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    The findings of all checks at one moment.

    Attributes:
        status: The worst of them; FAILED while draining.
        findings: Each check's finding, by name.
        draining: Whether the service is about to stop.
    """

    status: Status
    findings: dict[str, Finding]
    draining: bool

    @property
    def ready(self) -> bool:
        """Tell whether requests may be sent here."""
        return self.status is not Status.FAILED

    def body(self) -> dict[str, Any]:
        """Return the report as the JSON of `/readyz?verbose`."""
        return {
            "status": self.status.value,
            "draining": self.draining,
            "checks": {
                name: {"status": finding.status.value, "detail": finding.detail}
                for name, finding in self.findings.items()
            },
        }


class Health:
    """Named checks, and whether the service is draining."""

    def __init__(self) -> None:
        """Start with no check and not draining."""
        self._checks: dict[str, Check] = {}
        self._draining = False
        self._on_drain: list[Callable[[], None]] = []

    @property
    def draining(self) -> bool:
        """Tell whether the service is about to stop."""
        return self._draining

    def add(self, name: str, check: Check) -> None:
        """Add *check*, which must be quick and never wait; its *name* is shown in the verbose report."""
        if name in self._checks:
            raise ValueError(f"there is a check called {name} already")
        self._checks[name] = check

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call *callback* (once, on the event loop) when draining begins: to answer what is held."""
        self._on_drain.append(callback)

    def drain(self) -> None:
        """Become not ready for good: the first step of a stop. A second call does nothing."""
        if self._draining:
            return
        self._draining = True
        for callback in self._on_drain:
            try:
                callback()
            except Exception as error:  # noqa: BLE001 -- one part's fault must not stop the stop
                _log.error("drain callback failed", error=type(error).__name__)

    def report(self) -> Report:
        """Run all checks and return what they found."""
        findings = {name: _run(name, check) for name, check in self._checks.items()}
        statuses = {finding.status for finding in findings.values()}
        if self._draining or Status.FAILED in statuses:
            worst = Status.FAILED
        elif Status.DEGRADED in statuses:
            worst = Status.DEGRADED
        else:
            worst = Status.OK
        return Report(status=worst, findings=findings, draining=self._draining)


def _run(name: str, check: Check) -> Finding:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 -- a check that breaks is a failed check
        _log.error("health check broke", check=name, error=type(error).__name__)
        return failed("the check itself broke; see the log")
