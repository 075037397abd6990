"""
Where a drill takes place: what can be broken there, and who does it.

On a `tokenry dev` of its own a drill stops and pauses the processes that it has started, and no others. On a platform
that is named by a context it gives commands, and asks the operator to do the rest by hand.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, Self

from tokenry.clock import SystemClock
from tokenry.errors import TokenryError
from tokenry.http.fetch import FetchFailed, HttpFetcher, Request
from tokenry.secret import Secret
from tokenry_admin.clients import client_key
from tokenry_admin.key_opening import open_keys, open_store
from tokenry_admin.key_settings import KeySettings
from tokenry_admin.settings import RegistrySettings
from tokenry_cli.context import Context
from tokenry_cli.dev import Addresses, services
from tokenry_cli.dev_folder import REALM
from tokenry_cli.dev_registry import prepare
from tokenry_cli.environment import known_to
from tokenry_cli.processes import Supervisor
from tokenry_cli.registry import opened
from tokenry_registry import bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from tokenry_cli.dev_folder import DevFolder
    from tokenry_cli.processes import Service

START_SECONDS: Final = 120.0  # a cold start of a process on a busy machine
REFUSE_AGE: Final = 31.0  # seconds: the least that token info takes
# So that a drill takes a minute and not half an hour; the defaults are 30 s and 15 min.
DEV_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "issuer": {"TOKENRY_CREDENTIALS_REFRESH_INTERVAL": "1s"},
    "tokeninfo": {"TOKENRY_LIST_WARN_AGE": "15s", "TOKENRY_LIST_REFUSE_AGE": f"{REFUSE_AGE:g}s"},
    "revocation": {},
}
_BYSTANDER: Final = "drill-bystander"
_VICTIM: Final = "drill-victim"


class Part(StrEnum):
    """What a drill may take away."""

    ISSUER = "issuer"
    REVOCATION = "revocation"
    CREDENTIALS = "credentials"  # S3, or the folder that stands in for it
    NODE = "node"  # one node of Cassandra


class Fault(StrEnum):
    """How it is taken away."""

    DOWN = "down"  # connections are refused
    SILENT = "silent"  # connections are taken, and nothing is answered


class NotHere(TokenryError):
    """This stage cannot do what the scenario needs; the text says which one can. Nothing was done."""


class DrillBroken(TokenryError):
    """A step of the drill could not be taken; what it had broken was mended."""


class NotContained(DrillBroken):
    """A validator still accepts what is condemned, long after the promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """
    Who takes part.

    Attributes:
        bystander: A client that has nothing to do with it.
        victim: The client that something happens to.
        admin: Whoever revokes.
    """

    bystander: Context
    victim: Context
    admin: Context


class Stage(Protocol):
    """
    A platform that a drill takes place on.

    Attributes:
        what: What it is, in words.
        environment: Name of its environment.
        refuse_age: Age of the list from which its validators refuse to judge, in seconds.
        notes: What is not as in production.
    """

    what: str
    environment: str
    refuse_age: float
    notes: tuple[str, ...]

    def people(self) -> People:
        """Return who takes part."""
        ...

    def check(self, parts: Collection[Part], *, clocks: bool, registry: bool, keys: bool) -> None:
        """
        Do nothing if this stage can break *parts*, and do what else is asked for.

        Raises:
            NotHere: It cannot.
            ConfigurationError: The operator's settings for the registry or the keys are missing or wrong.
        """
        ...

    def take_away(self, part: Part, fault: Fault) -> None:
        """Break *part*."""
        ...

    def bring_back(self, part: Part, fault: Fault) -> None:
        """Undo `take_away`, and return when the part has been started."""
        ...

    def turn_clock(self, part: Part, seconds: float) -> None:
        """Set the clock of *part* off by *seconds*; 0: right again."""
        ...

    def rotate_emergency(self, kid: str) -> list[str]:
        """Take the key *kid* out of the schedule, and return the ids of the keys that were written."""
        ...

    def rotate_secret(self, client_id: str) -> Secret:
        """Replace the leaked secret of a client, and return the new one, which the issuers know."""
        ...


