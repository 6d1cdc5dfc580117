"""Fuzzing: the parser, and a whole server-side connection, are fed what nobody would send.

Run it: python tests/fuzz_parser.py [SECONDS] [--seed NUMBER]             inputs that are made up
        python tests/fuzz_parser.py --mutations NUMBER [--seed NUMBER]    conversations that are spoilt

What is made up comes from atheris where that is installed, and from hypothesis otherwise. What is
spoilt was recorded, a moment before, between two peers that talk over TCP: commands, answers, errors,
StartTLS and switches, from either side. The same seed makes the same inputs, but for the random
numbers of TLS and for how many inputs there is time for.

The connection is real, with the event loop and TLS of asyncio; only its transport is none, and takes
notes. Whatever comes: no exception leaves the connection, it ends with a documented error or none, so
does each of its questions, and no task, future, timer or memory is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import sys
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from decimal import Decimal as Number
from itertools import pairwise, product
from typing import Any, NoReturn, cast

import attrs

try:
    import atheris
except ImportError:
    atheris = None

with atheris.instrument_imports(include=["amp_asyncio"]) if atheris else nullcontext():
    from amp_asyncio import (
        AMP,
        AmpBox,
        AmpError,
        AmpList,
        Boolean,
        BoxParser,
        Command,
        DateTime,
        Decimal,
        Float,
        Integer,
        Limits,
        ListOf,
        Path,
        PrivateCertificate,
        ProtocolSwitchCommand,
        StartTLS,
        String,
        TooLong,
        Unicode,
        connect,
        serve,
    )

# Limits that a short input can reach. (The questions of a role fit into the window, just: else the
# answers that were recorded would come before they are asked.)
LIMITS = Limits(max_box_size=8192, window=3000, max_concurrent_responders=3, max_backlog=4000)

# How many more objects there may be at the end than after a tenth; how much more memory, which goes up
# and down a little; and how many inputs it takes until that can be said of memory.
MORE_OBJECTS = 1.05
MORE_MEMORY = 1.1
LONG_RUN = 50_000


# --- the connection that is fuzzed ---


class Deliberate(Exception):
    """What a responder raises that no command declares."""


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Divide(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"quotient", Float())]
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}
    fatalErrors = {OverflowError: b"OVERFLOW"}


class Everything(Command):
    arguments = [
        (b"boolean", Boolean()),
        (b"date-time", DateTime()),
        (b"decimal", Decimal()),
        (b"list", ListOf(Integer())),
        (b"path", Path()),
        (b"table", AmpList([(b"name", Unicode()), (b"rows", ListOf(Float()))])),
        (b"text", Unicode(optional=True)),
    ]
    response = arguments


class Echo(Command):
    arguments = [(b"data", String())]
    response = [(b"data", String())]


class Slowly(Echo):
    """Is answered some turns of the event loop later."""


class CallBack(Echo):
    """Is answered when the caller has answered `Echo`."""


class Notify(Command):
    arguments = [(b"data", String())]
    requiresAnswer = False


class Fail(Command):
    """Fails in a way that it does not declare."""


class Unknown(Command):
    """Has no responder."""


class Switch(ProtocolSwitchCommand):
    arguments = [(b"agree", Boolean())]
    errors = {PermissionError: b"NO"}


class Collecting(asyncio.Protocol):
    """What a connection is switched to; it takes everything."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)


CONTEXT = PrivateCertificate.self_signed("fuzzed").ssl_context(server_side=True)

EVERYTHING: dict[str, Any] = {
    "boolean": True,
    "date_time": datetime(2020, 2, 29, 12, 30, 59, 999, UTC),
    "decimal": Number("-12.5e-3"),
    "list": [1, -2, 10**20],
    "path": "/nowhere",
    "table": [{"name": "\N{SNOWMAN}", "rows": [0.5, float("inf")]}, {"name": "", "rows": []}],
}
EVERYTHING_BOX = {
    key.decode(): value for key, value in Everything.makeArguments(EVERYTHING, None).items()
}
EVERYTHING_ON_THE_WIRE = list(EVERYTHING_BOX.values())


