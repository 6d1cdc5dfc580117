"""Descriptors as arguments: what is sent, who gets it, and that nothing is left open."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fakes import plain
from proc import open_descriptors
from support import Math, Sum, connected, content, pipe_with, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    Argument,
    Command,
    ConnectionLost,
    Descriptor,
    Integer,
    InvalidSignature,
    Limits,
    ListOf,
    MalformedAmpBox,
    ProtocolSwitchCommand,
    ProtocolSwitched,
    StartTLS,
    String,
    TooLong,
    UnhandledCommand,
    UnknownRemoteError,
    parseString,
    unix_connect,
    unix_serve,
)
from amp_asyncio.commands.exchange import MOST_UNCLAIMED

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks into /proc")


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

    arguments = [(b"file", Descriptor()), (b"size", Integer(optional=True))]
    response = [(b"content", String())]


class ReadAll(Command):
    arguments = [
        (b"list", ListOf(Descriptor())),
        (b"named", AmpList([(b"name", String()), (b"file", Descriptor(optional=True))])),
    ]
    response = [(b"contents", ListOf(String()))]


class Open(Command):
    """Is answered with a descriptor that `data` can be read from; or with what does not encode."""

    arguments = [(b"data", String())]
    response = [(b"file", Descriptor()), (b"number", Integer())]


class Wait(Command):
    """Is answered as `Open`, when the test says so."""

    response = [(b"file", Descriptor())]


class Unheard(Command):
    arguments = [(b"file", Descriptor()), (b"data", String(optional=True))]


class Quietly(Command):
    """Has a descriptor in an answer that nobody wants."""

    response = [(b"file", Descriptor())]
    requiresAnswer = False


def opened(data: bytes) -> Any:
    """Return a file that `data` can be read from; it is closed when it was put into the answer."""
    file = os.fdopen(pipe_with(data), "rb")
    asyncio.get_running_loop().call_soon(file.close)
    return file


class Files(Math):
    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started = asyncio.Event()

    @Read.responder
    def read(self, file: int, size: int | None) -> dict[str, Any]:
        assert not os.get_inheritable(file)
        return {"content": content(file)}

    @ReadAll.responder
    async def read_all(self, List: list[int] | None = None, **other: Any) -> dict[str, Any]:
        named = [item["file"] for item in other["named"]]
        return {"contents": [b"none" if fd is None else content(fd) for fd in other["list"] + named]}

    @Open.responder
    async def open(self, data: bytes) -> dict[str, Any]:
        return {"file": opened(data), "number": "no number" if data == b"spoilt" else 1}

    @Wait.responder
    async def wait(self) -> dict[str, Any]:
        self.started.set()
        await self.answer
        return {"file": opened(b"at last").fileno()}

    @Quietly.responder
    def quietly(self) -> dict[str, Any]:
        return {"file": opened(b"")}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.answer.done():
            self.answer.set_result(None)


@asynccontextmanager
async def pair(
    server: Callable[[], Any] = Files, client: Callable[[], Any] = AMP, **options: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """Yield both ends of a connection over a UNIX socket."""
    async with connected(server, client, unix=True, **options) as ends:
        yield ends


@asynccontextmanager
async def raw_peer(
    factory: Callable[[], Any] = Files, **options: Any
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """Yield a connection of ours, and the blocking socket at the other end."""
    ours, peer = socket.socketpair()
    peer.settimeout(30)
    with peer:
        async with unix_connect(None, factory, sock=ours, **options) as amp:
            yield amp, peer
            peer.close()


async def read(amp: AMP, data: bytes, command: type[Command] = Read, **more: Any) -> bytes:
    """Send a descriptor that `data` can be read from, and return what the peer has read."""
    with os.fdopen(pipe_with(data), "rb") as file:
        asked = amp.callRemote(command, file=file, **more)
    answer: bytes = (await asked)["content"]
    return answer


def ask(command: bytes, tag: bytes = b"1", **values: bytes) -> bytes:
    return AmpBox(_command=command, _ask=tag, **values).serialize()


async def answers(peer: socket.socket, count: int) -> list[AmpBox]:
    data = b""
    while len(boxes := parseString(data) if data.endswith(b"\0\0") else []) < count:
        data += await asyncio.to_thread(peer.recv, 65536)
    return boxes


# --- there and back ---


async def test_as_an_argument() -> None:
    async with pair() as (_, amp):
        assert await read(amp, b"first") == b"first"
        assert await amp.callRemote(Sum, a=1, b=2) == {"total": 3}
        descriptor = pipe_with(b"second")
        asked = amp.callRemote(Read, file=descriptor)
        os.close(descriptor)
        assert await asked == {"content": b"second"}


async def test_in_an_answer() -> None:
    async with pair() as (_, amp):
        for data in (b"first", b"second"):
            answer = await amp.callRemote(Open, data=data)
            assert not os.get_inheritable(answer["file"])
            assert content(answer["file"]) == data


async def test_several_in_one_box() -> None:
    async with pair() as (_, amp):
        files = [pipe_with(b"%d" % number) for number in range(4)]
        asked = amp.callRemote(
            ReadAll,
            list=files[:2],
            named=[{"name": b"a", "file": files[2]}, {"name": b"b"}, {"name": b"c", "file": files[3]}],
        )
        for file in files:
            os.close(file)
        assert await asked == {"contents": [b"0", b"1", b"2", b"none", b"3"]}


async def test_interleaved_in_both_directions() -> None:
    """Many at once, more than may wait for their boxes: each leaves with its own."""
    count = MOST_UNCLAIMED + 100
    async with pair(client=Files) as (server, client):
        files = [pipe_with(b"%d" % number) for number in range(10)]
        asked: list[Any] = []
        for number in range(count):
            for amp in (server, client):
                asked.append(amp.callRemote(ReadAll, list=files[:1] if number else files, named=[]))
                asked.append(amp.callRemote(Sum, a=number, b=1))
                asked.append(amp.callRemote(Open, data=b"%d" % number)) if number % 100 == 0 else None
        for answer in asked:
            if "file" in (values := await answer):
                os.close(values["file"])
        for file in files:
            os.close(file)


class Narrow(Files):
    limits = Limits(max_concurrent_responders=1)


async def test_more_that_wait_than_may_be_unclaimed() -> None:
    """Reading pauses, and all of them are read in the end."""
    async with pair(Narrow) as (server, client):
        waiting = client.callRemote(Wait)
        await server.started.wait()
        with os.fdopen(pipe_with(b""), "rb") as file:
            reading = [client.callRemote(Read, file=file) for _ in range(MOST_UNCLAIMED + 100)]
        async with asyncio.timeout(10):
            stopped = 0  # It also stops for a turn of the loop.
            while stopped < 10:
                await asyncio.sleep(0)
                stopped = 0 if server.transport.is_reading() else stopped + 1
            server.answer.set_result(None)
            assert content((await waiting)["file"]) == b"at last"
            for answer in reading:
                assert await answer == {"content": b""}


async def test_our_own_questions_hold_no_command_up() -> None:
    """The peer does not take their descriptors: it may be waiting for us to take its own."""
    async with raw_peer() as (amp, peer):
        amp.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with os.fdopen(pipe_with(b""), "rb") as file:
            asked = [amp.callRemote(Read, file=file) for _ in range(300)]
        await turns()
        assert amp.transport.get_unsent_descriptors() > 100
        peer.sendall(ask(b"Wait"))
        async with asyncio.timeout(5):
            await amp.started.wait()
        for question in asked:
            question.cancel()


@pytest.mark.parametrize("count", [5, 40, 300])
async def test_behind_the_window(count: int) -> None:
    """Questions that wait keep their descriptors; answers with others are sent meanwhile."""
    async with pair(client=Files, limits=Limits(window=1)) as (server, client):
        waiting = client.callRemote(Wait)
        reading = [asyncio.ensure_future(read(client, b"%d" % n)) for n in range(count)]
        await asyncio.sleep(0)
        opened = await server.callRemote(Open, data=b"meanwhile")
        assert content(opened["file"]) == b"meanwhile"
        await server.started.wait()
        server.answer.set_result(None)
        assert content((await waiting)["file"]) == b"at last"
        assert await asyncio.gather(*reading) == [b"%d" % n for n in range(count)]


async def test_many_in_turn() -> None:
    async with pair() as (_, amp):
        before = open_descriptors()
        with os.fdopen(pipe_with(b""), "rb") as file:
            for _ in range(2_000):
                assert await amp.callRemote(Read, file=file) == {"content": b""}
        assert open_descriptors() == before


async def test_on_a_box_level_too() -> None:
    """The ordinals count from 0 in each direction; the descriptor comes with the first byte."""
    async with raw_peer() as (amp, peer):
        mine = pipe_with(b"from the peer")
        socket.send_fds(peer, [ask(b"Read", file=b"0")], [mine])
        os.close(mine)
        assert await answers(peer, 1) == [AmpBox(_answer=b"1", content=b"from the peer")]
        asked = asyncio.ensure_future(read(amp, b"from us"))
        data, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, peer, 65536, 10)
        assert data == b"\0"
        assert [content(descriptor) for descriptor in descriptors] == [b"from us"]
        assert await answers(peer, 0) == []
        data += await asyncio.to_thread(peer.recv, 65536)
        assert plain(parseString(data)) == [AmpBox(_ask=b"1", _command=b"Read", file=b"0")]
        peer.send(AmpBox(_answer=b"1", content=b"read").serialize())
        assert await asked == b"read"


# --- what cannot be sent ---


class Spoiling(Argument):
    def toString(self, inObject: Any) -> bytes:
        raise LookupError("spoilt")


class ReadSpoilt(Read):
    commandName = b"Read"
    arguments = [(b"file", Descriptor()), (b"other", Spoiling(optional=True))]


@pytest.mark.parametrize(
    ("command", "arguments", "error"),
    [
        (ReadSpoilt, {"other": 1}, LookupError),
        (Unheard, {"data": bytes(65536)}, TooLong),
        (Read, {"unknown": 1}, InvalidSignature),
    ],
)
async def test_nothing_is_sent_where_another_argument_fails(
    command: type[Command], arguments: Any, error: type[Exception]
) -> None:
    async with pair() as (_, amp):
        await read(amp, b"before")
        before = open_descriptors()
        with os.fdopen(pipe_with(b""), "rb") as file:
            with pytest.raises(error):
                amp.callRemote(command, file=file, **arguments)
        assert open_descriptors() == before
        assert await read(amp, b"behind") == b"behind"


@pytest.mark.parametrize(
    ("file", "error", "text"),
    [
        (-1, ValueError, "-1 is not an open descriptor"),
        (10**6, ValueError, "1000000 is not an open descriptor"),
        ("file", TypeError, "a Descriptor is an int, or has a fileno"),
        (None, TypeError, "a Descriptor is an int, or has a fileno"),
    ],
)
async def test_what_is_no_descriptor(file: Any, error: type[Exception], text: str) -> None:
    async with pair() as (_, amp):
        with pytest.raises(error, match=text):
            amp.callRemote(Read, file=file)
        with pytest.raises(error, match=text):
            amp.callRemote(ReadAll, list=[FILE, FILE, file], named=[])
        assert await read(amp, b"behind") == b"behind"


async def test_none_left_to_duplicate_with() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with pair() as (_, amp):
        with os.fdopen(pipe_with(b"file"), "rb") as file:
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            try:
                with pytest.raises(OSError, match="Too many open files"):
                    amp.callRemote(Read, file=file)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await amp.callRemote(Read, file=file) == {"content": b"file"}


@pytest.mark.parametrize("over", ["tcp", "a UNIX transport of the loop"])
async def test_a_transport_that_carries_none(tmp_path: Path, over: str) -> None:
    path = str(tmp_path / "amp")
    loop = asyncio.get_running_loop()
    if over == "tcp":
        listener = await loop.create_server(Files, "127.0.0.1", 0)
        _, amp = await loop.create_connection(AMP, *listener.sockets[0].getsockname())
    else:
        listener = await loop.create_unix_server(Files, path)
        _, amp = await loop.create_unix_connection(AMP, path)
    before = open_descriptors()
    with pytest.raises(TypeError, match="only connections made by unix_connect and unix_serve can"):
        amp.callRemote(Read, file=FILE)
    assert await amp.callRemote(ReadAll, list=[], named=[{"name": b""}]) == {"contents": [b"none"]}
    # The box of a peer that names one all the same.
    with pytest.raises(UnknownRemoteError):
        await amp.callRemote(type("Read", (Command,), {"arguments": [(b"file", Integer())]}), file=FILE)
    assert open_descriptors() <= before
    await amp.close()
    listener.close()
    await listener.wait_closed()
    await asyncio.sleep(0)


async def test_an_answer_over_a_transport_that_carries_none(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(Files, unix=False) as (_, amp):
        with pytest.raises(UnknownRemoteError):
            await amp.callRemote(Open, data=b"")
        assert "cannot carry descriptors" in caplog.text


async def test_an_answer_that_does_not_encode() -> None:
    class Tolerant(Files):
        closeOnUnknownError = False

    async with pair(Tolerant) as (_, amp):
        for _ in range(3):
            with pytest.raises(UnknownRemoteError):
                await amp.callRemote(Open, data=b"spoilt")
        answer = await amp.callRemote(Open, data=b"good")
        assert content(answer["file"]) == b"good"


async def test_an_answer_that_nobody_wants() -> None:
    """Nothing is sent, or this would end the connection one day."""
    async with pair() as (_, amp):
        for _ in range(MOST_UNCLAIMED + 10):
            amp.callRemote(Quietly)
        assert content((await amp.callRemote(Open, data=b"good"))["file"]) == b"good"


async def test_without_a_connection() -> None:
    with pytest.raises(RuntimeError, match="not connected yet"):
        AMP().callRemote(Read, file=FILE)
    with pytest.raises(TypeError, match="cannot carry descriptors"):
        Descriptor().toStringProto(FILE, None)
    with pytest.raises(ValueError, match="no descriptor has come"):
        Descriptor().fromStringProto(b"0", None)


async def test_once_the_connection_is_closed() -> None:
    for used in (False, True):
        async with pair() as (_, amp):
            if used:
                await read(amp, b"")
            await amp.close()
            before = open_descriptors()
            with pytest.raises(ConnectionLost):
                await amp.callRemote(Read, file=FILE)
            assert open_descriptors() == before


async def test_while_the_connection_is_closing() -> None:
    async with pair() as (server, amp):
        waiting = amp.callRemote(Wait)
        await server.started.wait()
        closing = asyncio.ensure_future(amp.close())
        await asyncio.sleep(0)
        with pytest.raises(ConnectionLost):
            await amp.callRemote(Read, file=FILE)
        server.answer.set_result(None)
        assert content((await waiting)["file"]) == b"at last"
        await closing


# --- what is cancelled, and what is lost ---


async def test_a_question_that_is_cancelled_while_it_waits() -> None:
    async with pair(limits=Limits(window=1)) as (server, amp):
        waiting = amp.callRemote(Wait)
        await server.started.wait()
        questions = [amp.callRemote(Unheard, file=FILE) for _ in range(4)]
        last = asyncio.ensure_future(read(amp, b"last"))
        await asyncio.sleep(0)
        for question in questions:
            question.cancel()
        server.answer.set_result(None)
        os.close((await waiting)["file"])
        assert await last == b"last"


async def test_an_answer_that_comes_too_late() -> None:
    """Its descriptors are closed at once."""
    async with pair() as (server, amp):
        before = open_descriptors()
        waiting = amp.callRemote(Wait)
        await server.started.wait()
        waiting.cancel()
        server.answer.set_result(None)
        assert content((await amp.callRemote(Open, data=b"later"))["file"]) == b"later"
        await turns()  # The server closes its own in another turn.
        assert open_descriptors() == before


async def test_an_answer_that_comes_too_late_where_there_are_none() -> None:
    async with raw_peer() as (amp, peer):
        waiting = amp.callRemote(Open, data=b"")
        await asyncio.to_thread(peer.recv, 65536)
        waiting.cancel()
        peer.send(AmpBox(_answer=b"1", file=b"0", number=b"1").serialize())
        peer.send(ask(b"Sum", a=b"1", b=b"2"))
        assert await answers(peer, 1) == [AmpBox(_answer=b"1", total=b"3")]


@pytest.mark.parametrize("values", [{"file": b"0"}, {"file": b"1"}, {}])
async def test_an_answer_that_comes_too_late_and_does_not_parse(values: dict[str, bytes]) -> None:
    async with raw_peer() as (amp, peer):
        first, waiting = amp.callRemote(Open, data=b""), amp.callRemote(Open, data=b"")
        await asyncio.sleep(0)
        waiting.cancel()
        before = open_descriptors()
        answer = AmpBox(_answer=b"2", **values).serialize()
        await asyncio.to_thread(peer.recv, 65536)
        socket.send_fds(peer, [answer + AmpBox(_answer=b"1").serialize()], [FILE])
        with pytest.raises(MalformedAmpBox):
            await first
        assert open_descriptors() == before + ("0" not in str(values))


async def test_the_connection_is_lost_while_descriptors_wait() -> None:
    async with pair(limits=Limits(window=1)) as (server, amp):
        waiting = amp.callRemote(Wait)
        await server.started.wait()
        questions = [amp.callRemote(Read, file=FILE) for _ in range(10)]
        amp.abort()
        for question in (waiting, *questions):
            with pytest.raises(ConnectionLost):
                await question


async def test_the_connection_is_lost_before_it_is_written() -> None:
    async with pair() as (_, amp):
        question = amp.callRemote(Read, file=FILE)
        amp.abort()
        with pytest.raises(ConnectionLost):
            await question


async def test_the_connection_is_lost_before_the_second_is_written() -> None:
    async with pair() as (_, amp):
        before = open_descriptors()
        questions = [amp.callRemote(Read, file=FILE) for _ in range(3)]
        amp.abort()
        assert open_descriptors() == before
        for question in questions:
            with pytest.raises(ConnectionLost):
                await question


async def test_the_peer_does_not_read() -> None:
    """What waits in the transport is closed with it."""
    async with raw_peer() as (amp, _):
        questions = [amp.callRemote(Unheard, file=FILE, data=bytes(60_000)) for _ in range(15)]
        await asyncio.sleep(0)
        assert amp.transport.get_write_buffer_size()
        amp.abort()
        for question in questions:
            with pytest.raises(ConnectionLost):
                await question


# --- what comes and is not claimed ---


async def test_descriptors_that_nobody_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """There may be some; with one more than that, the connection is over."""
    async with raw_peer() as (amp, peer):
        before = open_descriptors()
        for _ in range(MOST_UNCLAIMED):
            socket.send_fds(peer, [ask(b"Sum", a=b"1", b=b"1")], [FILE])
            assert len(await answers(peer, 1)) == 1
        assert open_descriptors() == before + MOST_UNCLAIMED
        socket.send_fds(peer, [b"\0"], [FILE] * 3)
        await amp.wait_closed()
        assert "more than 512 descriptors came that no box has named" in caplog.text
        with pytest.raises(ConnectionLost, match="more than 512 descriptors"):
            await amp.callRemote(Sum, a=1, b=1)
    assert open_descriptors() == before - 2


async def test_a_command_that_nobody_answers() -> None:
    async with pair() as (_, amp):
        for _ in range(10):
            with pytest.raises(UnhandledCommand):
                await amp.callRemote(Unheard, file=FILE)
        assert await read(amp, b"goes on") == b"goes on"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"file": b"1"}, "'file' is b'1': 1 descriptors have come, and 1 is not here"),
        ({"file": b"-1"}, "-1 is not here"),
        ({"file": b"zero"}, "not an integer"),
        ({"file": b"0", "size": b"many"}, "'size' is b'many'"),
    ],
)
async def test_values_that_do_not_decode(
    values: dict[str, bytes], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A descriptor that was claimed for a responder that is not called is closed."""

    class Tolerant(Files):
        closeOnUnknownError = False

    async with raw_peer(Tolerant) as (_, peer):
        before = open_descriptors()
        socket.send_fds(peer, [ask(b"Read", **values)], [FILE])
        (answer,) = await answers(peer, 1)
        assert answer[b"_error_code"] == b"UNKNOWN"
        assert problem in caplog.text
        assert open_descriptors() == before + ("size" not in values)