class OwnRegistry:
    """The two commands that write the registry, with the settings of an environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read settings of *environ* when they are needed."""
        self._environ = environ

    def key_settings(self) -> KeySettings:
        """Return the settings of rotation; raises ConfigurationError."""
        return KeySettings.from_environment(known_to(KeySettings, self._environ))

    def registry_settings(self) -> RegistrySettings:
        """Return the settings of the registry; raises ConfigurationError."""
        return RegistrySettings.from_environment(known_to(RegistrySettings, self._environ))

    def rotate_emergency(self, kid: str) -> list[str]:
        """Do what `tokenry keys rotate --emergency` does, and return the ids of the keys that were written."""
        settings = self.key_settings()

        async def act() -> list[str]:
            store = open_store(settings)
            try:
                written = await open_keys(settings, store, clock=SystemClock()).leaked(kid)
            finally:
                await store.close()
            return [key.kid for key in written]

        return asyncio.run(act())

    def rotate_secret(self, realm: str, client_id: str, *, read: Callable[[str], Secret] | None = None) -> Secret:
        """
        Do what `tokenry client rotate-secret --leaked` does, and return the new secret.

        Args:
            realm: Whose client it is.
            client_id: Which.
            read: Reads the new secret out of the file of the application that is named.

        Raises:
            DrillBroken: It went into a file that nobody here can read.
        """
        settings = self.registry_settings()

        async def act() -> Secret:
            async with opened(settings) as registry:
                done = await registry.rotation.rotate(client_key(realm, client_id), leaked=True)
                if done.secret is not None:
                    await registry.rotation.finish(done.key)
                    return done.secret
                if read is None or done.application is None:
                    raise DrillBroken("the new secret is in the application's file, which this command cannot read")
                return read(done.application)

        return asyncio.run(act())


