"""
Reading the members of a stored JSON object strictly.

A credential decides who gets in, so a member that is misspelt, of another type or unknown refuses the object:
it is never skipped. Messages name the member and never repeat its value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenry.errors import ProtocolError
from tokenry.scope import InvalidScope, Scope, scope_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_TEXT = 1024  # characters of one text member: a hash has about a hundred, a description some more
MAX_ITEMS = 256  # items of one list: as many scopes as a token may carry
MAX_TIME = 2**53  # the largest integer that every JSON implementation keeps exactly


class Fields:
    """The members of one JSON object, each read once; `finish` refuses what was not read."""

    __slots__ = ("_members", "_read")

    def __init__(self, members: Mapping[str, Any]) -> None:
        """Read from *members*."""
        self._members = members
        self._read: set[str] = set()

    def _take(self, name: str) -> Any:  # noqa: ANN401 -- JSON of any type, judged by the caller
        self._read.add(name)
        return self._members.get(name)

    def optional_text(self, name: str) -> str | None:
        """Return the non-empty text *name*, or None when it is absent."""
        value = self._take(name)
        if value is None and name not in self._members:
            return None
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
            raise ProtocolError(f"{name} is no printable text of at most {MAX_TEXT} characters")
        return value

    def text(self, name: str) -> str:
        """Return the non-empty text *name*."""
        value = self.optional_text(name)
        if value is None:
            raise ProtocolError(f"{name} is missing")
        return value

    def choice(self, name: str, *, among: Collection[str], default: str) -> str:
        """Return the text *name*, one of *among*."""
        value = self.optional_text(name)
        if value is None:
            return default
        if value not in among:
            raise ProtocolError(f"{name} is none of {', '.join(sorted(among))}")
        return value

    def optional_integer(self, name: str, *, at_least: int = 0, at_most: int = MAX_TIME) -> int | None:
        """Return the whole number *name* within its bounds, or None when it is absent."""
        value = self._take(name)
        if value is None and name not in self._members:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
            raise ProtocolError(f"{name} is no whole number from {at_least} to {at_most}")
        return value

    def integer(self, name: str, *, at_least: int = 0, at_most: int = MAX_TIME) -> int:
        """Return the whole number *name* within its bounds."""
        value = self.optional_integer(name, at_least=at_least, at_most=at_most)
        if value is None:
            raise ProtocolError(f"{name} is missing")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return the boolean *name*."""
        value = self.optional_flag(name)
        return default if value is None else value

    def optional_flag(self, name: str) -> bool | None:
        """Return the boolean *name*, or None when it is absent."""
        value = self._take(name)
        if value is None and name not in self._members:
            return None
        if not isinstance(value, bool):
            raise ProtocolError(f"{name} is neither true nor false")
        return value

    def true_or(self, name: str, *, among: Collection[str]) -> str | bool:
        """Return the member *name*: a boolean (absent: False), or a text of *among*."""
        value = self._take(name)
        if name not in self._members or isinstance(value, bool):
            return bool(value)
        if not isinstance(value, str) or value not in among:
            raise ProtocolError(f"{name} is neither true nor false nor {', '.join(sorted(among))}")
        return value

    def optional_names(self, name: str) -> tuple[str, ...] | None:
        """Return the list of distinct, non-empty texts *name*, or None when it is absent."""
        value = self._take(name)
        if value is None and name not in self._members:
            return None
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise ProtocolError(f"{name} is no list of at most {MAX_ITEMS} texts")
        if not all(isinstance(item, str) and 0 < len(item) <= MAX_TEXT and item.isprintable() for item in value):
            raise ProtocolError(f"{name} has an item that is no printable text")
        if len(set(value)) != len(value):
            raise ProtocolError(f"{name} names something twice")
        return tuple(value)

    def names(self, name: str) -> tuple[str, ...]:
        """Return the list of texts *name*; absent means empty."""
        return self.optional_names(name) or ()

    def optional_scope(self, name: str) -> Scope | None:
        """Return the scope *name*, a list of scope tokens (RFC 6749 section 3.3), or None if it is absent."""
        value = self.optional_names(name)
        if value is None:
            return None
        try:
            return scope_of(value)
        except InvalidScope:
            raise ProtocolError(f"{name} has an item that is no scope token") from None

    def objects(self, name: str) -> tuple[Mapping[str, Any], ...]:
        """Return the list of JSON objects *name*; absent means empty."""
        value = self._take(name)
        if value is None and name not in self._members:
            return ()
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise ProtocolError(f"{name} is no list of at most {MAX_ITEMS} objects")
        if not all(isinstance(item, dict) for item in value):
            raise ProtocolError(f"{name} has an item that is no object")
        return tuple(value)

    def optional_object(self, name: str) -> Mapping[str, Any] | None:
        """Return the JSON object *name*, or None when it is absent."""
        value = self._take(name)
        if value is None and name not in self._members:
            return None
        if not isinstance(value, dict):
            raise ProtocolError(f"{name} is no object")
        return value

    def version(self) -> None:
        """Refuse an object of a format that this release does not know."""
        self.optional_integer("version", at_least=1, at_most=1)

    def finish(self) -> None:
        """Refuse an object with members that nobody has read."""
        if self._members.keys() - self._read:
            raise ProtocolError("there are members that this release does not know")
