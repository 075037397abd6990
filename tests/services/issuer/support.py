"""An issuer in memory: a store with switches, a clock moved by hand, and one client to ask with."""

import base64
import json
import random
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import argon2
import bcrypt
from aiohttp import ClientResponse, ClientSession
from multidict import CIMultiDict
from yarl import URL

from tokenry.jose.sealing import EnvelopeKey
from tokenry.revocation.lists import RevocationList
from tokenry.serving.server import serve
from tokenry.testing.clock import FakeClock
from tokenry.validation.snapshots import Snapshot
from tokenry_issuer.app import ISSUER, Chance, Issuer, create_app
from tokenry_issuer.settings import Settings
from tokenry_registry import bootstrap
from tokenry_registry.ports import GONE, MAX_OBJECT_BYTES, ObjectUnreadable, StoredObject, StoreUnavailable

ISSUER_URL = "https://issuer.example.org"
NOW = 1_800_000_000
DAY = 86_400
SECRET = "s3cret-of-the-orders-service-0123456789-abcd"
OTHER_SECRET = "another-secret-0123456789-0123456789-abcdef"
PASSWORD = "correct horse battery staple"
FORM = "application/x-www-form-urlencoded"


class MemoryStore:
    """An `ObjectStore` in memory, with the faults of a real one. Passes the contract suite."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self.outage: str | None = None  # everything fails with this code
        self.unreadable: dict[str, str] = {}  # key to code
        self.failing_reads: set[str] = set()  # keys whose reads fail as if the store were away
        self.reads: list[str] = []
        self.listings = 0
        self.closed = False
        self._count = 0

    def put(self, key: str, body: bytes | Mapping[str, Any]) -> None:
        self._count += 1
        self.objects[key] = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.versions[key] = self._count

    def delete(self, key: str) -> None:
        del self.objects[key]

    def change(self, key: str, **members: Any) -> None:
        self.put(key, {**json.loads(self.objects[key]), **members})

    def load_folder(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*.json")):
            self.put(path.relative_to(folder).as_posix(), path.read_bytes())

    async def list(self, prefix: str) -> Mapping[str, str]:
        self.listings += 1
        if self.outage is not None:
            raise StoreUnavailable(self.outage)
        return {key: f'"{self.versions[key]}"' for key in self.objects if key.startswith(prefix)}

    async def get(self, key: str, *, etag: str | None = None) -> StoredObject | None:
        self.reads.append(key)
        if self.outage is not None or key in self.failing_reads:
            raise StoreUnavailable(self.outage or "timeout")
        if key in self.unreadable:
            raise ObjectUnreadable(self.unreadable[key])
        if key not in self.objects:
            raise ObjectUnreadable(GONE)
        body, current = self.objects[key], f'"{self.versions[key]}"'
        if current == etag:
            return None
        if len(body) > MAX_OBJECT_BYTES:
            raise ObjectUnreadable("too_large")
        return StoredObject(body, current)

    async def close(self) -> None:
        self.closed = True


def weak_argon2(secret: str) -> str:
    """A real argon2id hash with parameters that cost nothing."""
    return argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(secret)


def weak_bcrypt(secret: str) -> str:
    return bcrypt.hashpw(secret.encode(), bcrypt.gensalt(4)).decode()


def settings(**changes: Any) -> Settings:
    return Settings(
        **{
            "issuer": ISSUER_URL,
            "credentials_url": "file:///nowhere/",
            "envelope_key_file": Path("/nowhere/envelope.key"),
            "environment": "test",
            **changes,
        }
    )


class FixedRevocations:
    """A source of revocations that a test sets by hand."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.value: Snapshot[RevocationList] | None = None

    def publish(self, revocations: RevocationList, *, age: float = 0.0, ahead: float = 0.0) -> None:
        """Publish *revocations* as they were *age* seconds ago, by a clock that ours is *ahead* of."""
        self.value = Snapshot(
            value=revocations,
            as_of=self._clock.now() - age - ahead,
            age_at_request=age,
            requested_at=self._clock.monotonic(),
        )

    def snapshot(self) -> Snapshot[RevocationList] | None:
        return self.value


def basic(client_id: str, secret: str) -> str:
    """The header as Plan B's clients write it: nothing is encoded."""
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]

    @property
    def claims(self) -> dict[str, Any]:
        return decoded(self.json["access_token"])[1]

    @property
    def header(self) -> dict[str, Any]:
        return decoded(self.json["access_token"])[0]


