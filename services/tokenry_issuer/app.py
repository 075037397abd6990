"""The issuer as an application: its parts joined, without environment and drivers."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from tokenry.http.backoff import system_random
from tokenry.http.fetch import HttpFetcher
from tokenry.http.outward import PublicAddresses
from tokenry.jose.jwk import PrivateKey
from tokenry.serving.application import create_base_app
from tokenry.serving.health import Finding, Health, degraded, failed, ok
from tokenry.serving.metrics import Metrics
from tokenry.serving.quick import QUICK_FORMS
from tokenry.sources.keys import KeySource
from tokenry_issuer.admission import Admission
from tokenry_issuer.assertion_authentication import AssertionAuthenticator
from tokenry_issuer.attempts import AttemptLimits, Attempts
from tokenry_issuer.authentication import Authenticator
from tokenry_issuer.certificate_authentication import CertificateAuthenticator
from tokenry_issuer.credentials import Credentials
from tokenry_issuer.decisions import KEY_BYTES, Decisions
from tokenry_issuer.handlers import JwkSetEndpoint, MetadataEndpoints, TokenEndpoint
from tokenry_issuer.instruments import Instruments
from tokenry_issuer.issuance import TokenIssuance
from tokenry_issuer.keyring import Keyring
from tokenry_issuer.metadata import (
    JWKS_PATH,
    LIST_JWKS_PATH,
    OPENID_PATH,
    RFC8414_PATH,
    TOKEN_PATH,
    metadata_paths,
    token_endpoint,
)
from tokenry_issuer.openapi import openapi_document
from tokenry_issuer.passwords import SecretChecks
from tokenry_issuer.proofs import ProofReader
from tokenry_issuer.quick import QuickTokens
from tokenry_issuer.refreshing import Refresher
from tokenry_issuer.replay import UsedAssertions
from tokenry_issuer.revocations import Revocations
from tokenry_issuer.shared_replay import SharedReplay
from tokenry_issuer.snapshot import SnapshotFile, SnapshotKeeper, SnapshotRefused
from tokenry_issuer.subject_tokens import SubjectTokens
from tokenry_issuer.trust_keys import TrustKeys
from tokenry_registry.ports import StoreUnavailable

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher
    from tokenry.jose.sealing import EnvelopeKey
    from tokenry.revocation.lists import RevocationList
    from tokenry.validation.snapshots import SnapshotSource
    from tokenry_issuer.settings import Settings
    from tokenry_issuer.snapshot import Snapshot
    from tokenry_registry.key_management import KeyManagement
    from tokenry_registry.ports import ObjectStore, WritableStore

TOKEN_ALIAS = "/oauth2/access_token"  # noqa: S105 -- a path
JWKS_ALIAS = "/oauth2/connect/keys"
WARN_AGE_REFRESHES = 4  # refreshes missed before readiness says that the credentials get old
TRUST_KEYS_REFRESH = 300.0  # seconds: foreign issuers announce their keys for longer; an unknown one is fetched at once
PROBE_INTERVAL = 5.0  # seconds between two probes of keys with which a key management service did not sign
WARN_LIST_AGE = 120.0  # seconds: the validators' own warning


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """
    Where randomness comes from.

    Attributes:
        random_bytes: For token ids and the key of this process.
        uniform: For jitter; decides nothing that must not be guessed.
    """

    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    uniform: random.Random = field(default=system_random, repr=False)


def create_app(
    settings: Settings,
    *,
    clock: Clock,
    store: ObjectStore,
    envelope: EnvelopeKey,
    revocations: SnapshotSource[RevocationList] | None = None,
    chance: Chance | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    refresh_in_background: bool = True,
    instruments: Instruments | None = None,
    fetchers: Callable[[], Fetcher] | None = None,
    management: KeyManagement | None = None,
    replay: WritableStore | None = None,
) -> web.Application:
    """
    Return the issuer.

    Args:
        settings: Checked.
        clock: Where the time comes from.
        store: Credentials and keys; closed with the application.
        envelope: Opens the signing keys.
        revocations: The reader of revocations, started and stopped by whoever made it; None for none.
        chance: Where randomness comes from.
        sleep: How attempts are delayed.
        refresh_in_background: Whether to refresh in the background; a test calls `app[ISSUER]` itself.
        instruments: What is counted; default: in a registry of its own.
        fetchers: Makes what fetches foreign issuers' keys; default: over HTTPS, from public addresses.
        management: Holds the signing keys that are not sealed; None: such keys are refused.
        replay: Where used assertions are remembered for all processes, closed with the application; None: in this one.
    """
    issuer = Issuer(
        settings,
        clock=clock,
        store=store,
        envelope=envelope,
        revocations=Revocations(revocations, clock=clock),
        chance=chance or Chance(),
        sleep=sleep,
        instruments=instruments or Instruments(Metrics(service="issuer")),
        fetchers=fetchers or (lambda: HttpFetcher(permits=PublicAddresses(besides=settings.trust_jwks_networks))),
        management=management,
        replay=replay,
    )
    app = create_base_app(
        service="issuer",
        clock=clock,
        health=issuer.health,
        metrics=issuer.metrics,
        settings=settings,
        openapi=openapi_document(settings.issuer),
    )
    app[ISSUER] = issuer
    issuer.add_routes(app)
    app[QUICK_FORMS] = issuer.quick_tokens(clock)
    if refresh_in_background:
        app.cleanup_ctx.append(issuer.background)
    app.on_cleanup.append(issuer.close)
    return app


class Issuer:
    """
    The parts of one issuer, joined.

    Attributes:
        credentials: Realms, clients, users.
        keyring: Signing keys.
        decisions: What is remembered of granted requests.
        trust_keys: Keys of foreign issuers.
        revocations: What is known of revocations.
        health: The checks behind `/readyz`.
        metrics: The registry behind `/metrics`.
        instruments: The issuer's own metrics.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        store: ObjectStore,
        envelope: EnvelopeKey,
        revocations: Revocations,
        chance: Chance,
        sleep: Callable[[float], Awaitable[None]],
        instruments: Instruments,
        fetchers: Callable[[], Fetcher],
        management: KeyManagement | None,
        replay: WritableStore | None,
    ) -> None:
        """Join the parts; nothing runs yet."""
        self._settings = settings
        self._clock = clock
        self._store = store
        self._uniform = chance.uniform
        self._sleep = sleep
        self._lifetime = int(settings.max_token_lifetime)
        self.health, self.metrics, self.instruments = Health(), instruments.metrics, instruments
        self.revocations = revocations
        self.credentials = Credentials(
            store,
            clock=clock,
            environment=settings.environment,
            max_token_lifetime=self._lifetime,
            removal_share=settings.credentials_removal_share,
            hard_age=settings.credentials_hard_age,
            on_refused=self.instruments.object_rejected,
            keep=settings.credentials_snapshot_folder is not None,
        )
        self.keyring = Keyring(
            store,
            issuer=settings.issuer,
            envelope=envelope,
            clock=clock,
            announce=settings.announce,
            on_refused=self.instruments.object_rejected,
            management=management,
            keep=settings.credentials_snapshot_folder is not None,
        )
        self._snapshots = _snapshots(settings, envelope=envelope, clock=clock, instruments=self.instruments)
        self._checks = SecretChecks(
            clock=clock,
            key=chance.random_bytes(32),
            threads=settings.secret_check_threads,
            queue=settings.secret_check_queue,
            remember_seconds=settings.secret_check_memory,
            observe=self.instruments.secret_checked,
        )
        limits = AttemptLimits(per_pair=settings.failures_per_client, per_address=settings.failures_per_address)
        admission = self._admission = Admission(Attempts(limits), clock=clock, sleep=sleep)
        self._replay = None if replay is None else SharedReplay(replay, observe=self.instruments.replay)
        self.trust_keys = TrustKeys(
            lambda place_of, uri, algorithms: KeySource(
                place_of,
                jwks_uri=uri,
                algorithms=algorithms,
                refresh_seconds=TRUST_KEYS_REFRESH,
                fetcher=fetchers(),
                clock=clock,
            ),
            hosts=settings.trust_jwks_hosts,
        )
        self.decisions = Decisions(chance.random_bytes(KEY_BYTES))
        self.issuance = TokenIssuance(
            issuer=settings.issuer,
            clock=clock,
            random_bytes=chance.random_bytes,
            credentials=self.credentials,
            keyring=self.keyring,
            authenticator=Authenticator(
                checks=self._checks,
                admission=admission,
                clock=clock,
                uniform=chance.uniform,
            ),
            assertions=AssertionAuthenticator(
                issuer=settings.issuer,
                token_endpoint=token_endpoint(settings.issuer),
                admission=admission,
                used=UsedAssertions(),
                trust_keys=self.trust_keys,
                clock=clock,
                decoy=PrivateKey.generate().public,
                on_endpoint_audience=self.instruments.endpoint_audience,
                shared=self._replay,
            ),
            certificates=CertificateAuthenticator(admission=admission, clock=clock),
            subjects=SubjectTokens(
                issuer=settings.issuer,
                max_token_lifetime=self._lifetime,
                keyring=self.keyring,
                revocations=revocations,
                clock=clock,
                sleep=sleep,
            ),
            revocations=revocations,
            instruments=self.instruments,
            decisions=self.decisions,
            proofs=ProofReader(
                [token_endpoint(settings.issuer), settings.issuer.rstrip("/") + TOKEN_ALIAS], clock=clock
            ),
        )
        self.instruments.watch(
            credentials=self.credentials,
            keyring=self.keyring,
            checks=self._checks,
            revocations=revocations,
            lifetime=self._lifetime,
        )
        self.health.add("credentials", self._check_credentials)
        self.health.add("keys", self._check_keys)
        if self._replay is not None:
            self.health.add("used_assertions", self._check_replay)
        if revocations.configured:
            self.health.add("revocations", self._check_revocations)

    def add_routes(self, app: web.Application) -> None:
        """Add the issuer's endpoints to *app*, also below the path of the issuer identifier if it has one."""
        tokens = TokenEndpoint(self.issuance)
        keys = JwkSetEndpoint(
            self.keyring,
            self.revocations,
            max_age=int(self._settings.jwks_max_age),
            uniform=self._uniform,
            sleep=self._sleep,
        )
        documents = MetadataEndpoints(self._settings, self.credentials, self.keyring)
        path = urlsplit(self._settings.issuer).path.rstrip("/")
        for place in self._token_paths():
            app.router.add_post(place, tokens.post)
        for prefix in dict.fromkeys(("", path)):
            app.router.add_get(prefix + JWKS_PATH, keys.get)
            app.router.add_get(prefix + JWKS_ALIAS, keys.get)
            app.router.add_get(prefix + LIST_JWKS_PATH, keys.get_list_keys)
        rfc8414, openid = metadata_paths(self._settings.issuer)
        for place in dict.fromkeys((RFC8414_PATH, rfc8414)):
            app.router.add_get(place, documents.authorization_server)
        for place in dict.fromkeys((OPENID_PATH, openid)):
            app.router.add_get(place, documents.openid_configuration)

    def quick_tokens(self, clock: Clock) -> QuickTokens:
        """Return what answers token requests that need not wait."""
        return QuickTokens(
            self.issuance,
            decisions=self.decisions,
            paths=self._token_paths(),
            settings=self._settings,
            clock=clock,
            metrics=self.metrics,
            health=self.health,
            waits=lambda: self.keyring.has_remote or not self._admission.is_calm,
        )

    def _token_paths(self) -> tuple[str, ...]:
        path = urlsplit(self._settings.issuer).path.rstrip("/")
        return tuple(dict.fromkeys(prefix + name for prefix in ("", path) for name in (TOKEN_PATH, TOKEN_ALIAS)))

    async def background(self, _app: web.Application) -> AsyncIterator[None]:
        """Refresh credentials and keys while the application runs."""
        tasks = [asyncio.create_task(refresher.run()) for refresher in self.refreshers()]
        if self._replay is not None:
            await self._replay.connect()
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    def refreshers(self) -> tuple[Refresher, ...]:
        """Return what is to be refreshed, keys first: they are few."""
        return (
            self._refresher("keys", self.refresh_keys, lambda: self.keyring.settled),
            self._refresher("credentials", self.refresh_credentials, lambda: self.credentials.loaded),
            # An instance that is not ready gets no requests that could show that its keys sign again.
            Refresher(
                name="probes",
                refresh=self.keyring.prove,
                loaded=lambda: True,
                interval=PROBE_INTERVAL,
                observe=lambda _result: None,
                uniform=self._uniform,
            ),
        )

    async def refresh_credentials(self) -> None:
        """
        Bring the credentials up to date, and begin to read what their trust rules name.

        Raises:
            StoreUnavailable: The store could not be asked; a snapshot may be in force now.
            RefusedObject: It would remove too much.
            TimeoutError: It takes too long; a snapshot may be in force now.
        """
        try:
            await self.credentials.refresh()
        except (StoreUnavailable, TimeoutError):
            if not self.credentials.loaded:
                await self._restore("credentials", self._restore_credentials)
            raise
        finally:
            self._follow_trust()
        await self._keep("credentials", self.credentials.kept, age=self.credentials.age or 0.0)

    async def refresh_keys(self) -> None:
        """
        Bring the keys up to date.

        Raises:
            StoreUnavailable: The store could not be asked, or holds no key that works; a snapshot may be in force now.
            RefusedObject: No key that is in force would be left.
            TimeoutError: It takes too long; a snapshot may be in force now.
        """
        try:
            await self.keyring.refresh()
        except (StoreUnavailable, TimeoutError):
            if not self.keyring.loaded:
                await self._restore("keys", lambda snapshot, _age: self.keyring.refresh(snapshot))
            raise
        await self._keep("keys", self.keyring.kept, age=0.0)

    async def _restore_credentials(self, snapshot: Snapshot, age: float) -> None:
        await self.credentials.restore(snapshot, age=age)

    async def _restore(self, what: str, take: Callable[[Snapshot, float], Awaitable[None]]) -> None:
        keeper = self._snapshots.get(what)
        if keeper is None:
            return
        with suppress(SnapshotRefused, StoreUnavailable, TimeoutError):
            snapshot = await keeper.restore()
            await take(snapshot, max(0.0, self._clock.now() - snapshot.as_of))

    async def _keep(self, what: str, objects: Mapping[str, tuple[str, bytes]], *, age: float) -> None:
        keeper = self._snapshots.get(what)
        if keeper is not None:
            await keeper.keep(objects, age=age)

    def _follow_trust(self) -> None:
        registry = self.credentials.current()
        if registry is not None:
            self.trust_keys.follow(registry)

    def _refresher(self, name: str, refresh: Callable[[], Awaitable[object]], loaded: Callable[[], bool]) -> Refresher:
        return Refresher(
            name=name,
            refresh=refresh,
            loaded=loaded,
            interval=self._settings.credentials_refresh_interval,
            observe=lambda result: self.instruments.refreshed(name, result),
            uniform=self._uniform,
        )

    async def close(self, _app: web.Application) -> None:
        """Let go of threads and connections."""
        self._checks.close()
        self.keyring.remote.close()
        await asyncio.to_thread(self.trust_keys.stop)
        await self._store.close()
        if self._replay is not None:
            await self._replay.close()

    def _check_credentials(self) -> Finding:
        age, registry = self.credentials.age, self.credentials.current()
        if age is None:
            return failed("no credentials were read yet")
        if registry is None:
            return failed(f"the credentials are {age:.0f} s old: too old to be believed")
        known = f"{registry.size} objects, {age:.0f} s old"
        if self.credentials.from_snapshot:
            return degraded(f"{known}, from the snapshot: the store was not read yet")
        if self.credentials.refused:
            return degraded(f"{known}; {self.credentials.refused} refused: see the log")
        if age > WARN_AGE_REFRESHES * self._settings.credentials_refresh_interval:
            return degraded(f"{known}: the store does not answer as it should")
        if missing := self.trust_keys.missing:
            return degraded(f"{known}; the keys of {missing} foreign issuers or clients are missing: see the log")
        return ok(known)

    def _check_keys(self) -> Finding:
        revoked = self.revocations.current()
        if revoked is not None:
            self.keyring.obey(revoked)
        signer, troubles = self.keyring.signer(lifetime=self._lifetime), self.keyring.remote.troubles
        why = "".join(f"; the key management service does not sign with {kid} ({troubles[kid]})" for kid in troubles)
        if self.keyring.absent:
            why += "; keys are missing in the published JWK Set: are there two issuers behind its URL?"
        if signer is None or signer.times.kid in troubles:
            return failed(f"there is no key to sign with{why}")
        faults = [*self.keyring.faults(lifetime=self._lifetime), *filter(None, [why.removeprefix("; ")])]
        if self.keyring.from_snapshot:
            faults.append("the keys are from the snapshot: the store was not read yet")
        return degraded("; ".join(faults)) if faults else ok()

    def _check_replay(self) -> Finding:
        if self._replay is not None and self._replay.failing:
            return degraded("used assertions cannot be shared: clients that sign assertions get 503")
        return ok()

    def _check_revocations(self) -> Finding:
        if self.revocations.waiting:
            return failed("the first revocation list is being waited for")
        if self.revocations.clock_is_off:
            return failed(f"our clock is {self.revocations.clock_ahead():.0f} s ahead of the revocation service's")
        age, current = self.revocations.age(), self.revocations.current()
        if current is not None and 0 < current.max_token_lifetime < self._lifetime:
            return degraded(
                f"the revocation service keeps revocations for tokens of {current.max_token_lifetime} s, and "
                f"tokens of {self._lifetime} s are allowed here: give both the same TOKENRY_MAX_TOKEN_LIFETIME"
            )
        if age is None:
            return degraded("there is no revocation list: tokens are issued without looking at it")
        if age > WARN_LIST_AGE:
            return degraded(f"the revocation list is {age:.0f} s old")
        return ok(f"the list is {age:.0f} s old")


def _snapshots(
    settings: Settings, *, envelope: EnvelopeKey, clock: Clock, instruments: Instruments
) -> dict[str, SnapshotKeeper]:
    folder = settings.credentials_snapshot_folder
    if folder is None:
        return {}
    return {
        what: SnapshotKeeper(
            SnapshotFile(
                folder / f"{what}.sealed",
                what=what,
                issuer=settings.issuer,
                environment=settings.environment,
                envelope=envelope,
            ),
            what=what,
            clock=clock,
            max_age=settings.credentials_hard_age,
            observe=partial(instruments.snapshot, what),
        )
        for what in ("credentials", "keys")
    }


ISSUER = web.AppKey("issuer", Issuer)
