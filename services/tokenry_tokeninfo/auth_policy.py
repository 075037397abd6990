"""
What a gateway asks for at `/auth`, and whether a token has it. Pure.

Two places may hold the policy, and never both: the query string of `/auth` itself, and the header
`Tokenry-Require` for `/auth/<anything>`, where a gateway has appended the path and query of *its* caller,
which must not decide what is required of them.

A policy that is missing or not understood is a fault of the gateway's configuration. It must never let
anybody through, so it is an error (500, and an alarm), whatever the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

from tokenry.errors import InsufficientScope, TokenryError
from tokenry.scope import NO_SCOPE, InvalidScope, Scope, parse_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tokenry.claims import TokenInfo

REQUIRE_HEADER = "Tokenry-Require"
MAX_HEADER = 4096  # characters; more scopes than that are no policy that anybody has read
MAX_FIELDS = 64  # likewise
_REPEATABLE = "scope"
_MEMBERS = frozenset({"scope", "any", "authenticated", "audience"})
# %x21-7E but for the percent sign itself, so that the encoding can be undone.
_PLAIN = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


class PolicyFault(TokenryError):
    """The gateway's policy is missing or not understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthPolicy:
    """
    What is required.

    Attributes:
        scope: The scopes; empty only where any valid token will do.
        any_of: Whether one of them is enough; otherwise all are needed.
        audience: What `aud` must contain, or None.
    """

    scope: Scope
    any_of: bool = False
    audience: str | None = None

    def check(self, granted: Scope) -> None:
        """
        Pass if *granted* is enough.

        Raises:
            InsufficientScope: Naming what is missing.
        """
        missing = self.scope - granted
        if not missing or (self.any_of and missing != self.scope):
            return
        raise InsufficientScope(missing)


def policy_from_query(query: str) -> AuthPolicy:
    """
    Return the policy of the raw *query* of `/auth`: `scope=a&scope=b&any=1`.

    Raises:
        PolicyFault: There is none, or a parameter is unknown, repeated (but for `scope`) or malformed.
    """
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        raise PolicyFault("the policy is not a query string") from None
    return _policy(pairs)


def policy_from_header(values: Sequence[str]) -> AuthPolicy:
    """
    Return the policy of the `Tokenry-Require` fields, of which there must be one: `scope=a b; any=0`.

    Raises:
        PolicyFault: There is none or more than one, or a member is unknown, repeated or malformed.
    """
    if len(values) != 1 or len(values[0]) > MAX_HEADER:
        raise PolicyFault(f"send {REQUIRE_HEADER} once, with the policy")
    members = [part.partition("=") for part in values[0].split(";")]
    pairs = [(name.strip(), value.strip()) for name, _, value in members]
    if len({name for name, _ in pairs}) != len(pairs):
        raise PolicyFault("a member of the policy is repeated")
    return _policy(pairs)


def _policy(pairs: Iterable[tuple[str, str]]) -> AuthPolicy:
    scope: Scope = NO_SCOPE
    single: dict[str, str] = {}
    for name, value in pairs:
        if name not in _MEMBERS or not value:
            raise PolicyFault("a member of the policy is unknown or empty")
        if name == _REPEATABLE:
            scope |= _scope(value)
        elif single.setdefault(name, value) != value:
            raise PolicyFault("a member of the policy is repeated")
    any_of = _flag(single.get("any", "0"))
    if not scope and not _flag(single.get("authenticated", "0")):
        raise PolicyFault("the policy requires nothing; say authenticated=1 if that is meant")
    if any_of and not scope:
        raise PolicyFault("any=1 without a scope")
    return AuthPolicy(scope=scope, any_of=any_of, audience=single.get("audience"))


def _scope(value: str) -> Scope:
    try:
        return parse_scope(value)
    except InvalidScope:
        raise PolicyFault("a scope of the policy is malformed") from None


def _flag(value: str) -> bool:
    if value not in {"0", "1"}:
        raise PolicyFault("a flag of the policy is neither 0 nor 1")
    return value == "1"


def identity_headers(info: TokenInfo) -> dict[str, str]:
    """
    Return who the token speaks for, as header fields for the service behind the gateway.

    All four are always there, so that a gateway that copies them overwrites what its caller may have sent.
    Characters outside %x21-7E are percent-encoded, so no value can end a line or imitate another; scopes are
    separated by one space.
    """
    return {
        "X-Auth-Subject": _encoded(info.sub),
        "X-Auth-Client": _encoded(info.client_id or ""),
        "X-Auth-Scopes": " ".join(map(_encoded, sorted(info.scope))),
        "X-Auth-Realm": _encoded(info.realm or ""),
    }


def _encoded(text: str) -> str:
    return quote(text, safe=_PLAIN, errors="surrogatepass")
