"""The settings of token info: our own names, and those of planb-tokeninfo."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from tokenry.errors import ConfigurationError
from tokenry.jose.jwk import Algorithm
from tokenry.revocation.lists import LARGEST_MAX_ENTRIES, MAX_ENTRIES
from tokenry.serving.settings import Duration, Env, HttpUrl, SecretText, ServiceSettings
from tokenry.sources.extension import pinned_key
from tokenry.validation.policy import TrustedIssuer
from tokenry_tokeninfo.signed_answers import read_answer_keys

OPENID_PATH = "/.well-known/openid-configuration"
MIN_REFUSE_AGE = 31.0  # seconds: 28 between two reads, 2 for a fetch, 0.5 between replica and store


def read_audiences(text: str) -> dict[str, frozenset[str]]:
    """
    Return which audiences each caller may ask about, from JSON such as `{"orders": ["orders"]}`.

    Raises:
        ValueError: It is not an object of arrays of texts.
    """
    try:
        value = json.loads(text)
    except ValueError:
        raise ValueError('write a JSON object such as {"client": ["audience"]}') from None
    if not isinstance(value, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in value.values()
    ):
        raise ValueError('write a JSON object of arrays, such as {"client": ["audience"]}')
    return {caller: frozenset(names) for caller, names in value.items()}


def _check_audiences(text: str) -> str:
    read_audiences(text)
    return text


def _check_trusted(text: str) -> str:
    read_trusted_issuers(text)
    return text


class TrustedIssuerSetting(BaseModel):
    """One further issuer: what is trusted of it, and where its keys are (default: by discovery)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    issuer: HttpUrl
    max_token_lifetime: int = Field(gt=0)
    jwks_uri: HttpUrl | None = None
    algorithms: tuple[Algorithm, ...] = Field((Algorithm.ES256,), min_length=1)
    accept_untyped: bool = False
    foreign: bool = True

    @property
    def trusted(self) -> TrustedIssuer:
        """What the validator is told of it."""
        return TrustedIssuer(
            issuer=self.issuer,
            max_token_lifetime=self.max_token_lifetime,
            algorithms=self.algorithms,
            accept_untyped=self.accept_untyped,
            foreign=self.foreign,
        )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        try:
            _ = self.trusted
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self


_TRUSTED = TypeAdapter(tuple[TrustedIssuerSetting, ...])


def read_trusted_issuers(text: str) -> tuple[TrustedIssuerSetting, ...]:
    """
    Return the further issuers of a JSON array of objects.

    Raises:
        ValueError: It is not such an array; a member is unknown, missing or malformed.
    """
    try:
        return _TRUSTED.validate_json(text)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        said = [f"{' '.join(map(str, fault['loc'])) or 'all'}: {fault['msg']}" for fault in faults]
        raise ValueError("write a JSON array of issuers; " + "; ".join(said)) from None


