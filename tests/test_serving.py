"""How a server begins and ends, and that its clients see the end of their connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
from typing import Any

import pytest
from support import Math, Patient, Sum, Wait, listening, raw_client, reach, turns
from ways import WAYS, joined, reached, serving

from amp_asyncio import AMP, AmpBox, ConnectionLost, Limits, connect, parseString, serve, unix_connect
from amp_asyncio.transports.unix import DescriptorTransport


async def test_serve_forever_begins_to_listen() -> None:
    server = await serve(Math, "127.0.0.1", 0, start_serving=False)
    serving = asyncio.ensure_future(server.serve_forever())
    await turns()
    async with asyncio.timeout(5), connect(*server.sockets[0].getsockname()) as amp:
        assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    with pytest.raises(RuntimeError, match="the server is closed"):
        await server.serve_forever()


async def test_a_server_that_does_not_listen_yet() -> None:
    async with listening(Math, unix=False, start_serving=False, backlog=3) as server:
        with pytest.raises(ConnectionRefusedError):
            await reach(server)


@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
async def test_connections_that_come_while_the_server_closes(way: str) -> None:
    """However many turns of the loop before: none of them stays open."""
    for before in range(8):
        async with serving(way, Math) as server:
            address = server.sockets[0].getsockname()
            family = socket.AF_UNIX if way == "unix" else socket.AF_INET
            peers = [socket.socket(family) for _ in range(2)]
            for peer in peers:
                peer.settimeout(5)
            peers[0].connect(address)
            for _ in range(before):
                await asyncio.sleep(0)
            peers[1].connect(address)
            closing = asyncio.ensure_future(server.close(timeout=0.01))
            await asyncio.sleep(0)
            with socket.socket(family) as late, pytest.raises(OSError):
                late.connect(address)
            await closing
            for peer in peers[:2]:
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.to_thread(peer.recv, 1) == b""
            for peer in peers:
                peer.close()


@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("turns_before", [1, 4, 20])
async def test_a_close_that_is_cancelled_aborts_all(way: str, turns_before: int) -> None:
    made: list[Patient] = []

    def factory() -> Patient:
        made.append(Patient())
        return made[-1]

    async with serving(way, factory) as server:
        clients = [await reached(way, server) for _ in range(3)]
        questions = [client.callRemote(Wait, name="x") for client in clients]
        for amp in made:
            await amp.started.get()
        closing = asyncio.ensure_future(server.close(timeout=None))
        for _ in range(turns_before):
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with asyncio.timeout(5):
            for question in questions:
                with pytest.raises(ConnectionLost):
                    await question
            for amp in made:
                await amp.wait_closed()
        assert server.connections == []
        assert server.sockets == ()


@pytest.mark.parametrize("coming", [False, True])
async def test_a_close_that_is_cancelled_ends_the_handshakes(
    coming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while a connection has just been accepted, and has no transport yet."""
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    async def never(*arguments: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    async with serving("tls", Math) as server, raw_client(server) as (reader, writer):
        writer.write(b"\x16\x03\x01")  # The beginning of one.
        await turns()
        with socket.socket() as other:
            if coming:
                monkeypatch.setattr(loop, "connect_accepted_socket", never, raising=False)
                other.connect(server.sockets[0].getsockname())
                await reached.wait()
            closing = asyncio.ensure_future(server.close(timeout=None))
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                for task in asyncio.all_tasks():
                    if task.get_coro().__qualname__.endswith("never"):  # type: ignore[union-attr]
                        task.cancel()
                await turns()


@pytest.mark.parametrize("way", WAYS)
async def test_another_process_has_the_socket(way: str) -> None:
    """A child that was forked, for instance: the peer sees the end all the same."""
    async with joined(way, Math) as (server, client):
        inherited = os.dup(server.transport.get_extra_info("socket").fileno())
        server.abort()
        async with asyncio.timeout(5):
            await client.wait_closed()
        os.close(inherited)


async def test_another_process_has_the_socket_of_a_peer_that_ended() -> None:
    made: list[Patient] = []

    def factory() -> Patient:
        made.append(Patient())
        return made[-1]

    async with listening(factory) as server, raw_client(server) as (reader, writer):
        writer.write(AmpBox(_command=b"Wait", _ask=b"1", name=b"x").serialize())
        while not made:
            await asyncio.sleep(0)
        (amp,) = made
        await amp.started.get()
        assert amp.transport is not None
        inherited = os.dup(amp.transport.get_extra_info("socket").fileno())
        writer.write_eof()
        amp.let("x")
        async with asyncio.timeout(5):
            assert parseString(await reader.read()) == [{b"_answer": b"1", b"name": b"x"}]
        os.close(inherited)


async def test_another_process_has_the_socket_of_a_client_that_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inherited = []

    def broken() -> AMP:
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                    inherited.append(os.dup(int(descriptor)))
        raise LookupError("no database")

    async with listening(broken) as server, raw_client(server) as (reader, _):
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
    for descriptor in inherited:
        os.close(descriptor)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["tls", "starttls"])
