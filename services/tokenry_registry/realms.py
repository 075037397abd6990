"""
Realms, their clients and their users: from stored JSON to values that are valid when they exist.

Layout of the store, below its prefix:

    realms/<realm>/realm.json
    realms/<realm>/clients/<client_id>.json
    realms/<realm>/users/<username>.json
    realms/<realm>/trust/<name>.json

An object that does not parse, or that names something else than its key does, is refused whole. What a
refusal means for the version that was in force before is decided in `registry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import parse_json_object
from tokenry.oauth.errors import OAuthError
from tokenry.oauth.token_endpoint import CLIENT_CREDENTIALS, JWT_BEARER, PASSWORD, TOKEN_EXCHANGE, realm_name
from tokenry.scope import NO_SCOPE, Scope
from tokenry_registry.exchange_policy import ExchangePolicy, read_exchange_policy
from tokenry_registry.fields import Fields
from tokenry_registry.registered_keys import read_keys
from tokenry_registry.secret_hashes import StoredHash, parse_hash
from tokenry_registry.tls_clients import read_tls_identity
from tokenry_registry.trust_rules import TrustRule, check_jwks_uri, read_trust_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from tokenry.jose.jwks import KeySet
    from tokenry_registry.tls_clients import TlsIdentity

GRANT_TYPES = frozenset({CLIENT_CREDENTIALS, JWT_BEARER, PASSWORD, TOKEN_EXCHANGE})
DEFAULT_LIFETIME = 3600  # seconds: long enough to ride out an hour's outage of the issuer's neighbours
MIN_LIFETIME = 10  # seconds: below this a token is dead before a retry of its first use
MAX_NAME_BYTES = 240  # of a client id or user name: with ".json" still a file name on every file system


class ClaimsProfile(StrEnum):
    """How a realm's tokens write the claim `scope`: as a string (RFC 9068) or as an array of strings."""

    RFC9068 = "rfc9068"
    PLAN_B = "plan-b"


class TokenType(StrEnum):
    """The header parameter `typ` of a realm's tokens."""

    ACCESS_TOKEN = "at+jwt"  # noqa: S105 -- a media type (RFC 9068 section 2.1), no secret
    JWT = "JWT"


class AssertionAudience(StrEnum):
    """What a client's assertions name as their audience: us, or (for libraries that know no better) our endpoint."""

    ISSUER = "issuer"
    TOKEN_ENDPOINT = "token_endpoint"  # noqa: S105 -- a place, no secret


class ProofOfKey(StrEnum):
    """When a client's tokens are bound to a key of its own (DPoP, RFC 9449)."""

    OPTIONAL = "optional"  # when it sends a proof
    REQUIRED = "required"  # always: a request without a proof is refused


class Refusal(StrEnum):
    """Why a stored object was not taken into force; a metric label."""

    UNREADABLE = "unreadable"
    MALFORMED = "malformed"
    WRONG_NAME = "wrong_name"
    WRONG_ENVIRONMENT = "wrong_environment"
    LIFETIME_TOO_LONG = "lifetime_too_long"
    NAME_TAKEN = "name_taken"
    UNKNOWN_KEY = "unknown_key"
    MASS_REMOVAL = "mass_removal"


