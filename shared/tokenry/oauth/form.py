"""
Form bodies and query strings, read strictly (RFC 6749 sections 3.2 and appendix B).

A parameter that is sent without a value reads as absent. Whether one may be sent twice is decided where it is
read: `Form.one` refuses a repetition of what it is asked for, also an empty one; a parameter that nobody asks
for is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from tokenry.oauth.errors import invalid_request, wrong_content_type

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PARAMETERS = 64  # the longest request that is defined has a dozen
MAX_BODY_BYTES = 64 * 1024  # a form with an assertion of 8 KiB and a hundred scopes stays far below
FORM = "application/x-www-form-urlencoded"


class Form:
    """The parameters of one request."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """Collect *pairs*."""
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        self._values = values

    def one(self, name: str) -> str | None:
        """
        Return the only value of *name*, or None when it is absent or empty.

        Raises:
            OAuthError: `invalid_request`: it was sent more than once.
        """
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            message = f"{name} was sent more than once"
            raise invalid_request(message)
        return values[0] or None

    def required(self, name: str) -> str:
        """
        Return the only value of *name*.

        Raises:
            OAuthError: `invalid_request`: it is absent, or was sent more than once.
        """
        value = self.one(name)
        if value is None:
            message = f"{name} is missing"
            raise invalid_request(message)
        return value

    def every(self, name: str) -> tuple[str, ...]:
        """Return all values of *name* that are not empty, in the order sent."""
        return tuple(filter(None, self._values.get(name, ())))

    def __contains__(self, name: str) -> bool:
        """Tell whether *name* was sent, be it without a value."""
        return name in self._values

    def names(self) -> frozenset[str]:
        """Return the names that were sent, be it without a value."""
        return frozenset(self._values)

    def __repr__(self) -> str:
        """Show how many parameters there are: names and values may be secrets put in the wrong place."""
        return f"Form({len(self._values)} parameters)"


def parse_form(body: bytes, *, content_type: str | None) -> Form:
    """
    Return the parameters of a form *body*.

    Args:
        body: The body as received; its size was bounded by whoever read it.
        content_type: The value of the header field, or None when there was none.

    Raises:
        OAuthError: `invalid_request`: 415 for another media type, 400 for a charset other than UTF-8, bytes that
            are not UTF-8, or more than `MAX_PARAMETERS` parameters.
    """
    media_type, _, parameters = (content_type or "").partition(";")
    if media_type.strip().lower() != FORM:
        raise wrong_content_type()
    _check_charset(parameters)
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        message = "the body is not a form: percent-encode what is not ASCII"
        raise invalid_request(message) from None
    return Form(_pairs(text))


def parse_query(query: str) -> Form:
    """
    Return the parameters of a raw *query* string (without its question mark).

    Raises:
        OAuthError: `invalid_request`: it is not percent-encoded UTF-8, or has too many parameters.
    """
    return Form(_pairs(query) if query else ())


def _check_charset(parameters: str) -> None:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in {
            "utf-8",
            "utf8",
            "us-ascii",
        }:
            message = "send the form in UTF-8"
            raise invalid_request(message)


def _pairs(text: str) -> list[tuple[str, str]]:
    if text.count("&") >= MAX_PARAMETERS:
        message = f"there are more than {MAX_PARAMETERS} parameters"
        raise invalid_request(message)
    try:
        return [_pair(part) for part in text.split("&") if part]
    except ValueError:
        message = "parameters are not percent-encoded UTF-8"
        raise invalid_request(message) from None


def _pair(part: str) -> tuple[str, str]:
    """Return name and value of `name=value`, as the standard library's `parse_qsl` does at three times the cost."""
    name, _, value = part.partition("=")
    return _decoded(name), _decoded(value)


def _decoded(text: str) -> str:
    if "+" in text:
        text = text.replace("+", " ")
    return unquote(text, encoding="utf-8", errors="strict") if "%" in text else text
