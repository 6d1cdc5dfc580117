"""Measures streams: MB/s of a stream of bytes, and items/s of small ones, against what others have.

    python tests/benchmarks/streams.py [--rounds N] [--megabytes N] [--items N] [--rows A,B]

In each round, every row runs once, in a server and a client process of its own: what else the
machine does falls on all of them. The figures are the medians of the rounds. The server sends, in
pieces of 60,000 bytes; the client counts what it gets. "switch" hands the connection over to
asyncio's streams, so it is a bare socket. "calls in flight" is what the items compare to: 100 plain
calls at a time.

Rows whose library is not installed are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter
from typing import Any

from amp_asyncio import AMP, Command, Integer, ProtocolSwitchCommand, StreamCommand, connect, serve

HOST = "127.0.0.1"
PIECE = 60_000


class Download(StreamCommand[bytes]):
    count: int
    size: int


class Numbers(StreamCommand[int]):
    count: int


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class SwitchTo(ProtocolSwitchCommand):
    arguments = [(b"count", Integer())]


class Server(AMP):
    @Download.responder
    async def download(self, count: int, size: int) -> AsyncIterator[bytes]:
        piece = bytes(size)
        for _ in range(count):
            yield piece

    @Numbers.responder
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @SwitchTo.responder
    def switch(self, count: int) -> asyncio.Protocol:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            piece = bytes(PIECE)
            for _ in range(count):
                writer.write(piece)
                await writer.drain()
            writer.close()

        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), send)


async def serve_amp(announce: Callable[[int], None]) -> None:
    async with serve(Server, HOST, 0) as server:
        announce(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()


async def take_bytes(port: int, count: int) -> None:
    async with connect(HOST, port) as amp, amp.stream(Download(count=count, size=PIECE)) as stream:
        size = 0
        async for piece in stream:
            size += len(piece)
        assert size == count * PIECE


async def take_switched(port: int, count: int) -> None:
    async with connect(HOST, port) as amp:
        ends: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def streams() -> asyncio.Protocol:
            return asyncio.StreamReaderProtocol(
                asyncio.StreamReader(), lambda reader, writer: ends.set_result((reader, writer))
            )

        await amp.callRemote(SwitchTo, streams, count=count)
        reader, writer = await ends
        size = 0
        while piece := await reader.read(PIECE):
            size += len(piece)
        assert size == count * PIECE
        writer.close()


async def take_items(port: int, count: int) -> None:
    async with connect(HOST, port) as amp, amp.stream(Numbers(count=count)) as stream:
        expected = 0
        async for number in stream:
            assert number == expected
            expected += 1
        assert expected == count


async def take_answers(port: int, count: int) -> None:
    async with connect(HOST, port) as amp:

        async def ask(times: int) -> None:
            for _ in range(times):
                assert (await amp.callRemote(Sum, a=13, b=81))["total"] == 94

        await asyncio.gather(*(ask(count // 100) for _ in range(100)))


async def serve_websockets(announce: Callable[[int], None]) -> None:
    from websockets.asyncio.server import serve as serve_them

    async def send(websocket: Any) -> None:
        piece = bytes(PIECE)
        for _ in range(int(await websocket.recv())):
            await websocket.send(piece)

    async with serve_them(send, HOST, 0, compression=None) as server:
        announce(next(iter(server.sockets)).getsockname()[1])
        await asyncio.Event().wait()


async def take_websockets(port: int, count: int) -> None:
    from websockets.asyncio.client import connect as connect_to

    async with connect_to(f"ws://{HOST}:{port}/", compression=None, proxy=None) as websocket:
        await websocket.send(str(count))
        size = 0
        async for piece in websocket:
            size += len(piece)
        assert size == count * PIECE


async def serve_grpc(announce: Callable[[int], None]) -> None:
    import grpc

    async def send(request: bytes, context: Any) -> AsyncIterator[bytes]:
        piece = bytes(PIECE)
        for _ in range(int(request)):
            yield piece

    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(send)
    handlers = grpc.method_handlers_generic_handler("Bench", {"Download": handler})
    server.add_generic_rpc_handlers([handlers])
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    announce(port)
    await asyncio.Event().wait()


async def take_grpc(port: int, count: int) -> None:
    import grpc

    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        size = 0
        async for piece in channel.unary_stream("/Bench/Download")(b"%d" % count):
            size += len(piece)
        assert size == count * PIECE


_Serve = Callable[[Callable[[int], None]], Awaitable[None]]
_Take = Callable[[int, int], Awaitable[None]]

# Each: what has to be installed, the two sides, and whether bytes or items are counted.
ROWS: dict[str, tuple[str, _Serve, _Take, bool]] = {
    "switch": ("amp_asyncio", serve_amp, take_switched, True),
    "amp_asyncio": ("amp_asyncio", serve_amp, take_bytes, True),
    "websockets": ("websockets", serve_websockets, take_websockets, True),
    "grpc.aio": ("grpc", serve_grpc, take_grpc, True),
    "items": ("amp_asyncio", serve_amp, take_items, False),
    "calls in flight": ("amp_asyncio", serve_amp, take_answers, False),
}


def server(pipe: Connection, name: str) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(ROWS[name][1](pipe.send))  # type: ignore[arg-type]


def client(pipe: Connection, name: str, port: int, count: int) -> None:
    async def take() -> float:
        await ROWS[name][2](port, 200)  # Imports what is needed, among others.
        began = perf_counter()
        await ROWS[name][2](port, count)
        return perf_counter() - began

    pipe.send(asyncio.run(take()))


def measure(name: str, count: int) -> float:
    """Return how many pieces or items come in a second."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    serving = context.Process(target=server, args=(theirs, name), daemon=True)
    serving.start()
    try:
        taking = context.Process(target=client, args=(theirs, name, ours.recv(), count), daemon=True)
        taking.start()
        seconds: float = ours.recv()
        taking.join()
    finally:
        serving.kill()
        serving.join()
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--items", type=int, default=300_000)
    parser.add_argument("--rows", default=",".join(ROWS))
    options = parser.parse_args()
    names = [name for name in options.rows.split(",") if find_spec(ROWS[name][0])]
    figures: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            if ROWS[name][3]:
                pieces = max(1, options.megabytes * 1_000_000 // PIECE)
                figures[name].append(measure(name, pieces) * PIECE / 1e6)
            else:
                figures[name].append(measure(name, options.items))
    for name in names:
        unit = "MB/s" if ROWS[name][3] else "a second"
        print(f"{name:16} {median(figures[name]):10,.0f} {unit}")


if __name__ == "__main__":
    main()
