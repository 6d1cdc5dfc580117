"""How conversations end: by the peer, by silence, and without losing what came before the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support import (
    Math,
    Notify,
    Patient,
    Sum,
    Switching,
    Wait,
    at_any_pace,
    connected,
    listening,
    raw_client,
    raw_pair,
    reach,
    turns,
)
from ways import WAYS, joined, reached, serving

from amp_asyncio import AMP, AmpBox, Command, ConnectionLost, Limits, StartTLS, parseString


def wait_box(name: bytes, tag: bytes) -> bytes:
    return AmpBox(_command=b"Wait", _ask=tag, name=name).serialize()


@asynccontextmanager
async def half_closed(
    limits: Limits, commands: bytes, way: str
) -> AsyncIterator[tuple[Patient, asyncio.StreamReader]]:
    """Yield a server that was sent `commands` and the end of the stream, and what the peer reads."""
    made: asyncio.Queue[Patient] = asyncio.Queue()

    def factory() -> Patient:
        amp = Patient()
        made.put_nowait(amp)
        return amp

    async with (
        serving(way, factory, limits=limits) as server,
        raw_client(server) as (reader, writer),
    ):
        writer.write(commands)
        writer.write_eof()
        amp = await made.get()
        yield amp, reader
        amp.abort()
        await amp.wait_closed()


# --- the peer has closed its side ---


@pytest.mark.parametrize("way", ["tcp", "unix"])
@at_any_pace
async def test_a_peer_that_sends_no_more_and_is_not_answered(
    way: str, caplog: pytest.LogCaptureFixture, pace: float
) -> None:
    async with half_closed(Limits(eof_timeout=0.1 * pace), wait_box(b"x", b"1"), way) as (amp, reader):
        assert await amp.started.get() == "x"
        async with asyncio.timeout(5 + pace):
            await amp.wait_closed()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        assert amp.gate("x").cancelled(), "the responder was cancelled"
        assert amp.finished == []
    assert f"nothing was answered for {0.1 * pace} seconds" in caplog.text


@pytest.mark.parametrize("way", ["tcp", "unix"])
@at_any_pace
async def test_a_peer_that_sends_no_more_and_is_answered_all_the_time(way: str, pace: float) -> None:
    """It has all the time that it takes, as long as no answer is late."""
    names = [b"%d" % number for number in range(8)]
    commands = b"".join(wait_box(name, name) for name in names)
    async with half_closed(Limits(eof_timeout=0.2 * pace), commands, way) as (amp, reader):
        loop = asyncio.get_running_loop()
        for _ in names:
            await amp.started.get()
        began = loop.time()
        answers = b""
        for name in names:
            late = loop.create_future()
            loop.call_later(0.05 * pace, late.set_result, None)
            await late
            amp.let(name.decode())
            answer = AmpBox(_answer=name, name=name).serialize()
            answers += await reader.readexactly(len(answer))
        assert [box[b"name"] for box in parseString(answers)] == names
        assert loop.time() - began > 0.2 * pace
        assert await reader.read() == b"", "and then it ends in order"
        await amp.wait_closed()


@pytest.mark.parametrize("way", ["tcp", "unix"])
async def test_a_peer_that_sends_no_more_may_wait_for_ever(way: str) -> None:
    async with half_closed(Limits(eof_timeout=None), wait_box(b"x", b"1"), way) as (amp, reader):
        await amp.started.get()
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, passed.set)
        await passed.wait()
        assert amp.transport is not None
        amp.let("x")
        assert parseString(await reader.read()) == [{b"_answer": b"1", b"name": b"x"}]


# The full hang-up of a UNIX socket is noticed by `transports/unix.py`.
@pytest.mark.parametrize("command", [b"", wait_box(b"x", b"1")], ids=["idle", "running"])
async def test_a_full_hang_up_of_a_unix_socket_ends_at_once(command: bytes) -> None:
    made: asyncio.Queue[Patient] = asyncio.Queue()

    def factory() -> Patient:
        amp = Patient()
        made.put_nowait(amp)
        return amp

    async with serving("unix", factory, limits=Limits(eof_timeout=None)) as server:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(server.sockets[0].getsockname())
        sock.sendall(command)
        amp = await made.get()
        if command:
            await amp.started.get()
        sock.close()
        try:
            async with asyncio.timeout(5):
                await turns()
                await amp.wait_closed()
            assert not command or amp.gate("x").cancelled()
        finally:
            amp.abort()
            await amp.wait_closed()


# --- silence ---


@at_any_pace
async def test_silence_ends_a_connection(caplog: pytest.LogCaptureFixture, pace: float) -> None:
    async with (
        listening(Patient, limits=Limits(idle_timeout=0.1 * pace)) as server,
        reach(server) as client,
    ):
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        async with asyncio.timeout(5 + pace):
            await client.wait_closed()
    assert f"no complete box has arrived for {0.1 * pace} seconds" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("asking", ["it", "its peer"])
@at_any_pace
async def test_no_silence_while_there_is_work(asking: str, pace: float) -> None:
    """Neither while a question of its own is open, nor while it runs a responder."""

    class Busy(Patient):
        limits = Limits(idle_timeout=0.1 * pace)

    async with connected(Busy, Patient) as (busy, peer):
        one, other = (busy, peer) if asking == "it" else (peer, busy)
        answer = one.callRemote(Wait, name="x")
        await other.started.get()
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.4 * pace, passed.set)
        await passed.wait()
        assert not answer.done()
        assert busy.transport is not None
        other.let("x")
        assert await answer == {"name": "x"}
        async with asyncio.timeout(5 + pace):
            await busy.wait_closed()  # There is silence now.


# --- nothing is lost ---


class Counter(Math):
    """Counts what it is told, and says when its connection is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    @Notify.responder
    async def notify(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.told.append(int(data))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["close", "finish_writing", "close, unread"])
