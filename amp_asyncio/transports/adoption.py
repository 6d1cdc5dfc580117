"""UNIX sockets: connecting with a `DescriptorTransport`, and moving on to one of the event loop's own.

Only the transports of the event loop can do TLS. A connection moves to one by a second descriptor for
its socket, while neither transport reads, so that no byte is lost.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from .unix import DescriptorTransport

__all__ = ["connect_unix", "native_transport", "refuse_descriptors"]

# From Linux 6.16 on.
_SO_PASSRIGHTS = getattr(socket, "SO_PASSRIGHTS", 83)

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


def refuse_descriptors(sock: Any) -> None:
    """Have the kernel refuse descriptors that a peer sends to `sock`, where it can.

    The transports of the event loops drop them when they read: the kernel closes them then, and a file
    may make that take long. With a socket that listens, this applies to the connections, too.
    """
    with suppress(OSError):  # An older kernel does not know the option.
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


async def connect_unix(
    protocol_factory: Callable[[], _P], path: str | None = None, sock: socket.socket | None = None
) -> _P:
    """Connect to the UNIX socket `path`, or use `sock`, which is connected, and return the protocol.

    Raises `OSError` if connecting fails, and `ValueError` unless exactly one of the two is given or if
    `sock` is not a UNIX stream socket. If it is cancelled, the connection is closed.
    """
    loop = asyncio.get_running_loop()
    if (path is None) is (sock is None):
        raise ValueError("either a path or a sock is needed, and not both")
    if sock is None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    elif sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"a UNIX stream socket is needed, not {sock!r}")
    waiter = loop.create_future()
    try:
        sock.setblocking(False)
        if path is not None:
            await loop.sock_connect(sock, path)
        protocol = protocol_factory()
        transport = DescriptorTransport(loop, sock, protocol, waiter)
    except BaseException:
        waiter.cancel()
        sock.close()
        raise
    try:
        await waiter
    except BaseException:
        transport.close()
        raise
    return protocol


class _KeepingProtocol(asyncio.Protocol):
    """Keeps data that is read before the pause: uvloop starts reading after `connection_made`."""

    def __init__(self) -> None:
        self.data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()

    def data_received(self, data: bytes) -> None:
        self.data += data


async def native_transport(ours: DescriptorTransport) -> tuple[asyncio.Transport, bytes]:
    """Move the connection of `ours` to one of the event loop's transports; `ours` is aborted.

    Returns the new transport, with reading paused, and the bytes that it has already read. The write
    buffer of `ours` must be empty and its reading paused. The protocol is not notified.

    Raises `OSError` if the process has no descriptor left, and `ConnectionError` if the connection was
    closed meanwhile. If it is cancelled, `ours` is of no more use: on uvloop, bytes may have been read.
    """
    loop = asyncio.get_running_loop()
    keeping = _KeepingProtocol()
    native: asyncio.Transport
    sock = _duplicate(ours.get_extra_info("socket"))
    refuse_descriptors(sock)
    native, _ = await loop.create_unix_connection(lambda: keeping, sock=sock)
    if ours.is_closing() or native.is_closing():
        native.abort()
        raise ConnectionAbortedError("the connection was closed")
    if native.is_reading():
        native.pause_reading()
    native.set_protocol(ours.get_protocol())
    ours.set_protocol(asyncio.Protocol())
    ours.release()
    return native, bytes(keeping.data)


def _duplicate(sock: Any) -> socket.socket:
    """Return a new socket for the same connection."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(sock.fileno()))
