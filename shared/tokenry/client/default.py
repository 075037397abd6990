"""Which source of tokens a program uses when it is not told: the first one that is configured."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenry.client.agent import AgentTokenSource
from tokenry.client.credentials import CLIENT_CREDENTIALS, PASSWORD, MountedClient, check_file_name
from tokenry.client.token_source import ClientCredentials, FileTokenSource, StaticTokenSource
from tokenry.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenry.client.access_token import TokenSource


class Kind(Enum):
    """The kinds of sources, in the order in which they are looked for."""

    FIXED = "a fixed token"
    MOUNTED = "a mounted token"
    AGENT = "the agent"
    MOUNTED_CLIENT = "a mounted client"
    CLIENT = "client credentials"


class Choice(NamedTuple):
    """
    Which kind of source the environment configures.

    Attributes:
        kind: The kind.
        why: Which setting decided, for people; no secret.
    """

    kind: Kind
    why: str


def choose(environ: Mapping[str, str], name: str | None = None) -> Choice:
    """
    Return which source `default_source` uses, without making it.

    Raises:
        ConfigurationError: What decides is malformed.
    """
    if _fixed_token(environ.get("OAUTH2_ACCESS_TOKENS", ""), name) is not None:
        return Choice(Kind.FIXED, "OAUTH2_ACCESS_TOKENS is set, and comes before everything else")
    folder = environ.get("CREDENTIALS_DIR")
    if folder and name and (Path(folder) / f"{check_file_name(name)}-token-secret").exists():
        return Choice(Kind.MOUNTED, f"CREDENTIALS_DIR has {name}-token-secret")
    if environ.get("TOKENRY_ENDPOINT_SOCKET"):
        return Choice(Kind.AGENT, "TOKENRY_ENDPOINT_SOCKET is set")
    if folder and name and MountedClient(folder=Path(folder), name=name).exists:
        return Choice(Kind.MOUNTED_CLIENT, f"CREDENTIALS_DIR has {name}-client-id")
    if "TOKENRY_CLIENT_ID" in environ:
        return Choice(Kind.CLIENT, "TOKENRY_CLIENT_ID is set")
    if environ.get("TOKENRY_CLIENT_ASSERTION_FILE"):
        return Choice(Kind.CLIENT, "TOKENRY_CLIENT_ASSERTION_FILE is set")
    if folder:
        return Choice(Kind.CLIENT, "CREDENTIALS_DIR is set")
    return Choice(Kind.CLIENT, "nothing else is configured")


def default_source(
    scope: str | Iterable[str] = (),
    *,
    name: str | None = None,
    environ: Mapping[str, str] | None = None,
    **more: Any,  # noqa: ANN401 -- those of ClientCredentials
) -> TokenSource:
    """
    Return the source of tokens that the environment configures.

    1. `OAUTH2_ACCESS_TOKENS` (`name=token,…`): a fixed token under *name*.
    2. `CREDENTIALS_DIR` with `<name>-token-secret`: a mounted token.
    3. `TOKENRY_ENDPOINT_SOCKET`: tokens from the agent (`tokenry serve agent`) on that socket.
    4. `CREDENTIALS_DIR` with `<name>-client-id` and `<name>-client-secret`: `ClientCredentials`.
    5. `CREDENTIALS_DIR` with `client.json` (and `user.json`), `TOKENRY_CLIENT_ID`, or `TOKENRY_CLIENT_ASSERTION_FILE`
       (the platform's token): `ClientCredentials`.

    The first that is configured is used; if it fails, that is raised, and no other one is tried.

    Args:
        scope: Scopes to ask for (3 to 5).
        name: Name of the token (1 and 2) or of the client (4).
        environ: In place of the process's environment.
        more: Other arguments of `ClientCredentials`.

    Raises:
        ConfigurationError: None is configured, or one only half.
    """
    environ = os.environ if environ is None else environ
    folder = environ.get("CREDENTIALS_DIR")
    kind = choose(environ, name).kind
    if kind is Kind.FIXED:
        return StaticTokenSource(_fixed_token(environ["OAUTH2_ACCESS_TOKENS"], name) or "")
    if kind is Kind.MOUNTED:
        return FileTokenSource(Path(folder or "") / f"{name}-token-secret")
    if kind is Kind.AGENT:
        return AgentTokenSource(environ["TOKENRY_ENDPOINT_SOCKET"], scope, audience=more.get("audience"))
    if kind is Kind.MOUNTED_CLIENT:
        return ClientCredentials(scope, environ=environ, credentials_name=name, **more)
    named = environ.get("TOKENRY_CLIENT_ID") or environ.get("TOKENRY_CLIENT_ASSERTION_FILE")
    if folder and not named:
        with_user = (Path(folder) / "user.json").exists() and not (Path(folder) / "client.json").exists()
        if with_user:
            raise ConfigurationError([f"CREDENTIALS_DIR={folder} has user.json but no client.json"])
    grant = more.pop("grant", CLIENT_CREDENTIALS)
    if grant not in {CLIENT_CREDENTIALS, PASSWORD}:
        raise ConfigurationError([f"grant is {CLIENT_CREDENTIALS} or {PASSWORD}"])
    return ClientCredentials(scope, environ=environ, grant=grant, **more)


def _fixed_token(text: str, name: str | None) -> str | None:
    """Return the token under *name*, or the only one when no name is asked for."""
    if not text:
        return None
    tokens = {}
    for pair in text.split(","):
        key, equals, token = pair.strip().partition("=")
        if not equals or not key or not token:
            raise ConfigurationError(["OAUTH2_ACCESS_TOKENS is a list name=token, separated by commas"])
        tokens[key] = token
    if name is not None:
        return tokens.get(name)
    if len(tokens) > 1:
        raise ConfigurationError(["OAUTH2_ACCESS_TOKENS has several tokens: say which by name="])
    return next(iter(tokens.values()))
