"""Measures streams: MB/s of a stream of bytes, and items/s of small ones, against what others have.

    python tests/benchmarks/streams.py [--rounds N] [--megabytes N] [--sizes A,B] [--items N]
                                       [--rows A,B] [--seconds N]

In each round, every row runs once, in a server and a client process of its own: what else the
machine does falls on all of them. The figures are medians of the rounds, and so are the ratios: that of
a round is of two runs that follow each other closely. The server sends in pieces of the same size to
every peer, which is given with `--sizes`; the client counts what it gets. "amp_asyncio" has the default
`stream_window`, and "wide window" one of 4 MiB, about as much as the kernel buffers for the others.
"switch" hands the connection over to asyncio's streams, so it is a bare socket. "calls in flight" is
what the items compare to: 100 plain calls at a time. "CPU" is the time of both processes.

"latency" is something else: two peers send to each other without pause, in 50 streams each, with a
`stream_window` of 64 KiB, for so many `--seconds`. Meanwhile one of them asks, call after call.

Rows whose library is not installed are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from statistics import median, quantiles
from time import perf_counter
from typing import Any, NamedTuple

from processes import environment

from amp_asyncio import (
    AMP,
    Command,
    Integer,
    Limits,
    ProtocolSwitchCommand,
    Stream,
    StreamCommand,
    connect,
    serve,
)

HOST = "127.0.0.1"

# What the streams of "latency" send, how many there are in each direction, and their window.
ITEM = 8_000
STREAMS = 50
WINDOW = 64 * 1024

# The `stream_window` of "wide window".
WIDE_WINDOW = 4 * 1024 * 1024


class Download(StreamCommand[bytes]):
    count: int
    size: int


class Numbers(StreamCommand[int]):
    count: int


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class SwitchTo(ProtocolSwitchCommand):
    arguments = [(b"count", Integer()), (b"size", Integer())]


class Exchange(StreamCommand[bytes, bytes]):
    """Each side sends without end."""


async def exchange(stream: Stream[bytes, bytes], taken: list[int]) -> None:
    """Send without end; the last number of `taken` says how many bytes came."""
    taken.append(0)
    place = len(taken) - 1

    async def send() -> None:
        item = bytes(ITEM)
        while True:
            await stream.send(item)

    sending = asyncio.ensure_future(send())
    try:
        async for item in stream:
            taken[place] += len(item)
    finally:
        sending.cancel()


class Shares(Command):
    """The least and the most that a stream of "latency" has had from its asker, in bytes."""

    response = [(b"least", Integer()), (b"most", Integer())]


class Server(AMP):
    def __init__(self) -> None:
        super().__init__()
        self.taken: list[int] = []

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

    @Exchange.responder
    async def exchange(self, stream: Stream[bytes, bytes]) -> None:
        await exchange(stream, self.taken)

    @Shares.responder
    def shares(self) -> dict[str, int]:
        return {"least": min(self.taken), "most": max(self.taken)}

    @SwitchTo.responder
    def switch(self, count: int, size: int) -> asyncio.Protocol:
        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            piece = bytes(size)
            for _ in range(count):
                writer.write(piece)
                await writer.drain()
            writer.close()

        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), send)


async def serve_amp(announce: Callable[[int], None]) -> None:
    async with serve(Server, HOST, 0) as server:
        announce(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()


def windowed(window: int) -> type[AMP]:
    """Return a class of connections on which streams have this window."""
    return type("Windowed", (AMP,), {"limits": Limits(stream_window=window)})


async def take_bytes(port: int, count: int, size: int, factory: type[AMP] = AMP) -> None:
    async with (
        connect(HOST, port, factory) as amp,
        amp.stream(Download(count=count, size=size)) as stream,
    ):
        taken = 0
        async for piece in stream:
            taken += len(piece)
        assert taken == count * size


async def take_widely(port: int, count: int, size: int) -> None:
    await take_bytes(port, count, size, windowed(WIDE_WINDOW))


async def take_switched(port: int, count: int, size: int) -> None:
    async with connect(HOST, port) as amp:
        ends: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def streams() -> asyncio.Protocol:
            return asyncio.StreamReaderProtocol(
                asyncio.StreamReader(), lambda reader, writer: ends.set_result((reader, writer))
            )

        await amp.callRemote(SwitchTo, streams, count=count, size=size)
        reader, writer = await ends
        taken = 0
        while piece := await reader.read(size):
            taken += len(piece)
        assert taken == count * size
        writer.close()


async def take_items(port: int, count: int, size: int) -> None:
    async with connect(HOST, port) as amp, amp.stream(Numbers(count=count)) as stream:
        expected = 0
        async for number in stream:
            assert number == expected
            expected += 1
        assert expected == count


async def take_answers(port: int, count: int, size: int) -> None:
    async with connect(HOST, port) as amp:

        async def ask(times: int) -> None:
            for _ in range(times):
                assert (await amp.callRemote(Sum, a=13, b=81))["total"] == 94

        await asyncio.gather(*(ask(count // 100) for _ in range(100)))


async def serve_websockets(announce: Callable[[int], None]) -> None:
    from websockets.asyncio.server import serve as serve_them

    async def send(websocket: Any) -> None:
        count, size = map(int, (await websocket.recv()).split())
        piece = bytes(size)
        for _ in range(count):
            await websocket.send(piece)

    async with serve_them(send, HOST, 0, compression=None) as server:
        announce(next(iter(server.sockets)).getsockname()[1])
        await asyncio.Event().wait()


async def take_websockets(port: int, count: int, size: int) -> None:
    from websockets.asyncio.client import connect as connect_to

    async with connect_to(f"ws://{HOST}:{port}/", compression=None, proxy=None) as websocket:
        await websocket.send(f"{count} {size}")
        taken = 0
        async for piece in websocket:
            taken += len(piece)
        assert taken == count * size


async def serve_grpc(announce: Callable[[int], None]) -> None:
    import grpc

    async def send(request: bytes, context: Any) -> AsyncIterator[bytes]:
        count, size = map(int, request.split())
        piece = bytes(size)
        for _ in range(count):
            yield piece

    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(send)
    handlers = grpc.method_handlers_generic_handler("Bench", {"Download": handler})
    server.add_generic_rpc_handlers([handlers])
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    announce(port)
    await asyncio.Event().wait()


async def take_grpc(port: int, count: int, size: int) -> None:
    import grpc

    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        taken = 0
        async for piece in channel.unary_stream("/Bench/Download")(b"%d %d" % (count, size)):
            taken += len(piece)
        assert taken == count * size


class Row(NamedTuple):
    """What is measured: the two sides, what has to be installed, and whether it sends large pieces."""

    library: str
    serve: Callable[[Callable[[int], None]], Awaitable[None]]
    take: Callable[[int, int, int], Awaitable[None]]
    in_pieces: bool


ROWS: dict[str, Row] = {
    "switch": Row("amp_asyncio", serve_amp, take_switched, True),
    "amp_asyncio": Row("amp_asyncio", serve_amp, take_bytes, True),
    "wide window": Row("amp_asyncio", serve_amp, take_widely, True),
    "websockets": Row("websockets", serve_websockets, take_websockets, True),
    "grpc.aio": Row("grpc", serve_grpc, take_grpc, True),
    "items": Row("amp_asyncio", serve_amp, take_items, False),
    "calls in flight": Row("amp_asyncio", serve_amp, take_answers, False),
}


def server(pipe: Connection, name: str) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(ROWS[name].serve(pipe.send))  # type: ignore[arg-type]


def client(pipe: Connection, name: str, port: int, count: int, size: int) -> None:
    async def take() -> float:
        await ROWS[name].take(port, 200, size)  # Imports what is needed, among others.
        began = perf_counter()
        pipe.send(None)
        await ROWS[name].take(port, count, size)
        return perf_counter() - began

    pipe.send(asyncio.run(take()))
    pipe.recv()


def cpu_of(pid: int) -> float:
    """Return how many seconds of CPU time a process has used, as `clock_getcpuclockid` would say."""
    return time.clock_gettime(~pid << 3 | 2)


def measure(name: str, count: int, size: int) -> tuple[float, float]:
    """Return how many pieces or items come in a second, and the microseconds of CPU time of one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    serving = context.Process(target=server, args=(theirs, name), daemon=True)
    serving.start()
    try:
        port = ours.recv()
        taking = context.Process(target=client, args=(theirs, name, port, count, size), daemon=True)
        taking.start()
        ours.recv()
        both = [process.pid for process in (serving, taking) if process.pid]
        before = sum(map(cpu_of, both))
        seconds: float = ours.recv()
        used = sum(map(cpu_of, both)) - before
        ours.send(None)
        taking.join()
    finally:
        serving.kill()
        serving.join()
    return count / seconds, used / count * 1e6


