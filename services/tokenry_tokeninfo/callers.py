"""
Who asks for an introspection (RFC 7662 section 2.1): a bearer token with the scope, or client credentials.

Client credentials are not known here. They are exchanged at the issuer for a token with the scope
`token.introspect`, and the issuer's answer decides. This is the one place where a request waits for another
service, so everything about it is bounded:

* one exchange at a time for one set of credentials, within a deadline;
* a token is remembered for at most `REMEMBER_SECONDS`, under a keyed hash of the credentials, and is
  validated again at each use: a revocation of the caller takes effect as everywhere;
* a failure is remembered for `FAILURE_SECONDS`;
* credentials that fail count against the caller's address.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenry.errors import InsufficientScope, InvalidToken
from tokenry.oauth.errors import OAuthError, invalid_client, invalid_request, temporarily_unavailable
from tokenry.scope import InvalidScope, parse_scope
from tokenry.serving.client_exchange import NAME_THE_REALM, Verdict, exchange_of, read_exchange
from tokenry.serving.outgoing import Answer, Unreachable
from tokenry.serving.rate_limit import TokenBuckets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenry.claims import TokenInfo
    from tokenry.clock import Clock
    from tokenry.oauth.client_authentication import ClientCredential
    from tokenry.secret import Secret
    from tokenry.serving.outgoing import Outgoing
    from tokenry_tokeninfo.ports import Validation

INTROSPECT_SCOPE = "token.introspect"
REMEMBER_SECONDS = 60.0
FAILURE_SECONDS = 1.0
EXCHANGE_SECONDS = 2.0
MAX_REMEMBERED = 10_000  # callers; some 10 MB with their tokens
MAX_EXCHANGES = 50  # at a time, over all callers: the issuer's password hashing must not be ours to exhaust
FAILURES_PER_SECOND = 1.0  # per address, once the burst is used up
FAILURE_BURST = 20.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the issuer said: a token, or why not."""

    until: float
    token: Secret | None = None
    verdict: Verdict = Verdict.UNKNOWN


