"""A real Cassandra that asks for TLS and a password: what gets in, and what is said to whom does not."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from tests.support.cassandra import CassandraNode
from tests.support.certificates import make_identity
from tests.support.fault_proxy import FaultProxy
from tests.support.processes import free_port
from tokenry.clock import SystemClock
from tokenry.secret import Secret
from tokenry_revocation.adapters.location import create_store, open_store, parse_store_url
from tokenry_revocation.ports import StoredRecord, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tokenry_revocation.ports import RevocationStore

pytestmark = pytest.mark.cassandra

USER, PASSWORD = "cassandra", "cassandra"  # that every new cluster begins with
AUTHORITY = make_identity("CN=Authority of the store", authority=True)
OTHER_AUTHORITY = make_identity("CN=Another authority", authority=True)


class Node:
    """The node, and the ways to address it."""

    def __init__(self, node: CassandraNode, folder: Path) -> None:
        self.node = node
        self.authority = folder / "authority.pem"
        self.other_authority = folder / "other.pem"
        self.authority.write_bytes(AUTHORITY.pem)
        self.other_authority.write_bytes(OTHER_AUTHORITY.pem)

    def url(self, *, host: str = "127.0.0.1", authority: Path | None = None, more: str = "") -> str:
        return f"cassandra://{host}:{self.node.native_port}/tokenry?ca_file={authority or self.authority}{more}"

    async def open(self, url: str, *, password: str = PASSWORD) -> RevocationStore:
        location = parse_store_url(url, username=USER, password=Secret(password))
        return await open_store(location, clock=SystemClock(), environment="test")

    async def refusal(self, url: str, *, password: str = PASSWORD) -> str:
        with pytest.raises(StoreUnavailable) as caught:
            await self.open(url, password=password)
        return str(caught.value)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("tls")
    own = make_identity("CN=node", issuer=AUTHORITY, ip=("127.0.0.1",))
    secret = "a password of the tests"
    keystore = folder / "node.p12"
    keystore.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"node", own.key, own.certificate, [AUTHORITY.certificate], BestAvailableEncryption(secret.encode())
        )
    )
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    started = CassandraNode(
        folder / "cassandra",
        native_port=free_port(),
        storage_port=free_port(),
        settings={
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "client_encryption_options": {
                "enabled": True,
                "optional": False,
                "keystore": str(keystore),
                "keystore_password": secret,
                "store_type": "PKCS12",
                "require_client_auth": False,
            },
        },
        tls=context,
    )
    try:
        started.start()
        started.wait_until_ready()
        made = Node(started, folder)
        asyncio.run(_create(made))
        yield made
    finally:
        started.kill()


async def _create(node: Node) -> None:
    """Create the schema once the node has made its first user."""
    location = parse_store_url(node.url(), username=USER, password=Secret(PASSWORD))
    deadline = time.monotonic() + 120
    while True:
        try:
            await create_store(
                location,
                now=time.time(),
                retention_seconds=7200,
                environment="test",
                replication={"datacenter1": 1},
            )
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            return


async def test_with_the_right_authority_and_password_the_store_works(node: Node) -> None:
    store = await node.open(node.url())
    record = StoredRecord(id="a", body=b"{}", in_force_until=int(time.time()) + 600)
    await store.append(record)
    found = await store.get("a")
    await store.close()
    assert found is not None
    assert found.body == b"{}"


async def test_a_certificate_of_another_authority_is_refused(node: Node) -> None:
    said = await node.refusal(node.url(authority=node.other_authority))
    assert "CERTIFICATE_VERIFY_FAILED" in said


async def test_a_certificate_for_another_address_is_refused_unless_names_are_not_checked(node: Node) -> None:
    with FaultProxy(("127.0.0.1", node.node.native_port), host="127.0.0.5", port=node.node.native_port):
        said = await node.refusal(node.url(host="127.0.0.5"))
        assert "certificate is not valid for '127.0.0.5'" in said
        store = await node.open(node.url(host="127.0.0.5", more="&check_hostname=false"))
        await store.ping()
        await store.close()


async def test_a_wrong_password_is_refused_and_repeated_nowhere(node: Node) -> None:
    said = await node.refusal(node.url(), password="a-wrong-password")
    assert "AuthenticationFailed" in said
    assert "a-wrong-password" not in said


async def test_without_tls_nothing_is_said_to_the_node(node: Node) -> None:
    said = await node.refusal(f"cassandra://127.0.0.1:{node.node.native_port}/tokenry?tls=false")
    assert said.startswith("Cassandra: ")
