"""Ending what a socket does, while the event loop still has it, or another process has it, too."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

__all__ = ["cut", "stop_listening"]


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


def stop_listening(sock: Any) -> bool:
    """Stop listening on `sock`, but leave its descriptor open for the server that has it.

    Another process that has the socket goes on listening. Return False if it could not be done:
    on an event loop that watches its sockets in a way of its own, such as uvloop, or without a
    descriptor left.
    """
    descriptor = sock.fileno()
    if not asyncio.get_running_loop().remove_reader(descriptor):
        return False
    try:
        with socket.socket(sock.family, sock.type) as other:
            os.dup2(other.fileno(), descriptor, inheritable=False)
    except OSError:
        return False
    return True
