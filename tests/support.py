"""Commands, peers and small tools that several tests use."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from fakes import Recorder, Transport, plain

from amp_asyncio import (
    AMP,
    AmpBox,
    Command,
    ConnectionLost,
    Float,
    Integer,
    Limits,
    ProtocolSwitchCommand,
    Server,
    String,
    Unicode,
    connect,
    parseString,
    serve,
    unix_connect,
    unix_serve,
)
from amp_asyncio.testing import memory_pair


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Divide(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"quotient", Float())]
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}


class Echo(Command):
    arguments = [(b"data", String())]
    response = [(b"data", String())]


class Math(AMP):
    """Answers each of the commands above."""

    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Divide.responder
    def divide(self, a: int, b: int) -> dict[str, float]:
        return {"quotient": a / b}

    @Echo.responder
    def echo(self, data: bytes) -> dict[str, bytes]:
        return {"data": data}


class Wait(Command):
    """Answered when the test lets it be."""

    arguments = [(b"name", Unicode())]
    response = [(b"name", Unicode())]


class Notify(Command):
    arguments = [(b"data", String())]
    requiresAnswer = False


class Explode(Command):
    """Its responder raises what the test gives it."""

    errors = {KeyError: b"KEY"}
    fatalErrors = {EOFError: b"EOF"}


class Patient(Math):
    """Answers `Wait` when `gates[name]` is resolved; raises `failure` for `Explode`."""

    def __init__(self) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.gates: dict[str, asyncio.Future[None]] = {}
        self.finished: list[str] = []
        self.notified: asyncio.Queue[bytes] = asyncio.Queue()
        self.failure: Exception = Exception()
        self.loop = loop

    def gate(self, name: str) -> asyncio.Future[None]:
        return self.gates.setdefault(name, self.loop.create_future())

    def let(self, name: str) -> None:
        """Let the `Wait` go on that began last under this name; the next one waits again."""
        gate = self.gates.pop(name)
        if not gate.done():
            gate.set_result(None)

    @Wait.responder
    async def wait(self, name: str) -> dict[str, Any]:
        self.started.put_nowait(name)
        await self.gate(name)
        self.finished.append(name)
        return {"name": name}

    @Notify.responder
    def notify(self, data: bytes) -> dict[str, Any]:
        self.notified.put_nowait(data)
        return {}

    @Explode.responder
    async def explode(self) -> dict[str, Any]:
        raise self.failure


class SwitchTo(ProtocolSwitchCommand):
    arguments = [(b"name", Unicode())]
    errors = {PermissionError: b"NO"}


class Switching(Math):
    """Switches to `inner` when asked to, unless there is a `refusal`; waits for `gate` before."""

    refusal: Exception | None = None

    def __init__(self, inner: Callable[[], Any] = Recorder) -> None:
        super().__init__()
        self.make = inner
        self.inner: Any = None
        self.asked = asyncio.Event()
        self.gate: asyncio.Event | None = None

    @SwitchTo.responder
    async def switch(self, name: str) -> Any:
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        self.inner = self.make()
        return self.inner


def switch_box(tag: bytes = b"1") -> bytes:
    return AmpBox(_command=b"SwitchTo", _ask=tag, name=b"x").serialize()


#: Whether `connected` uses UNIX sockets at the moment.
over_unix = False

_S = TypeVar("_S", bound=AMP)
_C = TypeVar("_C", bound=AMP)


@asynccontextmanager
async def connected(
    server_factory: Callable[[], _S] = Math,  # type: ignore[assignment]
    client_factory: Callable[[], _C] = AMP,  # type: ignore[assignment]
    unix: bool | None = None,
    **options: Any,
) -> AsyncIterator[tuple[_S, _C]]:
    """Yield the two ends of a connection, both of which are closed in order at the end.

    It is over a UNIX socket or TCP; unless the test says which, it is run with both.
    """
    accepted: asyncio.Future[_S] = asyncio.get_running_loop().create_future()

    def factory() -> _S:
        amp = server_factory()
        original = amp.connection_made

        def connection_made(transport: asyncio.BaseTransport) -> None:
            original(transport)
            accepted.set_result(amp)

        amp.connection_made = connection_made  # type: ignore[method-assign]
        return amp

    async with listening(factory, unix) as server, reach(server, client_factory, **options) as client:
        yield await accepted, client


@asynccontextmanager
async def listening(
    factory: Callable[[], AMP], unix: bool | None = None, **options: Any
) -> AsyncIterator[Server]:
    """Serve over a UNIX socket or TCP; unless the test says which, it is run with both."""
    if not (over_unix if unix is None else unix):
        async with serve(factory, "127.0.0.1", 0, **options) as server:
            yield server
        return
    with TemporaryDirectory() as directory:
        async with unix_serve(factory, Path(directory, "amp"), **options) as server:
            yield server


def reach(server: Server, factory: Callable[[], Any] = AMP, **options: Any) -> Any:
    """Connect to a server of ours, wherever it listens."""
    name = server.sockets[0].getsockname()
    if isinstance(name, str):
        return unix_connect(name, factory, **options)
    host, port, *_ = name
    return connect(host, port, factory, **options)


@asynccontextmanager
async def raw_client(server: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield a plain byte stream to a server of ours."""
    name = server.sockets[0].getsockname()
    if isinstance(name, str):
        reader, writer = await asyncio.open_unix_connection(name)
    else:
        reader, writer = await asyncio.open_connection(*name[:2])
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def pipe_with(data: bytes) -> int:
    """Return the reading end of a pipe that has `data` in it, and no more."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


def content(descriptor: int) -> bytes:
    """Return what can be read from a descriptor, and close it."""
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def on_transport(factory: type[AMP] = Math, **options: Any) -> tuple[AMP, Transport]:
    amp, transport = factory(), Transport(**options)
    transport.protocol = amp
    amp.connection_made(transport)
    return amp, transport


def limited(factory: Any = Math, **limits: Any) -> tuple[Any, Transport]:
    amp, transport = factory(), Transport()
    amp.limits = Limits(**limits)
    amp.connection_made(transport)
    return amp, transport


class RawPeer(Recorder):
    """The other end of a connection: it reads and writes bytes, and keeps its side open to the end."""

    stays_open = True

    def boxes(self) -> list[AmpBox]:
        """Return the boxes that have come, without the offers in them."""
        return plain(parseString(self.data))

    def send(self, *boxes: AmpBox) -> None:
        self.transport.write(b"".join(box.serialize() for box in boxes))


@asynccontextmanager
async def raw_pair(
    factory: Callable[[], Any] = Math, extra: Mapping[str, Any] | None = None, **limits: Any
) -> AsyncIterator[tuple[Any, RawPeer]]:
    """Connect an AMP in memory to a peer that is not one; abort the connection at the end."""
    amp, peer = factory(), RawPeer()
    if limits:
        amp.limits = Limits(**limits)
    transports = memory_pair(amp, peer, extra=(extra or {}, {}))
    try:
        await peer.until(lambda: peer.transport)
        yield amp, peer
    finally:
        for transport in transports:
            transport.abort()
        for transport in transports:
            await transport.wait_closed()


def at_any_pace(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Give a test its `pace`, which it multiplies its short times by: 1, and more if it fails.

    A slow machine may stand still for longer than a short time. What is wrong fails at each pace.
    """

    @wraps(test)
    async def run(**arguments: Any) -> None:
        loop: Any = asyncio.get_running_loop()
        for pace in (1, 8):
            before = asyncio.all_tasks()
            try:
                # It may also wait for what was over before it began.
                async with asyncio.timeout(10):
                    return await test(**arguments, pace=pace)
            except (Exception, pytest.fail.Exception):
                # Errors that nobody has retrieved are told when their futures go, from here on.
                told = loop.get_exception_handler()
                loop.set_exception_handler(lambda loop, context: None)
            # What this attempt has left does not count.
            for task in asyncio.all_tasks() - before:
                task.cancel()
            await turns()
            gc.collect()
            loop.set_exception_handler(told)
            loop.made.clear()
            if "caplog" in arguments:
                arguments["caplog"].clear()
        await test(**arguments, pace=64)

    signature = inspect.signature(test)
    parameters = [each for each in signature.parameters.values() if each.name != "pace"]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


