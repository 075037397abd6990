"""A value that is never printed and is compared in constant time."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """
    Text that must not reach a log, an error, a metric or a `repr`.

    The only way to the text is `reveal`; a review looks at its callers. It cannot be pickled.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Hide *text*."""
        self._text = text

    def reveal(self) -> str:
        """Return the text: only to put it on the wire or into a hash."""
        return self._text

    def matches(self, candidate: str) -> bool:
        """Tell, in time that depends on neither text, whether *candidate* is the same text."""
        return hmac.compare_digest(
            self._text.encode("utf-8", "surrogatepass"), candidate.encode("utf-8", "surrogatepass")
        )

    def __bool__(self) -> bool:
        """Tell whether there is any text."""
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        """Compare with another secret in constant time; anything else is different."""
        return isinstance(other, Secret) and self.matches(other._text)

    def __hash__(self) -> int:
        """Hash by the text (Python's hash is keyed per process)."""
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        """Show nothing."""
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str, /) -> str:
        """Show nothing, whatever the format."""
        return repr(self)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a pickle is a copy in the clear."""
        message = "a Secret cannot be pickled: pass the place it is read from instead"
        raise TypeError(message)
