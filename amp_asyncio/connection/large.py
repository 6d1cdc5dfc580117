"""Large pieces: while they come, asyncio makes the `bytes` of each read, and nothing is copied.

A connection has asyncio read into a buffer, and copies each piece out of it; `starting.py` says why. To
copy a large piece costs more than what that saves: with values of 60,000 bytes, 8 % of the CPU time of
a call. So after a large piece the transport has a protocol without a buffer, until a small piece comes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["LARGE", "expect_large"]

#: How many bytes a large piece has, at least.
LARGE: Final = 48 * 1024

# A piece with fewer bytes is small. (Between the two, nothing changes: that costs more than a copy.)
_SMALL: Final = 16 * 1024

# Where the transports are that read in this way. (Others may use more of what a connection can do.)
_TRANSPORTS: Final = "asyncio.selector_events"


def expect_large(connection: Connection) -> None:
    """Read the next piece without the buffer, if `connection` gets it from such a transport itself.

    A transport that was secured is still its own for a moment, but the bytes on it are those of TLS.
    """
    transport = connection.transport
    if (
        transport is not None
        and type(transport).__module__ == _TRANSPORTS
        and transport.get_protocol() is connection
    ):
        transport.set_protocol(_WithoutBuffer(connection, transport))


class _WithoutBuffer(asyncio.Protocol):
    """Stands for a connection on its transport, and passes on what that says."""

    __slots__ = ("_connection", "_transport")

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if len(data) < _SMALL and self._transport.get_protocol() is self:
            self._transport.set_protocol(self._connection)
        self._connection.data_received(data)

    # asyncio does not call these two. A protocol that was put in between may.
    def get_buffer(self, sizehint: int) -> memoryview:
        return self._connection.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.buffer_updated(nbytes)

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
