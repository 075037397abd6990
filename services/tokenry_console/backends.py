"""
The services as the console sees them: one request with the person's own token, and one answer or one clear error.

No error repeats what was sent, and what a service answers is data: it is checked here for its form, cut to
bounds, and escaped where it is shown.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.serving.outgoing import TimedOut, TooLarge, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.secret import Secret
    from tokenry.serving.outgoing import Answer, Outgoing

MAX_ANSWER_BYTES: Final = 8 * 2**20  # 2000 validators take 400 kB, 1000 lines of the audit log a megabyte
MAX_LIST_BYTES: Final = 64 * 2**20
MAX_DETAIL: Final = 500  # characters of a service's own words


class BackendError(TokenryError):
    """
    A service did not do what was asked.

    Attributes:
        part: Which service.
        cause: What is wrong, in words that may be shown.
        advice: What to do next.
        status: The HTTP status that it answered; None when there was no answer.
    """

    def __init__(self, part: str, cause: str, advice: str, *, status: int | None = None) -> None:
        """Say what is wrong with *part*."""
        self.part = part
        self.cause = cause
        self.advice = advice
        self.status = status
        super().__init__(f"{part}: {cause}")

    @property
    def page_status(self) -> int:
        """The HTTP status of a page that is nothing without that answer: a refusal as it is, else 502 (RFC 9110)."""
        refused = HTTPStatus.BAD_REQUEST <= (self.status or 0) < HTTPStatus.INTERNAL_SERVER_ERROR
        return self.status if refused and self.status is not None else HTTPStatus.BAD_GATEWAY


class NotConfigured(BackendError):
    """The console was not told where this service is."""


class SignedOut(BackendError):
    """The service does not accept the person's token (any more)."""


class NotThere(BackendError):
    """The service does not have what was asked for."""


class NotPermitted(BackendError):
    """The token is good and does not allow this."""


