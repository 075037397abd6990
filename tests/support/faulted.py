"""
The platform with a switch in every line between its parts: running processes, S3 over HTTP, a real Cassandra.

    clients ──────────────► issuer ── s3 line ── bucket ── S3
                              ▲
    tokeninfo, revocation ── keys line (the issuer's own identifier leads through it)
    tokeninfo ── list line ── list server ── revocation ── store line ── Cassandra
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from tests.support.cassandra import CassandraEndpoint
from tests.support.fault_proxy import FaultProxy
from tests.support.http import Answer, call
from tests.support.http_faults import HttpFaults
from tests.support.platform import Deployment
from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mypy_boto3_s3.client import S3Client

    from tests.support.processes import Process, Processes
    from tests.support.s3 import S3Server

REFRESH_SECONDS: Final = 1.0  # of credentials: the least that can be set
KEYS_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 10.0


class FaultedPlatform(Deployment):
    """
    One deployment and its switches.

    Attributes:
        s3_line: Between the issuer (and the revocation service's rules) and the bucket.
        bucket_answers: What S3 answers there.
        store_line: Between the revocation service and Cassandra.
        list_line: Between token info and the revocation service.
        list_answers: What the revocation service answers there.
        keys_line: Between everybody who reads keys and the issuer.
    """

    refuse_age = 120.0  # so that a test on a busy machine is not over it by the time that it looks

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        *,
        s3_server: S3Server,
        s3_client: S3Client,
        cassandra: CassandraEndpoint,
    ) -> None:
        super().__init__(folder, processes)
        self.s3_client = s3_client
        self.use_s3(s3_server, s3_client)
        self.bucket, self.prefix = self._put_s3_behind(s3_server)
        self.store_line = FaultProxy((cassandra.contact_points[0], cassandra.port))
        self.use_cassandra(CassandraEndpoint(contact_points=("127.0.0.1",), port=self.store_line.address[1]))
        self.list_answers = HttpFaults(_address(self._urls["revocation"]))
        self.list_line = FaultProxy(self.list_answers.address)
        self.keys_line = FaultProxy(_address(self._urls["issuer"]))
        self._names: list[str] = []

    def _put_s3_behind(self, server: S3Server) -> tuple[str, str]:
        self.bucket_answers = HttpFaults(("127.0.0.1", server.port))
        self.s3_line = FaultProxy(self.bucket_answers.address)
        for service in ("issuer", "revocation"):
            self._extra[service]["AWS_ENDPOINT_URL_S3"] = self.s3_line.url
        parts = urlsplit(self._extra["issuer"]["TOKENRY_CREDENTIALS_URL"])
        return parts.netloc, parts.path.lstrip("/")

    def _environment(self, service: str) -> dict[str, str]:
        environment = super()._environment(service)
        if not hasattr(self, "keys_line"):  # while the schema is made
            return environment
        environment["TOKENRY_ISSUER"] = self.keys_line.url
        if service == "issuer":
            environment["TOKENRY_CREDENTIALS_REFRESH_INTERVAL"] = f"{REFRESH_SECONDS}s"
            # So that a crowd of fifty is more than it can serve at once.
            environment |= {"TOKENRY_SECRET_CHECK_THREADS": "1", "TOKENRY_SECRET_CHECK_QUEUE": "8"}
        if service == "tokeninfo":
            environment["TOKENRY_REVOCATION_URL"] = self.list_line.url
            environment["TOKENRY_KEYS_REFRESH_INTERVAL"] = f"{KEYS_SECONDS}s"
        return environment

    def process(self, service: str) -> Process:
        """Return the running process of *service*."""
        return self._running[service]

    def another(self, service: str, name: str, environment: dict[str, str], *, prefix: Sequence[str] = ()) -> Process:
        """
        Start one more replica of *service*, known as *name*.

        Args:
            service: Which one.
            name: For `url`, `process` and so on.
            environment: On top of that of the others.
            prefix: A command that becomes this one, to run it under a limit.
        """
        listens = {"TOKENRY_LISTEN_ADDRESS": self.url_of_another(name).removeprefix("http://")}
        self._running[name] = self._processes.start(
            name,
            [*prefix, self.python, "-m", f"tokenry_{service}"],
            env=self._environment(service) | listens | environment,
        )
        return self._running[name]

    def url_of_another(self, name: str) -> str:
        """Return where something known as *name* is to listen."""
        return self._urls.setdefault(name, f"http://127.0.0.1:{free_port()}")

    # --- switches -----------------------------------------------------------------------------------------------

    def mend(self) -> None:
        """Put everything right that a switch here has broken."""
        for answers in (self.bucket_answers, self.list_answers):
            answers.pass_()
        for line in (self.s3_line, self.store_line, self.list_line, self.keys_line):
            line.pass_()

    def close(self) -> None:
        """End the switches."""
        for each in (
            *(self.s3_line, self.store_line, self.list_line, self.keys_line),
            *(self.bucket_answers, self.list_answers),
        ):
            each.close()

    # --- the bucket ---------------------------------------------------------------------------------------------

    def client_key(self) -> str:
        """Return the key of the demo client's object in the bucket."""
        name = f"realms/services/clients/{self.identities.client['client_id']}.json"
        listed = self.s3_client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix)["Contents"]
        (found,) = [each["Key"] for each in listed if each["Key"].endswith(name)]
        return found

    def read_object(self, key: str) -> bytes:
        """Return what is in the bucket under *key*."""
        return self.s3_client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def write_object(self, key: str, body: bytes) -> None:
        """Put *body* into the bucket under *key*."""
        self.s3_client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def delete_object(self, key: str) -> None:
        """Remove what is in the bucket under *key*."""
        self.s3_client.delete_object(Bucket=self.bucket, Key=key)

    # --- what is seen of it -------------------------------------------------------------------------------------

    def metric(self, service: str, name: str, **labels: str) -> float:
        """Return the sum of the samples called *name* that have *labels*; 0.0 where there is none."""
        text = call("GET", self.url(service, "/metrics"), seconds=ANSWER_SECONDS).body.decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def checks(self, service: str) -> dict[str, Any]:
        """Return the findings of `/readyz?verbose`."""
        return dict(call("GET", self.url(service, "/readyz?verbose"), seconds=ANSWER_SECONDS).json["checks"])

    def grant(self, *, seconds: float = ANSWER_SECONDS, service: str = "issuer") -> Answer:
        """Ask for a token as the demo client."""
        person = self.identities.client
        return call(
            "POST",
            self.url(service, "/oauth2/token"),
            form={"grant_type": "client_credentials", "realm": "/services"},
            basic=(person["client_id"], person["client_secret"]),
            seconds=seconds,
        )

    def revoke(
        self, token: str, *, admin: str, key: str | None = None, service: str = "revocation", seconds: float = 30.0
    ) -> Answer:
        """Revoke *token* as the bearer *admin*, with an idempotency key where one is given."""
        return call(
            "POST",
            self.url(service, "/revocations"),
            document={"type": "TOKEN", "data": {"token": token}},
            bearer=admin,
            headers={} if key is None else {"Idempotency-Key": key},
            seconds=seconds,
        )

    def is_well(self) -> bool:
        """Tell whether a token is issued, judged, revoked and refused as it should be, and everybody is ready."""
        return all(self.is_ready(name) for name in ("issuer", "tokeninfo", "revocation"))


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


def until(holds: Callable[[], bool], *, seconds: float, every: float = 0.05) -> float:
    """Return how many seconds passed before *holds* was true; fail after *seconds*."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(every)
    return time.monotonic() - started
