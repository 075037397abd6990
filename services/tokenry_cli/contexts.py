"""
The platforms that somebody works with, by name: a file that holds no secret, only where each secret is.

Invariants:
    * A secret is never in the file: `client_secret_file` says where it is.
    * The file is read only if nobody else can write it: whoever could would have secrets sent to themselves.
    * It is replaced as a whole, under a lock: two commands at once lose nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tokenry.errors import ConfigurationError
from tokenry_cli.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_BYTES: Final = 1 << 20
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
URLS: Final = ("issuer", "tokeninfo", "revocation", "admin", "console")
TEXTS: Final = (*URLS, "realm", "client_id", "client_secret_file", "ca_file", "environment")
_OTHERS_WRITE: Final = 0o022


@dataclass(slots=True)
class Contexts:
    """
    What the file says.

    Attributes:
        current: Name of the context that is used where none is named.
        named: The members of each context.
    """

    current: str | None = None
    named: dict[str, dict[str, Any]] = field(default_factory=dict)

    def get(self, name: str) -> dict[str, Any]:
        """
        Return the members of the context *name*.

        Raises:
            ConfigurationError: There is no such context.
        """
        if name not in self.named:
            known = ", ".join(sorted(self.named)) or "none yet: tokenry context add"
            raise ConfigurationError([f"there is no context {name!r}; there are: {known}"])
        return self.named[name]


def contexts_file(environ: Mapping[str, str]) -> Path:
    """Return where the contexts are: TOKENRY_CONTEXTS, else in the user's folder for configuration."""
    if named := environ.get("TOKENRY_CONTEXTS"):
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".config")
    return Path(home) / "tokenry" / "contexts.json"


def read_contexts(path: Path) -> Contexts:
    """
    Return the contexts of the file at *path*; none where there is no file.

    Raises:
        ConfigurationError: With every fault, and what to do.
    """
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise ConfigurationError([f"cannot read the contexts {path}: {error.strerror}"]) from None
    if mode & _OTHERS_WRITE:
        raise ConfigurationError([f"others can write the contexts {path}, and so name where secrets go: chmod 600"])
    return _parsed(text, path)


def _parsed(text: bytes, path: Path) -> Contexts:
    try:
        document = json.loads(text) if len(text) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        document = None
    named = document.get("contexts") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(named, dict):
        raise ConfigurationError([f"the contexts {path} cannot be read: move the file away, and add them again"])
    faults = [f"{path}: {fault}" for name, members in named.items() for fault in faults_of(name, members)]
    current = document.get("current")
    if current is not None and current not in named:
        faults.append(f"{path}: the current context is none of them: tokenry context use NAME")
    if faults:
        raise ConfigurationError(faults)
    return Contexts(current, named)


def faults_of(name: str, members: object) -> Iterator[str]:
    """Yield what is wrong with the context *name*, a sentence each."""
    if not NAME.fullmatch(name):
        yield f"{name[:64]!r} is no name for a context: small letters, digits, '.', '_' and '-'"
    if not isinstance(members, dict):
        yield f"{name} has no members"
        return
    if "client_secret" in members:
        yield (
            f"{name}: a secret does not belong here: write it into a file (mode 0600) and name that as "
            "client_secret_file"
        )
    for member in sorted(set(members) - {*TEXTS, "protected", "client_secret"}):
        yield f"{name}: there is no member {member}; there are {', '.join((*TEXTS, 'protected'))}"
    yield from _faulty_values(name, members)
    if ("client_id" in members) != ("client_secret_file" in members):
        yield f"{name}: client_id and client_secret_file belong together: both or neither"


def _faulty_values(name: str, members: Mapping[str, Any]) -> Iterator[str]:
    for member in TEXTS:
        if member in members and not (isinstance(members[member], str) and members[member]):
            yield f"{name}: {member} is a text"
    if not isinstance(members.get("protected", False), bool):
        yield f"{name}: protected is true or false"
    if "issuer" not in members:
        yield f"{name}: issuer is missing"
    for member in URLS:
        if isinstance(members.get(member), str) and not _is_base_url(members[member]):
            yield f"{name}: {member} is a URL such as https://tokens.example.org, without user, query and fragment"


def _is_base_url(text: str) -> bool:
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    plain = url.scheme in {"http", "https"} and bool(url.hostname)
    return plain and not (url.query or url.fragment or url.username or url.password)


@contextmanager
def changing(path: Path) -> Iterator[Contexts]:
    """
    Give the contexts of the file at *path* to be changed, and write them afterwards unless the block fails.

    Raises:
        ConfigurationError: The file cannot be used, or what it would say is wrong.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError([f"cannot write the contexts {path}: {error.strerror}"]) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        contexts = read_contexts(path)
        yield contexts
        faults = [fault for name, members in contexts.named.items() for fault in faults_of(name, members)]
        if faults:
            raise ConfigurationError(faults)
        document = {"current": contexts.current, "contexts": contexts.named}
        replace_file(path, json.dumps(document, indent=2, sort_keys=True).encode() + b"\n", mode=0o600)
    finally:
        os.close(lock)
