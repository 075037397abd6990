"""
Waiting for a key management service: off the event loop, a bounded number at once, never for long.

While a key cannot be used every request still tries, within the deadlines; `troubles` says so for readiness, and
whoever refreshes the keys has it sign a probe until that is over, so that an instance without traffic recovers too.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from tokenry.jose.jwk import BadSignature
from tokenry_registry.key_management import KeyManagementUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

THREADS = 16  # calls at once, each of some 10 ms: more than 1,000 signatures a second
MAX_WAITING = 256  # a quarter of a second of work; further ones are refused at once
DEADLINE = 5.0  # seconds: two attempts of the adapter, and the queue


class RemoteSigning:
    """
    Runs the calls that block.

    Attributes:
        troubles: The kids whose last call failed, with a short word for why.
    """

    def __init__(self) -> None:
        """Have no thread yet."""
        self.troubles: dict[str, str] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0

    async def run(self, kid: str, call: Callable[[], T]) -> T:
        """
        Return what *call*, which uses the key *kid*, returns, called in a thread.

        Raises:
            KeyManagementUnavailable: It failed so, took too long, or too many wait already.
            BadSignature: The service signed, and not with the right key.
        """
        # Whoever answers at once what need not wait (`quick.py`) is told here, before anything is asked for.
        await asyncio.sleep(0)
        if self._waiting >= MAX_WAITING:
            raise KeyManagementUnavailable("busy")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="key-management")
        self._waiting += 1
        future = self._pool.submit(call)
        future.add_done_callback(self._done_in(asyncio.get_running_loop()))
        try:
            result = await asyncio.wait_for(asyncio.wrap_future(future), DEADLINE)
        except TimeoutError:
            self.troubles[kid] = "timeout"
            raise KeyManagementUnavailable("timeout") from None
        except KeyManagementUnavailable as error:
            self.troubles[kid] = error.code
            raise
        except BadSignature:
            self.troubles[kid] = "bad_signature"
            raise
        self.troubles.pop(kid, None)
        return result

    def close(self) -> None:
        """Let go of the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _done_in(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        # A caller that has gone leaves its call running: it counts until it has ended.
        def done(_future: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._ended)

        return done

    def _ended(self) -> None:
        self._waiting -= 1
