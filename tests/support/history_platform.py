"""
The platform whose histories are judged: real processes, a real store, and a proxy on every way between them.

    driver ── post:A ──► service A ══ store:A ══► Cassandra nodes ◄══ store:B ══ service B ◄── post:B ── driver
    validator v ── list:v ──► balancer of v ──► A or B          issuer ── list:issuer ──► balancer ──► A or B

Two of the four validators are token info services, two are programs with the library inside; of each kind one has a
state folder. One is kept from holding requests, so it polls; the requests of another one go to both services in turn.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.support.fault_proxy import FaultProxy
from tests.support.history_lists import ListProxy
from tests.support.history_process import write_offset
from tests.support.processes import Process, Processes, free_port, http_status
from tokenry.jose import jws
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry_registry import bootstrap
from tokenry_registry.signing_keys import open_key, read_stored_key
from tokenry_revocation.settings import Settings

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping

    from tests.support.cassandra import CassandraEndpoint
    from tokenry_revocation.revoking import Terms

REALM: Final = "/services"
LIFETIME: Final = 120
SERVICES: Final = ("A", "B")
VALIDATORS: Final = ("info-1", "info-2", "library-1", "library-2")
KEEPING: Final = frozenset({"info-1", "library-1"})  # have a state folder
POLLING: Final = "info-2"
ALTERNATING: Final = "library-2"  # its balancer sends each request to the other service
ISSUED_CLIENTS: Final = 25  # whose tokens come from the issuer itself
SPARE_KEYS: Final = 12  # published, and used by the driver: what KEY revocations are about
ADMIN_SCOPES: Final = ("revocation.admin", "revocation.undo", "revocation.write")

_DAY: Final = 86_400
_READY_SECONDS: Final = 240.0
_LINE_BYTES: Final = 4096
_SALT: Final = "a salt of the tests, and of nothing else"


@dataclass(slots=True)
class Part:
    """
    One process of the platform.

    Attributes:
        name: What histories call it.
        process: To be killed, paused, started.
        clock: The file that turns its clock.
        usual: Seconds by which its clock is always off, within the bound.
        ready: Tells whether it can do its job.
        run: How often it was started.
        paused: Whether it stands still.
        lock: Held by whoever breaks it.
    """

    name: str
    process: Process
    clock: Path
    usual: float
    ready: Callable[[], Awaitable[bool]]
    run: int = 0
    paused: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def running(self) -> bool:
        """Return whether it can answer."""
        return self.run > 0 and self.process.running and not self.paused

    def turn(self, seconds: float) -> None:
        """Let its clock be off by *seconds* more than usual."""
        write_offset(self.clock, self.usual + seconds)

    async def start(self, *, wait: bool = True) -> None:
        """Start it; with *wait*, return when it is ready."""
        self.run += 1
        await asyncio.to_thread(self.process.start)
        if wait:
            await self.wait_until_ready()

    async def wait_until_ready(self, *, seconds: float = _READY_SECONDS) -> None:
        """Return when it is ready; raises TimeoutError with the end of its output."""
        deadline = time.monotonic() + seconds
        while not await self.ready():
            if not self.process.running or time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is not ready\n{self.process.output(last_bytes=4000)}")
            await asyncio.sleep(0.1)

    async def kill(self) -> None:
        """End it at once."""
        await asyncio.to_thread(self.process.kill)

    async def stop(self) -> None:
        """Ask it to end."""
        await asyncio.to_thread(self.process.terminate, seconds=40)

    def pause(self) -> None:
        """Let it stand still."""
        self.paused = True
        self.process.pause()

    def resume(self) -> None:
        """Let it go on."""
        self.process.resume()
        self.paused = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """
    What is wrong with the platform on purpose: a mutant. Nothing by default.

    Attributes:
        tree: Root of a changed copy of the sources; None: those of this clone.
        refuse_age: Age of a list from which validators refuse; None: what is promised.
    """

    tree: Path | None = None
    refuse_age: float | None = None


class HistoryPlatform:
    """
    Everything that runs.

    Args:
        folder: For data, logs, state.
        processes: Starts programs and ends them all.
        endpoint: The store's nodes.
        replicas: How many of them keep each row.
        refuse_age: S: age of a list, in seconds, from which validators refuse; 31 at least.
        chance: Of clocks and spoiled lists.
        changes: What is wrong with it.
    """

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        *,
        endpoint: CassandraEndpoint,
        replicas: int,
        refuse_age: float,
        chance: random.Random,
        changes: Changes | None = None,
    ) -> None:
        self.changes = changes or Changes()
        self.promised_age = refuse_age
        self._refuse_age = self.changes.refuse_age or refuse_age
        self._folder = folder
        self._processes = processes
        self._endpoint = endpoint
        self._replicas = replicas
        self._chance = chance
        self.issuer_url = f"http://127.0.0.1:{free_port()}"
        self._urls = {name: f"http://127.0.0.1:{free_port()}" for name in SERVICES}
        self._info = {name: f"http://127.0.0.1:{free_port()}" for name in VALIDATORS if name.startswith("info")}
        self._library = {name: ("127.0.0.1", free_port()) for name in VALIDATORS if name.startswith("library")}
        self.parts: dict[str, Part] = {}
        self.balancers: dict[str, ListProxy] = {}
        self.lists: dict[str, FaultProxy] = {}
        self.posts: dict[str, FaultProxy] = {}
        self.stores: dict[str, list[FaultProxy]] = {}
        self._keyspace = f"history_{chance.getrandbits(32):08x}"
        self._lines: dict[str, _Lines] = {}

    # --- what exists --------------------------------------------------------------------------------------------

    @property
    def terms(self) -> Terms:
        """Return what decides about records."""
        return Settings.from_environment(self._revocation_environment("A")).terms

    def _write_registry(self) -> None:
        now, root = int(time.time()), self._folder / "credentials"
        envelope = bootstrap.create_envelope_key(self._folder / "envelope.key")

        def make(activate_at: int) -> PrivateKey:
            kid = bootstrap.create_signing_key(
                root, envelope, publish_at=now - 3 * _DAY, activate_at=activate_at, retire_at=now + 30 * _DAY
            )
            body = (root / "keys" / f"{kid}.json").read_bytes()
            private = open_key(read_stored_key(body, kid=kid), envelope=envelope).private
            assert isinstance(private, PrivateKey)
            return private

        self.keys = [make(now - 2 * _DAY) for _ in range(SPARE_KEYS)]
        # The youngest one signs; the driver uses it for the administrator only, and nobody revokes it.
        self.admin_key = make(now - _DAY)
        self.secret = bootstrap.new_secret()
        hashes = [bootstrap.hash_secret(self.secret)]
        self.clients = [f"client-{number}" for number in range(ISSUED_CLIENTS)]
        for client in self.clients:
            bootstrap.write_client(
                root, REALM, client, hashes=hashes, created_at=now, scopes=("orders.read",), audiences=("orders",)
            )
        bootstrap.write_realm(root, REALM, environment="dev", token_lifetime=LIFETIME)

    def sign(self, claims: Mapping[str, Any], key: PrivateKey) -> str:
        """Return a token as the issuer makes them."""
        return jws.sign({"typ": "at+jwt"}, dump_json(dict(claims)), key)

    def admin_token(self, now: int) -> str:
        """Return a token of the administrator."""
        claims = {"iss": self.issuer_url, "sub": "admin", "client_id": "admin", "aud": self.issuer_url}
        times = {"iat": now, "exp": now + LIFETIME, "jti": f"admin-{now}-{self._chance.getrandbits(64):x}"}
        return self.sign({**claims, **times, "scope": " ".join(ADMIN_SCOPES)}, self.admin_key)

    # --- its life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make everything, and return when all of it is ready."""
        self._folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._write_registry)
        for number, name in enumerate(SERVICES):
            network = f"127.0.{11 + number}"
            self.stores[name] = [
                FaultProxy(
                    (host, self._endpoint.port), host=f"{network}.{host.rpartition('.')[2]}", port=self._endpoint.port
                )
                for host in self._endpoint.contact_points
            ]
            host, port = self._urls[name].removeprefix("http://").split(":")
            self.posts[name] = FaultProxy((host, int(port)))
        for number, name in enumerate((*VALIDATORS, "issuer")):
            urls = list(self._urls.values())
            balancer = ListProxy(
                urls if number % 2 == 0 else urls[::-1],
                self._chance,
                polls=name == POLLING,
                alternates=name == ALTERNATING,
            )
            await balancer.start()
            self.balancers[name] = balancer
            self.lists[name] = FaultProxy(balancer.address)
        await self._create_store()
        for name in SERVICES:
            network = self.stores[name][0].address[0].rpartition(".")[0]
            self._add(name, "revocation", self._revocation_environment(name), 0.4, "--store-network", network)
        self._add("issuer", "issuer", self._issuer_environment(), 0.4)
        for name, url in self._info.items():
            self._add(name, "tokeninfo", self._info_environment(name, url), 0.9)
        for name in self._library:
            self._add(name, "library", {}, 0.9, "--library", json.dumps(self._library_options(name)))
        for part in self.parts.values():
            await part.start(wait=False)
        for part in self.parts.values():
            await part.wait_until_ready()

    async def end(self) -> None:
        """End everything that is not a process; those belong to whoever gave `Processes`."""
        for proxy in [
            *self.lists.values(),
            *self.posts.values(),
            *(each for all_ in self.stores.values() for each in all_),
        ]:
            await asyncio.to_thread(proxy.close)
        for balancer in self.balancers.values():
            await balancer.stop()
        for lines in self._lines.values():
            lines.close()

    def _add(self, name: str, role: str, environment: Mapping[str, str], bound: float, *arguments: str) -> None:
        clock = self._folder / f"{name}.clock"
        usual = self._chance.uniform(-bound, bound)
        write_offset(clock, usual)
        command = [sys.executable, "-m", "tests.support.history_process", role, "--clock", str(clock), *arguments]
        process = self._processes.make(name, command, env={**environment, **self._python_path()})
        self.parts[name] = Part(name, process, clock, usual, partial(self._is_ready, name))

    def _python_path(self) -> dict[str, str]:
        tree = self.changes.tree or Path(__file__).parents[2]
        return {"PYTHONPATH": f"{tree / 'services'}:{tree / 'shared'}"}

    async def _create_store(self) -> None:
        made = self._processes.start(
            "create-schema",
            [sys.executable, "-m", "tokenry_revocation", "--create-schema"],
            env={
                **self._revocation_environment("A"),
                **self._python_path(),
                "TOKENRY_STORE_REPLICATION": f"datacenter1={self._replicas}",
            },
        )
        code = await asyncio.to_thread(made.wait, seconds=120)
        assert code == 0, made.output()

    # --- settings -----------------------------------------------------------------------------------------------

    def _common(self, listen: str) -> dict[str, str]:
        return {
            "TOKENRY_ISSUER": self.issuer_url,
            "TOKENRY_LISTEN_ADDRESS": listen.removeprefix("http://"),
            "TOKENRY_DRAIN_SECONDS": "1",
            "TOKENRY_ENVIRONMENT": "dev",
            "TOKENRY_MAX_TOKEN_LIFETIME": f"{LIFETIME}s",
        }

    def _revocation_environment(self, name: str) -> dict[str, str]:
        hosts = ",".join(f"{proxy.address[0]}:{proxy.address[1]}" for proxy in self.stores.get(name, ()))
        return {
            **self._common(self._urls[name]),
            "TOKENRY_STORE_URL": f"cassandra://{hosts or '127.0.0.1'}/{self._keyspace}",
            "TOKENRY_REVOCATION_HASHING_SALT": _SALT,
            "TOKENRY_RULES_URL": (self._folder / "credentials").as_uri() + "/",
            "TOKENRY_INSTANCE": name,
            "TOKENRY_OPEN_REPORTS": "true",
        }

    def _issuer_environment(self) -> dict[str, str]:
        return {
            **self._common(self.issuer_url),
            "TOKENRY_CREDENTIALS_URL": (self._folder / "credentials").as_uri() + "/",
            "TOKENRY_ENVELOPE_KEY_FILE": str(self._folder / "envelope.key"),
            "TOKENRY_REVOCATION_URL": self.lists["issuer"].url,
        }

    def _info_environment(self, name: str, url: str) -> dict[str, str]:
        state = {"TOKENRY_STATE_FOLDER": str(self._folder / f"{name}.state")} if name in KEEPING else {}
        return {
            **self._common(url),
            **state,
            "TOKENRY_REVOCATION_URL": self.lists[name].url,
            "TOKENRY_LIST_WARN_AGE": f"{self._refuse_age / 2}s",
            "TOKENRY_LIST_REFUSE_AGE": f"{self._refuse_age}s",
            "TOKENRY_INSTANCE": name,
        }

    def _library_options(self, name: str) -> dict[str, Any]:
        state = {"state_folder": str(self._folder / f"{name}.state")} if name in KEEPING else {}
        return {
            **state,
            "listen": self._library[name],
            "issuer": self.issuer_url,
            "revocations_url": self.lists[name].url,
            "max_token_lifetime": LIFETIME,
            "list_warn_age": self._refuse_age / 2,
            "list_refuse_age": self._refuse_age,
            "name": name,
        }

    # --- asking -------------------------------------------------------------------------------------------------

    def info_url(self, name: str) -> str | None:
        """Return the base URL of a validator that is a service; None for a program with the library."""
        return self._info.get(name)

    async def ask_library(self, name: str, text: str, *, seconds: float) -> dict[str, Any]:
        """Return what a program with the library says of a token; raises OSError or TimeoutError."""
        lines = self._lines.setdefault(name, _Lines(self._library[name]))
        async with asyncio.timeout(seconds):
            return await lines.ask(text)

    async def _is_ready(self, name: str) -> bool:
        if name in self._library:
            try:
                said = await self.ask_library(name, "a.b.c", seconds=1.0)
            except (OSError, TimeoutError):
                return False
            return bool(said["ready"])
        url = self._urls.get(name) or self._info.get(name) or self.issuer_url
        return await asyncio.to_thread(http_status, f"{url}/readyz") == 200


class _Lines:
    """Connections to one program with the library; each carries one question at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._idle: list[socket.socket] = []

    def close(self) -> None:
        """End all connections."""
        while self._idle:
            self._idle.pop().close()

    async def ask(self, text: str) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        connection = self._idle.pop() if self._idle else await self._connect()
        line = b""
        try:
            await loop.sock_sendall(connection, text.encode() + b"\n")
            while not line.endswith(b"\n") and (more := await loop.sock_recv(connection, _LINE_BYTES)):
                line += more
        except BaseException:
            connection.close()
            raise
        if not line.endswith(b"\n"):
            connection.close()
            raise ConnectionResetError("the program has ended")
        self._idle.append(connection)
        said: dict[str, Any] = json.loads(line)
        return said

    async def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, self._address)
        except BaseException:
            connection.close()
            raise
        return connection
