"""
The functions and environment names of python-tokens (`stups-tokens`), for code that is not to be touched.

    import tokenry.compat.tokens as tokens

    tokens.configure()                    # OAUTH2_ACCESS_TOKEN_URL, CREDENTIALS_DIR, OAUTH2_ACCESS_TOKENS
    tokens.manage("example", ["read", "write"])
    tokens.start()
    tokens.get("example")

As there: fixed tokens of the environment, mounted `<name>-token-secret` files before the issuer, the password
grant with `user.json` and `client.json`, an old token for 60 s after its end while the issuer is away, and
`ignore_expiration`.

Different on purpose: a token is renewed in the background from three quarters of its life (not on every call
when it lives for 20 minutes or less), by one request for all threads; while the issuer is away callers do not
each wait for it; passwords are not sent unencrypted to other machines unless `configure(allow_plain_http=True)`
says so; failures of the request are `InvalidTokenResponse` and not exceptions of requests.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Final

from tokenry.client.credentials import PASSWORD, CredentialsFolder, check_file_name, read_secret_text
from tokenry.client.token_source import ClientCredentials
from tokenry.errors import ConfigurationError as _TokenryConfigurationError
from tokenry.errors import TokenFetchError, TokenryError
from tokenry.http.forking import renew_after_fork

logger = logging.getLogger("tokens")

ONE_YEAR: Final = 3600 * 24 * 365
EXPIRATION_TOLERANCE_SECS: Final = 60
FILE_SECONDS: Final = 120

CONFIG: dict[str, Any] = {
    "url": os.environ.get("OAUTH2_ACCESS_TOKEN_URL", os.environ.get("OAUTH_ACCESS_TOKEN_URL")),
    "dir": os.environ.get("CREDENTIALS_DIR", ""),
    "from_file_only": False,
    "allow_plain_http": False,
}
TOKENS: dict[str, dict[str, Any]] = {}


class ConfigurationError(TokenryError):
    """The settings do not suffice."""

    def __init__(self, msg: str) -> None:
        """Say what is missing."""
        self.msg = msg
        super().__init__(f"Configuration error: {msg}")


class InvalidCredentialsError(TokenryError):
    """The files with the credentials, or the token, cannot be used."""

    def __init__(self, msg: str) -> None:
        """Say which."""
        self.msg = msg
        super().__init__(f"Invalid OAuth credentials: {msg}")


class InvalidTokenResponse(TokenFetchError):
    """The issuer gave no token."""

    def __init__(self, msg: str, *, error: str | None = None, retryable: bool = True) -> None:
        """Say why."""
        self.msg = msg
        super().__init__(f"Invalid token response: {msg}", error=error, retryable=retryable)


class _Sources:
    """The sources behind the managed tokens, one for each name and configuration."""

    def __init__(self) -> None:
        self.after_fork()
        self._by_name: dict[str, tuple[object, ClientCredentials]] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Take a lock of the child's own."""
        self.lock = threading.RLock()

    def of(self, name: str, scopes: tuple[str, ...]) -> ClientCredentials:
        """Return the source for *name*, made anew when the configuration has changed."""
        url, folder, plain = CONFIG.get("url"), CONFIG.get("dir"), bool(CONFIG.get("allow_plain_http"))
        if not url:
            raise ConfigurationError(
                "Missing OAuth access token URL. Either set OAUTH2_ACCESS_TOKEN_URL or use tokens.configure(url=..)."
            )
        key = (url, folder, plain, scopes)
        with self.lock:
            known = self._by_name.get(name)
            if known is None or known[0] != key:
                known = (key, _source(url, folder, scopes, allow_plain_http=plain))
                self._by_name[name] = known
            return known[1]

    def forget(self, name: str) -> None:
        """Drop the source of *name*."""
        with self.lock:
            self._by_name.pop(name, None)


def _source(url: str, folder: str | None, scopes: tuple[str, ...], *, allow_plain_http: bool) -> ClientCredentials:
    try:
        return ClientCredentials(
            scopes,
            token_url=url,
            credentials_dir=folder or ".",
            grant=PASSWORD,
            allow_plain_http=allow_plain_http,
            environ={},
        )
    except _TokenryConfigurationError as error:
        raise ConfigurationError(str(error)) from None