class Fuzzed(AMP):
    """Answers everything, and asks what its `role` says as soon as it is connected."""

    limits = LIMITS
    role = "nothing"

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[asyncio.Future[Any]] = []
        self.boxes = 0
        self.reason: BaseException | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.questions += ROLES[self.role](self)
        for question in self.questions:
            question.add_done_callback(asyncio.Future.exception)  # It was looked at.

    def ampBoxReceived(self, box: AmpBox) -> None:
        self.boxes += 1
        super().ampBoxReceived(box)

    def stopReceivingBoxes(self, reason: BaseException) -> None:
        self.reason = reason
        super().stopReceivingBoxes(reason)

    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Divide.responder
    def divide(self, a: int, b: int) -> dict[str, float]:
        return {"quotient": a / b}

    @Everything.responder
    async def everything(self, **values: Any) -> dict[str, Any]:
        return values

    @Echo.responder
    def echo(self, data: bytes) -> dict[str, bytes]:
        return {"data": data}

    @Notify.responder
    def notify(self, data: bytes) -> None:
        pass

    @Slowly.responder
    async def slowly(self, data: bytes) -> dict[str, bytes]:
        for _ in range(5):
            await asyncio.sleep(0)
        return {"data": data}

    @CallBack.responder
    async def call_back(self, data: bytes) -> dict[str, bytes]:
        with suppress(AmpError):
            answer: dict[str, bytes] = await self.callRemote(Echo, data=data)
            return answer
        return {"data": b""}

    @Fail.responder
    async def fail(self) -> dict[str, Any]:
        raise Deliberate

    @StartTLS.responder
    async def start_tls(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"tls_context": CONTEXT}

    @Switch.responder
    async def switch(self, agree: bool) -> asyncio.BaseProtocol:
        if not agree:
            raise PermissionError("no")
        return Collecting()


def ask_some(amp: AMP) -> list[asyncio.Future[Any]]:
    return [
        amp.callRemote(Sum, a=1, b=2),
        amp.callRemote(Everything, **EVERYTHING),
        amp.callRemote(Divide, a=1, b=0),
        amp.callRemote(Echo, data=b"x" * 200),
        amp.callRemote(Unknown),
        amp.callRemoteString(b"Sum", a=b"1", b=b"2"),
    ]


# What the connection asks by itself; what comes is then also an answer.
ROLES: dict[str, Callable[[AMP], list[asyncio.Future[Any]]]] = {
    "nothing": lambda amp: [],
    "questions": ask_some,
    "tls": lambda amp: [amp.callRemote(StartTLS), *ask_some(amp)],
    "switch": lambda amp: [amp.callRemote(Switch, Collecting, agree=True), *ask_some(amp)],
    "refused": lambda amp: [amp.callRemote(Switch, Collecting, agree=False), *ask_some(amp)],
}


def fuzzed(role: str) -> Fuzzed:
    amp = Fuzzed()
    amp.role = role
    return amp


class Transport(asyncio.Transport):
    """Writes nothing anywhere, and loses its connection when it is told to close."""

    # (What `loop.start_tls` asks for.)
    _start_tls_compatible = True

    def __init__(self, protocol: asyncio.BaseProtocol, eof: bool) -> None:
        super().__init__()
        self._protocol: Any = protocol
        self._eof = eof
        self._paused = self._closing = False
        self.unsent = 0
        self._protocol.connection_made(self)

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def write(self, data: Any) -> None:
        pass

    def can_write_eof(self) -> bool:
        return self._eof

    def write_eof(self) -> None:
        pass

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._force_close(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, error: BaseException | None) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._lose, error)

    def _lose(self, error: BaseException | None) -> None:
        self._protocol.connection_lost(error)

    # What the network does.

    def receive(self, data: bytes) -> None:
        if isinstance(self._protocol, asyncio.Protocol):
            self._protocol.data_received(data)
            return
        while data:
            buffer = self._protocol.get_buffer(len(data))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self._protocol.buffer_updated(size)
            data = data[size:]

    def receive_eof(self) -> None:
        if not self._protocol.eof_received():
            self.close()

    def congest(self, full: bool) -> None:
        if full and not self.unsent:
            self.unsent = 10**6
            self._protocol.pause_writing()
        elif self.unsent and not full:
            self.unsent = 0
            self._protocol.resume_writing()


# --- what an input is, and what must hold for it ---


@attrs.frozen
class Input:
    """A stream, the places where it is cut, and everything else that may differ."""

    role: str
    stream: bytes
    cuts: tuple[int, ...]
    half_close: bool
    eof: bool = True
    congested: tuple[int, int] = (-1, -1)  # from which piece to which

    def pieces(self) -> Iterator[bytes]:
        size = len(self.stream)
        places = [0, *sorted(cut % (size + 1) for cut in self.cuts), size]
        return (self.stream[start:end] for start, end in pairwise(places) if start != end)


