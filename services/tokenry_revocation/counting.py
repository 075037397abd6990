"""The issuers' counters of live tokens: kept in the store for all replicas, and asked before a revocation."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from aiohttp import web

from tokenry.oauth.errors import bearer_challenge
from tokenry.serving.application import read_body
from tokenry.serving.problem import Problem
from tokenry_revocation.callers import authenticate
from tokenry_revocation.counters import COUNTERS, MAX_PUSH_BYTES, Estimate, estimate, pack_push
from tokenry_revocation.ports import StoreUnavailable
from tokenry_revocation.requests import ClaimsTarget, InvalidRequest

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry.serving.bearers import Judge
    from tokenry_revocation.ports import RevocationStore
    from tokenry_revocation.records import RecordType
    from tokenry_revocation.requests import Target
    from tokenry_revocation.revoking import Fingerprints, Terms

SCOPE: Final = "revocation.counters"
MEMO: Final = 20_000  # names whose hashes are remembered: four megabytes
KEEP_MARGIN_SECONDS: Final = 600  # a bucket ends up to five minutes after its tokens


class Counting:
    """Takes the counters, and answers from them."""

    def __init__(
        self, *, store: RevocationStore, judge: Judge, clock: Clock, terms: Terms, fingerprints: Fingerprints
    ) -> None:
        """Keep them in *store*, by hashes of *fingerprints*, for as long as a token of *terms* lives."""
        self._store = store
        self._judge = judge
        self._clock = clock
        self._terms = terms
        # The same names come with every push.
        self._hashed = lru_cache(maxsize=MEMO)(fingerprints.private)

    async def push(self, request: web.Request) -> web.Response:
        """Take the counters of one issuer's process (`POST /counters`)."""
        caller = await authenticate(request, self._judge)
        if SCOPE not in caller.info.scope:
            challenge = bearer_challenge(error="insufficient_scope", scope=[SCOPE])
            raise Problem(403, f"this needs the scope {SCOPE}", headers=[("WWW-Authenticate", challenge)])
        body = await read_body(request, limit=MAX_PUSH_BYTES)
        try:
            # In a thread: thousands of keyed hashes take tens of milliseconds.
            name, kept = await asyncio.to_thread(pack_push, body, hashed=self._hashed)
            seconds = self._terms.max_token_lifetime + KEEP_MARGIN_SECONDS
            await self._store.remember_member(COUNTERS, name, kept, ttl_seconds=seconds)
        except InvalidRequest as error:
            raise Problem(400, str(error)) from None
        except ValueError:
            raise Problem(413, "there are too many rows to keep") from None
        except StoreUnavailable:
            raise Problem(503, "the store does not answer", retry_after=5) from None
        return web.Response(status=204)

    async def estimate(self, kind: RecordType, target: Target) -> Estimate:
        """Return what a revocation would hit; nothing known when the store does not answer."""
        try:
            pushes = (await self._store.recall_members(COUNTERS)).values()
        except StoreUnavailable:
            return Estimate()
        return await asyncio.to_thread(
            estimate,
            list(pushes),
            kind,
            dict(target.claims) if isinstance(target, ClaimsTarget) else {},
            now=self._clock.now(),
            max_token_lifetime=self._terms.max_token_lifetime,
            hashed=self._hashed,
        )