async def turns() -> None:
    """Let the loop do all that it has to do at once."""
    for _ in range(10):
        await asyncio.sleep(0)


async def cause_of_loss(amp: AMP) -> BaseException | None:
    """Return why a connection that is over was lost, as it says to who asks."""
    try:
        await amp.callRemote(Sum, a=1, b=1)
    except ConnectionLost as error:
        return error.__cause__
    raise AssertionError("the connection is open")


class Counting(Math):
    """Counts the boxes that it has received."""

    received = 0

    def ampBoxReceived(self, box: AmpBox) -> None:
        self.received += 1
        super().ampBoxReceived(box)


@asynccontextmanager
async def read_at_all_times(*amps: Counting) -> AsyncIterator[None]:
    """See that the backlog never makes these stop reading.

    (A connection also stops for a turn of the loop, to let the others go on; boxes come behind it.)
    """
    longest = 0

    async def watch(amp: Counting) -> None:
        nonlocal longest
        received = turn = 0
        while (transport := amp.transport) is not None:
            stopped = not transport.is_reading() and amp.received == received
            turn = turn + 1 if stopped else 0
            received = amp.received
            longest = max(longest, turn)
            await asyncio.sleep(0)

    watching = [asyncio.ensure_future(watch(amp)) for amp in amps]
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
    assert longest < 3, f"one was not read for {longest} turns of the loop"
