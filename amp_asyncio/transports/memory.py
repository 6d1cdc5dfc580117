"""Transports in memory: a connection without sockets and threads, for tests.

`memory_pair` connects two protocols. Each gets an `asyncio.Transport` that behaves as asyncio's own
does over TCP: bytes arrive in a later turn of the event loop, a reader that pauses makes the buffer of
the writer fill, each side can be closed alone, and what arrives at a connection that is gone resets it.
The two lines between them can be cut, stopped and slowed down: see `Line`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from typing import Any

from .lines import Line

__all__ = ["Line", "MemoryTransport", "memory_pair"]


class _State(enum.Enum):
    """What is to come; each state leads only to later ones."""

    NEW = enum.auto()  # `connection_made` will be called.
    OPEN = enum.auto()
    CLOSING = enum.auto()  # Nothing is read; what was written is on its way.
    ENDING = enum.auto()  # `connection_lost` will be called in the next turn of the event loop.
    LOST = enum.auto()


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory; `memory_pair` makes both.

    `get_extra_info` knows what `memory_pair` was given. It has no socket.

    `loop.start_tls` works on asyncio's own event loop. uvloop accepts only transports of its own, and
    raises `TypeError`.
    """

    _start_tls_compatible = True  # asyncio's `start_tls` looks at it.

    def __init__(
        self, protocol: asyncio.BaseProtocol, incoming: Line, outgoing: Line, extra: Mapping[str, Any]
    ) -> None:
        super().__init__(dict(extra))
        self._loop = asyncio.get_running_loop()
        self._incoming = incoming
        self._outgoing = outgoing
        self._state = _State.NEW
        self._paused = False
        self._end_received = False
        self._unsent = bytearray()  # What the line has not taken.
        self._eof_written = False
        self._writing_paused = False
        self._closed = asyncio.Event()
        self.set_protocol(protocol)
        self.set_write_buffer_limits()
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._state is _State.NEW:
            self._state = _State.OPEN
        self._call("connection_made", self)
        self._incoming.wake()

    # --- the protocol ---

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give `protocol` everything that happens from now on."""
        self._protocol: Any = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the protocol; the connection is lost if it raises an exception."""
        try:
            return getattr(self._protocol, method)(*arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report(error, f"Fatal error: protocol.{method}() failed")
            self.fail(error)

    def _tell(self, method: str) -> None:
        """Call a method of the protocol; an exception is reported, and the connection goes on."""
        try:
            getattr(self._protocol, method)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report(error, f"protocol.{method}() failed")

    def _report(self, error: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        )

    # --- reading ---

    def is_reading(self) -> bool:
        """Return whether the protocol gets what arrives."""
        return not self._paused and not self.is_closing()

    def pause_reading(self) -> None:
        """Give the protocol nothing until `resume_reading` is called."""
        self._paused = True

    def resume_reading(self) -> None:
        """Give the protocol what arrives, from the next turn of the event loop."""
        self._paused = False
        self._incoming.wake()

    def is_ready(self) -> bool:
        """Return whether the line may call `readable` and `end_of_stream`."""
        return self._state is _State.OPEN and not self._paused and not self._end_received

    def readable(self) -> None:
        """Read once from the line."""
        if not self._buffered:
            self._call("data_received", self._incoming.read(self._incoming.available()))
            return
        buffer = self._call("get_buffer", -1)
        if not self.is_ready():
            return
        with memoryview(buffer) as view:
            if not view:
                error = RuntimeError("get_buffer() returned an empty buffer")
                self._report(error, "Fatal error: protocol.get_buffer() failed")
                self.fail(error)
                return
            data = self._incoming.read(len(view))
            view[: len(data)] = data
        self._call("buffer_updated", len(data))

    def end_of_stream(self) -> None:
        """Tell the protocol that its peer sends no more; close unless it keeps its side open."""
        self._end_received = True
        if not self._call("eof_received"):
            self.close()

    # --- writing ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data` after everything that was written before.

        Raises `RuntimeError` after `write_eof`. Does nothing on a transport that is closing.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if data and not self.is_closing():
            self._unsent += data
            self._send()
            self._pause_writing_if_full()

    def can_write_eof(self) -> bool:
        """Return True: this side of the connection can be closed alone."""
        return True

    def write_eof(self) -> None:
        """Close this side of the connection after what was written."""
        if not self.is_closing() and not self._eof_written:
            self._eof_written = True
            self._send()

    def room_made(self) -> None:
        """Go on writing: the line has room."""
        if self._state in (_State.ENDING, _State.LOST):
            return
        self._send()
        if self._writing_paused and len(self._unsent) <= self._low:
            self._writing_paused = False
            self._tell("resume_writing")

    def _send(self) -> None:
        """Give the line what it takes, and then the end, if that is next."""
        if self._unsent:
            if self._outgoing.refuses:
                self._be_refused()
            with memoryview(self._unsent) as view:
                taken = self._outgoing.write(view)
            del self._unsent[:taken]
        if not self._unsent:
            if self._state is _State.CLOSING:
                self._end_soon(None)
            elif self._eof_written:
                self._outgoing.end()

    def _be_refused(self) -> None:
        """Notice that the peer is gone: first when reading, and when writing again."""
        if self._incoming.broken:
            self.fail(BrokenPipeError("the peer has closed the connection"))
        else:
            self._incoming.end(ConnectionResetError("the peer has closed the connection"))

    # --- flow control ---

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the line has not taken."""
        return len(self._unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high limit, in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Let the protocol pause above `high` bytes, and resume at `low`, or at a fourth of `high`.

        Raises `ValueError` unless `high >= low >= 0`.
        """
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._low, self._high = low, high
        self._pause_writing_if_full()

    def _pause_writing_if_full(self) -> None:
        if len(self._unsent) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._tell("pause_writing")

    # --- ending ---

    def is_closing(self) -> bool:
        """Return whether the transport is closing, or closed."""
        return self._state not in (_State.NEW, _State.OPEN)

    def close(self) -> None:
        """Read no more, let what was written go its way, then close."""
        if not self.is_closing():
            self._state = _State.CLOSING
            if not self._unsent:
                self._end_soon(None)

    def abort(self) -> None:
        """Close now; what the line has not taken is lost."""
        self._end_soon(None)

    def fail(self, error: BaseException) -> None:
        """Close now; `connection_lost` gets `error`."""
        self._end_soon(error)

    _force_close = fail  # asyncio's TLS calls it by this name.

    async def wait_closed(self) -> None:
        """Wait until `connection_lost` was called; cancelling this only ends the wait."""
        await self._closed.wait()

    def _end_soon(self, error: BaseException | None) -> None:
        if self._state not in (_State.ENDING, _State.LOST):
            self._state = _State.ENDING
            self._unsent.clear()
            self._loop.call_soon(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        self._state = _State.LOST
        unread = self._incoming.close_reading()
        self._outgoing.end(ConnectionResetError("the peer did not read it all") if unread else None)
        try:
            self._protocol.connection_lost(error)
        finally:
            self._closed.set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state.name.lower()} bufsize={len(self._unsent)}>"


def memory_pair(
    first: asyncio.BaseProtocol,
    second: asyncio.BaseProtocol,
    *,
    lines: tuple[Line, Line] | None = None,
    extra: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> tuple[MemoryTransport, MemoryTransport]:
    """Connect two protocols in memory; return their transports, in the same order.

    `connection_made` of both is called in the next turn of the running event loop. The first of `lines`
    carries what `first` sends, the second what `second` sends. `extra` is what `get_extra_info` of the
    first and of the second transport gives. Raises `RuntimeError` without a running event loop, and
    where a line was used before.
    """
    there, back = lines or (Line(), Line())
    one = MemoryTransport(first, back, there, extra[0])
    other = MemoryTransport(second, there, back, extra[1])
    there.connect(one, other)
    back.connect(other, one)
    return one, other
