"""The settings of administration: those of the registry, which the command line shares, and those of the service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from tokenry.revocation.lists import LARGEST_MAX_ENTRIES, MAX_ENTRIES
from tokenry.serving.settings import Duration, Env, HttpUrl, Names, ServiceSettings
from tokenry_admin.key_settings import KeySettings
from tokenry_admin.secret_rotation import DEFAULT_OVERLAP, MIN_OVERLAP
from tokenry_registry.location import credentials_faults

LONGEST_LIFETIME = 24 * 3600.0  # seconds: as in the issuer


class RegistrySettings(ServiceSettings):
    """Where the registry is, and how secrets in it are rotated."""

    own_prefixes: ClassVar[tuple[str, ...]] = ("TOKENRY_CREDENTIALS_", "TOKENRY_APPLICATION_", "TOKENRY_ROTATION_")

    credentials_url: Annotated[str, Env("TOKENRY_CREDENTIALS_URL")] = Field(
        description="Where credentials and keys are kept: s3://bucket/prefix/ or file:///folder/. The issuer's."
    )
    max_token_lifetime: Duration = Field(
        3600.0,
        ge=10,
        le=LONGEST_LIFETIME,
        description="Seconds that any token may live at most; what asks for more is not written. The issuer's.",
    )
    application_files: Names = Field(
        (),
        description="Where applications get their client.json and user.json: s3://bucket/prefix/ or file:///folder/, "
        "several separated by commas, each of which gets every file. Default: nowhere, and whoever rotates a secret "
        "hands it over.",
    )
    rotation_overlap: Duration = Field(
        float(DEFAULT_OVERLAP),
        ge=MIN_OVERLAP,
        description="Seconds for which old secrets work on after the new one was delivered. Larger: a stolen one "
        "lives longer; smaller than an application takes to read its file again: an outage of that application.",
    )
    issuer_metrics_urls: Names = Field(
        (),
        description="Base URL at which each single issuer process answers /metrics, not that of a balancer. Rotation "
        "then waits until each has read the new hash. Default: it waits 75 s, which is enough for issuers that "
        "reach the registry.",
    )
    s3_endpoint_url: HttpUrl | None = Field(
        None, description="Another S3 server than that of AWS. Default: what boto3 finds."
    )
    s3_region: str | None = Field(None, description="Region of the buckets. Default: what boto3 finds.")

    def contradictions(self) -> Iterator[str]:
        """Yield a sentence for each rule between settings that is broken."""
        yield from super().contradictions()
        yield from credentials_faults(self.credentials_url)
        for url in self.application_files:
            if any(credentials_faults(url)):
                yield "TOKENRY_APPLICATION_FILES: write s3://bucket/prefix/ or file:///folder/"
            if url.rstrip("/") == self.credentials_url.rstrip("/"):
                yield "TOKENRY_APPLICATION_FILES: this is the registry itself, which no application may read"
        for url in self.issuer_metrics_urls:
            if urlsplit(url).scheme not in {"http", "https"}:
                yield "TOKENRY_ISSUER_METRICS_URLS: write URLs such as http://10.0.0.7:9090"
        if self.max_token_lifetime != int(self.max_token_lifetime):
            yield "TOKENRY_MAX_TOKEN_LIFETIME: write whole seconds"


class Settings(RegistrySettings, KeySettings):
    """Settings of the service."""

    issuer: Annotated[HttpUrl, Env("TOKENRY_ISSUER")] = Field(
        description="Issuer identifier, such as https://issuer.example.org: whose tokens callers show."
    )
    revocation_url: Annotated[HttpUrl | None, Env("TOKENRY_REVOCATION_URL")] = Field(
        None,
        description="Base URL of the revocation service, which is asked with the caller's own token when a client is "
        "disabled and its tokens are to be revoked. Default: that is refused.",
    )
    raw_sync: bool = Field(
        False,
        description="Offer Plan B's administration (/raw-sync/…) to callers with registry.admin: on or off.",
    )
    requests_per_minute: float = Field(
        300.0,
        gt=0,
        description="Requests of one caller a minute. Larger: one caller can keep the store busier.",
    )
    accept_untyped_tokens: bool = Field(
        False,
        description="Accept callers' tokens of type JWT, for realms that issue no at+jwt. Then other JWTs "
        "of the issuer could be taken for access tokens.",
    )
    list_max_entries: int = Field(
        MAX_ENTRIES,
        ge=1,
        le=LARGEST_MAX_ENTRIES,
        description="Entries of the revocation list at most; a longer one is refused whole, and the last good one gets "
        "older. As in the revocation service.",
    )
    state_folder: Path | None = Field(
        None, description="Folder that keeps the revocation list over a restart. Default: none."
    )
