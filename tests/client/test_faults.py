"""A client whose connections break at each byte: of connecting, of TLS, of `on_connect`, of a call."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest
from support import Math, Sum, open_descriptors

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
        cut: after how many bytes; None for never.
        seen: how many bytes the last connection has had.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
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

        async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65_536 if cut is None else 1):
                    if cut is not None and self.seen >= cut:
                        writer.transport.abort()
                        other.transport.abort()
                        return
                    self.seen += len(data)
                    target.write(data)
                target.close()

        tasks = [
            asyncio.ensure_future(forward(reader, other)),
            asyncio.ensure_future(forward(other_reader, writer)),
        ]
        self._tasks.update(tasks)
        if cut == 0:
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in (writer, other):
            each.transport.abort()


async def on_connect(amp: AMP) -> None:
    await amp.callRemote(Login)


@pytest.mark.parametrize(
    ("tls", "step"),
    [
        pytest.param(False, 23, id="plain"),
        pytest.param(True, 997, id="tls"),
        pytest.param(False, 1, marks=pytest.mark.slow, id="plain, each byte"),
        pytest.param(True, 11, marks=pytest.mark.slow, id="tls, many bytes"),
    ],
)
async def test_it_breaks_at_each_byte(tls: bool, step: int) -> None:
    options: dict[str, Any] = {"backoff": Backoff(first=0.001, most=0.002), "on_connect": on_connect}
    context = None
    if tls:
        certificate = PrivateCertificate.self_signed("127.0.0.1")
        context = certificate.ssl_context(server_side=True)
        options["ssl"] = ssl.create_default_context(cadata=certificate.certificate.to_pem().decode())
    before = open_descriptors()
    async with serve(Guarded, "127.0.0.1", 0, ssl=context) as server:
        async with Breaking(server.sockets[0].getsockname()[1]) as breaking:
            async with Client(breaking.address, **options) as client:
                assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            whole, answered, lost = breaking.seen, 0, 0
            for cut in range(0, whole, step):
                breaking.cut = cut
                async with Client(breaking.address, **options) as client:
                    try:
                        assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
                        answered += 1
                    except ConnectionLost as error:
                        # Its question was on its way.
                        assert error.sent
                        lost += 1
            assert answered > lost
        async with asyncio.timeout(30):
            while server.connections:
                await asyncio.sleep(0.001)
    async with asyncio.timeout(30):
        while open_descriptors() > before:
            await asyncio.sleep(0.001)
