"""PipeTransport: one transport made of two pipes, one to read from and one to write to.

Processes that are parent and child talk over pipes, and asyncio has a transport for each direction
alone. Here the two are put together, so that all that runs over a connection runs over them. They fit
but for the end. Two pipes do not end at once: when a process dies, its end of the one may be noticed
before what it had still written into the other. So a pipe that takes nothing more is no reason to look
away from the one that may still give something.
"""

from __future__ import annotations

import asyncio
import errno
import select
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from io import FileIO
from typing import Any, TypeAlias, TypeVar

from .feeding import feed

__all__ = ["PipeTransport", "unbroken"]

_Callback: TypeAlias = Callable[[], None]

_T = TypeVar("_T")


async def unbroken(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return what `coroutine` returns, which takes a turn or two of the loop; be cancelled after it.

    In the middle of connecting a pipe or starting a process, nobody can say whose a descriptor is.
    """
    task = asyncio.get_running_loop().create_task(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


class PipeTransport(asyncio.Transport):
    """Reads from one pipe and writes to another; made by `connect`, on asyncio's loop and on uvloop.

    `write_eof` closes the pipe that is written to. `close` writes what was not written yet, and throws
    away what still comes; `abort` closes both pipes now. There is no socket, and so TLS cannot be
    started on it. `get_extra_info("pipe")` is the two files, the one to read from first.

    With `at_end`, the other side is a process that may have died. It is called with what is to be done
    about an end, and does it when it is known why. And when `close` is done, the pipe that is read from
    stays open, and what comes is thrown away, until `release` is called: a process that still writes
    when we have closed would else be ended by SIGPIPE. Without `at_end`, a connection that cannot be
    written to is lost at once, whatever its protocol still has to do.
    """

    _reading: asyncio.ReadTransport | None = None
    _writing: asyncio.WriteTransport | None = None
    # Whether the pipes are the loop's by now, and whether it is done with connecting them.
    _connecting = False
    _connected = False
    # Whether the protocol was told that it is connected, and that it is not any more.
    _begun = False
    _lost = False
    _paused = False
    _closing = False
    _eof_written = False
    _eof_heard = False
    # Why it cannot be written to any more, though it was not closed; what `connection_lost` will say.
    _broken: Exception | None = None
    _error: Exception | None = None

    def __init__(
        self,
        protocol: asyncio.BaseProtocol,
        reads: FileIO,
        writes: FileIO,
        extra: Mapping[str, Any],
        at_end: Callable[[_Callback], None] | None = None,
    ) -> None:
        super().__init__({"pipe": (reads, writes), **extra})
        self._pipes = (reads, writes)
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = protocol
        self._at_end = at_end
        self._draining = at_end is not None
        # What came before the protocol was connected.
        self._deferred: list[_Callback] = []

    async def connect(self) -> None:
        """Connect the pipes, which are the transport's to close from here on, and tell the protocol.

        Cancelling it aborts the connection.
        """
        self._connecting = True
        try:
            await unbroken(self._connect())
        except asyncio.CancelledError:
            self.abort()
            raise

    async def _connect(self) -> None:
        reads, writes = self._pipes
        await self._loop.connect_write_pipe(lambda: _Writing(self), writes)
        await self._loop.connect_read_pipe(lambda: _Reading(self), reads)
        self._connected = True
        if self._closing:
            self.abort()
            return
        # Not before both are connected: uvloop does not close the file of one that is closed earlier.
        self._begun = True
        self._protocol.connection_made(self)
        if self._broken is not None:
            self._notice_end(self._lose_if_silent)
        self._loop.call_soon(self._catch_up)

    # --- what the pipe that is read from says ---

    def _data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._paused or not self._begun:
            self._deferred.append(partial(self._data_received, data))
            return
        try:
            feed(self._protocol, data)
        except Exception as error:
            self._protocol_failed(error)

    def _eof_received(self) -> None:
        self._eof_heard = True
        if self._paused or not self._begun:
            self._deferred.append(self._hear_eof)
        else:
            self._hear_eof()

    def _hear_eof(self) -> None:
        if self._eof_written:
            self._tell_eof()
        else:
            self._notice_end(self._tell_eof)

    def _tell_eof(self) -> None:
        if self._closing:
            return
        try:
            keep_open = self._protocol.eof_received()
        except Exception as error:
            self._protocol_failed(error)
            return
        if not keep_open:
            self.close()
        elif self._broken is not None:
            self._lose_if_silent()

    def _reading_lost(self, error: Exception | None) -> None:
        self._reading = None
        if error is not None:
            self._fail(error)
        self._finish()

    # --- what the pipe that is written to says ---

    def _writing_lost(self, error: Exception | None) -> None:
        self._writing = None
        if self._closing or self._eof_written:
            self._error = self._error or error
            self._finish()
            return
        self._broken = error or BrokenPipeError(errno.EPIPE, "the other side has closed the pipe")
        if self._begun:
            self._notice_end(self._lose_if_silent)

    # --- ending ---

    def _notice_end(self, go_on: _Callback) -> None:
        if self._at_end is None:
            go_on()
        else:
            self._at_end(go_on)

    def end(self, error: Exception) -> None:
        """Lose the connection because of `error`, once all that was written to us is read."""
        self._broken = self._broken or error
        self._lose_if_silent()

    def _lose_if_silent(self) -> None:
        """Lose a connection that cannot be written to, unless there is something to be read."""
        patient = self._at_end is not None
        if self._closing or (self._eof_heard and patient):
            return  # The protocol was told, or will be, that it has heard everything.
        if self._readable():
            if not self._paused:
                self._loop.call_soon(self._lose_if_silent)
                return
            if patient:
                return  # It is looked at again when reading goes on.
        self._fail(self._broken)

    def _readable(self) -> bool:
        if self._reading is None or self._eof_heard:
            return False
        poll = select.poll()
        poll.register(self._pipes[0], select.POLLIN)
        return bool(poll.poll(0))

    def _protocol_failed(self, error: Exception) -> None:
        self._loop.call_exception_handler(
            {
                "message": "Fatal error: the protocol of a pipe transport failed",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self._fail(error)

    def _fail(self, error: Exception | None) -> None:
        """Close both pipes now."""
        self._error = self._error or error
        self._closing = True
        self._draining = False
        if not self._connecting:
            for file in self._pipes:
                file.close()
        if not self._connected:
            return
        if self._writing is not None:
            # (asyncio fails where it is aborted when it was closed, or has closed itself.)
            written = self._writing.get_write_buffer_size() == 0
            (self._writing.close if written else self._writing.abort)()
        if self._reading is not None:
            self._reading.close()
        self._loop.call_soon(self._finish)

    def _finish(self) -> None:
        """Tell the protocol that the connection is lost, when it was closed and both pipes are."""
        if not self._closing or not self._begun or self._lost or self._writing is not None:
            return
        if self._reading is not None and not self._draining:
            self._reading.close()
            return
        self._lost = True
        self._protocol.connection_lost(self._error)

    def release(self) -> None:
        """Close the pipe that is read from, or let it be closed with the other: nobody is there."""
        self._draining = False
        if self._lost and self._reading is not None:
            self._reading.close()

    # --- what a transport does ---

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give all that comes from here on to `protocol`."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Return whether it is closed, or about to be."""
        return self._closing

    def close(self) -> None:
        """Write what was not written yet, then close both pipes; what still comes is thrown away."""
        if self._closing:
            return
        if self._paused:
            self.resume_reading()  # Who still writes to us may have to before it reads.
        self._closing = True
        if self._writing is not None:
            self._writing.close()
        else:
            self._loop.call_soon(self._finish)

    def abort(self) -> None:
        """Close both pipes now; what was not written yet is lost."""
        self._fail(None)

    def is_reading(self) -> bool:
        """Return whether the protocol gets what comes."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Give the protocol nothing more, until `resume_reading` is called."""
        if self.is_reading():
            self._paused = True
            if self._reading is not None and not self._eof_heard:
                self._reading.pause_reading()

    def resume_reading(self) -> None:
        """Give the protocol what comes."""
        if self._paused and not self._closing:
            self._paused = False
            if self._reading is not None and not self._eof_heard:
                self._reading.resume_reading()
            if self._deferred:
                self._loop.call_soon(self._catch_up)
            if self._broken is not None:
                self._loop.call_soon(self._lose_if_silent)

    def _catch_up(self) -> None:
        while self._deferred and not self._paused:
            self._deferred.pop(0)()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data`, now or when the pipe takes it; goes nowhere where the connection is lost."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._writing is not None and not self._closing:
            self._writing.write(data)

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def write_eof(self) -> None:
        """Close the pipe that is written to, once all is written; the other can still be read from."""
        if not self._closing and not self._eof_written:
            self._eof_written = True
            if self._writing is not None:
                self._writing.close()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` and `resume_writing` of the protocol are called, in bytes."""
        if self._writing is not None:
            self._writing.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits, the lower first."""
        return (0, 0) if self._writing is None else self._writing.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the pipe has not taken yet."""
        return 0 if self._writing is None else self._writing.get_write_buffer_size()

    def __repr__(self) -> str:
        state = "lost" if self._lost else "closing" if self._closing else "open"
        return f"<{type(self).__name__} {state}>"


class _Reading(asyncio.Protocol):
    """What asyncio tells about the pipe that is read from."""

    def __init__(self, owner: PipeTransport) -> None:
        self._owner = owner

    def connection_made(self, transport: Any) -> None:
        self._owner._reading = transport

    def data_received(self, data: bytes) -> None:
        self._owner._data_received(data)

    def eof_received(self) -> None:
        self._owner._eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner._reading_lost(exc)


class _Writing(asyncio.BaseProtocol):
    """What asyncio tells about the pipe that is written to."""

    def __init__(self, owner: PipeTransport) -> None:
        self._owner = owner

    def connection_made(self, transport: Any) -> None:
        self._owner._writing = transport

    def pause_writing(self) -> None:
        self._owner._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._owner._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner._writing_lost(exc)
