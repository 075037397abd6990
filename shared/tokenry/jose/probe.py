"""
A key shows that it signs what others verify, before it signs for anybody.

Our own code on both sides would agree with itself also where it is wrong. So the probe is a whole token, and PyJWT,
which most validators of other teams are made of, has to accept it too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import jwt

from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import BadSignature, PublicKey
from tokenry.jose.jws import sign, split

if TYPE_CHECKING:
    from tokenry.jose.jwk import Signer

_PROBE: Final[dict[str, Any]] = {"sub": "probe", "scope": ["a", "b"]}


def check_key(signer: Signer, public: PublicKey) -> None:
    """
    Return if a token that *signer* signs verifies under *public*, here and with PyJWT.

    Raises:
        BadSignature: It does not: the halves do not belong together, or one of the implementations is broken.
    """
    token = sign({"typ": "JWT"}, dump_json(_PROBE), signer)
    parts = split(token)
    public.verify(parts.signing_input, parts.signature, low_s=True)
    try:
        key = jwt.PyJWK(json.loads(dump_json(public.to_jwk())))
        said = jwt.decode(token, key, algorithms=[str(public.algorithm)])
    except jwt.PyJWTError:
        raise BadSignature("another implementation does not accept what this key signs") from None
    if said != _PROBE:
        raise BadSignature("another implementation reads something else than was signed")
