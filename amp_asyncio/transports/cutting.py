"""Ending a connection: in order, or for the peer as well if another process has the socket, too."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

__all__ = ["close_once", "cut"]


def close_once(transport: asyncio.Transport) -> None:
    """Close `transport`, unless that was done, perhaps by the transport itself.

    A TLS transport of asyncio that is closed twice can no longer be aborted.
    """
    if not transport.is_closing():
        transport.close()


def cut(transport: asyncio.Transport) -> None:
    """Abort `transport`, and end the connection for its peer.

    To close a socket does not end its connection while a child process has inherited it, such as a
    worker of a `ProcessPoolExecutor`.
    """
    # (The sockets of uvloop's transports have no `shutdown`.)
    given = transport.get_extra_info("socket")
    if given is not None and (descriptor := given.fileno()) >= 0:
        with suppress(OSError):  # The peer may have reset it.
            sock = socket.socket(fileno=descriptor)
            try:
                sock.shutdown(socket.SHUT_RDWR)
            finally:
                sock.detach()
    transport.abort()
