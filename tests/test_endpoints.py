"""Connecting and serving: TCP, UNIX and TLS, awaited and entered, and how they close."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support import Echo, Math, Notify, Patient, Sum, Wait, listening, reach

from amp_asyncio import (
    AMP,
    AmpBox,
    ConnectionLost,
    Descriptor,
    PrivateCertificate,
    connect,
    serve,
    unix_connect,
    unix_serve,
)
from amp_asyncio.tls.certificates import make_ssl_context


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
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    layer = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        layer.do_handshake()
    async with serve(Math, "127.0.0.1", 0, ssl=context) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(outgoing.read())
        assert await reader.readexactly(1)
        assert server.connections == []
        await server.close()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_who_could_not_be_served_is_in_the_log(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    context, trusting = tls

    def broken() -> AMP:
        raise LookupError("no database")

    async def refused(server: Any, data: bytes) -> str:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        address = repr(writer.get_extra_info("sockname"))
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return address

    async with serve(broken, "127.0.0.1", 0) as server:
        address = await refused(server, b"")
        assert server.connections == []
    assert f"no protocol could be made for {address}" in caplog.text
    assert "no database" in caplog.text
    async with serve(Math, "127.0.0.1", 0, ssl=context) as server:
        address = await refused(server, AmpBox(_command=b"Sum", _ask=b"1").serialize())
    assert f"the TLS handshake with {address} failed" in caplog.text
    async with serve(broken, "127.0.0.1", 0, ssl=context) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(ConnectionLost):
            async with connect(host, port, ssl=trusting, server_hostname="localhost") as client:
                await client.callRemote(Sum, a=1, b=1)
    assert caplog.text.count("no protocol could be made") == 2


@pytest.mark.parametrize("certificate", [False, True])
async def test_a_client_whose_certificate_is_refused_is_in_the_log(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], certificate: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ours = PrivateCertificate.self_signed("localhost")
    context = ours.ssl_context(server_side=True, authorities=[ours.certificate])
    own = PrivateCertificate.self_signed("stranger") if certificate else None
    wrong = make_ssl_context(own, server_side=False, authorities=[ours.certificate])
    async with serve(Math, "127.0.0.1", 0, ssl=context) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(ConnectionLost):
            async with connect(host, port, ssl=wrong, server_hostname="localhost") as client:
                await client.callRemote(Sum, a=1, b=1)
    assert "the TLS handshake with ('127.0.0.1', " in caplog.text


async def test_what_comes_with_the_end_of_the_handshake_is_not_lost(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """The client's last message of the handshake, a command and its end in one segment."""
    context, trusting = tls
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    class Noted(AMP):
        @Notify.responder
        def notify(self, data: bytes) -> None:
            received.set_result(data)

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    layer = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with serve(Noted, "127.0.0.1", 0, ssl=context) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while True:
            try:
                layer.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
        layer.write(AmpBox(_command=b"Notify", data=b"x").serialize())
        with contextlib.suppress(ssl.SSLWantReadError):
            layer.unwrap()
        writer.write(outgoing.read())
        writer.write_eof()
        assert await received == b"x"
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


# --- leaving ---


@pytest.mark.parametrize(
    "how",
    [
        "an exception",
        pytest.param("a timeout", marks=pytest.mark.slow),
        pytest.param("before it was sent", marks=pytest.mark.slow),
    ],
)
async def test_leaving_by_an_error_gives_up_what_is_asked(how: str) -> None:
    """It does not wait for a responder that never ends."""
    loop = asyncio.get_running_loop()
    others: list[asyncio.Future[Any]] = []
    async with listening(Patient) as server:
        begun = loop.time()
        with pytest.raises(LookupError if how != "a timeout" else TimeoutError):
            async with asyncio.timeout(0.2 if how == "a timeout" else 5), reach(server) as client:
                others.append(client.callRemote(Wait, name="other"))
                if how == "a timeout":
                    await client.callRemote(Wait, name="x")
                if how == "before it was sent":
                    client.pause_writing()
                    others.append(client.callRemote(Wait, name="waiting"))
                raise LookupError
        # A second at most, and no more than that: `close` alone would wait for ten.
        assert loop.time() - begun < 6
        assert client.transport is None
        for other in others:
            with pytest.raises(ConnectionLost, match="was left while this question was open"):
                await other
        for amp in server.connections:  # Its responders go on.
            amp.abort()


async def test_leaving_by_an_error_loses_nothing_that_was_sent() -> None:
    made: asyncio.Queue[Patient] = asyncio.Queue()

    def factory() -> Patient:
        amp = Patient()
        made.put_nowait(amp)
        return amp

    async with listening(factory) as server:
        with pytest.raises(LookupError):
            async with reach(server) as client:
                for number in range(500):
                    client.callRemote(Notify, data=b"%d" % number)
                raise LookupError
        amp = await made.get()
        async with asyncio.timeout(5):
            assert [await amp.notified.get() for _ in range(500)] == [
                b"%d" % number for number in range(500)
            ]


async def test_one_opening_is_entered_once_at_a_time() -> None:
    async with listening(Math) as server:
        opening = reach(server)
        async with opening as client:
            with pytest.raises(RuntimeError, match="entered already"):
                async with opening:
                    raise AssertionError
            assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert client.transport is None
    with pytest.raises(OSError, match=r".*"):
        await opening.__aenter__()
    with pytest.raises(OSError, match=r".*"):
        await opening.__aenter__()


# --- addresses ---


class Client(AMP):
    pass


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
async def test_connecting_to_a_server(host: str) -> None:
    async with serve(Math, host, 0) as server:
        near, port = server.address
        sockname = server.sockets[0].getsockname()
        text = f"[{near}]:{port}" if ":" in str(near) else f"{near}:{port}"
        for address in (server, server.address, list(server.address), sockname, text):
            async with connect(address) as amp:
                assert type(amp) is AMP
                assert await amp.callRemote(Sum, a=1, b=2) == {"total": 3}
        async with connect(server, Client) as client, connect(text, protocol_factory=Client) as other:
            assert [type(each) for each in server.connections] == [Math, Math]
            assert (type(client), type(other)) == (Client, Client)
    with pytest.raises(RuntimeError, match="the server is closed"):
        connect(server)


async def test_connecting_to_a_server_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "amp"
    async with unix_serve(Math, path) as server:
        assert server.address == str(path)
        for address in (server, path, str(path), bytes(path)):
            async with connect(address, Client) as client:
                assert type(client) is Client
                assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_addresses_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await connect(tmp_path / "amp")
    with pytest.raises(OSError, match="refused|failed"):
        async with serve(Math, "localhost", 0) as server:
            address = server.address
        await connect(address)
    with pytest.raises(OSError):  # The whole is a name: there is no port in it.
        await connect("nowhere.invalid:", 1)
