"""
Accepting tokens that are bound to a key (DPoP, RFC 9449): `dpop=Dpop("https://orders.example")` to any middleware.

Without this argument such tokens are refused. Proofs are remembered in this process, so that each is good once in each
worker of a service; their memory is bounded, and a full one refuses.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from tokenry.clock import Clock, SystemClock
from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.http.forking import renew_after_fork
from tokenry.oauth.dpop import LEEWAY, MAX_AGE, MAX_REMEMBERED, Proof, SeenProofs, dpop_token, read_proof, target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LONGEST_AGE: Final = 300


class Asked(NamedTuple):
    """
    What a proof is compared with.

    Attributes:
        method: HTTP method of the request.
        path: Its path, decoded, as the server sees it.
        proofs: Every value of its header field `DPoP`.
    """

    method: str
    path: str
    proofs: Sequence[str]


class Dpop:
    """
    Reads and remembers the proofs of a service's callers.

    Args:
        base_urls: Under which URLs callers know this service: `https://orders.example`, with the part of the path that
            a proxy takes off. What a request itself says of its host is not believed.
        required: Refuse tokens without a proof, and those that are not bound to a key.
        max_age: Seconds that a proof is good.
        leeway: Seconds by which a sender's clock may be ahead.
        max_remembered: Proofs that are remembered, for *max_age* each.
        clock: Where the time comes from.

    Raises:
        ConfigurationError: A URL is none, or a number is out of range.
    """

    def __init__(
        self,
        base_urls: str | Iterable[str],
        *,
        required: bool = False,
        max_age: float = MAX_AGE,
        leeway: float = LEEWAY,
        max_remembered: int = MAX_REMEMBERED,
        clock: Clock | None = None,
    ) -> None:
        """Check the arguments."""
        given = (base_urls,) if isinstance(base_urls, str) else tuple(base_urls)
        if not given:
            raise ConfigurationError(["Dpop: name the URL under which callers know this service"])
        try:
            self._bases = tuple(_base(url) for url in given)
        except ProtocolError as error:
            raise ConfigurationError([f"Dpop: {error}; name a URL such as https://orders.example"]) from None
        if not 0 < max_age <= LONGEST_AGE or not 0 <= leeway <= LONGEST_AGE or max_remembered < 1:
            raise ConfigurationError(
                [f"Dpop: max_age and leeway are at most {LONGEST_AGE} s, max_remembered at least 1"]
            )
        self.required = required
        self._max_age, self._leeway, self._max_remembered = max_age, leeway, max_remembered
        self._clock = clock or SystemClock()
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin a memory of its own: a lock may have been held by another thread."""
        self._lock = threading.Lock()
        self._seen = SeenProofs(max_remembered=self._max_remembered, max_per_key=max(1, self._max_remembered // 2))

    def read(self, authorization: Sequence[str], asked: Callable[[], Asked] | None) -> tuple[str, Proof] | None:
        """
        Return the token and the proof of a request, or None where it does not use the scheme `DPoP`.

        Args:
            authorization: Every value of the `Authorization` field.
            asked: Says what the proof is compared with.

        Raises:
            BadProof: There is no good one.
        """
        token = dpop_token(authorization)
        if token is None:
            return None
        request = asked() if asked is not None else Asked("", "", ())
        # As it is decoded already, what looks encoded in it is so once more.
        path = quote(request.path, safe="/", errors="surrogateescape") or "/"
        places = {base + path for base in self._bases}
        proof = read_proof(
            request.proofs,
            method=request.method,
            is_target=places.__contains__,
            now=self._clock.now(),
            token=token,
            max_age=self._max_age,
            leeway=self._leeway,
        )
        return token, proof

    def use(self, proof: Proof) -> None:
        """
        Remember that *proof* is used now, once its token was found good.

        Raises:
            BadProof: It was used before.
            MemoryFull: It cannot be remembered.
        """
        with self._lock:
            self._seen.use(proof, now=self._clock.now())

    def __repr__(self) -> str:
        """Show the URLs."""
        return f"Dpop({list(self._bases)!r})"


def _base(url: str) -> str:
    if "?" in url or "#" in url:
        raise ProtocolError("a base URL has no query and no fragment")
    return target(url).rstrip("/")


__all__ = ["Asked", "Dpop"]
