"""
The registry as code: what is wanted, what is there, and the writes between the two. Pure, but for `carry_out`.

What is wanted never says secrets: those are made and rotated, and stay as they are. Everything else of an object is
what the file says, so a member that the file leaves out is taken away, and applying a file twice writes nothing the
second time.

Writes are in an order in which each may be the last one: realms before what is in them, new and changed objects
before those that are taken away.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import TokenryError
from tokenry_admin.documents import CONCURRENT_READS, NotValid
from tokenry_admin.views import ID_MEMBERS, SECRETS, changed, without_hashes
from tokenry_registry.ports import WriteConflict
from tokenry_registry.realms import ObjectKey, ObjectKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tokenry_admin.clients import Editor
    from tokenry_admin.documents import Document, Documents

# What a file may say of each kind. `version`, secrets and (but for realms) `environment` are not a file's to say.
MEMBERS: Final[Mapping[ObjectKind, frozenset[str]]] = {
    ObjectKind.REALM: frozenset({
        "realm", "token_lifetime", "claims_profile", "typ", "grant_types", "default_scopes", "audience", "description",
        "owner",
    }),
    ObjectKind.CLIENT: frozenset({
        "client_id", "scopes", "default_scopes", "audiences", "grant_types", "token_lifetime", "enabled", "jwks",
        "jwks_uri", "assertion_audience", "tls_client_auth", "token_exchange", "certificate_bound_access_tokens",
        "dpop", "description", "owner", "application",
    }),
    ObjectKind.USER: frozenset({
        "username", "scopes", "clients", "enabled", "description", "owner", "application",
    }),
}  # fmt: skip
_SETS: Final = frozenset({"scopes", "default_scopes", "audiences", "grant_types", "clients"})
_ORDER: Final = {kind: place for place, kind in enumerate(ObjectKind)}


class Action(StrEnum):
    """What is done to one object."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    One write of a plan.

    Attributes:
        action: What is done.
        key: To what.
        before: What is there; None: nothing.
        members: What is to be there; None: nothing.
    """

    action: Action
    key: ObjectKey
    before: Document | None = field(default=None, repr=False)
    members: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def changes(self) -> dict[str, Any]:
        """What differs, by member, without hashes."""
        if self.action is Action.DELETE:
            return {}
        if self.before is None:
            return {
                name: {"before": None, "after": value} for name, value in without_hashes(self.members or {}).items()
            }
        return changed(self.before.members, self.members)


def plan(
    wanted: Mapping[ObjectKey, Mapping[str, Any]], there: Iterable[Document], *, prune: bool, environment: str
) -> tuple[Step, ...]:
    """
    Return what makes what is *there* what is *wanted*.

    Args:
        wanted: Members by key, without secrets.
        there: Every object of the realms that *wanted* speaks of.
        prune: Also delete the clients and users of these realms that are not wanted; realms are never deleted.
        environment: The environment of new realms.

    Raises:
        NotValid: A member is not a file's to say.
    """
    known = {document.key: document for document in there}
    steps = [_step(key, members, known.get(key), environment) for key, members in wanted.items()]
    if prune:
        realms = {key.realm for key in wanted}
        steps += [
            Step(action=Action.DELETE, key=key, before=document)
            for key, document in known.items()
            if key not in wanted and key.kind in SECRETS and key.realm in realms
        ]
    return tuple(sorted(steps, key=_place))


def _place(step: Step) -> tuple[bool, int, str, str]:
    return step.action is Action.DELETE, _ORDER[step.key.kind], step.key.realm, step.key.name


def _step(key: ObjectKey, wanted: Mapping[str, Any], before: Document | None, environment: str) -> Step:
    if unknown := wanted.keys() - MEMBERS[key.kind]:
        raise NotValid(f"{key.name or key.realm}: {', '.join(sorted(unknown))}: there is no such member")
    members = {ID_MEMBERS[key.kind]: key.name or key.realm, **wanted}
    if key.kind is ObjectKind.REALM:
        members["environment"] = environment
    for name in _SETS & members.keys():
        if isinstance(members[name], list) and all(isinstance(item, str) for item in members[name]):
            members[name] = sorted(members[name])
    if before is None:
        return Step(action=Action.CREATE, key=key, members=members)
    kept = {name: before.members[name] for name in _kept(key.kind) if name in before.members}
    after = {**members, **kept}
    same = _normal(after) == _normal(before.members)
    return Step(action=Action.NOTHING if same else Action.CHANGE, key=key, before=before, members=after)


def _kept(kind: ObjectKind) -> tuple[str, ...]:
    return tuple(name for name in (SECRETS.get(kind), "version") if name is not None)


def _normal(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return *members* so that two which say the same are equal: the order of sets says nothing."""
    return {
        name: sorted(value) if name in _SETS and isinstance(value, list) else value for name, value in members.items()
    }


async def read_realms(
    documents: Documents, realms: Iterable[str]
) -> tuple[Sequence[Document], Mapping[ObjectKey, str]]:
    """
    Return every object of *realms*, and why others of them cannot be read.

    Raises:
        StoreUnavailable: The store does not answer.
    """
    keys = [key for realm in sorted(set(realms)) for key in await documents.keys(realm=realm)]
    return await documents.read_all(keys)


async def carry_out(steps: Iterable[Step], editor: Editor, *, done: Callable[[Step], None] = lambda _step: None) -> int:
    """
    Do the *steps*, several at once where they do not need one another, and return how many objects were written.

    Args:
        steps: From `plan`.
        editor: Writes them.
        done: Called after each write.

    Raises:
        WriteConflict: Somebody else has written meanwhile: what was done stays, plan again.
        Taken: Likewise, or a client would have the name of a user.
        NotValid: An issuer would refuse it; nothing of what comes after it is done.
        WrongRealm: Its realm is not there, or belongs to another environment.
        WriteRefused: The store does not let us.
        StoreUnavailable: It does not answer; applying again goes on.
    """
    written = 0
    for _, group in groupby((step for step in steps if step.action is not Action.NOTHING), key=_phase):
        written += await _carry_out_group(iter(list(group)), editor, done)
    return written


def _phase(step: Step) -> int:
    """Return a number that is the same for steps that do not need one another."""
    return 2 if step.action is Action.DELETE else int(step.key.kind is not ObjectKind.REALM)


async def _carry_out_group(steps: Iterator[Step], editor: Editor, done: Callable[[Step], None]) -> int:
    written, failures = 0, list[BaseException]()

    async def work() -> None:
        nonlocal written
        # The workers share one iterator. What one has begun is finished; after a failure nothing new is begun.
        for step in steps:
            try:
                await _carry_out_one(step, editor)
            except TokenryError as error:
                failures.append(error)
            else:
                written += 1
                done(step)
            if failures:
                return

    await asyncio.gather(*(work() for _ in range(CONCURRENT_READS)))
    if failures:
        raise failures[0]
    return written


async def _carry_out_one(step: Step, editor: Editor) -> None:
    if step.members is None:
        if step.before is None:
            raise WriteConflict
        await editor.delete(step.before)
    elif step.before is None:
        await editor.create(step.key, step.members)
    else:
        await editor.replace(step.before, step.members)
