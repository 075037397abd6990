"""
Settings of the revocation service.

One rule ties several of them: a revocation is kept as long as the longest token lives, and 120 s more, so
there is no setting for the retention. Every list carries `max_token_lifetime`, and readers take the largest
that they have seen.
"""

import math
import re
from collections.abc import Iterator
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from tokenry.revocation.lists import LARGEST_MAX_ENTRIES, MAX_ENTRIES
from tokenry.serving.settings import Duration, Env, HttpUrl, Names, SecretText, ServiceSettings
from tokenry_revocation.requests import BASE_CLAIM_NAMES
from tokenry_revocation.revoking import Terms

MIN_SALT_CHARACTERS = 16  # 96 bits as base64: whoever can guess the salt can test guesses of claim values
PUBLIC_SALT = "seasaltisthebest"  # the example in Plan B's documents, known to everybody
READ_INTERVAL_SECONDS = 0.5  # between a replica's reads of the store (feed.py)
POLL_SECONDS = 28.0  # the longest interval of our readers
FETCH_SECONDS = 2.0  # what one poll takes at most
_RULES_SCHEMES = frozenset({"file", "s3"})
_UNREVOCABLE = frozenset({"aud", "scope", "exp", "iat", "nbf"})
_MAX_NAME_BYTES = 128
_REPLICAS = re.compile(r"[A-Za-z0-9_.-]{1,64}=[1-9][0-9]?")


