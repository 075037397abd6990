"""
Who may revoke what. Pure: a verified token, the rules in force, and a request; the answer is a permission or
a refusal.

A rule lets callers with certain claims revoke by certain claims, such as a team's tools by `sub` within its
realm. It is an object in the credentials' bucket, managed as code. `fixed` says the value, `free` only the
name, and a request has to give exactly these names: one that leaves a free name out would revoke far more
than the rule meant.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import parse_json_object
from tokenry_revocation.requests import ClaimsTarget, GlobalTarget, KeyTarget, canonical_claim

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenry.claims import TokenInfo
    from tokenry_revocation.requests import Target

WRITE: Final = "revocation.write"
ADMIN: Final = "revocation.admin"
UNDO: Final = "revocation.undo"
AUDIT: Final = "audit.read"

MAX_RULE_BYTES = 64 * 1024
MAX_RULE_NAME = 200  # it is part of an object's key, and of log lines


class NotAllowed(TokenryError):
    """
    The caller is known and may not do this.

    Attributes:
        scope: The scope that would allow it.
    """

    def __init__(self, message: str, *, scope: str) -> None:
        """Refuse with *message*, which names no value of a claim."""
        self.scope = scope
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    One rule: who may revoke by which claims.

    Attributes:
        name: The object's name.
        digest: SHA-256 of the object, for the audit log: which text allowed it.
        caller: Claims that the caller's token must have, by canonical name; never empty.
        fixed: Claims that a request must give with just this value, by canonical name.
        free: Claims that a request must give with any value, by canonical name.
    """

    name: str
    digest: str
    caller: Mapping[str, str] = field(repr=False)
    fixed: Mapping[str, str] = field(repr=False)
    free: frozenset[str]

    def __post_init__(self) -> None:
        """Refuse a rule for everybody, a rule about nothing, and one that contradicts itself."""
        if not self.caller:
            raise ProtocolError("a rule without claims of the caller would be a rule for everybody")
        if not (self.fixed or self.free):
            raise ProtocolError("a rule names at least one claim that may be revoked by")
        if self.fixed.keys() & self.free:
            raise ProtocolError("a claim is either fixed or free")

    def allows(self, caller: TokenInfo, target: ClaimsTarget) -> bool:
        """Tell whether the rule is about *caller* and allows *target*."""
        return self._is_about(caller) and self._covers(dict(target.claims))

    def _is_about(self, caller: TokenInfo) -> bool:
        return all(_claim(caller, name) == value for name, value in self.caller.items())

    def _covers(self, claims: Mapping[str, str]) -> bool:
        return claims.keys() == self.fixed.keys() | self.free and self.fixed.items() <= claims.items()


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """
    What allowed a request, for the audit log.

    Attributes:
        scope: The caller's scope that it rests upon.
        rule: Name and digest of the rule, as `name@digest`; None where the scope alone is enough.
    """

    scope: Literal["revocation.write", "revocation.admin", "revocation.undo"]
    rule: str | None = None


def parse_rule(name: str, document: bytes) -> Rule:
    """
    Return the rule *name* that *document* holds.

    Raises:
        ProtocolError: It is malformed or has members that are not known: a rule that is half understood
            allows nothing.
    """
    if len(document) > MAX_RULE_BYTES or not 0 < len(name) <= MAX_RULE_NAME:
        raise ProtocolError("the rule or its name is too long")
    members = parse_json_object(document)
    may_revoke = members.pop("may_revoke", None)
    caller = _claims(members.pop("caller", None))
    if members or not isinstance(may_revoke, dict) or may_revoke.keys() - {"fixed", "free"}:
        raise ProtocolError("a rule has the members caller and may_revoke, and that one fixed and free")
    return Rule(
        name=name,
        digest=hashlib.sha256(document).hexdigest(),
        caller=caller,
        fixed=_claims(may_revoke.get("fixed", {})),
        free=_names(may_revoke.get("free", [])),
    )


