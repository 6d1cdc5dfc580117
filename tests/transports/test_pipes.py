"""The transport over two pipes: everything that a transport does, at each of its ends."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import FileIO
from typing import Any

import pytest
from fakes import BufferedRecorder, Notes, Recorder
from support import Echo, Math, Sum, Switching, SwitchTo, turns

from amp_asyncio import AMP, ConnectionLost, StartTLS, UnhandledCommand
from amp_asyncio.transports.pipes import PipeTransport, unbroken

MUCH = 300_000


class Holder:
    """Holds back each end until it is let go, as a child process does."""

    def __init__(self) -> None:
        self.held: list[Callable[[], None]] = []
        self.holding = asyncio.Event()

    def __call__(self, go_on: Callable[[], None]) -> None:
        self.held.append(go_on)
        self.holding.set()

    def let_go(self) -> None:
        while self.held:
            self.held.pop(0)()


class Recorded(Recorder):
    """Keeps the connection open at the end of what comes, where that is said."""

    keep_open = True
    error: Exception | None = None

    def eof_received(self) -> Any:
        super().eof_received()
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        super().connection_lost(exc)

    async def lost(self) -> None:
        await self.until(lambda: "lost" in self.events)


@asynccontextmanager
async def piped(
    protocol: Any, at_end: Callable[[Callable[[], None]], None] | None = None
) -> AsyncIterator[tuple[PipeTransport, FileIO, FileIO]]:
    """Connect a protocol; yield its transport, and the other ends: to write to, and to read from."""
    read, other_write = os.pipe()
    other_read, write = os.pipe()
    with FileIO(other_write, "wb") as writes, FileIO(other_read, "rb") as reads:
        transport = PipeTransport(
            protocol, FileIO(read), FileIO(write, "wb"), {"peername": "x"}, at_end
        )
        await transport.connect()
        try:
            yield transport, writes, reads
        finally:
            transport.abort()
            transport.release()
            await turns()


async def rest(reads: FileIO) -> bytes:
    """Wait for all that is written until the end."""
    return await asyncio.to_thread(reads.readall)


@asynccontextmanager
async def conversation(ours: Any, theirs: Any) -> AsyncIterator[tuple[PipeTransport, PipeTransport]]:
    """Connect two protocols with each other."""
    our_read, their_write = os.pipe()
    their_read, our_write = os.pipe()
    our = PipeTransport(ours, FileIO(our_read), FileIO(our_write, "wb"), {})
    their = PipeTransport(theirs, FileIO(their_read), FileIO(their_write, "wb"), {})
    await our.connect()
    await their.connect()
    try:
        yield our, their
    finally:
        our.abort()
        their.abort()
        await turns()


# --- reading ---


@pytest.mark.parametrize("recorder", [Recorder, BufferedRecorder])
async def test_gives_what_comes(recorder: type[Notes]) -> None:
    protocol = recorder()
    async with piped(protocol) as (transport, writes, _):
        assert protocol.events == ["made"]
        assert protocol.transport is transport
        assert transport.get_extra_info("pipe")[0].readable()
        assert transport.get_extra_info("peername") == "x"
        assert repr(transport) == "<PipeTransport open>"
        writes.write(b"some data")
        await protocol.until(lambda: protocol.data == b"some data")


async def test_pauses_and_resumes() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, writes, _):
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        writes.write(b"later")
        await turns()
        assert protocol.data == b""
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        await protocol.until(lambda: protocol.data == b"later")


async def test_paused_as_soon_as_it_is_connected() -> None:
    class Paused(Recorded):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    read, write = os.pipe()
    os.write(write, b"early")
    _, end = os.pipe()
    protocol = Paused()
    with FileIO(write, "wb"), FileIO(_):
        transport = PipeTransport(protocol, FileIO(read), FileIO(end, "wb"), {})
        await transport.connect()
        await turns()
        assert protocol.data == b""
        transport.resume_reading()
        await protocol.until(lambda: protocol.data == b"early")
        transport.abort()
        await turns()


async def test_the_end_of_what_comes_closes_unless_the_protocol_keeps_it_open() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, writes, reads):
        writes.close()
        await protocol.until(lambda: "eof" in protocol.events)
        transport.pause_reading()
        transport.resume_reading()
        transport.write(b"still here")
        assert reads.read(100) == b"still here"
        assert not transport.is_closing()
        transport.close()
        await protocol.lost()
        assert protocol.error is None
        assert await rest(reads) == b""

    protocol = Recorded()
    protocol.keep_open = False
    async with piped(protocol) as (transport, writes, reads):
        writes.close()
        await protocol.lost()
        assert await rest(reads) == b""
        assert protocol.events == ["made", "eof", "lost"]


@pytest.mark.parametrize("where", ["data_received", "eof_received"])
async def test_a_protocol_that_raises_is_lost(where: str) -> None:
    protocol = Recorded()
    told: list[dict[str, Any]] = []

    def fail(*data: bytes) -> None:
        raise LookupError("not mine")

    setattr(protocol, where, fail)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context))
    async with piped(protocol) as (_, writes, _):
        writes.write(b"data")
        writes.close()
        await protocol.lost()
    assert isinstance(protocol.error, LookupError)
    assert [context["exception"] for context in told] == [protocol.error]


# --- writing ---


async def test_writes_all_that_is_written_and_says_when_it_is_too_much() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, _, reads):
        transport.set_write_buffer_limits(high=1000, low=100)
        assert transport.get_write_buffer_limits() == (100, 1000)
        assert transport.get_write_buffer_size() == 0
        transport.writelines([b"x" * MUCH, bytearray(b"y"), memoryview(b"z")])
        await protocol.until(lambda: "pause" in protocol.events)
        assert transport.get_write_buffer_size() > 0
        transport.close()
        assert transport.is_closing()
        assert repr(transport) == "<PipeTransport closing>"
        assert await rest(reads) == b"x" * MUCH + b"yz"
        await protocol.lost()
        assert repr(transport) == "<PipeTransport lost>"
        assert transport.get_write_buffer_limits() == (0, 0)
        assert transport.get_write_buffer_size() == 0
        transport.set_write_buffer_limits(high=1)
        transport.close()
        transport.write(b"nowhere")
    assert protocol.events.count("lost") == 1
    assert protocol.error is None


async def test_says_when_there_is_room_again() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, _, reads):
        transport.write(b"x" * MUCH)
        await protocol.until(lambda: "pause" in protocol.events)
        reading = asyncio.to_thread(lambda: [reads.read(65536) for _ in range(4)])
        got = await reading
        await protocol.until(lambda: "resume" in protocol.events)
        transport.close()
        got.append(await rest(reads))
        assert sum(map(len, got)) == MUCH
        await protocol.lost()


async def test_closes_one_side_alone() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, writes, reads):
        assert transport.can_write_eof()
        transport.write(b"the last")
        transport.write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            transport.write(b"more")
        assert await rest(reads) == b"the last"
        writes.write(b"and yours")
        await protocol.until(lambda: protocol.data == b"and yours")
        writes.close()
        await protocol.until(lambda: "eof" in protocol.events)
        transport.close()
        await protocol.lost()
    assert protocol.error is None


async def test_writing_what_is_no_bytes_is_an_error() -> None:
    async with piped(Recorded()) as (transport, _, _):
        with pytest.raises(TypeError, match="bytes-like, not str"):
            transport.write("text")  # type: ignore[arg-type]


# --- ending ---


async def test_abort_does_not_wait() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, _, reads):
        transport.write(b"x" * MUCH)
        transport.abort()
        transport.abort()
        await protocol.lost()
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()
        assert len(await rest(reads)) < MUCH
    assert protocol.events.count("lost") == 1


async def test_what_comes_behind_close_is_thrown_away() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, writes, reads):
        transport.pause_reading()
        transport.write(b"x" * MUCH)
        transport.close()
        await asyncio.to_thread(writes.write, b"y" * 60_000)
        assert len(await rest(reads)) == MUCH
        await protocol.lost()
    assert protocol.data == b""


async def test_what_was_written_before_the_other_side_went_is_read() -> None:
    protocol = Recorded()
    async with piped(protocol) as (_, writes, reads):
        writes.write(b"x" * 60_000)
        reads.close()
        writes.close()
        await protocol.lost()
    assert len(protocol.data) == 60_000
    assert isinstance(protocol.error, BrokenPipeError)


async def test_a_broken_pipe_is_the_end_though_the_other_is_open() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, writes, reads):
        writes.write(b"the last")
        reads.close()
        transport.write(b"into it")
        await protocol.lost()
    assert protocol.data == b"the last"
    assert isinstance(protocol.error, BrokenPipeError)


async def test_a_broken_pipe_is_the_end_though_reading_is_paused() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, writes, reads):
        transport.pause_reading()
        writes.write(b"unread")
        reads.close()
        await protocol.lost()
    assert protocol.data == b""


async def test_a_pipe_that_breaks_behind_the_last_byte_is_what_ended_it() -> None:
    protocol = Recorded()
    async with piped(protocol) as (transport, writes, reads):
        transport.write(b"x" * MUCH)
        transport.write_eof()
        reads.close()
        writes.close()
        await protocol.until(lambda: "eof" in protocol.events)
        transport.close()
        await protocol.lost()
    assert isinstance(protocol.error, BrokenPipeError)


async def test_a_pipe_that_cannot_be_read() -> None:
    """A socket in place of the pipe: its peer can make reading fail."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        read, _ = listener.accept()
    other, end = os.pipe()
    protocol = Recorded()
    # (asyncio says it in the log of the loop, too.)
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    with FileIO(other):
        transport = PipeTransport(protocol, FileIO(read.detach()), FileIO(end, "wb"), {})
        await transport.connect()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await protocol.lost()
    assert isinstance(protocol.error, ConnectionResetError)
    assert all(context["exception"] is protocol.error for context in told)


