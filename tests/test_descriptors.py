"""Descriptors that a peer passes to do harm: that hold up whoever closes them, or that nobody wants."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import pytest_asyncio
from proc import open_descriptors
from support import Math, Patient, Sum, content, pipe_with, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    Argument,
    Command,
    CommandLocator,
    Descriptor,
    Integer,
    Limits,
    ListOf,
    PrivateCertificate,
    SimpleStringLocator,
    StartTLS,
    StreamCommand,
    String,
    parseString,
    unix_connect,
    unix_serve,
)
from amp_asyncio.commands.exchange import MOST_UNCLAIMED
from amp_asyncio.descriptors import in_background, pending

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks into /proc")

# How many seconds a socket lingers that is not closed as it should be.
LINGERING = 20


@pytest_asyncio.fixture(autouse=True)
async def no_descriptor_leaks() -> AsyncIterator[None]:
    gc.collect()
    before = open_descriptors()
    yield
    gc.collect()
    assert open_descriptors() == before


# Any file. (Those of /dev/null are not counted, and stdin may be one.)
FILE = os.open(__file__, os.O_RDONLY)


class Read(Command):
    """Is answered with what can be read from the descriptor."""

    arguments = [(b"file", Descriptor()), (b"number", Integer())]
    response = [(b"content", String())]


class Open(Command):
    """Is answered with a descriptor that `data` can be read from."""

    arguments = [(b"data", String())]
    response = [(b"file", Descriptor())]


class Rows(StreamCommand[int]):
    pass


class Files(Patient):
    @Read.responder
    def read(self, file: int, number: int) -> dict[str, bytes]:
        return {"content": content(file)}

    @Open.responder
    def open(self, data: bytes) -> dict[str, Any]:
        file = os.fdopen(pipe_with(data), "rb")
        asyncio.get_running_loop().call_soon(file.close)
        return {"file": file}


def ask(command: bytes, tag: bytes = b"1", **values: bytes) -> bytes:
    return AmpBox(_command=command, _ask=tag, **values).serialize()


async def answer(peer: socket.socket) -> AmpBox:
    data = b""
    while not data.endswith(b"\0\0"):
        data += await asyncio.to_thread(peer.recv, 65536)
    (box,) = parseString(data)
    return box


@asynccontextmanager
async def raw_peer(
    factory: Callable[[], Any] = Files, **limits: Any
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """Yield a connection of ours, and the blocking socket at the other end."""
    ours, peer = socket.socketpair()
    peer.settimeout(30)
    with peer:
        async with unix_connect(None, factory, limits=Limits(**limits), sock=ours) as amp:
            yield amp, peer
            peer.close()


@contextmanager
def lingering() -> Iterator[socket.socket]:
    """Yield a socket whose last close takes long, because of data that its peer does not take.

    The one that is yielded is not closed in the end.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGERING))
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(bytes(65536))
    yield sock
    other.close()


# --- what holds up whoever closes it ---


async def not_named(peer: socket.socket, amp: AMP, sock: socket.socket) -> None:
    """The connection ends, and no box has named it."""
    socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [sock.fileno()])
    sock.close()
    assert (await answer(peer))[b"total"] == b"2"
    peer.close()


async def not_read(peer: socket.socket, amp: AMP, sock: socket.socket) -> None:
    """The connection ends, and it is still in there."""
    assert amp.transport is not None
    amp.transport.pause_reading()
    socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [sock.fileno()])
    sock.close()
    amp.abort()


async def not_decoded(peer: socket.socket, amp: AMP, sock: socket.socket) -> None:
    """The box that names it is refused."""
    socket.send_fds(peer, [ask(b"Read", file=b"0", number=b"none")], [sock.fileno()])
    sock.close()
    assert b"_error_code" in await answer(peer)


