"""Whether the peer of a silent connection is there: pings, and what becomes of one that is not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from keepalive_peer import Block, Swallow
from support import Echo, Math, Notify, Patient, Sum, Wait, at_any_pace, raw_client, raw_pair, turns

from amp_asyncio import AmpBox, ConnectionLost, Limits, PrivateCertificate, connect, parseString, serve
from amp_asyncio.session.pinging import introduce
from amp_asyncio.testing import Faults, Line, pair

QUICK = Limits(ping_interval=0.05, ping_timeout=0.08)
PEER = str(Path(__file__).with_name("keepalive_peer.py"))


def pings(data: bytes) -> int:
    return sum(box.get(b"_command") == b"_ping" for box in parseString(data))


async def known(amp: Any, peer: Any) -> None:
    """Have an AMP take its raw peer for one of its kind."""
    peer.send(AmpBox(_command=b"Sum", _ask=b"1", a=b"1", b=b"2", _offer=b"1 ping"))
    await peer.until(lambda: len(peer.boxes()) == 2)
    peer.data = b""


@at_any_pace
async def test_a_silent_peer_is_asked_and_aborted(
    caplog: pytest.LogCaptureFixture, pace: float
) -> None:
    async with raw_pair(ping_interval=0.05 * pace, ping_timeout=0.08 * pace) as (amp, peer):
        await known(amp, peer)
        asked = amp.callRemote(Sum, a=1, b=2)
        began = time.monotonic()
        await amp.wait_closed()
        assert time.monotonic() - began >= 0.08 * pace
        assert pings(peer.data) == 1
        with pytest.raises(ConnectionLost, match="asked whether it is there"):
            await asked
    assert f"aborting the connection: nothing has come for {0.05 * pace} seconds" in caplog.text


@pytest.mark.parametrize("reply", [AmpBox(_answer=b"1"), AmpBox(_error=b"1", _error_code=b"UNHANDLED")])
async def test_any_answer_is_life(reply: AmpBox) -> None:
    async with raw_pair(ping_interval=0.02, ping_timeout=0.08) as (amp, peer):
        assert amp.latency is None
        await known(amp, peer)
        for number in range(1, 5):
            await peer.until(lambda number=number: pings(peer.data) == number)
            tag = b"%d" % number
            peer.send(AmpBox({**reply, b"_answer" if b"_answer" in reply else b"_error": tag}))
        await turns()
        assert 0 < amp.latency < 5
        assert amp.transport is not None


async def test_any_byte_is_life() -> None:
    async with raw_pair(ping_interval=0.02, ping_timeout=0.08) as (amp, peer):
        await known(amp, peer)
        for byte in AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"2").serialize()[:20]:
            peer.transport.write(bytes([byte]))
            await asyncio.sleep(0.015)
        assert amp.transport is not None


async def test_two_of_ours_keep_each_other() -> None:
    class Slow(Math):
        @Sum.responder
        async def sum(self, a: int, b: int) -> dict[str, int]:  # type: ignore[override]
            await asyncio.sleep(0.4)
            return {"total": a + b}

    async with pair(Slow, limits=QUICK) as (server, client):
        await client.callRemote(Echo, data=b"")
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        assert server.latency is not None or client.latency is not None


@pytest.mark.parametrize(
    ("limits", "asked"),
    [({}, 0), ({"ping_anyone": True}, 1), ({"ping_anyone": True, "ping_interval": None}, 0)],
)
async def test_old_peers_are_asked_where_that_is_wanted(limits: Any, asked: int) -> None:
    async with raw_pair(**{"ping_interval": 0.02, "ping_timeout": 0.05, **limits}) as (amp, peer):
        if asked:
            await amp.wait_closed()
        else:
            await asyncio.sleep(0.1)
        assert pings(peer.data) == asked
        assert (amp.transport is None) == bool(asked)


async def test_the_first_ping_carries_an_offer() -> None:
    async with raw_pair(ping_interval=0.02, ping_timeout=5, ping_anyone=True) as (_, peer):
        await peer.until(lambda: peer.data)
        assert parseString(peer.data)[0][b"_offer"].startswith(b"1 ")


async def test_an_introduction_waits_for_the_answer_to_a_ping() -> None:
    async with raw_pair() as (amp, peer):
        waiting = asyncio.ensure_future(introduce(amp.__amp__))
        await peer.until(lambda: peer.boxes())
        assert parseString(peer.data)[0][b"_offer"].startswith(b"1 ")
        await turns()
        assert not waiting.done()
        peer.send(AmpBox(_error=b"1", _error_code=b"UNHANDLED"))
        await waiting
        await introduce(amp.__amp__)  # It is known now that the peer is of another kind.
        assert pings(peer.data) == 1


async def test_an_introduction_that_was_cancelled() -> None:
    async with raw_pair() as (amp, peer):
        waiting = asyncio.ensure_future(introduce(amp.__amp__))
        await peer.until(lambda: peer.boxes())
        waiting.cancel()
        await turns()
        peer.send(AmpBox(_answer=b"1"))
        await known(amp, peer)


async def test_none_over_pipes() -> None:
    async with raw_pair(extra={"pipe": object()}, ping_interval=0.02, ping_timeout=0.02) as (amp, peer):
        await known(amp, peer)
        await asyncio.sleep(0.1)
        assert amp.transport is not None
        assert peer.data == b""


@at_any_pace
async def test_pings_are_no_work(pace: float) -> None:
    """`idle_timeout` ends a connection on which nothing but pings cross."""
    limits = Limits(ping_interval=0.02, ping_timeout=60, idle_timeout=0.15 * pace)
    async with pair(Math, limits=limits) as (server, client):
        await client.callRemote(Sum, a=1, b=2)
        await server.wait_closed()
        await client.wait_closed()
        assert server.latency is not None or client.latency is not None


# --- what is no sign of death ---


@pytest.mark.parametrize("blocked", ["ours", "theirs"])
async def test_a_loop_that_is_blocked(blocked: str) -> None:
    """Both run on one loop here: what blocks the one blocks the other, too."""
    async with pair(Math, limits=Limits(ping_interval=0.03, ping_timeout=0.1)) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
        for _ in range(4):
            await asyncio.sleep(0.05 if blocked == "ours" else 0.12)
            time.sleep(0.15)  # noqa: ASYNC251
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_a_value_that_takes_long_to_send() -> None:
    faults = Faults(to_server=Line(capacity=500))
    limits = Limits(ping_interval=0.02, ping_timeout=0.08)
    async with pair(Math, limits=limits, faults=faults) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
        faults.to_server.drip(1)
        assert await client.callRemote(Echo, data=bytes(20_000)) == {"data": bytes(20_000)}


async def test_reading_that_our_own_backlog_paused() -> None:
    limits = {"max_concurrent_responders": 1, "max_backlog": 600, "window": 600}
    async with raw_pair(Patient, ping_interval=0.02, ping_timeout=0.04, **limits) as (amp, peer):
        await known(amp, peer)
        peer.send(*(AmpBox(_command=b"Wait", _ask=b"%d" % n, name=b"x") for n in range(2, 6)))
        await amp.started.get()
        assert not amp.transport.is_reading()
        await asyncio.sleep(0.15)
        assert amp.transport is not None
        amp.let("x")


# --- what is ---


@asynccontextmanager
async def forwarding(port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Forward what comes to a port, until the event is set."""
    stopped = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if stopped.is_set():
                await asyncio.Event().wait()
            writer.write(data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, onward[1]))
        for ends in ((reader, onward[1]), (onward[0], writer)):
            tasks.add(asyncio.ensure_future(forward(*ends)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], stopped
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_path_that_forwards_nothing_any_more() -> None:
    async with serve(Patient, "127.0.0.1", 0, limits=QUICK) as server:
        async with forwarding(server.sockets[0].getsockname()[1]) as (port, stopped):
            client = await connect("127.0.0.1", port, limits=QUICK)
            await client.callRemote(Sum, a=1, b=2)
            asked = client.callRemote(Wait, name="x")
            other: Any = None
            while other is None or other.started.empty():
                await asyncio.sleep(0)
                other = next(iter(server.connections), None)
            stopped.set()
            # With the limits that are the default, it would take up to 90 seconds.
            async with asyncio.timeout(15):
                with pytest.raises(ConnectionLost):
                    await asked
                await other.wait_closed()
            assert other.gate("x").cancelled()


# --- in another process ---


@asynccontextmanager
async def another_process(
    limits: Limits, role: str = "", **its_limits: Any
) -> AsyncIterator[tuple[Any, asyncio.subprocess.Process]]:
    """Yield our side of a connection to `keepalive_peer.py`, which knows us, and its process."""
    async with serve(Patient, "127.0.0.1", 0, limits=limits) as server:
        port = str(server.sockets[0].getsockname()[1])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, PEER, port, role, json.dumps(its_limits)), stderr=PIPE, env=environment
        )
        try:
            while not server.connections:
                await asyncio.sleep(0.01)
            [amp] = server.connections
            await amp.callRemote(Sum, a=1, b=2)
            await amp.callRemote(Notify, data=b"")
            yield amp, process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["tls", "starttls"])
