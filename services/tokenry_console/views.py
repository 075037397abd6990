"""
What services answer, as values of a known form. Pure.

Whatever is missing, of another type or out of range reads as not known: a page shows a dash, and never fails for
what one service says. Texts are cut; they are escaped where they are shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_TEXT: Final = 300
MAX_ITEMS: Final = 2000
MAX_MOMENT: Final = 40  # characters of a time
STALE_SECONDS: Final = 60.0  # two polls
GONE_SECONDS: Final = 60.0
ENDED: Final = "ended"
NOT_KNOWN: Final = "not known"
_MAX_TIME: Final = 1e11


def text(members: Mapping[str, Any], name: str) -> str | None:
    """Return a text that is there and not empty."""
    value = members.get(name)
    return value[:MAX_TEXT] if isinstance(value, str) and value else None


def number(members: Mapping[str, Any], name: str) -> float | None:
    """Return a number that is there, finite, and of a size that times and counts have."""
    value = members.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 2**53 else None


def moment(members: Mapping[str, Any], name: str) -> float | None:
    """Return Unix seconds that can be shown as a date."""
    value = number(members, name)
    return value if value is not None and 0 <= value < _MAX_TIME else None


def flag(members: Mapping[str, Any], name: str) -> bool | None:
    """Return true or false if it is there."""
    value = members.get(name)
    return value if isinstance(value, bool) else None


def texts(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the texts of a list."""
    value = members.get(name)
    if not isinstance(value, list):
        return ()
    return tuple(each[:MAX_TEXT] for each in value[:MAX_ITEMS] if isinstance(each, str))


