"""Streams: AMP agrees on a transfer, and the connection becomes asyncio's streams on both sides.

A value in a box has at most 65,535 bytes. Here a client asks whether it may send a file of a million;
once the server has agreed, each side goes on with a `StreamReader` and a `StreamWriter`. How much will
come is part of the question, for a stream over TLS could not say by half-closing that this was all.

Run it: python examples/switch_to_streams.py
"""

import asyncio
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from functools import partial
from hashlib import sha256
from typing import Any

from amp_asyncio import AMP, Integer, ProtocolSwitchCommand, Unicode, connect, serve


class TooLarge(Exception):
    pass


class SendFile(ProtocolSwitchCommand):
    """Behind the answer, the client sends the file, and the server the checksum of what came."""

    arguments = [(b"name", Unicode()), (b"size", Integer())]
    errors = {TooLarge: b"TOO_LARGE"}


class Store(AMP):
    largest = 2_000_000

    @SendFile.responder
    def receive(self, name: str, size: int) -> asyncio.Protocol:
        if not 0 <= size <= self.largest:
            raise TooLarge(f"{name} may have {self.largest} bytes")
        print(f"server: {name} may come, {size} bytes")
        # As with asyncio.start_server, `receive_file` gets the reader and the writer.
        return StreamReaderProtocol(StreamReader(), partial(receive_file, name, size))


async def receive_file(name: str, size: int, reader: StreamReader, writer: StreamWriter) -> None:
    content = await reader.readexactly(size)
    print(f"server: {name} is here, {len(content)} bytes")
    writer.write(sha256(content).digest())
    writer.close()


async def switch_to_streams(
    amp: AMP, command: type[ProtocolSwitchCommand], **arguments: Any
) -> tuple[StreamReader, StreamWriter]:
    """Switch `amp` by `command`, and return what its connection is read and written with then."""
    ends = asyncio.get_running_loop().create_future()

    def streams() -> asyncio.Protocol:
        return StreamReaderProtocol(StreamReader(), lambda *both: ends.set_result(both))

    await amp.callRemote(command, streams, **arguments)
    reader, writer = await ends
    return reader, writer


async def main() -> None:
    content = b"All work and no play. " * 50_000
    async with serve(Store, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with connect(host, port) as amp:
            try:
                await switch_to_streams(amp, SendFile, name="library", size=10**9)
            except TooLarge as error:
                print("client: the library cannot be sent:", error)

            reader, writer = await switch_to_streams(amp, SendFile, name="novel", size=len(content))
            writer.write(content)
            await writer.drain()
            checksum = await reader.read()
            whole = checksum == sha256(content).digest()
            print("client: the novel has arrived", "whole" if whole else "changed")
            # The connection is the writer's now, and the writer's to close.
            writer.close()
            await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
