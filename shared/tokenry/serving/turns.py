"""
Turns of the event loop: what takes long is begun a few at a time, and what is quick is answered in between.

An event loop finds out which connections have something, and then answers all of them. Where a hundred ask for
something long at once, whoever asks for something quick waits for all hundred; here for eight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PER_TURN: Final = 8  # some 0.7 ms of verifications, for which whoever asks for something quick waits at most


class Turns:
    """
    Lets a few begin in each turn, and the others in the order in which they came.

    Whoever waits is a request of a connection, so there are never more of them than connections.
    """

    def __init__(self, per_turn: int = PER_TURN) -> None:
        """Let *per_turn* begin in each turn."""
        self._per_turn = per_turn
        self._begun = 0
        self._waiting: deque[Callable[[], object]] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def take(self) -> bool:
        """
        Tell whether something long may begin at once, and count it; if not, `wait` or `come`.

        They are counted over several turns, until there are enough to look when a turn ends: to look each time costs
        more than the few that then wait for one turn in vain.
        """
        if self._waiting or self._begun >= self._per_turn:
            return False
        self._begun += 1
        if self._begun == self._per_turn:
            asyncio.get_running_loop().call_soon(self._next)
        return True

    def wait(self, begin: Callable[[], object]) -> None:
        """Call *begin* when it is its turn; only after `take` said no, in the same turn."""
        self._waiting.append(begin)

    async def come(self) -> None:
        """Return when something long may begin."""
        if self.take():
            return
        turn = asyncio.Event()
        self.wait(turn.set)
        await turn.wait()

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._begun = min(self._per_turn, len(self._waiting))
        for _ in range(self._begun):
            loop.call_soon(self._waiting.popleft())  # what it raises is the loop's to report, and harms nobody else
        if self._begun:
            loop.call_soon(self._next)
