"""
A look at our own JWK Set from outside, through its public URL: what nobody can verify must not be signed.

Two issuers with different keys behind one name (a wrong bucket, a restored one, a forgotten deployment) look well each
by itself. So each asks, as a validator does, and a key of ours that the world does not see signs no more. Only an
answer counts: while the URL cannot be reached, or gives something else than a JWK Set, nothing changes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tokenry.errors import ProtocolError
from tokenry.http.backoff import shortened, system_random
from tokenry.http.fetch import FetchFailed, Request
from tokenry.jose.encoding import parse_json_object

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tokenry.http.fetch import Fetcher
    from tokenry_issuer.keyring import Keyring

SOON = 5.0  # seconds: after a key was missing, so that a replica that read it a little later costs seconds
JITTER = 0.1
MAX_BYTES = 64 * 1024  # a key has some 250
_OK = 200


class PublishedCheck:
    """Looks again and again."""

    def __init__(
        self,
        keyring: Keyring,
        *,
        url: str,
        fetcher: Fetcher,
        interval: float,
        observe: Callable[[str], None],
        uniform: random.Random = system_random,
    ) -> None:
        """
        Have looked never yet.

        Args:
            keyring: Our keys; is told what was found.
            url: The JWK Set as validators fetch it.
            fetcher: Blocks, so it is called in a thread.
            interval: Seconds between two looks.
            observe: Called with the result of each.
            uniform: Where the jitter comes from.
        """
        self._keyring = keyring
        self._url = url
        self._fetcher = fetcher
        self._interval = interval
        self._observe = observe
        self._uniform = uniform

    async def run(self) -> None:
        """Look until cancelled."""
        while True:  # noqa: ASYNC110 -- there is nobody who could set an event
            await asyncio.sleep(await self.once())

    async def once(self) -> float:
        """Look once; return the seconds until the next look."""
        expected = self._keyring.published_kids()
        result = await self._look(expected) if expected else "no_key"
        self._observe(result)
        if result in {"missing", "no_key"}:
            return SOON
        return shortened(self._interval, by=JITTER, uniform=self._uniform)

    async def _look(self, expected: tuple[str, ...]) -> str:
        # A cache in front may hold an older set: it is asked to have it confirmed (RFC 9111 section 5.2.1.4).
        request = Request(url=self._url, headers={"Cache-Control": "no-cache"}, max_bytes=MAX_BYTES)
        try:
            response = await asyncio.to_thread(self._fetcher.fetch, request)
        except FetchFailed:
            return "unreachable"
        if response.status != _OK:
            return "unreachable"
        try:
            keys = parse_json_object(response.body).get("keys")
        except ProtocolError:
            return "unreadable"
        if not isinstance(keys, list):
            return "unreadable"
        kids = {kid for key in keys if isinstance(key, dict) and isinstance(kid := key.get("kid"), str)}
        return "missing" if self._keyring.found_published(kids, expected=expected) else "ok"
