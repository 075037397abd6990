"""
Creating what an issuer reads, in a folder: keys, realms, clients and users.

For the embedded default, tests, and a first start. The issuer itself never writes. Every object is checked by
the reader that will read it before it is written, and written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

import argon2

from tokenry.jose.encoding import b64url_encode
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.sealing import EnvelopeKey
from tokenry_registry.envelope import read_envelope_key
from tokenry_registry.realms import DEFAULT_LIFETIME, ClaimsProfile, TokenType, read_key, read_object
from tokenry_registry.signing_keys import FORMAT_VERSION, KEYS_PREFIX, KeyUse, open_key, read_stored_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

SECRET_BYTES = 32  # 256 bits: enough for the fast hash
_NO_BOUND = 2**31  # the platform's bound is checked by the issuer that reads the object
# RFC 9106 section 4, second recommended option: for where memory is dear.
_ARGON2 = argon2.PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)


def new_secret() -> str:
    """Return a new client secret: 256 random bits in 43 characters that need no encoding anywhere."""
    return secrets.token_urlsafe(SECRET_BYTES)


def hash_secret(secret: str) -> str:
    """Return the stored form of a secret that `new_secret` made: fast, since there is nothing to guess."""
    return "sha256:" + b64url_encode(hashlib.sha256(secret.encode("utf-8")).digest())


def hash_password(password: str) -> str:
    """Return the stored form of a password that a person may have chosen (Argon2id, RFC 9106)."""
    return _ARGON2.hash(password)


def create_envelope_key(path: Path) -> EnvelopeKey:
    """Return the envelope key in the file *path*, made (mode 0600) where there is none yet."""
    if not path.exists():
        _write(path, EnvelopeKey.generate().to_text().encode("ascii") + b"\n")
    return read_envelope_key(path)


def create_signing_key(
    folder: Path,
    envelope_key: EnvelopeKey,
    *,
    publish_at: int,
    activate_at: int,
    retire_at: int,
    use: str = KeyUse.TOKEN,
) -> str:
    """
    Make a signing key below *folder* and return its kid.

    Args:
        folder: Root of the credentials.
        envelope_key: Seals the private half.
        publish_at: Unix seconds at which it enters the JWK Set.
        activate_at: Unix seconds at which it begins to sign.
        retire_at: Unix seconds at which it leaves the JWK Set.
        use: What it may sign.
    """
    private = PrivateKey.generate()
    members = {
        "version": FORMAT_VERSION,
        "kid": private.kid,
        "use": str(use),
        "public_jwk": private.public.to_jwk(),
        "publish_at": publish_at,
        "activate_at": activate_at,
        "retire_at": retire_at,
        "sealed": envelope_key.seal(private.to_pkcs8_der(), kid=private.kid, use=str(use)).to_dict(),
    }
    body = _json(members)
    open_key(read_stored_key(body, kid=private.kid), envelope=envelope_key)
    _write(folder / KEYS_PREFIX / f"{private.kid}.json", body)
    return private.kid


def write_realm(
    folder: Path,
    realm: str,
    *,
    environment: str,
    token_lifetime: int = DEFAULT_LIFETIME,
    claims_profile: str = ClaimsProfile.RFC9068,
    typ: str = TokenType.ACCESS_TOKEN,
    grant_types: Iterable[str] = ("client_credentials",),
    default_scopes: Iterable[str] = (),
    audience: str | None = None,
) -> None:
    """Write the realm *realm* (with or without its leading slash); see `realms.Realm` for the members."""
    members: dict[str, Any] = {
        "realm": _slashed(realm),
        "environment": environment,
        "token_lifetime": token_lifetime,
        "claims_profile": str(claims_profile),
        "typ": str(typ),
        "grant_types": sorted(grant_types),
        "default_scopes": sorted(default_scopes),
    }
    if audience is not None:
        members["audience"] = audience
    _write_object(folder, f"realms/{realm.strip('/')}/realm.json", members, environment=environment)


def write_client(
    folder: Path,
    realm: str,
    client_id: str,
    *,
    hashes: Sequence[str],
    created_at: int,
    scopes: Iterable[str] = (),
    default_scopes: Iterable[str] | None = None,
    audiences: Iterable[str] = (),
    grant_types: Iterable[str] = ("client_credentials",),
    token_lifetime: int | None = None,
    enabled: bool = True,
) -> None:
    """Write a client of *realm* with the stored *hashes* of its secrets; see `realms.Client`."""
    members: dict[str, Any] = {
        "client_id": client_id,
        "secrets": [{"hash": text, "created_at": created_at} for text in hashes],
        "scopes": sorted(scopes),
        "audiences": sorted(audiences),
        "grant_types": sorted(grant_types),
        "enabled": enabled,
    }
    if default_scopes is not None:
        members["default_scopes"] = sorted(default_scopes)
    if token_lifetime is not None:
        members["token_lifetime"] = token_lifetime
    _write_object(folder, f"realms/{realm.strip('/')}/clients/{client_id}.json", members)


def write_user(
    folder: Path,
    realm: str,
    username: str,
    *,
    hashes: Sequence[str],
    created_at: int,
    scopes: Iterable[str] = (),
    clients: Iterable[str] | None = None,
    enabled: bool = True,
) -> None:
    """Write a service user of *realm* with the stored *hashes* of its passwords; see `realms.User`."""
    members: dict[str, Any] = {
        "username": username,
        "password_hashes": [{"hash": text, "created_at": created_at} for text in hashes],
        "scopes": sorted(scopes),
        "enabled": enabled,
    }
    if clients is not None:
        members["clients"] = sorted(clients)
    _write_object(folder, f"realms/{realm.strip('/')}/users/{username}.json", members)


def _write_object(folder: Path, key: str, members: dict[str, Any], *, environment: str = "") -> None:
    body = _json(members)
    read_object(read_key(key), body, environment=environment, max_token_lifetime=_NO_BOUND)
    _write(folder / key, body)


def _slashed(realm: str) -> str:
    return "/" + realm.strip("/")


def _json(members: dict[str, Any]) -> bytes:
    return json.dumps(members, indent=2).encode("utf-8") + b"\n"


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