class Settings(ServiceSettings):
    """What token info is told."""

    own_prefixes: ClassVar[tuple[str, ...]] = ("TOKENRY_INTROSPECTION_", "TOKENRY_UPSTREAM_", "TOKENRY_LIST_")

    issuer: HttpUrl | None = Field(
        None,
        description="Issuer identifier, as in the tokens' iss. Required, unless "
        "OPENID_PROVIDER_CONFIGURATION_URL tells it.",
    )
    discovery_url: Annotated[HttpUrl | None, Env("TOKENRY_DISCOVERY_URL", "OPENID_PROVIDER_CONFIGURATION_URL")] = Field(
        None, description="The issuer's metadata document, where it is not below the issuer identifier."
    )
    jwks_url: HttpUrl | None = Field(
        None,
        description="The issuer's JWK Set, where discovery is not wanted (another host inside the network).",
    )
    keys_refresh_interval: Annotated[
        Duration, Env("TOKENRY_KEYS_REFRESH_INTERVAL", "OPENID_PROVIDER_REFRESH_INTERVAL")
    ] = Field(
        30.0,
        ge=1,
        le=300,
        description="Seconds between two reads of the keys, 1 to 300. Larger: removed keys die later. Smaller: the "
        "issuer is asked more often.",
    )
    revocation_url: Annotated[HttpUrl | None, Env("TOKENRY_REVOCATION_URL", "REVOCATION_PROVIDER_URL")] = Field(
        None, description="Base URL of the revocation service; default: what the issuer's metadata say."
    )
    list_refresh_interval: Annotated[
        Duration, Env("TOKENRY_LIST_REFRESH_INTERVAL", "REVOCATION_PROVIDER_REFRESH_INTERVAL")
    ] = Field(
        28.0,
        description="Read so that old deployments start; the list is held open, and read every 25 to 28 s "
        "where that is not possible.",
    )
    list_refresh_tolerance: Annotated[Duration, Env("REVOCATION_REFRESH_TOLERANCE")] = Field(
        60.0, description="Read so that old deployments start; our cursors overlap by themselves."
    )
    revocation_hashing_salt: Annotated[
        SecretText | None, Env("TOKENRY_REVOCATION_HASHING_SALT", "REVOCATION_HASHING_SALT")
    ] = Field(None, description="Read so that old deployments start; the list carries its own salts.")
    list_warn_age: Duration = Field(
        120.0,
        gt=0,
        description="Seconds from which an ageing list makes readiness degraded. Smaller: earlier noise.",
    )
    list_refuse_age: Duration = Field(
        900.0,
        gt=0,
        description="Seconds from which an older list makes every answer 503. Larger: longer outages of the "
        "revocation service are ridden out, and a token revoked meanwhile lives as long.",
    )
    list_max_entries: int = Field(
        MAX_ENTRIES,
        ge=1,
        le=LARGEST_MAX_ENTRIES,
        description="Entries of the list at most; a longer one is refused whole, and the last good one gets older. As "
        "in the revocation service. Larger: 21 bytes of memory each, and the list has to arrive within 30 s.",
    )
    state_folder: Path | None = Field(
        None,
        description="Folder for the last list, so that a restart never forgets a revocation; default: none.",
    )
    signed_list_url: str | None = Field(
        None,
        pattern=r"^(https?://|file:///)[\x21-\x7e]{1,4000}$",
        description="Where the signed list is carried to (https: or file:), the second source while the "
        "revocation service is away; the issuer's metadata name its keys. Default: none.",
    )
    extend_file: Annotated[Path | None, Env("TOKENRY_EXTEND_FILE")] = Field(
        None,
        description="File in which a signed word to go on by an old list is looked for, for long outages "
        "(`tokenry validators extend`); it need not be there. Default: none.",
    )
    extend_url: HttpUrl | None = Field(
        None, description="The same at a URL, such as beside the signed list. Default: none."
    )
    extend_key: str | None = Field(
        None,
        description="The pinned public key of such words, a JWK in JSON (best in a file). Whoever has the "
        "private half can let validators go on by an old list for a day, and nothing else.",
    )
    list_client_id: str | None = Field(
        None,
        description="Client as which this service reports which revocations it enforces, and what it has refused: "
        "without a token its reports count only where the revocation service takes open ones. In a realm with an "
        "audience of its own the client needs the issuer identifier among its audiences. Default: none.",
    )
    list_client_secret: SecretText | None = Field(None, description="Secret of that client.")
    list_client_realm: str | None = Field(None, description="Realm of that client, such as /services.")
    list_needs_token: bool = Field(
        False,
        description="Read the list with a token of that client, too: for a revocation service with "
        "TOKENRY_LIST_READ_SCOPE. Then no list can be read while the issuer gives no tokens.",
    )
    leeway: Duration = Field(
        5.0,
        le=60,
        description="Seconds by which iat and nbf may lie ahead of our clock (exp has none), at most 60.",
    )
    max_token_lifetime: Duration = Field(
        3600.0,
        gt=0,
        description="Seconds that a token of the issuer may live at most; longer ones are refused. It "
        "must be the platform's: revocations are kept as long.",
    )
    accept_untyped: bool = Field(
        False,
        description="Accept tokens of the issuer whose typ is absent or JWT (realms in the plan-b profile).",
    )
    trusted_issuers: Annotated[str, AfterValidator(_check_trusted)] = Field(
        "[]",
        description='Further issuers as a JSON array of {"issuer", "max_token_lifetime", "jwks_uri"?, '
        '"algorithms"?, "accept_untyped"?, "foreign"?}; best in a file.',
    )
    token_url: HttpUrl | None = Field(
        None,
        description="The issuer's token endpoint, for introspection by callers with client credentials; "
        "default: issuer + /oauth2/token.",
    )
    introspection_realm: str | None = Field(
        None, description="Realm of those callers, where a request names none; default: the issuer decides."
    )
    introspection_rate: float = Field(
        1000.0, gt=0, description="Introspections a second for one caller. Smaller: guessing is slower."
    )
    introspection_burst: float = Field(
        10_000.0, ge=1, description="Introspections that one caller may make at once before that rate holds."
    )
    introspection_audiences: Annotated[str, AfterValidator(_check_audiences)] = Field(
        "{}",
        description='Which audiences a caller may ask about, as JSON such as {"orders": ["orders"]}; a '
        "caller that is not named may ask about all.",
    )
    introspection_scopes: Annotated[str, AfterValidator(_check_audiences)] = Field(
        "{}",
        description='Which scopes of a token concern a caller, as JSON such as {"orders": ["orders.*", "uid"]}: it is '
        "told no others. A caller that is not named is told all.",
    )
    introspection_keys: SecretText | None = Field(
        None,
        description="Sealed keys of the use introspection, as JSON: one, or an object with keys; best in a file. With "
        "them callers may ask for signed answers (RFC 9701). Default: none.",
    )
    introspection_envelope_key: SecretText | None = Field(
        None, description="The envelope key that those keys are sealed with, in base64url; best in a file."
    )
    upstream_url: Annotated[HttpUrl | None, Env("TOKENRY_UPSTREAM_URL", "UPSTREAM_TOKENINFO_URL")] = Field(
        None, description="Token info service for tokens that are no JWT; default: such tokens are refused."
    )
    upstream_cache_size: Annotated[int, Env("TOKENRY_UPSTREAM_CACHE_SIZE", "UPSTREAM_CACHE_MAX_SIZE")] = Field(
        10_000, ge=0, le=10_000_000, description="Upstream answers remembered at most; 0 remembers none."
    )
    upstream_cache_ttl: Annotated[Duration, Env("TOKENRY_UPSTREAM_CACHE_TTL", "UPSTREAM_CACHE_TTL")] = Field(
        60.0,
        description="Seconds for which one is remembered, at most until it expires. Larger: a token revoked "
        "upstream lives longer here.",
    )
    upstream_timeout: Annotated[Duration, Env("TOKENRY_UPSTREAM_TIMEOUT", "UPSTREAM_TIMEOUT")] = Field(
        1.0, gt=0, le=9, description="Seconds that a caller waits for the upstream, for its turn included."
    )
    upstream_concurrency: int = Field(
        100,
        ge=1,
        le=200,
        description="Calls to the upstream at a time. Smaller protects it; larger queues less.",
    )

    def contradictions(self) -> Iterator[str]:
        """Yield the rules between settings that are broken."""
        yield from super().contradictions()
        if self.issuer is None and not (self.discovery_url or "").endswith(OPENID_PATH):
            yield (
                "TOKENRY_ISSUER: is not set; set it to the issuer identifier, or "
                f"OPENID_PROVIDER_CONFIGURATION_URL to <issuer>{OPENID_PATH}"
            )
        yield from self._extension_faults()
        if (self.list_client_id is None) != (self.list_client_secret is None):
            yield "TOKENRY_LIST_CLIENT_ID and TOKENRY_LIST_CLIENT_SECRET: set both or neither"
        elif self.list_needs_token and self.list_client_id is None:
            yield "TOKENRY_LIST_NEEDS_TOKEN: there is no client for it; set TOKENRY_LIST_CLIENT_ID and its secret"
        if self.list_warn_age > self.list_refuse_age:
            yield "TOKENRY_LIST_WARN_AGE: the warning comes after the refusal; make it smaller"
        if self.list_refuse_age < MIN_REFUSE_AGE:
            yield (f"TOKENRY_LIST_REFUSE_AGE: a list between two reads may be {MIN_REFUSE_AGE:g} s old; make it larger")
        if (self.introspection_keys is None) != (self.introspection_envelope_key is None):
            yield "TOKENRY_INTROSPECTION_KEYS and TOKENRY_INTROSPECTION_ENVELOPE_KEY: set both or neither"
        elif self.introspection_keys is not None and self.introspection_envelope_key is not None:
            try:
                read_answer_keys(self.introspection_keys, envelope_key=self.introspection_envelope_key)
            except ValueError as error:
                yield f"TOKENRY_INTROSPECTION_KEYS: {error}"
        if self.max_token_lifetime != int(self.max_token_lifetime):
            yield "TOKENRY_MAX_TOKEN_LIFETIME: write whole seconds"

    def _extension_faults(self) -> Iterator[str]:
        if self.extend_file is not None and self.extend_url is not None:
            yield "TOKENRY_EXTEND_FILE: TOKENRY_EXTEND_URL is set as well; set one of them"
        if self.extension_place is None:
            return
        if self.extend_key is None:
            yield "TOKENRY_EXTEND_KEY: is not set, and nobody can be believed without; set it or its _FILE"
            return
        try:
            pinned_key(self.extend_key)
        except ConfigurationError as error:
            yield f"TOKENRY_EXTEND_KEY: {error}"

    @property
    def extension_place(self) -> str | None:
        """Where an extension of the refuse limit may be found, as a URL."""
        return self.extend_url if self.extend_file is None else self.extend_file.absolute().as_uri()

    @property
    def issuer_identifier(self) -> str:
        """The issuer identifier, given or told by the place of its metadata."""
        if self.issuer is not None:
            return self.issuer
        return (self.discovery_url or "").removesuffix(OPENID_PATH)

    @property
    def token_endpoint(self) -> str:
        """The issuer's token endpoint."""
        return self.token_url or self.issuer_identifier.rstrip("/") + "/oauth2/token"

    @property
    def revocation_base_url(self) -> str | None:
        """Base URL of the revocation service; Plan B's setting may name the list itself."""
        if self.revocation_url is None:
            return None
        return self.revocation_url.rstrip("/").removesuffix("/revocations")
