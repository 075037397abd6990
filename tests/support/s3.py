"""
S3 over HTTP for tests: moto's server in a process of its own.

It keeps objects in memory and understands conditional reads and writes. It takes any credentials until
`check_credentials`; from then on it checks signatures and policies.
"""

import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from tests.support.processes import Process, free_port

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

READY_WITHIN_SECONDS = 60.0


class S3Server:
    """
    A moto server on a loopback port. Killing it loses its objects; `pause` and `resume` make an outage that
    does not.
    """

    access_key_id = "test-access-key"
    secret_access_key = "test-secret-key"
    region = "eu-central-1"

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = Process("moto", command, output=directory / "moto.log")

    @property
    def environment(self) -> Mapping[str, str]:
        """What a child process needs for boto3 to find this server."""
        return MappingProxyType(
            {
                "AWS_ACCESS_KEY_ID": self.access_key_id,
                "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
                "AWS_DEFAULT_REGION": self.region,
                "AWS_ENDPOINT_URL_S3": self.endpoint_url,
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        )

    def start(self) -> None:
        """Start it and return once it answers; raises `ProcessFailed`."""
        self.process.start()
        self.process.wait_until_http(f"{self.endpoint_url}/moto-api/data.json", seconds=READY_WITHIN_SECONDS)

    def pause(self) -> None:
        """Make it silent: connections are accepted by the kernel, nothing is answered."""
        self.process.pause()

    def resume(self) -> None:
        """Undo `pause`."""
        self.process.resume()

    def stop(self) -> None:
        """End it."""
        self.process.kill()

    def check_credentials(self) -> None:
        """Check signatures and IAM policies from now on, for the rest of this server's life."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.endpoint_url}/moto-api/reset-auth", data=b"0", headers={"content-type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310 - loopback
            pass

    def client(self, *, access_key_id: str | None = None, secret_access_key: str | None = None) -> "S3Client":
        """Return a boto3 client that gives up within seconds rather than minutes."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=access_key_id or self.access_key_id,
            aws_secret_access_key=secret_access_key or self.secret_access_key,
            config=Config(connect_timeout=2, read_timeout=5, retries={"max_attempts": 1}),
        )
