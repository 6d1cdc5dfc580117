"""The extensions, tried at a peer that never answers a command that it does not know."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Never

import pytest
from support import Math, Sum

from amp_asyncio import (
    Command,
    DeadlineExceeded,
    Integer,
    Limits,
    StreamCommand,
    StreamsUnsupported,
    String,
    connect,
    serve,
)

PEER = str(Path(__file__).with_name("silent_peer.py"))


class AskBack(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Heard(Command):
    response = [(b"heard", String())]


class Unheard(Command):
    """It does not know that one, either."""


class Tail(StreamCommand[int]):
    name: str


class Upload(StreamCommand[Never, int, int], answer="count"):
    name: str


@asynccontextmanager
async def silent_peer(listens: str, limits: Limits) -> AsyncIterator[Any]:
    """Yield our side of a connection to the peer, which is in a process of its own."""
    made: asyncio.Queue[Math] = asyncio.Queue()

    class Ours(Math):
        describable = True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            made.put_nowait(self)

    async with serve(Ours, "127.0.0.1", 0, limits=limits) as server:
        where = [str(server.sockets[0].getsockname()[1])] if listens == "ours" else []
        process = await asyncio.create_subprocess_exec(sys.executable, PEER, *where, stdout=PIPE)
        try:
            if listens == "theirs":
                assert process.stdout is not None
                port = int(await process.stdout.readline())
                async with connect("127.0.0.1", port, Ours, limits=limits):
                    yield await made.get()
            else:
                yield await made.get()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def heard(peer: Any) -> list[Any]:
    found: list[Any] = json.loads((await peer.callRemote(Heard))["heard"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("listens", ["ours", "theirs"])
@pytest.mark.parametrize("ping_anyone", [False, True])
async def test_each_extension_is_tried_and_the_connection_goes_on(
    listens: str, ping_anyone: bool
) -> None:
    limits = Limits(ping_interval=0.05, ping_timeout=60, ping_anyone=ping_anyone)
    async with silent_peer(listens, limits) as peer:

        async def goes_on() -> None:
            assert await peer.call(Sum(a=1, b=2), timeout=60, metadata={"trace": "1"}) == {"total": 3}
            # It asks, and we answer.
            assert await peer.callRemote(AskBack, a=3, b=4) == {"total": 7}

        await goes_on()
        # A call that is cancelled, before and after it was sent; one whose time is over.
        peer.callRemote(Sum, a=1, b=2).cancel()
        asking = asyncio.ensure_future(peer.callRemote(Unheard))
        await goes_on()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        for late in (Unheard(), Sum(a=1, b=2)):
            with pytest.raises(DeadlineExceeded):
                await peer.call(late, timeout=1e-9 if isinstance(late, Sum) else 0.01)
        await goes_on()
        for ask in (peer.health, peer.describe):
            with pytest.raises(DeadlineExceeded):
                await ask(timeout=0.01)
        await goes_on()
        # It has answered without an announcement, so it is known to have no streams.
        for command in (Tail, Upload):
            with pytest.raises(StreamsUnsupported):
                async with peer.stream(command(name="x"), timeout=60):
                    pass
        await goes_on()
        # Silence: it is asked once whether it is there, where anyone is. What it then says is life.
        while ping_anyone and "_ping" not in (await heard(peer))[0]:
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        await goes_on()
        unknown, errors, lost = await heard(peer)
        assert (errors, lost) == (0, 0)
        assert {*unknown} - {"_ping"} == {"Unheard", "_health", "_describe"}
        assert unknown.count("_ping") == ping_anyone
        # It is closed in order, and what it never answers is not waited for.
        async with asyncio.timeout(10):
            await peer.close(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("command", [Tail, Upload])
async def test_a_stream_is_the_first_thing_that_is_asked(command: type[Any]) -> None:
    async with silent_peer("theirs", Limits()) as peer:
        with pytest.raises(DeadlineExceeded):
            async with peer.stream(command(name="x"), timeout=0.2) as stream:
                await (anext(stream) if command is Tail else stream.finish())
                await stream.answer()
        assert await peer.callRemote(AskBack, a=3, b=4) == {"total": 7}
        unknown, errors, lost = await heard(peer)
        assert (errors, lost) == (0, 0)
        assert {*unknown} <= {"_ping", "Tail", "Upload"}
        async with asyncio.timeout(10):
            await peer.close(timeout=60)
