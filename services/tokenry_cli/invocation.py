"""How a command was called: the options that all commands share, and which context it came to use."""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PATH: Final = 500  # characters of a JSONPath
_STEP: Final = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(?:(\d+)|(\*)|'([^']+)'|\"([^\"]+)\")\]|(\.\*)")


class Kind(StrEnum):
    """The forms of output."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"
    JSONPATH = "jsonpath"


FORMS: Final = "table|wide|json|yaml|name|jsonpath=PATH"


@dataclass(frozen=True, slots=True)
class Form:
    """
    One form of output.

    Attributes:
        kind: Which.
        path: Steps of the JSONPath: members, places in a list, or None for all of them.
    """

    kind: Kind = Kind.TABLE
    path: tuple[str | int | None, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Form:
        """
        Return what *text* names, such as `json` or `jsonpath=.keys[0].kid`.

        Raises:
            ValueError: There is no such form; the text says which there are.
        """
        name, equals, path = text.partition("=")
        if name == Kind.JSONPATH and equals:
            return cls(Kind.JSONPATH, tuple(_steps(path)))
        if equals or name not in {str(kind) for kind in Kind if kind is not Kind.JSONPATH}:
            raise ValueError(f"{text[:40]!r} is no form of output; there are {FORMS}")
        return cls(Kind(name))

    @property
    def is_for_machines(self) -> bool:
        """Whether a program reads it."""
        return self.kind not in {Kind.TABLE, Kind.WIDE}

    def pick(self, document: Any) -> list[Any]:  # noqa: ANN401 -- any JSON value
        """Return what the path leads to in *document*: one value of each way, none where there is none."""
        found = [document]
        for step in self.path:
            found = [value for each in found for value in _step(each, step)]
        return found


def _steps(path: str) -> Iterator[str | int | None]:
    """Yield the steps of *path*: kubectl's braces and a leading `$` may be there or not."""
    text = path.removeprefix("{").removesuffix("}").removeprefix("$")
    if len(text) > MAX_PATH or not text:
        raise ValueError("a JSONPath is a text such as .keys[0].kid or .keys[*].kid")
    if text[0] not in ".[":
        text = f".{text}"
    place = 0
    while place < len(text):
        if text[place:] == ".":
            return
        step = _STEP.match(text, place)
        if step is None:
            raise ValueError(f"this JSONPath cannot be read from {text[place : place + 20]!r} on; such as .keys[0].kid")
        member, number, everything, quoted, doubly, all_members = step.groups()
        place = step.end()
        if everything or all_members:
            yield None
        else:
            yield int(number) if number is not None else member or quoted or doubly


def _step(value: Any, step: str | int | None) -> Iterator[Any]:  # noqa: ANN401 -- any JSON value
    if step is None:
        yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    elif step in value if isinstance(value, dict) else _is_place(step, value):
        yield value[step]


def _is_place(step: str | int, value: object) -> bool:
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


@dataclass(slots=True, kw_only=True)
class Invocation:
    """
    One call of a command.

    Attributes:
        command: Its words, such as `revoke claim`.
        form: How data is printed.
        no_input: Whether nothing may be asked.
        yes: Whether what would be asked is confirmed.
        yes_on: The context on which it is confirmed, by name.
        quiet: Whether only data and errors are printed.
        verbose: Whether each request is printed.
        timeout: Seconds for each request; None: what fits it.
        context: What `-C` named, a context or a file.
        context_name: Name of the context in use, for the heads of tables and questions.
    """

    command: str = ""
    form: Form = field(default_factory=Form)
    no_input: bool = False
    yes: bool = False
    yes_on: str | None = None
    quiet: bool = False
    verbose: bool = False
    timeout: float | None = None
    context: str | None = None
    context_name: str | None = None


_current: ContextVar[Invocation | None] = ContextVar("tokenry_invocation", default=None)


def current() -> Invocation:
    """Return the call that is under way; outside of one, a call without options."""
    return _current.get() or Invocation()


class calling:  # noqa: N801 -- read as a word: `with calling(...)`
    """Makes *invocation* the current one for a block."""

    def __init__(self, invocation: Invocation) -> None:
        """Change nothing yet."""
        self._invocation = invocation

    def __enter__(self) -> Invocation:
        """Begin."""
        self._token = _current.set(self._invocation)
        return self._invocation

    def __exit__(self, *_: object) -> None:
        """Be as before."""
        _current.reset(self._token)
