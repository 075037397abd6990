"""
Who is logged in: bearers kept in memory, and nowhere else. Pure: time and randomness are arguments.

Invariants:
    * A browser holds a random id and nothing else; here only its SHA-256 is a key.
    * A session ends when it was idle for too long, when its time is over, when its token expires, when a service
      says that its token must not be acted upon, and when the process ends: the earliest of them.
    * There are at most so many sessions, and of one person at most `MAX_OF_ONE`.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tokenry.errors import TokenryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenry.secret import Secret
    from tokenry_console.ports import Randomness
    from tokenry_console.propagation import Curve, Reach

MAX_OF_ONE: Final = 5
MAX_DRAFTS: Final = 8
DRAFT_SECONDS: Final = 600.0
MAX_NOTICES: Final = 5
MAX_CURVES: Final = 100
MAX_WATCHED: Final = 4
MAX_ID: Final = 128  # characters of a cookie that is looked at


class TooManySessions(TokenryError):
    """There is no room for another session."""


class Forged(TokenryError):
    """A form did not carry the secret of the session that it came with (or the session is another one by now)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """
    Who a token says that it is, as a service has judged it.

    Attributes:
        sub: The subject.
        client_id: The client; None when not said.
        realm: The realm; None when not said.
        scopes: What the token allows.
        lives_for: Seconds until it expires.
    """

    sub: str
    client_id: str | None
    realm: str | None
    scopes: frozenset[str]
    lives_for: float

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """What makes two tokens those of one person."""
        return self.sub, self.client_id, self.realm


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """
    A change that was shown and waits to be confirmed.

    Attributes:
        id: Its name, and the idempotency key of the change.
        body: What is sent; may hold a token.
        summary: What it is, in words that may be shown.
        word: What has to be typed.
        preview: What the service said that it would do.
        made_at: Monotonic seconds.
    """

    id: str
    body: Mapping[str, object] = field(repr=False)
    summary: str
    word: str
    preview: Mapping[str, object]
    made_at: float


@dataclass(frozen=True, slots=True)
class Notice:
    """One sentence for the next page; *kind* is good, bad or info."""

    kind: str
    text: str


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """
    One person in one browser.

    Attributes:
        person: Who it is.
        bearer: Their token.
        csrf: What every form of the session carries.
        ends_at: Monotonic seconds at which it ends in any case.
        seen_at: Monotonic seconds of the last request of the person.
        judged_at: Monotonic seconds at which a service last said that the token is good.
        drafts: Changes that wait to be confirmed, by id.
        notices: Sentences for the next page.
        curves: Propagation of earlier revocations, by id: final ones are not asked for again.
        watched: Who enforces the revocations that the person looks at, by id and name.
    """

    person: Person
    bearer: Secret = field(repr=False)
    csrf: str = field(repr=False)
    ends_at: float
    seen_at: float
    judged_at: float
    drafts: OrderedDict[str, Draft] = field(default_factory=OrderedDict)
    notices: list[Notice] = field(default_factory=list)
    curves: OrderedDict[str, Curve] = field(default_factory=OrderedDict)
    watched: OrderedDict[str, dict[str, Reach]] = field(default_factory=OrderedDict)

    def may(self, *scopes: str) -> bool:
        """Tell whether the token has one of *scopes*; only decides what is offered, services decide what is done."""
        return not self.person.scopes.isdisjoint(scopes)

    def check_form(self, sent: str | None) -> None:
        """
        Return when a form of this session was sent.

        Raises:
            Forged: It carries another secret, or none.
        """
        if not hmac.compare_digest(self.csrf.encode(), (sent or "").encode("utf-8", "surrogatepass")):
            raise Forged("the form is not one of this session")

    def doubt(self) -> None:
        """Let the next request ask again whether the token is good."""
        self.judged_at = -math.inf

    def keep_draft(self, draft: Draft) -> None:
        """Keep *draft*; the oldest one makes room."""
        self.drafts[draft.id] = draft
        while len(self.drafts) > MAX_DRAFTS:
            self.drafts.popitem(last=False)

    def draft(self, name: str, *, now: float) -> Draft | None:
        """Return the draft *name* unless it is too old at monotonic *now*."""
        found = self.drafts.get(name)
        return None if found is None or now - found.made_at > DRAFT_SECONDS else found

    def tell(self, kind: str, text: str) -> None:
        """Put a sentence onto the next page."""
        self.notices = [*self.notices, Notice(kind, text)][-MAX_NOTICES:]

    def take_notices(self) -> list[Notice]:
        """Return what the next page has to say, once."""
        taken, self.notices = self.notices, []
        return taken

    def keep_curve(self, curve: Curve) -> None:
        """Remember the propagation of a revocation that is enforced everywhere."""
        self.curves[curve.id] = curve
        while len(self.curves) > MAX_CURVES:
            self.curves.popitem(last=False)

    def keep_reached(self, name: str, reached: Iterable[Reach]) -> None:
        """Remember who enforces the revocation *name*."""
        self.watched[name] = {each.name: each for each in reached if each.seconds is not None}
        self.watched.move_to_end(name)
        while len(self.watched) > MAX_WATCHED:
            self.watched.popitem(last=False)


class Sessions:
    """All sessions of this process."""

    def __init__(self, *, random: Randomness, idle: float, limit: float, max_sessions: int) -> None:
        """
        Begin with none.

        Args:
            random: Where ids come from.
            idle: Seconds without a request of the person after which one ends.
            limit: Seconds after which one ends in any case.
            max_sessions: How many there may be.
        """
        self._random = random
        self._idle = idle
        self._limit = limit
        self._max = max_sessions
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, person: Person, bearer: Secret, *, now: float) -> tuple[str, Session]:
        """
        Return a new session and the id for the browser, at monotonic *now*. There is never an id from before.

        Raises:
            TooManySessions: There is no room.
        """
        self._forget_ended(now)
        mine = [key for key, each in self._sessions.items() if each.person.key == person.key]
        for key in mine[: max(0, len(mine) - MAX_OF_ONE + 1)]:
            del self._sessions[key]
        if len(self._sessions) >= self._max:
            raise TooManySessions(f"there are {self._max} sessions")
        name = self._random()
        session = Session(
            person=person,
            bearer=bearer,
            csrf=self._random(),
            ends_at=now + min(self._limit, person.lives_for),
            seen_at=now,
            judged_at=now,
        )
        self._sessions[_key(name)] = session
        return name, session

    def find(self, name: str | None, *, now: float, attended: bool = True) -> Session | None:
        """
        Return the session of the id *name* at monotonic *now*; None when there is none, or it has ended.

        A request that a page makes by itself is not *attended*, and does not keep the session alive.
        """
        if name is None or not 0 < len(name) <= MAX_ID:
            return None
        key = _key(name)
        session = self._sessions.get(key)
        if session is None:
            return None
        if self._has_ended(session, now):
            del self._sessions[key]
            return None
        if attended:
            session.seen_at = now
        return session

    def end(self, name: str | None) -> None:
        """End the session of the id *name*, if there is one."""
        if name is not None and len(name) <= MAX_ID:
            self._sessions.pop(_key(name), None)

    def _has_ended(self, session: Session, now: float) -> bool:
        return now >= session.ends_at or now - session.seen_at >= self._idle

    def _forget_ended(self, now: float) -> None:
        for key in [key for key, each in self._sessions.items() if self._has_ended(each, now)]:
            del self._sessions[key]


def _key(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
