"""Connecting and serving: TCP, UNIX and TLS, awaited and entered, and how they close."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support import Echo, Math, Sum

from amp_asyncio import (
    AMP,
    ConnectionLost,
    Descriptor,
    Server,
    connect,
    serve,
    unix_connect,
    unix_serve,
)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server for `localhost` and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    file.write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=pem.decode("ascii"))


async def test_tcp() -> None:
    async with (
        serve(Math, "127.0.0.1", 0) as server,
        connect(*server.sockets[0].getsockname()) as amp,
    ):
        assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}


async def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "amp"
    async with unix_serve(Math, path), unix_connect(path) as amp:
        assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}


async def test_sockets_may_be_given_in_place_of_addresses() -> None:
    async with serve(Math, "127.0.0.1", 0) as server:
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        async with connect(sock=sock) as amp:
            assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}


async def test_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    context, trusting = tls
    async with serve(Math, "127.0.0.1", 0, ssl=context) as server:
        address = server.sockets[0].getsockname()
        async with connect(*address, ssl=trusting, server_hostname="localhost") as amp:
            answers = [amp.callRemote(Echo, data=b"x" * 60000) for _ in range(50)]
            assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}
        assert all([len((await answer)["data"]) == 60000 for answer in answers])
        with pytest.raises(ssl.SSLError):
            await connect(*address, ssl=ssl.create_default_context(), server_hostname="localhost")


async def test_tls_over_a_unix_socket(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    context, trusting = tls
    path = tmp_path / "amp"
    async with (
        unix_serve(Math, path, ssl=context),
        unix_connect(path, ssl=trusting, server_hostname="localhost") as amp,
    ):
        assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}
        with pytest.raises(TypeError, match="cannot carry descriptors"):
            Descriptor().toStringProto(0, amp)


async def test_awaited_rather_than_entered() -> None:
    server = await serve(Math, "127.0.0.1", 0)
    amp = await connect(*server.sockets[0].getsockname(), AMP)
    assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}
    assert [connection.transport is not None for connection in server.connections] == [True]
    await amp.close()
    await server.close()
    assert server.connections == []
    assert server.sockets == ()
    with pytest.raises(ConnectionLost):
        await amp.callRemote(Sum, a=13, b=81)
    await server.close()


async def test_a_server_that_never_listened_closes() -> None:
    server = Server()
    await server.close()
    assert server.sockets == ()


async def test_an_address_in_use_is_an_error() -> None:
    async with serve(Math, "127.0.0.1", 0) as server:
        with pytest.raises(OSError, match="address already in use"):
            await serve(Math, *server.sockets[0].getsockname())


async def test_serve_forever_serves_until_cancelled_and_closes() -> None:
    server = await serve(Math, "127.0.0.1", 0)
    serving = asyncio.ensure_future(server.serve_forever())
    async with connect(*server.sockets[0].getsockname()) as amp:
        assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}
        serving.cancel()
        await amp.wait_closed()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_connection_still_in_its_handshake_is_not_left_behind(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    context, trusting = tls
    made: asyncio.Future[AMP] = asyncio.get_running_loop().create_future()

    def factory() -> AMP:
        amp = Math()
        made.set_result(amp)
        return amp

    async with serve(factory, "127.0.0.1", 0, ssl=context) as server:
        address = server.sockets[0].getsockname()
        opening = asyncio.ensure_future(asyncio.open_connection(*address))
        amp = await made
        reader, writer = await opening
        assert server.connections == []
        await server.close()
        tls_side = await writer.start_tls(trusting, server_hostname="localhost")
        assert tls_side is None
        assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
    await amp.wait_closed()
    with pytest.raises(ConnectionLost):
        await amp.callRemote(Sum, a=1, b=1)
