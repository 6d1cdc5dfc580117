"""Noticing that the peer of a UNIX socket has gone, and not only closed its sending side.

Both look the same to a reader: the stream ends. The kernel tells them apart in what it reports to
`poll`, even while no data is waited for: `POLLHUP` means that both directions are closed. An event
loop cannot be asked to wait for that alone, but it can wait for an `epoll` that does.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

__all__ = ["HangUp"]


class HangUp:
    """Calls `callback` once both directions of the UNIX socket `fd` are closed, until it is cancelled.

    Raises `OSError` if the process has no descriptor left, or the system has no `epoll`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, callback: Callable[[], None]) -> None:
        if not hasattr(select, "epoll"):
            raise OSError("this system does not support epoll")
        self._loop = loop
        self._callback = callback
        self._epoll = select.epoll()
        self._epoll.register(fd, 0)  # The kernel always reports a hang-up.
        loop.add_reader(self._epoll.fileno(), self._hung_up)

    def _hung_up(self) -> None:
        self.cancel()
        self._callback()

    def cancel(self) -> None:
        """Stop waiting; does nothing if that was done before."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
