"""
The composition root of the simulation: which class plays which part.

The default is the product. A mutant is the same with one part replaced (`mutants.py`); nothing is ever patched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.proof.quorum_store import QUORUM
from tokenry.sources.revocation_conversation import RevocationConversation
from tokenry.token_validator import TokenValidator
from tokenry_revocation.acceptance import Acceptance
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.adapters.cassandra_schema import StoreDescription
from tokenry_revocation.feed import Feed
from tokenry_revocation.handlers import Revocations

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.revocation.lists import RevocationList
    from tokenry.validation.snapshots import Snapshot

    SnapshotOfList = Snapshot[RevocationList] | None

REFUSE_SECONDS = 40.0
"""
S of the simulation: less than the life of a token (120 s), more than the age that a list reaches when all is well: in
quiet times the answer to a request that was held for 16 s is judged by until the next one, 16 s later, has come.
"""


def as_it_is(snapshot: SnapshotOfList, now: float, monotonic: float) -> SnapshotOfList:
    """Let a validator judge by the list that its source holds."""
    return snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """
    The parts of one simulated platform.

    Attributes:
        store: Adapter of the service, over the simulated replicas.
        description: What the store says of itself: retention, buckets, shards.
        feed: Reads the store and publishes.
        acceptance: Writes to the store and acknowledges.
        handlers: Answers `POST /revocations`.
        conversation: How a validator asks for the list, and what it makes of the answers.
        validator: Judges tokens.
        judged_by: What of the source's snapshot the validator judges by.
        refuse_age: Age of the list from which the validator refuses to judge.
        read_replicas: How many replicas a read asks.
        write_replicas: How many confirm a write.
        read_repair: Whether reads mend differences before they answer.
    """

    store: type[CassandraStore] = CassandraStore
    description: type[StoreDescription] = StoreDescription
    feed: type[Feed] = Feed
    acceptance: type[Acceptance] = Acceptance
    handlers: type[Revocations] = Revocations
    conversation: type[RevocationConversation] = RevocationConversation
    validator: type[TokenValidator] = TokenValidator
    judged_by: Callable[[SnapshotOfList, float, float], SnapshotOfList] = as_it_is
    refuse_age: float = REFUSE_SECONDS
    read_replicas: int = QUORUM
    write_replicas: int = QUORUM
    read_repair: bool = True


PRODUCT = Parts()
