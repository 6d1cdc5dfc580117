"""rpyc: calls of exposed methods, with a thread of the server for each connection.

The method is fetched once, as one does who wants speed: each use of `conn.root.method` asks for it
again. Questions in flight are asked with `async_`, each connection's in a thread of its own, as nothing
here knows asyncio. Items come with `buffiter`, which fetches up to 1,000 at once.
"""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import rpyc
from pace import Pace
from rpyc.utils.authenticators import SSLAuthenticator
from rpyc.utils.factory import ssl_connect
from rpyc.utils.helpers import buffiter
from rpyc.utils.server import ThreadedServer

from peers import HOST, TIMEOUT, VALUE, Connection, Peer


class Bench(rpyc.Service):  # type: ignore[misc]
    def exposed_sum(self, a: int, b: int) -> int:
        return a + b

    def exposed_echo(self, data: bytes) -> bytes:
        return data

    def exposed_items(self, count: int) -> Iterator[int]:
        return iter(range(count))


class Ask:
    """A call: awaited alone, or begun by `ask_all` with others of its connection."""

    def __init__(self, connection: Any, what: str) -> None:
        self.connection = connection
        self.timeout = TIMEOUT if what == "timed" else None
        method = connection.root.echo if what == "echo" else connection.root.sum
        self.method = rpyc.async_(method)
        self.arguments: tuple[Any, ...] = (b"x" * VALUE,) if what == "echo" else (13, 81)

    def begin(self) -> Any:
        result = self.method(*self.arguments)
        if self.timeout:
            result.set_expiry(self.timeout)
        return result

    async def __call__(self) -> Any:
        return await asyncio.to_thread(lambda: self.begin().value)


class Rpyc(Peer):
    async def serve(self, what: str, tls: bool) -> int:
        authenticator = SSLAuthenticator(self.pem, self.pem) if tls else None
        server = ThreadedServer(Bench, HOST, port=0, authenticator=authenticator)
        threading.Thread(target=server.start, daemon=True).start()
        while not server.active:  # It begins to listen in its thread.
            await asyncio.sleep(0.001)
        self.servers.append(server)
        return int(server.port)

    async def connect(self, port: int, what: str, tls: bool) -> Connection:
        def opened() -> Any:
            if tls:
                return ssl_connect(HOST, port, ca_certs=self.pem)
            return rpyc.connect(HOST, port)

        connection = await asyncio.to_thread(opened)

        async def close() -> None:
            connection.close()

        async def take(count: int = 1) -> None:
            assert len(list(buffiter(connection.root.items(count)))) == count

        if what == "items":
            return Connection(take, close)
        return Connection(await asyncio.to_thread(Ask, connection, what), close)

    async def ask_all(self, asks: list[Any], turns: Iterator[int]) -> None:
        callers: dict[Any, list[Ask]] = {}
        for ask in asks:
            callers.setdefault(ask.connection, []).append(ask)
        await asyncio.gather(*(asyncio.to_thread(_ask, each, turns) for each in callers.values()))

    async def ask_paced(self, ask: Any, pace: Pace) -> None:
        await asyncio.to_thread(_ask_paced, ask, pace)


def _ask(asks: list[Ask], turns: Iterator[int]) -> None:
    """Let each caller of a connection ask again and again."""
    busy = 0

    def again(ask: Ask) -> Callable[[Any], None]:
        def begin(result: Any) -> None:
            nonlocal busy
            busy -= 1
            if result is not None:
                assert not result.error
            if next(turns, None) is not None:
                busy += 1
                ask.begin().add_callback(begin)

        return begin

    for ask in asks:
        busy += 1
        again(ask)(None)
    while busy:
        asks[0].connection.serve()


def _ask_paced(ask: Ask, pace: Pace) -> None:
    def answered(result: Any, due: float) -> None:
        if result.error:
            pace.failed()
        else:
            pace.answered(due)

    poll = select.poll()
    poll.register(pace.fileno(), select.POLLIN)
    poll.register(ask.connection.fileno(), select.POLLIN)
    while not pace.ended:
        poll.poll()
        for due in pace.due():
            ask.begin().add_callback(partial(answered, due=due))
        ask.connection.poll_all()
