"""The transports in memory: what the conformance suite does not check, and every fault."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from fakes import BufferedRecorder, Recorder
from support import Math, Sum, turns

from amp_asyncio import AMP, ConnectionLost, PrivateCertificate, StartTLS
from amp_asyncio.transports.memory import Line, MemoryTransport, memory_pair


class Recorded(Recorder):
    """Keeps its side open at the end of what comes, and notes why it was lost."""

    error: Exception | None = None

    def eof_received(self) -> Any:
        super().eof_received()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        super().connection_lost(exc)


class Both:
    """Two recorders with a line each way."""

    def __init__(self, capacity: int = 64 * 1024) -> None:
        self.sender, self.receiver = Recorded(), Recorded()
        self.there, self.back = Line(capacity), Line(capacity)
        self.one, self.other = memory_pair(
            self.sender, self.receiver, lines=(self.there, self.back), extra=({"name": 1}, {"name": 2})
        )


@asynccontextmanager
async def both(capacity: int = 64 * 1024) -> AsyncIterator[Both]:
    ends = Both(capacity)
    await turns()
    try:
        yield ends
    finally:
        ends.one.abort()
        ends.other.abort()
        await ends.one.wait_closed()
        await ends.other.wait_closed()


# --- the transport ---


async def test_bytes_cross_in_later_turns() -> None:
    async with both() as ends:
        assert ends.sender.events == ends.receiver.events == ["made"]
        assert (ends.one.get_extra_info("name"), ends.other.get_extra_info("name")) == (1, 2)
        assert ends.one.get_extra_info("socket") is None
        ends.one.write(b"data")
        assert ends.there.busy
        assert ends.receiver.data == b""
        await asyncio.sleep(0)
        assert ends.receiver.data == b"data"
        assert ends.there.crossed == 4
        await turns()
        assert not ends.there.busy


async def test_a_reader_that_pauses_makes_the_writers_buffer_fill() -> None:
    async with both(capacity=10) as ends:
        ends.one.set_write_buffer_limits(high=5, low=2)
        ends.other.pause_reading()
        ends.one.write(b"0123456789" + b"abcde")
        await turns()
        assert ends.one.get_write_buffer_size() == 5
        assert ends.one.get_write_buffer_limits() == (2, 5)
        assert ends.sender.events == ["made"]
        ends.one.write(b"f")
        assert ends.sender.events == ["made", "pause"]
        ends.other.resume_reading()
        assert ends.receiver.data == b""
        await turns()
        assert ends.receiver.data == b"0123456789abcdef"
        assert ends.sender.events == ["made", "pause", "resume"]


async def test_the_limits_are_those_of_asyncio() -> None:
    async with both() as ends:
        assert ends.one.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        ends.one.set_write_buffer_limits(low=10)
        assert ends.one.get_write_buffer_limits() == (10, 40)
        ends.one.set_write_buffer_limits(high=0)
        assert ends.one.get_write_buffer_limits() == (0, 0)
        with pytest.raises(ValueError, match="high .1. must be >= low .2."):
            ends.one.set_write_buffer_limits(1, 2)


async def test_what_is_written_to_a_peer_that_is_gone_resets_the_connection() -> None:
    async with both() as ends:
        ends.other.write(b"the last")
        ends.other.close()
        await turns()
        assert ends.sender.data == b"the last"
        assert ends.sender.events == ["made", "eof"]
        ends.one.write(b"into nothing")
        await turns()
        assert isinstance(ends.sender.error, ConnectionResetError)


async def test_writing_again_to_a_peer_that_is_gone() -> None:
    async with both() as ends:
        ends.one.pause_reading()
        ends.other.write(b"unread")
        ends.other.close()
        await turns()
        ends.one.write(b"into nothing")
        await turns()
        assert not ends.one.is_closing()
        ends.one.write(b"and again")
        await turns()
        assert isinstance(ends.sender.error, BrokenPipeError)


async def test_what_waits_for_a_peer_that_closes_is_refused() -> None:
    async with both(capacity=10) as ends:
        ends.other.pause_reading()
        ends.one.write(b"x" * 100)
        ends.other.close()
        await turns()
        assert isinstance(ends.sender.error, BrokenPipeError)
        assert ends.one.get_write_buffer_size() == 0


async def test_aborted_before_it_begins() -> None:
    sender, receiver = Recorded(), Recorded()
    one, other = memory_pair(sender, receiver)
    one.abort()
    assert one.is_closing()
    await one.wait_closed()
    await turns()
    assert sender.events == ["made", "lost"]
    assert receiver.events == ["made", "eof"]
    other.close()
    await other.wait_closed()


@pytest.mark.parametrize("buffer", [None, b"", bytearray()])
async def test_a_buffer_that_is_none(buffer: Any) -> None:
    """An empty buffer is an error, and so is an exception."""

    class Empty(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> Any:
            if buffer is None:
                raise LookupError("no buffer")
            return buffer

    told: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    receiver = Empty()
    one, other = memory_pair(Recorder(), receiver)
    one.write(b"data")
    await other.wait_closed()
    assert isinstance(told[0], LookupError if buffer is None else RuntimeError)
    await one.wait_closed()


async def test_a_buffer_that_is_asked_for_as_it_closes() -> None:
    class Closing(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> bytearray:
            self.transport.close()
            return super().get_buffer(sizehint)

    receiver = Closing()
    one, other = memory_pair(Recorder(), receiver)
    one.write(b"data")
    await other.wait_closed()
    await one.wait_closed()
    assert receiver.events == ["made", "lost"]
    assert receiver.data == b""


async def test_a_protocol_that_raises_as_it_begins() -> None:
    class Raising(Recorded):
        def connection_made(self, transport: Any) -> None:
            raise LookupError("not today")

    told: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    sender, receiver = Raising(), Recorder()
    one, other = memory_pair(sender, receiver)
    await one.wait_closed()
    await other.wait_closed()
    assert told == [sender.error]
    assert isinstance(sender.error, LookupError)


async def test_it_says_what_it_is() -> None:
    async with both(capacity=3) as ends:
        ends.other.pause_reading()
        ends.one.write(b"12345")
        assert repr(ends.one) == "<MemoryTransport open bufsize=2>"
        ends.one.close()
        ends.one.write(b"nowhere")
        assert repr(ends.one) == "<MemoryTransport closing bufsize=2>"
        ends.one.write_eof()
        ends.one.abort()
        assert repr(ends.one) == "<MemoryTransport ending bufsize=0>"
        await ends.one.wait_closed()
        assert repr(ends.one) == "<MemoryTransport lost bufsize=0>"


@pytest.mark.parametrize("seed", range(30))
async def test_no_byte_is_lost_whatever_happens_on_the_way(seed: int) -> None:
    chance = random.Random(seed)
    sender = Recorded()
    receiver = chance.choice([Recorded, BufferedRecorder])()
    there = Line(chance.randint(1, 50))
    one, other = memory_pair(sender, receiver, lines=(there, Line()))
    one.set_write_buffer_limits(high=chance.randint(0, 100))
    sent = b""
    for step in range(200):
        what = chance.randrange(8)
        if what < 3 and (sender.events[-1:] != ["pause"] or what == 0):
            data = bytes([step % 256]) * chance.randint(1, 40)
            one.write(data)
            sent += data
        elif what == 3:
            other.pause_reading()
        elif what == 4:
            other.resume_reading()
        elif what == 5:
            chance.choice([there.drip, there.stall])(after=chance.randint(0, 30))
        elif what == 6:
            there.resume()
        else:
            await asyncio.sleep(0)
        assert sent.startswith(receiver.data)
    one.close()
    other.resume_reading()
    while "lost" not in receiver.events and "eof" not in receiver.events:
        there.resume()
        await asyncio.sleep(0)
    other.close()
    await other.wait_closed()
    await one.wait_closed()
    assert receiver.data == sent
    flow = [event for event in sender.events if event in ("pause", "resume")]
    assert flow == (["pause", "resume"] * len(flow))[: len(flow)]


# --- AMP and TLS over it ---


async def test_amp_talks_over_it() -> None:
    server, client = Math(), AMP()
    memory_pair(server, client)
    await asyncio.sleep(0)
    assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
    await client.close()
    await server.wait_closed()


async def test_tls_is_started_where_the_loop_can() -> None:
    certificate = PrivateCertificate.self_signed("server.example")

    class Secure(Math):
        @StartTLS.responder
        def secure(self) -> dict[str, Any]:
            return {"tls_localCertificate": certificate}

    server, client = Secure(), AMP()
    there, back = Line(), Line()
    there.drip(100)
    memory_pair(server, client, lines=(there, back))
    await asyncio.sleep(0)
    starting = client.callRemote(StartTLS, tls_verifyAuthorities=[certificate.certificate])
    if isinstance(asyncio.get_running_loop(), uvloop.Loop):
        with pytest.raises(ConnectionLost, match="MemoryTransport.* is not supported by start_tls"):
            await starting
    else:
        await starting
        assert client.peerCertificate == certificate.certificate
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
    await client.close()
    await server.wait_closed()


# --- faults ---


async def test_cut() -> None:
    async with both() as ends:
        ends.there.cut(after=4)
        ends.one.write(b"0123456")
        await turns()
        assert ends.receiver.data == b"0123"
        assert ends.receiver.events == ["made", "eof"]
        assert str(ends.sender.error) == "cut by a fault after 4 bytes"
        assert isinstance(ends.sender.error, ConnectionAbortedError)
        ends.other.write(b"anybody there?")
        await turns()
        assert isinstance(ends.receiver.error, ConnectionResetError)


async def test_cut_at_the_last_byte_that_was_written() -> None:
    async with both() as ends:
        ends.there.cut(after=4)
        ends.one.write(b"0123")
        await turns()
        assert ends.sender.events == ["made", "lost"]


async def test_cut_while_it_is_stalled() -> None:
    async with both() as ends:
        ends.there.stall(after=4)
        ends.one.write(b"0123456")
        await ends.there.stopped()
        ends.there.cut()
        await turns()
        assert ends.receiver.data == b"0123"
        assert ends.receiver.events == ["made", "eof"]


async def test_reset() -> None:
    async with both() as ends:
        ends.there.reset(after=4)
        ends.one.write(b"0123456")
        await turns()
        assert ends.receiver.data == b"0123"
        for end in (ends.sender, ends.receiver):
            assert end.events == ["made", "lost"]
            assert isinstance(end.error, ConnectionResetError)


async def test_eof() -> None:
    async with both() as ends:
        ends.there.eof(after=4)
        ends.one.write(b"0123456")
        await turns()
        ends.one.write(b"789")
        await turns()
        assert ends.receiver.data == b"0123"
        assert ends.receiver.events == ["made", "eof"]
        ends.other.write(b"still here")
        await turns()
        assert ends.sender.data == b"still here"


async def test_eof_takes_what_is_written_after_it() -> None:
    async with both(capacity=10) as ends:
        ends.other.pause_reading()
        ends.one.set_write_buffer_limits(high=0)
        ends.one.write(b"x" * 100)
        ends.there.eof()
        await turns()
        assert ends.one.get_write_buffer_size() == 0
        assert ends.sender.events == ["made", "pause", "resume"]


async def test_stall() -> None:
    async with both(capacity=10) as ends:
        ends.there.stall(after=4)
        ends.one.set_write_buffer_limits(high=0)
        ends.one.write(b"0123456789" * 2)
        ends.one.write_eof()
        await turns()
        assert ends.receiver.data == b"0123"
        assert ends.sender.events == ["made", "pause"]
        ends.there.resume()
        await turns()
        assert ends.receiver.data == b"0123456789" * 2
        assert ends.receiver.events == ["made", "eof"]
        assert ends.sender.events == ["made", "pause", "resume"]


async def test_stalled_at_once() -> None:
    async with both() as ends:
        ends.there.stall()
        ends.one.write(b"data")
        ends.one.close()
        await ends.one.wait_closed()
        await turns()
        assert ends.receiver.data == b""
        assert ends.receiver.events == ["made"]


async def test_delay() -> None:
    async with both() as ends:
        ends.there.delay(0.001, after=2)
        ends.one.write(b"0123")
        await turns()
        await ends.receiver.until(lambda: ends.receiver.data == b"0123")


async def test_delays_end_early() -> None:
    async with both() as ends:
        for _ in range(2):
            ends.there.delay(1_000)
        ends.one.write(b"0123")
        await turns()
        assert ends.receiver.data == b""
        ends.there.resume()
        await turns()
        assert ends.receiver.data == b"0123"
        ends.there.delay(1_000)


async def test_drip() -> None:
    async with both() as ends:
        ends.there.drip(2, after=3)
        ends.one.write(b"0123456789abcdef")
        seen = []
        while ends.there.busy:
            seen.append(ends.receiver.data)
            await asyncio.sleep(0)
            if len(ends.receiver.data) > 6:
                break
        ends.there.resume()
        await turns()
        assert seen == [b"", b"012", b"01234"]
        assert ends.receiver.data == b"0123456789abcdef"
        assert ends.there.crossed == 16


async def test_faults_happen_in_the_order_of_their_bytes() -> None:
    async with both() as ends:
        ends.there.cut(after=5)
        ends.there.stall(after=2)
        ends.one.write(b"0123456789")
        await turns()
        assert ends.receiver.data == b"01"
        ends.there.resume()
        await turns()
        assert ends.receiver.data == b"01234"
        assert ends.receiver.events == ["made", "eof"]


async def test_a_fault_that_comes_later_counts_from_then() -> None:
    async with both() as ends:
        ends.one.write(b"0123")
        await turns()
        ends.there.cut(after=2)
        await turns()
        assert not ends.one.is_closing()
        ends.one.write(b"4567")
        await turns()
        assert ends.receiver.data == b"012345"


async def test_no_fault_happens_when_the_receiver_is_gone() -> None:
    async with both() as ends:
        ends.other.abort()
        await turns()
        ends.there.reset()
        await turns()
        assert ends.sender.events == ["made", "eof"]


async def test_a_fault_at_the_byte_at_which_the_receiver_aborts() -> None:
    async with both() as ends:
        ends.there.stall(after=2)
        ends.there.reset(after=2)
        ends.receiver.data_received = lambda data: ends.other.abort()  # type: ignore[method-assign]
        ends.one.write(b"0123")
        await turns()
        assert isinstance(ends.sender.error, ConnectionResetError)


async def test_mistakes() -> None:
    line = Line()
    with pytest.raises(ValueError, match="not after -1"):
        line.cut(after=-1)
    with pytest.raises(ValueError, match="not 0"):
        line.drip(0)
    with pytest.raises(ValueError, match="not 0"):
        Line(0)
    async with both() as ends:
        with pytest.raises(RuntimeError, match="has been used"):
            memory_pair(Recorder(), Recorder(), lines=(ends.there, Line()))
        await turns()


async def test_a_pair_is_made_of_memory_transports() -> None:
    async with both() as ends:
        assert isinstance(ends.one, MemoryTransport)
        assert ends.sender.transport is ends.one


@pytest.mark.parametrize("method", ["data_received", "pause_writing"])
def test_an_exit_ends_the_loop(method: str) -> None:
    class Exiting(Recorder):
        def data_received(self, data: bytes) -> None:
            raise SystemExit

        def pause_writing(self) -> None:
            raise SystemExit

    async def main() -> None:
        one, other = memory_pair(Exiting(), Exiting(), lines=(Line(1), Line()))
        if method == "pause_writing":
            other.pause_reading()
            one.set_write_buffer_limits(high=1)
        one.write(bytes(10))
        await other.wait_closed()

    with pytest.raises(SystemExit):
        asyncio.run(main())
