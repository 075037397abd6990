"""
From a request to the record that the store keeps. Pure: the same request at the same moment is the same
record.

    request (requests.py), what is believed of its token (presented_token.py)
        -> Draft: the fingerprints, and the hash that tells two revocations apart
        -> Record: with an id, times and who asked
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import (
    claims_fingerprint,
    derive_list_salt,
    jti_fingerprint,
    key_fingerprint,
    token_fingerprint,
)
from tokenry.revocation.planb import claims_rows, global_rows, jti_rows, settles_at, token_rows
from tokenry.validation.policy import MAX_LEEWAY
from tokenry_revocation.records import Record, RecordType, record_id
from tokenry_revocation.requests import TEST_REASON

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.revocation.planb import PlanBRow, Refresh
    from tokenry.secret import Secret
    from tokenry_revocation.presented_token import PresentedToken
    from tokenry_revocation.records import Actor
    from tokenry_revocation.requests import ClaimsTarget, GlobalTarget, KeyTarget, TokenIdTarget

KEEP_SECONDS = 120  # an entry outlives what it hits by this: the leeway of a validator and the skew of the clocks
_ID_BYTES = 20  # 160 bits: nobody finds two revocations with one id


def milliseconds(now: float) -> float:
    """Return *now* (Unix seconds) down to the millisecond, as a record keeps it."""
    return math.floor(now * 1000) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """
    What of the settings decides about records.

    Attributes:
        issuer: Our own issuer identifier.
        max_token_lifetime: Seconds that the longest-lived token of the platform lives.
        skew: Seconds by which two clocks of the platform may differ.
        propagation_bound: Seconds within which every healthy validator of ours enforces a revocation.
        plan_b_bound: The same for validators of Plan B.
        hashing_salt: The salt of Plan B's hashes.
    """

    issuer: str
    max_token_lifetime: int
    skew: float
    propagation_bound: float
    plan_b_bound: float
    hashing_salt: Secret

    @property
    def retention(self) -> int:
        """Return the seconds after its cut-off during which a rule can hit anything, with the margin."""
        return self.max_token_lifetime + KEEP_SECONDS

    def default_cutoff(self, now: float) -> int:
        """
        Return the cut-off that means "all tokens up to now".

        It lies past the running second by the bound on the skew, so that neither a token of this very second
        nor one of an issuer whose clock is ahead escapes.
        """
        return math.floor(now) + 1 + math.ceil(self.skew)


class Fingerprints:
    """The salts in use, and the hashes under them."""

    __slots__ = ("_hashing_salt", "salt", "salt_id")

    def __init__(self, hashing_salt: Secret) -> None:
        """Derive the list's salt from the *hashing_salt* of Plan B."""
        self._hashing_salt = hashing_salt
        self.salt_id, self.salt = derive_list_salt(hashing_salt)

    @property
    def plan_b_salt(self) -> str:
        """Return the salt of Plan B's hashes."""
        return self._hashing_salt.reveal()

    def canonical(self, *parts: object) -> bytes:
        """Return the hash by which two revocations are told apart, or found to be the same."""
        text = dump_json([part.hex() if isinstance(part, bytes) else part for part in parts])
        return claims_fingerprint((("canonical", text.decode("utf-8")),), salt=self.salt)

    def identity(self, canonical: bytes, generation: int) -> str:
        """Return the id of the *generation*-th record of one revocation (an undone one can be made again)."""
        pairs = (("canonical", canonical.hex()), ("generation", str(generation)))
        low = claims_fingerprint(pairs, salt=self.salt)
        high = claims_fingerprint((*pairs, ("more", "")), salt=self.salt)
        return record_id((low + high)[:_ID_BYTES])

    def private(self, text: str) -> str:
        """Return a keyed hash of *text*, for what is compared later and must not be kept."""
        return b64url_encode(self.canonical("private", text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """
    A revocation before it has an id.

    Attributes:
        type: What it is.
        canonical: Hash of what is revoked: two revocations with one are the same.
        now: Unix seconds at which it was asked for.
        in_force_until: Unix seconds until which it matters; None for ever.
        entries: Makes the entries of a record with a given id.
        plan_b: What Plan B's readers get.
        reaches_plan_b: Whether Plan B's validators come to enforce it.
    """

    type: RecordType
    canonical: bytes
    now: float
    in_force_until: int | None
    entries: Callable[[str], tuple[Entry, ...]] = field(repr=False)
    plan_b: tuple[PlanBRow, ...] = ()
    reaches_plan_b: bool = True

    @property
    def stillborn(self) -> bool:
        """Whether nothing is left to be hit: a token that has expired."""
        return self.in_force_until is not None and self.in_force_until <= self.now

    def record(self, record_name: str, *, terms: Terms, by: Signature) -> Record:
        """Return the record with the id *record_name*."""
        return Record(
            id=record_name,
            type=self.type,
            revoked_at=math.floor(self.now),
            created_at=milliseconds(self.now),
            in_force_until=self.in_force_until,
            propagated_by=math.ceil(self.now + terms.propagation_bound),
            plan_b_by=self._plan_b_by(terms),
            actor=by.actor,
            entries=self.entries(record_name),
            plan_b=self.plan_b,
            rule=by.rule,
            reason=by.reason,
            ticket=by.ticket,
        )

    def _plan_b_by(self, terms: Terms) -> int | None:
        if not self.reaches_plan_b:
            return None
        settled = max((settles_at(row.issued_before, skew=terms.skew) for row in self.plan_b), default=0)
        return math.ceil(max(self.now, settled) + terms.plan_b_bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """
    Who stands behind a record, and why.

    Attributes:
        actor: Who asked.
        rule: The rule that allowed it, `name@digest`; None where a scope was enough.
        reason: As the caller said.
        ticket: As the caller said.
    """

    actor: Actor
    rule: str | None = None
    reason: str | None = None
    ticket: str | None = None


def draft_token(
    token: PresentedToken, *, now: float, reason: str | None, terms: Terms, fingerprints: Fingerprints
) -> Draft:
    """
    Return the revocation of *token*: by its signing input, by its id where that is known, and by Plan B's
    hash.
    """
    salt, salt_id, undoable = fingerprints.salt, fingerprints.salt_id, reason == TEST_REASON
    verified = token.verified
    jti = None if verified is None else verified.jti
    iat = None if verified is None else verified.iat
    by_token = token_fingerprint(token.signing_input, salt=salt)
    by_jti = None if jti is None else jti_fingerprint(token.iss, jti, salt=salt)
    until = _end_of_token(None if verified is None else verified.exp, now=now, terms=terms)
    cutoff = terms.default_cutoff(now) if iat is None else min(iat + 1, terms.default_cutoff(now))

    def entries(name: str) -> tuple[Entry, ...]:
        found = ((Kind.JTI, by_jti), (Kind.TOKEN, by_token))
        return tuple(
            Entry(id=name, kind=kind, fingerprint=value, salt=salt_id, in_force_until=until, undoable=undoable)
            for kind, value in found
            if value is not None
        )

    # The other spelling has another hash there; by its id, where it has one, a token is hit in any spelling.
    spellings = token.spellings if jti is None else token.spellings[:1]
    rows = token_rows(
        spellings,
        iat=None,
        jti=jti,
        cut_off=cutoff,
        revoked_at=math.floor(now),
        salt=fingerprints.plan_b_salt,
    )
    return Draft(
        type=RecordType.TOKEN,
        canonical=fingerprints.canonical("TOKEN", by_token, verified is not None, undoable),
        now=now,
        in_force_until=until,
        entries=entries,
        plan_b=rows,
    )


def draft_token_id(
    target: TokenIdTarget, *, now: float, reason: str | None, terms: Terms, fingerprints: Fingerprints
) -> Draft:
    """
    Return the revocation of the token with an id.

    Nobody signed its expiry, so it stays in force as long as any token that lives now could.
    """
    undoable = reason == TEST_REASON
    by_jti = jti_fingerprint(target.iss or terms.issuer, target.jti, salt=fingerprints.salt)
    until = math.floor(now) + terms.retention
    rows = jti_rows(
        target.jti,
        issued_before=terms.default_cutoff(now),
        revoked_at=math.floor(now),
        salt=fingerprints.plan_b_salt,
    )

    def entries(name: str) -> tuple[Entry, ...]:
        return (
            Entry(
                id=name, kind=Kind.JTI, fingerprint=by_jti, salt=fingerprints.salt_id, in_force_until=until,
                undoable=undoable,
            ),
        )  # fmt: skip

    return Draft(
        type=RecordType.TOKEN,
        canonical=fingerprints.canonical("JTI", by_jti, undoable),
        now=now,
        in_force_until=until,
        entries=entries,
        plan_b=rows,
        reaches_plan_b=bool(rows),
    )


def draft_claims(target: ClaimsTarget, *, now: float, terms: Terms, fingerprints: Fingerprints) -> Draft:
    """Return the revocation of all tokens that carry the claims of *target*."""
    cutoff = terms.default_cutoff(now) if target.issued_before is None else target.issued_before
    value = claims_fingerprint(target.claims, salt=fingerprints.salt)
    block = target.block_until
    until = cutoff + terms.retention if block is None else max(cutoff + terms.retention, block + KEEP_SECONDS)
    salt, revoked_at = fingerprints.plan_b_salt, math.floor(now)
    rows = (
        claims_rows(dict(target.claims), issued_before=cutoff, revoked_at=revoked_at, salt=salt)
        if target.plan_b
        else ()
    )

    def entries(name: str) -> tuple[Entry, ...]:
        return (
            Entry(
                id=name, kind=Kind.CLAIMS, fingerprint=value, salt=fingerprints.salt_id, names=target.names,
                issued_before=cutoff, in_force_until=until, block_until=block,
            ),
        )  # fmt: skip

    return Draft(
        type=RecordType.CLAIM,
        canonical=fingerprints.canonical("CLAIM", list(target.names), value, cutoff, block, target.plan_b),
        now=now,
        in_force_until=until,
        entries=entries,
        plan_b=rows,
        reaches_plan_b=target.plan_b,
    )


def draft_key(target: KeyTarget, *, now: float, terms: Terms, fingerprints: Fingerprints) -> Draft:
    """
    Return the revocation of a key: for ever, since a key that was lost once can sign at any time.

    Plan B's validators cannot be told; they follow the issuer's key set, which loses the key at once.
    """
    by_key = key_fingerprint(target.iss or terms.issuer, target.kid, salt=fingerprints.salt)

    def entries(name: str) -> tuple[Entry, ...]:
        return (Entry(id=name, kind=Kind.KEY, fingerprint=by_key, salt=fingerprints.salt_id),)

    return Draft(
        type=RecordType.KEY,
        canonical=fingerprints.canonical("KEY", by_key),
        now=now,
        in_force_until=None,
        entries=entries,
    )


def draft_global(target: GlobalTarget, *, now: float, terms: Terms, fingerprints: Fingerprints) -> Draft:
    """Return the revocation of all tokens issued before a cut-off."""
    cutoff = terms.default_cutoff(now) if target.issued_before is None else target.issued_before
    until = cutoff + terms.retention

    def entries(name: str) -> tuple[Entry, ...]:
        return (Entry(id=name, kind=Kind.ALL, issued_before=cutoff, in_force_until=until),)

    return Draft(
        type=RecordType.GLOBAL,
        canonical=fingerprints.canonical("GLOBAL", cutoff),
        now=now,
        in_force_until=until,
        entries=entries,
        plan_b=global_rows(issued_before=cutoff, revoked_at=math.floor(now)),
    )


def undo_id(name: str, *, fingerprints: Fingerprints) -> str:
    """Return the id of the record that takes the one called *name* back: there is at most one."""
    return fingerprints.identity(fingerprints.canonical("UNDO", name), 0)


def undo(record: Record, *, now: float, terms: Terms, fingerprints: Fingerprints, by: Signature) -> Record:
    """
    Return the record that takes *record* back; it lives as long as what it lifts.

    Plan B's validators keep what they have until they restart.
    """
    name = undo_id(record.id, fingerprints=fingerprints)
    entry = Entry(id=name, kind=Kind.UNDO, in_force_until=record.in_force_until, undoes=record.id)
    return Record(
        id=name,
        type=RecordType.UNDO,
        revoked_at=math.floor(now),
        created_at=milliseconds(now),
        in_force_until=record.in_force_until,
        propagated_by=math.ceil(now + terms.propagation_bound),
        plan_b_by=None,
        actor=by.actor,
        entries=(entry,),
        rule=by.rule,
        reason=by.reason,
        ticket=by.ticket,
        undoes=record.id,
    )


def refresh(notice: Refresh, *, now: float, terms: Terms, fingerprints: Fingerprints, by: Signature) -> Record:
    """
    Return the record of *notice*, which makes Plan B's validators drop and refetch what is as new as it says.

    It takes effect a little later than it was made, when every replica has read it: one that still answers
    without it would move a reader's position past the moment at which everything is listed again.
    """
    value, effective = notice.since, notice.timestamp
    return Record(
        id=fingerprints.identity(fingerprints.canonical("REFRESH_FROM", value, effective), 0),
        type=RecordType.REFRESH_FROM,
        revoked_at=effective,
        in_force_until=None,
        propagated_by=math.ceil(now + terms.propagation_bound),
        plan_b_by=math.ceil(effective + terms.plan_b_bound),
        actor=by.actor,
        reason=by.reason,
        ticket=by.ticket,
        refresh_from=value,
    )


def _end_of_token(exp: int | None, *, now: float, terms: Terms) -> int:
    """
    Return until when the entry of one token matters.

    No validator accepts a token that lives longer than the longest lifetime, whatever its `exp` says.
    """
    if exp is None:
        return math.floor(now) + terms.retention
    return min(exp + KEEP_SECONDS, math.floor(now) + terms.retention + MAX_LEEWAY)