async def test_broken_before_it_is_connected() -> None:
    read, write = os.pipe()
    other, end = os.pipe()
    os.close(write)
    os.close(other)
    protocol = Recorded()
    await PipeTransport(protocol, FileIO(read), FileIO(end, "wb"), {}).connect()
    await protocol.lost()
    assert protocol.events[0] == "made"


async def test_cancelled_and_aborted_before_it_is_connected() -> None:
    for cancel in (True, False):
        read, write = os.pipe()
        other, end = os.pipe()
        protocol = Recorded()
        with FileIO(write, "wb") as writes, FileIO(other) as reads:
            transport = PipeTransport(protocol, FileIO(read), FileIO(end, "wb"), {})
            if cancel:
                connecting = asyncio.ensure_future(transport.connect())
                await asyncio.sleep(0)
                connecting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await connecting
            else:
                transport.abort()
            await turns()
            assert await rest(reads) == b""
            with pytest.raises(BrokenPipeError):
                writes.write(b"x")
        assert set(protocol.events) <= {"made", "lost"}


async def test_aborted_while_it_is_connected() -> None:
    read, write = os.pipe()
    other, end = os.pipe()
    protocol = Recorded()
    with FileIO(write, "wb"), FileIO(other) as reads:
        transport = PipeTransport(protocol, FileIO(read), FileIO(end, "wb"), {})
        connecting = asyncio.ensure_future(transport.connect())
        await asyncio.sleep(0)
        transport.abort()
        await connecting
        await turns()
        assert await rest(reads) == b""
    assert protocol.events == []


