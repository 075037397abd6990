"""
What a token demands of whoever sends it (the claim `cnf`, RFC 7800 section 3), and what that one has shown.

Two demands are known: the certificate of the connection (`x5t#S256`, RFC 8705 section 3.1) and a key that signs a
proof for each request (`jkt`, RFC 9449 section 6.1). A token may make both; then both have to be met.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

X5T_S256: Final = "x5t#S256"
JKT: Final = "jkt"
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 as base64url
_KNOWN: Final = frozenset({X5T_S256, JKT})


class Shown(NamedTuple):
    """
    What a caller has shown to have, or what a token demands of it.

    Attributes:
        certificate: Thumbprint (`x5t#S256`) of the certificate of its connection.
        key: Thumbprint (`jkt`) of the key that signed the proof in its request; given, the token must demand it.
    """

    certificate: str | None = None
    key: str | None = None


NOTHING: Final = Shown()


def demanded_by(cnf: Any) -> Shown | None:  # noqa: ANN401 -- any JSON value
    """
    Return what a token's `cnf` demands, or None for a demand that we do not understand.

    A member that is not known may be a further condition, so that it is refused and not left out.
    """
    if not isinstance(cnf, dict) or not cnf or not _KNOWN.issuperset(cnf):
        return None
    if not all(isinstance(value, str) and _THUMBPRINT.fullmatch(value) for value in cnf.values()):
        return None
    return Shown(certificate=cnf.get(X5T_S256), key=cnf.get(JKT))


def is_met(demanded: Shown, shown: str | Shown | None) -> bool:
    """
    Tell whether who has *shown* this (a string: only a certificate's thumbprint) may use a token that demands that.

    A token that demands no key is not for one who proves to have one: the proof would protect nothing (RFC 9449
    section 7.1).
    """
    given = shown if isinstance(shown, Shown) else Shown(certificate=shown)
    return (demanded.certificate is None or demanded.certificate == given.certificate) and demanded.key == given.key