def objects(members: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    value = members.get(name)
    return [each for each in value[:MAX_ITEMS] if isinstance(each, dict)] if isinstance(value, list) else []


def actor_name(value: object) -> str | None:
    """Return who an actor is: the subject, and the client where it is another one."""
    if isinstance(value, str):
        return value[:MAX_TEXT] or None
    if not isinstance(value, dict):
        return None
    sub, client = text(value, "sub"), text(value, "client_id")
    return f"{sub} ({client})" if sub and client and sub != client else sub or client


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """
    One validator as the revocation service knows it.

    Attributes:
        name: The name that it gives itself.
        version: Its version of the library.
        last_heard: Unix seconds of its last poll or report.
        complete_until: Unix seconds up to which it has every revocation.
        lag: Seconds since then, by the service's clock.
        list_age: Seconds that its list was old when it reported.
        is_verified: Whether its last report carried a bearer.
        enforced_at: Unix seconds since when it enforces the revocation that was asked about.
        silent: Seconds since it was last heard of.
    """

    name: str
    version: str
    last_heard: float | None
    complete_until: float | None
    lag: float | None
    list_age: float | None
    is_verified: bool
    enforced_at: float | None
    silent: float | None

    @classmethod
    def of(cls, members: Mapping[str, Any], *, now: float) -> Validator:
        """Return what *members* say, at *now* by the service's clock."""
        heard = max(
            (each for each in (moment(members, "last_poll"), moment(members, "reported_at")) if each is not None),
            default=None,
        )
        return cls(
            name=text(members, "name") or "?",
            version=text(members, "version") or "?",
            last_heard=heard,
            complete_until=moment(members, "applied_as_of"),
            lag=number(members, "lag"),
            list_age=number(members, "list_age"),
            is_verified=flag(members, "verified") or False,
            enforced_at=moment(members, "enforced_at"),
            silent=None if heard is None else max(0.0, now - heard),
        )

    @property
    def is_stale(self) -> bool:
        """Whether it misses revocations of the last minute, or nobody can say what it has."""
        return self.lag is None or self.lag > STALE_SECONDS

    @property
    def is_silent(self) -> bool:
        """Whether it was not heard of for two polls."""
        return self.silent is None or self.silent > GONE_SECONDS

    @property
    def state(self) -> str:
        """What to call its state."""
        if self.is_silent:
            return "silent"
        return "stale" if self.is_stale else "fresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """
    All validators at one moment.

    Attributes:
        now: Unix seconds, by the service's clock.
        replicas: Replicas of the revocation service whose views are in it.
        validators: By name.
    """

    now: float
    replicas: int
    validators: tuple[Validator, ...]

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Fleet:
        """Return what `GET /validators` answered."""
        now = moment(members, "now") or 0.0
        return cls(
            now=now,
            replicas=int(number(members, "replicas") or 0),
            validators=tuple(Validator.of(each, now=now) for each in objects(members, "validators")),
        )

    @property
    def stale(self) -> tuple[Validator, ...]:
        """Those that miss something, or that are not heard of."""
        return tuple(each for each in self.validators if each.is_stale or each.is_silent)

    @property
    def slowest(self) -> float | None:
        """The largest lag in seconds."""
        return max((each.lag for each in self.validators if each.lag is not None), default=None)

    @property
    def main_version(self) -> str | None:
        """The version that most have."""
        versions = [each.version for each in self.validators]
        return max(sorted(set(versions)), key=versions.count) if versions else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """
    One revocation: what the list, the audit log and the service say of it.

    Attributes:
        id: Its name.
        type: TOKEN, CLAIM, KEY, GLOBAL, or what the service calls it.
        names: Names of the claims that it goes by.
        at: Unix seconds at which it was accepted.
        until: Unix seconds until which it matters; None for ever, or not known.
        issued_before: The cut-off.
        actor: Who asked.
        approved_by: Who approved.
        reason: Why.
        ticket: Where the incident is written down.
        state: in force, waiting, undone, ended, or not known.
        denied: How many tokens were refused since.
        propagated_by: Unix seconds by which validators are expected to enforce it.
        undone_by: Id of what took it back.
        expires_at: Unix seconds at which what waits cannot be approved any more.
    """

    id: str
    type: str = "?"
    names: tuple[str, ...] = ()
    at: float | None = None
    until: float | None = None
    issued_before: float | None = None
    actor: str | None = None
    approved_by: str | None = None
    reason: str | None = None
    ticket: str | None = None
    state: str = NOT_KNOWN
    denied: int | None = None
    propagated_by: float | None = None
    undone_by: str | None = None
    expires_at: float | None = None

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Revocation:
        """Return what `GET /revocations/{id}` answered."""
        undone = members.get("undone")
        waiting = text(members, "status") == "pending"
        if waiting:
            state = "waiting"
        elif isinstance(undone, dict):
            state = "undone"
        else:
            state = "in force" if flag(members, "in_force") else "ended"
        denied = number(members, "denied")
        return cls(
            id=text(members, "id") or "?",
            type=text(members, "type") or "?",
            names=texts(members, "names"),
            at=moment(members, "created_at") or moment(members, "revoked_at") or moment(members, "asked_at"),
            until=moment(members, "in_force_until"),
            issued_before=moment(members, "issued_before"),
            actor=actor_name(members.get("by")),
            approved_by=actor_name(members.get("approved_by")),
            reason=text(members, "reason"),
            ticket=text(members, "ticket"),
            state=state,
            denied=None if denied is None else int(denied),
            propagated_by=moment(members, "propagated_by"),
            undone_by=text(undone, "id") if isinstance(undone, dict) else None,
            expires_at=moment(members, "expires_at"),
        )

    @property
    def what(self) -> str:
        """What it hits, as far as anybody may know: claims by name, never by value."""
        if self.type == "CLAIM" and self.names:
            return " + ".join(self.names)
        return {"TOKEN": "one token", "KEY": "one key's tokens", "GLOBAL": "all tokens"}.get(self.type, self.type)


_LIST_TYPES: Final = {"jti": "TOKEN", "token": "TOKEN", "claims": "CLAIM", "key": "KEY", "all": "GLOBAL"}


def listed(members: Mapping[str, Any]) -> list[Revocation]:
    """Return what the list of revocations (its JSON form) has in force, by id; undos are left out."""
    found: dict[str, Revocation] = {}
    for entry in objects_of_list(members):
        name, kind = text(entry, "id"), text(entry, "kind")
        if name is None or kind is None or kind == "undo" or text(entry, "undoes"):
            continue
        found.setdefault(
            name,
            Revocation(
                id=name,
                type=_LIST_TYPES.get(kind.lower(), kind.upper()),
                names=texts(entry, "names"),
                at=moment(entry, "created_at"),
                until=moment(entry, "in_force_until"),
                issued_before=moment(entry, "issued_before"),
                state="in force",
            ),
        )
    undone = {text(entry, "undoes") for entry in objects_of_list(members)}
    return [each for each in found.values() if each.id not in undone]


def objects_of_list(members: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Return the entries of a list; a list may be longer than any page."""
    entries = members.get("entries")
    return (each for each in entries if isinstance(each, dict)) if isinstance(entries, list) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """
    One line of the audit log.

    Attributes:
        seq: Its number.
        at: Unix seconds.
        action: What was done.
        actor: Who did it.
        id: About which record.
        type: Of which type that is.
        reason: Why.
        ticket: Where the incident is written down.
        names: Names of claims.
        hash: Its hash in the chain.
        members: All of it.
    """

    seq: int | None
    at: float | None
    action: str
    actor: str | None
    id: str | None
    type: str | None
    reason: str | None
    ticket: str | None
    names: tuple[str, ...]
    hash: str | None
    members: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> AuditRecord:
        """Return what one of the records of `GET /audit` says."""
        seq = number(members, "seq")
        return cls(
            seq=None if seq is None else int(seq),
            at=_time(members.get("time")),
            action=text(members, "event") or text(members, "action") or "?",
            actor=actor_name(members.get("actor")),
            id=text(members, "id"),
            type=text(members, "type"),
            reason=text(members, "reason"),
            ticket=text(members, "ticket"),
            names=texts(members, "names"),
            hash=text(members, "hash"),
            members=members,
        )

    def mentions(self, words: str) -> bool:
        """Tell whether what a person typed into the filter is in it."""
        said = (self.action, self.actor, self.id, self.type, self.reason, self.ticket, *self.names)
        return any(words.lower() in each.lower() for each in said if each)


def _time(value: object) -> float | None:
    """Return the Unix seconds of a time written by RFC 3339, or given as a number."""
    if isinstance(value, str) and len(value) <= MAX_MOMENT:
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            return None
        return parsed.timestamp() if parsed.tzinfo is not None and parsed.year > 1970 else None  # noqa: PLR2004 -- Unix
    return moment({"time": value}, "time")


def audit_records(members: Mapping[str, Any]) -> list[AuditRecord]:
    """Return the records that `GET /audit` answered, the newest first."""
    found = [AuditRecord.of(each) for each in objects(members, "records")]
    return sorted(found, key=lambda each: (each.at or 0.0, each.seq or 0), reverse=True)


def merged(in_force: Iterable[Revocation] | None, records: Iterable[AuditRecord]) -> list[Revocation]:
    """
    Return the revocations that the list or the audit log know, the newest first.

    The list says what is in force; the log says who, when and why, and what is not in force any more.

    Args:
        in_force: What the list has; None when it could not be read, so that nobody knows what has ended.
        records: What the audit log has.
    """
    found = {each.id: each for each in in_force or ()}
    gone = NOT_KNOWN if in_force is None else ENDED
    waiting: set[str] = set()
    for record in records:
        if record.id is None or record.type is None or "refused" in record.action or "preview" in record.action:
            continue
        if record.type in {"UNDO", "REFRESH_FROM"} or text(record.members, "undoes"):
            continue
        if "waits" in record.action:
            waiting.add(record.id)
        known = found.get(record.id)
        base = known or Revocation(id=record.id, type=record.type, state=gone)
        found[record.id] = replace(
            base,
            type=base.type if base.type != "?" else record.type,
            names=base.names or record.names,
            at=base.at or record.at,
            actor=record.actor or base.actor,
            reason=record.reason or base.reason,
            ticket=record.ticket or base.ticket,
            until=base.until or moment(record.members, "in_force_until"),
        )
    shown = [
        replace(each, state="waiting") if each.id in waiting and each.state == gone else each for each in found.values()
    ]
    return sorted(shown, key=lambda each: (each.at or 0.0, each.id), reverse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """
    One signing key as the admin service knows it; times are Unix seconds.

    Attributes:
        kid: Its id.
        use: What it signs.
        alg: The algorithm.
        custody: Where the private half is.
        state: Where in its life it is.
        publish_at: When it is published.
        activate_at: From when on it signs.
        retire_at: Until when it signs.
        removable_at: From when on no token of it lives.
    """

    kid: str
    use: str | None
    alg: str | None
    custody: str | None
    state: str
    publish_at: float | None
    activate_at: float | None
    retire_at: float | None
    removable_at: float | None

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> SigningKey:
        """Return what *members* say."""
        return cls(
            kid=text(members, "kid") or "?",
            use=text(members, "use"),
            alg=text(members, "alg"),
            custody=text(members, "custody"),
            state=text(members, "state") or "?",
            publish_at=moment(members, "publish_at"),
            activate_at=moment(members, "activate_at"),
            retire_at=moment(members, "retire_at"),
            removable_at=moment(members, "removable_at"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """When a secret was made and until when it holds, Unix seconds."""

    created_at: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """
    One client as the admin service knows it.

    Attributes:
        realm: Its realm, without the leading slash.
        client_id: Its id.
        is_enabled: Whether it gets tokens.
        scopes: What it may ask for.
        grant_types: How it gets tokens.
        secrets: Its secrets.
    """

    realm: str
    client_id: str
    is_enabled: bool | None
    scopes: tuple[str, ...]
    grant_types: tuple[str, ...]
    secrets: tuple[ClientSecret, ...]

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Client:
        """Return what *members* say."""
        return cls(
            realm=(text(members, "realm") or "?").strip("/") or "?",
            client_id=text(members, "client_id") or "?",
            is_enabled=flag(members, "enabled"),
            scopes=texts(members, "scopes"),
            grant_types=texts(members, "grant_types"),
            secrets=tuple(
                ClientSecret(created_at=moment(each, "created_at"), expires_at=moment(each, "expires_at"))
                for each in objects(members, "secrets")
            ),
        )

    @property
    def newest_secret_at(self) -> float | None:
        """When its newest secret was made."""
        return max((each.created_at for each in self.secrets if each.created_at is not None), default=None)

    @property
    def uses_passwords(self) -> bool:
        """Whether the password grant is still allowed to it (RFC 9700 section 2.4 says that it must not be used)."""
        return "password" in self.grant_types


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """
    What a revocation would do.

    Attributes:
        type: Of which type it is.
        live_tokens: How many tokens it would hit; None when that is not known.
        all_live_tokens: How many live at all.
        clients: How many clients they belong to.
        as_of: Unix seconds up to which they were counted.
        is_complete: Whether all issuers counted all of them.
        needs_second_person: Whether somebody else has to approve.
        hits_caller: Whether it would hit the person's own token.
        issued_before: The cut-off.
        until: Unix seconds until which it would be in force.
        horizon: Live tokens that would be left without it, by Unix seconds; empty when not said.
    """

    type: str
    live_tokens: int | None
    all_live_tokens: int | None
    clients: int | None
    as_of: float | None
    is_complete: bool
    needs_second_person: bool
    hits_caller: bool
    issued_before: float | None
    until: float | None
    horizon: tuple[tuple[float, int], ...]

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Preview:
        """Return what `POST /revocations?dry_run=true` answered."""

        def count(name: str) -> int | None:
            value = number(members, name)
            return None if value is None else int(value)

        return cls(
            type=text(members, "type") or "?",
            live_tokens=count("live_tokens"),
            all_live_tokens=count("all_live_tokens"),
            clients=count("clients"),
            as_of=moment(members, "as_of"),
            is_complete=flag(members, "complete") or False,
            # What is not said is the careful answer.
            needs_second_person=flag(members, "needs_second_person") is not False,
            hits_caller=flag(members, "hits_caller") is not False,
            issued_before=moment(members, "issued_before"),
            until=moment(members, "in_force_until"),
            horizon=tuple(_horizon(members.get("horizon"))),
        )


def _horizon(value: object) -> Iterable[tuple[float, int]]:
    for row in value[:MAX_ITEMS] if isinstance(value, list) else ():
        if isinstance(row, list) and len(row) == 2 and all(type(each) is int for each in row):  # noqa: PLR2004
            end, count = row
            if 0 <= end < _MAX_TIME and 0 <= count < 2**53:
                yield float(end), count
