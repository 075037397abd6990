"""
Which validators there are, and what they have applied; what they have refused is in `refusals.py`.

A validator names itself in each poll, and its cursor tells up to when it has every revocation. Each replica
keeps what it has heard itself, and shares it through the store; losing it costs nothing but the view.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry_revocation.refusals import Refusals
from tokenry_revocation.requests import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

INSTANCE_HEADER: Final = "Tokenry-Instance"
VIEWS: Final = "validators"  # the group of the store that the replicas' views are in
MAX_INSTANCES: Final = 2000  # of one replica's view: 200 kB as JSON, below what the store remembers
MAX_REFUSALS: Final = 1000  # fingerprints in one report
MAX_REPORTED: Final = 500  # revocations that one report says are enforced
MAX_ENFORCED: Final = 200  # revocations of which one replica remembers who enforces them
MAX_SHARED_ENFORCED: Final = 10_000  # pairs of revocation and validator in a shared view: 400 kB
KEEP_SECONDS: Final = 600.0  # a validator that was silent for so long is gone

_INSTANCE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._:@-]{0,99})/([A-Za-z0-9][A-Za-z0-9._+-]{0,31})")
_RECORD = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_FINGERPRINT = re.compile(r"[A-Za-z0-9_-]{22}")
_MAX_COUNT: Final = 2**53
_ROW_LENGTH: Final = 6  # members of a validator in a shared view


@dataclass(frozen=True, slots=True)
class Instance:
    """
    The name that a validator gives itself.

    Attributes:
        name: Which one it is.
        version: Its version of the library.
    """

    name: str
    version: str

    @classmethod
    def parse(cls, text: str | None) -> Instance | None:
        """Return the instance that the header names; None when there is none or it is not of the form."""
        found = _INSTANCE.fullmatch(text or "")
        return None if found is None else cls(found[1], found[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    What a validator tells of itself.

    Attributes:
        instance: Who tells.
        as_of: Unix seconds up to which it has applied every revocation; None when not said.
        list_age: Seconds that its list is old; None when not said.
        refusals: How many tokens it has refused since its last report, by fingerprint.
        enforced: Unix seconds since when it enforces a revocation, by id.
        refused_ago: How many seconds before the report the last of the refusals was, by fingerprint.
    """

    instance: Instance
    as_of: float | None
    list_age: float | None
    refusals: dict[str, int] = field(default_factory=dict)
    enforced: dict[str, float] = field(default_factory=dict)
    refused_ago: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Seen:
    version: str
    last_poll: float
    as_of: float | None = None
    list_age: float | None = None
    reported_at: float | None = None
    verified: bool = False


class Instances:
    """
    What this replica has heard.

    Attributes:
        replica: The name that its view is shared under.
        refusals: What validators have refused, as they have told this replica.
    """

    def __init__(self, replica: str) -> None:
        """Begin having heard nothing, as *replica*."""
        self.replica = replica
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self.refusals = Refusals()
        self._enforced: OrderedDict[str, dict[str, float]] = OrderedDict()

    def polled(self, instance: Instance | None, *, now: float, as_of: float | None) -> None:
        """Note that *instance* polled at *now*, having applied everything up to *as_of* (Unix seconds)."""
        if instance is None:
            return
        seen = self._of(instance, now)
        seen.last_poll = now
        if as_of is not None:
            seen.as_of = max(as_of, seen.as_of or 0.0)

    def reported(self, report: Report, *, now: float, verified: bool) -> None:
        """Note a *report*; one without a bearer is marked, and counts no refusals."""
        seen = self._of(report.instance, now)
        seen.reported_at, seen.verified = now, verified
        seen.list_age = report.list_age
        if report.as_of is not None:
            seen.as_of = max(report.as_of, seen.as_of or 0.0)
        for name, moment in report.enforced.items():
            self._note_enforced(name, report.instance.name, moment)
        if verified:
            self.refusals.count(report.refusals, ago=report.refused_ago, validator=report.instance.name, now=now)

    def _note_enforced(self, name: str, validator: str, moment: float) -> None:
        validators = self._enforced.setdefault(name, {})
        if len(validators) < MAX_INSTANCES:
            validators.setdefault(validator, moment)
        if len(self._enforced) > MAX_ENFORCED:
            self._enforced.popitem(last=False)

    def _shared_enforced(self) -> dict[str, dict[str, float]]:
        """Return who enforces the latest revocations, as much as a view has room for."""
        shared: dict[str, dict[str, float]] = {}
        room = MAX_SHARED_ENFORCED
        for name, validators in reversed(self._enforced.items()):
            room -= len(validators)
            if room < 0:
                break
            shared[name] = validators
        return shared

    def _of(self, instance: Instance, now: float) -> _Seen:
        seen = self._seen.setdefault(instance.name, _Seen(instance.version, now))
        seen.version = instance.version
        self._seen.move_to_end(instance.name)
        if len(self._seen) > MAX_INSTANCES:
            self._seen.popitem(last=False)
        return seen

    def view(self, *, now: float) -> bytes:
        """Return what this replica has heard, to be shared."""
        alive = {
            name: [seen.version, seen.last_poll, seen.as_of, seen.list_age, seen.reported_at, seen.verified]
            for name, seen in self._seen.items()
            if now - max(seen.last_poll, seen.reported_at or 0.0) < KEEP_SECONDS
        }
        return dump_json({
            "instances": alive,
            "enforced": self._shared_enforced(),
        })  # fmt: skip


