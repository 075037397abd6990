"""
The credentials in force: one immutable value, and the rules by which the next one may follow it. Pure.

* The names of a realm's clients and users are disjoint, so that a token's `sub` never means two things. Where
  both exist the client stays and the user is refused, the same on every replica.
* A refresh that would remove everything, or more than a share of what there was, is refused: a listing that
  came back empty or short looks exactly like a deletion. Single deletions go through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenry_issuer.passwords import Decoy
from tokenry_registry.realms import Client, ObjectKey, ObjectKind, Realm, Refusal, RefusedObject, User
from tokenry_registry.trust_rules import TrustRule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

ALWAYS_ALLOWED_REMOVALS = 10  # objects: a day's ordinary clearing out, whatever the size of the registry
SMALL_REALM = 3  # names: a realm of at most so many may be removed whole

Value = Realm | Client | User | TrustRule


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmCredentials:
    """
    One realm with its names.

    Attributes:
        realm: The realm.
        clients: Its clients by id.
        users: Its users by name.
        trust: Its trust rules by the foreign issuer, in the order of their names.
        client_decoy: The work of a failed client authentication.
        user_decoy: The work of a failed user authentication.
    """

    realm: Realm
    clients: Mapping[str, Client] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    trust: Mapping[str, tuple[TrustRule, ...]] = field(default_factory=dict)
    client_decoy: Decoy = field(default_factory=Decoy)
    user_decoy: Decoy = field(default_factory=Decoy)


@dataclass(frozen=True, slots=True)
class Registry:
    """
    All credentials in force.

    Attributes:
        realms: By name, with the leading slash.
    """

    realms: Mapping[str, RealmCredentials] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many realms, clients, users and trust rules there are."""
        return sum(
            1 + len(each.clients) + len(each.users) + sum(map(len, each.trust.values()))
            for each in self.realms.values()
        )


def assemble(values: Mapping[ObjectKey, Value]) -> tuple[Registry, tuple[ObjectKey, ...]]:
    """
    Return the registry of *values*, and the users that were left out because a client has their name.

    A client or user of a realm that has no object of its own is not in force.
    """
    clients: dict[str, dict[str, Client]] = {}
    users: dict[str, dict[str, User]] = {}
    trust: dict[str, list[TrustRule]] = {}
    taken: list[ObjectKey] = []
    for key, value in values.items():
        if isinstance(value, Client):
            clients.setdefault(key.realm, {})[key.name] = value
        elif isinstance(value, TrustRule):
            trust.setdefault(key.realm, []).append(value)
        elif isinstance(value, User):
            if ObjectKey(ObjectKind.CLIENT, key.realm, key.name) in values:
                taken.append(key)
            else:
                users.setdefault(key.realm, {})[key.name] = value
    realms = {
        value.name: _credentials(
            value,
            clients=clients.get(value.name, {}),
            users=users.get(value.name, {}),
            trust=trust.get(value.name, []),
        )
        for value in values.values()
        if isinstance(value, Realm)
    }
    return Registry(realms), tuple(taken)


def _credentials(
    realm: Realm, *, clients: Mapping[str, Client], users: Mapping[str, User], trust: Iterable[TrustRule]
) -> RealmCredentials:
    by_issuer: dict[str, tuple[TrustRule, ...]] = {}
    for rule in sorted(trust, key=lambda rule: rule.name):
        by_issuer[rule.issuer] = (*by_issuer.get(rule.issuer, ()), rule)
    return RealmCredentials(
        realm=realm,
        clients=clients,
        users=users,
        trust=by_issuer,
        client_decoy=Decoy.for_all([secret.hash for secret in client.secrets] for client in clients.values()),
        user_decoy=Decoy.for_all([secret.hash for secret in user.passwords] for user in users.values()),
    )


def check_removals(before: Collection[ObjectKey], gone: Collection[ObjectKey], *, share: float) -> None:
    """
    Refuse a refresh that removes too much.

    Args:
        before: What is in force.
        gone: What of it the store no longer lists.
        share: The part of all objects that may go at once, besides `ALWAYS_ALLOWED_REMOVALS`; 1 allows
            anything but the removal of everything.

    Raises:
        RefusedObject: With what it would remove.
    """
    if not gone:
        return
    if len(gone) == len(before):
        raise RefusedObject(Refusal.MASS_REMOVAL, "nothing of what is in force is listed any more")
    if share >= 1:
        return
    if len(gone) > max(ALWAYS_ALLOWED_REMOVALS, math.floor(share * len(before))):
        raise RefusedObject(Refusal.MASS_REMOVAL, f"{len(gone)} of {len(before)} objects would be removed at once")
    for name in {key.realm for key in gone}:
        _check_realm(name, _of_realm(before, name), gone)


def _check_realm(name: str, members: Collection[ObjectKey], gone: Collection[ObjectKey]) -> None:
    names = [key for key in members if key.kind is not ObjectKind.REALM]
    emptied = all(key in gone for key in names) or ObjectKey(ObjectKind.REALM, name, "") in gone
    if emptied and len(names) > SMALL_REALM:
        raise RefusedObject(Refusal.MASS_REMOVAL, f"the realm {name} with {len(names)} names would be emptied")


def _of_realm(keys: Iterable[ObjectKey], name: str) -> list[ObjectKey]:
    return [key for key in keys if key.realm == name]