class DevStage:
    """A `tokenry dev` of the drill's own: its processes are the drill's children. Use it as a context manager."""

    refuse_age = REFUSE_AGE

    def __init__(
        self,
        folder: DevFolder,
        *,
        port_base: int,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        wrap: Callable[[Service], Service] = lambda service: service,
    ) -> None:
        """
        Prepare *folder*; nothing is started.

        Args:
            folder: Locked by the caller.
            port_base: First of three adjacent free ports.
            settings: Further settings by service, over those of `tokenry dev` and the drill's own.
            wrap: Gets each process before it is first started; tests run something else in its place.
        """
        self.what = "tokenry dev"
        self.environment = "dev"
        self.notes: tuple[str, ...] = (
            "a folder stands in for S3, and SQLite for Cassandra; one process of each service",
            "the issuer reads credentials each second, not every 30 s",
            f"token info refuses lists from {REFUSE_AGE:g} s of age on, and so does the library; the default is 15 min",
        )
        self._folder = folder
        self._addresses = Addresses.on(port_base)
        self._identities = folder.identities()
        self._applications = folder.root / "applications"
        self._away = folder.credentials.with_name("credentials.away")
        self._secrets = {_BYSTANDER: bootstrap.new_secret(), _VICTIM: bootstrap.new_secret()}
        self._services = {
            service.name: Supervisor([wrap(replace(service, environment=self._environment(service, settings or {})))])
            for service in services(folder, self._addresses, self._identities)
        }
        self._registry = OwnRegistry({
            "TOKENRY_CREDENTIALS_URL": folder.credentials.as_uri() + "/",
            "TOKENRY_ENVELOPE_KEY_FILE": str(folder.envelope_key),
            "TOKENRY_APPLICATION_FILES": self._applications.as_uri() + "/",
            "TOKENRY_ISSUER_METRICS_URLS": self._addresses.issuer,
            "TOKENRY_ENVIRONMENT": "dev",
        })  # fmt: skip

    @staticmethod
    def _environment(service: Service, settings: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        return {**service.environment, **DEV_SETTINGS[service.name], **settings.get(service.name, {})}

    def __enter__(self) -> Self:
        """Start it, and return when all is ready."""
        if self._away.exists():  # an earlier drill was killed
            self._away.rename(self._folder.credentials)
        prepare(self._folder, self._identities, now=time.time())
        for name, secret in self._secrets.items():
            self._write_client(name, secret)
        try:
            for supervisor in self._services.values():
                supervisor.start()
            for supervisor in self._services.values():
                supervisor.wait_ready(timeout=START_SECONDS, interrupted=lambda: False)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End its processes."""
        for supervisor in self._services.values():
            supervisor.stop()
        if self._away.exists():
            self._away.rename(self._folder.credentials)

    def _write_client(self, name: str, secret: str) -> None:
        path = self._folder.credentials / "realms" / REALM.strip("/") / "clients" / f"{name}.json"
        with suppress(FileNotFoundError):
            path.unlink()
        bootstrap.write_client(
            self._folder.credentials,
            REALM,
            name,
            hashes=[bootstrap.hash_secret(secret)],
            created_at=int(time.time()),
            scopes=["orders.read"],
            default_scopes=["orders.read"],
            audiences=["orders"],
        )

    def people(self) -> People:
        """Return two clients that are made for drills, and the administrator."""
        admin = self._identities.admin
        return People(
            bystander=self._context(_BYSTANDER, self._secrets[_BYSTANDER]),
            victim=self._context(_VICTIM, self._secrets[_VICTIM]),
            admin=self._context(admin["client_id"], admin["client_secret"]),
        )

    def _context(self, client_id: str, secret: str) -> Context:
        return Context(
            issuer=self._addresses.issuer,
            tokeninfo=self._addresses.tokeninfo,
            revocation=self._addresses.revocation,
            realm=REALM,
            client_id=client_id,
            client_secret=Secret(secret),
        )

    def check(self, parts: Collection[Part], *, clocks: bool, registry: bool, keys: bool) -> None:
        """Refuse what is not here: nodes of Cassandra, and clocks of single processes."""
        _ = registry, keys
        if Part.NODE in parts:
            raise NotHere("`tokenry dev` keeps revocations in SQLite, which has no nodes")
        if clocks:
            raise NotHere("`tokenry dev` has this machine's clock, and there is no setting that sets a service's off")

    def take_away(self, part: Part, fault: Fault) -> None:
        """Stop or pause one of its processes, or move the folder away that stands in for S3."""
        if part is Part.CREDENTIALS:
            self._folder.credentials.rename(self._away)
        elif fault is Fault.SILENT:
            self._services[part].pause()
        else:
            self._services[part].stop()

    def bring_back(self, part: Part, fault: Fault) -> None:
        """Undo that, and wait until the process is ready."""
        if part is Part.CREDENTIALS:
            self._away.rename(self._folder.credentials)
        elif fault is Fault.SILENT:
            self._services[part].resume()
        else:
            self._services[part].start()
            self._services[part].wait_ready(timeout=START_SECONDS, interrupted=lambda: False)

    def turn_clock(self, part: Part, seconds: float) -> None:
        """Never get here: `check` refuses it."""
        raise NotHere(f"the clock of {part} cannot be set off by {seconds:g} s here")

    def rotate_emergency(self, kid: str) -> list[str]:
        """Take the key *kid* out of the schedule, and return the ids of the keys that were written."""
        return self._registry.rotate_emergency(kid)

    def rotate_secret(self, client_id: str) -> Secret:
        """Replace the leaked secret of a client, and return the new one as its application finds it."""
        return self._registry.rotate_secret(REALM, client_id, read=self._read_application)

    def _read_application(self, application: str) -> Secret:
        return read_client_file(self._applications / application / "client.json")


def read_client_file(path: Path) -> Secret:
    """
    Return the secret that an application finds in its file.

    Raises:
        DrillBroken: The file is not there, or not what it should be.
    """
    try:
        return Secret(json.loads(path.read_bytes())["client_secret"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DrillBroken(f"{path.name} of the application cannot be read") from None


class ContextStage:
    """A platform that is named: commands are given, and the operator does the rest by hand."""

    def __init__(
        self,
        people: People,
        *,
        name: str,
        environment: str,
        environ: Mapping[str, str],
        ask: Callable[[str, str], None],
        refuse_age: float,
        has_nodes: bool,
    ) -> None:
        """
        Touch nothing yet.

        Args:
            people: Who takes part.
            name: What the context is called.
            environment: Name of its environment.
            environ: The operator's environment, with the settings of registry and keys where a scenario needs them.
            ask: Shows what to do, waits until the given word is typed, and ends the command otherwise.
            refuse_age: TOKENRY_LIST_REFUSE_AGE of its validators, in seconds.
            has_nodes: Whether its revocations are in Cassandra.
        """
        self.what = f"the context {name}"
        self.environment = environment
        self.refuse_age = refuse_age
        self.notes: tuple[str, ...] = (
            "faults were made and mended by hand: their moments are when that was confirmed",
        )
        self._people = people
        self._registry = OwnRegistry(environ)
        self._ask = ask
        self._has_nodes = has_nodes

    def people(self) -> People:
        """Return the identities of the context."""
        return self._people

    def check(self, parts: Collection[Part], *, clocks: bool, registry: bool, keys: bool) -> None:
        """See that the operator's settings are there, and that there is a cluster where one is needed."""
        _ = clocks
        if Part.NODE in parts and not self._has_nodes:
            raise NotHere("whether this context stands on Cassandra is not known: say so with --cassandra")
        if registry and self._registry.registry_settings().application_files:
            raise NotHere("the drill needs the new secret itself: run it without TOKENRY_APPLICATION_FILES")
        if keys:
            self._registry.key_settings()

    def take_away(self, part: Part, fault: Fault) -> None:
        """Ask the operator to do it."""
        self._ask(f"Now {_HOW[fault]} {_WHAT[part]}, and type 'done' when it is so", "done")

    def bring_back(self, part: Part, fault: Fault) -> None:
        """Ask the operator to do it."""
        self._ask(f"Now {_HOW_BACK[fault]} {_WHAT[part]}, and type 'done' when it is so", "done")

    def turn_clock(self, part: Part, seconds: float) -> None:
        """Ask the operator to do it."""
        what = f"set the clock under {_WHAT[part]} off by {seconds:+g} s" if seconds else "set that clock right again"
        self._ask(f"Now {what}, on one machine that you can spare, and type 'done' when it is so", "done")

    def rotate_emergency(self, kid: str) -> list[str]:
        """Take the key *kid* out of the schedule, and return the ids of the keys that were written."""
        return self._registry.rotate_emergency(kid)

    def rotate_secret(self, client_id: str) -> Secret:
        """Replace the leaked secret of a client, and return the new one."""
        return self._registry.rotate_secret(self._people.victim.realm or "", client_id)


_WHAT: Final = {
    Part.ISSUER: "every issuer",
    Part.REVOCATION: "every revocation service",
    Part.CREDENTIALS: "the issuers' way to S3 (a network rule is best)",
    Part.NODE: "one node of Cassandra",
}
_HOW: Final = {Fault.DOWN: "switch off", Fault.SILENT: "pause (SIGSTOP), or black-hole,"}
_HOW_BACK: Final = {Fault.DOWN: "switch on again", Fault.SILENT: "let go on"}


def metric(url: str, name: str, *, fetcher: HttpFetcher | None = None) -> float | None:
    """Return the value of the metric *name* of the service at *url*; None where it does not tell."""
    try:
        answer = (fetcher or HttpFetcher()).fetch(Request(url=f"{url}/metrics", max_bytes=4 << 20))
    except FetchFailed:
        return None
    for line in answer.body.decode("utf-8", "replace").splitlines():
        found, _, value = line.rpartition(" ")
        if found.partition("{")[0] == name:
            try:
                return float(value)
            except ValueError:
                return None
    return None