def authorize(caller: TokenInfo, target: Target, *, rules: Iterable[Rule]) -> Permission:
    """
    Return what allows *caller* to revoke *target*.

    Raises:
        NotAllowed: Nothing does.
    """
    # 1. the administrator's scope allows everything
    if ADMIN in caller.scope:
        return Permission(scope=ADMIN)
    # 2. keys, everything at once and blocks need it
    if isinstance(target, KeyTarget | GlobalTarget):
        raise NotAllowed(f"revoking keys, or all tokens, needs the scope {ADMIN}", scope=ADMIN)
    if isinstance(target, ClaimsTarget) and target.block_until is not None:
        raise NotAllowed(f"block_until needs the scope {ADMIN}", scope=ADMIN)
    # 3. single tokens need the scope to write
    if WRITE not in caller.scope:
        raise NotAllowed(f"revoking needs the scope {WRITE}", scope=WRITE)
    if not isinstance(target, ClaimsTarget):
        return Permission(scope=WRITE)
    # 4. and claims a rule besides
    for rule in rules:
        if rule.allows(caller, target):
            return Permission(scope=WRITE, rule=f"{rule.name}@{rule.digest[:16]}")
    raise NotAllowed(f"no rule lets this caller revoke by these claims; {ADMIN} needs none", scope=ADMIN)


def authorize_writing(caller: TokenInfo) -> None:
    """
    Return when *caller* may revoke anything at all; what it may is decided for each target.

    Raises:
        NotAllowed: It has neither scope to revoke.
    """
    if not caller.scope & {WRITE, ADMIN}:
        raise NotAllowed(f"revoking needs the scope {WRITE}", scope=WRITE)


def authorize_undo(caller: TokenInfo) -> Permission:
    """
    Return what allows *caller* to take a revocation back.

    Raises:
        NotAllowed: It lacks the scope, which no other scope includes: who stops tokens is not by that who
            revives them.
    """
    if UNDO not in caller.scope:
        raise NotAllowed(f"taking a revocation back needs the scope {UNDO}", scope=UNDO)
    return Permission(scope=UNDO)


def authorize_admin(caller: TokenInfo) -> Permission:
    """
    Return what allows *caller* an action for administrators.

    Raises:
        NotAllowed: It lacks the scope.
    """
    if ADMIN not in caller.scope:
        raise NotAllowed(f"this needs the scope {ADMIN}", scope=ADMIN)
    return Permission(scope=ADMIN)


def authorize_reading(caller: TokenInfo) -> None:
    """
    Return when *caller* may see who revoked what and which validators there are.

    Raises:
        NotAllowed: It has none of the scopes to revoke or to undo.
    """
    if not caller.scope & {WRITE, ADMIN, UNDO}:
        raise NotAllowed(f"this needs the scope {WRITE}", scope=WRITE)


def authorize_audit(caller: TokenInfo) -> None:
    """
    Return when *caller* may see who did what.

    Raises:
        NotAllowed: It has neither the scope for that nor the administrators'.
    """
    if not caller.scope & {AUDIT, ADMIN}:
        raise NotAllowed(f"this needs the scope {AUDIT}", scope=AUDIT)


def _claim(caller: TokenInfo, name: str) -> object:
    if name == "client_id":
        return caller.client_id
    value = caller.claims.get(name)
    return canonical_claim(name, value)[1] if isinstance(value, str) else None


def _claims(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) and each for each in value.values()):
        raise ProtocolError("claims of a rule are an object of names and non-empty strings")
    pairs = [canonical_claim(name, each) for name, each in value.items()]
    if len(dict(pairs)) != len(pairs):
        raise ProtocolError("azp and client_id are one claim")
    return dict(pairs)


def _names(value: Any) -> frozenset[str]:  # noqa: ANN401 -- any JSON value
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ProtocolError("free is a list of names")
    return frozenset(canonical_claim(name, "")[0] for name in value)
