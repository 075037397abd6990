"""`tokenry dev`: the three services on loopback with embedded defaults, in the foreground."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenry.errors import ConfigurationError
from tokenry_cli.dev_folder import REALM, DevFolder, Identities, write_private
from tokenry_cli.dev_registry import prepare
from tokenry_cli.output import ExitCode, data, fail, people
from tokenry_cli.processes import Service, ServiceFailed, Supervisor, is_free

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
DEFAULT_PORT_BASE = 9080
CONSOLE_OFFSET = 4  # after the services, the demo and administration
_START_SECONDS = 60.0  # a cold start on a busy machine; a warm one takes about two
_WATCH_SECONDS = 0.25
_HIGHEST_BASE = 65_531


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Base URLs of the three services."""

    issuer: str
    tokeninfo: str
    revocation: str

    @classmethod
    def on(cls, port_base: int) -> Addresses:
        """Return the addresses on three adjacent ports."""
        urls = [f"http://{HOST}:{port_base + offset}" for offset in range(3)]
        return cls(issuer=urls[0], tokeninfo=urls[1], revocation=urls[2])


def dev(
    port_base: Annotated[
        int,
        typer.Option(min=1, max=_HIGHEST_BASE, help="Issuer's port; token info and revocation get the next two."),
    ] = DEFAULT_PORT_BASE,
    data: Annotated[
        Path | None, typer.Option(help="Folder to keep state in. Default: the user's state folder.")
    ] = None,
    ready_file: Annotated[Path | None, typer.Option(help="JSON with URLs and credentials, written when ready.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the services' logs here.")] = False,
    console: Annotated[bool, typer.Option(help="Run the console as well, on the issuer's port + 4.")] = False,
) -> None:
    """Run issuer, token info and revocation service on loopback until Ctrl-C, for development only."""
    folder = DevFolder(data or default_folder())
    try:
        with folder.locked(), _stopping() as stop:
            _run(folder, port_base=port_base, ready_file=ready_file, verbose=verbose, console=console, stop=stop)
    except ConfigurationError as error:
        fail(str(error), code=ExitCode.USAGE)
    except ServiceFailed as error:
        fail(str(error))


