"""The bench that a transport is checked on: two protocols that record what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeAlias, cast

__all__ = ["MUCH", "Bench", "Body", "Connect", "Recorder", "pattern"]

#: Connects two protocols by means of the transport that is checked: an `async def` that takes the two,
#: and lets the transports call `connection_made` of both, before or after it returns.
Connect: TypeAlias = Callable[[asyncio.BaseProtocol, asyncio.BaseProtocol], Awaitable[object]]

# More bytes than the kernel and a transport's buffer hold.
MUCH = 3_000_000

# How many turns of the event loop are enough for what happens without the network.
_TURNS = 20


class Recorder(asyncio.BaseProtocol):
    """Records the calls of its transport, and which of them must not have happened.

    Attributes:
        transport: the transport, from `connection_made` on.
        data: the bytes that were received.
        events: what happened, in order: "made", "data" (once for any number of calls in a row), "eof",
            "pause", "resume", "lost".
        violations: what happened against the rules of asyncio.
        error: what `connection_lost` was given.
        on: functions to call when an event happens, by the event.
        keep_open: what `eof_received` returns.
    """

    def __init__(self, changed: asyncio.Event, keep_open: bool = True) -> None:
        self.transport: Any = None
        self.data = bytearray()
        self.events: list[str] = []
        self.violations: list[str] = []
        self.error: Exception | None = None
        self.on: dict[str, Callable[[], object]] = {}
        self.keep_open = keep_open
        self._changed = changed
        self._writing_paused = False

    @property
    def lost(self) -> bool:
        """Whether `connection_lost` was called."""
        return "lost" in self.events

    def has(self, size: int) -> bool:
        """Return whether at least `size` bytes were received."""
        return len(self.data) >= size

    def note(self, event: str) -> None:
        """Record an event."""
        if self.lost:
            self.violations.append(f"{event!r} after connection_lost")
        if event != "made" and self.transport is None:
            self.violations.append(f"{event!r} before connection_made")
        if event in ("data", "eof") and "eof" in self.events:
            self.violations.append(f"{event!r} after eof_received")
        if event in ("pause", "resume"):
            if self._writing_paused is (event == "pause"):
                self.violations.append(f"{event}_writing twice in a row")
            self._writing_paused = event == "pause"
        if event != "data" or self.events[-1:] != ["data"]:
            self.events.append(event)
        self._changed.set()
        if event in self.on:
            self.on[event]()

    def take_over(self, other: Recorder) -> None:
        """Become the protocol of the transport of `other`."""
        self.transport = other.transport
        self.transport.set_protocol(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.note("made")

    def received(self, data: bytes) -> None:
        self.data += data
        self.note("data")

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.note("lost")


class StreamRecorder(Recorder, asyncio.Protocol):
    """A recorder that gets its bytes by `data_received`."""

    def data_received(self, data: bytes) -> None:
        self.received(data)


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    """A recorder that gets its bytes in a buffer of its own, which has room for `room` of them."""

    room = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = bytearray(self.room)
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self.received(bytes(self._buffer[:nbytes]))


class Bench:
    """Connects recorders, and waits for what they are to see.

    Attributes:
        reported: the exceptions that the event loop was told of.
    """

    def __init__(self, connect: Connect, patience: float) -> None:
        self._connect = connect
        self._patience = patience
        self._changed = asyncio.Event()
        self.reported: list[BaseException] = []

    def recorder(self, *, keep_open: bool = True, room: int | None = None) -> Recorder:
        """Return a new recorder; one with a buffer of its own if `room` is given."""
        if room is None:
            return StreamRecorder(self._changed, keep_open)
        recorder = BufferedRecorder(self._changed, keep_open)
        recorder.room = room
        return recorder

    @asynccontextmanager
    async def joined(self, first: Recorder, second: Recorder) -> AsyncIterator[tuple[Any, Any]]:
        """Connect two recorders, and yield their transports; see that no rule was broken."""
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda loop, context: self._reported(context))
        try:
            await self._connect(first, second)
            await self.until(lambda: first.transport and second.transport, "both are connected")
            one, other = first.transport, second.transport
            try:
                yield one, other
            finally:
                open_ends = [end for end in (one, other) if self._is_open(end)]
                ends = [cast(Recorder, end.get_protocol()) for end in open_ends]
                for end in open_ends:
                    end.abort()
                await self.turns()
            await self.until(lambda: all(it.lost for it in ends), "connection_lost follows abort()")
        finally:
            loop.set_exception_handler(before)
        for recorder in (first, second, *ends):
            assert not recorder.violations, f"{recorder.violations[0]}; seen: {recorder.events}"

    def _is_open(self, transport: Any) -> bool:
        """Return whether `connection_lost` is still to come. (asyncio's forget their protocol.)"""
        protocol: Recorder | None = transport.get_protocol()
        return protocol is not None and not protocol.lost

    def _reported(self, context: dict[str, Any]) -> None:
        self.reported.append(cast(BaseException, context.get("exception")))

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is so; `AssertionError` says that it should have been."""
        try:
            async with asyncio.timeout(self._patience):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {self._patience} s: {what}") from None

    async def turns(self) -> None:
        """Let the event loop do everything that does not wait for the network."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def fill(self, writer: Recorder) -> int:
        """Write until the writer is paused and stays so; return how many bytes that took.

        The other side must not read.
        """
        piece = b"x" * 65_536
        written = 0
        quiet = 0
        while quiet < _TURNS:
            paused = writer.events[-1:] == ["pause"]
            quiet = quiet + 1 if paused else 0
            if not paused:
                assert written < 2**26, "pause_writing was not called, though the peer does not read"
                writer.transport.write(piece)
                written += len(piece)
            await asyncio.sleep(0)
        return written


#: What a check does on a bench.
Body: TypeAlias = Callable[[Bench], Awaitable[None]]


@cache
def pattern(size: int) -> bytes:
    """Return bytes in which a lost, doubled or swapped piece shows."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4))