_sources = _Sources()


def init_fixed_tokens_from_env() -> None:
    """Take the tokens of `OAUTH2_ACCESS_TOKENS` (`name=token,…`)."""
    for part in filter(None, os.environ.get("OAUTH2_ACCESS_TOKENS", "").split(",")):
        key, _, value = part.partition("=")
        logger.info('Using fixed access token "%s"..', key)
        TOKENS[key] = {"access_token": value, "expires_at": time.time() + ONE_YEAR, "fixed": True}


def configure(**kwargs: Any) -> None:  # noqa: ANN401 -- url, dir, from_file_only and whatever old code passes
    """Set `url`, `dir`, `from_file_only`, `allow_plain_http`; the timeouts of python-tokens are taken and not used."""
    CONFIG.update(kwargs)


def manage(token_name: str, scopes: list[str] | None = None, ignore_expiration: bool = False) -> None:  # noqa: FBT001, FBT002 -- the original's signature
    """
    Declare a token.

    Args:
        token_name: Its name for `get`.
        scopes: Scopes to ask for.
        ignore_expiration: Give the old token, for ever, while there is no new one.
    """
    TOKENS[token_name] = {"scopes": scopes or [], "ignore_expiration": ignore_expiration}
    _sources.forget(token_name)
    init_fixed_tokens_from_env()


def start() -> None:
    """Do nothing, as there."""


def get(token_name: str) -> str:
    """
    Return the token that was declared under *token_name*.

    Raises:
        KeyError: None was.
        ConfigurationError: No URL is set.
        InvalidCredentialsError: The files cannot be used.
        InvalidTokenResponse: The issuer gave no token, and there is no old one to go on with.
    """
    token = TOKENS[token_name]
    if token.get("fixed"):
        return str(token["access_token"])
    try:
        refresh(token_name)
    except TokenryError as error:
        if not _may_still_be_used(token):
            raise
        logger.warning('Failed to refresh access token "%s" (the old one is used): %s', token_name, error)
    return str(token["access_token"])


def _may_still_be_used(token: dict[str, Any]) -> bool:
    if not token.get("access_token"):
        return False
    return bool(token.get("ignore_expiration")) or time.time() < token["expires_at"] + EXPIRATION_TOLERANCE_SECS


def refresh(token_name: str) -> dict[str, Any]:
    """Bring the entry of *token_name* in `TOKENS` up to date; asks the issuer only when its token gets old."""
    token = TOKENS[token_name]
    folder = CONFIG.get("dir") or ""
    mounted = read_token_from_file(folder, token_name)
    if mounted is not None:
        token.update(mounted)
        return token
    if CONFIG.get("from_file_only"):
        raise InvalidCredentialsError(f'Failed to read token "{token_name}" from {folder}.')
    source = _sources.of(token_name, tuple(token.get("scopes") or ()))
    if source.expires_at is None:
        _check_credentials(folder)
    try:
        fresh = source.get()
    except TokenFetchError as error:
        raise InvalidTokenResponse(str(error), error=error.error, retryable=error.retryable) from None
    token.update(access_token=fresh.value, expires_at=fresh.expires_at)
    return token


def read_token_from_file(path: str, token_name: str) -> dict[str, Any] | None:
    """Return the mounted token, or None where there is no such file."""
    file = Path(path) / f"{check_file_name(token_name)}-token-secret"
    if not file.exists():
        return None
    try:
        return {"access_token": read_secret_text(file), "expires_at": time.time() + FILE_SECONDS}
    except TokenFetchError as error:
        raise InvalidCredentialsError(str(error)) from None


def _check_credentials(folder: str) -> None:
    try:
        CredentialsFolder(folder=Path(folder or "."), with_user=True).read()
    except TokenFetchError as error:
        raise InvalidCredentialsError(str(error)) from None


__all__ = [
    "CONFIG",
    "TOKENS",
    "ConfigurationError",
    "InvalidCredentialsError",
    "InvalidTokenResponse",
    "configure",
    "get",
    "manage",
    "refresh",
    "start",
]
