"""
Pages from templates, and the header fields that every answer carries.

Invariants:
    * Autoescape is always on; no template marks anything as safe, and no value from outside reaches a template as
      markup.
    * Nothing in a page is inline: no script, no style, no handler. The policy forbids what comes from elsewhere.
    * Pages with data are not stored by anybody.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from tokenry_console import wording

if TYPE_CHECKING:
    from collections.abc import Mapping

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    # Not no-referrer: a browser would then send forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Robots-Tag": "noindex, nofollow",
}
TRANSPORT_SECURITY: Final = "max-age=31536000"
STATIC_CACHE: Final = "public, max-age=31536000, immutable"  # their names carry their content's hash
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
STATIC_FILES: Final = (
    "console.css",
    "console.js",
    "inspect.js",
    "icon.svg",
    "vendor/uplot/uPlot.iife.min.js",
    "vendor/uplot/uPlot.min.css",
)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the templates."""
    made = Environment(
        loader=PackageLoader("tokenry_console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "when": wording.when,
        "clock": wording.clock,
        "duration": wording.duration,
        "ago": wording.ago,
        "quantity": wording.quantity,
        "whole": wording.whole,
        "share": wording.share,
        "cell": wording.cell,
        "segment": lambda text: quote(text, safe=""),
    }
    made.globals |= {"static": static_path}
    return made


@lru_cache(maxsize=1)
def static_files() -> Mapping[str, tuple[str, bytes]]:
    """Return the files that pages refer to: media type and content by path below /static/."""
    root = files("tokenry_console").joinpath("static")
    found: dict[str, tuple[str, bytes]] = {}
    for name in STATIC_FILES:
        content = root.joinpath(name).read_bytes()
        found[_hashed(name, content)] = (_TYPES[name.rpartition(".")[2]], content)
    return found


def static_path(name: str) -> str:
    """Return the address of the file *name*; it changes with its content."""
    content = files("tokenry_console").joinpath("static").joinpath(name).read_bytes()
    return "/static/" + _hashed(name, content)


def _hashed(name: str, content: bytes) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{ending}"


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return the page that *template* makes of *context*."""
    return environment().get_template(template).render(dict(context))


def page(template: str, context: Mapping[str, Any], *, status: int = 200) -> web.Response:
    """Return the page that *template* makes of *context* as an answer."""
    return web.Response(text=render(template, context), status=status, content_type="text/html", charset="utf-8")


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put the header fields that every answer carries onto *response*."""
    response.headers.update(SECURITY_HEADERS)
    if request.secure:
        response.headers["Strict-Transport-Security"] = TRANSPORT_SECURITY
