"""A browser without scripts, as far as a console can tell: it keeps cookies and sends the forms of the pages it saw."""

from __future__ import annotations

import html
import http.client
import re
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_SECONDS: Final = 20.0  # for one page, which asks several services, on a machine that runs other tests
FORM: Final = "application/x-www-form-urlencoded"
_SECRET: Final = re.compile(r'name="csrf" value="([^"]+)"')
_DRAFT: Final = re.compile(r'name="draft" value="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Page:
    """
    What came back.

    Attributes:
        status: HTTP status.
        fields: All header fields in order, names in lower case.
        body: Content as it came.
    """

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)

    def field(self, name: str) -> str | None:
        """Return the only value of a header field; None when there is none."""
        found = self.every(name)
        assert len(found) < 2, (name, found)
        return found[0] if found else None

    def every(self, name: str) -> list[str]:
        """Return all values of a header field."""
        return [value for known, value in self.fields if known == name.lower()]

    @property
    def text(self) -> str:
        """The content."""
        return self.body.decode()

    @property
    def words(self) -> str:
        """What a reader sees, without markup."""
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", self.text)).split())

    @property
    def csrf(self) -> str:
        """The secret that the page's forms carry."""
        found = _SECRET.search(self.text)
        assert found, self.words[:300]
        return found[1]

    @property
    def draft(self) -> str:
        """The name of the change that waits to be confirmed."""
        found = _DRAFT.search(self.text)
        assert found, self.words[:300]
        return found[1]


class Visitor:
    """
    One browser at one address.

    Attributes:
        cookies: What it keeps, by name.
        given: Every cookie value and form secret that it was given.
    """

    def __init__(self, address: tuple[str, int], *, source: str = "127.0.0.1") -> None:
        """Visit the console at *address*, from the loopback address *source*."""
        self._address = address
        self._source = source
        self.cookies: dict[str, str] = {}
        self.given: set[str] = set()

    def send(
        self,
        method: str,
        target: str,
        *,
        form: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Page:
        """Make one request on a connection of its own; no redirect is followed."""
        fields: dict[str, str | bytes] = {}
        if self.cookies:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if form is not None:
            # Lone surrogates become bytes that are no UTF-8.
            body, fields["Content-Type"] = urlencode(form, errors="surrogateescape").encode(), FORM
        connection = http.client.HTTPConnection(
            *self._address, timeout=ANSWER_SECONDS, source_address=(self._source, 0)
        )
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in (fields | dict(headers or {})).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            got = tuple((name.lower(), value) for name, value in response.getheaders())
            page = Page(response.status, got, response.read())
        finally:
            connection.close()
        self._keep(page)
        return page

    def get(self, target: str, **headers: str | bytes) -> Page:
        """Fetch a page."""
        return self.send("GET", target, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def submit(self, page: Page, target: str, *, headers: Mapping[str, str | bytes] | None = None, **form: str) -> Page:
        """Send a form of *page*."""
        return self.send("POST", target, form={"csrf": page.csrf, **form}, headers=headers)

    def log_in(self, token: str, **form: str) -> Page:
        """Paste *token* into the login page and send it."""
        return self.send("POST", "/login", form={"csrf": self.get("/login").csrf, "token": token, **form})

    def _keep(self, page: Page) -> None:
        for value in page.every("set-cookie"):
            for morsel in SimpleCookie(value).values():
                if morsel["max-age"] == "0":
                    self.cookies.pop(morsel.key, None)
                else:
                    self.cookies[morsel.key] = morsel.value
                    self.given.add(morsel.value)
        if found := _SECRET.search(page.body.decode("utf-8", "replace")):
            self.given.add(found[1])
