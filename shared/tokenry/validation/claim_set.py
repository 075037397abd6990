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
    for name in _OPTIONAL_DATES:
        if name in claims:
            _date(claims, name)
    # Of an exchanged token: a revocation of what it was made from hits it too.
    _optional_text(claims, "root_jti")
    if "via_jti" in claims and len(_strings(claims["via_jti"])) > MAX_VIA:
        _refuse()
    azp, client_id = _optional_text(claims, "azp"), _optional_text(claims, "client_id")
    realm = _optional_text(claims, "realm")
    if realm is not None and not foreign and not realm.startswith("/"):
        _refuse()
    return TokenInfo(
        iss=claims["iss"],
        sub=_text(claims, "sub"),
        client_id=client_id or azp,
        aud=_audiences(claims),
        scope=_scope(claims),
        exp=_date(claims, "exp"),
        iat=_date(claims, "iat"),
        jti=_optional_text(claims, "jti"),
        realm=realm,
        kid=kid,
        claims=read_only(claims),
    )


_OPTIONAL_DATES: Final = ("nbf", "root_iat")
_CONTAINERS: Final = (dict, list)


def read_only(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    """Return the JSON *value* such that nothing in it can be changed; it stays equal and can be dumped."""
    if type(value) is dict:
        inner = {name: read_only(each) for name, each in value.items() if type(each) in _CONTAINERS}
        return ReadOnlyDict(value, **inner) if inner else ReadOnlyDict(value)
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


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if type(value) is not str or not value:
        _refuse()
    return value


def _optional_text(claims: dict[str, Any], name: str) -> str | None:
    return _text(claims, name) if name in claims else None


def _date(claims: dict[str, Any], name: str) -> int:
    """Whole seconds only: a bool is an `int` to Python, and a float compares and prints in its own ways."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= MAX_NUMERIC_DATE:
        _refuse()
    return value


def _audiences(claims: dict[str, Any]) -> tuple[str, ...]:
    aud = claims.get("aud", [])
    if type(aud) is str:
        return (aud,)
    return tuple(_strings(aud))


def _scope(claims: dict[str, Any]) -> Scope:
    """Both forms are read: a string (RFC 8693 section 4.2), and an array of strings (Plan B's)."""
    scope = claims.get("scope", "")
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