class ClientExchange:
    """Turns client credentials into a validated token by asking the issuer."""

    def __init__(
        self,
        *,
        token_url: str,
        calls: Outgoing,
        validation: Validation,
        clock: Clock,
        realm: str | None = None,
        hash_key: bytes | None = None,
    ) -> None:
        """
        Exchange at *token_url*.

        Args:
            token_url: The issuer's token endpoint.
            calls: What makes the call.
            validation: Judges the token that comes back, at each use.
            clock: Where the time comes from.
            realm: Realm of the callers, where the request names none.
            hash_key: Key of the hash under which credentials are remembered; random by default.
        """
        self._token_url = token_url
        self._calls = calls
        self._validation = validation
        self._clock = clock
        self._realm = realm
        self._hash_key = hash_key or secrets.token_bytes(32)
        self._outcomes: OrderedDict[bytes, _Outcome] = OrderedDict()
        self._flights: dict[bytes, asyncio.Task[_Outcome]] = {}
        self._turn = asyncio.Semaphore(MAX_EXCHANGES)
        self._failures = TokenBuckets(rate=FAILURES_PER_SECOND, burst=FAILURE_BURST)

    async def authenticate(
        self,
        credential: ClientCredential,
        *,
        authorization: Sequence[str],
        realm: str | None,
        address: str,
    ) -> TokenInfo:
        """
        Return the token of the client that *credential* belongs to.

        Args:
            credential: What was presented.
            authorization: The header fields of the request, sent on as they came where Basic was used.
            realm: The realm that the request names, if any.
            address: The caller's address, against which failures count.

        Raises:
            OAuthError: 401 wrong, 403 without the scope, 429 too many failures, 503 when the issuer cannot
                say.
        """
        key = self._key(credential, realm)
        outcome = self._remembered(key)
        if outcome is None:
            wait = self._failures.wait(address, now=self._clock.monotonic())
            if wait:
                raise _too_many(wait)
            outcome = await self._fly(key, credential, authorization, realm, address)
        if outcome.token is None:
            raise _refusal(outcome.verdict, credential)
        try:
            return await self._validation.avalidate(outcome.token.reveal(), scope=frozenset({INTROSPECT_SCOPE}))
        except InvalidToken:
            # Expired or revoked since: what the issuer says now is asked at the next request.
            self._outcomes.pop(key, None)
            raise _refusal(Verdict.WRONG, credential) from None
        except InsufficientScope:
            raise _refusal(Verdict.NOT_ALLOWED, credential) from None

    def _key(self, credential: ClientCredential, realm: str | None) -> bytes:
        parts = [credential.method, realm or ""]
        for reading in credential.readings:
            parts += [reading.client_id, reading.secret.reveal()]
        message = b"".join(
            len(data).to_bytes(4, "big") + data for data in (p.encode("utf-8", "surrogatepass") for p in parts)
        )
        return hmac.digest(self._hash_key, message, hashlib.sha256)

    def _remembered(self, key: bytes) -> _Outcome | None:
        outcome = self._outcomes.get(key)
        if outcome is None:
            return None
        if self._clock.monotonic() >= outcome.until:
            del self._outcomes[key]
            return None
        self._outcomes.move_to_end(key)
        return outcome

    async def _fly(
        self,
        key: bytes,
        credential: ClientCredential,
        authorization: Sequence[str],
        realm: str | None,
        address: str,
    ) -> _Outcome:
        """Join the exchange that is under way for these credentials, or start it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._exchange(key, credential, authorization, realm, address))
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return await asyncio.shield(flight)  # one caller that goes away does not end it for the others

    async def _exchange(
        self,
        key: bytes,
        credential: ClientCredential,
        authorization: Sequence[str],
        realm: str | None,
        address: str,
    ) -> _Outcome:
        verdict: Verdict = Verdict.UNKNOWN
        token: Secret | None = None
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS), self._turn:
                answer = await self._ask(credential, authorization, realm, address)
        except (TimeoutError, Unreachable):
            pass
        else:
            token, verdict = _read(answer)
        now = self._clock.monotonic()
        outcome = _Outcome(
            until=now + (FAILURE_SECONDS if token is None else REMEMBER_SECONDS), token=token, verdict=verdict
        )
        if token is None and verdict is Verdict.WRONG:
            self._failures.take(address, now=now)
        self._outcomes[key] = outcome
        if len(self._outcomes) > MAX_REMEMBERED:
            self._outcomes.popitem(last=False)
        return outcome

    async def _ask(
        self, credential: ClientCredential, authorization: Sequence[str], realm: str | None, address: str
    ) -> Answer:
        exchange = exchange_of(
            credential,
            authorization=authorization[0] if authorization else None,
            realm=realm or self._realm or None,
            address=address,
            scope=INTROSPECT_SCOPE,
        )
        return await self._calls.call(
            "POST",
            self._token_url,
            headers=exchange.headers,
            body=exchange.body,
            deadline_seconds=EXCHANGE_SECONDS,
        )


def _read(answer: Answer) -> tuple[Secret | None, Verdict]:
    exchanged = read_exchange(answer.status, answer.body)
    if exchanged.token is None:
        return None, exchanged.verdict
    if exchanged.scope is None:
        return None, Verdict.UNKNOWN
    return (exchanged.token, Verdict.GOOD) if _has_scope(exchanged.scope) else (None, Verdict.NOT_ALLOWED)


def _has_scope(scope: str) -> bool:
    try:
        return INTROSPECT_SCOPE in parse_scope(scope)
    except InvalidScope:
        return False


def _refusal(verdict: Verdict, credential: ClientCredential) -> OAuthError:
    match verdict:
        case Verdict.WRONG:
            return credential.refusal()
        case Verdict.NOT_ALLOWED:
            return OAuthError("insufficient_scope", f"the client may not have the scope {INTROSPECT_SCOPE}", status=403)
        case Verdict.NO_REALM:
            return invalid_request(NAME_THE_REALM)
        case _:
            return temporarily_unavailable("the issuer cannot authenticate the caller now", retry_after=2)


def _too_many(wait: float) -> OAuthError:
    return OAuthError(
        "temporarily_unavailable", "too many failed attempts; wait", status=429, retry_after=int(wait) + 1
    )


def not_authenticated() -> OAuthError:
    """Return the refusal of a caller without any credentials: both ways to authenticate are offered."""
    refusal = invalid_client(realm="tokenry")
    return OAuthError(
        refusal.code,
        refusal.description,
        status=refusal.status,
        headers=[("WWW-Authenticate", "Bearer"), *refusal.headers],
    )
