"""
Trust rules: whose JWTs stand in for a client's secret, and which of them (RFC 7523). Pure.

    realms/<realm>/trust/<name>.json

    {"name": "payments-api", "client_id": "payments-api",
     "issuer": "https://kubernetes.default.svc.cluster.local", "jwks": {"keys": [...]}, "algorithms": ["RS256"],
     "audience": "https://issuer.example.org",
     "conditions": {"sub": "system:serviceaccount:payments:api",
                    "kubernetes.io": {"namespace": "payments", "serviceaccount": {"name": "api"}}},
     "single_use": false}

An issuer alone proves nothing: it signs for everybody on its platform. So conditions are mandatory, and so is an
audience that is ours: a token that was made for somebody else must not open anything here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tokenry.errors import ProtocolError
from tokenry.jose.jwk import Algorithm
from tokenry.oauth.assertions import MAX_ISSUER, AssertionRules
from tokenry_registry.registered_keys import read_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.jose.jwks import KeySet
    from tokenry_registry.fields import Fields

DEFAULT_LIFETIME: Final = 3900  # seconds: platforms give an hour, and some add a few seconds
MAX_LIFETIME: Final = 24 * 3600  # seconds: a token that lives longer is a secret
MAX_DEPTH: Final = 4  # of conditions: `kubernetes.io` has three levels
MAX_CONDITIONS: Final = 32
MAX_CHOICES: Final = 64  # values of one condition
# What says nothing about who it is: conditions on these alone are none.
_SAYS_NOTHING: Final = frozenset({"iss", "aud", "exp", "iat", "nbf", "jti"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRule:
    """
    Which JWTs of one foreign issuer stand for one client.

    Attributes:
        name: Its name in the realm.
        issuer: The foreign issuer.
        client_id: The client that they stand for.
        audience: The one audience that they have.
        conditions: What their claims must be, all of them, as nested members of the claims; a list holds choices.
        algorithms: What the issuer signs with.
        keys: Its keys, where they are written down here.
        jwks_uri: Where its keys are, where they are not.
        max_lifetime: Seconds that such a token may live.
        single_use: Whether each is good once; off for those that are kept and sent again by design.
        enabled: Whether the rule counts.
    """

    name: str
    issuer: str
    client_id: str
    audience: str
    conditions: Mapping[str, Any] = field(repr=False)
    algorithms: tuple[Algorithm, ...]
    keys: KeySet | None = None
    jwks_uri: str | None = None
    max_lifetime: int = DEFAULT_LIFETIME
    single_use: bool = True
    enabled: bool = True

    def fits(self, claims: Mapping[str, Any]) -> bool:
        """Tell whether *claims* meet every condition; before they are verified, that only chooses a rule."""
        return _meets(claims, self.conditions)

    def assertion_rules(self, keys: KeySet) -> AssertionRules:
        """Return what a JWT must be to count by this rule, verified with *keys*."""
        return AssertionRules(
            issuer=self.issuer,
            keys=keys,
            audiences=frozenset({self.audience}),
            algorithms=self.algorithms,
            max_ahead=self.max_lifetime,
            max_lifetime=self.max_lifetime,
            needs_jti=self.single_use,
        )


def _meets(value: Any, condition: Any) -> bool:  # noqa: ANN401 -- any JSON values
    if isinstance(condition, dict):
        return isinstance(value, dict) and all(
            name in value and _meets(value[name], condition[name]) for name in condition
        )
    choices = condition if isinstance(condition, list) else [condition]
    # Of one type as well: to Python, true is 1.
    return any(type(value) is type(choice) and value == choice for choice in choices)


def read_trust_rule(fields: Fields) -> TrustRule:
    """
    Return the rule that a stored object describes.

    Raises:
        ProtocolError: A member is missing or malformed, or the rule would trust too much.
    """
    issuer, audience = fields.text("issuer"), fields.text("audience")
    if len(issuer) > MAX_ISSUER:
        raise ProtocolError("issuer is too long")
    if audience == issuer:
        raise ProtocolError("audience is the other issuer itself: its tokens would be for its own services, not for us")
    algorithms = _algorithms(fields)
    jwks, jwks_uri = fields.optional_object("jwks"), fields.optional_text("jwks_uri")
    if (jwks is None) == (jwks_uri is None):
        raise ProtocolError("a trust rule has jwks or jwks_uri, and not both")
    if jwks_uri is not None:
        check_jwks_uri(jwks_uri)
    conditions = fields.optional_object("conditions")
    _check_conditions(conditions)
    return TrustRule(
        name=fields.text("name"),
        issuer=issuer,
        client_id=fields.text("client_id"),
        audience=audience,
        conditions=conditions or {},
        algorithms=algorithms,
        keys=None if jwks is None else read_keys(jwks, owner=issuer, algorithms=algorithms),
        jwks_uri=jwks_uri,
        max_lifetime=fields.optional_integer("max_lifetime", at_least=1, at_most=MAX_LIFETIME) or DEFAULT_LIFETIME,
        single_use=fields.flag("single_use", default=True),
        enabled=fields.flag("enabled", default=True),
    )


def _algorithms(fields: Fields) -> tuple[Algorithm, ...]:
    names = fields.names("algorithms")
    if not names or not set(names) <= set(Algorithm):
        raise ProtocolError(f"algorithms names one or several of {', '.join(Algorithm)}")
    return tuple(map(Algorithm, names))


def check_jwks_uri(text: str) -> None:
    """
    Refuse what is no place that a JWK Set may be fetched from (RFC 8725 section 3.10).

    Raises:
        ProtocolError: It is not an https URL without user name and fragment.
    """
    try:
        url = urlsplit(text)
        bad = url.scheme != "https" or not url.hostname or url.username is not None or "#" in text or url.port == 0
    except ValueError:
        bad = True
    if bad or not text.isascii() or " " in text:
        raise ProtocolError("jwks_uri is no https URL")


def _check_conditions(conditions: Mapping[str, Any] | None) -> None:
    if not conditions or _SAYS_NOTHING.issuperset(conditions):
        raise ProtocolError("conditions name no claim that says who it is: every token of the issuer would be let in")
    if _count(conditions, depth=0) > MAX_CONDITIONS:
        raise ProtocolError(f"there are more than {MAX_CONDITIONS} conditions")


def _count(condition: Any, *, depth: int) -> int:  # noqa: ANN401 -- any JSON value
    """Return how many leaves there are; refuse a leaf that is none."""
    if isinstance(condition, dict):
        if depth >= MAX_DEPTH or not condition:
            raise ProtocolError(f"conditions are empty, or nested deeper than {MAX_DEPTH} levels")
        return sum(_count(each, depth=depth + 1) for each in condition.values())
    choices = condition if isinstance(condition, list) else [condition]
    if not 0 < len(choices) <= MAX_CHOICES or not all(type(each) in (str, int, bool) for each in choices):
        raise ProtocolError("a condition is a text, a whole number, true or false, or a list of these")
    if "" in choices:
        raise ProtocolError("a condition is an empty text")
    return 1
