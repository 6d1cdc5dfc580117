"""How a server begins and ends, and that its clients see the end of their connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket

import pytest
from support import Math, Patient, Sum, Wait, listening, raw_client, turns
from ways import WAYS, joined, reached, serving

from amp_asyncio import AMP, AmpBox, ConnectionLost, connect, parseString, serve


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


async def test_closing_without_a_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with listening(Math) as server, raw_client(server) as (reader, _):
        while not server.connections:
            await asyncio.sleep(0)
        with monkeypatch.context() as patched:
            patched.setattr(os, "dup2", fail)
            await server.close(timeout=0.1)
        assert server.sockets == ()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


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


async def test_a_close_that_is_cancelled_ends_the_handshakes() -> None:
    async with serving("tls", Math) as server, raw_client(server) as (reader, writer):
        writer.write(b"\x16\x03\x01")  # The beginning of one.
        await turns()
        closing = asyncio.ensure_future(server.close(timeout=None))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""


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

        server = await stack.enter_async_context(serving(way, factory))
        for _ in range(130):
            reader, writer = await stack.enter_async_context(raw_client(server))
            if way == "starttls":
                writer.write(AmpBox(_command=b"StartTLS", _ask=b"1").serialize())
        if way == "starttls":
            assert await reader.read(100)
            made[-1].abort()  # It still waits for its turn.
        async with asyncio.timeout(8):
            client = await reached(way, server)
            assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        await client.close()
        assert "it was slow, and others waited for their turn" in caplog.text