class Backend:
    """One service."""

    def __init__(self, part: str, url: str | None, *, setting: str, calls: Outgoing, deadline: float) -> None:
        """
        Ask the service at *url*.

        Args:
            part: What people call it.
            url: Its base URL; None when the console was not told.
            setting: The setting that tells it.
            calls: Makes the calls.
            deadline: Seconds that one may take.
        """
        self.part = part
        self._url = None if url is None else url.rstrip("/")
        self._setting = setting
        self._calls = calls
        self._deadline = deadline

    @property
    def is_configured(self) -> bool:
        """Whether the console was told where it is."""
        return self._url is not None

    async def get(
        self,
        path: str,
        *,
        bearer: Secret | None,
        query: Mapping[str, str] | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> dict[str, Any]:
        """
        Return the JSON object at *path*.

        Raises:
            BackendError: There was none.
        """
        return self._object(await self._call("GET", path, bearer=bearer, query=query, max_bytes=max_bytes))

    async def fetch(self, path: str, *, bearer: Secret | None, accept: str, max_bytes: int) -> bytes:
        """
        Return the body at *path* in the form *accept*.

        Raises:
            BackendError: There was none.
        """
        answer = await self._call("GET", path, bearer=bearer, accept=accept, max_bytes=max_bytes)
        return answer.body

    async def post(
        self,
        path: str,
        body: Mapping[str, object],
        *,
        bearer: Secret,
        query: Mapping[str, str] | None = None,
        key: str | None = None,
        seconds: float | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """
        Return status and JSON object of the answer to *body*; with *key* a repetition does nothing twice.

        It is waited for as long as for a page, or for *seconds*.

        Raises:
            BackendError: It was refused, or nobody knows whether it was done; the text says which.
        """
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = await self._call(
            "POST", path, bearer=bearer, query=query, body=dump_json(dict(body)), headers=headers, seconds=seconds
        )
        return answer.status, self._object(answer)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        bearer: Secret | None,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        accept: str = "application/json",
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
        seconds: float | None = None,
    ) -> Answer:
        if self._url is None:
            advice = f"Set {self._setting} where the console runs, or use the command line."
            raise NotConfigured(self.part, "the console was not told where it is", advice)
        sent = {"Accept": accept, **(headers or {})}
        if bearer is not None:
            sent["Authorization"] = f"Bearer {bearer.reveal()}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        url = self._url + path + (f"?{urlencode(query)}" if query else "")
        try:
            answer = await self._calls.call(
                method,
                url,
                headers=sent,
                body=body,
                deadline_seconds=self._deadline if seconds is None else seconds,
                max_bytes=max_bytes,
            )
        except Unreachable as error:
            raise self._away(error, changing=method != "GET") from None
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise self._refused(answer)
        return answer

    def _away(self, error: Unreachable, *, changing: bool) -> BackendError:
        if isinstance(error, TooLarge):
            return NotThere(self.part, f"this is too long to be shown here: {error}", "Use the command line.")
        if changing and isinstance(error, TimedOut):
            advice = "It may or may not have been done: look at the page Audit, and send it again; that does no harm."
        else:
            advice = f"See whether it runs: its /readyz?verbose says what it lacks. The setting is {self._setting}."
        return BackendError(self.part, f"it cannot be reached: {error}", advice)

    def _refused(self, answer: Answer) -> BackendError:
        said = _words(answer.body)
        status = answer.status
        if status == HTTPStatus.UNAUTHORIZED:
            return SignedOut(self.part, "it does not accept your token (any more)", "Log in again.", status=status)
        if status == HTTPStatus.FORBIDDEN:
            advice = "Log in with a token that has this scope, or ask somebody who may."
            return NotPermitted(self.part, said or "your token does not allow this", advice, status=status)
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            advice = f"Give its own address in {self._setting}: redirects are not followed with a token."
            return BackendError(self.part, f"it answers with a redirect ({status})", advice, status=status)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            advice = "Try again in a moment; its /readyz?verbose says what it lacks."
            return BackendError(self.part, said or f"it answers {status}", advice, status=status)
        if status == HTTPStatus.NOT_ACCEPTABLE:
            return NotThere(
                self.part, said or "this is too long to be shown here", "Use the command line.", status=status
            )
        if status == HTTPStatus.NOT_FOUND:
            advice = "Check the name; what ended long ago is not kept. A service of an older version may lack this."
            return NotThere(self.part, said or "there is no such thing", advice, status=status)
        return BackendError(self.part, said or f"it answers {status}", "Correct what was asked for.", status=status)

    def _object(self, answer: Answer) -> dict[str, Any]:
        try:
            return parse_json_object(answer.body)
        except ProtocolError:
            advice = f"Is {self._setting} the address of this service? Compare the versions."
            raise BackendError(self.part, "its answer is not understood", advice, status=answer.status) from None


def _words(body: bytes) -> str:
    """Return what a service says about a refusal, in either of the two forms."""
    try:
        members = parse_json_object(body[:MAX_ANSWER_BYTES])
    except ProtocolError:
        return ""
    for name in ("detail", "error_description", "error"):
        said = members.get(name)
        if isinstance(said, str) and said:
            return said[:MAX_DETAIL]
    return ""


def path_of(*parts: str) -> str:
    """Return the path of *parts*, each of them one segment whatever is in it."""
    for part in parts:
        if part in {"", ".", ".."}:
            raise BackendError("the console", "there is no such name", "Check the address.", status=404)
    return "".join(f"/{quote(part, safe='')}" for part in parts)


class Backends:
    """All services that the console asks."""

    def __init__(
        self,
        *,
        calls: Outgoing,
        deadline: float,
        issuer: str,
        tokeninfo: str,
        revocation: str,
        admin: str | None,
    ) -> None:
        """Ask the services at these base URLs."""

        def backend(part: str, url: str | None, setting: str) -> Backend:
            return Backend(part, url, setting=setting, calls=calls, deadline=deadline)

        self.issuer = backend("the issuer", issuer, "TOKENRY_ISSUER")
        self.tokeninfo = backend("token info", tokeninfo, "TOKENRY_TOKENINFO_URL")
        self.revocation = backend("the revocation service", revocation, "TOKENRY_REVOCATION_URL")
        self.admin = backend("the admin service", admin, "TOKENRY_CONSOLE_ADMIN_URL")
