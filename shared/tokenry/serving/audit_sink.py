"""Where audit lines go, and by default: the service's own log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping


class AuditSink(Protocol):
    """Where audit lines go."""

    def __call__(self, event: str, fields: Mapping[str, object]) -> None:
        """Write one line."""
        ...


def write_to_log(event: str, fields: Mapping[str, object]) -> None:
    """Write one line to the service's own log, under the logger `tokenry.audit`."""
    structlog.get_logger("tokenry.audit").warning(event, audit=True, **fields)
