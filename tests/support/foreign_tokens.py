"""JWTs signed by another library (PyJWT) with keys of their own: what clients and foreign issuers send us."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


@dataclass(frozen=True)
class ForeignKey:
    """A private key that is not the issuer's, with its id and its one algorithm."""

    kid: str
    algorithm: str
    private: Any

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half, as its owner publishes it."""
        kind = RSAAlgorithm if self.algorithm == "RS256" else ECAlgorithm
        members = kind.to_jwk(self.private.public_key(), as_dict=True)
        members.pop("key_ops", None)
        return {**members, "kid": self.kid, "use": "sig", "alg": self.algorithm}

    @property
    def jwks(self) -> dict[str, Any]:
        """A JWK Set of this key alone."""
        return {"keys": [self.jwk]}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """Return *claims* signed; *header* adds to it, and None takes away."""
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers={"kid": self.kid, **header})


@cache
def foreign_key(kid: str, algorithm: str = "ES256") -> ForeignKey:
    """Return the key called *kid*, made once a run."""
    match algorithm:
        case "ES256":
            private: Any = ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            private = ec.generate_private_key(ec.SECP384R1())
        case _:
            private = rsa.generate_private_key(65537, 2048)
    return ForeignKey(kid, algorithm, private)
