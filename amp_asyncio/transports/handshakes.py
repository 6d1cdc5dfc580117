"""How many TLS handshakes the servers of an event loop do at the same time.

Each takes a third of a megabyte on asyncio, whether its client goes on with it or not. The others wait
for their turn, in order, and one that is slow then gives way to them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from weakref import WeakKeyDictionary

__all__ = ["Handshakes"]

_MOST: Final = 100

# After how many seconds a handshake gives way.
_PATIENCE: Final = 1.0


class Handshakes:
    """The handshakes that are under way on one event loop."""

    def __init__(self) -> None:
        # Since when, in the order in which they began.
        self._under_way: dict[asyncio.Task[Any], float] = {}
        self._queue = asyncio.Lock()
        self._fewer = asyncio.Event()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Handshakes:
        """Return those of `loop`."""
        return _all.setdefault(loop, cls())

    async def turn(self) -> None:
        """Wait until another one may begin, which then has to, before anything else is awaited."""
        async with self._queue:
            while len(self._under_way) >= _MOST:
                self._fewer.clear()
                oldest, began = next(iter(self._under_way.items()))
                try:
                    async with asyncio.timeout_at(began + _PATIENCE):
                        await self._fewer.wait()
                except TimeoutError:
                    oldest.cancel()
                    self._under_way.pop(oldest, None)

    def begin(self, handshake: asyncio.Task[Any]) -> None:
        """Count one, which is cancelled if it has to give way."""
        self._under_way[handshake] = asyncio.get_running_loop().time()
        handshake.add_done_callback(self._end)

    def _end(self, handshake: asyncio.Task[Any]) -> None:
        self._under_way.pop(handshake, None)
        self._fewer.set()


_all: WeakKeyDictionary[asyncio.AbstractEventLoop, Handshakes] = WeakKeyDictionary()
