"""
Breaking the glass: a signed word that validators go on judging by an old list, until a certain time.

    header      {"alg": "ES256", "kid": "…", "typ": "revocation-list-extension+jwt"}
    payload     {"iss": "…", "iat": …, "exp": …, "jti": "…", "sub": "who", "reason": "why", "ticket": "…"}

It lengthens the refuse limit and does nothing else: no token becomes good by it that the list held refuses, and
no list is believed by it that would not be otherwise. Its key is pinned in the configuration of each reader, so
that neither the issuer nor the revocation service can issue one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenry.errors import ProtocolError
from tokenry.jose import jws
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.jose.typed import verified_payload

if TYPE_CHECKING:
    from tokenry.jose.jwk import PublicKey, Signer

EXTENSION_TYPE: Final = "revocation-list-extension+jwt"
MAX_EXTENSION_SECONDS: Final = 24 * 3600
MAX_EXTENSION_BYTES: Final = 8 * 1024
MAX_TEXT_CHARACTERS: Final = 500

_REQUIRED: Final = frozenset({"iss", "iat", "exp", "jti", "sub"})
_OPTIONAL: Final = frozenset({"reason", "ticket"})
_MAX_TIME: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class ListExtension:
    """
    One such word.

    Attributes:
        issuer: The issuer whose platform it is for.
        issued_at: Unix seconds at which it was signed.
        until: Unix seconds at which it ends; at most a day later.
        name: Its own name, for the audit log.
        by: Who gave it.
        reason: Why.
        ticket: Where the incident is written down.

    Raises:
        ProtocolError: It would last longer than a day, or a part is mistyped.
    """

    issuer: str
    issued_at: int
    until: int
    name: str
    by: str
    reason: str | None = None
    ticket: str | None = None

    def __post_init__(self) -> None:
        """Refuse what nobody may ask for."""
        for seconds in (self.issued_at, self.until):
            if type(seconds) is not int or not 0 <= seconds < _MAX_TIME:
                raise ProtocolError("a time of the extension is no number of whole seconds")
        if not 0 < self.until - self.issued_at <= MAX_EXTENSION_SECONDS:
            raise ProtocolError(f"an extension lasts for at most {MAX_EXTENSION_SECONDS // 3600} hours")
        for text in (self.issuer, self.name, self.by):
            if type(text) is not str or not 0 < len(text) <= MAX_TEXT_CHARACTERS:
                raise ProtocolError("a text of the extension is missing or too long")
        for said in (self.reason, self.ticket):
            if said is not None and (type(said) is not str or len(said) > MAX_TEXT_CHARACTERS):
                raise ProtocolError("reason and ticket of the extension are short texts")

    def is_in_force(self, now: float, *, skew: float) -> bool:
        """Tell whether it holds at *now* (Unix seconds), on clocks that may differ by *skew*."""
        return math.isfinite(now) and self.issued_at - skew <= now < self.until

    def sign(self, signer: Signer) -> str:
        """Return it as a JWS under the key of *signer*."""
        members = {
            "iss": self.issuer,
            "iat": self.issued_at,
            "exp": self.until,
            "jti": self.name,
            "sub": self.by,
            "reason": self.reason,
            "ticket": self.ticket,
        }
        said = {name: value for name, value in members.items() if value is not None}
        return jws.sign({"typ": EXTENSION_TYPE}, dump_json(said), signer)


def read_extension(text: str, *, issuer: str, key: PublicKey) -> ListExtension:
    """
    Return the extension *text* for the platform of *issuer*, under the pinned *key*.

    Raises:
        ProtocolError: Its signature, type or issuer is not right, it lasts too long, or anything in it is
            missing, unknown or mistyped.
    """

    def find(kid: str) -> PublicKey | None:
        return key if kid == key.kid else None

    payload = verified_payload(text, typ=EXTENSION_TYPE, find=find, max_bytes=MAX_EXTENSION_BYTES)
    members = parse_json_object(payload)
    if not _REQUIRED <= members.keys() <= _REQUIRED | _OPTIONAL:
        raise ProtocolError("a member of the extension is missing or unknown")
    if members["iss"] != issuer:
        raise ProtocolError("the extension is for another issuer's platform")
    return ListExtension(
        issuer=issuer,
        issued_at=members["iat"],
        until=members["exp"],
        name=members["jti"],
        by=members["sub"],
        reason=members.get("reason"),
        ticket=members.get("ticket"),
    )
