"""The claim set of an access token, read strictly (RFC 7519 section 4, RFC 9068 section 2.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NoReturn

from tokenry.claims import TokenInfo
from tokenry.errors import InvalidToken, Reason
from tokenry.revocation.judged import MAX_VIA
from tokenry.scope import InvalidScope, Scope, parse_scope, scope_of

MAX_NUMERIC_DATE: Final = 253_402_300_799
"""The end of the year 9999: what any calendar can show."""


def read_claim_set(claims: dict[str, Any], *, kid: str, foreign: bool) -> TokenInfo:
    """
    Return what *claims*, whose `iss` has been looked at, say.

    Args:
        claims: The payload.
        kid: Id of the key that signed it.
        foreign: Whether the issuer is not one of ours; ours write a realm with its leading slash.

    Raises:
        InvalidToken: A claim is missing or has the wrong type; `nbf` and `root_iat`, if there, are dates.
    """
    # Written out: this runs for each new token, and calls of small functions would take a third more.
    get = claims.get
    sub, exp, iat = get("sub"), get("exp"), get("iat")
    if type(sub) is not str or not sub or type(exp) is not int or type(iat) is not int:  # a bool is an `int` to Python
        _refuse()
    if not (0 <= exp <= MAX_NUMERIC_DATE and 0 <= iat <= MAX_NUMERIC_DATE):
        _refuse()
    client_id, azp, realm, jti = get("client_id"), get("azp"), get("realm"), get("jti")
    if (  # a `null` is there, and no text
        ((type(client_id) is not str or not client_id) and "client_id" in claims)
        or ((type(azp) is not str or not azp) and "azp" in claims)
        or ((type(realm) is not str or not realm) and "realm" in claims)
        or ((type(jti) is not str or not jti) and "jti" in claims)
        or ("root_jti" in claims and (type(claims["root_jti"]) is not str or not claims["root_jti"]))
    ):
        _refuse()
    for name in _OPTIONAL_DATES:
        if name in claims and (type(claims[name]) is not int or not 0 <= claims[name] <= MAX_NUMERIC_DATE):
            _refuse()
    # Of an exchanged token: a revocation of what it was made from hits it too.
    if "via_jti" in claims and len(_strings(claims["via_jti"])) > MAX_VIA:
        _refuse()
    if realm is not None and not foreign and realm[0] != "/":
        _refuse()
    return TokenInfo(
        iss=claims["iss"],
        sub=sub,
        client_id=client_id or azp,
        aud=_audiences(get("aud", _NOBODY)),
        scope=_scope(get("scope", "")),
        exp=exp,
        iat=iat,
        jti=jti,
        realm=realm,
        kid=kid,
        claims=read_only(claims),
    )


_OPTIONAL_DATES: Final = ("nbf", "root_iat")
_NOBODY: Final[list[str]] = []
_CONTAINERS: Final = frozenset({dict, list})


def read_only(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    """Return the JSON *value* such that nothing in it can be changed; it stays equal and can be dumped."""
    if type(value) is dict:
        if _CONTAINERS.isdisjoint(map(type, value.values())):  # nearly every claim set
            return ReadOnlyDict(value)
        return ReadOnlyDict((name, read_only(each)) for name, each in value.items())
    if type(value) is list:
        return ReadOnlyList(map(read_only, value))
    return value


def _refuse_change(*_: object, **__: object) -> NoReturn:
    message = "the claims of a token are shared by all its requests and cannot be changed: copy them first"
    raise TypeError(message)


class ReadOnlyDict(dict[str, Any]):
    """A JSON object whose members stay as they are; a copy of it is an ordinary one."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse_change

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class ReadOnlyList(list[Any]):
    """A JSON array whose elements stay as they are; a copy of it is an ordinary one."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse_change
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse_change

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def _refuse() -> NoReturn:
    raise InvalidToken(Reason.MALFORMED_CLAIMS)


def _audiences(aud: Any) -> tuple[str, ...]:  # noqa: ANN401 -- any JSON value
    return (aud,) if type(aud) is str else tuple(_strings(aud))


def _scope(scope: Any) -> Scope:  # noqa: ANN401 -- any JSON value
    """Both forms are read: a string (RFC 8693 section 4.2), and an array of strings (Plan B's)."""
    try:
        if type(scope) is str:
            return _parse_scope(scope)
        return scope_of(_strings(scope))
    except InvalidScope:
        raise InvalidToken(Reason.MALFORMED_CLAIMS) from None


_parse_scope = lru_cache(maxsize=1024)(parse_scope)
"""Scopes repeat from token to token, and their sets are shared; nothing unsigned comes here."""


def _strings(value: Any) -> list[str]:  # noqa: ANN401 -- any JSON value
    if type(value) is not list or not all(type(each) is str for each in value):
        _refuse()
    return value
