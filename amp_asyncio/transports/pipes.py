"""PipeTransport: one transport made of two pipes, one to read from and one to write to.

Parent and child processes talk over pipes, but asyncio's pipe transports have one direction each. This
module joins two of them, so that a protocol can use them like a connection. The difficulty is the end,
because two pipes do not end at once: when a process dies, we may notice that its end of one pipe is
closed before we have read the data that it wrote to the other. So when one pipe can no longer be
written to, the other is still read.
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
    """Run a short coroutine to its end and return its result; a cancellation waits for the end.

    While a pipe is being connected or a process started, it is not defined who closes a descriptor.
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
    """Reads from one pipe and writes to another, on asyncio's loop and on uvloop; `connect` starts it.

    `write_eof` closes the pipe that is written to. `close` writes the rest of the buffer, and discards
    data that still arrives; `abort` closes both pipes now. TLS cannot be started over
    pipes. `get_extra_info("pipe")` returns the two files, the one to read from first.

    `at_end` is for a peer that is a process, which may have died. When a pipe ends, `at_end` gets a
    callback, and calls it when the reason is known. With `at_end`, the pipe that is read from also
    stays open after `close`, and its data is discarded, until `release` is called: otherwise SIGPIPE
    would end a process that still writes. Without `at_end`, a connection that cannot be written to is
    lost as soon as nothing is left to read or reading is paused, even if the protocol still has work to
    do.
    """

    _reading: asyncio.ReadTransport | None = None
    _writing: asyncio.WriteTransport | None = None
    # Whether the loop owns the pipes already, and whether both are connected.
    _connecting = False
    _connected = False
    # Whether connection_made was called, and whether connection_lost was called.
    _begun = False
    _lost = False
    _paused = False
    _closing = False
    _eof_written = False
    _eof_heard = False
    # Why we can no longer write, although we did not close; and the argument of connection_lost.
    _broken: Exception | None = None
    _error: BaseException | None = None

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
        # What arrived while reading was paused, or before the protocol was connected.
        self._deferred: list[_Callback] = []

    async def connect(self) -> None:
        """Connect the pipes, and call `connection_made`; the transport closes the pipes from now on.

        If it is cancelled, the connection is aborted.
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
        # Only when both are connected: uvloop does not close the file of one that is closed earlier.
        self._begun = True
        self._protocol.connection_made(self)
        if self._broken is not None:
            self._notice_end(self._lose_if_silent)
        self._loop.call_soon(self._catch_up)

    # --- events of the pipe that is read from ---

    def _data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._paused or not self._begun:
            self._deferred.append(partial(self._data_received, data))
            return
        try:
            feed(self._protocol, data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
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
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
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

    # --- events of the pipe that is written to ---

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
        """End the connection with `error`, after everything that the peer wrote has been read."""
        self._broken = self._broken or error
        self._lose_if_silent()

    def _lose_if_silent(self) -> None:
        """End a connection that cannot be written to, unless something is left to read."""
        patient = self._at_end is not None
        if self._closing or (self._eof_heard and patient):
            return  # The protocol has got eof_received, or will get it.
        if self._readable():
            if not self._paused:
                self._loop.call_soon(self._lose_if_silent)
                return
            if patient:
                return  # Checked again when reading resumes.
        self._fail(self._broken)

    def _readable(self) -> bool:
        if self._reading is None or self._eof_heard:
            return False
        poll = select.poll()
        poll.register(self._pipes[0], select.POLLIN)
        return bool(poll.poll(0))

    def _protocol_failed(self, error: BaseException) -> None:
        self._loop.call_exception_handler(
            {
                "message": "Fatal error: the protocol of a pipe transport failed",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self._fail(error)

    def _fail(self, error: BaseException | None) -> None:
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
            # asyncio fails if abort() is called on a transport that was closed or has closed itself.
            written = self._writing.get_write_buffer_size() == 0
            (self._writing.close if written else self._writing.abort)()
        if self._reading is not None:
            self._reading.close()
        self._loop.call_soon(self._finish)

    def _finish(self) -> None:
        """Call `connection_lost` if this transport was closed and both pipes are done."""
        if not self._closing or not self._begun or self._lost or self._writing is not None:
            return
        if self._reading is not None and not self._draining:
            self._reading.close()
            return
        self._lost = True
        self._protocol.connection_lost(self._error)

    def release(self) -> None:
        """Stop keeping the pipe that is read from open: its writers are gone."""
        self._draining = False
        if self._lost and self._reading is not None:
            self._reading.close()

    # --- the interface of asyncio.Transport ---

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver everything that arrives from now on to `protocol`."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the current protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Return whether the transport is closing, or closed."""
        return self._closing

    def close(self) -> None:
        """Write the rest of the buffer, then close both pipes; data that still arrives is discarded."""
        if self._closing:
            return
        if self._paused:
            self.resume_reading()  # The peer may read from us only after it has written to us.
        self._closing = True
        if self._writing is not None:
            self._writing.close()
        else:
            self._loop.call_soon(self._finish)

    def abort(self) -> None:
        """Close both pipes now; the rest of the write buffer is lost."""
        self._fail(None)

    def is_reading(self) -> bool:
        """Return whether the transport is reading."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Deliver nothing more to the protocol until `resume_reading` is called."""
        if self.is_reading():
            self._paused = True
            if self._reading is not None and not self._eof_heard:
                self._reading.pause_reading()

    def resume_reading(self) -> None:
        """Start delivering data again."""
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
        """Write `data`, now or when the pipe has room; it is discarded if the connection is closing."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._eof_written:
            raise RuntimeError("cannot write after write_eof()")
        if self._writing is not None and not self._closing:
            self._writing.write(data)

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def write_eof(self) -> None:
        """Close the pipe that is written to, after writing the buffer; the other is still read."""
        if not self._closing and not self._eof_written:
            self._eof_written = True
            if self._writing is not None:
                self._writing.close()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the buffer sizes, in bytes, for `pause_writing` and `resume_writing` of the protocol."""
        if self._writing is not None:
            self._writing.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high limit of the write buffer, in bytes."""
        return (0, 0) if self._writing is None else self._writing.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the pipe has not accepted yet."""
        return 0 if self._writing is None else self._writing.get_write_buffer_size()

    def __repr__(self) -> str:
        state = "lost" if self._lost else "closing" if self._closing else "open"
        return f"<{type(self).__name__} {state}>"


class _Reading(asyncio.Protocol):
    """The protocol of the pipe that is read from; it passes all events to the `PipeTransport`."""

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
    """The protocol of the pipe that is written to; it passes all events to the `PipeTransport`."""

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