class Loop(asyncio.SelectorEventLoop):
    """Remembers the futures that it makes, and what it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[asyncio.Future[Any]]] = []
        self.complaints: list[dict[str, Any]] = []
        self.lost_handshakes = 0
        self.set_exception_handler(lambda loop, context: self.complaints.append(context))

    def create_future(self) -> asyncio.Future[Any]:
        future = super().create_future()
        self.made.append(weakref.ref(future))
        return future

    def left(self) -> list[str]:
        """Return what the last input has left behind, and forget what was made for it."""
        futures = [made for ref in self.made if (made := ref()) is not None and not made.done()]
        self.made.clear()
        timers = [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        for timer in timers[:]:
            # asyncio's own: a connection that is lost in the turn in which `loop.start_tls` begins is
            # lost before it is made, as far as its TLS layer knows, and that begins a handshake.
            if "SSLProtocol._start_handshake" in repr(timer):
                timer.cancel()
                timers.remove(timer)
                self.lost_handshakes += 1
        return [*map(repr, futures), *map(repr, timers), *map(repr, self.complaints)]


class Log(logging.Handler):
    """Counts warnings, and keeps errors that nobody meant to happen."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings = 0
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info and record.exc_info[1]
        if record.levelno < logging.ERROR:
            self.warnings += 1
        elif not isinstance(error, Deliberate):
            self.errors.append(self.format(record))


