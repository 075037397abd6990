"""The file with clients as code: what it may say, and how it is refused, with the line."""

import pytest

from tokenry_admin.clients import client_key, user_key
from tokenry_cli.clients_file import MAX_FILE_BYTES, FileRefused, read_clients_file
from tokenry_registry.realms import ObjectKind

FILE = b"""\
realm: services
realms:
  - realm: /services
    token_lifetime: 600
clients:
  - client_id: orders
    scopes: [stock.read, stock.write]
    enabled: true
  - client_id: web
    realm: /public
    jwks:
      keys:
        - {kty: EC, crv: P-256, x: "1", y: "2"}
users:
  - username: robot
    scopes: []
"""


def read(text):
    return read_clients_file(text.encode() if isinstance(text, str) else text, name="clients.yaml")


def test_entries_are_found_by_what_they_describe_with_their_lines():
    entries = read(FILE)
    orders = entries[client_key("services", "orders")]
    assert orders.members == {"client_id": "orders", "scopes": ["stock.read", "stock.write"], "enabled": True}
    assert (orders.line, orders.lines["scopes"]) == (6, 7)
    assert entries[client_key("public", "web")].members["jwks"]["keys"][0]["kty"] == "EC"
    assert entries[user_key("services", "robot")].members == {"username": "robot", "scopes": []}
    assert [key.kind for key in entries].count(ObjectKind.REALM) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "clients:\n  - client_id: a\n    realm: r\n    scope: [x]\n",
            "clients.yaml:4: scope: there is no",
        ),
        ("clients:\n  - client_id: a\n    realm: r\n    secrets: []\n", "clients.yaml:4: secrets"),
        ("clients:\n  - client_id: a\n    realm: r\n    environment: x\n", "clients.yaml:4: environment"),
        ("client:\n  - client_id: a\n", "clients.yaml:1: client: there is no such member"),
        ("clients:\n  - client_id: a\n    client_id: b\n", "clients.yaml:3: client_id is there twice"),
        ("clients:\n  - client_id: a\n", "clients.yaml:2: realm is missing"),
        ("clients:\n  - realm: r\n", "clients.yaml:2: client_id is missing"),
        ("clients:\n  - client_id: 12\n    realm: r\n", "client_id is missing, or no text"),
        ("realm: 12\n", "clients.yaml:1: a text is expected here: put it into quotes"),
        ("clients:\n  - client_id: ../x\n    realm: r\n", "clients.yaml:2: "),
        ("clients:\n  - client_id: a\n    realm: a/b\n", "clients.yaml:2: "),
        ("realm: r\nclients:\n  - client_id: a\n  - client_id: a\n", "clients.yaml:4: a is in line 3 already"),
        ("realm: r\nclients:\n  - &a\n    client_id: a\n  - *a\n", "aliases"),
        ("clients: {}\n", "clients.yaml:1: a list is expected here"),
        ("clients:\n  - a\n", "clients.yaml:2: names and values are expected here"),
        ("realm: r\nclients:\n  - client_id: a\n    token_lifetime: 1.5\n", "clients.yaml:4: texts, whole numbers"),
        ("realm: r\nclients:\n  - client_id: a\n    description: 2026-11-21\n", "clients.yaml:4: "),
        ("realm: r\nclients:\n  - !!python/object/apply:os.system [ls]\n", "clients.yaml:3: "),
        ("realm: r\nclients:\n  - <<: {client_id: a}\n", "clients.yaml:3: "),
        (
            "realm: r\nclients:\n  - client_id: a\n    token_lifetime: !!int x\n",
            "clients.yaml:4: this is not what its tag",
        ),
        ("realm: r\nclients:\n  - client_id: a\n    enabled: !!bool x\n", "clients.yaml:4: this is not what its tag"),
        ("clients: [\n", "clients.yaml:"),
        ("[]", "top level"),
        ("", "top level"),
        (b"\xff\xfe", "UTF-8"),
        (b"a" * (MAX_FILE_BYTES + 1), "larger"),
        ("realm: r\nclients:\n  - client_id: a\n    jwks: " + "{a: " * 40 + "1" + "}" * 40, "deeper"),
    ],
)
def test_what_is_not_understood_refuses_the_file_and_names_the_line(text, said):
    with pytest.raises(FileRefused) as refused:
        read(text)
    assert said in str(refused.value)
