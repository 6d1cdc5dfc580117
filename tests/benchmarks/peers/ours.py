"""This package, every check and limit as it comes; responders are plain, as Twisted's are, or async."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from amp_asyncio import AMP, Command, Integer, Limits, String, connect, serve
from peers import HOST, TIMEOUT, VALUE, Connection, Peer

try:
    from peers.newer import Newer, newer_ways
except ImportError:  # A revision that has neither typed commands nor streams is measured.
    Newer = AMP  # type: ignore[misc]

    def newer_ways(amp: AMP) -> dict[str, Any]:
        return {}


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Echo(Command):
    arguments = [(b"data", String())]
    response = [(b"data", String())]


class Hold(Command):
    """Is answered when somebody asks `Release`."""

    arguments = [(b"a", Integer()), (b"b", Integer())]


class Release(Command):
    pass


class Responders(Newer):
    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Echo.responder
    async def echo(self, data: bytes) -> dict[str, bytes]:
        return {"data": data}


class PlainResponders(Newer):
    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Echo.responder
    def echo(self, data: bytes) -> dict[str, bytes]:
        return {"data": data}


class HoldingResponders(Responders):
    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    @Hold.responder
    async def hold(self, a: int, b: int) -> None:
        await self.released.wait()

    @Release.responder
    async def release(self) -> None:
        self.released.set()
        self.released = asyncio.Event()


class Version2(PlainResponders):
    protocol_version = 2


class Ours(Peer):
    responders: type[AMP] = PlainResponders
    asks: type[AMP] = AMP
    limits = Limits()

    async def serve(self, what: str, tls: bool) -> int:
        server = await serve(self.responders, HOST, 0, ssl=self.server_context(tls), limits=self.limits)
        self.servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def connect(self, port: int, what: str, tls: bool) -> Connection:
        amp = await connect(HOST, port, self.asks, limits=self.limits, **self.client_options(tls))

        ways: dict[str, Any] = {
            "sum": partial(amp.callRemote, Sum, a=13, b=81),
            "timed": lambda: amp.call(Sum(a=13, b=81), timeout=TIMEOUT),
            "echo": partial(amp.callRemote, Echo, data=b"x" * VALUE),
            **newer_ways(amp),
        }
        return Connection(
            ways[what],
            amp.close,
            hold=partial(amp.callRemote, Hold, a=13, b=81),
            release=partial(amp.callRemote, Release),
        )


class OursVersion2(Ours):
    """The same with version 2 of the protocol on both sides."""

    responders = asks = Version2


class OursAsync(Ours):
    """The same with `async def` responders."""

    responders = Responders


class OursWide(Ours):
    """The same with room for 10,000 open questions, and a command whose answer is held back."""

    responders = HoldingResponders
    limits = Limits(window=2**26, max_backlog=2**26, max_concurrent_responders=20_000)
