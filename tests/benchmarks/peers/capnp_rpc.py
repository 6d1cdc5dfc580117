"""pycapnp: Cap'n Proto's RPC, in C++, on asyncio's loop. Items are streaming calls of a capability."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import capnp

from peers import HOST, TIMEOUT, VALUE, Connection, Peer

# (A schema that streams imports another, which pycapnp has in its own folder.)
SCHEMA: Any = capnp.load(
    str(Path(__file__).with_name("bench.capnp")), imports=[str(Path(capnp.__file__).parents[1])]
)


class Answering(SCHEMA.Bench.Server):  # type: ignore[misc]
    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def sum(self, a: int, b: int, **more: Any) -> int:
        return a + b

    async def echo(self, data: bytes, **more: Any) -> bytes:
        return data

    async def items(self, count: int, sink: Any, **more: Any) -> None:
        for item in range(count):
            await sink.take(item)

    async def hold(self, a: int, b: int, **more: Any) -> None:
        await self.released.wait()

    async def release(self, **more: Any) -> None:
        self.released.set()
        self.released = asyncio.Event()


class Sink(SCHEMA.Bench.Sink.Server):  # type: ignore[misc]
    taken = 0

    async def take(self, item: int, **more: Any) -> None:
        self.taken += 1


async def answer(stream: Any) -> None:
    await capnp.TwoPartyServer(stream, bootstrap=Answering()).on_disconnect()


class Capnp(Peer):
    def run(self, main: Callable[[], Coroutine[Any, Any, None]], loop: str) -> None:
        super().run(lambda: capnp.run(main()), loop)

    async def serve(self, what: str, tls: bool) -> int:
        context = self.server_context(tls)
        server = await capnp.AsyncIoStream.create_server(answer, HOST, 0, ssl=context)
        self.servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def connect(self, port: int, what: str, tls: bool) -> Connection:
        options = self.client_options(tls)
        stream = await capnp.AsyncIoStream.create_connection(HOST, port, **options)
        client = capnp.TwoPartyClient(stream)
        bench = client.bootstrap().cast_as(SCHEMA.Bench)

        async def ask_timed() -> None:
            async with asyncio.timeout(TIMEOUT):
                await bench.sum(13, 81)

        async def take(count: int = 1) -> None:
            sink = Sink()
            await bench.items(count, sink)
            assert sink.taken == count

        async def close() -> None:
            client.close()
            stream.close()

        ways: dict[str, Any] = {
            "sum": lambda: bench.sum(13, 81),
            "timed": ask_timed,
            "echo": lambda: bench.echo(b"x" * VALUE),
            "items": take,
        }
        return Connection(
            ways[what], close, hold=lambda: bench.hold(13, 81), release=lambda: bench.release()
        )
