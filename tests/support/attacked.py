"""
The platform as its attackers meet it: running processes, a forge with the issuer's own key, and a watch on what must
never happen whatever they send.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from tests.support.access_tokens import Forge
from tests.support.http import Answer, call
from tests.support.platform import Deployment
from tests.support.processes import Process, Processes, free_port
from tokenry.jose.jwk import PrivateKey
from tokenry_registry import bootstrap
from tokenry_registry.envelope import read_envelope_key
from tokenry_registry.realms import RefusedObject
from tokenry_registry.signing_keys import StoredKey, open_key, read_stored_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokenry.jose.sealing import EnvelopeKey

REALM: Final = "/services"
PROBER: Final = "prober"  # may introspect; its allowance is there to be used up
SENDER: Final = "sender"  # may take tokens for itself, and for the other audience
OTHER_AUDIENCE: Final = "https://other.example"
MAX_GROWTH_BYTES: Final = 48 << 20  # of one process over all tests of this folder: arenas and caches, not a leak
ANSWER_SECONDS: Final = 5.0  # for one answer on a machine that runs other tests; none is meant to take a tenth
_FAULT_MARKS: Final = ("Traceback (most recent call last)", "unhandled error", "request failed outside")
_MIN_CANARY: Final = 16  # shorter parts of a token could be in a log by chance


class AttackedPlatform(Deployment):
    """
    The three services, and one of another team that uses the library, with room for many attempts from one address.

    Attributes:
        sent: Every token and secret that was presented and must not be found in any log or metric.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        super().__init__(folder, processes)
        self._output = folder / "processes"
        self.sent: set[str] = set()
        self.secrets: dict[str, str] = {}
        self.use_folder()
        self.use_sqlite()
        many = str(10**6)
        self._extra["issuer"] |= {
            "TOKENRY_FAILURES_PER_CLIENT": many,
            "TOKENRY_FAILURES_PER_ADDRESS": many,
            "TOKENRY_CREDENTIALS_REFRESH_INTERVAL": "1s",
        }
        self._extra["tokeninfo"] |= {
            "TOKENRY_INTROSPECTION_REALM": REALM,
            "TOKENRY_INTROSPECTION_RATE": "100",
            "TOKENRY_INTROSPECTION_BURST": "2000",
            "TOKENRY_INTROSPECTION_AUDIENCES": json.dumps({PROBER: ["https://nobody.example"]}),
        }
        now = int(time.time())
        for client_id, scopes in ((PROBER, ["token.introspect"]), (SENDER, ["orders.read", "a", "b"])):
            self.add_client(client_id, scopes=scopes, created_at=now)
        for person in (self.identities.client, self.identities.admin):
            self.secrets[person["client_id"]] = person["client_secret"]
        self.sent |= set(self.secrets.values()) | {self.identities.user["password"], self.identities.salt}
        self._guarded_port = free_port()
        self._admin_token = ("", 0.0)

    @property
    def credentials(self) -> Path:
        """The folder that the issuer reads."""
        return self._folder.credentials

    def add_client(self, client_id: str, *, scopes: list[str], created_at: int) -> None:
        """Give the realm one more client."""
        secret = self.secrets[client_id] = bootstrap.new_secret()
        bootstrap.write_client(
            self.credentials,
            REALM,
            client_id,
            hashes=[bootstrap.hash_secret(secret)],
            created_at=created_at,
            scopes=scopes,
            default_scopes=scopes[:1],
            audiences=[OTHER_AUDIENCE],
            grant_types=["client_credentials", "password"],
        )
        self.sent.add(secret)

    def start_all(self) -> None:
        """Start everything, and wait until it is ready."""
        self.start()
        self._running["guarded"] = self._processes.start(
            "guarded",
            [self.python, "-m", "tokenry_cli.demo_service", "--port", str(self._guarded_port)],
            env={"TOKENRY_ISSUER": self._urls["issuer"]},
        )
        self._urls["guarded"] = f"http://127.0.0.1:{self._guarded_port}"
        self._running["guarded"].wait_until_http(self.url("guarded", "/readyz"), seconds=60)

    def process(self, service: str) -> Process:
        """Return the running process of *service*."""
        return self._running[service]

    @property
    def services(self) -> tuple[str, ...]:
        """The names of all four."""
        return tuple(self._running)

    def address(self, service: str) -> tuple[str, int]:
        """Return where *service* listens."""
        parts = urlsplit(self._urls[service])
        return str(parts.hostname), int(parts.port or 0)

    # --- what attackers know ---

    def forge(self, **changes: Any) -> Forge:
        """Return a forge that signs with the issuer's own, active key, from now on."""
        now = int(time.time())
        members: dict[str, Any] = {
            "issuer": self._urls["issuer"],
            "audience": self._urls["issuer"],
            "key": self.signing_keys("token")[0],
            "now": now,
            "lifetime": 3600,
            "client": self.identities.client["client_id"],
            "jti": uuid.uuid4().hex,
        }
        return Forge(**(members | changes))

    def signing_keys(self, use: str | None = None) -> list[PrivateKey]:
        """Return the platform's own private keys that are active, the one that signs first; those of one *use*."""
        now = time.time()
        found = []
        for path in (file for folder in self.credentials.rglob("*keys") for file in folder.glob("*.json")):
            stored = read_stored_key(path.read_bytes(), kid=path.stem)
            if stored.times.activate_at <= now and use in {None, str(stored.use)}:
                found.append((stored.times.activate_at, stored))
        found.sort(key=lambda pair: -pair[0])
        envelopes = [read_envelope_key(path) for path in self._folder.root.glob("*.key")]
        return [self._open(stored, envelopes) for _, stored in found]

    @staticmethod
    def _open(stored: StoredKey, envelopes: list[EnvelopeKey]) -> PrivateKey:
        for envelope in envelopes:  # one for each role
            with contextlib.suppress(RefusedObject):
                signer = open_key(stored, envelope=envelope).private
                assert isinstance(signer, PrivateKey), "a key of a key management service cannot be had"
                return signer
        raise AssertionError(f"no envelope key opens {stored.kid}")

    def basic(self, client_id: str) -> tuple[str, str]:
        """Return the credentials of a client."""
        return client_id, self.secrets[client_id]

    def grant(self, client_id: str = SENDER, **form: str) -> Answer:
        """Ask for a token as *client_id*."""
        form = {"grant_type": "client_credentials", "realm": REALM, **form}
        return call("POST", self.url("issuer", "/oauth2/token"), form=form, basic=self.basic(client_id))

    def fresh(self, client_id: str = SENDER, **form: str) -> str:
        """Return a fresh token of *client_id*."""
        answer = self.grant(client_id, **form)
        assert answer.status == 200, answer
        token = str(answer.json["access_token"])
        self.sent.add(token)
        return token

    def admin_bearer(self) -> str:
        """Return a token of the administrator, the same one for some minutes."""
        token, until = self._admin_token
        if time.monotonic() > until:
            token, until = self.fresh("admin"), time.monotonic() + 600
            self._admin_token = (token, until)
        return token

    # --- what they must not find ---

    def outputs(self) -> Iterator[tuple[str, Path]]:
        """Yield each process's name and the file with what it wrote."""
        for name, process in self._running.items():
            yield name, process.output_file

    def resident_bytes(self, service: str) -> int:
        """Return how much memory a process holds, after its guard made way for the program."""
        status = Path(f"/proc/{self.process(service).pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def is_well(self) -> bool:
        """Tell whether each service answers a good request on a new connection as it should."""
        return self.health() == {"tokeninfo": 200, "guarded": 200, "revocation": 200}

    def health(self) -> dict[str, int]:
        """Return the status of a good request to each service, on a new connection, with a fresh token."""
        token = self.fresh()
        return {
            "tokeninfo": call("GET", self.url("tokeninfo", "/oauth2/tokeninfo"), bearer=token).status,
            "guarded": call("GET", self.url("guarded", "/orders"), bearer=token).status,
            "revocation": call("GET", self.url("revocation", "/revocations/snapshot")).status,
        }


class Watch:
    """What the processes have written since the last look."""

    def __init__(self, platform: AttackedPlatform) -> None:
        self._platform = platform
        self._seen: dict[Path, int] = {}
        self.look()

    def look(self) -> dict[str, str]:
        """Return what each process has written since the last look."""
        news: dict[str, str] = {}
        for name, path in self._platform.outputs():
            with path.open("rb") as file:
                file.seek(self._seen.get(path, 0))
                written = file.read()
            self._seen[path] = self._seen.get(path, 0) + len(written)
            news[name] = written.decode("utf-8", "replace")
        return news

    def complaints(self) -> list[str]:
        """Return what was written since the last look and should not have been."""
        found = []
        for name, text in self.look().items():
            found += [f"{name} wrote {mark!r}:\n{_around(text, mark)}" for mark in _FAULT_MARKS if mark in text]
            found += [f"{name} wrote a secret: {start}…" for start in given_away(self._platform.sent, text)]
        return found


def _around(text: str, mark: str) -> str:
    """Return the line with *mark* and the two before it, with the lines of a logged traceback broken."""
    lines = text.splitlines()
    place = next(number for number, line in enumerate(lines) if mark in line)
    return "\n".join(lines[max(0, place - 2) : place + 30]).replace("\\n", "\n")


def given_away(secrets: set[str], text: str) -> list[str]:
    """Return the first letters of those of *secrets* that *text* gives away."""
    return [needle[:6] for needle in canaries(secrets) if needle in text]


def canaries(secrets: set[str]) -> Iterator[str]:
    """Yield what gives each of *secrets* away: a token is already given away by one of its parts."""
    for secret in secrets:
        parts = secret.split(".")[1:] if secret.count(".") == 2 else [secret]
        yield from (part for part in parts if len(part) >= _MIN_CANARY)


class Talker:
    """One kept connection to a service, for many small requests; bytes go out as they are given."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, target: str, *, headers: Mapping[str, str | bytes] | None = None, body: bytes | None = None
    ) -> Answer:
        """Make one request, once more where a kept connection had been closed meanwhile."""
        for fresh in (False, True):
            if fresh or self._connection is None:
                self.close()
                self._connection = http.client.HTTPConnection(*self._address, timeout=ANSWER_SECONDS)
            try:
                return self._exchange(self._connection, method, target, headers or {}, body)
            except (http.client.BadStatusLine, ConnectionError):
                if fresh:
                    raise
        raise AssertionError  # pragma: no cover -- the loop returns or raises

    @staticmethod
    def _exchange(
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str | bytes],
        body: bytes | None,
    ) -> Answer:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def post_form(self, target: str, form: Mapping[str, str], *, bearer: str | None = None) -> Answer:
        """Post a form; strings may hold lone surrogates, which become bytes that are no UTF-8."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        body = urlencode(form, errors="surrogateescape").encode("ascii")
        return self.ask("POST", target, headers=headers, body=body)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


CHANNELS: Final = ("header", "query", "form", "auth", "introspection", "middleware")
_HEADER_CHANNELS: Final = {
    "header": ("tokeninfo", "/oauth2/tokeninfo"),
    "auth": ("tokeninfo", "/auth?authenticated=1"),
    "middleware": ("guarded", "/orders"),
}
_FOREIGN_HEADER_LIMIT: Final = 8000  # aiohttp's own, which other teams' services have, is 8190 with the name


class Presenter:
    """Presents one token in every way that the platform takes tokens."""

    def __init__(self, platform: AttackedPlatform) -> None:
        self._platform = platform
        self._talkers = {name: Talker(platform.address(name)) for name in ("tokeninfo", "guarded")}

    def present(self, token: str, channel: str) -> Answer | None:
        """Return the answer to *token*, or None where HTTP cannot carry it there."""
        tokeninfo = self._talkers["tokeninfo"]
        if channel == "query":
            encoded = quote(token, safe="", errors="surrogateescape")
            if len(encoded) > 15_000:
                return None
            return tokeninfo.ask("GET", f"/oauth2/tokeninfo?access_token={encoded}")
        if channel == "form":
            return tokeninfo.post_form("/oauth2/tokeninfo", {"access_token": token})
        if channel == "introspection":
            return tokeninfo.post_form("/oauth2/introspect", {"token": token}, bearer=self._platform.admin_bearer())
        service, target = _HEADER_CHANNELS[channel]
        raw = token.encode("utf-8", "surrogateescape")
        if len(raw) > _FOREIGN_HEADER_LIMIT or any(byte < 0x20 or byte == 0x7F for byte in raw) or not raw.strip():
            return None
        return self._talkers[service].ask("GET", target, headers={"Authorization": b"Bearer " + raw})

    def everywhere(self, token: str) -> dict[str, Answer]:
        """Return the answers of all channels that can carry *token*."""
        self._platform.sent.add(token)
        answers = ((channel, self.present(token, channel)) for channel in CHANNELS)
        return {channel: answer for channel, answer in answers if answer is not None}

    def close(self) -> None:
        """Close the connections."""
        for talker in self._talkers.values():
            talker.close()


def raw_exchange(
    address: tuple[str, int], *pieces: bytes, pause: float = 0.0, seconds: float = 15.0, half_close: bool = False
) -> tuple[bytes, float]:
    """
    Send *pieces* as they are, with *pause* seconds between, and return what came back and after how many seconds the
    other side closed.

    Raises:
        AssertionError: It had not closed after *seconds*.
    """
    began = time.monotonic()
    with socket.create_connection(address, timeout=seconds) as wire:
        received = bytearray()
        wire.settimeout(0.05)
        closed = False
        for number, piece in enumerate(pieces):
            if number:
                closed = _drain(wire, received, until=time.monotonic() + pause)
            if closed:
                break
            try:
                wire.settimeout(seconds)
                wire.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
        if half_close:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_WR)
        if not closed:
            closed = _drain(wire, received, until=began + seconds)
        assert closed, f"the connection is still open after {seconds} s; so far: {bytes(received[:200])!r}"
        return bytes(received), time.monotonic() - began


def _drain(wire: socket.socket, received: bytearray, *, until: float) -> bool:
    """Add what comes to *received*; tell whether the other side has closed."""
    while (left := until - time.monotonic()) > 0:
        wire.settimeout(max(left, 0.001))
        try:
            chunk = wire.recv(65_536)
        except TimeoutError:
            return False
        except (ConnectionResetError, BrokenPipeError):
            return True
        if not chunk:
            return True
        received += chunk
    return False