async def test_while_the_connection_closes() -> None:
    """What comes once nothing is looked at any more is closed."""
    async with raw_peer() as (amp, peer):
        before = open_descriptors()
        amp.finish_writing()
        socket.send_fds(peer, [b"\0"], [FILE])
        socket.send_fds(peer, [b"\0"], [FILE])
        peer.shutdown(socket.SHUT_WR)
        await amp.wait_closed()
        assert open_descriptors() < before


# --- arguments of somebody's own ---


class Wrapped(Argument):
    """Holds a descriptor, and says so or not."""

    def __init__(self, carries: bool) -> None:
        super().__init__()
        self.carries_descriptors = carries

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        return Descriptor().toStringProto(inObject, proto)

    def fromStringProto(self, inString: bytes, proto: Any) -> Any:
        return Descriptor().fromStringProto(inString, proto)


@pytest.mark.parametrize("carries", [True, False])
async def test_within_an_argument_of_somebodys_own(carries: bool) -> None:
    class Own(Command):
        arguments = [(b"file", Wrapped(carries))]
        response = [(b"content", String())]

    class Server(AMP):
        @Own.responder
        def read(self, file: int) -> dict[str, bytes]:
            return {"content": content(file)}

    async with pair(Server) as (_, amp):
        assert await read(amp, b"one", Own) == b"one"
        assert await read(amp, b"two", Own) == b"two"
        together = [asyncio.ensure_future(read(amp, each, Own)) for each in (b"three", b"four")]
        assert await asyncio.gather(*together) == [b"three", b"four"]


