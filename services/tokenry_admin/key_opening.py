"""Opening the registry, and what acts on its keys, from settings: the one of these modules that knows adapters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tokenry.jose.sealing import EnvelopeKey
from tokenry_admin.key_actions import KeyActions
from tokenry_admin.key_custody import ManagedCustody, SealedCustody
from tokenry_admin.key_store import KeyStore
from tokenry_registry.adapters.directory import DirectoryStore
from tokenry_registry.adapters.kms import AwsKeyManagement
from tokenry_registry.adapters.kms import make_client as make_kms_client
from tokenry_registry.adapters.s3 import S3Store
from tokenry_registry.adapters.s3 import make_client as make_s3_client
from tokenry_registry.envelope import read_envelope_key
from tokenry_registry.location import bucket_of, folder_of
from tokenry_registry.signing_keys import KeyUse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tokenry.clock import Clock
    from tokenry.secret import Secret
    from tokenry_admin.key_custody import Custody
    from tokenry_admin.key_settings import KeySettings
    from tokenry_admin.settings import RegistrySettings
    from tokenry_registry.ports import WritableStore


def open_store(settings: KeySettings | RegistrySettings) -> WritableStore:
    """Return the place of credentials and keys; close it after use. Nothing is connected yet."""
    if urlsplit(settings.credentials_url).scheme == "file":
        return DirectoryStore(folder_of(settings.credentials_url))
    bucket, prefix = bucket_of(settings.credentials_url)
    client = partial(make_s3_client, endpoint_url=settings.s3_endpoint_url, region=settings.s3_region)
    return S3Store(bucket, prefix=prefix, client=client)


def custodies(settings: KeySettings, *, kms: bool | None = None) -> dict[KeyUse, Custody]:
    """
    Return who makes keys for each use; *kms* (where given) overrides the setting for tokens.

    Raises:
        ConfigurationError: An envelope key cannot be used.
    """
    found: dict[KeyUse, Custody] = {}
    if settings.key_custody == "kms" if kms is None else kms:
        found[KeyUse.TOKEN] = ManagedCustody(
            AwsKeyManagement(
                partial(make_kms_client, endpoint_url=settings.kms_endpoint_url, region=settings.kms_region)
            )
        )
    elif settings.envelope_key_file is not None:
        found[KeyUse.TOKEN] = SealedCustody(read_envelope_key(settings.envelope_key_file))
    for use, secret in (
        (KeyUse.LIST, settings.list_envelope_key),
        (KeyUse.INTROSPECTION, settings.introspection_envelope_key),
    ):
        if secret is not None:
            found[use] = SealedCustody(_envelope(secret))
    return found


def open_keys(
    settings: KeySettings,
    store: WritableStore,
    *,
    clock: Clock,
    kms: bool | None = None,
    revoked: Callable[[Collection[str]], Collection[str]] = lambda _kids: (),
) -> KeyActions:
    """
    Return what acts on the keys in *store*.

    Args:
        settings: Checked.
        store: From `open_store`, or the caller's own.
        clock: Where the time comes from.
        kms: Overrides where new keys for tokens are held.
        revoked: Returns which of some kids are revoked.

    Raises:
        ConfigurationError: An envelope key cannot be used.
    """
    keys = KeyStore(store, custodies(settings, kms=kms))
    return KeyActions(keys, settings.policies(), clock=clock, revoked=revoked)


def _envelope(secret: Secret) -> EnvelopeKey:
    return EnvelopeKey.from_text(secret.reveal())
