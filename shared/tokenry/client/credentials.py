"""What a client authenticates with, and where it is found; read anew for each request, so that it may rotate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from tokenry.errors import ConfigurationError, ProtocolError, TokenFetchError
from tokenry.jose.encoding import parse_json_object
from tokenry.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.jose.jwk import PrivateKey

MAX_FILE_BYTES: Final = 64 * 1024
CLIENT_CREDENTIALS: Final = "client_credentials"
PASSWORD: Final = "password"  # noqa: S105 -- the name of a grant
_NOTHING_CONFIGURED: Final = (
    "no client credentials: set TOKENRY_CLIENT_ID and TOKENRY_CLIENT_SECRET (or _FILE) or TOKENRY_CLIENT_KEY_FILE, or"
    " TOKENRY_CLIENT_ASSERTION_FILE to the platform's token, or"
    " CREDENTIALS_DIR to a folder with client.json"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecrets:
    """
    A client's identity, and its user's where the password grant is used.

    Attributes:
        client_id: Client identifier.
        client_secret: Its secret.
        username: Name of the application's service user.
        password: Its password.
    """

    client_id: str
    client_secret: Secret
    username: str | None = None
    password: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """
    A client's identity, proved by signing (`private_key_jwt`): nothing secret leaves the program.

    Attributes:
        client_id: Client identifier.
        key: The key whose public half is registered with the client, under its thumbprint.
    """

    client_id: str
    key: PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAssertion:
    """
    A client's identity as somebody else vouches for it: the platform that the program runs on.

    Attributes:
        client_id: Client identifier, where it is known; the assertion tells it, too.
        assertion: A JWT that the issuer trusts (RFC 7523).
    """

    client_id: str | None
    assertion: Secret


Identity = ClientSecrets | ClientKey | ClientAssertion


class Credentials(Protocol):
    """Where the secrets come from."""

    @property
    def description(self) -> str:
        """Where they come from, for errors and for people; no secret."""
        ...

    def read(self) -> Identity:
        """
        Return the secrets as they are now.

        Raises:
            TokenFetchError: They cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class FixedCredentials:
    """Secrets that were given to the program."""

    secrets: Identity
    description: str

    def read(self) -> Identity:
        """Return the secrets."""
        return self.secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """
    A client id, and a file with nothing but its secret.

    Attributes:
        client_id: Client identifier.
        path: The file.
    """

    client_id: str
    path: Path

    @property
    def description(self) -> str:
        """Where they come from."""
        return f"TOKENRY_CLIENT_SECRET_FILE={self.path}"

    def read(self) -> ClientSecrets:
        """Return the secrets as they are now; raises TokenFetchError if they cannot be read."""
        secret = _decoded(_read(self.path), self.path).strip()
        if not secret:
            raise _unreadable(self.path, "it is empty")
        return ClientSecrets(client_id=self.client_id, client_secret=Secret(secret))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """
    A client id, and a PEM file with the private key that it signs with, replaced from outside on rotation.

    Attributes:
        client_id: Client identifier.
        path: The file.
    """

    client_id: str
    path: Path

    @property
    def description(self) -> str:
        """Where they come from."""
        return f"TOKENRY_CLIENT_KEY_FILE={self.path}"

    def read(self) -> ClientKey:
        """Return the key as it is now; raises TokenFetchError if it cannot be read."""
        from tokenry.jose.jwk import PrivateKey  # only who signs loads the cryptography

        try:
            key = PrivateKey.from_pem(_read(self.path))
        except ProtocolError as error:
            raise _unreadable(self.path, f"{error}; write a P-256 key as PEM") from None
        return ClientKey(client_id=self.client_id, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionFile:
    """
    A file with the token of the platform, such as Kubernetes' projected service account token, which it replaces.

    Attributes:
        path: The file.
        client_id: Client identifier, where it is to be told.
    """

    path: Path
    client_id: str | None = None

    @property
    def description(self) -> str:
        """Where they come from."""
        return f"TOKENRY_CLIENT_ASSERTION_FILE={self.path}"

    def read(self) -> ClientAssertion:
        """Return the token as it is now; raises TokenFetchError if it cannot be read."""
        return ClientAssertion(client_id=self.client_id, assertion=Secret(read_secret_text(self.path)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsFolder:
    """
    A folder with `client.json`, and `user.json` for the password grant, replaced from outside on rotation.

    Attributes:
        folder: The folder (`CREDENTIALS_DIR`).
        with_user: Whether the user is needed.
    """

    folder: Path
    with_user: bool = False

    @property
    def description(self) -> str:
        """Where they come from."""
        return f"CREDENTIALS_DIR={self.folder}"

    def read(self) -> ClientSecrets:
        """Return the secrets as they are now; raises TokenFetchError if they cannot be read."""
        client_id, secret = self._pair("client.json", "client_id", "client_secret")
        if not self.with_user:
            return ClientSecrets(client_id=client_id, client_secret=Secret(secret))
        username, password = self._pair("user.json", "application_username", "application_password")
        return ClientSecrets(
            client_id=client_id,
            client_secret=Secret(secret),
            username=username,
            password=Secret(password),
        )

    def _pair(self, file: str, name: str, secret: str) -> tuple[str, str]:
        path = self.folder / file
        try:
            members = parse_json_object(_read(path))
        except ProtocolError as error:
            raise _unreadable(path, str(error)) from None
        first, second = members.get(name), members.get(secret)
        if not (isinstance(first, str) and first and isinstance(second, str) and second):
            raise _unreadable(path, f"it needs {name} and {secret}, non-empty strings")
        return first, second


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedClient:
    """
    A folder with `<name>-client-id` and `<name>-client-secret`: a Kubernetes Secret as Plan B's platform mounts it.

    Attributes:
        folder: The folder (`CREDENTIALS_DIR`).
        name: The client's name there.
    """

    folder: Path
    name: str

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a name that leads elsewhere."""
        check_file_name(self.name)

    @property
    def description(self) -> str:
        """Where they come from."""
        return f"CREDENTIALS_DIR={self.folder}, {self.name}-client-id"

    @property
    def exists(self) -> bool:
        """Whether the file with the id is there."""
        return (self.folder / f"{self.name}-client-id").exists()

    def read(self) -> ClientSecrets:
        """Return the secrets as they are now; raises TokenFetchError if they cannot be read."""
        client_id = read_secret_text(self.folder / f"{self.name}-client-id")
        secret = read_secret_text(self.folder / f"{self.name}-client-secret")
        return ClientSecrets(client_id=client_id, client_secret=Secret(secret))


def check_file_name(name: str) -> str:
    """Return *name* if it is the first part of a file's name; else raise ConfigurationError."""
    if not name or "/" in name or name.startswith(".") or "\0" in name:
        raise ConfigurationError(["the name of a token or client has no '/' and does not begin with '.'"])
    return name


def find_credentials(
    *,
    environ: Mapping[str, str],
    client_id: str | None,
    client_secret: str | Secret | None,
    folder: Path | str | None,
    grant: str,
    private_key: PrivateKey | Path | str | None = None,
    assertion_file: Path | str | None = None,
    name: str | None = None,
) -> Credentials:
    """
    Return where the secrets come from: the arguments, the environment, or a folder, in this order.

    Raises:
        ConfigurationError: Nothing is configured, or only half of it; all faults are named.
    """
    if assertion_file is not None:
        return _with_assertion(client_id, client_secret or private_key, Path(assertion_file), grant)
    if private_key is not None:
        return _with_key(client_id, client_secret, private_key, grant)
    if client_id is not None or client_secret is not None:
        return _fixed(client_id, client_secret, grant)
    vouched = bool(environ.get("TOKENRY_CLIENT_ASSERTION_FILE"))
    if folder is None and name is None and ("TOKENRY_CLIENT_ID" in environ or vouched):
        return _from_environment(environ, grant)
    chosen = folder if folder is not None else environ.get("CREDENTIALS_DIR")
    if not chosen:
        raise ConfigurationError([_NOTHING_CONFIGURED])
    if name is not None:
        if grant == PASSWORD:
            raise ConfigurationError(["the password grant reads client.json and user.json: give no name"])
        return MountedClient(folder=Path(chosen), name=name)
    return CredentialsFolder(folder=Path(chosen), with_user=grant == PASSWORD)


def _with_key(
    client_id: str | None, client_secret: object, private_key: PrivateKey | Path | str, grant: str
) -> Credentials:
    faults = []
    if not client_id:
        faults.append("private_key needs client_id")
    if client_secret is not None:
        faults.append("give private_key or client_secret, not both")
    if grant == PASSWORD:
        faults.append("the password grant reads client.json and user.json from credentials_dir")
    if faults:
        raise ConfigurationError(faults)
    if isinstance(private_key, str | Path):
        return KeyFile(client_id=client_id or "", path=Path(private_key))
    return FixedCredentials(ClientKey(client_id=client_id or "", key=private_key), "arguments")


def _with_assertion(client_id: str | None, more: object, path: Path, grant: str) -> Credentials:
    faults = []
    if more is not None:
        faults.append("give one of assertion_file, client_secret and private_key")
    if grant == PASSWORD:
        faults.append("the password grant reads client.json and user.json from credentials_dir")
    if faults:
        raise ConfigurationError(faults)
    return AssertionFile(path=path, client_id=client_id)


def _fixed(client_id: str | None, client_secret: str | Secret | None, grant: str) -> Credentials:
    if not client_id or not client_secret:
        raise ConfigurationError(["client_id and client_secret are given together, or not at all"])
    if grant == PASSWORD:
        raise ConfigurationError(["the password grant reads client.json and user.json from credentials_dir"])
    secret = client_secret if isinstance(client_secret, Secret) else Secret(client_secret)
    return FixedCredentials(ClientSecrets(client_id=client_id, client_secret=secret), "arguments")


def _from_environment(environ: Mapping[str, str], grant: str) -> Credentials:
    client_id, secret = environ.get("TOKENRY_CLIENT_ID"), environ.get("TOKENRY_CLIENT_SECRET")
    file, key_file = environ.get("TOKENRY_CLIENT_SECRET_FILE"), environ.get("TOKENRY_CLIENT_KEY_FILE")
    vouched = environ.get("TOKENRY_CLIENT_ASSERTION_FILE")
    faults = []
    if not client_id and (client_id is not None or not vouched):
        faults.append("TOKENRY_CLIENT_ID is empty")
    if sum(map(bool, (secret, file, key_file, vouched))) != 1:
        names = (f"TOKENRY_CLIENT_{name}" for name in ("SECRET_FILE", "KEY_FILE"))
        faults.append(f"set one of TOKENRY_CLIENT_SECRET, {', '.join(names)} and TOKENRY_CLIENT_ASSERTION_FILE")
    if grant == PASSWORD:
        faults.append("the password grant reads client.json and user.json from CREDENTIALS_DIR")
    if faults:
        raise ConfigurationError(faults)
    if vouched:
        return AssertionFile(path=Path(vouched), client_id=client_id)
    name = client_id or ""
    if key_file:
        return KeyFile(client_id=name, path=Path(key_file))
    if file:
        return SecretFile(client_id=name, path=Path(file))
    secrets = ClientSecrets(client_id=name, client_secret=Secret(secret or ""))
    return FixedCredentials(secrets, "TOKENRY_CLIENT_ID")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror or "it cannot be opened") from None
    if len(content) > MAX_FILE_BYTES:
        raise _unreadable(path, "it is larger than 64 KiB")
    return content


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _unreadable(path, "it is not UTF-8") from None


def _unreadable(path: Path, why: str) -> TokenFetchError:
    return TokenFetchError(f"{path} cannot be used: {why}")


def read_secret_text(path: Path) -> str:
    """
    Return the text of a file that holds one secret, without space around it.

    Raises:
        TokenFetchError: It cannot be read, or is empty.
    """
    text = _decoded(_read(path), path).strip()
    if not text:
        raise _unreadable(path, "it is empty")
    return text
