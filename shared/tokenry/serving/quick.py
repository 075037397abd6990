"""
Answers that are given at once, without a task, a request object and a route: for the few endpoints that are asked
thousands of times a second and never wait.

A service puts a `QuickAnswers` into `app[QUICK]`. The connection (`tokenry.serving.protocol`) hands it what aiohttp's
parser has read, and writes what it returns. It never has to answer: with None the request goes the ordinary way through
the application, which therefore must answer everything, and is what a quick answer has to be equal to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aiohttp import web

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy


class QuickAnswers(Protocol):
    """What can be answered at once."""

    def __call__(self, method: str, path: str, headers: CIMultiDictProxy[str]) -> bytes | None:
        """
        Return the whole answer to a request of HTTP/1.1 without a body on a connection that stays open, or None.

        Args:
            method: As received.
            path: The request target as received, with its query.
            headers: The header fields.
        """
        ...


QUICK = web.AppKey("quick", QuickAnswers)
