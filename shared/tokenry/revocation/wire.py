"""Everything that a revocation list is on the wire: the two forms of a document, and stamp and place beside it."""

from __future__ import annotations

from tokenry.revocation.binary import (
    BINARY_TYPE,
    MAX_BINARY_BYTES,
    format_binary_list,
    max_binary_bytes,
    parse_binary_list,
)
from tokenry.revocation.documents import EpochRefused, ListDocument, document_of
from tokenry.revocation.jsonform import MAX_JSON_BYTES, entry_members, format_list, parse_entry, parse_list
from tokenry.revocation.locations import LOCATION_HEADER, SNAPSHOT_LOCATION, changes_location, is_located
from tokenry.revocation.stamps import LIST_HEADER, ListStamp

__all__ = [
    "BINARY_TYPE",
    "LIST_HEADER",
    "LOCATION_HEADER",
    "MAX_BINARY_BYTES",
    "MAX_JSON_BYTES",
    "SNAPSHOT_LOCATION",
    "EpochRefused",
    "ListDocument",
    "ListStamp",
    "changes_location",
    "document_of",
    "entry_members",
    "format_binary_list",
    "format_list",
    "is_located",
    "max_binary_bytes",
    "parse_binary_list",
    "parse_entry",
    "parse_list",
]
