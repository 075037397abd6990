"""
Tokens whose signature has been verified, so that the next request with the same token need not do it again.

Invariants:

* Only tokens that were accepted enter, and only at their second sight: whoever has endless tokens that are
seen once,
  good or bad, drives no token out that is in use.
* Only the verification is remembered. Times, audience, revocation and scope are judged at each use, and the
key must
  still be in the key set.
* Everything is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from tokenry.claims import TokenInfo
    from tokenry.jose.jwk import PublicKey
    from tokenry.jose.jwks import KeySet
    from tokenry.revocation.judged import JudgedToken
    from tokenry.validation.policy import TrustedIssuer

T = TypeVar("T")

SEEN_PER_REMEMBERED: Final = 4
"""How many more hashes of tokens seen once are kept than tokens: a hash takes about 100 bytes."""


class VerifiedToken:
    """
    A token whose signature and claims were found good under one key.

    Attributes:
        info: What it says.
        judged: What a revocation list judges it by, with the fingerprints that were computed so far.
        issuer: The trusted issuer that it comes from.
        key: The key that verified it.
        keys: The last key set that had the key.
        expires: Unix seconds: its `exp`, as a float, which compares to a time in a third of what an int takes.
        not_before: Unix seconds: the later of `iat` and `nbf`.
        lives_too_long: Whether it lives longer than its issuer's tokens may.
        is_bound: Whether it has a `cnf`: it is good only with what its sender has to show.
        missed: The mark of the last list that did not hit it, and the time it was asked at.
    """

    __slots__ = (
        "expires", "info", "is_bound", "issuer", "judged", "key", "keys", "lives_too_long", "missed", "not_before",
    )  # fmt: skip

    def __init__(
        self, *, info: TokenInfo, judged: JudgedToken, issuer: TrustedIssuer, key: PublicKey, keys: KeySet
    ) -> None:
        """Take what was verified; no list has been asked yet."""
        self.info = info
        self.judged = judged
        self.issuer = issuer
        self.key = key
        self.keys = keys
        self.expires = float(info.exp)
        self.not_before = float(max(info.iat, info.claims["nbf"]) if "nbf" in info.claims else info.iat)
        self.lives_too_long = info.exp - info.iat > issuer.max_token_lifetime
        self.is_bound = "cnf" in info.claims
        self.missed: tuple[object, float] = (None, 0.0)

    def is_verified_by(self, keys: KeySet | None) -> bool:
        """Tell whether *keys* still have the key that verified it."""
        if keys is self.keys:
            return True
        if keys is None or keys.find(self.info.iss, self.info.kid) != self.key:
            return False
        self.keys = keys
        return True


class SecondSight(Generic[T]):
    """
    A bounded memory of something by the whole text of a token, from the second time on that it is offered.

    Two generations: what is used moves to the young one; when that is full it becomes the old one, and what
    was not used since the last change is gone. No step needs a lock: threads that race lose at most some
    memory of theirs.
    """

    __slots__ = ("_limit", "_old", "_seen", "_seen_before", "_young")

    def __init__(self, limit: int) -> None:
        """Remember at most *limit* tokens; 0 for none."""
        self._limit = limit // 2  # a generation
        self._young: dict[str, T] = {}
        self._old: dict[str, T] = {}
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()

    def get(self, token: str) -> T | None:
        """Return what is remembered of *token*."""
        found = self._young.get(token)
        if found is None:
            found = self._old.get(token)
            if found is not None:
                self._put(token, found)
        return found

    def admit(self, token: str, what: T) -> None:
        """Remember *what* of *token*, which has been accepted, if it was seen before."""
        sight = hash(token)  # keyed by the interpreter: nobody outside can aim at another token's
        if sight in self._seen or sight in self._seen_before:
            self._put(token, what)
            return
        if len(self._seen) >= self._limit * SEEN_PER_REMEMBERED:
            self._seen_before, self._seen = self._seen, set()
        self._seen.add(sight)

    def forget(self, token: str) -> None:
        """Forget *token*: it will not be accepted again, or not by the key that it was."""
        self._young.pop(token, None)
        self._old.pop(token, None)

    def __len__(self) -> int:
        """Return how many tokens are remembered."""
        return len(self._young.keys() | self._old.keys())

    def _put(self, token: str, what: T) -> None:
        if not self._limit:
            return
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[token] = what


class VerifiedTokens(SecondSight[VerifiedToken]):
    """The verified tokens by their whole text."""

    __slots__ = ()
