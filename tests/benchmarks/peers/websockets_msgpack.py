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

from peers import HOST, Connection, Peer


async def answer(websocket: Any) -> None:
    # A client that is done ends as it stands.
    with suppress(ConnectionClosed):
        async for message in websocket:
            number, name, arguments = unpackb(message)
            result = sum(arguments) if name == "Sum" else arguments[0]
            await websocket.send(packb([number, result]))


class Asking:
    def __init__(self, websocket: Any) -> None:
        self.websocket = websocket
        self.number = 0
        self.futures: dict[int, asyncio.Future[Any]] = {}
        self.loop = asyncio.get_running_loop()
        self.reading = self.loop.create_task(self.read())

    async def ask(self, name: str, arguments: list[Any]) -> Any:
        self.number = number = self.number + 1
        self.futures[number] = future = self.loop.create_future()
        await self.websocket.send(packb([number, name, arguments]))
        return await future

    async def read(self) -> None:
        async for message in self.websocket:
            number, result = unpackb(message)
            self.futures.pop(number).set_result(result)

    async def close(self) -> None:
        await self.websocket.close()
        await self.reading


class Websockets(Peer):
    async def serve(self, size: int, tls: bool) -> int:
        context = self.server_context(tls)
        server = await serve(answer, HOST, 0, ssl=context, compression=None)
        self.servers.append(server)
        port: int = next(iter(server.sockets)).getsockname()[1]
        return port

    async def connect(self, port: int, size: int, tls: bool) -> Connection:
        scheme = "wss" if tls else "ws"
        options = self.client_options(tls)
        asking = Asking(
            await connect(f"{scheme}://{HOST}:{port}/", compression=None, proxy=None, **options)
        )
        if size:
            return Connection(partial(asking.ask, "Echo", [b"x" * size]), asking.close)
        return Connection(partial(asking.ask, "Sum", [13, 81]), asking.close)