async def test_aborted_as_soon_as_it_is_connected() -> None:
    class Short(Recorded):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.abort()

    protocol = Short()
    async with piped(protocol) as (_, writes, reads):
        await protocol.lost()
        assert await rest(reads) == b""
        with pytest.raises(BrokenPipeError):
            writes.write(b"x")


async def test_unbroken_is_cancelled_at_its_end() -> None:
    gate = asyncio.Event()
    done = []

    async def work(fails: bool) -> None:
        await gate.wait()
        done.append(fails)
        if fails:
            raise LookupError

    for fails in (False, True):
        gate.clear()
        working = asyncio.ensure_future(unbroken(work(fails)))
        for _ in range(3):
            await asyncio.sleep(0)
            working.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert done == [False, True]
    with pytest.raises(LookupError):
        await unbroken(work(True))


# --- an end that is held back ---


async def test_an_end_is_told_when_it_is_known_why() -> None:
    holder, protocol = Holder(), Recorded()
    async with piped(protocol, holder) as (transport, writes, reads):
        writes.write(b"the last")
        writes.close()
        reads.close()
        await protocol.until(lambda: protocol.data == b"the last")
        await holder.holding.wait()
        await turns()
        assert "eof" not in protocol.events
        holder.let_go()
        await turns()
        holder.let_go()
        await turns()
        # It has heard everything, and may still do what it has to do.
        assert protocol.events == ["made", "eof"]
        transport.write_eof()
        transport.end(LookupError("too late to be of interest"))
        transport.close()
        await protocol.lost()


