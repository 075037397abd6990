"""
The audit log of administration: who changed what, from what, to what. One structured line for each write.

Lines carry no secret and no hash of one. They are a hash chain (`tokenry.serving.audit_chain`), so that a change and a
gap show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenry_admin.views import changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.serving.audit_sink import AuditSink
    from tokenry_registry.realms import ObjectKey


class AuditLog:
    """Knows what belongs into the lines."""

    def __init__(self, sink: AuditSink) -> None:
        """Write to *sink*."""
        self._sink = sink

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
        self._sink(action, {"actor": dict(actor), **fields})
