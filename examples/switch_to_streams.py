"""Streams: AMP negotiates a transfer, then both sides use asyncio's streams.

A value in a box is at most 65,535 bytes long. Here a client asks to send a file of a million bytes.
Once the server has agreed, each side continues with a `StreamReader` and a `StreamWriter`. The size
is part of the question, because a TLS connection cannot be half-closed to mark the end of the file.

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
    """After the answer, the client sends the file, and the server returns its checksum."""

    arguments = [(b"name", Unicode()), (b"size", Integer())]
    errors = {TooLarge: b"TOO_LARGE"}


class Store(AMP):
    largest = 2_000_000

    @SendFile.responder
    def receive(self, name: str, size: int) -> asyncio.Protocol:
        if not 0 <= size <= self.largest:
            raise TooLarge(f"{name} may have at most {self.largest} bytes")
        print(f"server: expecting {name}, {size} bytes")
        # As with asyncio.start_server, `receive_file` gets the reader and the writer.
        return StreamReaderProtocol(StreamReader(), partial(receive_file, name, size))


async def receive_file(name: str, size: int, reader: StreamReader, writer: StreamWriter) -> None:
    content = await reader.readexactly(size)
    print(f"server: received {name}, {len(content)} bytes")
    writer.write(sha256(content).digest())
    writer.close()


async def switch_to_streams(
    amp: AMP, command: type[ProtocolSwitchCommand], **arguments: Any
) -> tuple[StreamReader, StreamWriter]:
    """Switch `amp` with `command`, and return the streams of its connection."""
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
            print("client: the novel has arrived", "intact" if whole else "changed")
            # The writer owns the connection now, and must close it.
            writer.close()
            await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
