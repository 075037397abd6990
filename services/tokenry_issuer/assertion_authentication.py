"""
Authenticating clients by what they, or somebody whom the realm trusts for them, signed (RFC 7523).

A failure is answered alike whatever was wrong, and an unknown client costs a signature check like a known one. An
assertion is used up by its first good presentation, whatever becomes of the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenry.jose.jwk import BadSignature
from tokenry.oauth.assertions import (
    CLIENT_AUTHENTICATION_TYP,
    MAX_CLIENT_ASSERTION_AHEAD,
    AssertionFault,
    AssertionRules,
    BadAssertion,
    read_assertion,
    verify_assertion,
)
from tokenry.oauth.errors import temporarily_unavailable
from tokenry_issuer.passwords import WrongSecret
from tokenry_issuer.realms import AssertionAudience
from tokenry_issuer.replay import MemoryFull, UsedBefore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.clock import Clock
    from tokenry.jose.jwk import PublicKey
    from tokenry.oauth.assertions import UnverifiedAssertion, VerifiedAssertion
    from tokenry.oauth.client_authentication import ClientAssertion
    from tokenry_issuer.admission import Admission
    from tokenry_issuer.realms import Client
    from tokenry_issuer.registry import RealmCredentials
    from tokenry_issuer.replay import UsedAssertions

RETRY_FULL = 60  # seconds: by then a part of what is remembered has expired
PRIVATE_KEY_JWT = "private_key_jwt"


class AssertionAuthenticator:
    """Judges assertions."""

    def __init__(
        self,
        *,
        issuer: str,
        token_endpoint: str,
        admission: Admission,
        used: UsedAssertions,
        clock: Clock,
        decoy: PublicKey,
        on_endpoint_audience: Callable[[], None],
    ) -> None:
        """
        Judge with these parts.

        Args:
            issuer: The issuer identifier: the one audience.
            token_endpoint: Its token endpoint, as the metadata name it.
            admission: Remembers failures.
            used: Remembers what was used.
            clock: The time by which an assertion is judged.
            decoy: A key that nobody signs with: the work where there is none to check with.
            on_endpoint_audience: Called for each assertion whose audience is the token endpoint.
        """
        self._issuer = issuer
        self._token_endpoint = token_endpoint
        self._admission = admission
        self._used = used
        self._clock = clock
        self._decoy = decoy
        self._on_endpoint_audience = on_endpoint_audience

    async def client(
        self, presented: ClientAssertion, *, credentials: RealmCredentials, address: str
    ) -> tuple[Client, VerifiedAssertion]:
        """
        Return the client that *presented* proves, and what it says (RFC 7523 section 2.2).

        Raises:
            OAuthError: 401 `invalid_client`, 429 after too many failures, 503 when no more can be remembered.
        """
        realm = credentials.realm.name
        unverified = self._read(presented)
        name = unverified.sub if unverified is not None else presented.client_id or ""
        subject = ("client", realm, name)
        await self._admission.admit(subject, address)
        try:
            client, verified = self._by_own_key(unverified, presented.client_id, credentials)
            self.use(f"client {realm} {client.client_id}", verified)
        except (BadAssertion, WrongSecret, UsedBefore) as why:
            self._admission.failed(subject, address)
            raise presented.refusal() from why
        self._admission.succeeded(subject, address)
        if verified.audience != self._issuer:
            self._on_endpoint_audience()
        return client, verified

    def use(self, owner: str, verified: VerifiedAssertion) -> None:
        """
        Remember that *verified*, whose id was chosen by *owner*, is used now.

        Raises:
            UsedBefore: It was used before.
            OAuthError: 503: it cannot be remembered.
        """
        if verified.jti is None:
            return
        try:
            self._used.use(owner, verified.jti, expires_at=verified.expires_at, now=self._clock.now())
        except MemoryFull:
            raise temporarily_unavailable("too many assertions are in use", retry_after=RETRY_FULL) from None

    def verify(self, unverified: UnverifiedAssertion, rules: AssertionRules) -> VerifiedAssertion:
        """
        Return what *unverified* says, with the work of one signature check at least.

        Raises:
            BadAssertion: It is none by *rules*.
        """
        try:
            return verify_assertion(unverified, rules, now=self._clock.now())
        except BadAssertion as bad:
            if bad.fault is AssertionFault.UNKNOWN_KEY:
                self.spend(unverified)
            raise

    def spend(self, unverified: UnverifiedAssertion) -> None:
        """Do the work of a signature check, in vain."""
        try:
            self._decoy.verify(unverified.jws.signing_input, unverified.jws.signature, low_s=False)
        except BadSignature:
            return

    @staticmethod
    def _read(presented: ClientAssertion) -> UnverifiedAssertion | None:
        try:
            return read_assertion(presented.assertion.reveal())
        except BadAssertion:
            return None

    def _by_own_key(
        self, unverified: UnverifiedAssertion | None, client_id: str | None, credentials: RealmCredentials
    ) -> tuple[Client, VerifiedAssertion]:
        """RFC 7523 section 3: `iss` and `sub` are the client's id; RFC 7521 section 4.2: so is a `client_id`."""
        if unverified is None:
            raise BadAssertion(AssertionFault.MALFORMED)
        client = credentials.clients.get(unverified.sub)
        if client is None or not client.enabled or client.keys is None:
            self.spend(unverified)
            raise WrongSecret(_why(client))
        if client_id is not None and client_id != client.client_id:
            raise BadAssertion(AssertionFault.WRONG_SUBJECT)
        rules = AssertionRules(
            issuer=client.client_id,
            subject=client.client_id,
            keys=client.keys,
            audiences=self._audiences(client),
            max_ahead=MAX_CLIENT_ASSERTION_AHEAD,
            types=frozenset({CLIENT_AUTHENTICATION_TYP}),
        )
        return client, self.verify(unverified, rules)

    def _audiences(self, client: Client) -> frozenset[str]:
        if client.assertion_audience is AssertionAudience.TOKEN_ENDPOINT:
            return frozenset({self._issuer, self._token_endpoint})
        return frozenset({self._issuer})


def _why(client: Client | None) -> str:
    if client is None:
        return "unknown client"
    return "client has no keys" if client.enabled else "client is disabled"
