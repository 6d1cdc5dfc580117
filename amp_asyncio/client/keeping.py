"""Keeping: the tasks that make the connections of a client, and replace those that end.

Each keeper has one connection. It makes another one when that is lost, when the server announces that
it will close it, or when another place becomes better. In the last case, the old connection stays in
use until the new one is ready.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..amp import AMP
from ..errors import AmpError, ConnectionLost, GiveUp
from ..logs import logger
from ..session.pinging import introduce
from .addresses import Opened
from .links import Link, has_left
from .policy import Place
from .pool import Pool
from .resolving import Directory

__all__ = ["Keepers"]

# How many seconds it may take to clean up after a connection that was lost: a child may live on.
_LOST = 3.0


class Keepers:
    """The tasks of a client that have to do with its connections.

    `given_up` is called with the error of an `on_connect` that says `GiveUp`, and `changed` when the
    first connection opens, and when the last one is lost.
    """

    def __init__(
        self,
        about: object,
        pool: Pool,
        directory: Directory,
        make: Callable[[], AMP],
        on_connect: Callable[[Any], Awaitable[object] | object] | None,
        timeout: float,
        slow: float,
        given_up: Callable[[Exception], None],
        changed: Callable[[], None],
    ) -> None:
        self._about = about
        self._pool = pool
        self._directory = directory
        self._make = make
        self._on_connect = on_connect
        self._timeout = timeout
        self._slow = slow
        self._given_up = given_up
        self._changed = changed
        self._keeping: set[asyncio.Task[None]] = set()
        # What closes connections, and waits for the end of those that are in use.
        self._closing: set[asyncio.Task[Any]] = set()

    def start(self, connections: int, refresh: float | None) -> None:
        """Make this many connections, and keep them; ask the resolver every `refresh` seconds."""
        loop = asyncio.get_running_loop()
        self._keeping = {loop.create_task(self._keep()) for _ in range(connections)}
        if refresh is not None:
            self._keeping.add(loop.create_task(self._refresh(refresh)))

    def _close_soon(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # --- one connection ---

    async def _keep(self) -> None:
        link: Link | None = None
        while True:
            if link is not None:
                await link.over.wait()
            # It is used until another one is ready, unless it has ended.
            before = None if link is None or link.ended else link
            if before is not None:
                before.over.clear()
            place = await self._directory.take(None if before is None else before.place)
            if place is None:
                continue
            opened = await self._first(place, hurry=before is None)
            if before is not None:
                self._moved(before, opened)
            if opened is not None:
                link = opened
                self._pool.add(link)
                self._changed()
                self._watch(link)

    def _moved(self, before: Link, opened: Link | None) -> None:
        """Another connection has taken the part of `before`, or could not be made: try again."""
        if opened is None:
            before.over.set()
        else:
            self._retire(before, moved=True)

    async def _first(self, place: Place, hurry: bool) -> Link | None:
        """Connect to `place`, and to others, too, if that takes long; return the first connection.

        Without `hurry`, it tries only `place`.

        A server that is stopped, or an address of IPv6 that leads nowhere, accepts or says nothing:
        that must not hold up those who wait, if others would answer.
        """
        loop, places = asyncio.get_running_loop(), self._directory.places
        if not hurry or len(places) < 2:
            return await self._open(place)
        attempts: set[asyncio.Task[Link | None]] = set()
        another: Place | None = place
        try:
            while True:
                if another is not None:
                    attempts.add(loop.create_task(self._open(another)))
                done, _ = await asyncio.wait(
                    attempts, timeout=self._slow, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    attempts.discard(task)
                    if (link := task.result()) is not None:
                        return link
                if not attempts:
                    return None
                another = None if done else places.take(loop.time(), other=True)
        finally:
            for task in attempts:
                task.cancel()
                self._closing.add(task)
                task.add_done_callback(self._not_used)

    def _not_used(self, attempt: asyncio.Task[Link | None]) -> None:
        """An attempt has ended that is not needed: another one succeeded, or all were cancelled."""
        self._closing.discard(attempt)
        link = None if attempt.cancelled() else attempt.result()
        if link is not None:
            self._directory.places.moved(link.place, link.since, 0)
            self._leave(link.opened)

    async def _open(self, place: Place) -> Link | None:
        """Return a connection that is ready to be used, or None if that failed."""
        places, loop = self._directory.places, asyncio.get_running_loop()
        opened: Opened | None = None  # What is to be closed if it does not get ready.
        done = pinging = False
        try:
            async with asyncio.timeout(self._timeout):
                opened = ready = await place.endpoint.open(self._make)
                if self._on_connect is not None:
                    result = self._on_connect(ready.amp)
                    if inspect.isawaitable(result):
                        await result
                if place.ours and place.endpoint.listens:
                    pinging = True
                    place.unanswered_since = place.unanswered_since or loop.time()
                    await introduce(ready.amp.__amp__)
                    pinging, place.unanswered_since = False, None
                    place.ours = ready.amp.__amp__.peer_is_ours
                link = Link(ready, place, loop.time(), self._worn)
            if not link.may_be_asked:
                raise ConnectionLost("the connection was lost before it was used")
            places.connected(place)
            done = True
        except GiveUp as error:
            self._given_up(error)
            return None
        except Exception as error:
            done = True
            if pinging:
                self._doubt(place, isinstance(error, TimeoutError))
            self._failed(place, error, opened)
            self._leave(opened)
            return None
        finally:
            if not done:
                places.given_back(place)
                self._leave(opened)
            self._directory.moved()
        logger.info("%r: connected to %s", self._about, place.endpoint)
        return link

    def _doubt(self, place: Place, late: bool) -> None:
        """A ping was not answered, perhaps not in time.

        It may be a server of another kind now, to which it means nothing.
        """
        since, now = place.unanswered_since, asyncio.get_running_loop().time()
        if late or (since is not None and now - since > self._timeout):
            place.ours, place.unanswered_since = False, None

    def _failed(self, place: Place, error: Exception, opened: Opened | None) -> None:
        now = asyncio.get_running_loop().time()
        in_order = opened is not None and has_left(opened.amp)
        delay = self._directory.places.failed(place, now, in_order)
        self._pool.trouble = error
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, TimeoutError) and not str(error):
            why = f"no connection within {self._timeout} seconds"
        expected = isinstance(error, OSError | AmpError)
        logger.warning(
            "%r: cannot connect to %s, next attempt in %.1f s: %s",
            self._about,
            place.endpoint,
            delay,
            why,
            exc_info=None if expected else error,
        )

    def _leave(self, opened: Opened | None) -> None:
        if opened is not None:
            self._close_soon(opened.leave())

    # --- the end of a connection ---

    def _watch(self, link: Link) -> None:
        """See that the end of a connection is noticed."""

        async def watch() -> None:
            await link.wait_lost()
            self._retire(link, lost=True)

        self._close_soon(watch())
        link.when_left(self._retire)

    def _worn(self, link: Link) -> None:
        self._retire(link, moved=True)

    def _retire(self, link: Link, lost: bool = False, moved: bool = False) -> None:
        """Use a connection no more; it closes when its questions are answered."""
        if link.ended:
            return
        link.ended = True
        self._pool.remove(link)
        link.place.ours |= link.peer_is_ours
        loop, places = asyncio.get_running_loop(), self._directory.places
        now = loop.time()
        lived = now - link.since
        if moved:
            places.moved(link.place, now, lived)
        else:
            places.ended(link.place, now, lived, in_order=not lost)
        if lost:
            logger.info("%r: the connection to %s was lost", self._about, link.place.endpoint)
        else:
            logger.info("%r: leaving %s", self._about, link.place.endpoint)
        self._close_soon(link.opened.close(_LOST if lost else None))
        link.over.set()
        self._directory.moved()
        self._changed()

    # --- all connections ---

    async def _refresh(self, period: float) -> None:
        while True:
            await asyncio.sleep(period)
            await self._directory.resolve()
            self.balance()

    def balance(self) -> None:
        """Replace the connections that should go to other places."""
        moving = sorted(self._pool.links, key=lambda link: link.over.is_set())
        for link in self._directory.places.moves(moving, asyncio.get_running_loop().time()):
            link.over.set()

    def stop(self) -> None:
        """Make no more connections."""
        for task in self._keeping:
            task.cancel()

    def drop(self, timeout: float | None, leave: bool = False) -> None:
        """Use the connections no more, and close them in the background."""
        self.stop()
        for link in [*self._pool.links]:
            link.ended = True
            self._pool.remove(link)
            self._close_soon(link.opened.leave() if leave else link.opened.close(timeout))

    async def close(self, timeout: float | None, leave: bool = False) -> None:
        """Close all connections, within `timeout` seconds; give open questions up if they are left."""
        self.drop(timeout, leave)
        try:
            await asyncio.gather(*self._keeping, return_exceptions=True)
            await self._directory.close()
            if self._closing:
                await asyncio.wait(self._closing, timeout=timeout)
        finally:
            for task in self._closing:
                task.cancel()
            await asyncio.gather(*self._closing, return_exceptions=True)
