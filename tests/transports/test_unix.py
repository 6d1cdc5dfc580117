"""The transport that carries descriptors: asyncio's whole contract, and what comes along with bytes."""

from __future__ import annotations

import array
import asyncio
import errno
import fcntl
import gc
import os
import select
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from proc import open_descriptors
from support import content, pipe_with

from amp_asyncio.transports.adoption import connect_unix, native_transport
from amp_asyncio.transports.hangup import HangUp
from amp_asyncio.transports.listening import Listener
from amp_asyncio.transports.unix import DescriptorTransport

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks into /proc")


@pytest_asyncio.fixture(autouse=True)
async def no_descriptor_leaks() -> AsyncIterator[None]:
    gc.collect()
    before = open_descriptors()
    yield
    gc.collect()
    assert open_descriptors() == before


class Recorder(asyncio.Protocol):
    """Notes what is called, and lets a test wait until something was."""

    keep_open = False

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.descriptors: list[int] = []
        self.error: BaseException | None = None
        self.changed = asyncio.Event()
        self.transport: Any = None

    def note(self, call: str) -> None:
        self.calls.append(call)
        self.changed.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.note("connection_made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.note("data_received")

    def descriptor_received(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)
        self.note(f"descriptor_received behind {len(self.data)}")

    def eof_received(self) -> bool:
        self.note("eof_received")
        return self.keep_open

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        self.note("connection_lost")

    @property
    def lost(self) -> bool:
        return "connection_lost" in self.calls


class Buffering(asyncio.BufferedProtocol):
    """Notes the same, read into a buffer of its own, which is a small one."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.buffer = bytearray(5)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.recorder.data_received(bytes(self.buffer[:nbytes]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recorder, name)

    def eof_received(self) -> bool:
        return self.recorder.eof_received()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.recorder.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.recorder.connection_lost(exc)


@asynccontextmanager
async def transport_and_peer(
    protocol: asyncio.BaseProtocol, *, small: bool = False
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """Yield a transport of ours, and the blocking socket at the other end."""
    ours, peer = socket.socketpair()
    if small:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    transport = DescriptorTransport(loop, ours, protocol, waiter)
    await waiter
    with peer:
        peer.settimeout(30)
        yield transport, peer
    transport.abort()
    while ours.fileno() != -1:
        await asyncio.sleep(0)


def send_with(peer: socket.socket, data: bytes, *descriptors: int) -> None:
    """Send descriptors along with data, and close them."""
    try:
        socket.send_fds(peer, [data], list(descriptors))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def receive_all(peer: socket.socket, size: int) -> list[tuple[int, int]]:
    """Receive so many bytes, one by one; return the descriptors, each with the place of its byte."""
    found = []
    for position in range(size):
        data, ancillary, flags, _ = peer.recvmsg(1, socket.CMSG_SPACE(4 * 10))
        assert data
        assert not flags & socket.MSG_CTRUNC
        for _, _, rights in ancillary:
            descriptors = array.array("i")
            descriptors.frombytes(rights)
            found += [(position, descriptor) for descriptor in descriptors]
    return found


# --- reading ---


async def test_it_starts_in_the_next_turn_and_knows_its_names(tmp_path: Path) -> None:
    recorder = Recorder()
    ours, peer = socket.socketpair()
    transport = DescriptorTransport(asyncio.get_running_loop(), ours, recorder)
    assert recorder.calls == []
    peer.send(b"early")
    await recorder.until(lambda: recorder.data)
    assert recorder.calls == ["connection_made", "data_received"]
    assert recorder.transport is transport
    assert transport.get_protocol() is recorder
    assert transport.get_extra_info("socket").fileno() == ours.fileno()
    assert transport.get_extra_info("sockname") == transport.get_extra_info("peername") == ""
    assert transport.get_extra_info("sslcontext") is None
    assert transport.get_extra_info("nothing", 7) == 7
    assert "open" in repr(transport)
    transport.close()
    assert "closing" in repr(transport)
    await recorder.until(lambda: recorder.lost)
    assert "closed" in repr(transport)
    peer.close()


async def test_aborted_before_it_started() -> None:
    recorder = Recorder()
    ours, peer = socket.socketpair()
    with peer:
        transport = DescriptorTransport(asyncio.get_running_loop(), ours, recorder)
        transport.resume_reading()
        transport.abort()
        transport.close()
        await recorder.until(lambda: recorder.lost)
        assert recorder.calls == ["connection_made", "connection_lost"]
        assert recorder.error is None


async def test_a_waiter_that_was_cancelled() -> None:
    recorder = Recorder()
    ours, peer = socket.socketpair()
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    transport = DescriptorTransport(loop, ours, recorder, waiter)
    waiter.cancel()
    with peer:
        await recorder.until(lambda: recorder.transport)
        transport.abort()
        await recorder.until(lambda: recorder.lost)


@pytest.mark.parametrize("buffered", [False, True])
async def test_reading_pauses_and_resumes(buffered: bool) -> None:
    recorder = Recorder()
    protocol = Buffering(recorder) if buffered else recorder
    async with transport_and_peer(protocol) as (transport, peer):
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        peer.send(b"while it was paused")
        for _ in range(5):
            await asyncio.sleep(0)
        assert recorder.data == b""
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        await recorder.until(lambda: recorder.data == b"while it was paused")
        peer.close()
        await recorder.until(lambda: recorder.lost)
        assert recorder.calls[-2:] == ["eof_received", "connection_lost"]
        assert not transport.is_reading()


async def test_a_protocol_may_keep_its_side_open() -> None:
    recorder = Recorder()
    recorder.keep_open = True
    async with transport_and_peer(recorder) as (transport, peer):
        peer.shutdown(socket.SHUT_WR)
        await recorder.until(lambda: "eof_received" in recorder.calls)
        transport.pause_reading()
        transport.resume_reading()  # There is nothing more to read, and it is not tried.
        transport.write(b"still here")
        assert peer.recv(100) == b"still here"
        assert not transport.is_closing()


@pytest.mark.parametrize("buffered", [False, True])
async def test_descriptors_come_before_their_data(buffered: bool) -> None:
    recorder = Recorder()
    protocol = Buffering(recorder) if buffered else recorder
    async with transport_and_peer(protocol) as (_, peer):
        peer.send(b"none")
        await recorder.until(lambda: recorder.data == b"none")
        send_with(peer, b"several", *(pipe_with(b"%d" % n) for n in range(3)))
        await recorder.until(lambda: recorder.data == b"noneseveral")
        assert recorder.calls[2:5] == ["descriptor_received behind 4"] * 3
        assert not any(os.get_inheritable(descriptor) for descriptor in recorder.descriptors)
        assert [content(descriptor) for descriptor in recorder.descriptors] == [b"0", b"1", b"2"]


async def test_where_the_kernel_cannot_say_that_nobody_inherits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # (A private name: it is set when the module is imported, from what this kernel can do.)
    monkeypatch.setattr("amp_asyncio.transports.rights._CLOSE_ON_EXEC", 0)
    recorder = Recorder()
    async with transport_and_peer(recorder) as (_, peer):
        send_with(peer, b"x", pipe_with(b""))
        await recorder.until(lambda: recorder.data)
        assert not os.get_inheritable(recorder.descriptors[0])
        os.close(recorder.descriptors[0])


async def test_a_protocol_that_wants_no_descriptors() -> None:
    class Plain(asyncio.Protocol):
        def __init__(self) -> None:
            self.received = asyncio.get_running_loop().create_future()

        def data_received(self, data: bytes) -> None:
            self.received.set_result(data)

    plain = Plain()
    async with transport_and_peer(plain) as (transport, peer):
        before = open_descriptors()
        send_with(peer, b"x", pipe_with(b""), pipe_with(b""))
        assert await plain.received == b"x"
        assert open_descriptors() == before
        # The next has the method.
        recorder = Recorder()
        transport.set_protocol(recorder)
        send_with(peer, b"y", pipe_with(b"here"))
        await recorder.until(lambda: recorder.data)
        assert content(recorder.descriptors[0]) == b"here"


async def test_a_protocol_that_closes_or_fails_at_a_descriptor() -> None:
    class Closing(Recorder):
        def descriptor_received(self, descriptor: int) -> None:
            super().descriptor_received(descriptor)
            os.close(descriptor)
            self.transport.close()

    closing = Closing()
    async with transport_and_peer(closing) as (_, peer):
        send_with(peer, b"x", pipe_with(b""), pipe_with(b""))
        await closing.until(lambda: closing.lost)
        assert closing.calls[1:] == ["descriptor_received behind 0", "connection_lost"]


async def test_descriptors_that_there_is_no_room_for() -> None:
    """They would be counted wrongly from there on, so that is the end."""
    import resource

    recorder = Recorder()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with transport_and_peer(recorder) as (_, peer):
        mine = [pipe_with(b"") for _ in range(3)]
        free = os.dup(0)
        os.close(free)
        socket.send_fds(peer, [b"x"], mine)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        try:
            await recorder.until(lambda: recorder.lost)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert isinstance(recorder.error, OSError)
        assert recorder.error.errno == errno.EMFILE
        assert recorder.descriptors == []
        for descriptor in mine:
            os.close(descriptor)


@pytest.mark.parametrize(
    "method", ["connection_made", "data_received", "eof_received", "descriptor_received"]
)
@pytest.mark.parametrize("error", [LookupError("no"), BrokenPipeError("no")], ids=repr)
async def test_a_protocol_that_raises(method: str, error: Exception) -> None:
    """It is told of the end, and the loop of the error, but for one of the network."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    recorder = Recorder()

    def fail(*arguments: Any) -> None:
        if method == "descriptor_received":
            os.close(arguments[0])
        raise error

    setattr(recorder, method, fail)
    async with transport_and_peer(recorder) as (_, peer):
        with suppress(BrokenPipeError):  # It may be closed before anything comes.
            send_with(peer, b"x", pipe_with(b""))
            peer.shutdown(socket.SHUT_WR)
        await recorder.until(lambda: recorder.lost)
        assert recorder.error is error
        assert [context["exception"] for context in complaints] == [error] * (
            type(error) is LookupError
        )
    for descriptor in recorder.descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("method", ["get_buffer", "buffer_updated"])
async def test_a_buffered_protocol_that_raises(method: str) -> None:
    recorder = Recorder()
    buffering = Buffering(recorder)

    def fail(*arguments: Any) -> None:
        raise OSError("no")

    setattr(buffering, method, fail)
    async with transport_and_peer(buffering) as (_, peer):
        peer.send(b"x")
        await recorder.until(lambda: recorder.lost)
        assert str(recorder.error) == "no"


async def test_an_empty_buffer_is_an_error() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    recorder = Recorder()
    buffering = Buffering(recorder)
    buffering.buffer = bytearray()
    async with transport_and_peer(buffering) as (_, peer):
        peer.send(b"x")
        await recorder.until(lambda: recorder.lost)
        assert str(recorder.error) == "get_buffer() returned an empty buffer"
    assert len(complaints) == 1


class HeldLoop:
    """The running loop, but for what it is to call: a test does that."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.soon: list[Callable[[], Any]] = []
        self.reader: Any = None

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        self.soon.append(partial(callback, *arguments))

    def add_reader(self, descriptor: int, callback: Callable[[], Any]) -> None:
        self.reader = callback

    def remove_reader(self, descriptor: int) -> None:
        self.reader = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)


@pytest.mark.parametrize("method", ["connection_made", "data_received", "pause_writing"])
async def test_an_exit_is_nobodys_to_catch(method: str) -> None:
    """It goes through the transport to the loop, which asyncio ends with it."""
    recorder = Recorder()
    loop: Any = HeldLoop()
    ours, peer = socket.socketpair()
    with peer:
        transport = DescriptorTransport(loop, ours, recorder)

        def exit_now(*arguments: Any) -> None:
            raise SystemExit

        if method != "connection_made":
            loop.soon.pop()()
        setattr(recorder, method, exit_now)
        peer.send(b"x")
        with pytest.raises(SystemExit):
            if method == "connection_made":
                loop.soon.pop()()
            elif method == "data_received":
                loop.reader()
            else:
                transport.write(bytes(1_000_000))
        transport.abort()
        loop.soon.pop()()
        assert recorder.lost


async def test_a_loop_that_is_wrong_about_what_there_is_to_read() -> None:
    recorder = Recorder()
    loop: Any = HeldLoop()
    ours, peer = socket.socketpair()
    with peer:
        transport = DescriptorTransport(loop, ours, recorder)
        loop.soon.pop()()
        loop.reader()
        peer.send(b"x")
        loop.reader()
        assert recorder.data == b"x"
        transport.abort()
        loop.soon.pop()()
    assert recorder.calls == ["connection_made", "data_received", "connection_lost"]


async def test_what_else_comes_along_is_left_alone() -> None:
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        send_with(peer, b"x", pipe_with(b"one"))
        await recorder.until(lambda: recorder.data == b"x")
        assert [content(descriptor) for descriptor in recorder.descriptors] == [b"one"]


async def test_a_reset_connection() -> None:
    """An error of the network reaches the protocol."""
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        transport.pause_reading()
        transport.write(b"never read")
        peer.close()  # Linux says ECONNRESET where the peer left something unread.
        transport.resume_reading()
        await recorder.until(lambda: recorder.lost)
        assert isinstance(recorder.error, ConnectionResetError)


# --- writing ---


async def test_what_is_written() -> None:
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        mutable = bytearray(b"mutable ")
        transport.write(mutable)
        mutable[:] = b"changed "
        transport.write(memoryview(b"and not "))
        transport.write(b"")
        transport.writelines([b"in ", b"", bytearray(b"pieces")])
        transport.writelines([])
        assert peer.recv(100) == b"mutable and not in pieces"
        with pytest.raises(TypeError, match="bytes-like, not 'str'"):
            transport.write("text")


async def test_flow_control() -> None:
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        data = os.urandom(3_000_000)
        transport.writelines([data[:10], data[10:]])
        assert recorder.calls == ["connection_made", "pause_writing"]
        transport.write(b"more")
        left = transport.get_write_buffer_size()
        assert 2_000_000 < left < 3_000_000
        reading = asyncio.to_thread(lambda: b"".join(iter(lambda: peer.recv(65536), b"")))
        receiving = asyncio.ensure_future(reading)
        await recorder.until(lambda: "resume_writing" in recorder.calls)
        transport.write_eof()
        transport.write_eof()
        assert await receiving == data + b"more"
        assert transport.get_write_buffer_size() == 0
        assert transport.can_write_eof()
        for write in (transport.write, transport.writelines):
            with pytest.raises(RuntimeError, match="after write_eof"):
                write([b"x"] if write == transport.writelines else b"x")
        descriptor = pipe_with(b"")
        with pytest.raises(RuntimeError, match="after write_eof"):
            transport.send_descriptor(descriptor)
        open_descriptors()  # It waits until it is closed.
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_limits_of_the_write_buffer() -> None:
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, _):
        transport.set_write_buffer_limits(low=100)
        assert transport.get_write_buffer_limits() == (100, 400)
        transport.set_write_buffer_limits(high=100)
        assert transport.get_write_buffer_limits() == (25, 100)
        with pytest.raises(ValueError, match="must be >= low"):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.set_write_buffer_limits(high=10_000_000)
        transport.write(bytes(1_000_000))
        assert "pause_writing" not in recorder.calls
        transport.set_write_buffer_limits(0)
        assert "pause_writing" in recorder.calls


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
async def test_flow_control_that_fails_is_reported_and_goes_on(method: str) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    recorder = Recorder()
    setattr(recorder, method, lambda: 1 / 0)
    async with transport_and_peer(recorder) as (transport, peer):
        transport.write(bytes(1_000_000))
        transport.close()
        received = await asyncio.to_thread(lambda: b"".join(iter(lambda: peer.recv(65536), b"")))
        assert len(received) == 1_000_000
        await recorder.until(lambda: recorder.lost)
        assert recorder.error is None
    assert [context["message"] for context in complaints] == [f"protocol.{method}() failed"]


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_closing_writes_what_waits_and_aborting_does_not(end: str) -> None:
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        transport.write(bytes(1_000_000))
        getattr(transport, end)()
        assert transport.is_closing()
        transport.write_eof()
        transport.write(b"the end")
        received = await asyncio.to_thread(lambda: b"".join(iter(lambda: peer.recv(65536), b"")))
        assert received.endswith(b"the end") is (end == "close")
        await recorder.until(lambda: recorder.lost)
        assert recorder.error is None
        transport.close()
        transport.abort()
        transport.write(b"nowhere")
        transport.send_descriptor(pipe_with(b""))


@pytest.mark.parametrize("end", ["close", "abort", "write_eof"])
async def test_ending_when_there_is_room_again(end: str) -> None:
    """It ends once, also where the protocol ends it while it is told."""
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        transport.set_write_buffer_limits(0)
        recorder.resume_writing = getattr(transport, end)  # type: ignore[method-assign]
        transport.write(bytes(1_000_000))
        received = await asyncio.to_thread(lambda: b"".join(iter(lambda: peer.recv(65536), b"")))
        assert len(received) == 1_000_000
        peer.close()
        await recorder.until(lambda: recorder.lost)
        assert recorder.error is None


@pytest.mark.parametrize("waiting", [False, True])
async def test_writing_to_a_peer_that_is_gone(waiting: bool) -> None:
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        transport.pause_reading()
        if waiting:
            transport.write(bytes(1_000_000))
        transport.send_descriptor(pipe_with(b""))
        peer.close()
        transport.write(b"x")
        await recorder.until(lambda: recorder.lost)
        assert isinstance(recorder.error, BrokenPipeError | ConnectionResetError)


async def test_descriptors_ride_at_their_place() -> None:
    async with transport_and_peer(Recorder()) as (transport, peer):
        transport.send_descriptor(pipe_with(b"0"))
        transport.send_descriptor(pipe_with(b"1"))
        transport.write(b"abc")
        transport.write(b"def")
        transport.send_descriptor(pipe_with(b"2"))
        transport.writelines([b"g", b"h"])
        transport.send_descriptor(pipe_with(b"never"))
        found = receive_all(peer, 8)
        assert [(position, content(fd)) for position, fd in found] == [(0, b"0"), (1, b"1"), (6, b"2")]
        transport.write_eof()
        assert peer.recvmsg(1, 1000)[:2] == (b"", [])


async def test_descriptors_behind_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where others want the loop in between, and the end waits behind them all."""
    # (A private name: a thousand descriptors would have to be on their way to reach its value.)
    monkeypatch.setattr("amp_asyncio.transports.rights._PIECES", 2)
    recorder = Recorder()
    async with transport_and_peer(recorder, small=True) as (transport, peer):
        positions = []
        for number in range(20):
            transport.write(bytes(4000))
            positions.append((4000 * (number + 1) + number, b"%d" % number))
            transport.send_descriptor(pipe_with(b"%d" % number))
            transport.write(b"x")
        transport.write_eof()
        found = await asyncio.to_thread(receive_all, peer, 20 * 4001)
        assert await asyncio.to_thread(peer.recv, 1) == b""
        assert [(position, content(descriptor)) for position, descriptor in found] == positions


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_descriptors_that_wait_are_closed_at_the_end(end: str) -> None:
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        transport.write(bytes(1_000_000))
        transport.send_descriptor(pipe_with(b""))
        getattr(transport, end)()
        peer.close()
        await recorder.until(lambda: recorder.lost)


async def test_a_transport_that_is_forgotten_says_so() -> None:
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    recorder = Recorder()
    transport = DescriptorTransport(loop, ours, recorder)
    await recorder.until(lambda: recorder.transport)
    transport.pause_reading()
    transport.send_descriptor(pipe_with(b""))
    recorder.transport = None
    recorder = None  # type: ignore[assignment]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport
        gc.collect()
    assert ["unclosed transport" in str(warning.message) for warning in caught] == [True]
    assert ours.fileno() == -1
    peer.close()


# --- TLS ---


async def test_the_loop_does_not_start_tls_on_it() -> None:
    context = ssl.create_default_context()
    async with transport_and_peer(Recorder()) as (transport, _):
        with pytest.raises(TypeError, match="is not supported by start_tls"):
            await asyncio.get_running_loop().start_tls(transport, Recorder(), context)
        assert not transport.is_closing()


async def test_over_to_a_transport_of_the_loop() -> None:
    """What the peer has sent meanwhile is there, on either loop."""
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        transport.pause_reading()
        peer.send(b"while it is on its way")
        native, early = await native_transport(transport)
        assert not native.is_reading()
        assert native.get_protocol() is recorder
        recorder.data = early
        native.resume_reading()
        await recorder.until(lambda: recorder.data == b"while it is on its way")
        native.write(b"back")
        assert peer.recv(100) == b"back"
        assert not recorder.lost
        native.close()
        await recorder.until(lambda: recorder.lost)


async def test_closed_on_its_way_to_a_transport_of_the_loop() -> None:
    recorder = Recorder()
    async with transport_and_peer(recorder) as (transport, peer):
        transport.pause_reading()
        going = asyncio.ensure_future(native_transport(transport))
        await asyncio.sleep(0)
        transport.abort()
        with pytest.raises(ConnectionAbortedError):
            await going
        assert recorder.lost
        assert peer.recv(1) == b""


# --- connecting and accepting ---


async def test_connecting(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        with pytest.raises(ConnectionRefusedError):
            await connect_unix(Recorder, path)
        listener.listen()
        recorder = await connect_unix(Recorder, path)
        assert recorder.transport.get_extra_info("peername") == path
        peer, _ = listener.accept()
        with peer:
            peer.send(b"hello")
            await recorder.until(lambda: recorder.data == b"hello")
            recorder.transport.close()
            await recorder.until(lambda: recorder.lost)
    with pytest.raises(FileNotFoundError):
        await connect_unix(Recorder, str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="either a path or a sock"):
        await connect_unix(Recorder)
    with socket.socket() as other, pytest.raises(ValueError, match="a UNIX stream socket is needed"):
        await connect_unix(Recorder, sock=other)
    with socket.socket(socket.AF_UNIX) as unconnected, pytest.raises(OSError, match="not connected"):
        await connect_unix(Recorder, sock=unconnected)


async def test_connecting_and_cancelled() -> None:
    ours, peer = socket.socketpair()
    with peer:
        connecting = asyncio.ensure_future(connect_unix(Recorder, sock=ours))
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert await asyncio.get_running_loop().run_in_executor(None, peer.recv, 1) == b""


async def test_accepting_loses_nothing(tmp_path: Path) -> None:
    """Bytes and descriptors may be there before the connection is accepted."""
    path = str(tmp_path / "socket")
    accepted: asyncio.Queue[Recorder] = asyncio.Queue()

    loop = asyncio.get_running_loop()

    def take(sock: socket.socket) -> None:
        accepted.put_nowait(Recorder())
        DescriptorTransport(loop, sock, accepted._queue[-1])  # type: ignore[attr-defined]

    bound = await loop.create_unix_server(asyncio.Protocol, path, start_serving=False)
    listener = Listener(bound, 100, take)
    listener.listen()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        send_with(peer, b"ear", pipe_with(b"first"))
        send_with(peer, b"ly", pipe_with(b"second"))
        recorder = await accepted.get()
        await recorder.until(lambda: recorder.data == b"early")
        assert [content(descriptor) for descriptor in recorder.descriptors] == [b"first", b"second"]
        flags = fcntl.fcntl(recorder.transport.get_extra_info("socket").fileno(), fcntl.F_GETFD)
        assert flags & fcntl.FD_CLOEXEC
        recorder.transport.close()
        await recorder.until(lambda: recorder.lost)
    listener.close()


async def test_without_epoll_a_hang_up_is_not_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(select, "epoll")
    one, other = socket.socketpair()
    with one, other, pytest.raises(OSError, match="does not support epoll"):
        HangUp(asyncio.get_running_loop(), one.fileno(), lambda: None)
