"""UNIX sockets: how a connection comes to a transport of ours, and back to one of the event loop.

The loop's own functions know all there is to know about listening (the path, its permissions, a stale
file, sockets that were inherited), so they listen here, too; and TLS is theirs alone. A connection
goes over from one transport to the other by a second descriptor of its socket, while neither reads:
no byte and no descriptor can be lost on the way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .unix import DescriptorTransport

__all__ = ["AcceptingProtocol", "connect_unix", "native_transport"]

logger = logging.getLogger("amp_asyncio")

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


async def connect_unix(
    protocol_factory: Callable[[], _P], path: str | None = None, sock: socket.socket | None = None
) -> _P:
    """Return a protocol that is connected to the UNIX socket `path`, or by `sock`, which is connected.

    Raises `OSError` where there is no connection, and `ValueError` unless just one of the two is given.
    Cancelling it leaves no connection behind.
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


class AcceptingProtocol(asyncio.Protocol):
    """Takes a connection that the event loop has accepted over to a transport of ours.

    The loop's own functions listen, for they know all there is to know about that. Before their
    transport reads a byte, this protocol takes a second descriptor of its socket for a transport of
    ours, and drops the first.
    """

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on with a transport of ours."""
        native: Any = transport
        native.pause_reading()
        try:
            sock = _duplicate(native.get_extra_info("socket"))
            try:
                DescriptorTransport(asyncio.get_running_loop(), sock, self._protocol)
            except OSError:
                sock.close()
                raise
        except OSError as error:
            logger.error("a connection was accepted, and could not be kept: %s", error)
        native.abort()


class _KeepingProtocol(asyncio.Protocol):
    """Keeps what is read before reading pauses: uvloop begins to read behind `connection_made`."""

    def __init__(self) -> None:
        self.data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()

    def data_received(self, data: bytes) -> None:
        self.data += data


async def native_transport(ours: DescriptorTransport) -> tuple[asyncio.Transport, bytes]:
    """Return a transport of the event loop for the connection of `ours`, which is dropped.

    With it come the bytes that it has read already; it reads no more until it is told to. Nothing may
    wait to be written on `ours`, and its reading must be paused. The protocol hears nothing of this.

    Raises `OSError` where there are no descriptors left, and `ConnectionError` where the connection was
    closed meanwhile; cancelling it leaves `ours` as it was.
    """
    loop = asyncio.get_running_loop()
    keeping = _KeepingProtocol()
    native: asyncio.Transport
    sock = _duplicate(ours.get_extra_info("socket"))
    native, _ = await loop.create_unix_connection(lambda: keeping, sock=sock)
    if ours.is_closing() or native.is_closing():
        native.abort()
        raise ConnectionAbortedError("the connection was closed")
    if native.is_reading():
        native.pause_reading()
    native.set_protocol(ours.get_protocol())
    ours.set_protocol(asyncio.Protocol())
    ours.abort()
    return native, bytes(keeping.data)


def _duplicate(sock: Any) -> socket.socket:
    """Return another socket for the same connection."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(sock.fileno()))
