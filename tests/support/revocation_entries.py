"""Entries, tokens and lists for tests of revocation; hypothesis strategies of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import claims_fingerprint, jti_fingerprint, key_fingerprint, token_fingerprint
from tokenry.revocation.judged import JudgedToken
from tokenry.revocation.lists import RevocationList

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = 1_800_000_000
ISSUER = "https://issuer.example"
SALT = b"a salt of thirty-two bytes, here"
SALTS = {"s1": SALT}
LIFETIME = 3600
UNTIL = NOW + LIFETIME + 120


def jti_entry(jti: str, *, entry_id: str | None = None, until: int = UNTIL, undoable: bool = False) -> Entry:
    return Entry(
        id=entry_id or f"jti-{jti}",
        kind=Kind.JTI,
        fingerprint=jti_fingerprint(ISSUER, jti, salt=SALT),
        salt="s1",
        in_force_until=until,
        undoable=undoable,
    )


def token_entry(signing_input: str, *, until: int = UNTIL) -> Entry:
    return Entry(
        id=f"token-{signing_input}",
        kind=Kind.TOKEN,
        fingerprint=token_fingerprint(signing_input, salt=SALT),
        salt="s1",
        in_force_until=until,
    )


def claims_entry(
    claims: dict[str, str],
    *,
    entry_id: str = "rule",
    before: int = NOW,
    until: int = UNTIL,
    block_until: int | None = None,
) -> Entry:
    return Entry(
        id=entry_id,
        kind=Kind.CLAIMS,
        fingerprint=claims_fingerprint(claims.items(), salt=SALT),
        salt="s1",
        names=tuple(sorted(claims)),
        issued_before=before,
        in_force_until=until,
        block_until=block_until,
    )


def key_entry(kid: str) -> Entry:
    return Entry(
        id=f"key-{kid}",
        kind=Kind.KEY,
        fingerprint=key_fingerprint(ISSUER, kid, salt=SALT),
        salt="s1",
    )


def all_entry(*, before: int = NOW, entry_id: str = "everything", until: int = UNTIL) -> Entry:
    return Entry(id=entry_id, kind=Kind.ALL, issued_before=before, in_force_until=until)


def undo_entry(undoes: str, *, until: int = UNTIL) -> Entry:
    return Entry(id=f"undo-{undoes}", kind=Kind.UNDO, undoes=undoes, in_force_until=until)


def list_of(entries: Iterable[Entry], *, now: float = NOW, **more: Any) -> RevocationList:
    return RevocationList.of(entries, salts=SALTS, epoch=1, max_token_lifetime=LIFETIME, now=now, **more)


def judged(
    *,
    iss: str = ISSUER,
    jti: str | None = "jti-of-the-token",
    kid: str = "kid-1",
    iat: int = NOW - 60,
    signing_input: str = "aGVhZGVy.cGF5bG9hZA",
    **claims: object,
) -> JudgedToken:
    return JudgedToken(iss=iss, jti=jti, kid=kid, iat=iat, claims=claims, signing_input=signing_input)


# Few ids, subjects and times, so that entries of one example meet: the same id twice, an undo of something
# that is there, two cut-offs for one subject.
_IDS = st.sampled_from(["a", "b", "c"])
_TIMES = st.integers(NOW - 100, NOW + 100)
_UNTIL = st.sampled_from([UNTIL - 50, UNTIL, UNTIL + 50])

ENTRIES = st.one_of(
    st.builds(jti_entry, _IDS, entry_id=_IDS, until=_UNTIL, undoable=st.booleans()),
    st.builds(token_entry, _IDS, until=_UNTIL),
    st.builds(
        claims_entry,
        st.sampled_from([{"sub": "x"}, {"sub": "y"}, {"client_id": "x"}, {"realm": "/services", "sub": "x"}]),
        entry_id=_IDS,
        before=_TIMES,
        until=_UNTIL,
        block_until=st.none() | st.integers(NOW, NOW + 100),
    ),
    st.builds(key_entry, _IDS),
    st.builds(all_entry, before=st.integers(NOW - 200, NOW - 90), entry_id=_IDS, until=_UNTIL),
    st.builds(undo_entry, _IDS, until=_UNTIL),
)

TOKENS = st.builds(
    judged,
    jti=_IDS | st.none(),
    kid=_IDS,
    iat=_TIMES,
    signing_input=_IDS,
    sub=st.sampled_from(["x", "y", "z"]),
    client_id=st.sampled_from(["x", "z"]),
    realm=st.sampled_from(["/services", "/customers"]),
)