class Fuzzer:
    """Runs inputs, checks what comes of them, and counts it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.log = Log()
        logging.basicConfig(handlers=[self.log])
        self.inputs = self.bytes = self.boxes = self.parsed = 0
        self.parser_ends: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()

    def run(self, given: Input) -> None:
        """Raise `AssertionError`, with what was found, where something does not hold."""
        self.inputs += 1
        self.bytes += len(given.stream)
        self.check_parser(given)
        self.loop.run_until_complete(self.check_connection(given))
        left = self.loop.left()
        assert not left, f"left behind: {left}"
        assert not self.log.errors, "logged: " + "\n".join(self.log.errors)

    def check_parser(self, given: Input) -> None:
        """Feed a parser of each version the pieces, another one all at once: they must say the same.

        (Of a box that is too long, and has a key that is, too, they may say either.)
        """

        def verdict(
            pieces: Iterable[bytes], version: int, limit: int | None
        ) -> tuple[list[AmpBox], bool, TooLong | None]:
            parser = BoxParser(limit, version)
            boxes: list[AmpBox] = []
            try:
                for piece in pieces:
                    parser.feed(piece)
                    boxes += iter(parser.next_box, None)
            except TooLong as error:
                return boxes, False, error
            in_box = parser.in_box
            assert bool(parser.take_rest()) == in_box, "the rest is what there is of a box"
            assert not parser.in_box, "no rest is left behind"
            return boxes, in_box, None

        # The last one is what the connection does.
        for version, limit in product((2, 1), (None, LIMITS.max_box_size)):
            boxes, in_box, error = verdict(given.pieces(), version, limit)
            whole_boxes, whole_in_box, whole_error = verdict([given.stream], version, limit)
            assert (boxes, in_box) == (whole_boxes, whole_in_box), "the cuts make a difference"
            assert (error is None) == (whole_error is None), f"{error} or {whole_error}"
        self.parsed += len(boxes)
        self.parser_ends[type(error).__name__ if error else "a box" if in_box else "no error"] += 1

    async def check_connection(self, given: Input) -> None:
        amp = fuzzed(given.role)
        transport = Transport(amp, given.eof)
        for number, piece in enumerate(given.pieces()):
            transport.congest(given.congested[0] <= number < given.congested[1])
            if number % 2:
                await turns(1)
            if not transport.is_reading():
                await turns(20)
            if not transport.is_reading():
                break
            transport.receive(piece)
        await turns(10)
        if given.half_close and not transport.is_closing():
            transport.receive_eof()
            await turns(3)
        transport.abort()
        await turns(1)
        for _ in range(100):
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if not tasks:
                break
            await turns(1)
        assert not tasks, f"tasks left: {tasks}"
        await turns(3)
        self.book(amp)

    def book(self, amp: Fuzzed) -> None:
        """See how the connection has ended, and its questions."""
        self.boxes += amp.boxes
        assert isinstance(amp.reason, AmpError), f"ended with {amp.reason!r}"
        cause = amp.reason.__cause__
        assert cause is None or isinstance(cause, AmpError | OSError), f"ended because of {cause!r}"
        self.ends[type(cause or amp.reason).__name__] += 1
        for question in amp.questions:
            assert question.done(), f"left open: {question}"
            error = question.exception()
            assert error is None or isinstance(error, AmpError | ZeroDivisionError | PermissionError)
            self.outcomes["answered" if error is None else type(error).__name__] += 1

    def report(self) -> None:
        def line(name: str, counts: Counter[str]) -> str:
            return f"{name}: " + ", ".join(f"{count:,} {what}" for what, count in counts.most_common())

        print(f"inputs: {self.inputs:,}, of {self.bytes:,} bytes")
        print(f"boxes: {self.parsed:,} parsed, {self.boxes:,} received by connections")
        print(line("the parser ended in", self.parser_ends))
        print(line("the connections ended with", self.ends))
        print(line("their own questions", self.outcomes))
        print(f"connections lost as TLS began: {self.loop.lost_handshakes:,}")
        print(f"warnings logged: {self.log.warnings:,}", flush=True)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- real conversations ---


@asynccontextmanager
async def recorded(role: str) -> AsyncIterator[tuple[AMP, bytearray]]:
    """Yield a client of a server with that role, and the bytes that go to the server."""
    stream = bytearray()

    async def relay(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None]
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                note(data)
                writer.write(data)
            writer.write_eof()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        out, back = await asyncio.open_connection(*server.sockets[0].getsockname())
        await asyncio.gather(relay(reader, back, stream.extend), relay(out, writer, lambda data: None))
        writer.close()
        back.close()

    limits = Limits()
    async with serve(lambda: fuzzed(role), "127.0.0.1", 0, limits=limits) as server:
        async with await asyncio.start_server(accepted, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            async with connect("127.0.0.1", port, Fuzzed, limits=limits) as amp:
                yield amp, stream


async def commands(amp: AMP) -> None:
    await asyncio.gather(
        amp.callRemote(Sum, a=13, b=81),
        amp.callRemote(Echo, data=b"e" * 300),
        amp.callRemote(Everything, **EVERYTHING, text="text"),
        amp.callRemote(Slowly, data=b"s"),
        amp.callRemote(Notify, data=b"n"),
        amp.callRemote(CallBack, data=b"c"),
        *(amp.callRemote(CallBack, data=b"%d" % number) for number in range(5)),
    )


async def errors(amp: AMP) -> None:
    questions = [
        amp.callRemote(Divide, a=1, b=0),
        amp.callRemote(Unknown),
        amp.callRemoteString(b"Sum", a=b"one"),
        amp.callRemote(Divide, a=10**400, b=1),
        amp.callRemote(Fail),
    ]
    await asyncio.gather(*questions, return_exceptions=True)


async def failing(amp: AMP) -> None:
    await asyncio.gather(commands(amp), amp.callRemote(Fail), return_exceptions=True)


async def securing(amp: AMP) -> None:
    await amp.callRemote(Sum, a=1, b=2)
    await amp.callRemote(StartTLS)
    await commands(amp)


async def switching(amp: AMP) -> None:
    await asyncio.gather(amp.callRemote(Switch, Collecting, agree=False), return_exceptions=True)
    await amp.callRemote(Sum, a=1, b=2)
    await amp.callRemote(Switch, Collecting, agree=True)
    await say_something(amp)


async def say_something(amp: AMP) -> None:
    """Use a connection that was switched, and close it."""
    while amp.innerProtocol is None:
        await asyncio.sleep(0.01)
    assert isinstance(amp.innerProtocol, Collecting)
    amp.innerProtocol.transport.write(b"no AMP any more" * 10)
    amp.innerProtocol.transport.close()


async def answering(amp: AMP) -> None:
    """Let the server ask, and ask a little, too."""
    await asyncio.sleep(0.1)
    await amp.callRemote(Sum, a=1, b=2)


CONVERSATIONS: list[tuple[str, Callable[[AMP], Awaitable[None]]]] = [
    ("nothing", commands),
    ("nothing", errors),
    ("nothing", failing),
    ("nothing", securing),
    ("nothing", switching),
    ("questions", commands),
    ("tls", answering),
    ("switch", say_something),
    ("refused", answering),
]


async def record() -> list[Conversation]:
    """Hold each of the conversations, and return what their servers were sent."""
    conversations = []
    for role, talk in CONVERSATIONS:
        async with asyncio.timeout(10), recorded(role) as (amp, stream):
            await talk(amp)
        conversations.append(Conversation(role, bytes(stream)))
    return conversations


class Conversation:
    """The bytes that one side of a connection was sent, and the places between its boxes."""

    def __init__(self, role: str, stream: bytes) -> None:
        self.role = role
        self.stream = stream
        self.seams = [0]
        parser = BoxParser()
        with suppress(TooLong):
            for end in range(1, len(stream) + 1):
                parser.feed(stream[end - 1 : end])
                if parser.next_box() is not None:
                    self.seams.append(end)

    def place(self, chance: random.Random) -> int:
        """Return a place in the stream, in every other case between two boxes."""
        if chance.random() < 0.5:
            return chance.choice(self.seams)
        return chance.randrange(len(self.stream) + 1)

    def part(self, chance: random.Random) -> bytes:
        start, end = sorted((self.place(chance), self.place(chance)))
        return self.stream[start:end]


def spoilt(chance: random.Random, conversations: list[Conversation]) -> Input:
    """Return a conversation with a few things done to it."""
    conversation = chance.choice(conversations)
    stream = bytearray(conversation.stream)
    for _ in range(chance.randrange(1, 5)):
        # What was done before moves the seams; then they are places like any other.
        place, other = (min(conversation.place(chance), len(stream)) for _ in range(2))
        start, end = sorted((place, other))
        match chance.choice(["flip", "flip", "byte", "end", "delete", "double", "insert", "splice"]):
            case "flip" if place < len(stream):
                stream[place] ^= 1 << chance.randrange(8)
            case "byte" if place < len(stream):
                stream[place] = chance.choice(b"\x00\x01\x7f\xff09af_-")
            case "end":
                del stream[place:]
            case "delete":
                del stream[start:end]
            case "double":
                stream[end:end] = stream[start:end]
            case "insert":
                stream[place:place] = chance.randbytes(chance.randrange(1, 10))
            case "splice":
                stream[place:place] = chance.choice(conversations).part(chance)
    role = conversation.role if chance.random() < 0.9 else chance.choice(list(ROLES))
    return Input(
        role=role,
        stream=bytes(stream),
        cuts=tuple(chance.choices(range(len(stream) + 1), k=chance.randrange(8))),
        half_close=chance.random() < 0.5,
        eof=chance.random() < 0.8,
        congested=(chance.randrange(10), chance.randrange(10)),
    )


class Memory:
    """How much there is of it, when nothing is left that could be thrown away."""

    def __init__(self) -> None:
        gc.collect()
        self.objects = len(gc.get_objects())
        with open("/proc/self/statm") as file:
            self.resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def __str__(self) -> str:
        return f"{self.resident / 2**20:.1f} MiB resident, {self.objects:,} objects"


def fuzz_conversations(fuzzer: Fuzzer, count: int, seed: int) -> None:
    """Run so many spoilt conversations, and see that memory does not grow from the first tenth on."""
    conversations = fuzzer.loop.run_until_complete(record())
    for conversation in conversations:
        fuzzer.run(Input(conversation.role, conversation.stream, (), half_close=True))
    print(f"recorded: {len(conversations)} conversations", end=", ")
    print(f"{sum(len(conversation.stream) for conversation in conversations):,} bytes")
    early = None
    for number in range(count):
        given = spoilt(random.Random(f"{seed} {number}"), conversations)
        try:
            fuzzer.run(given)
        except BaseException:
            print(f"failed, number {number} of seed {seed}: {given}")
            raise
        if number == count // 10:
            early = Memory()
    late = Memory()
    fuzzer.report()
    print(f"memory after a tenth: {early}\nmemory at the end: {late}", flush=True)
    assert early is not None, "there is nothing to do"
    assert late.objects <= early.objects * MORE_OBJECTS
    assert count < LONG_RUN or late.resident <= early.resident * MORE_MEMORY


# --- what is made up ---


def fuzz_with_hypothesis(fuzzer: Fuzzer, seconds: float, seed: int) -> None:
    """Run what hypothesis makes up, in rounds, since it remembers all that it did in one."""
    import hypothesis
    from hypothesis import strategies as st

    names = st.sampled_from(
        "Sum Divide Everything Echo Slowly CallBack Notify Fail Unknown Switch StartTLS".split()
    ).map(str.encode)
    tags = st.integers(1, 12).map(lambda number: b"%x" % number) | st.binary(max_size=3)
    values = st.sampled_from([b"1", b"0", b"-12", b"True", b"False", b"nan", b"x" * 3000])
    values |= st.binary(max_size=40) | st.sampled_from(EVERYTHING_ON_THE_WIRE)
    keys = st.sampled_from([b"a", b"b", b"data", b"agree", b"total", b"quotient"])
    keys |= st.sampled_from([b"_ask", b"_answer", b"_error", b"_error_code", b"_command"])
    pairs = st.dictionaries(keys, values, max_size=4)
    asking = st.fixed_dictionaries({b"_command": names, b"_ask": tags})
    everything = st.just(AmpBox(_command=b"Everything", _ask=b"e", **EVERYTHING_BOX))
    others = [
        st.fixed_dictionaries({b"_command": names}),
        st.fixed_dictionaries({b"_answer": tags}),
        st.fixed_dictionaries({b"_error": tags, b"_error_code": values}),
        st.just({}),
    ]
    # Most boxes are commands: anything else may well be the end of the connection.
    plain = st.integers(0, 9).flatmap(
        lambda number: asking if number < 5 else everything if number < 8 else st.one_of(others)
    )
    boxes = st.builds(lambda box, more: AmpBox({**more, **box}), plain, pairs)
    streams = st.lists(boxes.map(AmpBox.serialize), max_size=20).map(b"".join)
    places = st.integers(0, 5000)
    changes = st.lists(st.tuples(places, st.binary(min_size=1, max_size=5), st.booleans()), max_size=3)

    def changed(stream: bytes, changes: list[tuple[int, bytes, bool]]) -> bytes:
        data = bytearray(stream)
        for place, change, longer in changes:
            start = place % (len(data) + 1)
            data[start : start + (0 if longer else len(change))] = change
        return bytes(data)

    inputs = st.builds(
        Input,
        role=st.sampled_from(list(ROLES)),
        stream=st.one_of(streams, streams, st.builds(changed, streams, changes), st.binary()),
        cuts=st.lists(places, max_size=8).map(tuple),
        half_close=st.booleans(),
        eof=st.booleans(),
        congested=st.tuples(st.integers(-1, 9), st.integers(-1, 9)),
    )
    deadline = time.monotonic() + seconds
    settings = hypothesis.settings(
        max_examples=500,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    failed = False

    def run(given: Input) -> None:
        nonlocal failed
        if failed or time.monotonic() < deadline:
            failed = True  # Then it is run again, until a small input is found that fails.
            fuzzer.run(given)
            failed = False

    early = None
    rounds = 0
    while time.monotonic() < deadline:
        hypothesis.seed(seed * 1_000_000 + rounds)(settings(hypothesis.given(inputs)(run)))()
        rounds += 1
        if early is None and time.monotonic() > deadline - seconds * 0.9:
            early = Memory()
    late = Memory()
    fuzzer.report()
    print(f"hypothesis: {rounds} rounds\nmemory after a tenth: {early}\nmemory at the end: {late}")
    # (What is resident is mostly hypothesis's own.)
    assert early is None or late.objects <= early.objects * MORE_OBJECTS


def fuzz_with_atheris(fuzzer: Fuzzer, seconds: float, seed: int) -> NoReturn:
    """Run what atheris makes up; it ends the process."""
    deadline = time.monotonic() + seconds
    roles = list(ROLES)

    def run(data: bytes) -> None:
        if time.monotonic() > deadline:
            fuzzer.report()
            os._exit(0)
        provider = atheris.FuzzedDataProvider(data)
        given = Input(
            role=roles[provider.ConsumeIntInRange(0, len(roles) - 1)],
            cuts=tuple(provider.ConsumeIntListInRange(4, 0, 5000)),
            half_close=provider.ConsumeBool(),
            eof=provider.ConsumeBool(),
            congested=(provider.ConsumeIntInRange(-1, 5), provider.ConsumeIntInRange(-1, 5)),
            stream=provider.ConsumeBytes(provider.remaining_bytes()),
        )
        fuzzer.run(given)

    atheris.Setup([sys.argv[0], f"-seed={seed or 1}", "-max_len=10000"], run)
    atheris.Fuzz()
    raise AssertionError("it does not come back")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", nargs="?", type=float, default=10.0)
    parser.add_argument("--mutations", type=int, metavar="NUMBER")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fuzzer = Fuzzer()
    asyncio.set_event_loop(fuzzer.loop)
    if options.mutations is not None:
        fuzz_conversations(fuzzer, options.mutations, options.seed)
    elif atheris:
        fuzz_with_atheris(fuzzer, options.seconds, options.seed)
    else:
        fuzz_with_hypothesis(fuzzer, options.seconds, options.seed)
    fuzzer.loop.close()


if __name__ == "__main__":
    main()
