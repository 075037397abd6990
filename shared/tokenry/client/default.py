"""Which source of tokens a program uses when it is not told: the first one that is configured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenry.client.credentials import CLIENT_CREDENTIALS, PASSWORD, MountedClient, check_file_name
from tokenry.client.token_source import ClientCredentials, FileTokenSource, StaticTokenSource
from tokenry.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenry.client.access_token import TokenSource


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
    3. `CREDENTIALS_DIR` with `<name>-client-id` and `<name>-client-secret`: `ClientCredentials`.
    4. `CREDENTIALS_DIR` with `client.json` (and `user.json`), or `TOKENRY_CLIENT_ID`: `ClientCredentials`.

    The first that is configured is used; if it fails, that is raised, and no other one is tried.

    Args:
        scope: Scopes to ask for (3 and 4).
        name: Name of the token (1 and 2) or of the client (3).
        environ: In place of the process's environment.
        more: Other arguments of `ClientCredentials`.

    Raises:
        ConfigurationError: None is configured, or one only half.
    """
    environ = os.environ if environ is None else environ
    fixed = _fixed_token(environ.get("OAUTH2_ACCESS_TOKENS", ""), name)
    if fixed is not None:
        return StaticTokenSource(fixed)
    folder = environ.get("CREDENTIALS_DIR")
    if folder and name:
        mounted = Path(folder) / f"{check_file_name(name)}-token-secret"
        if mounted.exists():
            return FileTokenSource(mounted)
        if MountedClient(folder=Path(folder), name=name).exists:
            return ClientCredentials(scope, environ=environ, credentials_name=name, **more)
    if environ.get("TOKENRY_ENDPOINT_SOCKET"):
        raise ConfigurationError(["TOKENRY_ENDPOINT_SOCKET: this version has no agent to take tokens from"])
    if folder and not environ.get("TOKENRY_CLIENT_ID"):
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
