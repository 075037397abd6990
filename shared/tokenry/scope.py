"""Scopes: sets of scope tokens (RFC 6749 section 3.3), compared whole and case-sensitively."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tokenry.errors import TokenryError

if TYPE_CHECKING:
    from collections.abc import Iterable

Scope = frozenset[str]
NO_SCOPE: Scope = frozenset()

_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
MAX_SCOPE_TOKENS = 256  # a token of 8 KiB cannot carry more scopes of a useful length


class InvalidScope(TokenryError):
    """A scope is not of the grammar of RFC 6749 section 3.3."""


def parse_scope(text: str) -> Scope:
    """
    Return the scope tokens of *text*; the empty text has none (RFC 6749 section 3.3).

    Raises:
        InvalidScope: A character is outside the grammar, spaces are doubled, or there are too many tokens.
    """
    if not text:
        return NO_SCOPE
    return scope_of(text.split(" "))


def scope_of(names: Iterable[str]) -> Scope:
    """
    Return *names* as a scope.

    Raises:
        InvalidScope: A name is empty or has a character outside the grammar, or there are too many.
    """
    scope = frozenset(names)
    if len(scope) > MAX_SCOPE_TOKENS or not all(map(_SCOPE_TOKEN.fullmatch, scope)):
        message = 'a scope is a list of names separated by single spaces, of printable ASCII without " and \\'
        raise InvalidScope(message)
    return scope


def format_scope(scope: Iterable[str]) -> str:
    """Return the scope tokens sorted and joined by one space, the form that goes over the wire."""
    return " ".join(sorted(scope))
