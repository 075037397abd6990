"""
DPoP (RFC 9449): a proof, signed for one request, that the sender of a token has the key that the token is bound to.

Both halves, pure: `make_proof` for who sends, `read_proof` and `SeenProofs` for who receives. Time and randomness are
arguments. Nonces (section 8) are sent to servers that ask for them; ours ask for none, and judge a proof without it.

A proof is checked in numbered steps (section 4.3):

1. one header field with one compact JWS in it
2. `typ` is `dpop+jwt`, `alg` is ES256, `jwk` is a public P-256 key
3. the signature is that key's
4. `htm` and `htu` are those of the request, query and fragment left out
5. `iat` is within the window
6. `ath` is that of the token, where there is one
7. the `jti` was not seen (`SeenProofs`; after everything else, the token among it, was found good)
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import b64url_encode, dump_json, parse_json_object
from tokenry.jose.jwk import Algorithm, BadSignature, PublicKey, thumbprint
from tokenry.jose.jws import MalformedJws, split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tokenry.jose.jwk import PrivateKey

TYP: Final = "dpop+jwt"
SCHEME: Final = "DPoP"
ALGORITHMS: Final = (str(Algorithm.ES256),)
MAX_PROOF_BYTES: Final = 4 * 1024  # ours have some 450 bytes; a long URL takes the rest
MAX_JTI: Final = 256
MAX_AGE: Final = 60  # seconds that a proof is good after its `iat`: a slow network, and clocks that differ
LEEWAY: Final = 5  # seconds by which `iat` may lie ahead of our clock
MAX_REMEMBERED: Final = 200_000  # proofs, some 40 MB: three thousand requests a second for a minute
MAX_PER_KEY: Final = 100_000  # half of it: no single sender can fill it for the others
_LATEST: Final = 253_402_300_799
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class ProofFault(StrEnum):
    """What is wrong with a proof: for logs and tests, never for the sender."""

    NOT_ONE = "not_one"
    MALFORMED = "malformed"
    WRONG_TYPE = "wrong_type"
    WRONG_ALGORITHM = "wrong_algorithm"
    BAD_KEY = "bad_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_METHOD = "wrong_method"
    WRONG_URL = "wrong_url"
    OUTSIDE_WINDOW = "outside_window"
    WRONG_TOKEN = "wrong_token"  # noqa: S105 -- the name of a fault
    USED_BEFORE = "used_before"


class BadProof(TokenryError):
    """
    The proof proves nothing (RFC 9449 section 4.3, `invalid_dpop_proof`).

    Attributes:
        fault: The first step that failed.
    """

    def __init__(self, fault: ProofFault) -> None:
        """Refuse for *fault*."""
        self.fault = fault
        super().__init__(f"the DPoP proof is not valid ({fault})")


class MemoryFull(TokenryError):
    """There is no room to remember one more proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """
    What a good proof says.

    Attributes:
        jkt: Thumbprint of the key that signed it.
        jti: Its id.
        good_until: Unix seconds until which it could be presented again.
    """

    jkt: str
    jti: str
    good_until: float


# --- sending ---


def make_proof(
    key: PrivateKey,
    *,
    method: str,
    url: str,
    now: float,
    jti: str,
    token: str | None = None,
    nonce: str | None = None,
) -> str:
    """
    Return a proof for one request (RFC 9449 section 4.2).

    Args:
        key: What the token is, or is going to be, bound to.
        method: HTTP method.
        url: The request's URL; query and fragment are left out.
        now: Unix seconds.
        jti: An id that was not used before, with at least 96 random bits.
        token: The access token in the request; None at the token endpoint.
        nonce: What the server gave lately as `DPoP-Nonce` (section 8).

    Raises:
        ProtocolError: The URL is not one of HTTP.
    """
    header = {"typ": TYP, "alg": str(key.algorithm), "jwk": dict(key.public.members)}
    claims: dict[str, Any] = {"jti": jti, "htm": method, "htu": "".join(_split(url)), "iat": int(now)}
    if token is not None:
        claims["ath"] = token_hash(token)
    if nonce is not None:
        claims["nonce"] = nonce
    signing_input = f"{b64url_encode(dump_json(header))}.{b64url_encode(dump_json(claims))}"
    return f"{signing_input}.{b64url_encode(key.sign(signing_input.encode('ascii')))}"


def origin_of(url: str) -> str:
    """Return scheme, host and port of *url* in one spelling; raises ProtocolError for what is no URL of HTTP."""
    return _split(url)[0]


def token_hash(token: str) -> str:
    """Return the claim `ath` for *token*."""
    return b64url_encode(hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest())


def target(url: str) -> str:
    """
    Return *url* without query and fragment, in one spelling, for comparing (RFC 3986 section 6.2.2 and 6.2.3).

    Raises:
        ProtocolError: It is no absolute URL of HTTP.
    """
    origin, path = _split(url)
    # `/` and `%2F` are one here, as they are to most applications.
    return origin + quote(unquote(path, errors="surrogateescape"), safe="/", errors="surrogateescape")


