"""Revocation lists: what they contain, how they are read, and whether they hit a token."""

from __future__ import annotations

from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.judged import JudgedToken
from tokenry.revocation.lists import RevocationList
from tokenry.revocation.rules import Hit

__all__ = ["Entry", "Hit", "JudgedToken", "Kind", "RevocationList"]
