"""Where audit lines go, by default the service's own log, and what makes them a chain on the way."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from tokenry.serving.audit_chain import AuditChain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.clock import Clock
    from tokenry.serving.audit_chain import Head


_RUN_BYTES: Final = 6  # random ones in the name of a chain


class AuditSink(Protocol):
    """Where audit lines go."""

    def __call__(self, event: str, fields: Mapping[str, object]) -> None:
        """Write one line."""
        ...


def write_to_log(event: str, fields: Mapping[str, object]) -> None:
    """Write one line to the service's own log, under the logger `tokenry.audit`."""
    structlog.get_logger("tokenry.audit").warning(event, audit=True, **fields)


def chain_name(replica: str) -> str:
    """Return the name of a new chain of *replica*: no other run of it has the same."""
    return f"{replica}.{secrets.token_hex(_RUN_BYTES)}"


class Chained:
    """A sink that makes its lines a chain and hands them on."""

    def __init__(self, sink: AuditSink, *, instance: str, clock: Clock) -> None:
        """
        Begin a chain.

        Args:
            sink: Where the lines go.
            instance: A name of this run of this process that no other run has.
            clock: Where the time comes from.
        """
        self._sink = sink
        self._clock = clock
        self._chain = AuditChain(instance)

    @property
    def head(self) -> Head:
        """Return the last line's number and hash."""
        return self._chain.head

    def __call__(self, event: str, fields: Mapping[str, object]) -> None:
        """Write one line."""
        record = self._chain.record(event, fields, now=self._clock.now())
        self._sink(event, {name: value for name, value in record.items() if name != "event"})
