"""
How many tokens live, by realm, client and subject: for "what would this revocation hit?".

Counts only, in buckets of five minutes by expiry, in bounded memory; the whole state is pushed to the revocation
service every ten seconds, so that losing an answer, or that service, loses nothing. What there is no room for is
not counted, and the state says that it is not complete.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from tokenry.errors import TokenryError
from tokenry.http.fetch import Request
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_encode, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher
    from tokenry.jose.jwk import Signer

BUCKET_SECONDS: Final = 300
MAX_SUBJECTS: Final = 5000  # rows of 100 to 400 bytes: a push stays below two megabytes, and memory below four
PUSH_SECONDS: Final = 10.0
COUNTERS_SCOPE: Final = "revocation.counters"
_TOKEN_SECONDS: Final = 60  # a push's own token; it is used at once
_DEADLINE_SECONDS: Final = 2.0  # the last one holds up the end of the process
_CREATED: Final = range(200, 300)

_log = structlog.get_logger("tokenry_issuer.live_tokens")


@dataclass(slots=True)
class LiveTokens:
    """
    The counters of one process.

    Attributes:
        is_complete: Whether everything was counted.
    """

    max_subjects: int = MAX_SUBJECTS
    is_complete: bool = True
    _rows: dict[tuple[str, str, str], dict[int, int]] = field(default_factory=dict)

    def issued(self, *, realm: str, client_id: str, subject: str, expires_at: int) -> None:
        """Count one token."""
        who = (realm, client_id, subject)
        buckets = self._rows.get(who)
        if buckets is None:
            if len(self._rows) >= self.max_subjects:
                self.is_complete = False
                return
            buckets = self._rows[who] = {}
        end = -(-expires_at // BUCKET_SECONDS) * BUCKET_SECONDS
        buckets[end] = buckets.get(end, 0) + 1

    def rows(self, now: float) -> list[list[Any]]:
        """Return `[realm, client, subject, [[end, count], …]]` of what lives at *now*; forget the rest."""
        for who, buckets in list(self._rows.items()):
            for end in [end for end in buckets if end <= now]:
                del buckets[end]
            if not buckets:
                del self._rows[who]
        return [[*who, sorted(buckets.items())] for who, buckets in self._rows.items()]


class CounterPush:
    """Pushes the counters of this process to the revocation service, for ever."""

    def __init__(
        self,
        live: LiveTokens,
        *,
        url: str,
        issuer: str,
        instance: str,
        boot: str,
        signer: Callable[[], Signer | None],
        new_jti: Callable[[], str],
        fetcher: Fetcher,
        clock: Clock,
    ) -> None:
        """
        Have pushed nothing yet.

        Args:
            live: The counters.
            url: Base URL of the revocation service.
            issuer: The issuer identifier.
            instance: Name of this replica.
            boot: Random name of this process's life: counters of an earlier one stay.
            signer: Returns the key that signs tokens now.
            new_jti: Makes ids of tokens.
            fetcher: Performs the requests; blocks, so it is called in a thread.
            clock: Where the time comes from.
        """
        self._live = live
        self._url = url.rstrip("/").removesuffix("/revocations") + "/counters"
        self._issuer = issuer
        self._names = {"instance": instance, "boot": boot}
        self._signer = signer
        self._new_jti = new_jti
        self._fetcher = fetcher
        self._clock = clock
        self._started_at = math.floor(clock.now())
        self._failed = False

    async def run(self) -> None:
        """Push every ten seconds; a failed push is reported once, and the next one has it all."""
        while True:
            await asyncio.sleep(PUSH_SECONDS)
            await self.push()

    async def push(self, *, final: bool = False) -> bool:
        """Push the counters as they are; *final* says that this process issues no more. Tell whether it was taken."""
        signer = self._signer()
        if signer is None:
            return False
        try:
            now = self._clock.now()
            # In a thread: a key management service may be what signs.
            token = await asyncio.to_thread(self._token, signer, now)
            response = await asyncio.to_thread(self._fetcher.fetch, self._request(token, now, final=final))
            taken, why = response.status in _CREATED, f"status {response.status}"
        except TokenryError as error:
            taken, why = False, str(error)
        if not taken and not self._failed:
            _log.warning("the counters of live tokens are not taken", error=why)
        self._failed = not taken
        return taken

    def _request(self, token: str, now: float, *, final: bool) -> Request:
        body = {
            **self._names,
            "started_at": self._started_at,
            "as_of": math.floor(now),
            "complete": self._live.is_complete,
            "final": final,
            "rows": self._live.rows(now),
        }
        return Request(
            method="POST",
            url=self._url,
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
            body=dump_json(body),
            deadline_seconds=_DEADLINE_SECONDS,
        )

    def _token(self, signer: Signer, now: float) -> str:
        """Return a token of the issuer's own (RFC 9068), for this service alone."""
        issued_at = math.floor(now)
        claims = {
            "iss": self._issuer,
            "sub": self._issuer,
            "aud": self._issuer,
            "client_id": self._issuer,
            "iat": issued_at,
            "exp": issued_at + _TOKEN_SECONDS,
            "jti": self._new_jti(),
            "scope": COUNTERS_SCOPE,
        }
        return jws.sign({"typ": "at+jwt"}, dump_json(claims), signer)


def boot_name(randomness: bytes) -> str:
    """Return the name of a process's life from 8 random bytes."""
    return b64url_encode(randomness)
