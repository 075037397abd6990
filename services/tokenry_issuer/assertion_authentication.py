"""
Authenticating clients by what they, or somebody whom the realm trusts for them, signed (RFC 7523).

A failure is answered alike whatever was wrong, and an unknown client costs a signature check like a known one. An
assertion is used up by its first good presentation, whatever becomes of the request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from tokenry.oauth.errors import invalid_grant, temporarily_unavailable
from tokenry_issuer.passwords import WrongSecret
from tokenry_issuer.replay import MemoryFull, UsedBefore
from tokenry_issuer.shared_replay import ReplayUnknown
from tokenry_registry.realms import AssertionAudience

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.clock import Clock
    from tokenry.jose.jwk import PublicKey
    from tokenry.jose.jwks import KeySet
    from tokenry.oauth.assertions import UnverifiedAssertion, VerifiedAssertion
    from tokenry.oauth.client_authentication import ClientAssertion
    from tokenry.secret import Secret
    from tokenry_issuer.admission import Admission
    from tokenry_issuer.registry import RealmCredentials
    from tokenry_issuer.replay import UsedAssertions
    from tokenry_issuer.shared_replay import SharedReplay
    from tokenry_issuer.trust_keys import TrustKeys
    from tokenry_registry.realms import Client
    from tokenry_registry.trust_rules import TrustRule

RETRY_FULL = 60  # seconds: by then a part of what is remembered has expired
RETRY_SHARED = 2  # seconds: the deadline of the store
RETRY_NO_KEYS = 5  # seconds: the pace of the fetches at start
MAX_RULES_TRIED = 4  # rules with the same conditions, each of which costs a signature check
PRIVATE_KEY_JWT = "private_key_jwt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """
    What an assertion has proved.

    Attributes:
        client: The client.
        assertion: What it says.
        rule: The trust rule by which it counts; None for an assertion of the client's own.
    """

    client: Client
    assertion: VerifiedAssertion
    rule: TrustRule | None = None


class AssertionAuthenticator:
    """Judges assertions."""

    def __init__(
        self,
        *,
        issuer: str,
        token_endpoint: str,
        admission: Admission,
        used: UsedAssertions,
        trust_keys: TrustKeys,
        clock: Clock,
        decoy: PublicKey,
        on_endpoint_audience: Callable[[], None],
        shared: SharedReplay | None = None,
    ) -> None:
        """
        Judge with these parts.

        Args:
            issuer: The issuer identifier: the one audience.
            token_endpoint: Its token endpoint, as the metadata name it.
            admission: Remembers failures.
            used: Remembers what was used.
            trust_keys: The keys of foreign issuers and of clients.
            clock: The time by which an assertion is judged.
            decoy: A key that nobody signs with: the work where there is none to check with.
            on_endpoint_audience: Called for each assertion whose audience is the token endpoint.
            shared: Remembers what was used in other processes; None: nobody does.
        """
        self._shared = shared
        self._issuer = issuer
        self._token_endpoint = token_endpoint
        self._admission = admission
        self._used = used
        self._trust_keys = trust_keys
        self._clock = clock
        self._decoy = decoy
        self._on_endpoint_audience = on_endpoint_audience

    async def client(self, presented: ClientAssertion, *, credentials: RealmCredentials, address: str) -> Proven:
        """
        Return the client that *presented* proves (RFC 7523 section 2.2).

        Raises:
            OAuthError: 401 `invalid_client`, 429 after too many failures, 503 when no more can be remembered, or
                there are no keys yet to verify with.
        """
        try:
            return await self._prove(presented.assertion, presented.client_id, credentials, address, own_keys=True)
        except (BadAssertion, WrongSecret, UsedBefore) as why:
            raise presented.refusal() from why

    async def grant(
        self, assertion: Secret, *, client_id: str | None, credentials: RealmCredentials, address: str
    ) -> Proven:
        """
        Return the client for which a trusted issuer's *assertion* is a grant (RFC 7523 section 2.1).

        Args:
            assertion: The JWT.
            client_id: The client that authenticated itself besides, if one did: it must be the same.
            credentials: Of the realm.
            address: The caller's.

        Raises:
            OAuthError: 400 `invalid_grant`, else as `client` does.
        """
        try:
            return await self._prove(assertion, client_id, credentials, address, own_keys=False)
        except (BadAssertion, WrongSecret, UsedBefore) as why:
            raise invalid_grant("the assertion is not valid here") from why

    async def _prove(
        self, assertion: Secret, client_id: str | None, credentials: RealmCredentials, address: str, *, own_keys: bool
    ) -> Proven:
        realm = credentials.realm.name
        unverified = self._read(assertion)
        is_foreign = not own_keys or (unverified is not None and unverified.iss in credentials.trust)
        subject = _subject(unverified, client_id, realm=realm, is_foreign=is_foreign)
        delay = await self._admission.admit(subject, address)
        try:
            if is_foreign:
                proven = await self._by_trust_rule(unverified, client_id, credentials)
            else:
                proven = await self._by_own_key(unverified, client_id, credentials)
        except (BadAssertion, WrongSecret, UsedBefore):
            await self._admission.failed(subject, address, delay=delay)
            raise
        self._admission.succeeded(subject, address)
        if proven.rule is None and proven.assertion.audience != self._issuer:
            self._on_endpoint_audience()
        return proven

    async def use(self, owner: str, verified: VerifiedAssertion) -> None:
        """
        Remember that *verified*, whose id was chosen by *owner*, is used now: 1. in this process; 2. in all, if shared.

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
        if self._shared is None:
            return
        try:
            await self._shared.use(owner, verified.jti, expires_at=verified.expires_at)
        except ReplayUnknown as unknown:
            message = "it cannot be told whether the assertion was used: send a new one"
            raise temporarily_unavailable(message, retry_after=RETRY_SHARED) from unknown

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
    def _read(assertion: Secret) -> UnverifiedAssertion | None:
        try:
            return read_assertion(assertion.reveal())
        except BadAssertion:
            return None

    async def _by_own_key(
        self, unverified: UnverifiedAssertion | None, client_id: str | None, credentials: RealmCredentials
    ) -> Proven:
        """RFC 7523 section 3: `iss` and `sub` are the client's id; RFC 7521 section 4.2: so is a `client_id`."""
        if unverified is None:
            raise BadAssertion(AssertionFault.MALFORMED)
        client = credentials.clients.get(unverified.sub)
        keys = None if client is None or not client.enabled else await self._keys_of(client)
        if client is None or keys is None:
            self.spend(unverified)
            raise WrongSecret(_why(client))
        if client_id is not None and client_id != client.client_id:
            raise BadAssertion(AssertionFault.WRONG_SUBJECT)
        rules = AssertionRules(
            issuer=client.client_id,
            subject=client.client_id,
            keys=keys,
            audiences=self._audiences(client),
            max_ahead=MAX_CLIENT_ASSERTION_AHEAD,
            types=frozenset({CLIENT_AUTHENTICATION_TYP}),
        )
        verified = await self._verify_own(unverified, rules, client)
        await self.use(f"client {credentials.realm.name} {client.client_id}", verified)
        return Proven(client=client, assertion=verified)

    async def _keys_of(self, client: Client) -> KeySet | None:
        """Return the keys of *client*; where they are published elsewhere and not at hand, a second is waited."""
        keys = self._trust_keys.keys(client)
        if keys is None and client.jwks_uri is not None:
            await self._trust_keys.refetch(client)
            keys = self._trust_keys.keys(client)
        return keys

    async def _verify_own(
        self, unverified: UnverifiedAssertion, rules: AssertionRules, client: Client
    ) -> VerifiedAssertion:
        """Verify with the keys that are held, and where a key is new at the client's place, with those there now."""
        try:
            return self.verify(unverified, rules)
        except BadAssertion as bad:
            if bad.fault is not AssertionFault.UNKNOWN_KEY or client.jwks_uri is None:
                raise
        await self._trust_keys.refetch(client)
        return self.verify(unverified, replace(rules, keys=self._trust_keys.keys(client) or rules.keys))

    async def _by_trust_rule(
        self, unverified: UnverifiedAssertion | None, client_id: str | None, credentials: RealmCredentials
    ) -> Proven:
        """
        Find the one client that trust rules map the assertion to.

        Conditions are looked at first, since that costs nothing; they count once the signature was verified.
        """
        if unverified is None:
            raise BadAssertion(AssertionFault.MALFORMED)
        fitting = [
            rule
            for rule in credentials.trust.get(unverified.iss, ())
            if rule.enabled and client_id in {None, rule.client_id} and rule.fits(unverified.claims)
        ]
        if not fitting:
            self.spend(unverified)
            raise WrongSecret("no trust rule fits")
        proven = [await self._by_rule(unverified, rule) for rule in fitting[:MAX_RULES_TRIED]]
        good = [each for each in proven if not isinstance(each, BadAssertion)]
        if not good:
            raise next(each for each in proven if isinstance(each, BadAssertion))
        if len({rule.client_id for rule, _ in good}) > 1:
            raise WrongSecret("trust rules of several clients fit: name the client")
        rule, verified = good[0]
        client = credentials.clients.get(rule.client_id)
        if client is None or not client.enabled:
            raise WrongSecret(_why(client))
        if any(each.single_use for each, _ in good):
            await self.use(f"issuer {rule.issuer}", verified)
        return Proven(client=client, assertion=verified, rule=rule)

    async def _by_rule(
        self, unverified: UnverifiedAssertion, rule: TrustRule
    ) -> tuple[TrustRule, VerifiedAssertion] | BadAssertion:
        keys = self._trust_keys.keys(rule)
        if keys is None:
            raise temporarily_unavailable("the issuer's keys are not at hand", retry_after=RETRY_NO_KEYS)
        try:
            return rule, self.verify(unverified, rule.assertion_rules(keys))
        except BadAssertion as bad:
            if bad.fault is not AssertionFault.UNKNOWN_KEY or rule.jwks_uri is None:
                return bad
        await self._trust_keys.refetch(rule)
        try:
            return rule, self.verify(unverified, rule.assertion_rules(self._trust_keys.keys(rule) or keys))
        except BadAssertion as bad:
            return bad

    def _audiences(self, client: Client) -> frozenset[str]:
        if client.assertion_audience is AssertionAudience.TOKEN_ENDPOINT:
            return frozenset({self._issuer, self._token_endpoint})
        return frozenset({self._issuer})


def _subject(
    unverified: UnverifiedAssertion | None, client_id: str | None, *, realm: str, is_foreign: bool
) -> tuple[str, ...]:
    """Return whose failure it would be: the client's, or the foreign issuer's."""
    if unverified is None:
        return ("client", realm, client_id or "")
    return ("issuer", realm, unverified.iss) if is_foreign else ("client", realm, unverified.sub)


def _why(client: Client | None) -> str:
    if client is None:
        return "unknown client"
    if not client.enabled:
        return "client is disabled"
    return "client has no keys" if client.jwks_uri is None else "the client's keys are not at hand"