async def test_a_broken_pipe_waits_until_reading_goes_on() -> None:
    holder, protocol = Holder(), Recorded()
    async with piped(protocol, holder) as (transport, writes, reads):
        transport.pause_reading()
        writes.write(b"the last")
        reads.close()
        await holder.holding.wait()
        holder.let_go()
        await turns()
        assert protocol.events == ["made"]
        transport.resume_reading()
        await protocol.lost()
        assert protocol.data == b"the last"
        assert isinstance(protocol.error, BrokenPipeError)
        holder.let_go()


async def test_closed_while_an_end_is_held_back() -> None:
    holder, protocol = Holder(), Recorded()
    async with piped(protocol, holder) as (transport, writes, _):
        writes.close()
        await holder.holding.wait()
        transport.close()
        holder.let_go()
        await protocol.lost()
    assert "eof" not in protocol.events


async def test_ended_with_a_reason() -> None:
    holder, protocol = Holder(), Recorded()
    async with piped(protocol, holder) as (transport, _, _):
        transport.end(LookupError("it is gone"))
        await protocol.lost()
        holder.let_go()
    assert str(protocol.error) == "it is gone"


async def test_the_other_side_may_write_after_we_have_closed() -> None:
    holder, protocol = Holder(), Recorded()
    async with piped(protocol, holder) as (transport, writes, reads):
        transport.close()
        await protocol.lost()
        assert await rest(reads) == b""
        await asyncio.to_thread(writes.write, b"x" * MUCH)
        transport.release()
        await turns()
        with pytest.raises(BrokenPipeError):
            writes.write(b"y")
    assert protocol.data == b""


# --- AMP over it ---


async def test_amp() -> None:
    ours, theirs = AMP(), Math()
    async with conversation(ours, theirs):
        assert await ours.callRemote(Sum, a=13, b=81) == {"total": 94}
        answers = [ours.callRemote(Echo, data=b"x" * 60_000) for _ in range(50)]
        await ours.close()
        assert all([len((await answer)["data"]) == 60_000 for answer in answers])
        await theirs.wait_closed()


async def test_peers_of_ours_that_close_at_once_and_that_abort() -> None:
    ours, theirs = AMP(), Math()
    async with conversation(ours, theirs):
        await asyncio.gather(ours.close(), theirs.close())
    ours, theirs = AMP(), Math()
    async with conversation(ours, theirs):
        asked = ours.callRemote(Sum, a=1, b=1)
        theirs.abort()
        with pytest.raises(ConnectionLost):
            await asked
        await ours.wait_closed()


@pytest.mark.parametrize("recorder", [Recorder, BufferedRecorder])
async def test_switching(recorder: Any) -> None:
    ours, theirs = AMP(), Switching(recorder)
    async with conversation(ours, theirs) as (our, their):
        await ours.callRemote(SwitchTo, recorder, name="x")
        inner: Any = ours.innerProtocol
        our.write(b"to them")
        await theirs.inner.until(lambda: theirs.inner.data == b"to them")
        their.write(b"to us")
        await inner.until(lambda: inner.data == b"to us")
        assert our.get_protocol() is inner
        our.close()
        await inner.until(lambda: "lost" in inner.events)
        await theirs.inner.until(lambda: "lost" in theirs.inner.events)


async def test_there_is_no_tls() -> None:
    ours, theirs = AMP(), Math()
    async with conversation(ours, theirs) as (our, _):
        with pytest.raises(TypeError, match="over pipes"):
            ours.callRemote(StartTLS)
        with pytest.raises(TypeError, match="PipeTransport"):
            context = ssl.create_default_context()
            await asyncio.get_running_loop().start_tls(our, ours, context)
        with pytest.raises(UnhandledCommand, match="TLS cannot be started over pipes"):
            await ours.callRemoteString(b"StartTLS")
        assert await ours.callRemote(Sum, a=13, b=81) == {"total": 94}


@pytest.mark.parametrize("method", ["data_received", "eof_received"])
def test_an_exit_ends_the_loop(method: str) -> None:
    def exit_now(*data: bytes) -> None:
        raise SystemExit

    async def main() -> None:
        protocol = Recorded()
        setattr(protocol, method, exit_now)
        async with piped(protocol) as (_, writes, _):
            writes.write(b"data")
            writes.close()
            await protocol.lost()

    with pytest.raises(SystemExit):
        asyncio.run(main())
