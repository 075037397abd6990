"""A revocation list to change by hand, and the answers that a revocation service gives about it."""

from __future__ import annotations

import math
import threading
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from tokenry.http.fetch import Headers, Response
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import claims_fingerprint, jti_fingerprint, key_fingerprint, token_fingerprint
from tokenry.revocation.lists import RevocationList
from tokenry.revocation.wire import BINARY_TYPE, LIST_HEADER, ListDocument, ListStamp, format_binary_list, format_list
from tokenry.validation.snapshots import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.clock import Clock

RETENTION_MARGIN_SECONDS: Final = 120
_SALT_ID: Final = "s1"
_SALT: Final = bytes(range(32))  # a fake: its list may be compared byte for byte


class RevocationSimulator:
    """
    What a revocation service knows, in memory.

    Attributes:
        epoch: Which store it claims to be.
        as_of_offset: Seconds added to the moment that its answers claim to be complete at.
    """

    def __init__(self, *, clock: Clock, max_token_lifetime: int, epoch: int = 1) -> None:
        """Know of nothing revoked."""
        self._clock = clock
        self._lifetime = max_token_lifetime
        self._news = threading.Condition()
        self._entries: list[Entry] = []
        self._list: RevocationList | None = None
        self.epoch = epoch
        self.as_of_offset = 0.0
        self.forgotten_before = 0
        self.holds = True

    def revoke_token(self, *, iss: str, jti: str | None, signing_input: str, exp: float) -> str:
        """Revoke one token by its id and its text; return the revocation's id."""
        until = int(exp) + RETENTION_MARGIN_SECONDS
        name = _new_id()
        entries = [self._entry(name, Kind.TOKEN, token_fingerprint(signing_input, salt=_SALT), until)]
        if jti is not None:
            entries.append(self._entry(name, Kind.JTI, jti_fingerprint(iss, jti, salt=_SALT), until))
        return self.add(*entries)

    def revoke_claims(self, claims: Mapping[str, str], *, issued_before: int | None = None) -> str:
        """Revoke what was issued before *issued_before* (default: up to now) and carries all *claims*."""
        canonical = {("client_id" if name == "azp" else name): value for name, value in claims.items()}
        before = self._cut_off(issued_before)
        return self.add(
            Entry(
                id=_new_id(),
                kind=Kind.CLAIMS,
                fingerprint=claims_fingerprint(canonical.items(), salt=_SALT),
                salt=_SALT_ID,
                names=tuple(sorted(canonical)),
                issued_before=before,
                in_force_until=before + self._lifetime + RETENTION_MARGIN_SECONDS,
            )
        )

    def revoke_key(self, *, iss: str, kid: str) -> str:
        """Revoke every token that the key *kid* signed."""
        fingerprint = key_fingerprint(iss, kid, salt=_SALT)
        return self.add(Entry(id=_new_id(), kind=Kind.KEY, fingerprint=fingerprint, salt=_SALT_ID))

    def revoke_all(self, *, issued_before: int | None = None) -> str:
        """Revoke everything that was issued before *issued_before* (default: up to now)."""
        before = self._cut_off(issued_before)
        until = before + self._lifetime + RETENTION_MARGIN_SECONDS
        return self.add(Entry(id=_new_id(), kind=Kind.ALL, issued_before=before, in_force_until=until))

    def undo(self, name: str) -> str:
        """Lift the revocation *name* (of claims, or of everything)."""
        until = int(self._clock.now()) + self._lifetime + RETENTION_MARGIN_SECONDS
        return self.add(Entry(id=_new_id(), kind=Kind.UNDO, undoes=name, in_force_until=until))

    def add(self, *entries: Entry) -> str:
        """Add *entries* as they are; return the id of the first."""
        now = self._clock.now()
        with self._news:
            self._entries.extend(replace(entry, created_at=now) for entry in entries)
            self._list = None
            self._news.notify_all()
        return entries[0].id

    def snapshot(self) -> Snapshot[RevocationList]:
        """Return the list as of now."""
        with self._news:
            if self._list is None:
                self._list = RevocationList.of(
                    self._entries,
                    salts={_SALT_ID: _SALT},
                    epoch=self.epoch,
                    max_token_lifetime=self._lifetime,
                )
            held = self._list
        return Snapshot(
            value=held,
            as_of=self._clock.now() + self.as_of_offset,
            age_at_request=0.0,
            requested_at=self._clock.monotonic(),
        )

    def answer(self, url: str, headers: Mapping[str, str], *, hold: bool) -> Response:
        """Return what the service says to a GET of *url*; *hold* waits for news as `wait` asks."""
        parts = urlsplit(url)
        if parts.path.endswith("/snapshot"):
            return self._snapshot(headers)
        if parts.path.endswith("/changes"):
            query = parse_qs(parts.query)
            after, wait = query.get("after", ["0"])[0], float(query.get("wait", ["0"])[0])
            created_at = query.get("created_at") == ["true"]
            return self._changes(after, wait=wait if hold and self.holds else 0.0, created_at=created_at)
        return Response(status=404)

    def close(self) -> None:
        """Let go of requests that are held."""
        with self._news:
            self.holds = False
            self._news.notify_all()

    def _snapshot(self, headers: Mapping[str, str]) -> Response:
        with self._news:
            entries, position = tuple(self._entries), len(self._entries)
        etag = f'"{self.epoch}-{position}"'
        if headers.get("if-none-match") == etag:
            return Response(status=304, headers=Headers([("ETag", etag), *self._stamp()]))
        binary = BINARY_TYPE in headers.get("accept", "")
        document = self._document(entries, position)
        fields = [
            ("ETag", etag),
            ("Content-Type", BINARY_TYPE if binary else "application/json"),
            *self._stamp(),
        ]
        body = format_binary_list(document) if binary else format_list(document)
        return Response(status=200, headers=Headers(fields), body=body)

    def _changes(self, after: str, *, wait: float, created_at: bool) -> Response:
        if not after.isdigit() or int(after) < self.forgotten_before:
            return Response(status=410)
        position = int(after)
        with self._news:
            self._news.wait_for(lambda: len(self._entries) > position or not self.holds, wait)
            entries, now_at = tuple(self._entries[position:]), len(self._entries)
        fields = [("Content-Type", "application/json"), *self._stamp()]
        body = format_list(self._document(entries, max(now_at, position)), created_at=created_at)
        return Response(status=200, headers=Headers(fields), body=body)

    def _document(self, entries: tuple[Entry, ...], position: int) -> ListDocument:
        return ListDocument(
            cursor=str(position),
            epoch=self.epoch,
            salts={_SALT_ID: _SALT},
            max_token_lifetime=self._lifetime,
            entries=entries,
        )

    def _stamp(self) -> list[tuple[str, str]]:
        as_of = max(0.0, self._clock.now() + self.as_of_offset)
        stamp = ListStamp(epoch=self.epoch, as_of=as_of, age=max(0.0, -self.as_of_offset))
        return [(LIST_HEADER, stamp.format())]

    def _entry(self, name: str, kind: Kind, fingerprint: bytes, until: int) -> Entry:
        return Entry(id=name, kind=kind, fingerprint=fingerprint, salt=_SALT_ID, in_force_until=until)

    def _cut_off(self, issued_before: int | None) -> int:
        return math.floor(self._clock.now()) + 1 if issued_before is None else issued_before


def _new_id() -> str:
    return f"rev_{uuid.uuid4().hex}"
