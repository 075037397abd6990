"""
What clients ask the revocation service for, read strictly.

A revocation that is not understood is refused, whole: guessing would leave a token alive that somebody wanted
dead, or kill one that nobody named. So an unknown member, a number in quotes or a name that no validator
could ever match is 400, with a sentence that says what to send instead. Values of claims and tokens never
appear in such a sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jws import MAX_TOKEN_BYTES
from tokenry.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_CLAIM_NAMES = 8  # conditions of one rule; more says the same with a list nobody can review
MAX_VALUE_BYTES = 1024  # of a claim's value, and of an id: a token of 8 KiB carries nothing longer of use
MAX_REASON_CHARACTERS = 500
MAX_TICKET_CHARACTERS = 100  # "SEC-481", or the address of one
MAX_BLOCK_SECONDS = 24 * 3600  # a subject that has to stay stopped for longer gets its client disabled
MAX_KEPT_SKEW = 2  # a cut-off may lie ahead by one second and twice the skew of the clocks
MAX_IDEMPOTENCY_KEY = 255

SEPARATOR = "|"  # joins the values of a claims rule in Plan B's hash, so a value with it would be ambiguous there
TEST_REASON = "test"  # a token revoked for this reason may be taken back

# Claims that any token of ours may carry as a string, under the name that rules are kept with.
BASE_CLAIM_NAMES = frozenset({"sub", "client_id", "realm", "iss", "jti", "root_jti"})
# What a rule may hold up issuing by: the names that the issuer knows before it mints.
BLOCKABLE_NAMES = frozenset({"sub", "client_id", "realm"})
_REFUSED_NAMES = frozenset({"aud", "scope", "exp", "iat", "nbf"})

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]+")
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")


class InvalidRequest(TokenryError):
    """The request does not say what to revoke in a way that this service understands; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTarget:
    """The token itself, as its owner or its finder has it."""

    token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIdTarget:
    """
    A token known by its id only.

    Attributes:
        jti: The token's id.
        iss: Its issuer; None for ours.
    """

    jti: str = field(repr=False)
    iss: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimsTarget:
    """
    All tokens that carry every one of some claims.

    Attributes:
        claims: Names and values, sorted by name; `azp` has become `client_id`, a realm has its leading slash.
        issued_before: The exclusive cut-off, Unix seconds; None for the default.
        block_until: Unix seconds until which nothing that the rule fits is issued; None for no such block.
        plan_b: Whether validators of Plan B are told as well.
    """

    claims: tuple[tuple[str, str], ...] = field(repr=False)
    issued_before: int | None
    block_until: int | None
    plan_b: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the claims, sorted."""
        return tuple(name for name, _ in self.claims)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTarget:
    """
    All tokens that one key signed.

    Attributes:
        kid: The key's id.
        iss: Its issuer; None for ours.
    """

    kid: str
    iss: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalTarget:
    """
    All tokens.

    Attributes:
        issued_before: The exclusive cut-off, Unix seconds; None for the default.
        confirmed: Whether the caller said `"confirm": true`.
    """

    issued_before: int | None
    confirmed: bool


Target: TypeAlias = TokenTarget | TokenIdTarget | ClaimsTarget | KeyTarget | GlobalTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """
    One well-formed request to revoke.

    Attributes:
        target: What to revoke.
        reason: Why, for the audit log; None when not said.
        ticket: Where the incident is written down; None when not said.
    """

    target: Target
    reason: str | None = None
    ticket: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """
    What times and names a request may have, at the moment that it is read.

    Attributes:
        now: Unix seconds.
        skew: Seconds by which two clocks of the platform may differ (at most 5).
        retention: Seconds after its cut-off during which a rule can still hit anything.
        claim_names: Names of string claims that tokens carry besides those of `BASE_CLAIM_NAMES`.
    """

    now: float
    skew: float
    retention: int
    claim_names: frozenset[str] = frozenset()

    @property
    def latest_cutoff(self) -> float:
        """Return the latest `issued_before` that is accepted: a second and twice the skew ahead."""
        return self.now + 1 + MAX_KEPT_SKEW * self.skew


def parse_revoke(body: bytes, *, bounds: Bounds) -> Revoke:
    """
    Return what *body*, the JSON of `POST /revocations`, asks for.

    What a request says about itself (`reason`, `ticket`, `confirm`, `block_until`, `plan_b`) may stand beside
    `type` or within `data`, and not in both.

    Raises:
        InvalidRequest: It is no such request, or its times are outside *bounds*.
    """
    # 1. an object with a known type, and data that is an object
    document = _object(body)
    kind = document.pop("type", None)
    data = document.pop("data", None)
    if not isinstance(kind, str) or kind not in _PARSERS:
        raise InvalidRequest("type is one of TOKEN, CLAIM, KEY and GLOBAL")
    if not isinstance(data, dict):
        raise InvalidRequest("data is missing, or not an object")
    # 2. every member at most once and in one of the two places
    if twice := document.keys() & data.keys():
        raise InvalidRequest(f"{_listed(twice)} stands both beside type and within data")
    if document.keys() - _ANNOTATIONS:
        raise InvalidRequest("there are members beside type and data that are not known")
    members = data | document
    # 3. what each type needs
    reason = _text(members, "reason", MAX_REASON_CHARACTERS)
    ticket = _text(members, "ticket", MAX_TICKET_CHARACTERS)
    target = _PARSERS[kind](members, bounds)
    if members:
        raise InvalidRequest(f"data has members that {kind} does not know: nothing was revoked")
    return Revoke(target=target, reason=reason, ticket=ticket)


def parse_undo(body: bytes) -> tuple[str | None, str | None]:
    """
    Return reason and ticket of a request to take a revocation back; the empty body has neither.

    Raises:
        InvalidRequest: It is not a JSON object, or has other members.
    """
    members = _object(body) if body else {}
    reason = _text(members, "reason", MAX_REASON_CHARACTERS)
    ticket = _text(members, "ticket", MAX_TICKET_CHARACTERS)
    if members:
        raise InvalidRequest("an undo has the members reason and ticket, both optional")
    return reason, ticket


def parse_idempotency_key(values: Collection[str]) -> str | None:
    """
    Return the idempotency key of a request, or None when it has none.

    Raises:
        InvalidRequest: It was sent twice, is empty, too long, or has characters outside printable ASCII.
    """
    if not values:
        return None
    key, *more = values
    if more or len(key) > MAX_IDEMPOTENCY_KEY or not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequest(f"Idempotency-Key is sent once, with 1 to {MAX_IDEMPOTENCY_KEY} printable characters")
    return key


def parse_seconds(text: str | None, *, name: str) -> float:
    """
    Return the Unix seconds that a query parameter gives.

    Raises:
        InvalidRequest: It is missing or not a number.
    """
    if text is None or not _NUMBER.fullmatch(text):
        raise InvalidRequest(f"{name} is missing or not a number of Unix seconds")
    return float(text)


def parse_flag(text: str | None, *, name: str) -> bool:
    """
    Return a query parameter that is `true` or `false`; absent is false.

    Raises:
        InvalidRequest: It is something else. (A dry run that was misspelt must not revoke.)
    """
    if text not in (None, "true", "false"):
        raise InvalidRequest(f"{name} is true or false")
    return text == "true"


def canonical_claim(name: str, value: str) -> tuple[str, str]:
    """Return a claim as rules are kept: `azp` and `client_id` are one, a realm has its leading slash."""
    if name == "azp":
        return "client_id", value
    if name == "realm" and not value.startswith("/"):
        return name, f"/{value}"
    return name, value


def _token(members: dict[str, Any], bounds: Bounds) -> Target:
    members.pop("issued_before", None)  # Plan B's clients send it; a token is dead whatever they say
    members.pop("plan_b", None)
    if "token" in members:
        token = members.pop("token")
        if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_BYTES:
            raise InvalidRequest(f"token is a compact JWS of at most {MAX_TOKEN_BYTES} bytes")
        return TokenTarget(token=Secret(token))
    if "jti" not in members:
        raise InvalidRequest("data of TOKEN has either token or jti")
    _expiry(members, bounds)
    return TokenIdTarget(jti=_name(members, "jti"), iss=_optional_name(members, "iss"))


def _expiry(members: dict[str, Any], bounds: Bounds) -> None:
    """Check `expires_at`. It decides nothing: nobody signed it, and a wrong one would end too early."""
    expires_at = members.pop("expires_at", None)
    if expires_at is not None and (type(expires_at) is not int or not 0 < expires_at < bounds.now * 2):
        raise InvalidRequest("expires_at is a whole number of Unix seconds")


def _claims(members: dict[str, Any], bounds: Bounds) -> Target:
    plan_b = members.pop("plan_b", True)
    if type(plan_b) is not bool:
        raise InvalidRequest("plan_b is true or false")
    claims = _claim_pairs(members.pop("claims", None), bounds, plan_b=plan_b)
    return ClaimsTarget(
        claims=claims,
        issued_before=_cutoff(members, bounds),
        block_until=_block(members, {name for name, _ in claims}, bounds),
        plan_b=plan_b,
    )


def _claim_pairs(claims: object, bounds: Bounds, *, plan_b: bool) -> tuple[tuple[str, str], ...]:
    if not isinstance(claims, dict) or not 0 < len(claims) <= MAX_CLAIM_NAMES:
        raise InvalidRequest(f"claims is an object of 1 to {MAX_CLAIM_NAMES} names and values")
    pairs: dict[str, str] = {}
    for given, value in claims.items():
        name, value = canonical_claim(given, _claim_value(value, plan_b=plan_b))  # noqa: PLW2901
        if name in _REFUSED_NAMES or name not in BASE_CLAIM_NAMES | bounds.claim_names:
            raise InvalidRequest(f"claims can be revoked by {_listed(BASE_CLAIM_NAMES | bounds.claim_names | {'azp'})}")
        if pairs.setdefault(name, value) != value:
            raise InvalidRequest("azp and client_id are one claim: give one of them")
    return tuple(sorted(pairs.items()))


def _claim_value(value: object, *, plan_b: bool) -> str:
    if not isinstance(value, str) or not value or len(value.encode("utf-8")) > MAX_VALUE_BYTES:
        raise InvalidRequest(f"values of claims are strings of 1 to {MAX_VALUE_BYTES} bytes")
    if plan_b and SEPARATOR in value:
        raise InvalidRequest(
            'a value with | is ambiguous to Plan B\'s validators: send "plan_b": false to keep it from them'
        )
    return value


def _cutoff(members: dict[str, Any], bounds: Bounds) -> int | None:
    """
    Return `issued_before`, checked.

    Later than any clock can be now, it would hit tokens that do not exist yet; older than the retention, it
    would promise what nobody keeps.
    """
    if "issued_before" not in members:
        return None
    cutoff = members.pop("issued_before")
    if type(cutoff) is not int:
        raise InvalidRequest("issued_before is a whole number of Unix seconds")
    if cutoff > bounds.latest_cutoff:
        raise InvalidRequest("issued_before lies in the future: leave it out to mean all tokens issued up to now")
    if cutoff <= bounds.now - bounds.retention:
        raise InvalidRequest("issued_before is so long ago that all such tokens have expired")
    return cutoff


def _block(members: dict[str, Any], names: set[str], bounds: Bounds) -> int | None:
    if "block_until" not in members:
        return None
    until = members.pop("block_until")
    if type(until) is not int or not bounds.now < until <= bounds.now + MAX_BLOCK_SECONDS:
        raise InvalidRequest("block_until is a whole number of Unix seconds, at most 24 hours ahead")
    if not names <= BLOCKABLE_NAMES:
        raise InvalidRequest(f"block_until works with rules on {_listed(BLOCKABLE_NAMES | {'azp'})} only")
    return until


def _key(members: dict[str, Any], bounds: Bounds) -> Target:  # noqa: ARG001 -- all parsers have one signature
    return KeyTarget(kid=_name(members, "kid"), iss=_optional_name(members, "iss"))


def _global(members: dict[str, Any], bounds: Bounds) -> Target:
    confirmed = members.pop("confirm", False)
    if type(confirmed) is not bool:
        raise InvalidRequest("confirm is true or absent")
    return GlobalTarget(issued_before=_cutoff(members, bounds), confirmed=confirmed)


_PARSERS = {"TOKEN": _token, "CLAIM": _claims, "KEY": _key, "GLOBAL": _global}
_ANNOTATIONS = frozenset({"reason", "ticket", "confirm", "block_until", "plan_b"})


def _object(body: bytes) -> dict[str, Any]:
    try:
        return parse_json_object(body)
    except ProtocolError:
        raise InvalidRequest("the body is not a strict JSON object (UTF-8, no name twice)") from None


def _name(members: dict[str, Any], name: str) -> str:
    value = members.pop(name, None)
    if not isinstance(value, str) or not value or len(value.encode("utf-8")) > MAX_VALUE_BYTES:
        raise InvalidRequest(f"{name} is a string of 1 to {MAX_VALUE_BYTES} bytes")
    return value


def _optional_name(members: dict[str, Any], name: str) -> str | None:
    return _name(members, name) if name in members else None


def _text(members: dict[str, Any], name: str, limit: int) -> str | None:
    text = members.pop(name, None)
    if text is not None and (not isinstance(text, str) or len(text) > limit):
        raise InvalidRequest(f"{name} is text of at most {limit} characters")
    return text or None


def _listed(names: Collection[str] | Mapping[str, object]) -> str:
    return ", ".join(sorted(names))