@at_any_pace
async def test_a_handshake_that_takes_long(way: str, pace: float) -> None:
    certificate = PrivateCertificate.self_signed("127.0.0.1")
    over = {"ssl": certificate.ssl_context(server_side=True)} if way == "tls" else {}
    limits = Limits(ping_interval=0.05 * pace, ping_timeout=0.08 * pace)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with serve(Math, "127.0.0.1", 0, limits=limits, **over) as server:
        async with raw_client(server) as (reader, writer):
            if way == "starttls":
                first = AmpBox(_command=b"Sum", _ask=b"1", a=b"1", b=b"2", _offer=b"1 ping")
                writer.write(first.serialize() + AmpBox(_command=b"StartTLS", _ask=b"2").serialize())
                await reader.readuntil(AmpBox(_answer=b"2").serialize())
            await asyncio.sleep(0.5 * pace)
            await writer.start_tls(context)
            writer.write(AmpBox(_command=b"Sum", _ask=b"3", a=b"1", b=b"2").serialize())
            assert (await reader.readuntil(b"\0\0"))[-4:] == b"\x013\0\0"


@pytest.mark.slow
@pytest.mark.parametrize("blocked", ["ours", "theirs"])
@at_any_pace
async def test_a_loop_that_is_blocked_for_half_of_the_time(blocked: str, pace: float) -> None:
    """Each side asks the other one, and neither gives it up."""
    interval, half = 0.05 * pace, 0.2 * pace
    limits = {"ping_interval": interval, "ping_timeout": 2 * half}
    async with another_process(Limits(**limits), **limits) as (amp, _):  # type: ignore[arg-type]
        for _ in range(3):
            if blocked == "ours":
                await asyncio.sleep(interval / 2)
                time.sleep(interval + half)  # noqa: ASYNC251
            else:
                await amp.callRemote(Block, seconds=interval + half)
        assert await amp.callRemote(Sum, a=1, b=2) == {"total": 3}
        # Nothing else has come for long enough.
        assert blocked == "ours" or amp.latency is not None


