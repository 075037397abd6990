"""
The rules in force, refreshed in the background.

An object that cannot be read, or is no rule, is reported and counted, and its last good version stays in
force; one that is gone is gone at the next refresh. While the source does not answer, the rules stay as they
are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from tokenry.errors import ProtocolError, TokenryError
from tokenry_revocation.authorization import Rule, parse_rule

if TYPE_CHECKING:
    from collections.abc import Collection

    from tokenry.clock import Clock
    from tokenry_revocation.metrics import ServiceMetrics

REFRESH_SECONDS: Final = 30.0  # a rule that was taken away is out of force within a minute
MAX_RULES: Final = 1000  # each is looked at for each request by claims
FOLDER: Final = "revocation-rules/"
SUFFIX: Final = ".json"

_log = structlog.get_logger("tokenry.revocation.rules")


class RulesUnavailable(TokenryError):
    """The source of the rules does not answer; what is held stays in force."""


class RuleObjects(Protocol):
    """Where the rule objects are. Calls may block; they are made in a thread."""

    def list(self) -> dict[str, str]:
        """
        Return the names of the rules, each with a text that changes when its object does.

        Raises:
            RulesUnavailable: They cannot be listed.
        """
        ...

    def get(self, name: str) -> bytes:
        """
        Return the object of the rule *name*.

        Raises:
            RulesUnavailable: It cannot be read.
        """
        ...


class NoRules:
    """No source is configured: only administrators revoke by claims."""

    def list(self) -> dict[str, str]:
        """Return nothing."""
        return {}

    def get(self, name: str) -> bytes:
        """Find nothing."""
        raise RulesUnavailable(f"there is no rule {name}")


class RuleBook:
    """The last good rules."""

    def __init__(self, objects: RuleObjects, *, clock: Clock, metrics: ServiceMetrics) -> None:
        """Begin without rules: until the first refresh only administrators revoke by claims."""
        self._objects = objects
        self._clock = clock
        self._metrics = metrics
        self._rules: dict[str, tuple[str, Rule]] = {}
        self._rejected: dict[str, str] = {}
        self._refreshed_at: float | None = None

    def rules(self) -> tuple[Rule, ...]:
        """Return the rules in force."""
        return tuple(rule for _, rule in self._rules.values())

    @property
    def rejected(self) -> tuple[str, ...]:
        """Return the names of objects whose newest version is no rule."""
        return tuple(self._rejected)

    def age(self) -> float:
        """Return the seconds since the last refresh; infinite before the first."""
        return float("inf") if self._refreshed_at is None else self._clock.monotonic() - self._refreshed_at

    async def run(self) -> None:
        """Refresh for ever; a failure is reported, and tried again at the next turn."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> bool:
        """Bring the rules up to date and return whether the source answered."""
        began = self._clock.monotonic()
        try:
            listed = await asyncio.to_thread(self._objects.list)
            _check_number(listed)
            changed = [name for name, tag in listed.items() if not self._is_known(name, tag)]
            documents = {name: await asyncio.to_thread(self._objects.get, name) for name in changed}
        except RulesUnavailable as error:
            _log.warning("the rules cannot be refreshed; those held stay in force", error=str(error))
            return False
        except Exception as error:  # noqa: BLE001
            # A driver's own exception must not end the loop, and its text may name more than we want to log.
            _log.exception("refreshing the rules broke", error=type(error).__name__)
            return False
        self._rules = {name: held for name, held in self._rules.items() if name in listed}
        self._rejected = {name: tag for name, tag in self._rejected.items() if name in listed}
        for name, document in documents.items():
            self._take(name, listed[name], document)
        self._refreshed_at = began
        return True

    def _is_known(self, name: str, tag: str) -> bool:
        held = self._rules.get(name)
        return self._rejected.get(name) == tag or (held is not None and held[0] == tag)

    def _take(self, name: str, tag: str, document: bytes) -> None:
        try:
            rule = parse_rule(name, document)
        except ProtocolError as error:
            self._rejected[name] = tag
            self._metrics.rules_rejected.inc()
            _log.error("a rule was refused; its last good version stays in force", rule=name, error=str(error))
            return
        self._rejected.pop(name, None)
        self._rules[name] = (tag, rule)
        _log.info("a rule is in force", rule=name, digest=rule.digest[:16])


def _check_number(listed: Collection[str]) -> None:
    if len(listed) > MAX_RULES:
        raise RulesUnavailable(f"there are more than {MAX_RULES} rules: none of the changes is taken")
