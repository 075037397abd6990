"""A token as a revocation list sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenry.revocation.fingerprints import claims_fingerprint, jti_fingerprint, key_fingerprint, token_fingerprint

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_VIA: Final = 16
"""Tokens between the first and this one of a chain of exchanges; our issuer allows half as many."""

_CLIENT: Final = ("client_id", "azp")


class JudgedToken:
    """
    What of a verified token decides whether it is revoked.

    Fingerprints are computed once for each salt (and set of names) and remembered, so that judging the same
    object by the next list costs no hash.

    Attributes:
        iss: Issuer identifier.
        jti: Token id; None for an issuer that gives none.
        kid: Id of the key that signed it.
        iat: Unix seconds at which it was issued.
        claims: All its claims.
        signing_input: Its first two segments, `header.payload`.
        issued_at: The earliest moment of its chain of exchanges: the smaller of `iat` and `root_iat`. A
            `root_iat` that is no number counts as the beginning of time, so that every rule that fits hits.
    """

    __slots__ = (
        "_found",
        "claims", "iat", "iss", "issued_at", "jti", "kid", "signing_input",
    )  # fmt: skip

    def __init__(
        self, *, iss: str, jti: str | None, kid: str, iat: int, claims: Mapping[str, Any], signing_input: str
    ) -> None:
        """Take what was verified."""
        self.iss = iss
        self.jti = jti
        self.kid = kid
        self.iat = iat
        self.claims = claims
        self.signing_input = signing_input
        self.issued_at: int = iat
        if "root_iat" in claims:
            root = claims["root_iat"]
            self.issued_at = min(iat, root) if type(root) is int else 0
        # Its identities by salt, its claims by salt and names. (By the salt itself: an id could be used again.)
        self._found: dict[bytes | tuple[bytes, tuple[str, ...]], tuple[bytes, ...]] = {}

    def reissued(self, *, iat: int, kid: str) -> JudgedToken:
        """
        Return the same claims as issued at another moment and signed by another key; they are hashed no second time.

        Only for a token without a `root_iat`.
        """
        token = JudgedToken(
            iss=self.iss, jti=self.jti, kid=kid, iat=iat, claims=self.claims, signing_input=self.signing_input
        )
        token._found = self._found
        return token

    def identities(self, salt: bytes) -> tuple[bytes, ...]:
        """Return the fingerprints that name this token, or one that it was exchanged from: by signing input, by id."""
        found = self._found.get(salt)
        if found is None:
            root, via = self.claims.get("root_jti"), self.claims.get("via_jti")
            chain = via[:MAX_VIA] if isinstance(via, list) else ()
            ids = [jti for jti in (self.jti, root, *chain) if type(jti) is str]  # signed, and yet of any JSON type
            found = (
                token_fingerprint(self.signing_input, salt=salt),
                *[jti_fingerprint(self.iss, jti, salt=salt) for jti in ids],
            )
            self._found[salt] = found
        return found

    def key(self, salt: bytes) -> bytes:
        """Return the fingerprint of the key that signed it."""
        return key_fingerprint(self.iss, self.kid, salt=salt)

    def carried(self, salt: bytes, names: tuple[str, ...]) -> tuple[bytes, ...]:
        """
        Return the fingerprints of its values for *names*.

        None when it lacks one of them as a string; two when `client_id` and `azp` are both there and differ.
        """
        memo = (salt, names)
        found = self._found.get(memo)
        if found is None:
            found = self._found[memo] = self._carried(salt, names)
        return found

    def _carried(self, salt: bytes, names: tuple[str, ...]) -> tuple[bytes, ...]:
        if len(names) == 1:  # nearly all rules
            name = names[0]
            return tuple([claims_fingerprint(((name, value),), salt=salt) for value in self._values(name)])
        choices: list[list[tuple[str, str]]] = [[]]
        for name in names:
            values = self._values(name)
            choices = [[*chosen, (name, value)] for chosen in choices for value in values]
        return tuple(claims_fingerprint(pairs, salt=salt) for pairs in choices)

    def _values(self, name: str) -> Collection[str]:
        """`azp` and `client_id` are one claim under two names; any other has at most one value."""
        if name == "client_id":
            return {value for spelling in _CLIENT if type(value := self.claims.get(spelling)) is str}
        value = self.claims.get(name)
        return (value,) if type(value) is str else ()

    def __repr__(self) -> str:
        """Name it without what it carries."""
        return f"JudgedToken(iss={self.iss!r}, jti={self.jti!r})"