async def too_many(peer: socket.socket, amp: AMP, sock: socket.socket) -> None:
    """It is one more than there may be."""
    for _ in range(4):
        socket.send_fds(peer, [b"\0"], [FILE] * (MOST_UNCLAIMED // 4))
    socket.send_fds(peer, [b"\1"], [sock.fileno()])
    sock.close()
    await amp.wait_closed()


async def not_sent(peer: socket.socket, amp: AMP, sock: socket.socket) -> None:
    """It is to be passed on, and the connection ends before that."""
    questions = [amp.callRemote(Sum, a=1, b=1), amp.callRemote(Read, file=sock, number=1)]
    sock.close()
    amp.abort()
    await asyncio.wait(questions)
    assert all(question.exception() for question in questions)


@pytest.mark.parametrize("how", [not_named, not_read, not_decoded, too_many, not_sent])
@pytest.mark.parametrize("factory", [Files, Math])
async def test_a_socket_that_lingers(
    how: Callable[[socket.socket, AMP, socket.socket], Any], factory: Callable[[], AMP]
) -> None:
    """Nobody waits for it, and it does not linger any more."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with raw_peer(factory) as (amp, peer):
        with lingering() as sock:
            await how(peer, amp, sock)
            amp.abort()
            await amp.wait_closed()
            await turns()
        open_descriptors()  # It waits until all are closed.
    assert loop.time() - began < LINGERING / 2


async def test_more_that_hold_up_than_there_are_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait, and are closed in the end; a peer that goes on has to leave."""
    gate = threading.Event()
    blocked = [threading.Event() for _ in range(8)]

    def block(started: threading.Event) -> None:
        started.set()
        gate.wait()

    async with raw_peer(Math) as (amp, peer):
        before = open_descriptors()
        try:
            for started in blocked:
                in_background(lambda started=started: block(started))
            for started in blocked:
                await asyncio.to_thread(started.wait)
            for _ in range(MOST_UNCLAIMED // 128):
                socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [FILE] * 128)
                await answer(peer)
            assert pending() == MOST_UNCLAIMED
            socket.send_fds(peer, [b"\0"], [FILE])
            await amp.wait_closed()
        finally:
            gate.set()
        assert open_descriptors() == before - 1
        assert pending() == 0


async def test_one_more_comes_when_a_thread_is_about_to_end() -> None:
    """The last of the threads found no work left, and others are held up: the job is done even so."""
    gate = threading.Event()
    blocked = [threading.Event() for _ in range(7)]
    late = [threading.Event() for _ in range(5)]
    left = iter(late)

    def block(started: threading.Event) -> None:
        started.set()
        gate.wait()

    def look(frame: FrameType, event: str, argument: object) -> None:
        # Each return from a function of the module is a moment at which another job may come.
        if event == "return" and frame.f_globals["__name__"] == in_background.__module__:
            for one_more in islice(left, 1):
                in_background(one_more.set)

    open_descriptors()  # It waits until all threads have ended.
    try:
        for started in blocked:
            in_background(lambda started=started: block(started))
        for started in blocked:
            await asyncio.to_thread(started.wait)
        threading.setprofile(look)
        in_background(lambda: None)
        for each in late:
            assert await asyncio.to_thread(each.wait, 10)
    finally:
        threading.setprofile(None)
        gate.set()


async def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the interpreter is about to end."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with raw_peer(Math) as (_, peer):
        before = open_descriptors()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [FILE])
            await turns()
            assert peer.recv(65536)
        assert open_descriptors() == before


SO_PASSRIGHTS = 83  # From Linux 6.16 on.


def kernel_refuses() -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            return bool(sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS))
        except OSError:
            return False


@pytest.mark.skipif(not kernel_refuses(), reason="the kernel cannot refuse descriptors")
async def test_over_tls_the_kernel_refuses_them(tmp_path: Path) -> None:
    """The transports of the event loops would drop them, and wait."""
    context = PrivateCertificate.self_signed("localhost").ssl_context(server_side=True)
    async with unix_serve(Math, tmp_path / "tls", ssl=context):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "tls"))
            with pytest.raises(PermissionError):
                socket.send_fds(peer, [b"x"], [FILE])
    async with unix_serve(Math, tmp_path / "amp"), unix_connect(tmp_path / "amp") as amp:
        await amp.callRemote(StartTLS)
        assert amp.transport is not None
        sock = amp.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 0
        assert await amp.callRemote(Sum, a=1, b=1) == {"total": 2}


# --- what nobody wants ---


class Finding(Math):
    """Finds its responders in a way of its own."""

    def locateResponder(self, name: bytes) -> Any:
        return super().locateResponder(name)


class ByName(Math):
    async def amp_READ(self, box: AmpBox) -> AmpBox:
        file = Descriptor().fromStringProto(box[b"file"], self)
        return AmpBox(content=content(file))


class Locator(CommandLocator):
    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


class FindingLocator(Locator):
    def locateResponder(self, name: bytes) -> Any:
        return super().locateResponder(name)


class NamedLocator(SimpleStringLocator):
    async def amp_SUM(self, box: AmpBox) -> AmpBox:
        return AmpBox(total=b"2")


class Overriding(Math):
    def ampBoxReceived(self, box: AmpBox) -> None:
        super().ampBoxReceived(box)


class OwnList(ListOf):
    def fromStringProto(self, inString: bytes, proto: Any) -> list[Any]:
        return super().fromStringProto(inString, proto)


def having(*given: Argument) -> type[Math]:
    """Return a class with a command that has these arguments."""

    class Having(Command):
        arguments = [(b"x%d" % number, argument) for number, argument in enumerate(given)]

    class Answering(Math):
        @Having.responder
        def have(self, **values: Any) -> None:
            """Take them."""

    return Answering