async def test_handshakes_that_stall_give_way(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server does a hundred at the same time; a client with good intentions has its turn soon."""
    async with contextlib.AsyncExitStack() as stack:
        made: list[Math] = []

        def factory() -> Math:
            made.append(Math())
            return made[-1]

        # They do not end by themselves meanwhile.
        limits = Limits(handshake_timeout=100)
        server = await stack.enter_async_context(serving(way, factory, limits=limits))
        for _ in range(130):
            reader, writer = await stack.enter_async_context(raw_client(server))
            if way == "starttls":
                writer.write(AmpBox(_command=b"StartTLS", _ask=b"1").serialize())
        if way == "starttls":
            assert await reader.read(100)
            made[-1].abort()  # It still waits for its turn.
        async with asyncio.timeout(20):
            client = await reached(way, server)
            assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        await client.close()
        assert "it was slow, and others waited for their turn" in caplog.text


# --- how many ---


@pytest.mark.parametrize("way", WAYS)
async def test_no_more_connections_than_there_may_be(way: str) -> None:
    """The others wait, and are served in order when one ends."""
    async with serving(way, Patient, max_connections=2) as server, contextlib.AsyncExitStack() as stack:
        clients = [await reached(way, server) for _ in range(2)]
        waiting = [asyncio.ensure_future(reached(way, server)) for _ in range(2)]
        async with asyncio.timeout(5):
            for _ in range(20):
                assert await clients[0].callRemote(Sum, a=1, b=1) == {"total": 2}
            assert len(server.connections) == 2
            for client in clients:
                await client.close()
            for other in waiting:
                clients.append(await other)
                stack.push_async_callback(clients[-1].close)
                assert await clients[-1].callRemote(Sum, a=1, b=1) == {"total": 2}
        assert len(server.connections) == 2


@pytest.mark.parametrize("way", ["tcp", "tls"])
async def test_those_who_are_refused_leave_room(way: str) -> None:
    """So do a handshake that fails, and a factory that raises, whatever it is."""
    made = []

    def factory() -> AMP:
        made.append(1)
        if len(made) == 1:
            raise asyncio.CancelledError
        if len(made) == 2:
            raise LookupError("no database")
        return Math()

    async with serving(way, factory, max_connections=1) as server, asyncio.timeout(5):
        if way == "tls":
            async with raw_client(server) as (reader, writer):
                writer.write(b"this is not TLS")
                with contextlib.suppress(ConnectionError):
                    assert len(await reader.read()) < 100  # An alert.
        for _ in range(2):
            client = await reached(way, server)
            with pytest.raises(ConnectionLost):
                await client.callRemote(Sum, a=1, b=1)
        client = await reached(way, server)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        await client.close()


def test_a_factory_that_ends_the_process() -> None:
    """Its client sees the end."""
    peer = socket.socket()

    def factory() -> AMP:
        raise SystemExit(3)

    async def main() -> None:
        async with serve(factory, "127.0.0.1", 0) as server:
            peer.connect(server.sockets[0].getsockname())
            await server.serve_forever()

    with peer:
        with pytest.raises(SystemExit):
            asyncio.run(main())
        with contextlib.suppress(ConnectionError):
            assert peer.recv(1) == b""


async def test_many_come_at_once() -> None:
    made = []

    def factory() -> AMP:
        made.append(Math())
        return made[-1]

    async with listening(factory) as server, contextlib.AsyncExitStack() as stack:
        address = server.sockets[0].getsockname()
        for _ in range(20):
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            peer = stack.enter_context(socket.socket(family))
            peer.connect(address)
        async with asyncio.timeout(5):
            while len(made) < 20:
                await asyncio.sleep(0)


@pytest.mark.parametrize("most", [0, -1])
def test_at_least_one_connection(most: int) -> None:
    with pytest.raises(ValueError, match="max_connections must be positive"):
        serve(Math, "127.0.0.1", 0, max_connections=most)


async def test_two_servers_on_one_port() -> None:
    async with serve(Math, "127.0.0.1", 0, reuse_port=True) as server:
        host, port = server.sockets[0].getsockname()
        async with serve(Math, host, port, reuse_port=True) as other:
            await server.close()
            async with connect(host, port) as client:
                assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
            assert other.sockets[0].getsockname() == (host, port)


# --- out of descriptors ---


async def test_out_of_descriptors(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once, and it goes on as soon as there are some."""
    failures: asyncio.Queue[OSError] = asyncio.Queue()
    accept = socket.socket.accept

    def watched(sock: socket.socket) -> Any:
        try:
            return accept(sock)
        except OSError as error:
            if error.errno == errno.EMFILE:
                failures.put_nowait(error)
            raise

    monkeypatch.setattr(socket.socket, "accept", watched)
    async with listening(Math) as server:
        address = server.sockets[0].getsockname()
        unix = isinstance(address, str)
        peer = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        peer.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        async with asyncio.timeout(5):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            try:
                await asyncio.get_running_loop().sock_connect(peer, address)
                for _ in range(3):
                    await failures.get()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client: Any = unix_connect(sock=peer) if unix else connect(sock=peer)
            async with client as amp:
                assert await amp.callRemote(Sum, a=1, b=1) == {"total": 2}
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["ERROR"]
    assert f"{address!r}: no connection can be accepted now" in caplog.text
    assert "Too many open files" in caplog.text


async def test_closing_while_out_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = asyncio.Event()

    def fail(sock: socket.socket) -> Any:
        failed.set()
        raise OSError(errno.EMFILE, "Too many open files")

    async with listening(Math) as server:
        monkeypatch.setattr(socket.socket, "accept", fail)
        async with raw_client(server) as (reader, _):
            await failed.wait()
            await server.close()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""


@pytest.mark.parametrize(("what", "method"), [(os, "dup"), (socket.socket, "listen")])
async def test_it_cannot_listen(what: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(what, method, fail)
    with pytest.raises(OSError, match="Too many open files"):
        await serve(Math, "127.0.0.1", 0)


async def test_an_address_that_another_one_listens_on_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two may bind the same address, and the second to listen fails."""
    server = await serve(Math, "127.0.0.1", 0, start_serving=False)
    async with serve(Math, *server.sockets[0].getsockname()):
        with pytest.raises(OSError, match="in use"):
            await server.serve_forever()
        await server.close()


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("unix", "[Errno 107] Transport endpoint is not connected"),
        ("tcp", "[Errno 107] Transport endpoint is not connected"),
        ("tcp", "cancelled"),
    ],
)
async def test_accepted_and_not_kept(
    way: str, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that can get no transport is closed, and leaves room for the next one."""

    def fail(*arguments: Any) -> Any:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    async def connect_accepted(*arguments: Any) -> Any:
        if why == "cancelled":
            raise asyncio.CancelledError
        fail()

    async with serving(way, Math, max_connections=1) as server, asyncio.timeout(5):
        with monkeypatch.context() as patched:
            if way == "unix":
                patched.setattr(DescriptorTransport, "__init__", fail)
            else:
                loop = asyncio.get_running_loop()
                patched.setattr(loop, "connect_accepted_socket", connect_accepted, raising=False)
            async with raw_client(server) as (reader, _):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        client = await reached(way, server)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        await client.close()
    assert f"could not be kept: {why}" in caplog.text