def _split(url: str) -> tuple[str, str]:
    """Return origin and path of *url*."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        port = parts.port
    except ValueError:
        raise ProtocolError("not a URL") from None
    if parts.scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc:
        raise ProtocolError("not an absolute URL of http or https")
    where = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        where = f"{where}:{port}"
    return f"{parts.scheme}://{where}", parts.path or "/"


# --- receiving ---


def dpop_token(authorization: Sequence[str]) -> str | None:
    """Return the token behind the scheme `DPoP` in the one value of an `Authorization` field, or None."""
    if len(authorization) != 1:
        return None
    scheme, _, token = authorization[0].partition(" ")
    return token if scheme.lower() == "dpop" and token else None


def read_proof(
    values: Sequence[str],
    *,
    method: str,
    is_target: Callable[[str], bool],
    now: float,
    token: str | None = None,
    max_age: float = MAX_AGE,
    leeway: float = LEEWAY,
) -> Proof:
    """
    Return what the proof in a request says: steps 1 to 6.

    Args:
        values: Every value of the header field `DPoP`.
        method: The request's HTTP method.
        is_target: Tells whether a URL, as `target` spells it, is that of the request.
        now: Unix seconds.
        token: The access token in the request; None at the token endpoint.
        max_age: Seconds that a proof is good after its `iat`.
        leeway: Seconds by which `iat` may lie ahead.

    Raises:
        BadProof: With the first step that failed.
    """
    text = _only(values)
    try:
        parts = split(text, max_bytes=MAX_PROOF_BYTES)
        claims = parse_json_object(parts.payload)
    except (MalformedJws, ProtocolError):
        raise BadProof(ProofFault.MALFORMED) from None
    key, jkt = _key(parts.header)
    try:
        key.verify(parts.signing_input, parts.signature, low_s=False)  # what is remembered is its id, not its bytes
    except BadSignature:
        raise BadProof(ProofFault.BAD_SIGNATURE) from None
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
        raise BadProof(ProofFault.MALFORMED)
    if claims.get("htm") != method:
        raise BadProof(ProofFault.WRONG_METHOD)
    _check_target(claims.get("htu"), is_target)
    issued_at = _moment(claims.get("iat"))
    if not now - max_age <= issued_at <= now + leeway:
        raise BadProof(ProofFault.OUTSIDE_WINDOW)
    # Public values on both sides: the comparison may tell how much of them agrees.
    if token is not None and claims.get("ath") != token_hash(token):
        raise BadProof(ProofFault.WRONG_TOKEN)
    return Proof(jkt=jkt, jti=jti, good_until=issued_at + max_age)


def _only(values: Sequence[str]) -> str:
    """Step 1. Servers may join two fields of one name by a comma, which no JWS contains."""
    if len(values) != 1 or "," in values[0] or not values[0]:
        raise BadProof(ProofFault.NOT_ONE)
    return values[0]


def _key(header: Mapping[str, Any]) -> tuple[PublicKey, str]:
    """Step 2."""
    if header.get("typ", "").lower() != TYP:
        raise BadProof(ProofFault.WRONG_TYPE)
    if header.get("alg") not in ALGORITHMS:
        raise BadProof(ProofFault.WRONG_ALGORITHM)
    jwk = header.get("jwk")
    if not isinstance(jwk, dict):
        raise BadProof(ProofFault.BAD_KEY)
    try:
        jkt = thumbprint(jwk)
        return PublicKey.from_jwk({**jwk, "kid": jkt}), jkt
    except ProtocolError:
        raise BadProof(ProofFault.BAD_KEY) from None


def _check_target(htu: object, is_target: Callable[[str], bool]) -> None:
    try:
        if isinstance(htu, str) and is_target(target(htu)):
            return
    except ProtocolError:
        pass
    raise BadProof(ProofFault.WRONG_URL)


def _moment(value: object) -> float:
    if type(value) not in (int, float) or not 0 <= value <= _LATEST:  # type: ignore[operator]
        raise BadProof(ProofFault.MALFORMED)
    return float(value)  # type: ignore[arg-type]


class SeenProofs:
    """
    Which proofs were used in this process (RFC 9449 section 11.1); to be used under a lock.

    What is remembered is never forgotten while it could be presented again: when there is no room, the next proof is
    refused for a while rather than an old one let through twice.
    """

    def __init__(self, *, max_remembered: int = MAX_REMEMBERED, max_per_key: int = MAX_PER_KEY) -> None:
        """Remember at most *max_remembered* proofs, and *max_per_key* of one key."""
        self._max_remembered = max_remembered
        self._max_per_key = max_per_key
        self._seen: dict[bytes, str] = {}
        self._ends: list[tuple[float, bytes]] = []
        self._of_key: Counter[str] = Counter()

    def use(self, proof: Proof, *, now: float) -> None:
        """
        Remember that *proof* is used now (Unix seconds): step 7.

        Raises:
            BadProof: It was used before.
            MemoryFull: It cannot be remembered.
        """
        while self._ends and self._ends[0][0] < now:
            jkt = self._seen.pop(heapq.heappop(self._ends)[1])
            self._of_key[jkt] -= 1
            if not self._of_key[jkt]:
                del self._of_key[jkt]
        digest = hashlib.sha256(f"{proof.jkt}.{proof.jti}".encode("utf-8", "surrogatepass")).digest()[:16]
        if digest in self._seen:
            raise BadProof(ProofFault.USED_BEFORE)
        if len(self._seen) >= self._max_remembered or self._of_key[proof.jkt] >= self._max_per_key:
            raise MemoryFull("too many DPoP proofs are remembered")
        self._seen[digest] = proof.jkt
        self._of_key[proof.jkt] += 1
        heapq.heappush(self._ends, (proof.good_until, digest))

    def __len__(self) -> int:
        """Return how many are remembered, be they over since the last use."""
        return len(self._seen)
