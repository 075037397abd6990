"""
Local validation with revocation: the pure validator, joined to a clock, the keys and the revocation list.

Invariants:
    * `validate` does no I/O and never waits; what it judges by is refreshed in the background.
    * `avalidate` and `validate_waiting` wait only for a key that is not held, at most a second, in a fetch
      that all callers share.
    * Nothing is accepted before the first keys and the first list, nor on a list older than the refuse age.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from tokenry.clock import Clock, SystemClock
from tokenry.errors import ConfigurationError, UnknownKey, Unready, ValidatorNotReady
from tokenry.http.fetch import Fetcher, HttpFetcher
from tokenry.revocation.documents import MAX_LIFETIME
from tokenry.revocation.lists import MAX_ENTRIES
from tokenry.scope import NO_SCOPE, Scope, parse_scope, scope_of
from tokenry.sources.events import EventKind, OnEvent, SourceEvent
from tokenry.sources.extension import ExtensionSource
from tokenry.sources.keys import KeySource
from tokenry.sources.revocations import SKEW_SECONDS, Bearer, RevocationSource
from tokenry.sources.signed_list import SignedListPlace
from tokenry.validation.policy import AnyAudience, TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import REMEMBERED, Confirmation, RevokedToken, Validator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from tokenry.claims import TokenInfo
    from tokenry.jose.jwks import KeySet
    from tokenry.oauth.confirmation import Shown
    from tokenry.revocation.extension import ListExtension
    from tokenry.revocation.lists import RevocationList
    from tokenry.validation.snapshots import Snapshot

log = logging.getLogger("tokenry")

START_SECONDS: Final = 15.0  # for the first keys and list; longer than one fetch with a retry
_LOOK_SECONDS: Final = 0.01  # how often the start looks whether they are there
_SAY_AGAIN_SECONDS: Final = 120.0  # between two log lines about the same old list


class Keys(Protocol):
    """Where the keys come from: `KeySource`, `KeySources`, or a fake."""

    def start(self) -> None:
        """Begin to refresh."""
        ...

    def stop(self) -> None:
        """End refreshing."""
        ...

    def snapshot(self) -> Snapshot[KeySet] | None:
        """Return the last good keys."""
        ...

    def request_refetch(self, issuer: str) -> None:
        """Ask for fresh keys without waiting."""
        ...

    def refetch(self, issuer: str) -> None:
        """Wait for fresh keys, at most a second."""
        ...

    async def arefetch(self, issuer: str) -> None:
        """Wait for fresh keys, at most a second."""
        ...


class Revocations(Protocol):
    """Where the list comes from: `RevocationSource`, or a fake."""

    def start(self) -> None:
        """Begin to refresh."""
        ...

    def stop(self) -> None:
        """End refreshing."""
        ...

    def snapshot(self) -> Snapshot[RevocationList] | None:
        """Return the last good list."""
        ...


class TokenValidator:
    """
    Validates access tokens of one issuer, here, with revocation.

    Args:
        issuer: Issuer identifier. Its metadata tell where keys and revocations are.
        audience: The name, or names, under which tokens are issued for this service; `ANY_AUDIENCE` to accept
            tokens for anybody.
        revocations_url: The revocation service, where the issuer's metadata do not name it.
        jwks_uri: The JWK Set, where there are no metadata; needs *revocations_url*.
        max_token_lifetime: Seconds that a token may live at most; default: what the revocation list says.
        accept_untyped: Also accept tokens whose header has no `typ`, or `JWT`.
        leeway: Seconds by which a token's `iat` may lie ahead of this machine's clock (at most 60).
        list_warn_age: Age of the list, in seconds, from which the validator calls itself degraded.
        list_refuse_age: Age from which it refuses to judge. Longer rides out longer outages of the revocation
            service; a token revoked meanwhile lives as long.
        list_max_entries: A longer list is refused whole, and the last good one gets older (1 to 100,000,000).
        state_folder: Where the list is kept across restarts; without it a restart needs the service.
        signed_list_url: Where the signed list is carried to (`https:` or `file:`): the second source, while
            the revocation service is away. The issuer's metadata name its keys.
        extend_url: Where a signed word to go on by an old list may be found (`https:` or `file:`), in a long
            outage; needs *extend_key*.
        extend_key: The pinned public key of such words, a JWK in JSON.
        reports: Tell the revocation service which revocations are enforced here since when, so that operators
            can wait for it. Where it takes no reports nothing comes of it.
        name: This reader's name, as operators see it.
        version: This reader's version.
        bearer: A token source for reading the list, where the platform asks for a token.
        allow_plain_http: Speak unencrypted HTTP to other machines. Only where the network itself encrypts.
        remembered: Tokens whose verified signatures are remembered.
        fetchers: Makes a fetcher; called once for each background thread.
        clock: Where the time comes from.
        on_event: Called from background threads with each `SourceEvent`, for metrics.

    Raises:
        ConfigurationError: An argument is not usable.
    """

    _listener: OnEvent | None = None
    _finds_list: bool = False
    _extension: ExtensionSource | None = None
    _key_source: KeySource | None = None
    _revocation_source: RevocationSource | None = None

    def __init__(
        self,
        issuer: str,
        *,
        audience: str | Iterable[str] | AnyAudience,
        revocations_url: str | None = None,
        jwks_uri: str | None = None,
        max_token_lifetime: int | None = None,
        accept_untyped: bool = False,
        leeway: float = 5,
        list_warn_age: float = 120.0,
        list_refuse_age: float = 900.0,
        list_max_entries: int = MAX_ENTRIES,
        state_folder: Path | str | None = None,
        signed_list_url: str | None = None,
        extend_url: str | None = None,
        extend_key: str | None = None,
        reports: bool = True,
        name: str | None = None,
        version: str = "0",
        bearer: Bearer | None = None,
        allow_plain_http: bool = False,
        remembered: int = REMEMBERED,
        fetchers: Callable[[], Fetcher] | None = None,
        clock: Clock | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Make the sources; nothing is fetched before `start`."""
        if jwks_uri is not None and revocations_url is None:
            raise ConfigurationError(["jwks_uri: without metadata, revocations_url is needed as well"])
        trusted = TrustedIssuer(
            issuer=issuer,
            # Until the first list has told the lifetime nothing is accepted anyway.
            max_token_lifetime=max_token_lifetime or MAX_LIFETIME,
            accept_untyped=accept_untyped,
        )
        policy = ValidationPolicy(
            issuers=(trusted,),
            audience=audience if isinstance(audience, str | AnyAudience) else tuple(audience),
            leeway=leeway,
            list_warn_age=list_warn_age,
            list_refuse_age=list_refuse_age,
        )
        clock = clock or SystemClock()
        make_fetcher = fetchers or (lambda: HttpFetcher(allow_plain_http=allow_plain_http))
        extension = None
        if extend_url is not None:
            if extend_key is None:
                raise ConfigurationError(["extend_url: without extend_key nobody can be believed there"])
            extension = ExtensionSource(
                extend_url, issuer=issuer, key=extend_key, fetcher=make_fetcher(), clock=clock, on_event=on_event
            )
        keys = KeySource(issuer, jwks_uri=jwks_uri, fetcher=make_fetcher(), clock=clock, on_event=self._heard)
        revocations = RevocationSource(
            revocations_url or (lambda: keys.metadata.revocation_list_uri if keys.metadata else None),
            name=name,
            version=version,
            bearer=bearer,
            state_folder=state_folder,
            state_key=issuer,
            refuse_age_seconds=list_refuse_age,
            max_entries=list_max_entries,
            signed_list=None
            if signed_list_url is None
            else SignedListPlace(
                url=signed_list_url,
                issuer=issuer,
                keys_uri=lambda: keys.metadata.revocation_list_jwks_uri if keys.metadata else None,
                fetcher=make_fetcher(),
            ),
            extension=extension,
            report_fetcher=make_fetcher() if reports else None,
            fetcher=make_fetcher(),
            clock=clock,
            on_event=on_event,
        )
        self._listener = on_event
        self._finds_list = revocations_url is None
        self._key_source, self._revocation_source = keys, revocations
        self._join(policy, keys, revocations, clock, remembered=remembered)
        self._extension = extension
        self._lifetime_of_list = max_token_lifetime is None

    @classmethod
    def from_sources(
        cls,
        policy: ValidationPolicy,
        *,
        keys: Keys,
        revocations: Revocations,
        clock: Clock | None = None,
        remembered: int = REMEMBERED,
        extension: ExtensionSource | None = None,
    ) -> Self:
        """
        Return a validator that judges by *policy* with sources made elsewhere, whatever they are.

        An *extension* is started and stopped by the source of revocations that it was given to.
        """
        validator = cls.__new__(cls)
        validator._join(  # noqa: SLF001 -- the second constructor of this very class
            policy, keys, revocations, clock or SystemClock(), remembered=remembered
        )
        validator._extension = extension  # noqa: SLF001 -- likewise
        return validator

    def _join(
        self,
        policy: ValidationPolicy,
        keys: Keys,
        revocations: Revocations,
        clock: Clock,
        *,
        remembered: int,
    ) -> None:
        self.policy = policy
        self._keys, self._revocations, self._clock = keys, revocations, clock
        self._count_refusal = revocations.refused if isinstance(revocations, RevocationSource) else None
        self._remembered = remembered
        self._validator = Validator(policy, remembered=remembered)
        self._lifetime_of_list = False
        self._lifetime = 0
        self._said_at = float("-inf")

    # --- judging ---

    def validate(
        self,
        token: str,
        *,
        scope: str | Iterable[str] = NO_SCOPE,
        audience: str | None = None,
        confirmation: str | Shown | Confirmation | None = None,
    ) -> TokenInfo:
        """
        Return what *token* says if it may be acted upon now. Never waits.

        A key that is not held is asked for in the background; the next call may find it.

        Args:
            token: The access token as received.
            scope: Scopes that it must have, all of them: names, or one string with spaces between.
            audience: A name that must be among its audiences as well.
            confirmation: Thumbprint (`x5t#S256`) of the certificate of the caller's connection: a token that is
                bound to a certificate is good with that one alone (RFC 8705 section 3). Or all that the caller has
                shown, a key among it (`tokenry.oauth.confirmation.Shown`).

        Raises:
            InvalidToken: The token must not be acted upon (401).
            InsufficientScope: It is good and lacks scopes (403).
            ValidatorNotReady: It cannot be told (503).
        """
        try:
            return self._judge(token, _scope(scope), audience, confirmation)
        except UnknownKey as unknown:
            self._keys.request_refetch(unknown.issuer)
            raise

    def remembers(self, token: str) -> bool:
        """Tell whether the signature of *token* was verified and is remembered; says nothing of whether it is good."""
        return self._validator.remembers(token)

    def validate_at_once(self, token: str, confirmation: str | Shown | Confirmation | None = None) -> TokenInfo:
        """
        Do as `validate` does, without a word about a key that is not held: for who then calls `avalidate`.

        Raises:
            UnknownKey: The key is not held, and was not asked for.
        """
        return self._judge(token, NO_SCOPE, None, confirmation)

    async def avalidate(
        self,
        token: str,
        *,
        scope: str | Iterable[str] = NO_SCOPE,
        audience: str | None = None,
        confirmation: str | Shown | Confirmation | None = None,
    ) -> TokenInfo:
        """Do as `validate` does, but wait, at most a second, for a key that is not held (for asyncio)."""
        required = _scope(scope)
        try:
            return self._judge(token, required, audience, confirmation)
        except UnknownKey as unknown:
            issuer = unknown.issuer
        await self._keys.arefetch(issuer)
        return self._judge(token, required, audience, confirmation)

    def validate_waiting(
        self,
        token: str,
        *,
        scope: str | Iterable[str] = NO_SCOPE,
        audience: str | None = None,
        confirmation: str | Shown | Confirmation | None = None,
    ) -> TokenInfo:
        """Do as `validate` does, but wait, at most a second, for a key that is not held (for threads)."""
        required = _scope(scope)
        try:
            return self._judge(token, required, audience, confirmation)
        except UnknownKey as unknown:
            issuer = unknown.issuer
        self._keys.refetch(issuer)
        return self._judge(token, required, audience, confirmation)

    def _judge(
        self, token: str, scope: Scope, audience: str | None, confirmation: str | Shown | Confirmation | None
    ) -> TokenInfo:
        """Judge, and count a refusal for the report on the revocation that it is due to."""
        clock = self._clock
        now, monotonic = clock.now(), clock.monotonic()
        keys, revocations = self._keys.snapshot(), self._revocations.snapshot()
        held, age = None, 0.0
        if revocations is not None:
            held, age = revocations.value, revocations.age(now=now, monotonic=monotonic)
            if age > self.policy.list_warn_age:
                self._say(age, monotonic)
                age = self._judged_age(age)
            if self._lifetime_of_list and held.max_token_lifetime > self._lifetime:
                self._follow(held.max_token_lifetime)
        try:
            return self._validator.validate(
                token,
                now=now,
                keys=keys.value if keys is not None else None,
                revocations=held,
                list_age=age,
                scope=scope,
                audience=audience,
                confirmation=confirmation,
            )
        except RevokedToken as revoked:
            if self._count_refusal is not None:
                self._count_refusal(revoked.hit)
            raise

    def _judged_age(self, age: float) -> float:
        """Return *age*, or the refuse limit where an extension lets lists grow older than that."""
        limit = self.policy.list_refuse_age
        return limit if age > limit and self.extension is not None else age

    @property
    def extension(self) -> ListExtension | None:
        """The signed word by which lists older than the refuse limit are judged by now, if there is one."""
        return None if self._extension is None else self._extension.current()

    def _follow(self, lifetime: int) -> None:
        """Hold tokens to the longest lifetime that lists have named: a lowered one has to run out first."""
        self._lifetime = lifetime
        issuers = tuple(replace(each, max_token_lifetime=lifetime) for each in self.policy.issuers)
        self.policy = replace(self.policy, issuers=issuers)
        self._validator = Validator(self.policy, remembered=self._remembered)

    def _say(self, age: float, monotonic: float) -> None:
        if monotonic - self._said_at >= _SAY_AGAIN_SECONDS:
            self._said_at = monotonic
            limit = self.policy.list_refuse_age
            log.warning("tokenry: the revocation list is %.0f s old; from %.0f s on no token is judged", age, limit)

    # --- life ---

    def start(self) -> None:
        """Begin to read keys and revocations in the background; may be called again."""
        self._keys.start()
        self._revocations.start()

    def stop(self) -> None:
        """End the background threads. What is held stays, and gets older."""
        self._keys.stop()
        self._revocations.stop()

    close = stop

    @property
    def not_ready(self) -> Unready | None:
        """What is missing to judge tokens now, or None."""
        keys, age = self._keys.snapshot(), self.list_age()
        if keys is None or not len(keys.value):
            return Unready.NO_KEYS
        if not self.policy.requires_list:
            return None
        if age is None:
            return Unready.NO_LIST
        return None if self._judged_age(age) <= self.policy.list_refuse_age else Unready.LIST_TOO_OLD

    @property
    def ready(self) -> bool:
        """Whether tokens can be judged now."""
        return self.not_ready is None

    @property
    def degraded(self) -> bool:
        """Whether the list is older than the warn age, or missing."""
        age = self.list_age()
        return self.policy.requires_list and (age is None or age > self.policy.list_warn_age)

    def list_age(self) -> float | None:
        """Return the age of the revocation list in seconds, or None before the first."""
        held = self._revocations.snapshot()
        return held.age(now=self._clock.now(), monotonic=self._clock.monotonic()) if held else None

    def keys_age(self) -> float | None:
        """Return the age of the keys in seconds, or None before the first."""
        held = self._keys.snapshot()
        return held.age(now=self._clock.now(), monotonic=self._clock.monotonic()) if held else None

    def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """
        Wait until tokens can be judged, at most *timeout* seconds (for threads).

        Raises:
            ValidatorNotReady: They cannot, after that time.
        """
        end = time.monotonic() + timeout
        while (missing := self.not_ready) is not None:
            if time.monotonic() >= end:
                raise ValidatorNotReady(missing)
            time.sleep(_LOOK_SECONDS)

    async def await_ready(self, timeout: float = START_SECONDS) -> None:  # noqa: ASYNC109 -- the sentence of `wait_ready`
        """Do as `wait_ready` does, for asyncio."""
        end = time.monotonic() + timeout
        while (missing := self.not_ready) is not None:
            if time.monotonic() >= end:
                raise ValidatorNotReady(missing)
            await asyncio.sleep(_LOOK_SECONDS)

    async def aiohttp_ctx(self, _app: object) -> AsyncIterator[None]:
        """Run with an aiohttp application: `app.cleanup_ctx.append(validator.aiohttp_ctx)`."""
        async with self.lifespan(_app):
            yield

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """
        Run with an ASGI application: `FastAPI(lifespan=validator.lifespan)`.

        Raises:
            ValidatorNotReady: No keys or no list could be had in time: better no start than a blind one.
        """
        self.start()
        try:
            await self.await_ready()
            yield
        finally:
            await asyncio.to_thread(self.stop)

    def __enter__(self) -> Self:
        """Start, and wait until tokens can be judged."""
        self.start()
        try:
            self.wait_ready()
        except ValidatorNotReady:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def accept_epoch(self, epoch: int) -> None:
        """Take the revocation list of the later store *epoch*: an operator's word after a restore."""
        if self._revocation_source is not None:
            self._revocation_source.accept_epoch(epoch)

    def stats(self) -> dict[str, Any]:
        """Return what an operator wants to see: readiness, ages, sizes, counters."""
        held = self._revocations.snapshot()
        missing = self.not_ready
        return {
            "ready": missing is None,
            "not_ready": missing.value if missing is not None else None,
            "degraded": self.degraded,
            "list_age": self.list_age(),
            "list_entries": len(held.value) if held else 0,
            "list_epoch": held.value.epoch if held else None,
            "list_as_of": held.as_of if held else None,
            "keys_age": self.keys_age(),
            "keys": _counters(self._keys),
            "revocations": _counters(self._revocations),
        }

    def _heard(self, event: SourceEvent) -> None:
        """Wake the list's reader as soon as the metadata have told where the list is."""
        if event.kind is EventKind.METADATA and self._finds_list:
            metadata = self._key_source.metadata if self._key_source is not None else None
            if metadata is not None and metadata.revocation_list_uri is None:
                log.error("tokenry: the issuer's metadata name no revocation_list_uri: give revocations_url")
            if self._revocation_source is not None:
                self._revocation_source.wake()
        if self._listener is not None:
            self._listener(event)


def _counters(source: object) -> dict[str, Any]:
    counters = getattr(source, "counters", None)
    return dict(counters.as_mapping()) if counters is not None else {}


def _scope(scope: str | Iterable[str]) -> Scope:
    """Return *scope* as a set; the spellings in use are few, so they are remembered."""
    if isinstance(scope, frozenset):
        return scope
    return _parsed(scope if isinstance(scope, str) else tuple(scope))


@lru_cache(maxsize=512)
def _parsed(scope: str | tuple[str, ...]) -> Scope:
    return parse_scope(scope) if isinstance(scope, str) else scope_of(scope)


__all__ = ["SKEW_SECONDS", "START_SECONDS", "Keys", "Revocations", "TokenValidator"]