def decoded(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    return json.loads(header), json.loads(payload)


@dataclass
class Running:
    """A running issuer and everything around it."""

    clock: FakeClock
    store: MemoryStore
    envelope: EnvelopeKey
    issuer: Issuer
    http: ClientSession
    url: str
    revocations: FixedRevocations
    app: Any = None
    slept: list[float] = field(default_factory=list)

    async def refresh(self) -> None:
        await self.issuer.keyring.refresh()
        await self.issuer.refresh_credentials()

    async def call(
        self,
        method: str,
        path: str,
        *,
        headers: Any = None,
        data: Any = None,
    ) -> Answer:
        async with self.http.request(
            method,
            URL(self.url + path, encoded=True),
            headers=headers,
            data=data,
            skip_auto_headers=["Content-Type"],
        ) as response:
            return await _answer(response)

    async def token(
        self,
        form: Mapping[str, str] | list[tuple[str, str]] | str | bytes | None = None,
        *,
        client: tuple[str, str] | None = ("orders", SECRET),
        authorization: list[str] | None = None,
        path: str = "/oauth2/token",
        content_type: str | None = FORM,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        fields = CIMultiDict(headers or {})
        if authorization is None and client is not None:
            authorization = [basic(*client)]
        for value in authorization or []:
            fields.add("Authorization", value)
        if content_type is not None:
            fields["Content-Type"] = content_type
        body = {"grant_type": "client_credentials"} if form is None else form
        return await self.call("POST", path, headers=fields, data=encoded(body))

    async def password_token(self, username: str = "robot", password: str = PASSWORD, **members: str) -> Answer:
        return await self.token({"grant_type": "password", "username": username, "password": password, **members})

    def add_key(
        self, *, publish_at: int = NOW - DAY, activate_at: int | None = None, retire_at: int = NOW + 30 * DAY,
        use: str = "token", folder: Path,
    ) -> str:  # fmt: skip
        kid = bootstrap.create_signing_key(
            folder,
            self.envelope,
            publish_at=publish_at,
            activate_at=publish_at if activate_at is None else activate_at,
            retire_at=retire_at,
            use=use,
        )
        self.store.put(f"keys/{kid}.json", (folder / "keys" / f"{kid}.json").read_bytes())
        return kid


def encoded(form: Any) -> bytes:
    if isinstance(form, bytes):
        return form
    if isinstance(form, str):
        return form.encode()
    from urllib.parse import urlencode

    return urlencode(form).encode()


async def _answer(response: ClientResponse) -> Answer:
    return Answer(response.status, response.headers.copy(), await response.read())


def write_credentials(folder: Path) -> None:
    """The realms, clients and users that the tests of the endpoints speak of."""
    both = ("client_credentials", "password")
    bootstrap.write_realm(folder, "services", environment="test", grant_types=both)
    bootstrap.write_realm(
        folder, "plan-b", environment="test", grant_types=both, claims_profile="plan-b", typ="JWT",
        token_lifetime=600,
    )  # fmt: skip
    bootstrap.write_realm(folder, "modern", environment="test", audience="https://api.example.org")
    for realm in ("services", "plan-b", "modern"):
        bootstrap.write_client(
            folder, realm, "orders", hashes=[bootstrap.hash_secret(SECRET)], created_at=NOW,
            scopes=["orders.read", "orders.write", "uid"], default_scopes=["orders.read"],
            audiences=["https://a.example.org", "https://b.example.org", "stock"], grant_types=both,
        )  # fmt: skip
    bootstrap.write_client(
        folder, "services", "slow", hashes=[weak_argon2(SECRET)], created_at=NOW, scopes=["orders.read"],
        token_lifetime=300,
    )  # fmt: skip
    bootstrap.write_client(folder, "services", "public", hashes=[], created_at=NOW, scopes=["orders.read"])
    bootstrap.write_client(
        folder, "services", "off", hashes=[bootstrap.hash_secret(SECRET)], created_at=NOW, enabled=False
    )
    bootstrap.write_user(
        folder, "services", "robot", hashes=[weak_bcrypt(PASSWORD)], created_at=NOW,
        scopes=["orders.read", "uid"],
    )  # fmt: skip
    bootstrap.write_user(
        folder, "services", "bound", hashes=[bootstrap.hash_secret(PASSWORD)], created_at=NOW,
        scopes=["orders.read"], clients=["somebody-else"],
    )  # fmt: skip
    bootstrap.write_user(
        folder, "services", "gone", hashes=[bootstrap.hash_secret(PASSWORD)], created_at=NOW, enabled=False
    )


@cache
def usual_objects() -> tuple[Mapping[str, bytes], EnvelopeKey]:
    """The usual credentials and two keys, made once a run."""
    store, envelope = MemoryStore(), EnvelopeKey.generate()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_credentials(folder)
        for offset in (0, 10 * DAY):
            bootstrap.create_signing_key(
                folder,
                envelope,
                publish_at=NOW - DAY,
                activate_at=NOW - DAY + offset,
                retire_at=NOW + 30 * DAY,
            )
        store.load_folder(folder)
    return store.objects, envelope


@asynccontextmanager
async def running(
    *,
    with_list: bool = False,
    load: bool = True,
    only_realm: str | None = None,
    fetchers: Any = None,
    replay: Any = None,
    management: Any = None,
    **changes: Any,
):
    """Start an issuer over the usual credentials."""
    clock = FakeClock(start=float(NOW))
    store, revocations = MemoryStore(), FixedRevocations(clock)
    objects, envelope = usual_objects()
    for key, body in objects.items():
        store.put(key, body)
    if only_realm is not None:
        for key in [key for key in store.objects if key.startswith("realms/") and f"/{only_realm}/" not in key]:
            store.delete(key)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    app = create_app(
        settings(**changes),
        clock=clock,
        store=store,
        envelope=envelope,
        revocations=revocations if with_list else None,
        chance=Chance(uniform=random.Random(7)),  # noqa: S311 -- jitter
        sleep=sleep,
        refresh_in_background=False,
        fetchers=fetchers,
        replay=replay,
        management=management,
    )
    async with serve(app, ["127.0.0.1:0"], finish_seconds=1.0) as served, ClientSession() as http:
        around = Running(clock, store, envelope, app[ISSUER], http, served.url, revocations, app, slept)
        if load:
            await around.refresh()
        yield around
