"""One HTTP exchange as a stranger's client makes it: the standard library, no help from our own."""

import http.client
import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def call(
    method: str,
    url: str,
    *,
    form: dict[str, str] | None = None,
    document: Any = None,
    basic: tuple[str, str] | None = None,
    bearer: str | None = None,
    headers: dict[str, str] | None = None,
    seconds: float = 10.0,
) -> Answer:
    """
    Make one request on a connection of its own.

    Args:
        method: HTTP method.
        url: Plain-HTTP URL on loopback.
        form: Members of a form body.
        document: JSON body.
        basic: Client id and secret.
        bearer: Access token.
        headers: Further header fields.
        seconds: Deadline of each step.
    """
    parts = urlsplit(url)
    fields = dict(headers or {})
    body = None
    if form is not None:
        body, fields["Content-Type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
    if document is not None:
        body, fields["Content-Type"] = json.dumps(document).encode(), "application/json"
    if basic is not None:
        fields["Authorization"] = "Basic " + b64encode(":".join(basic).encode()).decode()
    if bearer is not None:
        fields["Authorization"] = f"Bearer {bearer}"
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=seconds)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target or "/", body=body, headers=fields)
        response = connection.getresponse()
        content = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
    finally:
        connection.close()
