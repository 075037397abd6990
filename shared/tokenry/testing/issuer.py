"""
A whole platform for tests: real signatures, tokens, introspection, revocation, and an outage switch.

It answers in memory (it is a `Fetcher`) and, after `serve`, over HTTP on a loopback port. Nothing in it is a
secret, and nothing of it belongs into production.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from tokenry.client.proofs import ProofKey
from tokenry.clock import Clock, SystemClock
from tokenry.errors import InvalidToken, TokenryError
from tokenry.http.fetch import Failure, FetchFailed, Headers, Request, Response
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_encode, dump_json, parse_json_object
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet
from tokenry.oauth.bearer import bearer_token
from tokenry.oauth.client_authentication import read_client_credential
from tokenry.oauth.dpop import BadProof, SeenProofs, read_proof, target
from tokenry.oauth.errors import OAuthError, invalid_client, invalid_grant, invalid_scope, unsupported_grant_type
from tokenry.oauth.form import Form, parse_form, parse_query
from tokenry.oauth.introspection import active_response, parse_introspection_request
from tokenry.oauth.token_endpoint import parse_token_request
from tokenry.scope import NO_SCOPE, Scope, format_scope, parse_scope, scope_of
from tokenry.testing.revocations import RevocationSimulator
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE, AnyAudience, TrustedIssuer, ValidationPolicy
from tokenry.validation.snapshots import Snapshot
from tokenry.validation.validator import ANY_CONFIRMATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenry.revocation.lists import RevocationList
    from tokenry.testing.server import LoopbackServer

CLIENT_ID: Final = "test-client"
CLIENT_SECRET: Final = "test-secret"  # noqa: S105 -- of a fake
USERNAME: Final = "test-user"
PASSWORD: Final = "test-password"  # noqa: S105 -- of a fake
AUDIENCE: Final = "test-audience"
REALM: Final = "/services"
LIFETIME_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """
    A request that the fake was asked.

    Attributes:
        method: HTTP method.
        path: Path without the query string.
        query: Parameters of the query string.
        headers: Header fields by lower-cased name.
        form: Parameters of a form body.
        body: The body as received.
    """

    method: str
    path: str
    query: Form
    headers: Headers
    form: Form
    body: bytes = field(repr=False)


class FakeIssuer:
    """
    An issuer, token info and revocation service in one object.

    Args:
        clock: Its time; give the code under test the same clock.
        issuer: Issuer identifier, until `serve` replaces it by a loopback URL.
        audience: Audience of tokens for which none is asked.
        lifetime: Seconds that its tokens live; also the platform's longest lifetime.
        profile: Form of `scope` in its tokens: `rfc9068` (a string) or `plan-b` (an array).

    Attributes:
        down: While True nothing is answered and nothing that was read becomes newer.
        clients: Secrets by client id.
        users: Passwords by user name.
        revocations: The list behind `revoke` and its kin.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        issuer: str = "https://issuer.test",
        audience: str = AUDIENCE,
        lifetime: int = LIFETIME_SECONDS,
        profile: str = "rfc9068",
    ) -> None:
        """Make a fresh signing key."""
        self.clock = clock or SystemClock()
        self.issuer = issuer
        self.audience = audience
        self.lifetime = lifetime
        self.profile = profile
        self.down = False
        self.clients = {CLIENT_ID: CLIENT_SECRET}
        self.users = {USERNAME: PASSWORD}
        self.revocations = RevocationSimulator(clock=self.clock, max_token_lifetime=lifetime)
        self._keys = [PrivateKey.generate()]
        self._stranger = PrivateKey.generate()
        self._jwks: KeySet | None = None
        self._proof_key: ProofKey | None = None
        self._seen_proofs = SeenProofs()
        self._requests: deque[RecordedRequest] = deque(maxlen=10_000)
        self._arrived = threading.Condition()
        self._scripted: deque[Response] = deque()
        self._issued_from = 0
        self._server: LoopbackServer | None = None

    # --- tokens, good and bad ---

    def token(
        self,
        sub: str = CLIENT_ID,
        *,
        scope: str | Iterable[str] = "",
        audience: str | Iterable[str] | None = None,
        lifetime: int | None = None,
        expired: bool = False,
        wrong_key: bool = False,
        alg: str = "ES256",
        profile: str | None = None,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> str:
        """
        Return a signed access token of client *sub*.

        Args:
            sub: Subject and client.
            scope: Granted scopes.
            audience: One or several; default: the issuer's default audience.
            lifetime: Seconds that it lives.
            expired: Its life is over.
            wrong_key: Signed by a stranger's key, under the name of ours.
            alg: `none` and `HS256` (keyed by our public key) give the well-known attacks.
            profile: `plan-b` (or `planb`) makes `scope` an array.
            claims: Replace or add claims; a value of None removes one.
            header: Replace or add members of the header; a value of None removes one.
        """
        names = parse_scope(scope) if isinstance(scope, str) else scope_of(scope)
        life = self.lifetime if lifetime is None else lifetime
        now = math.floor(self.clock.now())
        iat = now - life - 60 if expired else max(now, self._issued_from)
        array = (profile or self.profile).replace("-", "") == "planb"
        payload: dict[str, Any] = {
            "iss": self.issuer,
            "sub": sub,
            "aud": self._audience(audience),
            "client_id": sub,
            "azp": sub,
            "exp": iat + life,
            "iat": iat,
            "jti": uuid.uuid4().hex,
            "scope": sorted(names) if array else format_scope(names),
            "realm": REALM,
        }
        key = self._keys[-1]
        head: dict[str, Any] = {"alg": alg, "kid": key.kid, "typ": "at+jwt"}
        return self._sign(_changed(head, header), _changed(payload, claims), self._stranger if wrong_key else key)

    def headers(self, sub: str = CLIENT_ID, **more: Any) -> dict[str, str]:  # noqa: ANN401 -- those of `token`
        """Return the `Authorization` header with a token as `token` makes it."""
        return {"Authorization": f"Bearer {self.token(sub, **more)}"}

    def dpop_headers(
        self,
        method: str,
        url: str,
        sub: str = CLIENT_ID,
        **more: Any,  # noqa: ANN401 -- those of `token`
    ) -> dict[str, str]:
        """Return the headers of one request with a token that is bound to a key, and a proof (RFC 9449)."""
        claims = {**(more.pop("claims", None) or {}), "cnf": {"jkt": self.proof_key.jkt}}
        token = self.token(sub, claims=claims, **more)
        return {"Authorization": f"DPoP {token}", "DPoP": self.proof_key.prove(method, url, token=token)}

    @property
    def proof_key(self) -> ProofKey:
        """The key of `dpop_headers`."""
        if self._proof_key is None:
            self._proof_key = ProofKey(self.clock)
        return self._proof_key

    def rotate_key(self, *, keep_old: bool = True) -> str:
        """Sign with a new key from now on; return its `kid`. *keep_old* keeps the others published."""
        self._keys = [*(self._keys if keep_old else []), PrivateKey.generate()]
        self._jwks = None
        return self._keys[-1].kid

    # --- revocation ---

    def revoke(self, token: str) -> str:
        """Revoke *token*; return the revocation's id."""
        parts = jws.split(token)
        claims = parse_json_object(parts.payload)
        return self.revocations.revoke_token(
            iss=claims["iss"],
            jti=claims.get("jti"),
            signing_input=token.rpartition(".")[0],
            exp=claims["exp"],
        )

    def revoke_claim(self, *, issued_before: int | None = None, **claims: str) -> str:
        """Revoke the tokens issued up to now that carry all *claims*; those issued later are good."""
        return self.revocations.revoke_claims(claims, issued_before=self._cut_off(issued_before))

    def revoke_key(self, kid: str | None = None) -> str:
        """Revoke all tokens of a key; default: of the one that signs."""
        return self.revocations.revoke_key(iss=self.issuer, kid=kid or self._keys[-1].kid)

    def revoke_all(self, *, issued_before: int | None = None) -> str:
        """Revoke all tokens issued up to now; those issued later are good."""
        return self.revocations.revoke_all(issued_before=self._cut_off(issued_before))

    def undo(self, name: str) -> str:
        """Lift a revocation of claims or of everything."""
        return self.revocations.undo(name)

    # --- what the code under test uses ---

    def validator(
        self,
        audience: str | Iterable[str] | AnyAudience | None = None,
        **policy: Any,  # noqa: ANN401 -- those of ValidationPolicy
    ) -> TokenValidator:
        """
        Return a validator that sees this issuer's keys and revocations at once, without a network.

        Args:
            audience: Default: the issuer's default audience.
            policy: Other fields of `ValidationPolicy`.
        """
        wanted = self.audience if audience is None else audience
        trusted = TrustedIssuer(issuer=self.issuer, max_token_lifetime=self.lifetime)
        return TokenValidator.from_sources(
            ValidationPolicy(
                issuers=(trusted,),
                audience=wanted if isinstance(wanted, str | AnyAudience) else tuple(wanted),
                **policy,
            ),
            keys=_LiveKeys(self),
            revocations=_LiveRevocations(self),
            clock=self.clock,
        )

    def key_set(self) -> KeySet:
        """Return the published keys."""
        if self._jwks is None:
            self._jwks = KeySet.of(self.issuer, [key.public for key in self._keys])
        return self._jwks

    def serve(self, *, port: int = 0) -> str:
        """
        Serve over HTTP on loopback, and return the URL, which becomes the issuer identifier.

        Call it before the first token is made; end it with `close`.
        """
        from tokenry.testing.server import LoopbackServer

        if self._server is None:
            self._server = LoopbackServer(self._answer_over_http, port=port)
            self.issuer = self._server.url
            self._jwks = None
        return self.issuer

    def close(self) -> None:
        """Stop serving."""
        self.revocations.close()
        if self._server is not None:
            self._server.close()
            self._server = None

    def __enter__(self) -> Self:
        """Serve."""
        self.serve()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self.close()

    def environment(self) -> dict[str, str]:
        """Return the variables that make `ClientCredentials` use this issuer."""
        return {
            "TOKENRY_ISSUER": self.issuer,
            "TOKENRY_CLIENT_ID": CLIENT_ID,
            "TOKENRY_CLIENT_SECRET": self.clients[CLIENT_ID],
        }

    def enqueue(self, response: Response) -> None:
        """Answer the next request to the token endpoint with *response*."""
        self._scripted.append(response)

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """All requests so far, the oldest first."""
        return tuple(self._requests)

    def token_requests(self) -> tuple[RecordedRequest, ...]:
        """The requests for tokens so far."""
        return tuple(request for request in self.requests if request.path == "/oauth2/token")

    def take_request(self, *, timeout: float = 5.0) -> RecordedRequest:
        """
        Remove and return the oldest request; wait for it if need be, at most *timeout* seconds.

        Raises:
            TimeoutError: There was none.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._requests, timeout):
                raise TimeoutError("the fake issuer was asked nothing")
            return self._requests.popleft()

    # --- the Fetcher port ---

    def fetch(self, request: Request) -> Response:
        """
        Answer *request* as the services would.

        Raises:
            FetchFailed: The issuer is down.
        """
        if self.down:
            raise FetchFailed(Failure.CONNECT, f"{request.method} {self.issuer}: the fake issuer is down")
        return self._answer(request, hold=False)

    def cancel(self) -> None:
        """Nothing is ever under way."""

    # --- inside ---

    def _answer_over_http(self, request: Request) -> Response | None:
        """Return the answer, or None to close the connection without one."""
        return None if self.down else self._answer(request, hold=True)

    def _answer(self, request: Request, *, hold: bool) -> Response:
        asked = _recorded(request)
        with self._arrived:
            self._requests.append(asked)
            self._arrived.notify_all()
        try:
            if asked.path.startswith("/revocations/"):
                return self.revocations.answer(request.url, asked.headers, hold=hold)
            return self._route(asked)
        except OAuthError as error:
            return _json(error.body(), status=error.status, headers=error.headers)

    def _route(self, asked: RecordedRequest) -> Response:
        match asked.method, asked.path:
            case "GET", "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration":
                return _json(self._metadata())
            case "GET", "/.well-known/jwks.json" | "/oauth2/connect/keys":
                return self._serve_keys(asked)
            case "POST", "/oauth2/token" | "/oauth2/access_token":
                return self._scripted.popleft() if self._scripted else self._issue(asked)
            case "POST", "/oauth2/introspect":
                return self._introspect(asked)
            case _:
                return _json({"error": "invalid_request"}, status=404)

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/oauth2/token",
            "jwks_uri": f"{self.issuer}/.well-known/jwks.json",
            "introspection_endpoint": f"{self.issuer}/oauth2/introspect",
            "revocation_list_uri": f"{self.issuer}/revocations",
            "grant_types_supported": ["client_credentials", "password"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "response_types_supported": ["none"],
        }

    def _serve_keys(self, asked: RecordedRequest) -> Response:
        document = self.key_set().to_jwks()
        etag = f'"{hashlib.sha256(document).hexdigest()[:16]}"'
        if asked.headers.get("if-none-match") == etag:
            return Response(status=304, headers=Headers([("ETag", etag)]))
        fields = [("Content-Type", "application/jwk-set+json"), ("ETag", etag)]
        return Response(status=200, headers=Headers(fields), body=document)

    def _issue(self, asked: RecordedRequest) -> Response:
        request = parse_token_request(asked.form, query=asked.query)
        client = self._authenticate(asked)
        subject = client
        if request.grant_type == "password":
            given = request.password.reveal() if request.password is not None else ""
            if request.username is None or self.users.get(request.username) != given:
                raise invalid_grant()
            subject = request.username
        elif request.grant_type != "client_credentials":
            raise unsupported_grant_type()
        scope: Scope = request.scope or NO_SCOPE
        if "refused" in scope:
            raise invalid_scope(["refused"])
        claims: dict[str, Any] = {"client_id": client, "azp": client}
        jkt = self._proved(asked)
        if jkt is not None:
            claims["cnf"] = {"jkt": jkt}
        token = self.token(subject, scope=scope, audience=request.targets or None, claims=claims)
        return _json(
            {
                "access_token": token,
                "token_type": "Bearer" if jkt is None else "DPoP",
                "expires_in": self.lifetime,
                "scope": format_scope(scope),
                "realm": REALM,
            }
        )

    def _proved(self, asked: RecordedRequest) -> str | None:
        """Return the thumbprint of the key that signed the proof in a request for a token, if there is one."""
        value = asked.headers.get("dpop")
        if value is None:
            return None
        endpoint = target(f"{self.issuer}{asked.path}")
        now = self.clock.now()
        try:
            proof = read_proof([value], method="POST", is_target=endpoint.__eq__, now=now)
            self._seen_proofs.use(proof, now=now)
        except BadProof:
            raise OAuthError("invalid_dpop_proof", "the proof is not valid") from None
        return proof.jkt

    def _introspect(self, asked: RecordedRequest) -> Response:
        authorization = asked.headers.get("authorization")
        if not self._is_bearer(authorization):
            self._authenticate(asked)
        try:
            token = parse_introspection_request(asked.form)
            info = self.validator(ANY_AUDIENCE).validate(token, confirmation=ANY_CONFIRMATION)
        except InvalidToken:
            return _json({"active": False})
        return _json(active_response(info))

    def _is_bearer(self, authorization: str | None) -> bool:
        token = bearer_token([authorization] if authorization else [])
        if token is None:
            return False
        try:
            self.validator(ANY_AUDIENCE).validate(token, scope="token.introspect")
        except TokenryError:
            raise invalid_client() from None
        return True

    def _authenticate(self, asked: RecordedRequest) -> str:
        authorization = asked.headers.get("authorization")
        credential = read_client_credential([authorization] if authorization else [], asked.form)
        for reading in credential.readings if credential is not None else ():
            known = self.clients.get(reading.client_id)
            if known is not None and reading.secret.matches(known):
                return reading.client_id
        raise invalid_client(realm="tokenry")

    def _audience(self, audience: str | Iterable[str] | None) -> str | list[str]:
        if audience is None:
            return self.audience
        if isinstance(audience, str):
            return audience
        several = list(audience)
        return several[0] if len(several) == 1 else several

    def _cut_off(self, issued_before: int | None) -> int:
        """Return a moment after every token so far; tokens from now on bear it, or a later one."""
        if issued_before is not None:
            return issued_before
        self._issued_from = max(math.floor(self.clock.now()), self._issued_from) + 1
        return self._issued_from

    def _sign(self, header: dict[str, Any], payload: dict[str, Any], key: PrivateKey) -> str:
        signing_input = f"{b64url_encode(dump_json(header))}.{b64url_encode(dump_json(payload))}"
        signature = b""
        if header.get("alg") == "ES256":
            signature = key.sign(signing_input.encode())
        elif header.get("alg") == "HS256":
            signature = hmac.new(self.key_set().to_jwks(), signing_input.encode(), hashlib.sha256).digest()
        return f"{signing_input}.{b64url_encode(signature)}"


class _LiveKeys:
    """The keys of a fake issuer, as they are now; while it is down, as they were."""

    def __init__(self, issuer: FakeIssuer) -> None:
        self._issuer = issuer
        self._last = self._now()

    def start(self) -> None:
        """Nothing runs in the background."""

    def stop(self) -> None:
        """Nothing runs in the background."""

    def snapshot(self) -> Snapshot[KeySet] | None:
        if not self._issuer.down:
            self._last = self._now()
        return self._last

    def request_refetch(self, issuer: str) -> None:
        """Nothing is missing that a fetch could bring."""

    def refetch(self, issuer: str) -> None:
        """Nothing is missing that a fetch could bring."""

    async def arefetch(self, issuer: str) -> None:
        """Nothing is missing that a fetch could bring."""

    def _now(self) -> Snapshot[KeySet]:
        clock = self._issuer.clock
        keys = self._issuer.key_set()
        return Snapshot(value=keys, as_of=clock.now(), age_at_request=0.0, requested_at=clock.monotonic())


class _LiveRevocations:
    """The list of a fake issuer, as it is now; while it is down, as it was."""

    def __init__(self, issuer: FakeIssuer) -> None:
        self._issuer = issuer
        self._last = issuer.revocations.snapshot()

    def start(self) -> None:
        """Nothing runs in the background."""

    def stop(self) -> None:
        """Nothing runs in the background."""

    def snapshot(self) -> Snapshot[RevocationList] | None:
        if not self._issuer.down:
            self._last = self._issuer.revocations.snapshot()
        return self._last


def _changed(members: dict[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    changed = members | dict(changes or {})
    return {name: value for name, value in changed.items() if value is not None or name not in (changes or {})}


def _recorded(request: Request) -> RecordedRequest:
    parts = urlsplit(request.url)
    headers = Headers(request.headers.items())
    body = request.body or b""
    is_form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    return RecordedRequest(
        method=request.method,
        path=parts.path,
        query=parse_query(parts.query),
        headers=headers,
        form=parse_form(body, content_type=headers.get("content-type")) if is_form else Form(),
        body=body,
    )


def _json(members: Mapping[str, Any], *, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    fields = [("Content-Type", "application/json"), ("Cache-Control", "no-store"), *headers]
    return Response(status=status, headers=Headers(fields), body=dump_json(members))


__all__ = ["AUDIENCE", "CLIENT_ID", "CLIENT_SECRET", "PASSWORD", "USERNAME", "FakeIssuer", "RecordedRequest"]
