"""Which platform a command talks to, and as whom: a context by name, a file of `tokenry dev`, or the environment."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ConfigurationError
from tokenry.secret import Secret
from tokenry_cli.contexts import NAME, contexts_file, read_contexts
from tokenry_cli.invocation import current

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE: Final = "-"  # as the name of a context: the environment alone
MAX_SECRET_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """
    A platform and an identity on it.

    Attributes:
        issuer: Issuer identifier, also the base URL of its endpoints.
        tokeninfo: Base URL of the token info service, if known.
        revocation: Base URL of the revocation service, if known.
        admin: Base URL of the administration, if known.
        console: Base URL of the console, if known.
        realm: Realm to ask tokens of.
        client_id: Whom the command acts as; None for commands that need nobody.
        client_secret: Their secret.
        ca_file: Certificates of the authority that the services' certificates are of; None: the system's.
        name: Its name, where it has one.
        environment: Environment, such as production.
        protected: Whether changes need the name typed, or `--yes-on NAME`.
    """

    issuer: str
    tokeninfo: str | None = None
    revocation: str | None = None
    admin: str | None = None
    console: str | None = None
    realm: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = field(default=None, repr=False)
    ca_file: Path | None = None
    name: str | None = None
    environment: str | None = None
    protected: bool = False

    def credentials(self) -> tuple[str, Secret]:
        """
        Return the identity.

        Raises:
            ConfigurationError: There is none.
        """
        if self.client_id is None or self.client_secret is None:
            raise ConfigurationError(
                ["no identity: set TOKENRY_CLIENT_ID and TOKENRY_CLIENT_SECRET, or --context NAME"]
            )
        return self.client_id, self.client_secret

    def revocation_url(self) -> str:
        """
        Return the base URL of the revocation service.

        Raises:
            ConfigurationError: It is not set.
        """
        return self._url(self.revocation, "revocation service", "TOKENRY_REVOCATION_URL")

    def tokeninfo_url(self) -> str:
        """
        Return the base URL of the token info service.

        Raises:
            ConfigurationError: It is not set.
        """
        return self._url(self.tokeninfo, "token info service", "TOKENRY_TOKENINFO_URL")

    def _url(self, url: str | None, what: str, setting: str) -> str:
        if url is None:
            raise ConfigurationError([f"no {what}: set {setting}, or --context NAME"])
        return url


@dataclass(frozen=True, slots=True)
class Known:
    """
    What is known before the environment has its say.

    Attributes:
        members: Of the context or file.
        name: Of the context, if it is one.
        source: Where it is from, for errors.
    """

    members: Mapping[str, Any] = field(default_factory=dict, repr=False)
    name: str | None = None
    source: str = ""


def find_context(environ: Mapping[str, str], given: str | Path | None = None) -> Known:
    """
    Return the context in use: the one that is *given*, TOKENRY_CONTEXT, or the current one; or nothing.

    Raises:
        ConfigurationError: There is no such context or file, or it cannot be read.
    """
    wanted = str(given) if given else environ.get("TOKENRY_CONTEXT") or ""
    if wanted == NONE:
        return Known()
    contexts_path = contexts_file(environ)
    contexts = read_contexts(contexts_path)
    # A name wins over a file that happens to be called so: nobody chooses a context by leaving a file about.
    name = wanted if wanted in contexts.named else contexts.current if not wanted else None
    if name is not None:
        return Known(contexts.get(name), name, f"the context {name}")
    if not wanted:
        return Known()
    if NAME.fullmatch(wanted) and not Path(wanted).exists():
        contexts.get(wanted)
    return Known(_read(Path(wanted)), None, f"the file {wanted}")


def load_context(environ: Mapping[str, str], *, file: str | Path | None = None, identity: str = "client") -> Context:
    """
    Return where and as whom a command acts; single settings of the environment win over the context.

    1. The context: *file*, TOKENRY_CONTEXT, or the current one.
    2. An issuer of the environment has to be the context's: a secret goes to no other issuer than its own.
    3. The identity is from one place: client and secret of the environment, or those of the context.

    Args:
        environ: TOKENRY_ISSUER, TOKENRY_TOKENINFO_URL, TOKENRY_REVOCATION_URL, TOKENRY_ADMIN_URL, TOKENRY_REALM,
            TOKENRY_CLIENT_ID, TOKENRY_CLIENT_SECRET (or _FILE), and TOKENRY_CONTEXT for the context.
        file: Name of a context, or a file as `tokenry dev --ready-file` writes it.
        identity: Which identity of such a file: `client` or `admin`.

    Raises:
        ConfigurationError: There is no such context, no issuer, or what is there does not go together.
    """
    found = find_context(environ, file)
    known = found.members
    issuer = _issuer(environ, found)
    client_id, secret = _identity(environ, found, identity)
    if found.name is not None:
        current().context_name = found.name
    ca_file = known.get("ca_file") if found.name is not None else None
    return Context(
        issuer=issuer,
        tokeninfo=environ.get("TOKENRY_TOKENINFO_URL") or known.get("tokeninfo"),
        revocation=environ.get("TOKENRY_REVOCATION_URL") or known.get("revocation"),
        admin=environ.get("TOKENRY_ADMIN_URL") or known.get("admin"),
        console=known.get("console"),
        realm=environ.get("TOKENRY_REALM") or known.get("realm"),
        client_id=client_id,
        client_secret=secret,
        ca_file=Path(ca_file) if ca_file else None,
        name=found.name,
        environment=known.get("environment"),
        protected=found.name is not None and bool(known.get("protected")),
    )


def _issuer(environ: Mapping[str, str], found: Known) -> str:
    own, theirs = (environ.get("TOKENRY_ISSUER") or "").rstrip("/"), str(found.members.get("issuer") or "").rstrip("/")
    if own and theirs and own != theirs:
        fault = (
            f"TOKENRY_ISSUER is {own}, and the issuer of {found.source} is {theirs}: a secret of one must not go to "
            "the other; unset TOKENRY_ISSUER, or use another context (--context - for none)"
        )
        raise ConfigurationError([fault])
    if not (own or theirs):
        raise ConfigurationError(
            ["no issuer: tokenry context add, set TOKENRY_ISSUER, or --context FILE as written by tokenry dev"]
        )
    return own or theirs


def _identity(environ: Mapping[str, str], found: Known, identity: str) -> tuple[str | None, Secret | None]:
    client_id, secret = environ.get("TOKENRY_CLIENT_ID") or None, _secret(environ)
    if client_id and secret:
        return client_id, Secret(secret)
    person = _person(found, identity)
    theirs = person.get("client_id")
    if theirs and ((client_id and client_id != theirs) or secret):
        fault = (
            f"the identity is half of the environment and half of {found.source}: set both TOKENRY_CLIENT_ID and "
            "TOKENRY_CLIENT_SECRET_FILE, or neither"
        )
        raise ConfigurationError([fault])
    held = secret or person.get("client_secret")
    if held is None and (path := person.get("client_secret_file")):
        held = _secret_of(Path(path), "client_secret_file")
    return client_id or theirs, Secret(held) if held else None


def _person(found: Known, identity: str) -> Mapping[str, Any]:
    if found.name is not None:
        return found.members
    person = found.members.get(identity)
    return person if isinstance(person, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError([f"cannot read the context file {path}: {error.strerror}"]) from None
    except (ValueError, RecursionError):
        raise ConfigurationError([f"the context file {path} is not JSON"]) from None
    if not isinstance(document, dict):
        raise ConfigurationError([f"the context file {path} is not a JSON object"])
    return document


def _secret(environ: Mapping[str, str]) -> str | None:
    if file := environ.get("TOKENRY_CLIENT_SECRET_FILE"):
        return _secret_of(Path(file), "TOKENRY_CLIENT_SECRET_FILE")
    return environ.get("TOKENRY_CLIENT_SECRET") or None


def _secret_of(path: Path, setting: str) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SECRET_BYTES + 1).decode("utf-8").strip()
    except OSError as error:
        raise ConfigurationError([f"cannot read {setting}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([f"{setting} names no text"]) from None
    if not text or len(text) > MAX_SECRET_BYTES:
        raise ConfigurationError([f"{setting} names a file without a secret"])
    return text
