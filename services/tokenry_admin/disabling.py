"""
Putting a client or user out of action together with the tokens that it holds.

1. A rule against its tokens that also blocks: until `block_until` no issuer signs a token that it fits.
2. `enabled: false` in the registry.
3. Wait until every issuer has read that: from here on none can sign one, block or not.
4. The final rule, against everything issued until now: there is nothing between the two for a token to slip through.

Each step leaves it no worse than before, and running the whole again is safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokenry_registry.realms import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tokenry.clock import Clock
    from tokenry_admin.clients import Changed, Editor
    from tokenry_admin.issuers import Settling
    from tokenry_registry.realms import ObjectKey

BLOCK_SECONDS: Final = 900  # longer than reading the registry and spreading the rule take, also on a bad day
_CLAIMS: Final = {ObjectKind.CLIENT: "client_id", ObjectKind.USER: "sub"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    """
    What came of it.

    Attributes:
        changed: The object.
        block: The answer to the first rule.
        final: The answer to the last one; its `status` is `pending` where a second person has to approve.
    """

    changed: Changed
    block: Mapping[str, Any]
    final: Mapping[str, Any]


async def disable_and_revoke(
    editor: Editor,
    key: ObjectKey,
    *,
    revoke: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]],
    settled: Settling,
    clock: Clock,
    reason: str,
    version: str | None = None,
) -> Disabled:
    """
    Disable *key* and revoke its tokens.

    Args:
        editor: Writes the registry.
        key: The client or user.
        revoke: Posts a revocation, and returns the service's answer.
        settled: Waits until the issuers have what was written.
        clock: Where the time comes from.
        reason: Why; kept with the revocations.
        version: The version that is meant; None: any.

    Raises:
        NotThere: There is no such client or user; nothing was revoked.
        WriteConflict: It is another version, or somebody else has written; a block is in force for a while.
        NotSettled: An issuer has not read it; the block is in force, run it again before that ends.
        TokenryError: What *revoke* raises, or the store: run it again.
    """
    await editor.documents.get(key)  # nothing is revoked by a slip of the hand
    claims = {_CLAIMS[key.kind]: key.name, "realm": key.realm}
    block = await revoke(
        {
            "type": "CLAIM",
            "data": {"claims": claims, "block_until": int(clock.now()) + BLOCK_SECONDS, "reason": reason},
        }
    )
    changed = await editor.switch(key, enabled=False, version=version)
    await settled(clock.monotonic())
    final = await revoke({"type": "CLAIM", "data": {"claims": claims, "reason": reason}})
    return Disabled(changed=changed, block=block, final=final)
