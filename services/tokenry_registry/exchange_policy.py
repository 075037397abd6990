"""
Which tokens a client may exchange (RFC 8693), as its stored object says it.

    "token_exchange": {"subject_audiences": ["https://orders.example.org"], "subject_clients": ["web"], "max_depth": 3}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenry.errors import ProtocolError

if TYPE_CHECKING:
    from tokenry_registry.fields import Fields

DEFAULT_DEPTH: Final = 3  # exchanges in one chain; each is a hop of one request through the platform
MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePolicy:
    """
    Which tokens a client may exchange.

    Attributes:
        subject_audiences: Its own names: a token that was not meant for it is not its to exchange.
        subject_clients: Clients whose tokens it may exchange; None: of any.
        max_depth: How many exchanges a chain may have, this one included.
    """

    subject_audiences: frozenset[str]
    subject_clients: frozenset[str] | None = None
    max_depth: int = DEFAULT_DEPTH


def read_exchange_policy(fields: Fields) -> ExchangePolicy:
    """
    Return the policy that a client object has as `token_exchange`.

    Raises:
        ProtocolError: It is malformed, or names no audience.
    """
    audiences, clients = fields.names("subject_audiences"), fields.optional_names("subject_clients")
    if not audiences:
        raise ProtocolError("token_exchange names no subject_audiences: whose tokens would the client exchange?")
    policy = ExchangePolicy(
        subject_audiences=frozenset(audiences),
        subject_clients=None if clients is None else frozenset(clients),
        max_depth=fields.optional_integer("max_depth", at_least=1, at_most=MAX_DEPTH) or DEFAULT_DEPTH,
    )
    fields.finish()
    return policy
