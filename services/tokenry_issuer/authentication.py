"""
Authenticating clients and users: the same answer and the same work for unknown, disabled and wrong.

Both readings of a Basic header count as one attempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenry.oauth.errors import invalid_grant, temporarily_unavailable
from tokenry_issuer.passwords import ChecksBusy, WrongSecret

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tokenry.clock import Clock
    from tokenry.oauth.client_authentication import ClientCredential
    from tokenry.oauth.errors import OAuthError
    from tokenry.secret import Secret
    from tokenry_issuer.admission import Admission
    from tokenry_issuer.attempts import Subject
    from tokenry_issuer.passwords import SecretChecks
    from tokenry_issuer.registry import RealmCredentials
    from tokenry_registry.realms import Client, StoredSecret, User
    from tokenry_registry.secret_hashes import StoredHash

BUSY_RETRY = (1, 5)  # seconds; spread, so that a crowd does not come back together


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretProof:
    """
    A secret that proved who a client is, and for how long the same one will, as far as can be told beforehand.

    Attributes:
        subject: Whose attempts it counts among.
        made_at: Unix seconds.
        ends_at: Unix seconds: the first of the client's secrets in force ends then; infinite for never.
        check_at: Monotonic seconds from which a slow hash is to be compared again; infinite for a quick one.
    """

    subject: Subject
    made_at: float
    ends_at: float
    check_at: float

    def holds(self, now: float) -> bool:
        """Tell whether the secrets in force at Unix time *now* are those of `made_at`."""
        return self.made_at <= now < self.ends_at


class Authenticator:
    """Judges credentials."""

    def __init__(
        self,
        *,
        checks: SecretChecks,
        admission: Admission,
        clock: Clock,
        uniform: random.Random,
    ) -> None:
        """
        Judge with these parts.

        Args:
            checks: Compare secrets with hashes.
            admission: Remembers failures.
            clock: Expiry of secrets.
            uniform: Spreads what comes back later.
        """
        self._checks = checks
        self._admission = admission
        self._clock = clock
        self._uniform = uniform

    async def client(
        self, credential: ClientCredential, *, credentials: RealmCredentials, address: str
    ) -> tuple[Client, SecretProof]:
        """
        Return the client that *credential* proves, and for how long.

        Raises:
            OAuthError: 401 `invalid_client`, 429 after too many failures, 503 when too many checks wait.
        """
        realm = credentials.realm.name
        subject = ("client", realm, credential.readings[0].client_id)
        delay = await self._admission.admit(subject, address)
        for reading in credential.readings:
            client = credentials.clients.get(reading.client_id)
            secrets = client.secrets if client is not None and client.enabled else ()
            now = self._clock.now()
            check_at = await self._matches(
                reading.secret,
                _in_force(secrets, now),
                name=f"client {realm} {reading.client_id}",
                decoy_of=credentials,
                user=False,
            )
            if check_at is not None and client is not None:
                self._admission.succeeded(subject, address)
                ends = (each.expires_at for each in secrets if each.usable(now) and each.expires_at is not None)
                proof = SecretProof(
                    subject=subject, made_at=now, ends_at=min(ends, default=math.inf), check_at=check_at
                )
                return client, proof
        await self._admission.failed(subject, address, delay=delay)
        raise credential.refusal() from WrongSecret(self._why_client(credential, credentials))

    async def user(
        self,
        username: str,
        password: Secret,
        *,
        client: Client,
        credentials: RealmCredentials,
        address: str,
    ) -> User:
        """
        Return the user whose *password* it is, if *client* may use it.

        Raises:
            OAuthError: 400 `invalid_grant`, 429 after too many failures, 503 when too many checks wait.
        """
        realm = credentials.realm.name
        subject = ("user", realm, username)
        delay = await self._admission.admit(subject, address)
        user = credentials.users.get(username)
        usable = user is not None and user.enabled and (user.clients is None or client.client_id in user.clients)
        matched = await self._matches(
            password,
            _in_force(user.passwords if user is not None and usable else (), self._clock.now()),
            name=f"user {realm} {username}",
            decoy_of=credentials,
            user=True,
        )
        if matched is not None and user is not None:
            self._admission.succeeded(subject, address)
            return user
        await self._admission.failed(subject, address, delay=delay)
        raise invalid_grant() from WrongSecret(self._why_user(user, client))

    async def _matches(
        self,
        secret: Secret,
        stored: Sequence[StoredHash],
        *,
        name: str,
        decoy_of: RealmCredentials,
        user: bool,
    ) -> float | None:
        """Return until when (monotonic seconds) *secret* need not be compared again, or None if it matches nothing."""
        decoy = decoy_of.user_decoy if user else decoy_of.client_decoy
        try:
            return await self._checks.verify(secret, stored, subject=name, decoy=decoy)
        except WrongSecret:
            return None
        except ChecksBusy:
            raise self._busy() from None

    def _why_client(self, credential: ClientCredential, credentials: RealmCredentials) -> str:
        """Return what was wrong, for the audit record alone."""
        ids = [reading.client_id for reading in credential.readings]
        known = [credentials.clients[client_id] for client_id in ids if client_id in credentials.clients]
        if not known:
            return "unknown client"
        if not known[0].enabled:
            return "client is disabled"
        return "wrong secret" if _in_force(known[0].secrets, self._clock.now()) else "client has no secret in force"

    def _why_user(self, user: User | None, client: Client) -> str:
        """Return what was wrong, for the audit record alone."""
        if user is None:
            return "unknown user"
        if not user.enabled:
            return "user is disabled"
        if user.clients is not None and client.client_id not in user.clients:
            return "user may not be used by this client"
        return "wrong password" if _in_force(user.passwords, self._clock.now()) else "user has no password in force"

    def _busy(self) -> OAuthError:
        return temporarily_unavailable(
            "too many secrets are being checked", retry_after=self._uniform.randint(*BUSY_RETRY)
        )

    def succeeds_again(self, proof: SecretProof, address: str) -> bool:
        """Count one more success from *address* by the secret of *proof*, unless the attempt must not be judged now."""
        return self._admission.succeeds_at_once(proof.subject, address)


def _in_force(secrets: Sequence[StoredSecret], now: float) -> list[StoredHash]:
    return [secret.hash for secret in secrets if secret.usable(now)]
