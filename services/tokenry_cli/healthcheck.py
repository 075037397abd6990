"""
`tokenry healthcheck`: is the service beside me ready? For containers without a shell or curl.

Standard library alone and no other command imported: an orchestrator runs it every few seconds, best as
`python -m tokenry_cli.healthcheck`, which takes a tenth of the time.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_LISTEN_ADDRESS = "127.0.0.1:8080"  # the services' own
DEADLINE_SECONDS = 2.0
OK, FAILED, USAGE = 0, 1, 2
_READY = 200
_USAGE = """usage: tokenry healthcheck [URL]

Ask /readyz of the service in this container and exit 0 when it is ready. URL is for another one; by default it is
made from TOKENRY_METRICS_LISTEN_ADDRESS or TOKENRY_LISTEN_ADDRESS.
"""


def default_url(environ: Mapping[str, str]) -> str | None:
    """Return where the service that runs with *environ* tells its readiness; None for a unix socket."""
    operations = environ.get("TOKENRY_METRICS_LISTEN_ADDRESS")
    address = operations or environ.get("TOKENRY_LISTEN_ADDRESS") or DEFAULT_LISTEN_ADDRESS
    host, _, port = address.rpartition(":")
    if address.startswith("unix:"):
        return None
    if host in {"", "0.0.0.0", "[::]"}:  # noqa: S104 -- all interfaces, so loopback as well
        host = "127.0.0.1"
    # The port for operations is plain HTTP, whatever the other one serves.
    secure = environ.get("TOKENRY_TLS_CERTIFICATE_FILE") and not operations
    return f"{'https' if secure else 'http'}://{host}:{port}/readyz"


def ask(url: str) -> tuple[int | None, str]:
    """Return the status of *url*, None without an answer, and a line that says what was seen."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # The certificate is for the service's public name, and we ask our own process by its address.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection = http.client.HTTPSConnection(parts.netloc, timeout=DEADLINE_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=DEADLINE_SECONDS)
    try:
        connection.request("GET", parts.path or "/readyz")
        response = connection.getresponse()
        return response.status, response.read(200).decode("ascii", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return None, f"no answer from {parts.netloc} ({type(error).__name__})"
    finally:
        connection.close()


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command and return its exit code."""
    if list(argv) == ["--help"]:
        sys.stdout.write(_USAGE)
        return OK
    if len(argv) > 1 or any(argument.startswith("-") for argument in argv):
        sys.stderr.write(_USAGE)
        return USAGE
    url = argv[0] if argv else default_url(environ)
    if url is None or urlsplit(url).scheme not in {"http", "https"}:
        sys.stderr.write("name an http(s) URL, or give the service a TOKENRY_METRICS_LISTEN_ADDRESS\n")
        return USAGE
    status, text = ask(url)
    sys.stdout.write(f"{text}\n")
    return OK if status == _READY else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