async def test_commands_that_come_with_the_end_are_done(way: str, end: str) -> None:
    """A peer that tells 1,000 things, and closes in order, is heard."""
    async with joined(way, Counter) as (server, client):
        if end == "close, unread":
            server.transport.pause_reading()  # type: ignore[union-attr]
        for number in range(1000):
            client.callRemote(Notify, data=b"%d" % number)
        if end == "finish_writing":
            client.finish_writing()
            closing = asyncio.ensure_future(client.wait_closed())
        else:
            closing = asyncio.ensure_future(client.close(timeout=5))
        await turns()
        if end == "close, unread" and server.transport is not None:
            server.transport.resume_reading()
        async with asyncio.timeout(5):
            await closing
            await server.wait_closed()
            while len(server.told) < 1000 and len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)
        assert server.told == [*range(1000)]


@pytest.mark.parametrize("way", WAYS)
async def test_answers_that_come_with_the_end_are_given_out(way: str) -> None:
    """A server that closes in order when it has answered 300 questions: each answer arrives."""
    made: asyncio.Queue[Patient] = asyncio.Queue()

    def factory() -> Patient:
        amp = Patient()
        made.put_nowait(amp)
        return amp

    async with serving(way, factory) as server:
        client = await reached(way, server)
        amp = await made.get()
        answers = [client.callRemote(Wait, name=str(number)) for number in range(300)]
        for _ in answers:
            await amp.started.get()
        closing = asyncio.ensure_future(server.close(timeout=5))
        await turns()
        for number in range(300):
            amp.let(str(number))
        async with asyncio.timeout(5):
            assert [answer["name"] for answer in await asyncio.gather(*answers)] == [
                str(number) for number in range(300)
            ]
            await closing
            await client.wait_closed()


class Telling(AMP):
    """Answers in place, and closes when the last of 300 questions has come."""

    asked = 0

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        self.asked += 1
        if self.asked == 300:
            asyncio.get_running_loop().call_soon(self.finish_writing)
        return {"total": a + b}


@pytest.mark.parametrize("way", WAYS)
async def test_answers_in_one_piece_with_the_end_are_given_out(way: str) -> None:
    async with joined(way, Telling) as (server, client):
        answers = [client.callRemote(Sum, a=number, b=1) for number in range(300)]
        async with asyncio.timeout(5):
            totals = await asyncio.gather(*answers, return_exceptions=True)
            await server.wait_closed()
            await client.wait_closed()
        assert totals == [{"total": number + 1} for number in range(300)]
        with pytest.raises(ConnectionLost):
            await client.callRemote(Sum, a=1, b=1)
        last: Any = client.transport
        assert last is None


