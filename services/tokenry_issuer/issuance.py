"""
Issuing a token: the whole way of one token request, in numbered steps.

1. the request is read (form, query, client credential, grant);
2. the credentials are at hand, else 503;
3. the realm is found, and allows the grant type;
4. the client authenticates itself;
5. the client may use the grant; for the password grant the user authenticates too;
6. scopes and targets are decided;
7. a key can sign, else 503;
8. no revocation in force would hit the token, else 503: it would be born dead; and revocations are kept
   for as long as it lives;
9. it is signed.

Every request leaves one audit record, of a token issued or of the refusal. It names clients and users that
exist, never what somebody typed in their place, and no secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any

from tokenry.errors import TokenryError
from tokenry.jose.jwk import BadSignature
from tokenry.oauth.client_authentication import ClientAssertion, read_client_assertion, read_client_credential
from tokenry.oauth.dpop import SCHEME
from tokenry.oauth.errors import OAuthError, invalid_client, temporarily_unavailable, unauthorized_client
from tokenry.oauth.token_endpoint import CLIENT_CREDENTIALS, JWT_BEARER, PASSWORD, TokenResponse, parse_token_request
from tokenry.revocation.judged import JudgedToken
from tokenry.scope import format_scope
from tokenry.serving.access_log import record
from tokenry_issuer import grants, minting
from tokenry_issuer.assertion_authentication import PRIVATE_KEY_JWT
from tokenry_issuer.certificate_authentication import ClientCertificate
from tokenry_issuer.decisions import decision
from tokenry_registry.key_management import KeyManagementUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from tokenry.clock import Clock
    from tokenry.oauth.client_authentication import ClientCredential
    from tokenry.oauth.form import Form
    from tokenry.oauth.mutual_tls import PresentedCertificate
    from tokenry.oauth.token_endpoint import TokenRequest
    from tokenry.revocation.lists import RevocationList
    from tokenry.secret import Secret
    from tokenry_issuer.assertion_authentication import AssertionAuthenticator, Proven
    from tokenry_issuer.authentication import Authenticator, SecretProof
    from tokenry_issuer.certificate_authentication import CertificateAuthenticator
    from tokenry_issuer.credentials import Credentials
    from tokenry_issuer.decisions import Decisions
    from tokenry_issuer.instruments import Instruments
    from tokenry_issuer.keyring import Keyring
    from tokenry_issuer.minting import Minted
    from tokenry_issuer.proofs import ProofReader
    from tokenry_issuer.registry import RealmCredentials, Registry
    from tokenry_issuer.revocations import Revocations
    from tokenry_issuer.subject_tokens import SubjectTokens
    from tokenry_registry.realms import Client, User
    from tokenry_registry.signing_keys import SigningKey

    Proof = ClientAssertion | ClientCredential | ClientCertificate

RETRY_NOT_LOADED = 5  # seconds: the pace of the refreshes at start
RETRY_NO_KEY = 5
RETRY_RETENTION = 60  # seconds: somebody has to change a setting
RETRY_REVOKED = 3  # seconds: a cut-off lies that far ahead at most; a block lasts longer and says so each time
RETRY_CLOCK = 5  # seconds: another replica may have the right time


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRequest:
    """
    A token request as it came in.

    Attributes:
        form: The form body.
        query: The query string.
        authorization: Every `Authorization` header field; not shown, as reports of errors show variables.
        host: The `Host` header field.
        address: The caller's address.
        certificate: The certificate that the caller presented.
        proofs: Every `DPoP` header field.
        identity: What it is recognised by when it comes again (`Decisions.identity`); None: it is not remembered.
    """

    form: Form
    query: Form
    authorization: Sequence[str] = field(repr=False)
    host: str | None
    address: str
    certificate: PresentedCertificate | None = None
    proofs: Sequence[str] = field(default=(), repr=False)
    identity: bytes | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Trail:
    """What is known of a request so far: the audit record of its outcome, and what it was decided by."""

    known: dict[str, Any] = field(default_factory=dict)
    proof: SecretProof | None = None
    registry: Registry | None = None

    def add(self, **members: object) -> None:
        self.known.update(members)


class TokenIssuance:
    """Answers token requests."""

    def __init__(
        self,
        *,
        issuer: str,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        credentials: Credentials,
        keyring: Keyring,
        authenticator: Authenticator,
        assertions: AssertionAuthenticator,
        certificates: CertificateAuthenticator,
        subjects: SubjectTokens,
        revocations: Revocations,
        instruments: Instruments,
        proofs: ProofReader,
        decisions: Decisions,
    ) -> None:
        """
        Issue with these parts.

        Args:
            issuer: The issuer identifier.
            clock: The time of issue.
            random_bytes: Returns so many random bytes.
            credentials: Realms, clients, users.
            keyring: Signing keys.
            authenticator: Judges secrets.
            assertions: Judges assertions.
            certificates: Judges certificates.
            subjects: Judges tokens that are to be exchanged.
            revocations: What must not be issued.
            instruments: What is counted.
            proofs: Reads proofs of keys that tokens are to be bound to.
            decisions: Remembers what was decided.
        """
        self._issuer = issuer
        self._clock = clock
        self._random_bytes = random_bytes
        self._credentials = credentials
        self._keyring = keyring
        self._authenticator = authenticator
        self.assertions = assertions
        self._certificates = certificates
        self._subjects = subjects
        self._revocations = revocations
        self._instruments = instruments
        self._proofs = proofs
        self._decisions = decisions

    async def issue(self, raw: RawRequest) -> TokenResponse:
        """
        Return the answer to a token request.

        Raises:
            OAuthError: With the first step that failed.
        """
        trail = _Trail({"client_address": raw.address})
        try:
            return await self._issue(raw, trail)
        except OAuthError as error:
            self._refused(error, trail)
            raise

    def unreadable(self, code: str, *, status: int, reason: str, address: str) -> None:
        """
        Count and record a request that was refused before it could be read.

        Args:
            code: The OAuth error that was answered.
            status: The HTTP status that was answered.
            reason: What was wrong, in words of ours.
            address: The caller's.
        """
        self._instruments.refused(code)
        record("token_refused", {"error": code, "status": status, "reason": reason, "client_address": address})

    def _refused(self, error: OAuthError, trail: _Trail) -> None:
        self._instruments.refused(error.code)
        # What the caller must not learn: the cause that whoever refused has left.
        reason = str(error.__cause__) if isinstance(error.__cause__, TokenryError) else error.description
        record("token_refused", {"error": error.code, "status": error.status, "reason": reason, **trail.known})

    async def _issue(self, raw: RawRequest, trail: _Trail) -> TokenResponse:
        # 1. read
        proof = _read_proof(raw)
        request = parse_token_request(raw.form, query=raw.query)
        trail.add(
            scope_requested=None if request.scope is None else format_scope(request.scope),
            audience_requested=list(request.targets) or None,
        )
        if proof is None and request.assertion is None:
            raise invalid_client()
        # 2. and 3. the realm
        registry = trail.registry = self._registry()
        credentials = registry.realms[grants.choose_realm(request.realm, host=raw.host, realms=registry.realms)]
        trail.add(realm=credentials.realm.name)
        grants.check_grant_type(request.grant_type, realm=credentials.realm)
        trail.add(grant_type=request.grant_type)
        # 4. the client
        client = None if proof is None else await self._client(proof, credentials, raw.address, trail)
        if client is None or request.assertion is not None:
            client = await self._granted(request, client, credentials, raw.address, trail)
        trail.add(client_id=client.client_id)
        # 5. the grant, and the user
        grants.check_client_grant(request.grant_type, client=client)
        confirmation = grants.bind(
            client,
            thumbprint=None if raw.certificate is None else raw.certificate.thumbprint,
            by_certificate=isinstance(proof, ClientCertificate),
        )
        key = self._proofs.key_of(client, raw.proofs)
        # 6. to 9.
        if request.subject_token is not None:
            grant = await self._exchange(request, request.subject_token, client, credentials, confirmation, trail)
        else:
            user = await self._user(request, client, credentials, raw.address, trail)
            grant = grants.decide(
                request,
                realm=credentials.realm,
                client=client,
                user=user,
                issuer=self._issuer,
                confirmation=confirmation,
            )
        if key is not None:
            grant = replace(grant, key=key)
        minted = await self._mint(grant)
        self._count(grant, expires_at=minted.expires_at)
        trail.add(
            subject=grant.subject,
            scope=format_scope(grant.scope),
            audience=list(grant.audience),
            bound_to=grant.confirmation,
            **({} if key is None else {"bound_to_key": key}),
        )
        response = TokenResponse(
            access_token=minted.token,
            expires_in=grant.lifetime,
            scope=grant.scope,
            realm=grant.realm.name,
            issued_token_type=request.issued_token_type,
            token_type="Bearer" if key is None else SCHEME,
        )
        self._remember(raw, grant, response, trail)
        record("token_issued", {**trail.known, "jti": minted.jti, "kid": minted.kid, "expires_at": minted.expires_at})
        return response

    def _count(self, grant: grants.Grant, *, expires_at: int) -> None:
        self._instruments.issued(grant.grant_type, grant.realm.claims_profile)
        self._instruments.live.issued(
            realm=grant.realm.name, client_id=grant.client_id, subject=grant.subject, expires_at=expires_at
        )

    def _remember(self, raw: RawRequest, grant: grants.Grant, response: TokenResponse, trail: _Trail) -> None:
        """Remember what was decided over a plain request: by a secret, for the client itself, bound to nothing."""
        plain = grant.grant_type == CLIENT_CREDENTIALS and grant.confirmation is None and grant.key is None
        if raw.identity is None or not plain or trail.proof is None or trail.registry is None:
            return
        decided = decision(
            grant,
            issuer=self._issuer,
            proof=trail.proof,
            response=response,
            record={name: value for name, value in trail.known.items() if name != "client_address"},
            monotonic=self._clock.monotonic(),
        )
        self._decisions.keep(raw.identity, decided, registry=trail.registry)

    def again(self, identity: bytes, address: str) -> bytes | None:
        """
        Return the body of the answer to a request that is the same as one that was granted a moment ago, or None.

        None says that it is to be judged from its beginning, be it to be refused: nothing was counted or recorded.

        Args:
            identity: Of the request (`Decisions.identity`).
            address: The caller's.
        """
        now = self._clock.now()
        # 1. to 3., 5. and 6. the same bytes under the same credentials
        decided = self._decisions.get(
            identity, registry=self._credentials.current(), now=now, monotonic=self._clock.monotonic()
        )
        if decided is None or self._revocations.waiting or self._revocations.clock_is_off:
            return None
        # 7. a key
        grant, revocations = decided.grant, self._revocations.current()
        if revocations is not None:
            self._keyring.obey(revocations)
        key = self._keyring.signer(lifetime=grant.lifetime)
        if key is None or key.remote:
            return None
        # 8. not revoked
        kid, issued_at = key.times.kid, int(now)
        if revocations is not None:
            token_to_be = decided.judged.reissued(iat=issued_at, kid=kid)
            if _outlives(grant, revocations) or revocations.hits(token_to_be, now=now) is not None:
                return None
        # 4. the client, whose limits on failures hold as ever
        if not self._authenticator.succeeds_again(decided.proof, address):
            return None
        # 9. sign
        jti = minting.new_jti(self._random_bytes(minting.JTI_BYTES))
        claims = decided.claims.fill(issued_at=issued_at, jti=jti)
        token = minting.sign_text(claims, grant=grant, signer=key.private)
        expires_at = issued_at + grant.lifetime
        self._count(grant, expires_at=expires_at)
        decided.record.write_text(
            f',"client_address":{_quoted(address)},"jti":"{jti}","kid":{_quoted(kid)},"expires_at":{expires_at}'
        )
        return decided.body(token)

    async def _exchange(
        self,
        request: TokenRequest,
        token: Secret,
        client: Client,
        credentials: RealmCredentials,
        confirmation: str | None,
        trail: _Trail,
    ) -> grants.Grant:
        if client.exchange is None:
            raise unauthorized_client()
        subject = await self._subjects.judge(token)
        trail.add(subject_jti=subject.jti, subject_client=subject.client_id)
        grant = grants.decide_exchange(
            request,
            realm=credentials.realm,
            client=client,
            subject=subject,
            now=self._clock.now(),
            confirmation=confirmation,
        )
        if grant.origin is not None:
            trail.add(root_jti=grant.origin.root_jti)
        return grant

    def _registry(self) -> Registry:
        registry = self._credentials.current()
        if registry is None:
            raise temporarily_unavailable("credentials are not loaded", retry_after=RETRY_NOT_LOADED)
        return registry

    async def _client(self, proof: Proof, credentials: RealmCredentials, address: str, trail: _Trail) -> Client:
        if isinstance(proof, ClientCertificate):
            _name_known(trail, "client_id", [proof.client_id], credentials.clients)
            trail.add(method="tls_client_auth", certificate=proof.certificate.thumbprint)
            client = await self._certificates.client(proof, credentials=credentials, address=address)
            trail.add(method=None if client.tls is None else str(client.tls.method))
            return client
        if isinstance(proof, ClientAssertion):
            trail.add(method=PRIVATE_KEY_JWT)
            if proof.client_id is not None:
                _name_known(trail, "client_id", [proof.client_id], credentials.clients)
            proven = await self.assertions.client(proof, credentials=credentials, address=address)
            _assertion_known(trail, proven)
            return proven.client
        trail.add(method=proof.method)
        _name_known(trail, "client_id", [each.client_id for each in proof.readings], credentials.clients)
        client, trail.proof = await self._authenticator.client(proof, credentials=credentials, address=address)
        return client

    async def _granted(
        self,
        request: TokenRequest,
        client: Client | None,
        credentials: RealmCredentials,
        address: str,
        trail: _Trail,
    ) -> Client:
        """Return the client for which an assertion is the grant (RFC 7523 section 2.1)."""
        if request.assertion is None:
            raise invalid_client()
        if client is None:
            trail.add(method=JWT_BEARER)
        proven = await self.assertions.grant(
            request.assertion,
            client_id=None if client is None else client.client_id,
            credentials=credentials,
            address=address,
        )
        _assertion_known(trail, proven)
        return proven.client

    async def _user(
        self,
        request: TokenRequest,
        client: Client,
        credentials: RealmCredentials,
        address: str,
        trail: _Trail,
    ) -> User | None:
        if request.grant_type != PASSWORD or request.username is None or request.password is None:
            return None
        _name_known(trail, "username", [request.username], credentials.users)
        return await self._authenticator.user(
            request.username, request.password, client=client, credentials=credentials, address=address
        )

    async def _mint(self, grant: grants.Grant) -> Minted:
        if self._revocations.waiting:
            raise temporarily_unavailable("revocations are not loaded", retry_after=1)
        if self._revocations.clock_is_off:
            raise temporarily_unavailable("the clock here is off", retry_after=RETRY_CLOCK)
        revocations = self._revocations.current()
        if revocations is not None:
            self._keyring.obey(revocations)
            self._check_retention(grant, revocations)
        # 7. a key
        key = self._keyring.signer(lifetime=grant.lifetime)
        if key is None:
            raise temporarily_unavailable("there is no key to sign with", retry_after=RETRY_NO_KEY)
        now = self._clock.now()
        jti = minting.new_jti(self._random_bytes(minting.JTI_BYTES))
        claims = minting.build_claims(grant, issuer=self._issuer, now=now, jti=jti)
        # 8. not revoked
        if revocations is not None:
            self._judge(claims, kid=key.times.kid, revocations=revocations, now=now)
        # 9. sign
        if key.remote:
            return await self._sign_remotely(claims, grant, key)
        return minting.sign(claims, grant=grant, signer=key.private)

    async def _sign_remotely(self, claims: dict[str, Any], grant: grants.Grant, key: SigningKey) -> Minted:
        def sign() -> Minted:
            return minting.sign(claims, grant=grant, signer=key.private)

        try:
            return await self._keyring.remote.run(key.times.kid, sign)
        except (KeyManagementUnavailable, BadSignature) as error:
            raise temporarily_unavailable("tokens cannot be signed now", retry_after=RETRY_NO_KEY) from error

    def _check_retention(self, grant: grants.Grant, revocations: RevocationList) -> None:
        # A revocation that is forgotten before its token expires would revive it.
        if _outlives(grant, revocations):
            self._instruments.withheld()
            raise temporarily_unavailable(
                "revocations are not kept for as long as this token would live", retry_after=RETRY_RETENTION
            )

    def _judge(self, claims: dict[str, Any], *, kid: str, revocations: RevocationList, now: float) -> None:
        # A fresh random id cannot have been revoked; rules and keys can.
        token = JudgedToken(
            iss=self._issuer, jti=claims["jti"], kid=kid, iat=claims["iat"], claims=claims, signing_input=""
        )
        if revocations.hits(token, now=now) is not None:
            self._instruments.withheld()
            raise temporarily_unavailable("a revocation in force would hit this token", retry_after=RETRY_REVOKED)


def _outlives(grant: grants.Grant, revocations: RevocationList) -> bool:
    """Tell whether a token for *grant* lives longer than revocations are kept."""
    return 0 < revocations.max_token_lifetime < grant.lifetime


def _assertion_known(trail: _Trail, proven: Proven) -> None:
    trail.add(assertion_jti=proven.assertion.jti, assertion_kid=proven.assertion.kid)
    if proven.rule is not None:
        trail.add(
            trust_rule=proven.rule.name,
            assertion_issuer=proven.assertion.iss,
            assertion_subject=proven.assertion.sub,
        )


def _read_proof(raw: RawRequest) -> Proof | None:
    """
    Return what the client proves itself with, by one method and no other.

    A certificate beside a secret or an assertion is no second method: tokens may be bound to it.
    """
    assertion = read_client_assertion(raw.authorization, raw.form)
    found = assertion if assertion is not None else read_client_credential(raw.authorization, raw.form)
    client_id = raw.form.one("client_id")
    if found is None and client_id is not None and raw.certificate is not None:
        return ClientCertificate(client_id=client_id, certificate=raw.certificate)
    return found


def _name_known(trail: _Trail, member: str, names: Sequence[str], known: Collection[str]) -> None:
    """Put the first of *names* that exists into the record: what does not exist may be a misplaced secret."""
    trail.add(**{member: next((name for name in names if name in known), None)})
