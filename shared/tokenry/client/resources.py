"""Which issuer a service takes tokens of: asked of the service itself (RFC 9728)."""

from __future__ import annotations

from tokenry.errors import ProtocolError
from tokenry.http.fetch import Fetcher, HttpFetcher, Request
from tokenry.oauth.protected_resource import (
    MAX_METADATA_BYTES,
    ProtectedResource,
    metadata_url,
    read_protected_resource,
)

_OK = 200


def discover_resource(resource: str, *, fetcher: Fetcher | None = None) -> ProtectedResource:
    """
    Return what the service *resource* (the https URL that callers know it by) says of itself.

    It says whose tokens it takes, and is believed about itself only. Do not send credentials to an issuer because a
    service names it: compare with those that you know.

    Raises:
        FetchFailed: It does not answer.
        ProtocolError: *resource* is no identifier, or what is answered is not its metadata: nothing of it is used.
    """
    request = Request(url=metadata_url(resource), max_bytes=MAX_METADATA_BYTES)
    response = (fetcher or HttpFetcher()).fetch(request)
    if response.status != _OK:
        raise ProtocolError(f"the service has no metadata: it answered with status {response.status}")
    return read_protected_resource(response.body, resource=resource)


__all__ = ["discover_resource"]
