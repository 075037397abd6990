"""Problem documents (RFC 9457): how the JSON interfaces that are not OAuth's refuse."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tokenry.errors import TokenryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROBLEM_JSON = "application/problem+json"


class Problem(TokenryError):
    """
    A refusal as a problem document; raise it from a handler.

    Attributes:
        status: HTTP status.
        title: Short text, the same for every problem of this kind.
        detail: What is wrong with this request and what to do; never a secret, never an exception's text.
        type: URI of the kind of problem.
        headers: Header fields that belong to the answer.
        members: Extension members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        type: str = "about:blank",  # noqa: A002 -- the member's name in RFC 9457
        headers: Iterable[tuple[str, str]] = (),
        retry_after: int | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """Refuse with *status* and *detail*; *title* defaults to the status's own phrase."""
        self.status = status
        self.title = HTTPStatus(status).phrase if title is None else title
        self.detail = detail
        self.type = type
        retry = (("Retry-After", str(max(1, retry_after))),) if retry_after is not None else ()
        self.headers: tuple[tuple[str, str], ...] = (*headers, *retry)
        self.members = dict(members or {})
        super().__init__(f"{status} {self.title}: {detail}")

    def body(self) -> dict[str, Any]:
        """Return the members of the document; an extension never replaces a member of the standard."""
        return {
            **self.members,
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
