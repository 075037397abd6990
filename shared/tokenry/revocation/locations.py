"""
What an answer of the revocation service says it is (RFC 9110 section 8.7), so that a reader can tell its own answer
from one to another request: news since a later cursor, merged after an earlier one, would leave an unseen hole.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

LOCATION_HEADER: Final = "Content-Location"
SNAPSHOT_LOCATION: Final = "snapshot"


def changes_location(cursor: str) -> str:
    """Return where the news since *cursor* are, relative to the list."""
    return f"changes?after={quote(cursor, safe='')}"


def is_located(value: str | None, *, at: str) -> bool:
    """
    Tell whether an answer with the header *value* may be the one that *at* names.

    One that does not say may: services of before did not, and Plan B's do not.
    """
    return value is None or unquote(value.strip().rpartition("/")[2]) == unquote(at)