@pytest.mark.parametrize(
    ("factory", "keeps"),
    [
        (Math, False),
        (Files, True),
        (Finding, True),
        (ByName, True),
        (Overriding, True),
        (having(AmpList([(b"a", Integer()), (b"b", ListOf(Integer()))]), ListOf(Integer())), False),
        (having(Integer(), AmpList([(b"a", ListOf(Descriptor()))])), True),
        (having(ListOf(AmpList([(b"a", Descriptor())]))), True),
        (having(OwnList(Integer())), True),
        (lambda: AMP(locator=Locator()), False),
        (lambda: AMP(locator=FindingLocator()), True),
        (lambda: AMP(locator=NamedLocator()), True),
    ],
)
async def test_where_a_command_may_name_one(factory: Callable[[], AMP], keeps: bool) -> None:
    """Elsewhere, it is closed at once."""
    async with raw_peer(factory) as (_, peer):
        before = open_descriptors()
        socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [FILE])
        assert (await answer(peer))[b"total"] == b"2"
        assert open_descriptors() == before + keeps


@pytest.mark.parametrize("by_name", [False, True])
async def test_where_an_answer_may_name_one(by_name: bool) -> None:
    """Those that were closed before count all the same."""
    async with raw_peer(Math) as (amp, peer):
        socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [FILE])
        await answer(peer)
        ask_it = amp.callRemoteString if by_name else amp.callRemote
        asked = ask_it(b"Open" if by_name else Open, data=b"")
        mine = pipe_with(b"it")
        socket.send_fds(peer, [AmpBox(_answer=b"1", file=b"1").serialize()], [mine])
        os.close(mine)
        file = (await asked)["file" if not by_name else b"file"]
        file = Descriptor().fromStringProto(file, amp) if by_name else file
        assert content(file) == b"it"


async def test_where_a_stream_is_open() -> None:
    """Its items cannot name one, and its answer only if the definition says so."""
    async with raw_peer(Math) as (amp, peer), amp.stream(Rows()):
        assert (await answer(peer))[b"_command"] == b"Rows"
        before = open_descriptors()
        socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [FILE])
        assert (await answer(peer))[b"total"] == b"2"
        assert open_descriptors() == before


@pytest.mark.parametrize("factory", [Math, Files])
async def test_a_peer_that_passes_its_own_end(factory: Callable[[], AMP]) -> None:
    """The end of the stream comes all the same, when the peer is gone."""
    async with raw_peer(factory, descriptor_timeout=0.1) as (amp, peer):
        socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [peer.fileno()])
        peer.close()
        async with asyncio.timeout(5):
            await amp.wait_closed()


async def test_the_time_that_one_has(caplog: pytest.LogCaptureFixture) -> None:
    """It is closed when no box has named it, and the connection goes on."""
    async with raw_peer(descriptor_timeout=0.1) as (_, peer):
        caplog.set_level("INFO")
        before = open_descriptors()
        socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [FILE, FILE])
        await answer(peer)
        async with asyncio.timeout(5):
            while open_descriptors() > before:
                await asyncio.sleep(0.01)
        assert "descriptors that no box has named" in caplog.text
        mine = pipe_with(b"another")
        socket.send_fds(peer, [ask(b"Read", file=b"2", number=b"1")], [mine])
        os.close(mine)
        assert (await answer(peer))[b"content"] == b"another"
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, passed.set)
        await passed.wait()
        socket.send_fds(peer, [ask(b"Read", file=b"0", number=b"1")], [FILE])
        assert (await answer(peer))[b"_error_code"] == b"UNKNOWN"
        assert "4 descriptors have come, and 0 is not here" in caplog.text


@pytest.mark.parametrize("limit", [0.05, None])
async def test_time_in_which_its_box_waits_does_not_count(limit: float | None) -> None:
    expected = AmpBox(name=b"x", _answer=b"1").serialize()
    expected += AmpBox(content=b"still here", _answer=b"2").serialize()
    limits = {"descriptor_timeout": limit, "max_concurrent_responders": 1}
    async with raw_peer(**limits) as (amp, peer):
        peer.sendall(ask(b"Wait", name=b"x"))
        await amp.started.get()
        mine = pipe_with(b"still here")
        socket.send_fds(peer, [ask(b"Read", b"2", file=b"0", number=b"1")], [mine])
        os.close(mine)
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, passed.set)
        await passed.wait()
        amp.let("x")
        data = b""
        while len(data) < len(expected):
            data += await asyncio.to_thread(peer.recv, 65536)
        assert data == expected


async def test_a_peer_that_does_not_take_those_that_it_asked_for() -> None:
    """They wait in the peer's questions: a process has few descriptors."""
    async with raw_peer() as (amp, peer):
        before = open_descriptors()
        questions = b"".join(ask(b"Open", b"%x" % number, data=b"") for number in range(2000))
        sending = asyncio.ensure_future(asyncio.to_thread(peer.sendall, questions))
        most = 0
        while not sending.done() or amp.transport.get_unsent_descriptors() == 0:
            await asyncio.sleep(0)
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
        await turns()
        most = max(most, open_descriptors() - before)
        assert 0 < most < 300
        received = descriptors = 0
        while descriptors < 2000:
            data, files, _, _ = await asyncio.to_thread(socket.recv_fds, peer, 65536, 253)
            received += len(data)
            descriptors += len(files)
            for file in files:
                os.close(file)