# --- connections that change ---


class SwitchToReading(ProtocolSwitchCommand):
    arguments = [(b"allowed", Integer()), (b"file", Descriptor(optional=True))]
    errors = {PermissionError: b"NO"}


class Reading(asyncio.Protocol):
    """Takes descriptors, and says what can be read from them."""

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.fail:
            raise LookupError("no")

    def descriptor_received(self, descriptor: int) -> None:
        self.transport.write(content(descriptor))

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Refusing(asyncio.Protocol):
    """Takes data, and no descriptors."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set()


class Switching(Files):
    inner: Callable[[], asyncio.BaseProtocol] = Reading

    @SwitchToReading.responder
    async def switch(self, allowed: int, file: int | None) -> asyncio.BaseProtocol:
        self.started.set()
        await self.answer
        if file is not None:
            os.close(file)
        if not allowed:
            raise PermissionError
        return self.inner()


async def test_a_switch_that_is_refused_lets_them_go() -> None:
    async with pair(Switching) as (server, amp):
        switching = amp.callRemote(SwitchToReading, Refusing, allowed=0, file=FILE)
        reading = [asyncio.ensure_future(read(amp, b"%d" % number)) for number in range(3)]
        await server.started.wait()
        server.answer.set_result(None)
        with pytest.raises(PermissionError):
            await switching
        assert await asyncio.gather(*reading) == [b"0", b"1", b"2"]


async def test_a_switch_closes_those_that_waited() -> None:
    async with pair(Switching) as (server, amp):
        protocol = Refusing()
        switching = amp.callRemote(SwitchToReading, lambda: protocol, allowed=1)
        question = amp.callRemote(Read, file=FILE)
        server_asks = server.callRemote(Unheard, file=FILE)
        await server.started.wait()
        server.answer.set_result(None)
        await switching
        for future in (question, server_asks):
            with pytest.raises(ProtocolSwitched):
                await future
        with pytest.raises(ProtocolSwitched):
            await amp.callRemote(Read, file=FILE)
        # The new protocols have a transport that carries descriptors.
        protocol.transport.send_descriptor(pipe_with(b"in a descriptor"))
        protocol.transport.write(b"!")
        while protocol.data != b"in a descriptor!":
            await asyncio.sleep(0)
        protocol.transport.close()
        await protocol.lost.wait()


@pytest.mark.parametrize("inner", [Reading, Refusing, lambda: Reading(fail=True)])
async def test_descriptors_that_came_behind_the_switch(inner: Any) -> None:
    """They are the new protocol's, if it takes any."""
    own = type("Own", (Switching,), {"inner": staticmethod(inner)})
    async with raw_peer(own) as (amp, peer):
        amp.answer.set_result(None)
        mine = pipe_with(b"for whom it concerns")
        socket.send_fds(peer, [ask(b"SwitchToReading", allowed=b"1") + b"data"], [mine])
        os.close(mine)
        peer.shutdown(socket.SHUT_WR)
        received = await asyncio.to_thread(lambda: b"".join(iter(lambda: peer.recv(65536), b"")))
        answer = AmpBox(_answer=b"1").serialize()
        behind = b"for whom it concernsdata" if inner is Reading else b""
        assert received in (answer + behind, b"")
        assert received or inner is not Reading


