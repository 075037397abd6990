"""The metrics of the services, as their composition roots make them: nothing is started or connected to."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry

from tokenry.serving.keys import METRICS
from tokenry_admin import __main__ as admin
from tokenry_admin.settings import Settings as AdminSettings
from tokenry_issuer import __main__ as issuer
from tokenry_issuer.settings import Settings as IssuerSettings
from tokenry_registry import bootstrap
from tokenry_revocation import __main__ as revocation
from tokenry_tokeninfo import __main__ as tokeninfo
from tokenry_tokeninfo.settings import Settings as TokeninfoSettings

_URL = "http://127.0.0.1:1"


def registries(folder: Path) -> Mapping[str, CollectorRegistry]:
    """Return the registry of each service; *folder* gets an envelope key."""
    envelope_key = folder / "envelope.key"
    bootstrap.create_envelope_key(envelope_key)
    common = {"TOKENRY_ISSUER": _URL, "TOKENRY_REVOCATION_URL": _URL}
    own = {
        "TOKENRY_CREDENTIALS_URL": folder.as_uri() + "/",
        "TOKENRY_ENVELOPE_KEY_FILE": str(envelope_key),
        "TOKENRY_STORE_URL": f"sqlite:///{folder}/store.db",
        "TOKENRY_REVOCATION_HASHING_SALT": "a-salt-of-the-tests-only",
    }

    async def make() -> Mapping[str, CollectorRegistry]:
        roots = {
            "issuer": issuer.compose(IssuerSettings.from_environment(common | _only(own, "CREDENTIALS", "ENVELOPE"))),
            "tokeninfo": tokeninfo.compose(TokeninfoSettings.from_environment(common)),
            "revocation": revocation.compose(
                revocation.CheckedSettings.from_environment({"TOKENRY_ISSUER": _URL, **_only(own, "STORE", "REVO")})
            ),
            "admin": admin.compose(
                AdminSettings.from_environment({"TOKENRY_ISSUER": _URL, **_only(own, "CREDENTIALS", "ENVELOPE")})
            ),
        }
        return {name: root()[METRICS].registry for name, root in roots.items()}

    return asyncio.run(make())


def _only(settings: Mapping[str, str], *kinds: str) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name.startswith(tuple(f"TOKENRY_{k}" for k in kinds))}


def sample_names(registry: CollectorRegistry) -> set[str]:
    """Return the names that the families of *registry* have when they are scraped, also those without a sample yet."""
    suffixes = {"counter": ("_total",), "info": ("_info",), "histogram": ("_bucket", "_count", "_sum")}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes.get(family.type, ("",))}
