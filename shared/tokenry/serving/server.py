"""
Listening, draining, stopping: what surrounds an application in a process.

    def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
        return command(argv, environ, service="issuer", settings_class=Settings, compose=compose)

A stop (SIGTERM, SIGINT) goes: readiness false and `Connection: close` on every answer -> `drain_seconds` for
the balancer to notice -> no new connections -> requests in flight finish, within `finish_seconds` ->
clean-up -> exit 0. A second signal skips the settling.

Exit codes: 0 stopped as asked; 2 wrong settings, or an address that cannot be listened on.

In tests: `async with serve(app, ["127.0.0.1:0"]) as server: server.url` gives the application behind real
sockets with the limits of production, which aiohttp's own test server does not have.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import resource
import signal
import socket
import ssl
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog
from aiohttp import web

from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.jose.arithmetic import Arithmetic, choose, chosen
from tokenry.jose.certificates import end_of_chain_file
from tokenry.serving.access_log import configure_logging
from tokenry.serving.addresses import ListenAddress, parse_listen_address
from tokenry.serving.application import add_operations_routes
from tokenry.serving.keys import HEALTH, METRICS, SETTINGS
from tokenry.serving.notify import Notifier, notifying
from tokenry.serving.protocol import Connection, Crowd, Limits
from tokenry.serving.quick import QUICK, QUICK_FORMS
from tokenry.serving.settings import ServiceSettings
from tokenry.serving.tracing import TRACES, Traces, traces_from
from tokenry.serving.workers import check_processes, parent_of, supervise

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

EXIT_OK = 0
EXIT_CONFIGURATION = 2
BACKLOG = 1024
UNIX_SOCKET_MODE = 0o660  # its owner and its group, whatever the umask is
# Files that callers must not take from us: connections to stores and sources, the log, files that are looked at again.
RESERVED_FILES = 128
CERTIFICATE_CHECK_SECONDS = 60.0
PARENT_CHECK_SECONDS = 1.0

_log = structlog.get_logger("tokenry.serving.server")
_S = TypeVar("_S", bound=ServiceSettings)


class Serving:
    """
    An application that is being served.

    Attributes:
        addresses: What it listens on: `host:port` with the real port, or `unix:/path`.
    """

    def __init__(self, addresses: Sequence[str], *, scheme: str) -> None:
        """Describe a server that listens on *addresses*."""
        self.addresses = tuple(addresses)
        self._scheme = scheme

    @property
    def url(self) -> str:
        """Return the base URL of the first TCP address."""
        return f"{self._scheme}://{next(a for a in self.addresses if not a.startswith('unix:'))}"


@asynccontextmanager
async def serve(
    app: web.Application,
    listen: Sequence[str],
    *,
    finish_seconds: float = 10.0,
    reuse_port: bool = False,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Serving]:
    """
    Start *app* and listen; on leaving: stop listening, finish what is in flight, clean up.

    Args:
        app: From `create_base_app`.
        listen: Addresses as in the setting `listen_address`.
        finish_seconds: How long requests in flight may take after listening has stopped.
        reuse_port: Whether other processes may listen on the same port.
        tls: Certificate to serve; None for plain HTTP.

    Raises:
        ConfigurationError: An address cannot be listened on.
    """
    runner = web.AppRunner(app, shutdown_timeout=finish_seconds, handler_cancellation=False)
    async with AsyncExitStack() as stack:
        sockets = []
        for address in map(parse_listen_address, listen):
            sockets.append(_bound(address, reuse_port=reuse_port))
            stack.callback(_close, sockets[-1], address.path)
        # What runs last is registered first: listening ends before requests in flight are waited for.
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        for sock in sockets:
            stack.callback((await _listen(app, runner, sock, tls)).close)
        yield Serving([_name(sock) for sock in sockets], scheme="http" if tls is None else "https")


async def _listen(
    app: web.Application, runner: web.AppRunner, sock: socket.socket, tls: ssl.SSLContext | None
) -> asyncio.Server:
    server = runner.server
    if server is None:  # pragma: no cover -- only before setup
        raise RuntimeError("the application was not set up")
    malformed, settings = app[METRICS].malformed.inc, app.get(SETTINGS)
    quick, forms = (app.get(QUICK), app.get(QUICK_FORMS)) if TRACES not in app else (None, None)
    limits = Limits() if settings is None else _limits(settings, open_files=_open_files())
    crowd = Crowd(limits.connections, on_full=app[METRICS].crowded.inc)

    def connect() -> Connection:
        return Connection(server, on_malformed=malformed, quick=quick, forms=forms, limits=limits, crowd=crowd)

    loop = asyncio.get_running_loop()
    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(connect, sock=sock, ssl=tls, backlog=BACKLOG)
    return await loop.create_server(connect, sock=sock, ssl=tls, backlog=BACKLOG)


def _limits(settings: ServiceSettings, *, open_files: int) -> Limits:
    """Return the limits of connections: no more than files can be open, less those that we open ourselves."""
    connections = min(settings.max_connections, max(1, open_files - RESERVED_FILES))
    if connections < settings.max_connections:
        _log.warning("fewer connections than configured", connections=connections, open_files=open_files)
    return Limits(
        connections=connections,
        head_seconds=settings.head_deadline,
        idle_seconds=settings.idle_timeout,
        send_seconds=settings.send_deadline,
    )


def _open_files() -> int:
    """Return how many files this process may have open, after raising that as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _bound(address: ListenAddress, *, reuse_port: bool) -> socket.socket:
    try:
        if address.path is not None:
            return _unix_socket(address.path)
        return _tcp_socket(address, reuse_port=reuse_port)
    except OSError as error:
        where = address.path or f"{address.host}:{address.port}"
        raise ConfigurationError(
            [f"TOKENRY_LISTEN_ADDRESS: cannot listen on {where} ({error.strerror}); choose another address"]
        ) from None