async def test_start_tls_and_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    """Those that were sent before arrive; from then on there can be none."""
    async with pair(client=Files) as (_, amp):
        reading = asyncio.ensure_future(read(amp, b"before"))
        await asyncio.sleep(0)
        securing = amp.callRemote(StartTLS)
        with pytest.raises(TypeError, match="only without TLS"):
            amp.callRemote(Read, file=FILE)
        await securing
        assert await reading == b"before"
        with pytest.raises(TypeError, match="only without TLS"):
            amp.callRemote(Read, file=FILE)
        assert await amp.callRemote(Sum, a=1, b=2) == {"total": 3}
        with pytest.raises(UnknownRemoteError):
            await amp.callRemote(Open, data=b"")
        await amp.close()


async def test_start_tls_behind_what_waits_in_the_transport() -> None:
    """All of it, descriptors too, is written before the transport changes."""

    class Slow(Files):
        def connection_made(self, transport: Any) -> None:
            transport.pause_reading()
            asyncio.get_running_loop().call_later(0.05, transport.resume_reading)

    async with pair(Slow) as (_, amp):
        files = [pipe_with(b"%d" % number) for number in range(8)]
        echoes = [amp.callRemote(Unheard, file=file, data=bytes(65_000)) for file in files]
        reading = amp.callRemote(Read, file=files[0])
        for file in files:
            os.close(file)
        await amp.callRemote(StartTLS)
        assert await reading == {"content": b"0"}
        for echo in echoes:
            with pytest.raises(UnhandledCommand):
                await echo


async def test_start_tls_that_is_refused() -> None:
    class Secure(StartTLS):
        commandName = b"StartTLS"
        errors = {PermissionError: b"NO"}

    class NotHere(Files):
        @Secure.responder
        def secure(self) -> dict[str, Any]:
            raise PermissionError

    async with pair(NotHere) as (_, amp):
        with pytest.raises(PermissionError):
            await amp.callRemote(Secure)
        assert await read(amp, b"in the clear") == b"in the clear"


async def test_unix_sockets_with_tls(tmp_path: Path) -> None:
    """Those are for the transports of the loop."""
    with pytest.raises(ValueError, match="server_hostname"):
        await unix_connect(tmp_path / "amp", server_hostname="localhost")
    async with unix_serve(Files, tmp_path / "amp"), unix_connect(tmp_path / "amp") as amp:
        assert await read(amp, b"plain") == b"plain"
