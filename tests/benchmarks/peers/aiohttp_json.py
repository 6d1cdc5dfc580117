"""aiohttp on both sides: a POST with JSON for each call, on connections that are kept alive.

HTTP/1.1 has one question at a time on a connection, so 100 in flight take 100 connections. Values are
the bodies themselves, and items lines of JSON. A connection of the other peers is a `ClientSession`
here. On asyncio's loop alone.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from peers import HOST, TIMEOUT, VALUE, Connection, Peer

BYTES = "application/octet-stream"


async def answer_sum(request: web.Request) -> web.Response:
    arguments = await request.json()
    return web.json_response({"total": arguments["a"] + arguments["b"]})


async def answer_echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type=BYTES)


async def send_items(request: web.Request) -> web.StreamResponse:
    arguments = await request.json()
    response = web.StreamResponse()
    await response.prepare(request)
    for item in range(arguments["count"]):
        await response.write(json.dumps(item).encode() + b"\n")
    await response.write_eof()
    return response


class Aiohttp(Peer):
    async def serve(self, what: str, tls: bool) -> int:
        app = web.Application()
        app.router.add_post("/sum", answer_sum)
        app.router.add_post("/echo", answer_echo)
        app.router.add_post("/items", send_items)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0, ssl_context=self.server_context(tls))
        await site.start()
        self.servers.append(runner)
        return int(runner.addresses[0][1])

    async def connect(self, port: int, what: str, tls: bool) -> Connection:
        options = self.client_options(tls)
        session = ClientSession(connector=TCPConnector(ssl=options.pop("ssl", True)))
        base = f"{'https' if tls else 'http'}://{HOST}:{port}"

        async def ask(**more: Any) -> Any:
            arguments = {"a": 13, "b": 81}
            async with session.post(f"{base}/sum", json=arguments, **options, **more) as response:
                return await response.json()

        async def echo() -> bytes:
            async with session.post(f"{base}/echo", data=b"x" * VALUE, **options) as response:
                return await response.read()

        async def take(count: int = 1) -> None:
            taken = 0
            async with session.post(f"{base}/items", json={"count": count}) as response:
                async for line in response.content:
                    json.loads(line)
                    taken += 1
            assert taken == count

        ways: dict[str, Any] = {
            "sum": ask,
            "timed": partial(ask, timeout=ClientTimeout(total=TIMEOUT)),
            "echo": echo,
            "items": take,
        }
        return Connection(ways[what], session.close)
