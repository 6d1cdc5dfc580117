"""websockets with msgpack: what many take where they want more than bytes and less than HTTP.

A question is `[number, name, arguments]` and its answer `[number, result]`, each a message. Answers are
sent in order, from the loop that reads the questions: the quickest way to write it. Messages are not
compressed, as AMP's are not; everything else is as the library has it. On asyncio's loop alone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from msgpack import packb, unpackb
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from peers import HOST, TIMEOUT, VALUE, Connection, Peer


async def answer(websocket: Any) -> None:
    held = []
    # A client that is done ends as it stands.
    with suppress(ConnectionClosed):
        async for message in websocket:
            number, name, arguments = unpackb(message)
            if name == "Sum":
                result = sum(arguments)
            elif name == "Echo":
                result = arguments[0]
            elif name == "Items":
                for item in range(arguments[0]):
                    await websocket.send(packb([number, item]))
                result = None
            elif name == "Hold":
                held.append(number)
                continue
            else:
                for other in held:
                    await websocket.send(packb([other, None]))
                held.clear()
                result = None
            await websocket.send(packb([number, result]))


class Asking:
    def __init__(self, websocket: Any, what: str) -> None:
        self.websocket = websocket
        self.number = 0
        self.futures: dict[int, asyncio.Future[Any]] = {}
        self.loop = asyncio.get_running_loop()
        self.reading = None if what == "items" else self.loop.create_task(self.read())

    async def ask(self, name: str, arguments: list[Any]) -> Any:
        self.number = number = self.number + 1
        self.futures[number] = future = self.loop.create_future()
        await self.websocket.send(packb([number, name, arguments]))
        return await future

    async def ask_timed(self) -> Any:
        async with asyncio.timeout(TIMEOUT):
            return await self.ask("Sum", [13, 81])

    async def take(self, count: int = 1) -> None:
        """Take items, and read them here: such a connection makes no calls."""
        await self.websocket.send(packb([0, "Items", [count]]))
        taken = 0
        async for message in self.websocket:
            if unpackb(message)[1] is None:
                break
            taken += 1
        assert taken == count

    async def read(self) -> None:
        async for message in self.websocket:
            number, result = unpackb(message)
            self.futures.pop(number).set_result(result)

    async def close(self) -> None:
        await self.websocket.close()
        if self.reading:
            await self.reading


class Websockets(Peer):
    async def serve(self, what: str, tls: bool) -> int:
        context = self.server_context(tls)
        server = await serve(answer, HOST, 0, ssl=context, compression=None)
        self.servers.append(server)
        port: int = next(iter(server.sockets)).getsockname()[1]
        return port

    async def connect(self, port: int, what: str, tls: bool) -> Connection:
        scheme = "wss" if tls else "ws"
        options = self.client_options(tls)
        url = f"{scheme}://{HOST}:{port}/"
        asking = Asking(await connect(url, compression=None, proxy=None, **options), what)
        ways: dict[str, Any] = {
            "sum": partial(asking.ask, "Sum", [13, 81]),
            "timed": asking.ask_timed,
            "echo": partial(asking.ask, "Echo", [b"x" * VALUE]),
            "items": asking.take,
        }
        return Connection(
            ways[what],
            asking.close,
            hold=partial(asking.ask, "Hold", [13, 81]),
            release=partial(asking.ask, "Release", []),
        )