def merge(views: Iterable[bytes], *, now: float) -> list[dict[str, Any]]:
    """
    Return all validators of *views*, sorted by name.

    A view that cannot be read (of another version) is left out.
    """
    latest: dict[str, list[Any]] = {}
    for view in views:
        try:
            instances = _read_view(view)
        except ProtocolError:
            continue
        for name, row in instances.items():
            latest[name] = _later(latest[name], row) if name in latest else row
    return [_shown(name, row, now) for name, row in sorted(latest.items())]


def enforcing(views: Iterable[bytes], name: str) -> dict[str, float]:
    """Return since when (Unix seconds) which validators enforce the revocation *name*, as they have reported."""
    found: dict[str, float] = {}
    for view in views:
        try:
            members = parse_json_object(view)
        except ProtocolError:
            continue
        enforced = members.get("enforced")
        validators = enforced.get(name) if isinstance(enforced, dict) else None
        for validator, moment in validators.items() if isinstance(validators, dict) else ():
            if isinstance(moment, int | float):
                found[validator] = min(moment, found.get(validator, moment))
    return found


def _read_view(view: bytes) -> dict[str, list[Any]]:
    instances = parse_json_object(view).get("instances")
    if not isinstance(instances, dict):
        raise ProtocolError("a view of another form")
    if any(not isinstance(row, list) or len(row) != _ROW_LENGTH for row in instances.values()):
        raise ProtocolError("a validator of another form")
    return instances


def _later(a: list[Any], b: list[Any]) -> list[Any]:
    later, earlier = (a, b) if a[1] >= b[1] else (b, a)
    as_of = max((row[2] for row in (a, b) if row[2] is not None), default=None)
    reported = max((later, earlier), key=lambda row: row[4] or 0.0)
    return [later[0], later[1], as_of, reported[3], reported[4], reported[5]]


def _shown(name: str, row: list[Any], now: float) -> dict[str, Any]:
    version, last_poll, as_of, list_age, reported_at, verified = row
    return {
        "name": name,
        "version": version,
        "last_poll": round(last_poll, 3),
        "applied_as_of": as_of,
        "lag": None if as_of is None else round(max(0.0, now - as_of), 3),
        "list_age": list_age,
        "reported_at": reported_at,
        "verified": verified,
    }


def parse_report(body: bytes) -> Report:
    """
    Return the report that *body* is; members that are not known are ignored, since it decides nothing.

    Raises:
        InvalidRequest: It is no JSON object, or a member is of the wrong type.
    """
    try:
        members = parse_json_object(body)
    except ProtocolError:
        raise InvalidRequest("the body is not a strict JSON object") from None
    name, version = members.get("name"), members.get("version")
    named = isinstance(name, str) and isinstance(version, str)
    instance = Instance.parse(f"{name}/{version}") if named else None
    if instance is None:
        raise InvalidRequest("name and version are short texts of letters, digits and ._:@-")
    return Report(
        instance=instance,
        as_of=_seconds(members.get("as_of"), "as_of"),
        list_age=_seconds(members.get("list_age"), "list_age"),
        refusals=_refusals(members.get("refusals")),
        enforced=_enforced(members.get("enforced")),
        refused_ago=_refused_ago(members.get("refused_ago")),
    )


def _seconds(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_COUNT:
        raise InvalidRequest(f"{name} is a number of seconds")
    return float(value)


def _enforced(value: object) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_REPORTED or not all(map(_RECORD.fullmatch, value)):
        raise InvalidRequest(f"enforced is an object of at most {MAX_REPORTED} ids of revocations and seconds")
    return {name: _seconds(moment, "enforced") or 0.0 for name, moment in value.items()}


def _refused_ago(value: object) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_REFUSALS:
        raise InvalidRequest(f"refused_ago is an object of at most {MAX_REFUSALS} fingerprints and seconds")
    return {name: _seconds(ago, "refused_ago") or 0.0 for name, ago in value.items()}


def _refusals(value: object) -> dict[str, int]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_REFUSALS:
        raise InvalidRequest(f"refusals is an object of at most {MAX_REFUSALS} fingerprints and counts")
    for fingerprint, number in value.items():
        if not _FINGERPRINT.fullmatch(fingerprint) or type(number) is not int or not 0 <= number < _MAX_COUNT:
            raise InvalidRequest("refusals are counts by fingerprint (22 characters of base64url)")
    return value
