"""The ways to a server: TCP, a UNIX socket, TLS from the first byte, and StartTLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from support import reach, turns

from amp_asyncio import AMP, PrivateCertificate, Server, StartTLS, connect, serve, unix_serve

WAYS = ["tcp", "unix", "tls", "starttls"]

_CERTIFICATE = PrivateCertificate.self_signed("localhost", names=["127.0.0.1"])
_SERVING = _CERTIFICATE.ssl_context(server_side=True)
TRUSTING = _CERTIFICATE.ssl_context(server_side=False, authorities=[_CERTIFICATE.certificate])

_S = TypeVar("_S", bound=AMP)
_C = TypeVar("_C", bound=AMP)


@asynccontextmanager
async def serving(way: str, factory: Callable[[], AMP], **options: Any) -> AsyncIterator[Server]:
    """Serve what can be reached in this way."""
    if way == "unix":
        with TemporaryDirectory() as directory:
            async with unix_serve(factory, Path(directory, "amp"), **options) as server:
                yield server
        return
    context = _SERVING if way == "tls" else None
    async with serve(factory, "127.0.0.1", 0, ssl=context, **options) as server:
        yield server


async def reached(way: str, server: Server, factory: Callable[[], Any] = AMP) -> Any:
    """Return a client that is connected to `server`, and not closed by anybody."""
    if way == "tls":
        host, port, *_ = server.sockets[0].getsockname()
        client: Any = await connect(host, port, factory, ssl=TRUSTING)
    else:
        client = await reach(server, factory)
    if way == "starttls":
        await client.callRemote(StartTLS)
    return client


@asynccontextmanager
async def joined(
    way: str,
    server_factory: Callable[[], _S],
    client_factory: Callable[[], _C] = AMP,  # type: ignore[assignment]
) -> AsyncIterator[tuple[_S, _C]]:
    """Yield the two ends of a connection; both are aborted in the end, if they are still there."""
    made: asyncio.Queue[_S] = asyncio.Queue()

    def factory() -> _S:
        amp = server_factory()
        made.put_nowait(amp)
        return amp

    async with serving(way, factory) as server:
        client = await reached(way, server, client_factory)
        accepted = await asyncio.wait_for(made.get(), 5)
        await turns()  # Over UNIX sockets it is connected a little later than it is made.
        try:
            yield accepted, client
        finally:
            for amp in (client, accepted):
                amp.abort()
            async with asyncio.timeout(5):
                await AMP.wait_closed(client)
                await AMP.wait_closed(accepted)