def _tcp_socket(address: ListenAddress, *, reuse_port: bool) -> socket.socket:
    if not address.host:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(
            ("", address.port), family=family, dualstack_ipv6=dual, reuse_port=reuse_port, backlog=BACKLOG
        )
    family, _, _, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(where[:2], family=family, reuse_port=reuse_port, backlog=BACKLOG)


def _unix_socket(path: str) -> socket.socket:
    with suppress(FileNotFoundError):
        if not _is_alive(path):
            Path(path).unlink()  # left behind by a process that was killed
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        Path(path).chmod(UNIX_SOCKET_MODE)  # before it listens; until then nobody can connect
    except OSError:
        sock.close()
        raise
    return sock


def _is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
    return True


def _name(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _close(sock: socket.socket, path: str | None) -> None:
    sock.close()
    if path is not None:
        with suppress(OSError):
            Path(path).unlink()


def run(
    app_factory: Callable[[], web.Application],
    settings: ServiceSettings,
    *,
    service: str = "service",
    parent: int | None = None,
    notifier: Notifier | None = None,
    traces: Traces | None = None,
) -> int:
    """
    Serve the application that *app_factory* makes (inside the event loop) until a signal stops it.

    Args:
        app_factory: Makes the application.
        settings: The service's settings.
        service: Name of the service in logs.
        parent: Process id of the supervisor; when that is gone, this process stops, too.
        notifier: Tells the service manager how we are.
        traces: Makes spans of the requests.

    Returns:
        The exit code of the process.
    """
    writer = configure_logging(settings, service=service)
    try:
        _choose_arithmetic(settings)
        with asyncio.Runner(loop_factory=_loop_factory(settings)) as runner:
            runner.run(_run(app_factory, settings, parent, notifier or Notifier({}), traces))
    except ConfigurationError as error:
        _print_faults(service, error)
        return EXIT_CONFIGURATION
    else:
        return EXIT_OK
    finally:
        writer.close()


def _choose_arithmetic(settings: ServiceSettings) -> None:
    try:
        choose(Arithmetic(settings.verify_with))
    except ConfigurationError as error:
        raise ConfigurationError([f"TOKENRY_VERIFY_WITH: {fault}" for fault in error.faults]) from None


def _loop_factory(settings: ServiceSettings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if settings.event_loop == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if settings.event_loop == "uvloop":
            raise ConfigurationError(
                ["TOKENRY_EVENT_LOOP: uvloop is not installed; install it or choose auto"]
            ) from None
        return None
    return uvloop.new_event_loop


async def _run(
    app_factory: Callable[[], web.Application],
    settings: ServiceSettings,
    parent: int | None,
    notifier: Notifier,
    traces: Traces | None,
) -> None:
    stop = _Stop(parent)
    async with AsyncExitStack() as stack:
        app = app_factory()
        if traces is not None:
            app[TRACES] = traces
            app.cleanup_ctx.append(traces.running)
        tls = await tls_context(settings, stack, on_expiry=app[METRICS].certificate_expiry.set)
        server = await stack.enter_async_context(
            serve(
                app,
                [settings.listen_address],
                finish_seconds=settings.finish_seconds,
                reuse_port=settings.reuse_port,
                tls=tls,
            )
        )
        if settings.metrics_listen_address is not None:
            operations = await stack.enter_async_context(
                serve(_operations_app(app), [settings.metrics_listen_address], finish_seconds=1.0)
            )
            _log.info("metrics", addresses=list(operations.addresses))
        await stack.enter_async_context(notifying(notifier, app[HEALTH]))
        gc.collect()
        gc.freeze()  # what was loaded at start lives as long as the process; no collection need look at it
        _log.info("listening", addresses=list(server.addresses), pid=os.getpid(), verifies_with=str(chosen()))
        await stop.asked()
        _log.info("draining", settle_seconds=settings.drain_seconds)
        app[HEALTH].drain()
        await stop.settle(settings.drain_seconds)
    _log.info("stopped")


def _operations_app(app: web.Application) -> web.Application:
    """Return the application of the second port: the same health and metrics, nothing else."""
    operations = web.Application()
    operations[HEALTH], operations[METRICS] = app[HEALTH], app[METRICS]
    add_operations_routes(operations, with_metrics=True)
    return operations


class _Stop:
    """The signals that ask for a stop, and the end of the supervisor."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._first = asyncio.Event()
        self._second = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self._second if self._first.is_set() else self._first).set()

    async def asked(self) -> None:
        while not self._first.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(None if self._parent is None else PARENT_CHECK_SECONDS):
                    await self._first.wait()
            if self._parent is not None and os.getppid() != self._parent:
                _log.error("the supervisor is gone")
                return

    async def settle(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._second.wait()


async def tls_context(
    settings: ServiceSettings,
    stack: AsyncExitStack,
    *,
    check_seconds: float = CERTIFICATE_CHECK_SECONDS,
    on_expiry: Callable[[float], object] = lambda _end: None,
) -> ssl.SSLContext | None:
    """
    Return the context of the configured certificate, or None for plain HTTP.

    Args:
        settings: Name the files.
        stack: Until it is closed, the files are looked at, and loaded again when they changed.
        check_seconds: How often.
        on_expiry: Called at each load with the Unix time at which the certificate ends; NaN where that cannot be read.

    Raises:
        ConfigurationError: Certificate and key cannot be loaded.
    """
    certificate, key = settings.tls_certificate_file, settings.tls_private_key_file
    if certificate is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    seen = _changed_at(certificate, key)  # before they are read: what is written meanwhile is loaded at the first look
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        kind = type(error).__name__
        raise ConfigurationError(
            [f"TOKENRY_TLS_CERTIFICATE_FILE: certificate and key cannot be loaded ({kind}); check both files"]
        ) from None
    if settings.tls_client_ca_file is not None:
        _ask_for_client_certificates(context, settings.tls_client_ca_file)
    on_expiry(_end_of(certificate))
    reloading = asyncio.create_task(
        _reload_certificate(context, certificate, key, seen=seen, check_seconds=check_seconds, on_expiry=on_expiry)
    )
    stack.callback(reloading.cancel)
    return context


def _ask_for_client_certificates(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            [f"TOKENRY_TLS_CLIENT_CA_FILE: it cannot be loaded ({type(error).__name__}); write certificates as PEM"]
        ) from None
    # Optional: most callers have a bearer token or a secret and no certificate.
    context.verify_mode = ssl.CERT_OPTIONAL


async def _reload_certificate(
    context: ssl.SSLContext,
    certificate: Path,
    key: Path,
    *,
    seen: tuple[float, ...],
    check_seconds: float,
    on_expiry: Callable[[float], object],
) -> None:
    while True:
        await asyncio.sleep(check_seconds)
        now = _changed_at(certificate, key)
        if now == seen:
            continue
        try:
            # First on the side: a pair that does not fit would leave the context in use without a key.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            # Half written: the certificate in use serves on, and the next round tries again.
            _log.error("the certificate cannot be loaded again", error=type(error).__name__)
        else:
            seen = now
            on_expiry(_end_of(certificate))
            _log.info("the certificate was loaded again")


def _end_of(certificate: Path) -> float:
    """Return the Unix time at which *certificate* ends; NaN where we cannot read what OpenSSL could, and serves."""
    try:
        return end_of_chain_file(certificate.read_bytes())
    except (OSError, ProtocolError) as error:
        _log.warning("the end of the certificate is not known", error=type(error).__name__)
        return math.nan


def _changed_at(*paths: Path) -> tuple[float, ...]:
    try:
        return tuple(path.stat().st_mtime for path in paths)
    except OSError:
        return ()


def command(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    service: str,
    settings_class: type[_S],
    compose: Callable[[_S], Callable[[], web.Application]],
    module: str | None = None,
) -> int:
    """
    Run one service as a command: the whole of its `__main__` but for the adapters.

    Args:
        argv: Arguments without the program's name; `--check-settings` only checks them.
        environ: The environment.
        service: Name of the service.
        settings_class: Its settings.
        compose: Builds the adapters from the settings, and returns what makes the application inside the
            loop.
        module: The module to run, for a service that may be several processes (`--processes N`).

    Returns:
        The exit code: 2 when settings are wrong, with every fault on standard error.
    """
    parser = argparse.ArgumentParser(prog=f"tokenry serve {service}")
    parser.add_argument("--check-settings", action="store_true", help="check the settings and exit")
    if module is not None:
        parser.add_argument("--processes", type=int, default=1, metavar="N", help="share the port between N processes")
    options = parser.parse_args(argv)
    count: int = options.processes if module is not None else 1
    try:
        settings = settings_class.from_environment(environ)
        check_processes(settings, count)
        if options.check_settings:
            traces_from(environ, service=service)
            return EXIT_OK
        if module is not None and count > 1:
            return supervise(module, settings, count, environ)
        return run(
            compose(settings),
            settings,
            service=service,
            parent=parent_of(environ),
            notifier=Notifier(environ),
            traces=traces_from(environ, service=service),
        )
    except ConfigurationError as error:
        _print_faults(service, error)
        return EXIT_CONFIGURATION


def _print_faults(service: str, error: ConfigurationError) -> None:
    lines = [f"{service}: cannot start, {len(error.faults)} fault(s) in its settings"]
    lines += [f"  {fault}" for fault in error.faults]
    sys.stderr.write("\n".join(lines) + "\n")