class RefusedObject(ProtocolError):
    """
    A stored object must not come into force.

    Attributes:
        cause: Why.
    """

    def __init__(self, cause: Refusal, message: str) -> None:
        """Refuse for *cause*; the *message* is for the operator and carries no secret."""
        self.cause = cause
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """
    One stored secret of a client, or password of a user.

    Attributes:
        hash: What a candidate is compared with.
        created_at: Unix seconds.
        expires_at: Unix seconds from which it is no longer accepted; None for never.
    """

    hash: StoredHash
    created_at: int
    expires_at: int | None = None

    def usable(self, now: float) -> bool:
        """Tell whether it is accepted at Unix time *now*."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Realm:
    """
    One realm.

    Attributes:
        name: With its leading slash.
        environment: The environment that it belongs to, such as `production`.
        token_lifetime: Seconds that its tokens live.
        claims_profile: The form of `scope`.
        token_type: The header parameter `typ`.
        grant_types: The grants that it allows.
        default_scopes: For clients that have no default scopes of their own.
        audience: Its tokens' audience unless another was asked for; None: the issuer identifier.
    """

    name: str
    environment: str
    token_lifetime: int = DEFAULT_LIFETIME
    claims_profile: ClaimsProfile = ClaimsProfile.RFC9068
    token_type: TokenType = TokenType.ACCESS_TOKEN
    grant_types: frozenset[str] = frozenset({CLIENT_CREDENTIALS})
    default_scopes: Scope = NO_SCOPE
    audience: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """
    One client of a realm.

    Attributes:
        client_id: Its name in the realm.
        secrets: Those that may authenticate it; several during a rotation.
        scopes: All that it may be granted.
        default_scopes: Granted when it asks for none; None: the realm's, as far as it has them.
        audiences: Targets that it may ask for, besides the default one.
        grant_types: The grants that it may use.
        token_lifetime: Seconds, where shorter than the realm's.
        enabled: Whether it may authenticate at all.
        keys: What its assertions are signed with (`private_key_jwt`); None: it sends none, or they are at `jwks_uri`.
        jwks_uri: Where those keys are published, an https URL.
        assertion_audience: What they name as their audience.
        tls: What its TLS certificate is; None: it is not known by one.
        exchange: Which tokens it may exchange; None: none.
        certificate_bound: Whether its tokens are bound to the certificate of the connection that they are issued
            on; None: where it authenticated by that certificate.
        dpop: When its tokens are bound to a key of its own; None: never, whatever it sends.
    """

    client_id: str
    secrets: tuple[StoredSecret, ...] = ()
    scopes: Scope = NO_SCOPE
    default_scopes: Scope | None = None
    audiences: frozenset[str] = frozenset()
    grant_types: frozenset[str] = frozenset({CLIENT_CREDENTIALS})
    token_lifetime: int | None = None
    enabled: bool = True
    keys: KeySet | None = None
    jwks_uri: str | None = None
    assertion_audience: AssertionAudience = AssertionAudience.ISSUER
    tls: TlsIdentity | None = None
    exchange: ExchangePolicy | None = None
    certificate_bound: bool | None = None
    dpop: ProofOfKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """
    One service user of a realm (password grant).

    Attributes:
        username: Its name in the realm.
        passwords: Those that may authenticate it.
        scopes: All that a token for it may carry.
        clients: The clients that may use it; None: any client of the realm.
        enabled: Whether it may authenticate at all.
    """

    username: str
    passwords: tuple[StoredSecret, ...] = ()
    scopes: Scope = NO_SCOPE
    clients: frozenset[str] | None = None
    enabled: bool = True


class ObjectKind(StrEnum):
    """What an object of the store describes."""

    REALM = "realm"
    CLIENT = "client"
    USER = "user"
    TRUST = "trust"


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """
    The meaning of a key below the prefix.

    Attributes:
        kind: What the object describes.
        realm: Realm with its leading slash.
        name: Client id, user name or name of a trust rule; empty for the realm itself.
    """

    kind: ObjectKind
    realm: str
    name: str


_FOLDERS = {"clients": ObjectKind.CLIENT, "users": ObjectKind.USER, "trust": ObjectKind.TRUST}


def read_key(key: str) -> ObjectKey:
    """
    Return what the object at *key* (below the prefix) describes.

    Raises:
        RefusedObject: The layout has no such place, or a name in it is not allowed.
    """
    parts = key.split("/")
    if parts[0] == "realms" and len(parts) == 3 and parts[2] == "realm.json":  # noqa: PLR2004 -- the layout above
        return ObjectKey(ObjectKind.REALM, _realm_of(parts[1]), "")
    if parts[0] == "realms" and len(parts) == 4 and parts[2] in _FOLDERS and parts[3].endswith(".json"):  # noqa: PLR2004
        name = parts[3].removesuffix(".json")
        check_name(name)
        return ObjectKey(_FOLDERS[parts[2]], _realm_of(parts[1]), name)
    raise RefusedObject(Refusal.UNKNOWN_KEY, "the layout has no place for this key")


def check_name(name: str) -> None:
    """
    Refuse what cannot be a client id or user name: it is printable, and a file name.

    Raises:
        RefusedObject: With what is wrong.
    """
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        length = 0
    if not 0 < length <= MAX_NAME_BYTES or not name.isprintable() or "/" in name or name.startswith("."):
        raise RefusedObject(
            Refusal.WRONG_NAME,
            f"a name is printable text of at most {MAX_NAME_BYTES} bytes, without slash and leading dot",
        )


def read_object(
    key: ObjectKey, body: bytes, *, environment: str, max_token_lifetime: int
) -> Realm | Client | User | TrustRule:
    """
    Return what *body* describes.

    Args:
        key: Where it was found; the object must name the same.
        body: JSON.
        environment: The environment that this issuer serves.
        max_token_lifetime: Seconds; the platform's bound on every token.

    Raises:
        RefusedObject: It is malformed, names something else, belongs elsewhere, or grants too long a life.
    """
    try:
        fields = Fields(parse_json_object(body))
        fields.version()
        value = _READERS[key.kind](fields)
        stated = fields.optional_text("environment")
        fields.optional_text("description")
        fields.optional_text("owner")
        fields.optional_text("application")  # whose files in the second bucket its secrets go to
        fields.finish()
    except RefusedObject:
        raise
    except ProtocolError as error:
        raise RefusedObject(Refusal.MALFORMED, str(error)) from None
    if stated != environment and (stated is not None or isinstance(value, Realm)):
        raise RefusedObject(Refusal.WRONG_ENVIRONMENT, "the object belongs to another environment")
    if _name_of(value) != (key.realm if key.kind is ObjectKind.REALM else key.name):
        raise RefusedObject(Refusal.WRONG_NAME, "the object names another than its key does")
    lifetime = value.token_lifetime if isinstance(value, Realm | Client) else None
    if lifetime is not None and lifetime > max_token_lifetime:
        raise RefusedObject(
            Refusal.LIFETIME_TOO_LONG,
            f"token_lifetime is above the platform's bound of {max_token_lifetime} s",
        )
    return value


def _realm_of(name: str) -> str:
    try:
        return realm_name(name) if not name.startswith("/") else realm_name("")
    except OAuthError:
        raise RefusedObject(Refusal.WRONG_NAME, "a realm's folder has no proper name") from None


def _name_of(value: Realm | Client | User | TrustRule) -> str:
    if isinstance(value, Realm | TrustRule):
        return value.name
    return value.client_id if isinstance(value, Client) else value.username


def _read_realm(fields: Fields) -> Realm:
    name = fields.text("realm")
    return Realm(
        name=_realm_of(name.removeprefix("/")),
        environment=fields.text("environment"),
        token_lifetime=fields.optional_integer("token_lifetime", at_least=MIN_LIFETIME) or DEFAULT_LIFETIME,
        claims_profile=ClaimsProfile(
            fields.choice("claims_profile", among=set(ClaimsProfile), default=ClaimsProfile.RFC9068)
        ),
        token_type=TokenType(fields.choice("typ", among=set(TokenType), default=TokenType.ACCESS_TOKEN)),
        grant_types=_grant_types(fields),
        default_scopes=fields.optional_scope("default_scopes") or NO_SCOPE,
        audience=fields.optional_text("audience"),
    )


def _read_client(fields: Fields) -> Client:
    scopes = fields.optional_scope("scopes") or NO_SCOPE
    default_scopes = fields.optional_scope("default_scopes")
    if default_scopes is not None and not default_scopes <= scopes:
        raise ProtocolError("default_scopes has scopes that scopes lacks")
    exchange = fields.optional_object("token_exchange")
    client_id, jwks, tls = fields.text("client_id"), fields.optional_object("jwks"), fields.optional_object(_TLS)
    jwks_uri = fields.optional_text("jwks_uri")
    if jwks_uri is not None:
        check_jwks_uri(jwks_uri)
        if jwks is not None:
            raise ProtocolError("a client has jwks or jwks_uri, and not both")
    return Client(
        client_id=client_id,
        secrets=_secrets(fields, "secrets"),
        scopes=scopes,
        default_scopes=default_scopes,
        audiences=frozenset(fields.names("audiences")),
        grant_types=_grant_types(fields),
        token_lifetime=fields.optional_integer("token_lifetime", at_least=MIN_LIFETIME),
        enabled=fields.flag("enabled", default=True),
        keys=None if jwks is None else read_keys(jwks, owner=client_id),
        jwks_uri=jwks_uri,
        assertion_audience=AssertionAudience(
            fields.choice("assertion_audience", among=set(AssertionAudience), default=AssertionAudience.ISSUER)
        ),
        tls=None if tls is None else read_tls_identity(tls, owner=client_id),
        exchange=None if exchange is None else read_exchange_policy(Fields(exchange)),
        certificate_bound=fields.optional_flag("certificate_bound_access_tokens"),
        dpop=_proof_of_key(fields),
    )


_TLS = "tls_client_auth"


def _proof_of_key(fields: Fields) -> ProofOfKey | None:
    value = fields.true_or("dpop", among={ProofOfKey.REQUIRED})
    if value is False:
        return None
    return ProofOfKey.OPTIONAL if value is True else ProofOfKey.REQUIRED


def _read_user(fields: Fields) -> User:
    clients = fields.optional_names("clients")
    return User(
        username=fields.text("username"),
        passwords=_secrets(fields, "password_hashes"),
        scopes=fields.optional_scope("scopes") or NO_SCOPE,
        clients=None if clients is None else frozenset(clients),
        enabled=fields.flag("enabled", default=True),
    )


_READERS: dict[ObjectKind, Callable[[Fields], Realm | Client | User | TrustRule]] = {
    ObjectKind.REALM: _read_realm,
    ObjectKind.CLIENT: _read_client,
    ObjectKind.USER: _read_user,
    ObjectKind.TRUST: read_trust_rule,
}
MAX_SECRETS = 8  # of one client: a rotation needs two, and every further one is work for each wrong guess


def _grant_types(fields: Fields) -> frozenset[str]:
    names = fields.optional_names("grant_types")
    if names is None:
        return frozenset({CLIENT_CREDENTIALS})
    if not GRANT_TYPES.issuperset(names):
        raise ProtocolError("grant_types names a grant that this release does not know")
    return frozenset(names)


def _secrets(fields: Fields, name: str) -> tuple[StoredSecret, ...]:
    objects = fields.objects(name)
    if len(objects) > MAX_SECRETS:
        raise ProtocolError(f"{name} has more than {MAX_SECRETS} hashes")
    return tuple(map(_secret, objects))


def _secret(members: Mapping[str, Any]) -> StoredSecret:
    fields = Fields(members)
    secret = StoredSecret(
        hash=parse_hash(fields.text("hash")),
        created_at=fields.integer("created_at"),
        expires_at=fields.optional_integer("expires_at"),
    )
    fields.finish()
    return secret
