"""The three services as processes with settings of the test's choice: folder or S3, SQLite or Cassandra."""

import json
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.cassandra import CassandraEndpoint
from tests.support.http import Answer, call
from tests.support.processes import Process, Processes, free_port, http_status
from tokenry_cli.dev_folder import DevFolder
from tokenry_cli.dev_registry import prepare

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from tests.support.s3 import S3Server

SERVICES = ("issuer", "revocation", "tokeninfo")  # in the order in which they are started


class Deployment:
    """
    One deployment.

    Attributes:
        refuse_age: Seconds after which token info refuses to judge by its list; the least that is allowed.
    """

    python = sys.executable
    refuse_age = 31.0

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._processes = processes
        self._running: dict[str, Process] = {}
        self._urls = {name: f"http://127.0.0.1:{free_port()}" for name in SERVICES}
        self._folder = DevFolder(folder / "platform")
        self._extra: dict[str, dict[str, str]] = {name: {} for name in SERVICES}
        with self._folder.locked():
            self.identities = self._folder.identities()
            prepare(self._folder, self.identities, now=time.time())

    # --- what it stands on ---

    def use_folder(self) -> None:
        """Read credentials and keys from the folder."""
        url = self._folder.credentials.as_uri() + "/"
        self._extra["issuer"]["TOKENRY_CREDENTIALS_URL"] = url
        self._extra["revocation"]["TOKENRY_RULES_URL"] = url

    def use_s3(self, server: "S3Server", client: "S3Client") -> None:
        """Put the folder's content into a bucket of *server*, and read it from there."""
        bucket = f"tokenry-credentials-{uuid.uuid4().hex[:8]}"
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        root = self._folder.credentials
        for path in (file for file in root.rglob("*.json") if file.is_file()):
            client.put_object(Bucket=bucket, Key=f"v1/{path.relative_to(root).as_posix()}", Body=path.read_bytes())
        for service, name in (("issuer", "TOKENRY_CREDENTIALS_URL"), ("revocation", "TOKENRY_RULES_URL")):
            self._extra[service] |= {name: f"s3://{bucket}/v1/", **server.environment}

    def use_sqlite(self) -> None:
        """Keep revocations in the folder's file."""
        self._extra["revocation"]["TOKENRY_STORE_URL"] = f"sqlite:///{self._folder.revocations}"

    def use_signed_list(self, *, seconds: int) -> None:
        """Publish the signed list into the folder every few *seconds*, and let token info read it from there."""
        self._extra["revocation"] |= {
            "TOKENRY_LIST_PUBLISH_URL": self._folder.published.as_uri() + "/",
            "TOKENRY_LIST_PUBLISH_INTERVAL": f"{seconds}s",
            "TOKENRY_LIST_ENVELOPE_KEY_FILE": str(self._folder.envelope_key),
        }
        published = self._folder.published / "revocation-list.jwt"
        self._extra["tokeninfo"]["TOKENRY_SIGNED_LIST_URL"] = published.as_uri()

    def use_client_for_reports(self) -> None:
        """Let token info report as the demo client; reports without a token are not taken."""
        client = self.identities.client
        self._extra["tokeninfo"] |= {
            "TOKENRY_LIST_CLIENT_ID": client["client_id"],
            "TOKENRY_LIST_CLIENT_SECRET": client["client_secret"],
            "TOKENRY_LIST_CLIENT_REALM": "/services",
        }

    def use_cassandra(self, endpoint: CassandraEndpoint) -> None:
        """Keep revocations in a keyspace of its own, made by the explicit command."""
        hosts = ",".join(f"{host}:{endpoint.port}" for host in endpoint.contact_points)
        keyspace = f"tokenry_{uuid.uuid4().hex[:8]}"
        self._extra["revocation"]["TOKENRY_STORE_URL"] = f"cassandra://{hosts}/{keyspace}"
        made = self._processes.start(
            "create-schema",
            [self.python, "-m", "tokenry_revocation", "--create-schema"],
            env=self._environment("revocation") | {"TOKENRY_STORE_REPLICATION": "datacenter1=1"},
        )
        assert made.wait(seconds=120) == 0, made.output()

    def add_environment(self, service: str, settings: dict[str, str]) -> None:
        """Give *service* more settings, before it starts."""
        self._extra[service] |= settings

    def write_client(self, client_id: str, **members: object) -> None:
        """Write a client of the realm `services` into the folder; an issuer that runs takes it at its next refresh."""
        path = self._folder.credentials / "realms" / "services" / "clients" / f"{client_id}.json"
        path.write_text(json.dumps({"client_id": client_id, **members}))

    @property
    def credentials_url(self) -> str:
        """Return where the registry is, as TOKENRY_CREDENTIALS_URL says it."""
        return self._folder.credentials.as_uri() + "/"

    # --- its life ---

    def start(self, *services: str, wait: bool = True) -> None:
        """Start *services*, or all that do not run; with *wait*, return when they are ready."""
        wanted = [name for name in services or SERVICES if not self._runs(name)]
        for name in wanted:
            self._running[name] = self._processes.start(
                name, [self.python, "-m", f"tokenry_{name}"], env=self._environment(name)
            )
        for name in wanted if wait else ():
            self._running[name].wait_until_http(self.url(name, "/readyz"), seconds=60)

    def wait_alive(self, service: str) -> None:
        """Return once *service* answers at all."""
        self._running[service].wait_until_http(self.url(service, "/healthz"), seconds=60)

    def stop(self, service: str) -> int:
        """Ask *service* to end, and return its exit status."""
        return self._running[service].terminate(seconds=30)

    def kill(self, service: str) -> None:
        """End *service* at once."""
        self._running[service].kill()

    def output(self, service: str) -> str:
        """Return what *service* has written so far."""
        return self._running[service].output()

    def pid(self, service: str) -> int:
        """Return the process id of *service*."""
        return self._running[service].pid

    def _runs(self, service: str) -> bool:
        return service in self._running and self._running[service].running

    def _environment(self, service: str) -> dict[str, str]:
        own = {
            "issuer": {
                "TOKENRY_ENVELOPE_KEY_FILE": str(self._folder.envelope_key),
                "TOKENRY_REVOCATION_URL": self._urls["revocation"],
                "TOKENRY_TOKENINFO_URL": self._urls["tokeninfo"],
            },
            "tokeninfo": {
                "TOKENRY_REVOCATION_URL": self._urls["revocation"],
                "TOKENRY_LIST_WARN_AGE": f"{self.refuse_age / 2}s",
                "TOKENRY_LIST_REFUSE_AGE": f"{self.refuse_age}s",
            },
            "revocation": {"TOKENRY_REVOCATION_HASHING_SALT": self.identities.salt},
        }
        return {
            "TOKENRY_ISSUER": self._urls["issuer"],
            "TOKENRY_LISTEN_ADDRESS": self._urls[service].removeprefix("http://"),
            "TOKENRY_DRAIN_SECONDS": "1",
            "TOKENRY_ENVIRONMENT": "dev",
            **own[service],
            **self._extra[service],
        }

    # --- what people do with it ---

    def url(self, service: str, path: str) -> str:
        """Return the URL of *path* at *service*."""
        return f"{self._urls[service]}{path}"

    def token(self, *, admin: bool = False) -> str:
        """Return a fresh token of the demo client, or of the administrator."""
        person = self.identities.admin if admin else self.identities.client
        answer = call(
            "POST",
            self.url("issuer", "/oauth2/token"),
            form={"grant_type": "client_credentials", "realm": "/services"},
            basic=(person["client_id"], person["client_secret"]),
        )
        assert answer.status == 200, answer
        return str(answer.json["access_token"])

    def admin_token(self) -> str:
        """Return a fresh token of the administrator."""
        return self.token(admin=True)

    def tokeninfo(self, token: str) -> int:
        """Return the status with which token info answers for *token*."""
        return call("GET", self.url("tokeninfo", "/oauth2/tokeninfo"), bearer=token).status

    def revoke_token(self, token: str, *, admin: str | None = None) -> Answer:
        """Revoke *token* as the administrator."""
        return call(
            "POST",
            self.url("revocation", "/revocations"),
            document={"type": "TOKEN", "data": {"token": token}},
            bearer=admin or self.admin_token(),
        )

    def ask(self, service: str, *, token: str, admin: str, number: int) -> int:
        """Do once what *service* is mostly asked to do, and return the status."""
        if service == "issuer":
            person = self.identities.client
            form = {"grant_type": "client_credentials", "realm": "/services"}
            credential = (person["client_id"], person["client_secret"])
            return call("POST", self.url("issuer", "/oauth2/token"), form=form, basic=credential).status
        if service == "tokeninfo":
            return self.tokeninfo(token)
        member = {"jti": f"load-{number}-{time.monotonic_ns()}", "expires_at": int(time.time()) + 60}
        return call(
            "POST",
            self.url("revocation", "/revocations"),
            document={"type": "TOKEN", "data": member},
            bearer=admin,
        ).status

    def is_ready(self, service: str) -> bool:
        """Tell whether *service* says that it is ready."""
        return http_status(self.url(service, "/readyz")) == 200