def default_folder() -> Path:
    """Return the folder of the XDG base directory specification for state that outlives a restart."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "tokenry" / "dev"


def services(folder: DevFolder, addresses: Addresses, identities: Identities) -> list[Service]:
    """Return the three processes with their settings."""
    common = {"TOKENRY_ISSUER": addresses.issuer, "TOKENRY_DRAIN_SECONDS": "0", "TOKENRY_ENVIRONMENT": "dev"}
    own = {
        "issuer": {
            "TOKENRY_CREDENTIALS_URL": folder.credentials.as_uri() + "/",
            "TOKENRY_ENVELOPE_KEY_FILE": str(folder.envelope_key),
            "TOKENRY_REVOCATION_URL": addresses.revocation,
            "TOKENRY_TOKENINFO_URL": addresses.tokeninfo,
        },
        "tokeninfo": {
            "TOKENRY_REVOCATION_URL": addresses.revocation,
            "TOKENRY_STATE_FOLDER": str(folder.state),
            "TOKENRY_SIGNED_LIST_URL": (folder.published / "revocation-list.jwt").as_uri(),
            # Two realms, so that a client without one cannot be told apart otherwise.
            "TOKENRY_INTROSPECTION_REALM": REALM,
        },
        "revocation": {
            "TOKENRY_STORE_URL": f"sqlite:///{folder.revocations}",
            "TOKENRY_REVOCATION_HASHING_SALT": identities.salt,
            "TOKENRY_RULES_URL": folder.credentials.as_uri() + "/",
            "TOKENRY_OPEN_REPORTS": "true",
            "TOKENRY_LIST_PUBLISH_URL": folder.published.as_uri() + "/",
            "TOKENRY_LIST_ENVELOPE_KEY_FILE": str(folder.envelope_key),
        },
    }
    urls = {"issuer": addresses.issuer, "tokeninfo": addresses.tokeninfo, "revocation": addresses.revocation}
    return [
        Service(
            name=name,
            module=f"tokenry_{name}",
            environment=common | own[name] | {"TOKENRY_LISTEN_ADDRESS": url.removeprefix("http://")},
            url=url,
            log=folder.logs / f"{name}.log",
        )
        for name, url in urls.items()
    ]


def console_service(folder: DevFolder, addresses: Addresses, *, port: int) -> Service:
    """Return the process of the console, with its settings."""
    url = f"http://{HOST}:{port}"
    environment = {
        "TOKENRY_ISSUER": addresses.issuer,
        "TOKENRY_TOKENINFO_URL": addresses.tokeninfo,
        "TOKENRY_REVOCATION_URL": addresses.revocation,
        "TOKENRY_LISTEN_ADDRESS": url.removeprefix("http://"),
        "TOKENRY_DRAIN_SECONDS": "0",
        "TOKENRY_ENVIRONMENT": "dev",
    }
    return Service(
        name="console", module="tokenry_console", environment=environment, url=url, log=folder.logs / "console.log"
    )


def _run(
    folder: DevFolder, *, port_base: int, ready_file: Path | None, verbose: bool, console: bool, stop: Event
) -> None:
    started = time.monotonic()
    ports = [*range(port_base, port_base + 3), *([port_base + CONSOLE_OFFSET] if console else [])]
    if taken := [port for port in ports if not is_free(port, host=HOST)]:
        raise ConfigurationError([f"port {taken[0]} of {HOST} is in use: end what listens there, or use --port-base"])
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    addresses, identities = Addresses.on(port_base), folder.identities()
    prepare(folder, identities, now=time.time())
    planned = services(folder, addresses, identities)
    if console:
        planned.append(console_service(folder, addresses, port=port_base + CONSOLE_OFFSET))
    supervisor = Supervisor(planned, echo=verbose)
    try:
        supervisor.start()
        if supervisor.wait_ready(timeout=_START_SECONDS, interrupted=stop.is_set):
            _announce(folder, addresses, identities, ready_file, seconds=time.monotonic() - started)
            if console:
                people.print(f"\n  console     {planned[-1].url}   paste: tokenry token get --identity admin")
            while not stop.wait(_WATCH_SECONDS):
                supervisor.check()
    finally:
        supervisor.stop()
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
    people.print("stopped")


def ready_document(addresses: Addresses, identities: Identities) -> dict[str, Any]:
    """Return what a program needs to know of a running platform."""
    return {
        "issuer": addresses.issuer,
        "tokeninfo": addresses.tokeninfo,
        "revocation": addresses.revocation,
        "environment": "dev",
        "realm": REALM,
        "client": identities.client,
        "admin": identities.admin,
        "user": identities.user,
        "salt": identities.salt,
    }


def curl_lines(addresses: Addresses, identities: Identities) -> tuple[str, str, str]:
    """Return three commands that work as they stand: get a token, ask about one, revoke one."""
    issue = f"{addresses.issuer}/oauth2/token"
    pick = r"""sed -E 's/.*"access_token":"([^"]+)".*/\1/'"""

    def mint(identity: dict[str, str]) -> str:
        pair = f"{identity['client_id']}:{identity['client_secret']}"
        return f"curl -s -u '{pair}' -d grant_type=client_credentials -d realm={REALM} {issue}"

    def token(identity: dict[str, str]) -> str:
        return f"$({mint(identity)} | {pick})"

    def asking_as(identity: dict[str, str]) -> str:
        return f'curl -s -H "Authorization: Bearer {token(identity)}"'

    body = f"""'{{"type":"TOKEN","data":{{"token":"'"{token(identities.client)}"'"}}}}'"""
    json_type = '-H "Content-Type: application/json"'
    revoke = f"{asking_as(identities.admin)} {json_type} -d {body} {addresses.revocation}/revocations"
    return (
        mint(identities.client),
        f"{asking_as(identities.client)} {addresses.tokeninfo}/oauth2/tokeninfo",
        revoke,
    )


def _announce(
    folder: DevFolder,
    addresses: Addresses,
    identities: Identities,
    ready_file: Path | None,
    *,
    seconds: float,
) -> None:
    if ready_file is not None:
        write_private(ready_file, json.dumps(ready_document(addresses, identities), indent=2).encode())
    people.print(f"[bold green]tokenry dev[/bold green] is ready after {seconds:.1f} s; Ctrl-C ends it")
    people.print(f"  issuer      {addresses.issuer}\n  token info  {addresses.tokeninfo}")
    people.print(f"  revocation  {addresses.revocation}\n  state       {folder.root}\n")
    for title, line in zip(
        ("get a token", "ask about one", "revoke one"), curl_lines(addresses, identities), strict=True
    ):
        people.print(f"[dim]# {title}[/dim]")
        data.print(line, markup=False)


@contextmanager
def _stopping() -> Iterator[Event]:
    stop = Event()
    previous = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
