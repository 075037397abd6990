"""The platform's HTTP interfaces as a command sees them: one request, one answer, or one clear error."""

from __future__ import annotations

import json
import ssl
import time
from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urlencode

from tokenry.errors import ConfigurationError, ProtocolError, TokenryError
from tokenry.http.fetch import Failure, FetchFailed, HttpFetcher, Request, Response
from tokenry.revocation.wire import parse_list
from tokenry.secret import Secret
from tokenry_cli.invocation import current
from tokenry_cli.output import escape, people

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from tokenry.http.fetch import Fetcher
    from tokenry.revocation.wire import ListDocument
    from tokenry_cli.context import Context

_DEADLINE_SECONDS = 10.0  # a person waits; a service that takes longer is down for them
_BATCH_SECONDS = 120.0  # for ten thousand lines, also when none of them is a mere id
_MAX_ANSWER_BYTES = 1 << 20
_MAX_LIST_BYTES = 256 << 20  # a million single tokens in JSON


class Refused(TokenryError):
    """
    A service answered that it will not.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, what: str, response: Response) -> None:
        """Say that *what* was refused, and why, in the service's words."""
        self.status = response.status
        super().__init__(f"{what} was refused with {response.status}: {_words(response)}")


class Platform:
    """Requests to the three services of one context."""

    def __init__(self, context: Context, *, fetcher: Fetcher | None = None) -> None:
        """Talk to the services of *context*."""
        self.context = context
        self._fetcher = fetcher or HttpFetcher(tls=_trusting(context.ca_file))

    def token(self, *, scope: Iterable[str] = (), audience: str | None = None) -> dict[str, Any]:
        """
        Return the answer of the token endpoint for the context's own client.

        Raises:
            Refused: The issuer refused.
            FetchFailed: It did not answer.
        """
        form = {"grant_type": "client_credentials"}
        if self.context.realm:
            form["realm"] = self.context.realm
        if wanted := " ".join(scope):
            form["scope"] = wanted
        if audience:
            form["audience"] = audience
        response = self._post(f"{self.context.issuer}/oauth2/token", form=form, headers=self._basic())
        return _json("the token", response, expected={200})

    def bearer(self, *, scope: Iterable[str] = ()) -> dict[str, str]:
        """Return the header field that authenticates the context's client, with a fresh token."""
        return {"Authorization": f"Bearer {self.token(scope=scope)['access_token']}"}

    def introspect(self, token: Secret) -> dict[str, Any]:
        """
        Return what introspection says of *token*, asked with the context's client credentials.

        Raises:
            Refused: The caller may not introspect.
            FetchFailed: The service did not answer.
        """
        url = f"{self.context.tokeninfo_url()}/oauth2/introspect"
        return _json(
            "introspection",
            self._post(url, form={"token": token.reveal()}, headers=self._basic()),
            expected={200},
        )

    def revoke(self, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """
        Post one revocation as the context's client, and return the service's answer.

        Raises:
            Refused: The service refused it; nothing is revoked.
            FetchFailed: It did not answer: posting the same again is safe.
        """
        url = f"{self.context.revocation_url()}/revocations{'?dry_run=true' if dry_run else ''}"
        response = self._send("POST", url, json.dumps(body).encode(), "application/json", self.bearer())
        return _json("the revocation", response, expected={200} if dry_run else {200, 201, 202})

    def batch(self, lines: bytes, *, key: str) -> dict[str, Any]:
        """
        Send revocations, a line of JSON each, as the job *key*, and return the job when all of them were read.

        Raises:
            Refused: The service refused it as a whole; sending the same again is safe.
            FetchFailed: It did not answer: the same holds.
        """
        url = f"{self.context.revocation_url()}/revocations/batch"
        response = self._send(
            "POST",
            url,
            lines,
            "application/x-ndjson",
            {**self.bearer(), "Idempotency-Key": key},
            deadline_seconds=_BATCH_SECONDS,
        )
        return _json("the batch", response, expected={202})

    def job(self, name: str, *, page: int = 0) -> dict[str, Any]:
        """
        Return the job called *name*, with a page of its failures.

        Raises:
            Refused: There is none, or the caller may not see it.
            FetchFailed: The service did not answer.
        """
        url = f"{self.context.revocation_url()}/jobs/{quote(name, safe='')}?page={page}"
        return _json("the job", self.get(url, headers=self.bearer()), expected={200})

    def cancel_job(self, name: str) -> dict[str, Any]:
        """
        Ask the job called *name* to stop.

        Raises:
            Refused: There is none, it does not run, or the caller may not.
            FetchFailed: The service did not answer: asking again is safe.
        """
        url = f"{self.context.revocation_url()}/jobs/{quote(name, safe='')}/cancel"
        return _json("the job", self._send("POST", url, b"", "application/json", self.bearer()), expected={202})

    def about(self, name: str) -> dict[str, Any]:
        """
        Return what the service knows of the revocation *name*.

        Raises:
            Refused: There is none, or the caller may not see it.
            FetchFailed: The service did not answer.
        """
        url = f"{self.context.revocation_url()}/revocations/{quote(name, safe='')}"
        return _json("the revocation", self.get(url, headers=self.bearer()), expected={200})

    def change(self, name: str, action: str, *, reason: str | None = None, ticket: str | None = None) -> dict[str, Any]:
        """
        Do *action* (`undo` or `approve`) to the revocation *name*.

        Raises:
            Refused: The service refused it.
            FetchFailed: It did not answer: doing the same again is safe.
        """
        said = {key: value for key, value in (("reason", reason), ("ticket", ticket)) if value}
        url = f"{self.context.revocation_url()}/revocations/{quote(name, safe='')}/{action}"
        body = json.dumps(said).encode()
        return _json(
            f"to {action}", self._send("POST", url, body, "application/json", self.bearer()), expected={200, 201}
        )

    def entries(self, *, bearer: Mapping[str, str] | None = None) -> ListDocument:
        """
        Return everything that is in force.

        Args:
            bearer: What authenticates; default: with a fresh token.

        Raises:
            Refused: The caller may not read the list.
            FetchFailed: The service did not answer, or with something else.
        """
        headers = self.bearer() if bearer is None else bearer
        url = f"{self.context.revocation_url()}/revocations/snapshot"
        response = self._send("GET", url, None, None, headers, max_bytes=_MAX_LIST_BYTES)
        if response.status != HTTPStatus.OK:
            raise Refused("the list", response)
        try:
            return parse_list(response.body)
        except ProtocolError as error:
            raise FetchFailed(Failure.MALFORMED, f"the list cannot be read: {error}") from None

    def validators(self, *, bearer: Mapping[str, str] | None = None, revocation: str | None = None) -> dict[str, Any]:
        """
        Return what the revocation service knows of its validators.

        Args:
            bearer: What authenticates, to be used again; default: with a fresh token.
            revocation: An id: tell since when each of them enforces it.

        Raises:
            Refused: The caller may not see them.
            FetchFailed: The service did not answer.
        """
        query = "" if revocation is None else f"?revocation={quote(revocation, safe='')}"
        url = f"{self.context.revocation_url()}/validators{query}"
        return _json("the list of validators", self.get(url, headers=bearer or self.bearer()), expected={200})

    def audit(self, *, limit: int, before: int | None = None) -> dict[str, Any]:
        """
        Return the last records of the audit log of the replica that answers.

        Args:
            limit: How many at most.
            before: Only records with a smaller number.

        Raises:
            Refused: The caller may not see them.
            FetchFailed: The service did not answer.
        """
        older = "" if before is None else f"&before={before}"
        url = f"{self.context.revocation_url()}/audit?limit={limit}{older}"
        return _json("the audit log", self.get(url, headers=self.bearer()), expected={200})

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Response:
        """Return the answer to a GET of *url*."""
        return self._send("GET", url, None, None, headers or {})

    def _basic(self) -> dict[str, str]:
        client_id, secret = self.context.credentials()
        pair = f"{quote_plus(client_id)}:{quote_plus(secret.reveal())}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}

    def _post(self, url: str, *, form: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        return self._send("POST", url, urlencode(form).encode(), "application/x-www-form-urlencoded", headers)

    def _send(
        self,
        method: str,
        url: str,
        body: bytes | None,
        content_type: str | None,
        headers: Mapping[str, str],
        *,
        deadline_seconds: float = _DEADLINE_SECONDS,
        max_bytes: int = _MAX_ANSWER_BYTES,
    ) -> Response:
        fields = {**headers, "Accept": "application/json"}
        if content_type:
            fields["Content-Type"] = content_type
        called, began = current(), time.monotonic()
        request = Request(
            method=method,
            url=url,
            headers=fields,
            body=body,
            deadline_seconds=called.timeout or deadline_seconds,
            max_bytes=max_bytes,
        )
        response = self._fetcher.fetch(request)
        if called.verbose:
            where = escape(url.partition("?")[0])  # a query may name what is nobody else's business
            people.print(f"[dim]{method} {where}: {response.status}, {1000 * (time.monotonic() - began):.0f} ms[/dim]")
        return response


def _trusting(ca_file: Path | None) -> ssl.SSLContext | None:
    """Return TLS settings that trust the authority of *ca_file* alone; None: the system's."""
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError([f"ca_file {ca_file} cannot be used: {error.strerror or error}"]) from None


def _json(what: str, response: Response, *, expected: Collection[int]) -> dict[str, Any]:
    if response.status not in expected:
        raise Refused(what, response)
    try:
        document = json.loads(response.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        message = f"the answer for {what} is not a JSON object; is this the right URL?"
        raise FetchFailed(Failure.MALFORMED, message)
    return document


def _words(response: Response) -> str:
    """Return what the service says itself: OAuth's members, or those of a problem document (RFC 9457)."""
    try:
        document = json.loads(response.body)
    except ValueError:
        return "no explanation"
    if not isinstance(document, dict):
        return "no explanation"
    said = (document.get(name) for name in ("error", "title", "error_description", "detail"))
    return ": ".join(str(word) for word in said if word)
