"""
A model of planb-tokeninfo, the validator of Zalando's Plan B, as far as revocations go.

It states what the last public version (2016-2018) does with the list that it polls, defects included, so that
tests can tell whether an unchanged one refuses what it should:

* It asks from the largest `revoked_at` that it has seen, less a tolerance; at first from 30 days ago.
* It drops a row with a time of 0, without its hash or names, or with a cut-off in its own future.
* It keeps one row a hash (one for all GLOBAL rows), the last that it read, and every set of names that it
  ever heard of.
* It judges a token by hashing its values under each set of names, without looking at whose row it finds;
  values of a set are taken up to the first name that the token lacks.
* It ends when a claim that a rule names is no string, and when a second notification of a refresh comes.
* A refresh makes it drop what is not older than REFRESH_FROM, and go on asking from REFRESH_TIMESTAMP.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

CACHE_SECONDS = 30 * 86400
TOLERANCE_SECONDS = 60


class ValidatorDied(Exception):
    """The process is gone: from here on nobody is judged at all."""


class PlanBTokeninfo:
    """
    One running planb-tokeninfo.

    Args:
        salt: Its REVOCATION_HASHING_SALT.
        clock_offset: Seconds by which its clock is ahead of the true time.
        tolerance: Its REVOCATION_REFRESH_TOLERANCE, seconds.
    """

    def __init__(self, *, salt: str, clock_offset: float = 0.0, tolerance: int = TOLERANCE_SECONDS) -> None:
        self._salt = salt
        self._offset = clock_offset
        self._tolerance = tolerance
        self._rows: dict[str, dict[str, Any]] = {}
        self._names: set[tuple[str, ...]] = set()
        self._latest = 0
        self._refreshed: int | None = None

    def question(self, now: float) -> int:
        """Return the `from` of its next poll at the true time *now*."""
        latest = self._latest or self._clock(now) - CACHE_SECONDS
        return latest - self._tolerance

    def take(self, body: bytes, *, now: float) -> None:
        """Read the answer to its poll at the true time *now*."""
        answer = json.loads(body)
        self._refresh(answer["meta"], now)
        for row in answer["revocations"]:
            self._take_row(row, now)
        oldest = self._clock(now) - CACHE_SECONDS
        self._rows = {key: row for key, row in self._rows.items() if row["revoked_at"] >= oldest}

    def refuses(self, raw: str, claims: dict[str, Any]) -> bool:
        """Tell whether it calls the token *raw* with *claims* revoked."""
        iat = int(claims["iat"])
        if self._cuts("GLOBAL", iat) or self._cuts(self._hash(raw), iat):
            return True
        values = [self._values(names, claims) for names in self._names]  # all of them: any may be its end
        return any(self._cuts(self._hash("|".join(found)), iat) for found in values)

    def _clock(self, now: float) -> int:
        return int(now + self._offset)

    def _refresh(self, meta: dict[str, int], now: float) -> None:
        timestamp = meta.get("REFRESH_TIMESTAMP") or 0
        if timestamp in {0, self._refreshed}:
            return
        if self._refreshed is not None:
            raise ValidatorDied("a second refresh")
        self._refreshed = timestamp
        if meta["REFRESH_FROM"] >= self._clock(now) - CACHE_SECONDS:
            self._rows = {key: row for key, row in self._rows.items() if row["revoked_at"] < meta["REFRESH_FROM"]}
        self._latest = timestamp

    def _take_row(self, row: dict[str, Any], now: float) -> None:
        data = row["data"]
        key = {"GLOBAL": "GLOBAL", "TOKEN": data.get("token_hash"), "CLAIM": data.get("value_hash")}[row["type"]]
        if not key or row["revoked_at"] <= 0 or not 0 < data["issued_before"] <= self._clock(now):
            return
        if row["type"] == "CLAIM":
            if not data["names"]:
                return
            self._names.add(tuple(data["names"]))
        self._latest = max(self._latest, row["revoked_at"])
        self._rows[key] = {"revoked_at": row["revoked_at"], "issued_before": data["issued_before"]}

    def _values(self, names: tuple[str, ...], claims: dict[str, Any]) -> list[str]:
        values = []
        for name in names:
            if name not in claims:
                break
            if not isinstance(claims[name], str):
                raise ValidatorDied("a claim that is no string")
            values.append(claims[name])
        return values

    def _cuts(self, key: str, iat: int) -> bool:
        row = self._rows.get(key)
        return row is not None and iat < row["issued_before"]

    def _hash(self, text: str) -> str:
        if not text:
            return ""
        return base64.urlsafe_b64encode(hashlib.sha256((self._salt + text).encode()).digest()).decode()
