"""A registry in memory with one realm, the files of applications, and an issuer that reads the registry."""

import json
from dataclasses import dataclass, field

from tests.support.registry_store import MemoryRegistry
from tokenry.secret import Secret
from tokenry.testing.clock import FakeClock
from tokenry_admin.audit import AuditLog
from tokenry_admin.clients import Editor, client_key, user_key
from tokenry_admin.documents import Documents
from tokenry_admin.plan_b_files import PROBE_BODY, PROBE_NAME
from tokenry_admin.ports import FilesUnavailable
from tokenry_issuer.credentials import Credentials
from tokenry_issuer.passwords import Decoy, SecretChecks, WrongSecret
from tokenry_registry import bootstrap

NOW = 1_800_000_000
DAY = 86_400
ACTOR = {"sub": "alice"}
FIRST_SECRET = "the-secret-of-before-0123456789-0123456789-ab"
ENVIRONMENT = "test"
ORDERS, ROBOT = client_key("services", "orders"), user_key("services", "robot")


class MemoryFiles:
    """`ApplicationFiles` in memory, with the same hooks as `MemoryRegistry`."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.before = lambda _operation, _key: None
        self.after = lambda _operation, _key: None

    async def probe(self, application):
        await self.put(application, PROBE_NAME, PROBE_BODY)

    async def put(self, application, name, body):
        self.before("put file", f"{application}/{name}")
        self.files[application, name] = body
        self.after("put file", f"{application}/{name}")

    async def close(self):
        pass


class NoFiles(MemoryFiles):
    """A bucket that refuses."""

    async def put(self, application, name, body):
        raise FilesUnavailable("s3://applications", "AccessDenied")


@dataclass
class World:
    """Everything, before anything is rotated."""

    clock: FakeClock
    store: MemoryRegistry = field(default_factory=MemoryRegistry)
    lines: list = field(default_factory=list)

    def __post_init__(self):
        self.audit = AuditLog(lambda event, fields: self.lines.append((event, dict(fields))))
        self.documents = Documents(self.store, environment=ENVIRONMENT, max_token_lifetime=3600)
        self.editor = Editor(self.documents, audit=self.audit, actor=ACTOR)

    def put(self, path, **members):
        self.store.fill(path, json.dumps(members).encode())

    def members(self, path):
        return json.loads(self.store.objects[path][0])

    def audited(self):
        return [event for event, _ in self.lines]


def world():
    made = World(FakeClock(start=float(NOW)))
    made.put("realms/services/realm.json", realm="/services", environment=ENVIRONMENT)
    made.put("realms/elsewhere/realm.json", realm="/elsewhere", environment="production")
    old = {"hash": bootstrap.hash_secret(FIRST_SECRET), "created_at": NOW - DAY}
    made.put("realms/services/clients/orders.json", client_id="orders", scopes=["orders.read"], secrets=[old])
    made.put("realms/services/users/robot.json", username="robot", scopes=["orders.read"], password_hashes=[old])
    return made


class Reader:
    """An issuer's own view of the registry: what it knows, and whether it takes a secret."""

    def __init__(self, made):
        self.clock = made.clock
        self.credentials = Credentials(
            made.store,
            environment=ENVIRONMENT,
            max_token_lifetime=3600,
            clock=made.clock,
            hard_age=1e9,
            removal_share=0.2,
            on_refused=lambda _cause: None,
        )
        self.checks = SecretChecks(clock=made.clock, key=b"k" * 32)

    async def refresh(self):
        await self.credentials.refresh()

    async def takes(self, key, secret):
        """Tell whether *secret* authenticates *key*, by the issuer's own code."""
        realm = self.credentials.current().realms[key.realm]
        found = realm.clients.get(key.name) or realm.users.get(key.name)
        stored = getattr(found, "secrets", None) or getattr(found, "passwords", ())
        usable = [each.hash for each in stored if each.usable(self.clock.now())]
        try:
            await self.checks.verify(Secret(secret), usable, subject=key.name, decoy=Decoy())
        except WrongSecret:
            return False
        return True
