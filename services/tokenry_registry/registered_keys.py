"""Public keys that a stored object registers: strictly read, because whoever holds the other half gets in. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import Algorithm, thumbprint
from tokenry.jose.jwks import KeySet

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_KEYS = 16  # of one client or trust rule: a rotation needs two


def read_keys(jwks: Mapping[str, Any], *, owner: str, algorithms: Collection[Algorithm] = (Algorithm.ES256,)) -> KeySet:
    """
    Return the keys of a JWK Set that is written down in a stored object.

    A key without `kid` is known by its thumbprint (RFC 7638). Unlike a set that somebody else publishes, one of our
    own configuration has no key that may be left out.

    Args:
        jwks: The JWK Set (RFC 7517 section 5).
        owner: Whose keys they are: the `iss` of what they sign.
        algorithms: What they may sign with.

    Raises:
        ProtocolError: There is no key, there are too many, or one of them is not usable.
    """
    listed = jwks.get("keys")
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_KEYS:
        raise ProtocolError(f"jwks is no JWK Set of 1 to {MAX_KEYS} keys")
    keys = KeySet.parse(dump_json({"keys": [_named(jwk) for jwk in listed]}), issuer=owner, algorithms=algorithms)
    if keys.rejected:
        raise ProtocolError("; ".join(keys.rejected))
    return keys


def _named(jwk: object) -> object:
    if isinstance(jwk, dict) and "kid" not in jwk:
        return {**jwk, "kid": thumbprint(jwk)}
    return jwk
