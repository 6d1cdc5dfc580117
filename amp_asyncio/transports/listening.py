"""Listening: accepting the connections of a server.

The event loop's functions bind the sockets, because they handle names, paths, stale files and options.
They do not accept: asyncio logs four tracebacks a second while the process is out of descriptors, and
neither asyncio nor uvloop can stop accepting for a while.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from ..logs import logger

__all__ = ["Listener"]

# How many connections are accepted on a socket in one turn of the event loop.
_AT_ONCE: Final = 4

# After how many seconds it is tried again when none can be accepted.
_RETRY: Final = 0.1

# After how many seconds without such a failure the next one is another one, and is logged.
_OVER: Final = 10.0


class Listener:
    """Accepts connections on the sockets of `bound`, a server of the event loop that has not begun.

    `take` gets each one as a socket, which it then owns. `waiting` is how many may wait to be accepted.

    Raises `OSError`, and closes `bound`, if the process has no descriptor left.
    """

    def __init__(
        self, bound: asyncio.AbstractServer, waiting: int, take: Callable[[socket.socket], object]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._bound: Any = bound
        self._waiting = waiting
        self._take = take
        self._listening = False
        self._paused = False
        self._watching = False  # Whether the loop watches the sockets.
        self._failed_at: float | None = None
        self._retry: asyncio.TimerHandle | None = None
        # The same sockets once more: those that the loop gives have no `accept`.
        self._sockets: list[socket.socket] = []
        try:
            for each in self.sockets:
                self._sockets.append(socket.socket(fileno=os.dup(each.fileno())))
                self._sockets[-1].setblocking(False)
        except OSError:
            self.close()
            raise

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The sockets that it listens on; none once it is closed."""
        return tuple(self._bound.sockets)

    def listen(self) -> None:
        """Begin; raises `OSError` if it cannot."""
        for sock in self._sockets:
            sock.listen(self._waiting)
        self._listening = True
        self._watch()

    def pause(self) -> None:
        """Accept no more for now; those who connect wait."""
        self._paused = True
        self._watch()

    def resume(self) -> None:
        """Accept again."""
        self._paused = False
        self._watch()

    def close(self) -> None:
        """Listen no more. Another process that has the sockets goes on with them."""
        self._listening = False
        self._watch()
        if self._retry is not None:
            self._retry.cancel()
        for sock in self._sockets:
            sock.close()
        self._bound.close()

    def _watch(self) -> None:
        wanted = self._listening and not self._paused and self._retry is None
        if wanted is not self._watching:
            self._watching = wanted
            for sock in self._sockets:
                if wanted:
                    self._loop.add_reader(sock.fileno(), self._accept, sock)
                else:
                    self._loop.remove_reader(sock.fileno())

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(sock, error)
                return
            self._take(connection)
            if not self._watching:
                return

    def _rest(self, sock: socket.socket, error: OSError) -> None:
        """Try again in a while. Most probably the process has no descriptor left."""
        now = self._loop.time()
        if self._failed_at is None or now - self._failed_at > _OVER:
            logger.error(
                "%r: no connection can be accepted now, which is tried again: %s",
                sock.getsockname(),
                error,
            )
        self._failed_at = now
        self._retry = self._loop.call_later(_RETRY, self._try_again)
        self._watch()

    def _try_again(self) -> None:
        self._retry = None
        self._watch()
