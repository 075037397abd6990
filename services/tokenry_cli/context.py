"""Which platform a command talks to, and as whom: from the environment or from `tokenry dev`'s ready file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenry.errors import ConfigurationError
from tokenry.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """
    A platform and an identity on it.

    Attributes:
        issuer: Issuer identifier, also the base URL of its endpoints.
        tokeninfo: Base URL of the token info service, if known.
        revocation: Base URL of the revocation service, if known.
        realm: Realm to ask tokens of.
        client_id: Whom the command acts as; None for commands that need nobody.
        client_secret: Their secret.
    """

    issuer: str
    tokeninfo: str | None = None
    revocation: str | None = None
    realm: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = field(default=None, repr=False)

    def credentials(self) -> tuple[str, Secret]:
        """
        Return the identity.

        Raises:
            ConfigurationError: There is none.
        """
        if self.client_id is None or self.client_secret is None:
            raise ConfigurationError(
                ["no identity: set TOKENRY_CLIENT_ID and TOKENRY_CLIENT_SECRET, or --context FILE"]
            )
        return self.client_id, self.client_secret

    def revocation_url(self) -> str:
        """
        Return the base URL of the revocation service.

        Raises:
            ConfigurationError: It is not set.
        """
        if self.revocation is None:
            raise ConfigurationError(["no revocation service: set TOKENRY_REVOCATION_URL, or --context FILE"])
        return self.revocation


def load_context(environ: Mapping[str, str], *, file: Path | None = None, identity: str = "client") -> Context:
    """
    Return where and as whom a command acts; single settings of the environment win over the file.

    Args:
        environ: TOKENRY_ISSUER, TOKENRY_TOKENINFO_URL, TOKENRY_REVOCATION_URL, TOKENRY_REALM,
            TOKENRY_CLIENT_ID, TOKENRY_CLIENT_SECRET (or _FILE), and TOKENRY_CONTEXT for the file.
        file: A file as `tokenry dev --ready-file` writes it.
        identity: Which identity of the file: `client` or `admin`.

    Raises:
        ConfigurationError: The file cannot be read, or there is no issuer.
    """
    path = file or (Path(environ["TOKENRY_CONTEXT"]) if environ.get("TOKENRY_CONTEXT") else None)
    known: dict[str, Any] = {} if path is None else _read(path)
    person: dict[str, Any] = known.get(identity) or {}
    issuer = environ.get("TOKENRY_ISSUER") or known.get("issuer")
    if not issuer:
        raise ConfigurationError(["no issuer: set TOKENRY_ISSUER, or --context FILE as written by tokenry dev"])
    secret = _secret(environ) or person.get("client_secret")
    return Context(
        issuer=str(issuer).rstrip("/"),
        tokeninfo=environ.get("TOKENRY_TOKENINFO_URL") or known.get("tokeninfo"),
        revocation=environ.get("TOKENRY_REVOCATION_URL") or known.get("revocation"),
        realm=environ.get("TOKENRY_REALM") or known.get("realm"),
        client_id=environ.get("TOKENRY_CLIENT_ID") or person.get("client_id"),
        client_secret=Secret(secret) if secret else None,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError([f"cannot read the context file {path}: {error.strerror}"]) from None
    except ValueError:
        raise ConfigurationError([f"the context file {path} is not JSON"]) from None
    if not isinstance(document, dict):
        raise ConfigurationError([f"the context file {path} is not a JSON object"])
    return document


def _secret(environ: Mapping[str, str]) -> str | None:
    if file := environ.get("TOKENRY_CLIENT_SECRET_FILE"):
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise ConfigurationError([f"cannot read TOKENRY_CLIENT_SECRET_FILE: {error.strerror}"]) from None
    return environ.get("TOKENRY_CLIENT_SECRET")