class OwnBox(AmpBox):
    """The answer of a command that might change the connection, as far as anybody knows."""


class Careful(Command):
    responseType = OwnBox


class CarefulCounter(Counter):
    """Answers `Careful` slowly."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    @Careful.responder
    async def careful(self) -> None:
        self.begun.set()
        await self.gate.wait()


@pytest.mark.parametrize("wanted", [b"1", None], ids=["asked", "told"])
@pytest.mark.parametrize("way", WAYS)
async def test_commands_that_come_with_the_end_after_one_of_another_kind(
    way: str, wanted: bytes | None
) -> None:
    """The bytes after that one wait for its answer, which the end does not overtake."""
    async with joined(way, CarefulCounter) as (server, client):
        careful = AmpBox(_command=b"Careful")
        if wanted:
            careful[b"_ask"] = wanted
        client.sendBox(careful)
        for number in range(300):
            client.callRemote(Notify, data=b"%d" % number)
        client.finish_writing()
        async with asyncio.timeout(5):
            await server.begun.wait()
            if way in ("tcp", "unix"):
                server.gate.set()  # The peer may still read the answer.
            await server.wait_closed()
            server.gate.set()
            while len(server.told) < 300 and len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)
        assert server.told == [*range(300)]


class Guarded(Switching):
    """Switches, or starts TLS, when the test lets it; counts what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes] = []
        self.gate = asyncio.Event()

    @Notify.responder
    def notify(self, data: bytes) -> None:
        self.told.append(data)

    @StartTLS.responder
    async def start_tls(self) -> dict[str, Any]:
        assert self.gate is not None
        self.asked.set()
        await self.gate.wait()
        return {}


@pytest.mark.parametrize("command", [b"StartTLS", b"SwitchTo"])
@pytest.mark.parametrize("before", [0, 200])
async def test_what_comes_with_the_end_after_a_change_is_not_taken_for_commands(
    command: bytes, before: int
) -> None:
    """They are bytes of TLS, or of another protocol, or somebody has added them on the way."""
    async with raw_pair(Guarded) as (amp, peer):
        change = AmpBox(_command=command, _ask=b"1", name=b"x")
        told = [AmpBox(_command=b"Notify", data=b"%d" % number) for number in range(before)]
        peer.send(*told, change, AmpBox(_command=b"Notify", data=b"added"))
        while not amp.asked.is_set() and not amp.told:
            await asyncio.sleep(0)
        amp.transport.abort()
        async with asyncio.timeout(5):
            await amp.wait_closed()
        amp.gate.set()
        await turns()
        assert amp.told == [b"%d" % number for number in range(before)]


class Silent(Counter):
    """Never answers `Wait`."""

    @Wait.responder
    async def wait(self, name: str) -> dict[str, str]:
        await asyncio.Event().wait()
        return {"name": name}


@pytest.mark.parametrize("way", WAYS)
async def test_what_waits_is_written_before_the_end(way: str) -> None:
    """For the window, and for the transport: a program that ends its side has said it all."""
    async with joined(way, Silent) as (server, client):
        questions = [client.callRemote(Wait, name=60_000 * "x") for _ in range(30)]
        for number in range(100):
            client.callRemote(Notify, data=b"%d" % number)
        client.finish_writing()
        async with asyncio.timeout(5):
            while len(server.told) < 100:
                await asyncio.sleep(0)
        assert server.told == [*range(100)]
        client.abort()
        for question in questions:
            with pytest.raises(ConnectionLost):
                await question


async def test_a_change_that_waits_is_not_written_before_the_end() -> None:
    """It holds back what comes after it until it is answered, which cannot be waited for."""
    async with raw_pair(window=200) as (amp, peer):
        questions = [amp.callRemote(Sum, a=1, b=1), amp.callRemote(Sum, a=2, b=1)]
        questions += [amp.callRemote(StartTLS), amp.callRemote(Sum, a=3, b=1)]
        amp.finish_writing()
        async with asyncio.timeout(5):
            await peer.until(lambda: "eof" in peer.events)
        assert [box.get(b"a") for box in peer.boxes()] == [b"1", b"2"]
    for question in questions:
        with pytest.raises(ConnectionLost):
            await question
