"""
The audit log of administration: who changed what, from what, to what. One structured line for each write.

Lines carry no secret and no hash. Each has the number of its place in this process's log, so that a gap shows.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from tokenry_admin.views import changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry_registry.realms import ObjectKey


class AuditSink(Protocol):
    """Where audit lines go."""

    def __call__(self, event: str, fields: Mapping[str, object]) -> None:
        """Write one line."""
        ...


def write_to_log(event: str, fields: Mapping[str, object]) -> None:
    """Write one line to the service's own log, under the logger `tokenry.audit`."""
    structlog.get_logger("tokenry.audit").warning(event, audit=True, **fields)


class AuditLog:
    """Numbers the lines and knows what belongs into them."""

    def __init__(self, sink: AuditSink = write_to_log) -> None:
        """Write to *sink*."""
        self._sink = sink
        self._numbers = count(1)

    def written(
        self,
        action: str,
        key: ObjectKey,
        *,
        actor: Mapping[str, Any],
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """Note that *actor* has done *action* to the object *key*; None: it was not there, or is gone."""
        self.noted(
            action,
            actor=actor,
            kind=str(key.kind),
            realm=key.realm,
            name=key.name or key.realm,
            existed=before is not None,
            exists=after is not None,
            changed=changed(before, after),
        )

    def noted(self, action: str, *, actor: Mapping[str, Any], **fields: object) -> None:
        """Note that *actor* has done *action*; *fields* say what to, and carry no secret."""
        self._sink(action, {"number": next(self._numbers), "actor": dict(actor), **fields})
