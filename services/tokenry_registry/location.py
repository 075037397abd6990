"""Where credentials and keys are kept: `s3://bucket/prefix/`, or `file:///folder/`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator


def credentials_faults(text: str) -> Iterator[str]:
    """Yield what is wrong with *text* as the place of credentials."""
    url = urlsplit(text)
    if url.scheme == "s3" and url.netloc and not url.query and not url.fragment:
        return
    if url.scheme == "file" and url.netloc in {"", "localhost"} and url.path.startswith("/"):
        return
    yield "TOKENRY_CREDENTIALS_URL: write s3://bucket/prefix/ or file:///folder/"


def folder_of(credentials_url: str) -> Path:
    """Return the folder that a `file:` URL names."""
    return Path(unquote(urlsplit(credentials_url).path))


def bucket_of(credentials_url: str) -> tuple[str, str]:
    """Return bucket and prefix (empty, or ending in a slash) that an `s3:` URL names."""
    url = urlsplit(credentials_url)
    prefix = url.path.strip("/")
    return url.netloc, prefix + "/" if prefix else ""
