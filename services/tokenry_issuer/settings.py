"""The issuer's settings. Rules between them are checked at start, all at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from tokenry.revocation.lists import LARGEST_MAX_ENTRIES, MAX_ENTRIES
from tokenry.serving.addresses import is_loopback_host
from tokenry.serving.settings import Duration, Env, HttpUrl, Names, Networks, ServiceSettings
from tokenry_registry.key_schedule import announce_time
from tokenry_registry.location import bucket_of, credentials_faults

LONGEST_REFRESH = 60.0  # seconds: within which a deleted client is gone
LONGEST_LIFETIME = 24 * 3600.0  # seconds: longer tokens are what refresh tokens and rotation exist to avoid


class Settings(ServiceSettings):
    """Settings of the issuer."""

    own_prefixes: ClassVar[tuple[str, ...]] = (
        "TOKENRY_ASSERTION_",
        "TOKENRY_CREDENTIALS_",
        "TOKENRY_JWKS_",
        "TOKENRY_KMS_",
        "TOKENRY_S3_",
        "TOKENRY_TRUST_",
    )

    issuer: Annotated[HttpUrl, Env("TOKENRY_ISSUER")] = Field(
        description="The issuer identifier: the https URL in every token and in the metadata, byte for byte."
    )
    credentials_url: Annotated[str, Env("TOKENRY_CREDENTIALS_URL")] = Field(
        description="Where credentials and keys are kept: s3://bucket/prefix/ or file:///folder/."
    )
    envelope_key_file: Annotated[Path, Env("TOKENRY_ENVELOPE_KEY_FILE")] = Field(
        description="File (mode 0600, or 0440 where a secret is handed over so) with the envelope key that seals the "
        "signing keys."
    )
    revocation_url: Annotated[HttpUrl | None, Env("TOKENRY_REVOCATION_URL")] = Field(
        None,
        description="Base URL of the revocation service; its list decides what must not be issued. "
        "Default: none, and nothing in force is looked at.",
    )
    revocation_read_scope: str | None = Field(
        None,
        pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,256}$",
        description="Scope that the revocation service asks for before it shows its list (its "
        "TOKENRY_LIST_READ_SCOPE): the issuer then gives itself tokens with it. Default: the list is open.",
    )
    tokeninfo_url: Annotated[HttpUrl | None, Env("TOKENRY_TOKENINFO_URL")] = Field(
        None, description="Base URL of token info, for the metadata. Default: not offered there."
    )
    scopes_supported: Names = Field((), description="Scopes to advertise in the metadata. Default: none.")
    max_token_lifetime: Duration = Field(
        3600.0,
        ge=10,
        le=LONGEST_LIFETIME,
        description="Seconds that any token may live at most; realms and clients above it are refused. "
        "Larger: revocations are kept longer, by everybody. The same in all services.",
    )
    credentials_refresh_interval: Duration = Field(
        30.0,
        ge=1,
        le=LONGEST_REFRESH,
        description="Seconds between two refreshes of credentials and keys. Larger: a deleted client works "
        "longer; smaller: more listing.",
    )
    credentials_hard_age: Duration = Field(
        24 * 3600.0,
        ge=60,
        description="Seconds without a complete refresh after which nothing is issued any more. Larger: a "
        "deletion during an outage takes effect later; smaller: a shorter outage stops the issuer.",
    )
    credentials_snapshot_folder: Path | None = Field(
        None,
        description="Folder that keeps the last good credentials and keys, sealed under the envelope key: with it an "
        "issuer starts while the store is away. Nothing older than TOKENRY_CREDENTIALS_HARD_AGE is used. "
        "Default: none; a start waits for the store.",
    )
    credentials_removal_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Part of all objects that one refresh may remove (ten are always allowed); above it the "
        "refresh is refused with an alarm. 1 allows anything but an empty listing: for a planned clear-out.",
    )
    jwks_max_age: Duration = Field(
        300.0,
        ge=10,
        le=300,
        description="Seconds that the JWK Set may be cached, less a jitter. Larger: fewer requests, and "
        "keys are announced for longer before they sign.",
    )
    list_max_entries: int = Field(
        MAX_ENTRIES,
        ge=1,
        le=LARGEST_MAX_ENTRIES,
        description="Entries of the revocation list at most; a longer one is refused whole, and the last good one gets "
        "older. As in the revocation service.",
    )
    state_folder: Path | None = Field(
        None,
        description="Folder that keeps the revocation list over a restart. Default: none; the issuer "
        "waits up to 10 s for its first list anyway.",
    )
    secret_check_threads: int = Field(
        2, ge=1, le=64, description="Slow hashes checked at once; more than processors makes each slower."
    )
    secret_check_queue: int = Field(
        64, ge=1, le=10_000, description="Checks that may wait for a thread; beyond them the answer is 503."
    )
    secret_check_memory: Duration = Field(
        300.0,
        le=3600,
        description="Seconds for which a secret that matched a slow hash is not checked again; 0: never remembered.",
    )
    failures_per_client: int = Field(
        10, ge=1, description="Failed attempts for one client or user from one address before 429."
    )
    failures_per_address: int = Field(
        100, ge=1, description="Failed attempts from one address, for whatever client, before 429."
    )
    assertion_replay_url: Annotated[str | None, Env("TOKENRY_ASSERTION_REPLAY_URL")] = Field(
        None,
        pattern=r"^s3://[^/?#]+/[^?#]+$",
        description="Where used assertions are remembered for all issuer processes: s3://bucket/prefix/, not the place "
        "of the credentials, with a lifecycle rule that deletes objects after a day. Default: none, an assertion is "
        "used once in each process. While the store is away, assertions are answered 503.",
    )
    trust_jwks_hosts: Names = Field(
        (),
        description="Hosts (with :port where it is not 443) from which the keys of trust rules and of clients may be "
        "fetched, such as token.actions.githubusercontent.com. Default: none; rules and clients carry their keys "
        "themselves.",
    )
    trust_jwks_networks: Networks = Field(
        (),
        description="Private networks in which those hosts may be. Default: none, public addresses only. Each one "
        "named lets whoever writes trust rules make the issuer connect there.",
    )
    s3_endpoint_url: HttpUrl | None = Field(
        None, description="Another S3 server than that of AWS. Default: what boto3 finds."
    )
    s3_region: str | None = Field(None, description="Region of the bucket. Default: what boto3 finds.")

    published_check_interval: Duration = Field(
        60.0,
        le=60,
        description="Seconds between two looks at the issuer's own JWK Set through its public URL: a key that is "
        "missing there does not sign. Larger: tokens that nobody can verify are issued for longer. 0: never looked.",
    )
    kms_endpoint_url: HttpUrl | None = Field(
        None, description="Another key management service than that of AWS. Default: what boto3 finds."
    )
    kms_region: str | None = Field(None, description="Region of the keys that KMS holds. Default: what boto3 finds.")

    @property
    def announce(self) -> int:
        """Seconds for which a key is published before it signs."""
        return announce_time(jwks_max_age=int(self.jwks_max_age))

    def contradictions(self) -> Iterator[str]:
        """Yield a sentence for each rule between settings that is broken."""
        yield from super().contradictions()
        yield from credentials_faults(self.credentials_url)
        if self.assertion_replay_url is not None and bucket_of(self.assertion_replay_url) == bucket_of(
            self.credentials_url
        ):
            yield "TOKENRY_ASSERTION_REPLAY_URL: name another place than the credentials', which the issuer only reads"
        if urlsplit(self.issuer).scheme == "http" and not is_loopback_host(urlsplit(self.issuer).hostname or ""):
            yield "TOKENRY_ISSUER: an issuer identifier is an https URL (RFC 8414 section 2)"
        if self.credentials_hard_age < 4 * self.credentials_refresh_interval:
            yield (
                "TOKENRY_CREDENTIALS_HARD_AGE: shorter than four refreshes, so that one slow refresh would "
                "stop the issuer; raise it, or lower TOKENRY_CREDENTIALS_REFRESH_INTERVAL"
            )
        if self.max_token_lifetime != int(self.max_token_lifetime):
            yield "TOKENRY_MAX_TOKEN_LIFETIME: write whole seconds"
