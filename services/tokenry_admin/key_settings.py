"""Settings of whoever makes and rotates keys: the administration service, and the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tokenry.errors import ProtocolError
from tokenry.jose.sealing import EnvelopeKey
from tokenry.serving.settings import Duration, Env, HttpUrl, SecretText, ServiceSettings
from tokenry_admin.key_rotation import RotationPolicy
from tokenry_registry.key_schedule import announce_time
from tokenry_registry.location import credentials_faults
from tokenry_registry.signing_keys import KeyUse

DAY = 86_400.0
LIST_LIFETIME = 24 * 3600  # seconds: a signed list is believed for as long as a broken glass lasts
ANSWER_LIFETIME = 3600  # seconds: a signed introspection answer is read when it comes; an hour is for what queues


class KeySettings(ServiceSettings):
    """Settings of rotation."""

    credentials_url: Annotated[str, Env("TOKENRY_CREDENTIALS_URL")] = Field(
        description="Where credentials and keys are kept: s3://bucket/prefix/ or file:///folder/."
    )
    envelope_key_file: Annotated[Path | None, Env("TOKENRY_ENVELOPE_KEY_FILE")] = Field(
        None,
        description="File (mode 0600) with the envelope key that seals new signing keys, the issuer's own. Default: "
        "none; keys for tokens are then made in KMS or not at all.",
    )
    list_envelope_key: SecretText | None = Field(
        None,
        description="The envelope key that seals new keys for revocation lists, 32 bytes in base64url, as the "
        "revocation service has it; best in a file. Default: none, and keys for lists are not kept.",
    )
    introspection_envelope_key: SecretText | None = Field(
        None,
        description="The envelope key that seals new keys for signed introspection answers, as token info has it; best "
        "in a file. Default: none, and such keys are not kept.",
    )
    key_custody: Literal["file", "kms"] = Field(
        "file",
        description="Where new keys for tokens are held: file, sealed in their objects; kms, in AWS KMS, which then "
        "signs every token. Keys that are there stay where they are.",
    )
    key_rotation_period: Duration = Field(
        90 * DAY,
        ge=3600,
        description="Seconds for which each key signs. Larger: a key that leaked unseen is of use for longer; smaller: "
        "more keys in every JWK Set.",
    )
    key_rotation_overlap: Duration = Field(
        14 * DAY,
        ge=60,
        description="Seconds for which a key could sign beyond its period, and before which its successor's successor "
        "is made: for so long rotation may be away without any effect. At most the period.",
    )
    max_token_lifetime: Duration = Field(
        3600.0,
        ge=10,
        le=24 * 3600.0,
        description="Seconds that any token may live at most; the same in all services. A key stays published for as "
        "long after its last signature.",
    )
    jwks_max_age: Duration = Field(
        300.0,
        ge=10,
        le=300,
        description="Seconds that the issuer lets its JWK Set be cached; keys are announced for longer.",
    )
    s3_endpoint_url: HttpUrl | None = Field(
        None, description="Another S3 server than that of AWS. Default: what boto3 finds."
    )
    s3_region: str | None = Field(None, description="Region of the bucket. Default: what boto3 finds.")
    kms_endpoint_url: HttpUrl | None = Field(
        None, description="Another key management service than that of AWS. Default: what boto3 finds."
    )
    kms_region: str | None = Field(None, description="Region of the keys that KMS holds. Default: what boto3 finds.")

    def contradictions(self) -> Iterator[str]:
        """Yield a sentence for each rule between settings that is broken."""
        yield from super().contradictions()
        yield from credentials_faults(self.credentials_url)
        try:
            self.policies()
        except ValueError as error:
            yield f"TOKENRY_KEY_ROTATION_PERIOD and TOKENRY_KEY_ROTATION_OVERLAP: {error}"
        for name, secret in (
            ("TOKENRY_LIST_ENVELOPE_KEY", self.list_envelope_key),
            ("TOKENRY_INTROSPECTION_ENVELOPE_KEY", self.introspection_envelope_key),
        ):
            try:
                if secret is not None:
                    EnvelopeKey.from_text(secret.reveal())
            except (ProtocolError, ValueError):
                yield f"{name}: is no envelope key; it has 32 bytes in base64url without padding"

    def policies(self) -> dict[KeyUse, RotationPolicy]:
        """
        Return how the keys of each use that can be made here succeed one another.

        Raises:
            ValueError: The settings contradict one another.
        """
        lifetimes = {KeyUse.TOKEN: int(self.max_token_lifetime)}
        if self.list_envelope_key is not None:
            lifetimes[KeyUse.LIST] = LIST_LIFETIME
        if self.introspection_envelope_key is not None:
            lifetimes[KeyUse.INTROSPECTION] = ANSWER_LIFETIME
        return {
            use: RotationPolicy(
                period=int(self.key_rotation_period),
                overlap=int(self.key_rotation_overlap),
                lifetime=lifetime,
                announce=announce_time(jwks_max_age=int(self.jwks_max_age)),
            )
            for use, lifetime in lifetimes.items()
        }
