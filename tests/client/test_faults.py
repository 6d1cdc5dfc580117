"""A client whose connections break at each byte: of connecting, of TLS, of `on_connect`, of a call."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest
from proc import open_descriptors
from support import Math, Sum

from amp_asyncio import AMP, Backoff, Client, Command, ConnectionLost, PrivateCertificate, serve


class Login(Command):
    pass


class Guarded(Math):
    @Login.responder
    def login(self) -> dict[str, Any]:
        return {}


class Breaking:
    """Forwards the bytes of connections; the first one breaks after so many, in both directions.

    Attributes:
        how: what becomes of it: "reset", "closed", or "silent", which stays open and brings no more.
        cut: after how many bytes; None for never.
        seen: how many bytes the last connection has had.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.how = "reset"
        self.cut: int | None = None
        self.seen = 0

    async def __aenter__(self) -> Breaking:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut, self.cut, self.seen = self.cut, None, 0
        other_reader, other = await asyncio.open_connection("127.0.0.1", self._port)

        async def end() -> None:
            if self.how == "silent":
                await asyncio.Event().wait()
            for each in (writer, other):
                if self.how == "closed":
                    each.close()
                else:
                    each.transport.abort()

        async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65_536 if cut is None else 1):
                    if cut is not None and self.seen >= cut:
                        await end()
                        return
                    self.seen += len(data)
                    target.write(data)
                target.close()

        tasks = [
            asyncio.ensure_future(forward(reader, other)),
            asyncio.ensure_future(forward(other_reader, writer)),
        ]
        self._tasks.update(tasks)
        if cut == 0 and self.how != "silent":
            await end()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in (writer, other):
            each.transport.abort()


async def on_connect(amp: AMP) -> None:
    await amp.callRemote(Login)


def with_tls(options: dict[str, Any]) -> ssl.SSLContext:
    """Let a client verify the certificate of the server that gets what is returned."""
    certificate = PrivateCertificate.self_signed("127.0.0.1")
    options["ssl"] = ssl.create_default_context(cadata=certificate.certificate.to_pem().decode())
    return certificate.ssl_context(server_side=True)


@pytest.mark.parametrize(
    ("tls", "how", "step"),
    [
        pytest.param(False, "reset", 23, id="plain"),
        pytest.param(True, "reset", 997, id="tls"),
        pytest.param(False, "closed", 97, id="plain, closed"),
        pytest.param(False, "reset", 1, marks=pytest.mark.slow, id="plain, each byte"),
        pytest.param(False, "closed", 1, marks=pytest.mark.slow, id="plain, closed, each byte"),
        pytest.param(False, "silent", 11, marks=pytest.mark.slow, id="plain, silent"),
        pytest.param(True, "reset", 11, marks=pytest.mark.slow, id="tls, many bytes"),
        pytest.param(True, "closed", 61, marks=pytest.mark.slow, id="tls, closed"),
        pytest.param(True, "silent", 97, marks=pytest.mark.slow, id="tls, silent"),
    ],
)
async def test_it_breaks_at_each_byte(tls: bool, how: str, step: int) -> None:
    options: dict[str, Any] = {"backoff": Backoff(first=0.001, most=0.002), "on_connect": on_connect}
    context = with_tls(options) if tls else None
    before = open_descriptors()
    async with serve(Guarded, "127.0.0.1", 0, ssl=context) as server:
        async with Breaking(server.sockets[0].getsockname()[1]) as breaking:
            async with Client(breaking.address, **options) as client:
                assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            whole, answered, lost = breaking.seen, 0, 0
            breaking.how = how
            if how == "silent":
                options["connect_timeout"] = 0.05
            for cut in range(0, whole, step):
                breaking.cut = cut
                client = Client(breaking.address, **options)
                try:
                    async with asyncio.timeout(0.3 if how == "silent" else None):
                        assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
                    answered += 1
                except TimeoutError:
                    lost += 1
                except ConnectionLost as error:
                    # Its question was on its way.
                    assert error.sent
                    lost += 1
                # A connection that brings no more cannot be closed in order.
                await client.close(timeout=0.05 if how == "silent" else 10)
            assert answered > lost
        async with asyncio.timeout(30):
            while server.connections:
                await asyncio.sleep(0.001)
    async with asyncio.timeout(30):
        while open_descriptors() > before:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_close_in_each_turn_of_connecting_and_of_on_connect(tls: bool) -> None:
    """The last of these comes after the client is connected."""
    options: dict[str, Any] = {"on_connect": on_connect}
    context = with_tls(options) if tls else None
    before = open_descriptors()
    async with serve(Guarded, "127.0.0.1", 0, ssl=context) as server:
        turn, connected = 0, False
        while not connected:
            client = Client(server.sockets[0].getsockname(), **options)
            calling = client.callRemote(Sum, a=13, b=81)
            for _ in range(turn):
                await asyncio.sleep(0)
            connected = bool(client.connections)
            await client.close()
            await asyncio.wait([calling])
            assert isinstance(calling.exception(), ConnectionLost | None)
            turn += 1
        async with asyncio.timeout(5):
            while server.connections:
                await asyncio.sleep(0.001)
    async with asyncio.timeout(5):
        while open_descriptors() > before:
            await asyncio.sleep(0.001)
