"""Resolving: the addresses of a service, looked up at each reconnection and from time to time.

A lookup that fails, or that finds no address, changes nothing: the addresses known before stay in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..logs import logger
from .addresses import Source
from .policy import Backoff, Place, Places

__all__ = ["Directory"]

# How many seconds a reconnection waits for the resolver if addresses are known from before.
_PATIENCE = 1.0


class Directory:
    """The places of a client; `timeout` is how long the resolver may take.

    Attributes:
        places: those that are known.
        changed: is called when they are others than before.
    """

    def __init__(
        self,
        source: Source,
        places: Places,
        backoff: Backoff,
        chance: Callable[[], float],
        timeout: float,
        about: object,
    ) -> None:
        self._source = source
        self.places = places
        self._backoff = backoff
        self._chance = chance
        self._timeout = timeout
        self._about = about
        self._asking: asyncio.Task[None] | None = None
        self._failures = 0
        self._moved = asyncio.Event()
        self.changed: Callable[[], None] = lambda: None

    def moved(self) -> None:
        """Have all that wait for a place look again."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def take(self, instead_of: Place | None) -> Place | None:
        """Wait until a place may be connected to, and return it.

        Return None if a connection to `instead_of` no longer needs to be replaced.
        """
        loop = asyncio.get_running_loop()
        while True:
            if not self.places:
                await self.resolve()
            elif (due := self.places.due()) is not None and due <= loop.time():
                await self.resolve(_PATIENCE)
            now = loop.time()
            if (place := self.places.take(now, instead_of)) is not None:
                return place
            if instead_of is not None and not instead_of.gone:
                return None
            if self.places:
                due = self.places.due()
            else:
                self._failures += 1
                due = now + self._backoff.delay(self._failures, self._chance())
            await self._wait(None if due is None else due - now)

    async def _wait(self, delay: float | None) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._moved.wait()
        except TimeoutError:
            pass

    async def resolve(self, patience: float | None = None) -> None:
        """Ask for the addresses, or wait for an answer that is awaited already; never fails.

        With `patience`, go on after so many seconds; the answer is taken when it comes.
        """
        if self._source.fixed and self.places:
            return
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._resolve())
        await asyncio.wait([self._asking], timeout=patience)

    async def _resolve(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                found = list(await self._source.endpoints())
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            logger.warning("%r: the addresses cannot be resolved: %s", self._about, why)
        else:
            if found:
                self._failures = 0
                if self.places.update(found):
                    self.changed()
                    logger.info("%r: its addresses are %s", self._about, ", ".join(map(str, found)))
                    self.moved()
            else:
                logger.warning("%r: the resolver gave no address", self._about)
        finally:
            self._asking = None

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