class Settings(ServiceSettings):
    """What the revocation service is told."""

    own_prefixes: ClassVar[tuple[str, ...]] = (
        "TOKENRY_REVOCATION_",
        "TOKENRY_STORE_",
        "TOKENRY_RULES_",
        "TOKENRY_LIST_",
    )

    issuer: HttpUrl = Field(
        description="Issuer identifier of the platform's tokens, such as https://issuer.example.org: whose "
        "tokens are revoked, and whose tokens callers show. Its keys are read from its metadata."
    )
    store_url: str = Field(
        description="Where revocations are kept: sqlite:///path/file.db (one replica) or "
        "cassandra://host:port,host/keyspace (several replicas)."
    )
    store_username: str | None = Field(None, description="User name for Cassandra. Default: no authentication.")
    store_password: SecretText | None = Field(None, description="Password of that user.")
    store_replication: Names = Field(
        (),
        description="Replicas in each datacentre, such as eu-central=3: only --create-schema needs it, and "
        "only while the keyspace does not exist.",
    )
    revocation_hashing_salt: Annotated[
        SecretText, Env("TOKENRY_REVOCATION_HASHING_SALT", "REVOCATION_HASHING_SALT")
    ] = Field(
        description="Salt of Plan B's hashes, from which the salt of our own lists is derived; at least 16 "
        "random characters, the same for all replicas and all Plan B validators. There is no default: with "
        "a salt that others know, claim values in the list can be guessed."
    )
    max_token_lifetime: Duration = Field(
        3600.0,
        ge=1,
        description="Life of the longest-lived token of the platform; the same as the issuer's. Revocations "
        "are kept that long and 120 s more. Too small: a token could outlive its revocation. Lower it only "
        "after the old value has passed.",
    )
    clock_skew: Duration = Field(
        2.0,
        le=5,
        description="Bound on the difference of any two clocks of the platform. Larger: tokens minted up to "
        "that much after a revocation are refused as well; smaller: clocks have to be better.",
    )
    trusted_issuers: Names = Field(
        (),
        description="Further issuers whose tokens may be revoked. Their keys are found from their metadata; while "
        "they are not, their tokens are revoked by fingerprint alone, and for as long as any token could live. "
        "Default: none.",
    )
    revocable_claims: Names = Field(
        (),
        description="Further string claims that tokens carry and may be revoked by. A name that no token "
        "carries makes rules that match nothing.",
    )
    rules_url: str | None = Field(
        None,
        description="Where the folder revocation-rules/ is: file:///dir/ or s3://bucket/prefix/. Default: "
        "no rules; then only revocation.admin revokes by claims.",
    )
    second_person_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of all live tokens above which a rule needs a second person to approve it; a GLOBAL "
        "always does then, and a rule whose share is not known. 0: every rule does. Default: one person is "
        "always enough.",
    )
    second_person_wait: Duration = Field(
        3600.0,
        ge=60,
        le=86_400,
        description="Seconds for which a revocation waits for the second person.",
    )
    list_read_scope: str | None = Field(
        None,
        pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,100}$",
        description="Scope that reading the lists needs. Default: the lists are open, and whoever can read "
        "them can test guesses of claim values against them; Plan B's validators cannot authenticate.",
    )
    list_max_entries: int = Field(
        MAX_ENTRIES,
        ge=1,
        le=LARGEST_MAX_ENTRIES,
        description="Entries of the list at most; while more are in force it gets older, until validators refuse to "
        "judge by it. The same in every validator: one with less refuses a longer list whole. Larger: 21 bytes of "
        "memory each, there too.",
    )
    list_publish_url: str | None = Field(
        None,
        description="Where the signed list is published as revocation-list.jwt: file:///dir/ or "
        "s3://bucket/prefix/, for validators that read it while this service is away. Default: nowhere.",
    )
    list_publish_interval: Duration = Field(
        30.0,
        ge=1,
        le=300,
        description="Seconds between two issues of the signed list, changed or not. Larger: less is written, "
        "and validators that depend on it enforce a revocation later.",
    )
    list_keys_url: str | None = Field(
        None,
        description="Where the folder keys/ with the keys for lists is: file:///dir/ or s3://bucket/prefix/. "
        "Default: the place of the rules.",
    )
    list_envelope_key: SecretText | None = Field(
        None,
        description="The envelope key that opens the keys for lists, 32 bytes in base64url: another one than "
        "the issuer's. Required with TOKENRY_LIST_PUBLISH_URL.",
    )
    open_reports: bool = Field(
        False,
        description="Take reports of validators without a bearer; they are marked as unverified.",
    )
    accept_untyped_tokens: bool = Field(
        False,
        description="Accept callers' tokens of type JWT, for realms that issue no at+jwt. Then other JWTs "
        "of the issuer could be taken for access tokens.",
    )
    plan_b_poll_interval: Duration = Field(
        30.0,
        description="How often Plan B's validators poll (their REVOCATION_PROVIDER_REFRESH_INTERVAL); it "
        "only decides what plan_b_by promises.",
    )
    max_held_requests: int = Field(
        10_000,
        ge=0,
        description="Requests for changes that wait for news at a time; each takes a connection and some "
        "kilobytes. Beyond it they are answered at once, and validators fall back to polling. One revocation "
        "wakes them all: of more than 3,000 or so the last ones hear of it after more than a second.",
    )

    @property
    def keys_url(self) -> str | None:
        """Return where the keys for lists are."""
        return self.list_keys_url or self.rules_url

    @property
    def terms(self) -> Terms:
        """Return what decides about records."""
        bound = READ_INTERVAL_SECONDS + POLL_SECONDS + FETCH_SECONDS
        return Terms(
            issuer=self.issuer,
            max_token_lifetime=math.ceil(self.max_token_lifetime),
            skew=self.clock_skew,
            propagation_bound=bound,
            plan_b_bound=self.plan_b_poll_interval + bound,
            hashing_salt=self.revocation_hashing_salt,
        )

    @property
    def replication(self) -> dict[str, int] | None:
        """Return the replicas in each datacentre; None where the keyspace exists."""
        pairs = (item.partition("=") for item in self.store_replication)
        return {name: int(number) for name, _, number in pairs} or None

    @property
    def issuers(self) -> frozenset[str]:
        """Return every issuer whose tokens may be revoked."""
        return frozenset({self.issuer, *self.trusted_issuers})

    def contradictions(self) -> Iterator[str]:
        """Yield a sentence for each rule that is broken."""
        yield from super().contradictions()
        yield from self._salt_faults()
        if self.rules_url is not None and urlsplit(self.rules_url).scheme not in _RULES_SCHEMES:
            yield "TOKENRY_RULES_URL: write file:///dir/ or s3://bucket/prefix/"
        yield from self._publishing_faults()
        if self.max_token_lifetime != math.ceil(self.max_token_lifetime):
            yield "TOKENRY_MAX_TOKEN_LIFETIME: write whole seconds; tokens have no others"
        for item in self.store_replication:
            if not _REPLICAS.fullmatch(item):
                yield "TOKENRY_STORE_REPLICATION: write names and numbers such as eu-central=3,eu-west=3"
        for name in self.revocable_claims:
            if name in _UNREVOCABLE or len(name.encode("utf-8")) > _MAX_NAME_BYTES:
                yield f"TOKENRY_REVOCABLE_CLAIMS: {name} cannot be revoked by; remove it"
            elif name in BASE_CLAIM_NAMES or name == "azp":
                yield f"TOKENRY_REVOCABLE_CLAIMS: {name} is always there; remove it"

    def _publishing_faults(self) -> Iterator[str]:
        for name, url in (("PUBLISH", self.list_publish_url), ("KEYS", self.list_keys_url)):
            if url is not None and urlsplit(url).scheme not in _RULES_SCHEMES:
                yield f"TOKENRY_LIST_{name}_URL: write file:///dir/ or s3://bucket/prefix/"
        if self.list_publish_url is None:
            return
        if self.keys_url is None:
            yield "TOKENRY_LIST_KEYS_URL: is not set; say where the keys for lists are, or set TOKENRY_RULES_URL"
        if self.list_envelope_key is None:
            yield "TOKENRY_LIST_ENVELOPE_KEY: is not set, and nothing can be signed without; set it or its _FILE"

    def _salt_faults(self) -> Iterator[str]:
        salt = self.revocation_hashing_salt.reveal()
        if len(salt) < MIN_SALT_CHARACTERS:
            yield (
                f"TOKENRY_REVOCATION_HASHING_SALT: it has less than {MIN_SALT_CHARACTERS} characters; make a random one"
            )
        if salt == PUBLIC_SALT and self.environment == "production":
            yield "TOKENRY_REVOCATION_HASHING_SALT: this is the example that everybody knows; make a random "
            "one"
