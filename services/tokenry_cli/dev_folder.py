"""
The folder that `tokenry dev` keeps: signing keys, credentials in the bucket's layout, the revocations' file.

Everything in it is made on first use and found again by the next start. It holds secrets in the clear, for
people who develop on this machine; its owner alone can read it, and nothing in it may be used elsewhere.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenry.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REALM = "/services"
PLAN_B_REALM = "/plan-b"
DEMO_SCOPES = ("orders.read", "orders.write")
ADMIN_SCOPES = (
    "revocation.admin",
    "revocation.undo",
    "revocation.write",
    "token.introspect",
    "audit.read",
    "registry.admin",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """Who exists in both realms of the folder, with their secrets in the clear."""

    client: dict[str, str]
    admin: dict[str, str]
    user: dict[str, str]
    salt: str

    def __repr__(self) -> str:
        """Show names only."""
        return f"Identities(client={self.client['client_id']!r})"


class DevFolder:
    """The paths inside one folder."""

    def __init__(self, root: Path) -> None:
        """Use *root*, which need not exist."""
        self.root = root.absolute()
        self.credentials = self.root / "credentials"
        self.envelope_key = self.root / "envelope.key"
        self.revocations = self.root / "revocations.sqlite"
        self.logs = self.root / "logs"
        self.state = self.root / "state"
        self.published = self.root / "published"
        self._identities = self.root / "identities.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """
        Hold the folder for one process.

        Raises:
            ConfigurationError: The folder cannot be made, or another process holds it.
        """
        try:
            for folder in (self.root, self.logs, self.state, self.published):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.root / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise ConfigurationError([f"cannot use the folder {self.root}: {error.strerror}"]) from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigurationError(
                    [f"another tokenry dev uses {self.root}: end it, or name another folder with --data"]
                ) from None
            yield
        finally:
            os.close(handle)

    def identities(self) -> Identities:
        """Return who exists here, made on first use."""
        try:
            known: dict[str, Any] = json.loads(self._identities.read_bytes())
        except FileNotFoundError:
            known = _new_identities()
            write_private(self._identities, json.dumps(known, indent=2).encode())
        except ValueError:
            raise ConfigurationError([f"{self._identities} is not JSON: remove it to begin anew"]) from None
        return Identities(**known)


def _new_identities() -> dict[str, Any]:
    return {
        "client": {"client_id": "demo", "client_secret": secrets.token_urlsafe(32)},
        "admin": {"client_id": "admin", "client_secret": secrets.token_urlsafe(32)},
        "user": {"username": "demo-user", "password": secrets.token_urlsafe(32)},
        "salt": secrets.token_urlsafe(24),
    }


def write_private(path: Path, content: bytes) -> None:
    """Write *content* so that a reader sees all or nothing of it, and nobody else can read it (mode 0600)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