@pytest.mark.slow
@at_any_pace
async def test_a_large_value_that_takes_long_to_send(pace: float) -> None:
    """Nothing comes meanwhile, but the peer takes what we send."""
    limits = Limits(ping_interval=0.05 * pace, ping_timeout=0.2 * pace)
    async with another_process(limits, "reads slowly") as (amp, _):
        for _ in range(20):
            await amp.callRemote(Swallow, data=bytes(60_000))
        assert await amp.callRemote(Sum, a=0, b=0) == {"total": 1_200_000}


@pytest.mark.slow
@at_any_pace
async def test_a_peer_that_our_own_backlog_does_not_let_speak(pace: float) -> None:
    ours = {"max_concurrent_responders": 1, "max_backlog": 600, "window": 600}
    limits = Limits(ping_interval=0.05 * pace, ping_timeout=0.08 * pace, **ours)  # type: ignore[arg-type]
    async with another_process(limits, "asks", ping_interval=None) as (amp, _):
        assert await amp.started.get() == "x"
        while amp.transport.is_reading():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5 * pace)
        for _ in range(19):
            amp.let("x")
            assert await amp.started.get() == "x"
        amp.let("x")
        assert await amp.started.get() == "all"


@pytest.mark.slow
@pytest.mark.parametrize("sending", [False, True])
@at_any_pace
async def test_a_peer_that_was_stopped(sending: bool, pace: float) -> None:
    """Also while more and more is written that nobody reads."""
    limits = Limits(ping_interval=0.1 * pace, ping_timeout=0.2 * pace, max_backlog=2**26, window=2**26)
    async with another_process(limits, "waits") as (amp, process):
        assert await amp.started.get() == "x"
        asked = [amp.callRemote(Wait, name="back")]
        process.send_signal(signal.SIGSTOP)
        # With the limits that are the default, it would take up to 90 seconds.
        async with asyncio.timeout(15 + 0.3 * pace):
            while sending and amp.transport is not None:
                asked.append(amp.callRemote(Echo, data=bytes(10_000)))
                await asyncio.sleep(0.01)
            await amp.wait_closed()
        assert amp.gate("x").cancelled()
        for each in asked:
            with pytest.raises(ConnectionLost):
                await each
