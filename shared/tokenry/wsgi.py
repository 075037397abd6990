"""
Demanding access tokens in any WSGI application: `app = AuthMiddleware(app, validator)`.

Invariants:
    * Closed: every request needs a valid token, except to the paths that are named public.
    * The validator's threads are started by the first request of a process, so that it works in servers that
      fork workers.
"""

from __future__ import annotations

import functools
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from tokenry.certificates import ProxyCertificate
from tokenry.dpop import Asked, Dpop
from tokenry.errors import Unready, ValidatorNotReady
from tokenry.http.forking import renew_after_fork
from tokenry.oauth.mutual_tls import PresentedCertificate, thumbprint_of_pem
from tokenry.protect import ANY_TOKEN, Access, Admitted, Door, Protection, Refusal, Refused, Require, public

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from tokenry.claims import TokenInfo
    from tokenry.protect import Judge

    Environment = MutableMapping[str, Any]
    StartResponse = Callable[..., Any]
    Application = Callable[..., Iterable[bytes]]  # servers and frameworks name the two arguments' types differently

TOKEN: Final = "tokenry.token"  # noqa: S105 -- the name of a key
"""Key of the verified token in a WSGI environment."""
FIRST_REQUEST_SECONDS: Final = 5.0  # that the first request of a process may wait for keys and list
_ADMITTED: Final = "tokenry.admitted"
_NOT_YET: Final = frozenset({Unready.NO_KEYS, Unready.NO_LIST})  # what a moment after the start may bring
_PHRASES: Final = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 503: "Service Unavailable"}

HandlerT = TypeVar("HandlerT")


class AuthMiddleware(Door["Application"]):
    """
    Lets nobody in without a valid token; `environ[TOKEN]` then says who calls.

    Arguments as of `tokenry.protect.Door`; paths are those within the application (`PATH_INFO`). The validator is
    started by the first request.
    """

    def _begin(self) -> None:
        self._running = Running(self.protection.validator)

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        for name in (TOKEN, _ADMITTED):
            environ.pop(name, None)
        if path_of(environ) in self.public:
            return self.app(environ, start_response)
        self._running.ensure()
        try:
            info = admit(self.protection, environ, ANY_TOKEN)
        except Refused as refused:
            return _answer(refused.refusal, start_response)
        environ[TOKEN] = info
        environ[_ADMITTED] = Admitted(info=info, protection=self.protection)
        return self.app(environ, start_response)


class Running:
    """Sees to it that a validator's threads run in this process: those of a parent do not survive a fork."""

    def __init__(self, validator: Judge) -> None:
        """Start *validator* on the first `ensure`."""
        self.validator: Any = validator
        self._process: int | None = None
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Start anew in the child."""
        self._lock = threading.Lock()
        self._process = None

    @property
    def needed(self) -> bool:
        """Whether `ensure` has something to do, and may take a while."""
        return self._process != os.getpid()

    def ensure(self) -> None:
        """Return when the validator runs; the first time, wait a little until it can judge."""
        if self._process == os.getpid():
            return
        with self._lock:
            if self._process == os.getpid():
                return
            self.validator.start()
            if getattr(self.validator, "not_ready", None) in _NOT_YET:
                with suppress(ValidatorNotReady):  # the request is answered 503, and the next one may fare better
                    self.validator.wait_ready(FIRST_REQUEST_SECONDS)
            self._process = os.getpid()


def path_of(environ: Environment) -> str:
    """Return the decoded path of a request within the application (PEP 3333)."""
    path: str = environ.get("PATH_INFO") or "/"
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def admit(protection: Protection, environ: Environment, access: Access) -> TokenInfo:
    """
    Return what the token of a request says.

    Args:
        protection: What decides.
        environ: The request.
        access: What is asked for.

    Raises:
        Refused: With the answer.
    """
    return protection.admit(
        authorization_values(environ),
        access,
        confirmation=presented_certificate(environ, protection.certificate),
        asked=None if protection.dpop is None else lambda: asked_by(environ),
    )


def authorization_values(environ: Environment) -> list[str]:
    """
    Return the values of the `Authorization` field.

    WSGI servers join two fields of one name by a comma, which no token contains (RFC 6750 section 2.1, RFC 9449
    section 7.1).
    """
    value = environ.get("HTTP_AUTHORIZATION")
    if value is None:
        return []
    return value.split(",") if value.lower().startswith(("bearer ", "dpop ")) else [value]


def presented_certificate(environ: Environment, proxy: ProxyCertificate | None = None) -> str | None:
    """
    Return the thumbprint of the caller's certificate: what *proxy* hands on, or that of the connection.

    Servers tell the latter as PEM in `SSL_CLIENT_CERT` (mod_wsgi and others, which no caller can write: header fields
    have names with `HTTP_`), or by the connection itself (gunicorn).
    """
    if proxy is not None:
        value = environ.get(f"HTTP_{proxy.header.upper().replace('-', '_')}")
        return proxy.thumbprint(environ.get("REMOTE_ADDR"), [] if value is None else [value])
    pem = environ.get("SSL_CLIENT_CERT")
    if isinstance(pem, str) and pem:
        return thumbprint_of_pem(pem)
    ask = getattr(environ.get("gunicorn.socket"), "getpeercert", None)
    der = ask(binary_form=True) if ask is not None else None
    return PresentedCertificate(der=der, chain_verified=True).thumbprint if der else None


def asked_by(environ: Environment) -> Asked:
    """Return what a proof in the request is compared with."""
    before: str = environ.get("SCRIPT_NAME") or ""
    proof = environ.get("HTTP_DPOP")
    path = before.encode("latin-1", "replace").decode("utf-8", "replace") + path_of(environ)
    return Asked(environ.get("REQUEST_METHOD", ""), path, [] if proof is None else [proof])


def _answer(refusal: Refusal, start_response: StartResponse) -> Iterable[bytes]:
    headers = [*refusal.headers, ("Content-Length", str(len(refusal.body)))]
    start_response(f"{refusal.status} {_PHRASES.get(refusal.status, 'Refused')}", headers)
    return [refusal.body]


def _guarded(handler: HandlerT, access: Access) -> HandlerT:
    """Return a WSGI application that needs more than any valid token."""
    application = cast("Application", handler)

    @functools.wraps(application)
    def run(environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        admitted: Admitted | None = environ.get(_ADMITTED)
        if admitted is None:
            raise RuntimeError("@require without tokenry.wsgi.AuthMiddleware: the application was not run")
        try:
            admitted.protection.require(admitted.info, access)
        except Refused as refused:
            return _answer(refused.refusal, start_response)
        return application(environ, start_response)

    return cast("HandlerT", run)


require = Require(_guarded)
"""`@require("orders.read")` before a WSGI application, such as one that is mounted below a path."""


def token_of(environ: Environment) -> TokenInfo | None:
    """Return the verified token of a request; None in a public one."""
    return cast("TokenInfo | None", environ.get(TOKEN))


__all__ = ["TOKEN", "AuthMiddleware", "Dpop", "ProxyCertificate", "public", "require", "token_of"]
