"""
Answers that are given at once, without a task, a request object and a route: for the few endpoints that are asked
thousands of times a second and never wait.

A service puts a `QuickAnswers` into `app[QUICK]`, for requests without a body, or `QuickForms` into
`app[QUICK_FORMS]`. The connection (`tokenry.serving.protocol`) hands it what aiohttp's parser has read, and writes
what it returns. It never has to answer: with None the request goes the ordinary way through the application, which
therefore must answer everything, and is what a quick answer has to be equal to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aiohttp import web

if TYPE_CHECKING:
    import asyncio

    from multidict import CIMultiDictProxy

    from tokenry.serving.turns import Turns


class QuickAnswers(Protocol):
    """What can be answered at once."""

    def __call__(
        self,
        method: str,
        path: str,
        headers: CIMultiDictProxy[str],
        transport: asyncio.Transport,
        *,
        waited: bool = False,
    ) -> bytes | Turns | None:
        """
        Return the whole answer to a request of HTTP/1.1 without a body on a connection that stays open, or None.

        Args:
            method: As received.
            path: The request target as received, with its query.
            headers: The header fields.
            transport: The connection, for the caller's address.
            waited: Whether the request has waited for its turn.

        Returns:
            Or, unless it has waited, the turns in which it is to wait: its answer takes long.
        """
        ...


class QuickForms(Protocol):
    """What can be answered at once of requests that have a body, all of which is there."""

    def takes(self, method: str, path: str) -> bool:
        """Tell whether a request with this request line might be answered here."""
        ...

    def __call__(
        self, path: str, headers: CIMultiDictProxy[str], body: bytes, transport: asyncio.Transport
    ) -> bytes | None:
        """
        Return the whole answer to a request of HTTP/1.1 on a connection that stays open, or None.

        Args:
            path: The request target as received, with its query.
            headers: The header fields.
            body: The whole body as received, after its transfer coding.
            transport: The connection, for the caller's address and certificate.
        """
        ...


QUICK = web.AppKey("quick", QuickAnswers)
QUICK_FORMS = web.AppKey("quick_forms", QuickForms)
