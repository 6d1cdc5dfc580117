"""The protocol that a connection is switched to: bytes in both directions, and nothing else.

Each side greets as soon as the connection is its own. So the first bytes of the side that was asked
come right behind its answer, most often in one piece with it.

All kinds are the same to a scenario: `send` and `receive`, `close` and `until_lost`. On our side they
are the three ways of asyncio to get bytes; Twisted has but one.
"""

from __future__ import annotations

from typing import Any

from .library import TWISTED

GREETING = bytes(range(256)) * 16

#: The kinds by their names.
KINDS: dict[str, Any]

if TWISTED:
    from io import BytesIO

    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import ClientFactory, Protocol
    from twisted.protocols.basic import FileSender
    from twisted.python.failure import Failure

    class Bytes(Protocol):
        def __init__(self) -> None:
            self.received = bytearray()
            self.wanted: tuple[int, Deferred[bytes]] | None = None
            self.lost: Deferred[None] = Deferred()

        def connectionMade(self) -> None:
            self.transport.write(GREETING)

        def dataReceived(self, data: bytes) -> None:
            self.received += data
            self._check()

        def connectionLost(self, reason: Failure | None = None) -> None:
            self.lost.callback(None)

        def send(self, data: bytes) -> Deferred[Any]:
            """Send as fast as the transport takes it."""
            return FileSender().beginFileTransfer(BytesIO(data), self.transport)

        def receive(self, size: int) -> Deferred[bytes]:
            wanted: Deferred[bytes] = Deferred()
            self.wanted = size, wanted
            self._check()
            return wanted

        def _check(self) -> None:
            if self.wanted is not None and len(self.received) >= self.wanted[0]:
                (size, wanted), self.wanted = self.wanted, None
                received, self.received = self.received[:size], self.received[size:]
                wanted.callback(received)

        def close(self) -> None:
            self.transport.loseConnection()

        def until_lost(self) -> Deferred[None]:
            return self.lost

    KINDS = dict.fromkeys(("protocol", "buffered", "streams"), Bytes)

    def factory(kind: str) -> Any:
        """Return what a switch command takes to make a protocol of that kind."""
        return ClientFactory.forProtocol(KINDS[kind])

else:
    import asyncio

    PIECE = 50_000

    class Bytes(asyncio.BaseProtocol):
        """What both of asyncio's kinds of protocol have in common."""

        transport: Any

        def __init__(self) -> None:
            self.reader = asyncio.StreamReader()
            self.writable = asyncio.Event()
            self.writable.set()
            self.lost = asyncio.Event()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.transport.write(GREETING)

        def eof_received(self) -> None:
            self.reader.feed_eof()

        def pause_writing(self) -> None:
            self.writable.clear()

        def resume_writing(self) -> None:
            self.writable.set()

        def connection_lost(self, exc: Exception | None) -> None:
            assert exc is None, exc
            self.lost.set()

        async def send(self, data: bytes) -> None:
            """Send as fast as the transport takes it."""
            for start in range(0, len(data), PIECE):
                await self.writable.wait()
                self.transport.write(data[start : start + PIECE])

        async def receive(self, size: int) -> bytes:
            return await self.reader.readexactly(size)

        def close(self) -> None:
            self.transport.close()

        async def until_lost(self) -> None:
            await self.lost.wait()

    class DataBytes(Bytes, asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            self.reader.feed_data(data)

    class BufferedBytes(Bytes, asyncio.BufferedProtocol):
        def __init__(self) -> None:
            super().__init__()
            # Over TLS, asyncio loses data if this is a bytearray, whose slices are copies.
            self.buffer = memoryview(bytearray(1000))

        def get_buffer(self, sizehint: int) -> memoryview:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.reader.feed_data(self.buffer[:nbytes])

    class StreamBytes(asyncio.StreamReaderProtocol):
        def __init__(self) -> None:
            super().__init__(asyncio.StreamReader(), self.connected)

        def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.reader, self.writer = reader, writer
            writer.write(GREETING)

        async def send(self, data: bytes) -> None:
            for start in range(0, len(data), PIECE):
                self.writer.write(data[start : start + PIECE])
                await self.writer.drain()

        async def receive(self, size: int) -> bytes:
            return await self.reader.readexactly(size)

        def close(self) -> None:
            self.writer.close()

        async def until_lost(self) -> None:
            assert await self.reader.read() == b""
            self.writer.close()
            await self.writer.wait_closed()

    KINDS = {"protocol": DataBytes, "buffered": BufferedBytes, "streams": StreamBytes}

    def factory(kind: str) -> Any:
        return KINDS[kind]