def serve_latency(pipe: Connection) -> None:
    async def main() -> None:
        class Windowed(Server):
            limits = Limits(stream_window=WINDOW)

        async with serve(Windowed, HOST, 0) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(main())


async def ask_meanwhile(port: int, seconds: float) -> tuple[list[float], list[float]]:
    """Return how long each call took, and for both directions the least share divided by the most."""
    async with connect(HOST, port, windowed(WINDOW)) as amp:
        taken: list[int] = []

        async def run() -> None:
            async with amp.stream(Exchange()) as stream:
                await exchange(stream, taken)

        running = [asyncio.ensure_future(run()) for _ in range(STREAMS)]
        took: list[float] = []
        ends = perf_counter() + seconds
        while (began := perf_counter()) < ends:
            assert (await amp.callRemote(Sum, a=13, b=81))["total"] == 94
            took.append(perf_counter() - began)
        answer = await amp.callRemote(Shares)
        shares = [answer["least"] / answer["most"], min(taken) / max(taken)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return took, shares


def latency(seconds: float) -> str:
    """Measure calls between streams; return a line of figures."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    serving = context.Process(target=serve_latency, args=(theirs,), daemon=True)
    serving.start()
    try:
        took, shares = asyncio.run(ask_meanwhile(ours.recv(), seconds))
    finally:
        serving.kill()
        serving.join()
    last = quantiles(took, n=100)[-1]
    return (
        f"latency: {len(took)} calls, {median(took) * 1000:.1f} ms in the median, {last * 1000:.1f} ms"
        f" at the 99th percentile; least to most share: {shares[0]:.2f} and {shares[1]:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--sizes", default="60000,65536", help="bytes of a piece")
    parser.add_argument("--items", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rows", default=",".join([*ROWS, "latency"]))
    options = parser.parse_args()
    wanted = options.rows.split(",")
    if unknown := {*wanted} - {*ROWS, "latency"}:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join([*ROWS, 'latency'])}")
    os.environ.update(environment())
    for size in map(int, options.sizes.split(",")):
        names = [name for name in wanted if name in ROWS and ROWS[name].in_pieces]
        count = max(1, options.megabytes * 1_000_000 // size)
        show(names, options.rounds, count, size, ("amp_asyncio", "wide window"))
    names = [name for name in wanted if name in ROWS and not ROWS[name].in_pieces]
    show(names, options.rounds, options.items, 0, ("items",))
    if "latency" in wanted:
        print(latency(options.seconds))


def show(names: list[str], rounds: int, count: int, size: int, ours: tuple[str, ...]) -> None:
    """Measure some rows, and print a line for each; those that are not `ours` are compared to these."""
    names = [name for name in names if find_spec(ROWS[name].library)]
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            figures[name].append(measure(name, count, size))
    if size and names:
        print(f"{size:,} bytes a piece")
    for name in names:
        speeds, cpu = zip(*figures[name], strict=True)
        speed = f"{median(speeds) * size / 1e6:10,.0f} MB/s" if size else f"{median(speeds):10,.0f}/s"
        line = f"{name:16} {speed}  CPU {median(cpu):6.1f} us each"
        for own in [own for own in ours if own in figures and name not in ours]:
            ratios = [mine[0] / other for mine, other in zip(figures[own], speeds, strict=True)]
            line += f"; {own}: {median(ratios):.2f} of it ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
