"""`tokenry demo`: a token is issued, used, revoked and refused, with the seconds that it took."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenry.errors import TokenryError
from tokenry.secret import Secret
from tokenry_cli.context import Context
from tokenry_cli.dev import HOST, Addresses, services
from tokenry_cli.dev_folder import REALM, DevFolder
from tokenry_cli.dev_registry import prepare
from tokenry_cli.output import ExitCode, data, fail
from tokenry_cli.platform import Platform
from tokenry_cli.processes import Service, ServiceFailed, Supervisor, free_port_base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_START_SECONDS = 60.0
_LOOK_SECONDS = 0.02  # how often the demo calls again while it waits for the refusal
_REFUSED = 401


class StoryBroken(TokenryError):
    """A step of the story did not go as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who takes part: the platform as the demo client and as the admin see it, and the protected service."""

    client: Platform
    admin: Platform
    orders: str


def demo(
    port_base: Annotated[int | None, typer.Option(help="First of four adjacent ports. Default: free ones.")] = None,
) -> None:
    """Show the whole story on this machine; exit 0 only if every step was as it should be."""
    with tempfile.TemporaryDirectory(prefix="tokenry-demo-") as root:
        try:
            _perform(DevFolder(Path(root)), port_base=port_base or free_port_base(4))
        except (TokenryError, ServiceFailed, OSError) as error:
            fail(str(error))
        except KeyboardInterrupt:
            sys.exit(ExitCode.INTERRUPTED)


def _perform(folder: DevFolder, *, port_base: int) -> None:
    with folder.locked():
        addresses, identities = Addresses.on(port_base), folder.identities()
        prepare(folder, identities, now=time.time())
        orders = Service(
            name="orders (a protected service)",
            module="tokenry_cli.demo_service",
            environment={"TOKENRY_ISSUER": addresses.issuer, "TOKENRY_DEMO_PORT": str(port_base + 3)},
            url=f"http://{HOST}:{port_base + 3}",
            log=folder.logs / "orders.log",
        )
        platform = Supervisor(services(folder, addresses, identities))
        caller = Supervisor([orders])
        try:
            data.print("starting issuer, token info, revocation service and a protected service …")
            platform.start()
            platform.wait_ready(timeout=_START_SECONDS, interrupted=lambda: False)
            caller.start()
            caller.wait_ready(timeout=_START_SECONDS, interrupted=lambda: False)

            def acting_as(identity: dict[str, str]) -> Platform:
                return Platform(
                    Context(
                        issuer=addresses.issuer,
                        tokeninfo=addresses.tokeninfo,
                        revocation=addresses.revocation,
                        realm=REALM,
                        client_id=identity["client_id"],
                        client_secret=Secret(identity["client_secret"]),
                    )
                )

            cast = Cast(client=acting_as(identities.client), admin=acting_as(identities.admin), orders=orders.url)
            for number, line in enumerate(tell(cast, now=time.time, sleep=time.sleep), start=1):
                data.print(f"[green]✓[/green] {number}  {line}")
            data.print("[bold]the whole story went as it should[/bold]")
        finally:
            caller.stop()
            platform.stop()


def tell(cast: Cast, *, now: Callable[[], float], sleep: Callable[[float], None]) -> Iterator[str]:
    """
    Go through the story and say each step that went as it should.

    Args:
        cast: Who takes part.
        now: The clock, in Unix seconds.
        sleep: Waits for a number of seconds.

    Raises:
        StoryBroken: A step went otherwise; the message says which and how.
    """
    token = Secret(cast.client.token(scope=["orders.read"])["access_token"])
    yield "the service demo got an access token with scope orders.read"
    _expect("a call without a token", _call(cast, None), 401)
    yield "a call of the protected service without a token is refused (401)"
    _expect("the protected call", _call(cast, token), 200)
    yield "the same call with the token is answered (200)"
    if not cast.admin.introspect(token)["active"]:
        raise StoryBroken("introspection says that a fresh token is not active")
    yield "introspection says active"
    before = now()
    answer = cast.admin.revoke({"type": "TOKEN", "data": {"token": token.reveal()}})
    acknowledged = now()
    yield f"an administrator revoked it; stored durably in {(acknowledged - before) * 1000:.0f} ms"
    limit = float(answer["propagated_by"])
    refused = _until(lambda: _call(cast, token) == _REFUSED, limit=limit, now=now, sleep=sleep)
    yield (
        f"the same call is refused (401) {max(0.0, refused - acknowledged):.2f} s after the answer; "
        f"promised: within {limit - acknowledged:.0f} s"
    )
    _until(lambda: not cast.admin.introspect(token)["active"], limit=limit, now=now, sleep=sleep)
    yield "introspection says not active"
    fresh = Secret(cast.client.token(scope=["orders.read"])["access_token"])
    _expect("a call with a new token", _call(cast, fresh), 200)
    yield "a new token of the same service works: only the revoked one is dead"


def _call(cast: Cast, token: Secret | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token.reveal()}"}
    return cast.client.get(f"{cast.orders}/orders", headers=headers).status


def _expect(what: str, status: int, expected: int) -> None:
    if status != expected:
        raise StoryBroken(f"{what} was answered with {status} instead of {expected}")


def _until(
    holds: Callable[[], bool], *, limit: float, now: Callable[[], float], sleep: Callable[[float], None]
) -> float:
    """Return the moment at which *holds* was first seen to be true, before Unix second *limit*."""
    while not holds():
        if now() > limit:
            raise StoryBroken("the revoked token is still accepted after the promised time")
        sleep(_LOOK_SECONDS)
    return now()
