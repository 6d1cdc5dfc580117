"""A transport for UNIX sockets that carries descriptors.

A UNIX socket can send an open file together with a byte of its stream; the receiver gets its own
descriptor for it. asyncio's transports read with system calls that drop descriptors, so this module has
one that keeps them. It implements `asyncio.Transport` and behaves like asyncio's own, on any event loop
that has `add_reader` and `add_writer`. In addition:

- `send_descriptor(fd)` sends a descriptor together with the first byte that is written after it;
- a protocol with a method `descriptor_received(fd)` gets each descriptor before the data that it came
  with; if the protocol does not have this method, descriptors are closed.

`rights.py` does the system calls; this module decides when to make them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import warnings
from asyncio.trsock import TransportSocket
from collections.abc import Iterable
from typing import Any

from ..descriptors import discard
from .hangup import HangUp
from .rights import Outgoing, close, receive, receive_into

__all__ = ["DescriptorTransport"]

# How many bytes are read at once: the same as in asyncio.
_READ_SIZE = 256 * 1024
# With more descriptors than this that wait to be sent, the protocol pauses writing.
_MANY_DESCRIPTORS = 16


class DescriptorTransport(asyncio.Transport):
    """The transport of a connected UNIX stream socket, which it owns from now on.

    `connection_made` of `protocol` is called in the next turn of the event loop; after that, `waiter`
    gets its result. `get_extra_info` has "socket", "sockname" and "peername".
    """

    _sock: socket.socket | None = None

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
    ) -> None:
        sock.setblocking(False)
        extra = {"socket": TransportSocket(sock), "sockname": sock.getsockname()}
        extra["peername"] = sock.getpeername()
        super().__init__(extra)
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._begun = False
        self._released = False  # Whether another socket goes on with the connection.
        self._reading = False  # Whether the loop watches the socket.
        self._paused = False
        self._eof_received = False
        self._closing = False
        self._ended = False  # Whether connection_lost was called, or will be in the next turn.
        self._outgoing = Outgoing()
        self._eof_written = False
        self._writing_paused = False
        self._hang_up: HangUp | None = None
        self.set_write_buffer_limits()
        self.set_protocol(protocol)
        loop.call_soon(self._begin, waiter)

    def _begin(self, waiter: asyncio.Future[None] | None) -> None:
        self._begun = True
        self._call("connection_made", self)
        self._watch()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- the protocol ---

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver everything that arrives from now on to `protocol`."""
        self._protocol: Any = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the current protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    # --- reading ---

    def is_reading(self) -> bool:
        """Return whether the transport is reading."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Read nothing more until `resume_reading` is called."""
        self._paused = True
        self._watch()

    def resume_reading(self) -> None:
        """Start reading again."""
        self._paused = False
        self._watch()

    def _watch(self) -> None:
        """Start or stop watching the socket, depending on whether we want to read."""
        wanted = self._begun and not (self._paused or self._closing or self._eof_received)
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._fd, self._read)
            else:
                self._loop.remove_reader(self._fd)

    def _read(self) -> None:
        """Read once, and deliver the result to the protocol."""
        data = b""
        buffer = self._call("get_buffer", -1) if self._buffered else None
        if not self._reading or self._sock is None:
            return
        try:
            if buffer is None:
                data, descriptors = receive(self._sock, _READ_SIZE)
                size = len(data)
            elif not len(buffer):
                raise RuntimeError("get_buffer() returned an empty buffer")
            else:
                size, descriptors = receive_into(self._sock, buffer)
        except (BlockingIOError, InterruptedError):
            return
        except Exception as error:
            self._fail(error, "Fatal read error on a UNIX socket")
            return
        for descriptor in descriptors:
            self._give(descriptor)
        if self._closing:
            return
        if not size:
            self._end_of_stream()
        elif buffer is None:
            self._call("data_received", data)
        else:
            self._call("buffer_updated", size)

    def _give(self, descriptor: int) -> None:
        """Deliver a descriptor to the protocol, or close it if the protocol does not accept any."""
        if self._closing or not hasattr(self._protocol, "descriptor_received"):
            discard((descriptor,))
        else:
            self._call("descriptor_received", descriptor)

    def _end_of_stream(self) -> None:
        if self._call("eof_received") and not self._closing:
            self._eof_received = True
            self._watch()
            with contextlib.suppress(OSError):  # Without it, the next write notices the hang-up.
                self._hang_up = HangUp(self._loop, self._fd, self._peer_hung_up)
        else:
            self.close()

    def _peer_hung_up(self) -> None:
        """End a connection that was kept open for a peer that is gone; a write would notice it, too."""
        if not self._outgoing.size and not self._eof_written:
            self._end_soon(None)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the protocol; if it raises, the connection ends."""
        try:
            return getattr(self._protocol, method)(*arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, f"Fatal error: protocol.{method}() failed")

    # --- writing ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data`, or buffer what the kernel does not accept yet."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__!r}")
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write several pieces of data, in order."""
        if self._eof_written:
            raise RuntimeError("cannot write after write_eof()")
        # Mutable data is copied, because the caller may change it later.
        pieces = [data if isinstance(data, bytes) else bytes(data) for data in list_of_data if data]
        if self._ended or not pieces:
            return
        idle = not self._outgoing.size
        self._outgoing.append(pieces)
        if idle:
            # Try at once: if the kernel accepts everything, the loop need not watch the socket.
            self._send()
            if self._outgoing.size:
                self._loop.add_writer(self._fd, self._write_ready)
        self._pause_writing_if_full()

    def send_descriptor(self, descriptor: int) -> None:
        """Send a descriptor together with the next byte that is written.

        The transport owns it from now on: it closes the descriptor after sending it, and also if it
        cannot be sent. Raises `RuntimeError` after `write_eof`.
        """
        if self._eof_written:
            discard((descriptor,))
            raise RuntimeError("cannot send a descriptor after write_eof()")
        if self._ended:
            discard((descriptor,))
        else:
            self._outgoing.append_descriptor(descriptor)

    def _send(self) -> None:
        assert self._sock is not None
        try:
            self._outgoing.send(self._sock)
        except Exception as error:
            self._fail(error, "Fatal write error on a UNIX socket")

    def _write_ready(self) -> None:
        self._send()
        if self._writing_paused and self._has_room() and not self._ended:
            self._writing_paused = False
            self._tell("resume_writing")  # This may write more, or close.
        if not self._outgoing.size and not self._ended:
            self._loop.remove_writer(self._fd)
            if self._closing:
                self._end(None)
            elif self._eof_written:
                self._shut_down()

    def can_write_eof(self) -> bool:
        """Return True: one direction of the connection can be closed alone."""
        return True

    def write_eof(self) -> None:
        """Close the direction that we write to, after everything written so far is sent."""
        if self._closing or self._eof_written:
            return
        self._eof_written = True
        if not self._outgoing.size:
            self._shut_down()

    def _shut_down(self) -> None:
        assert self._sock is not None
        self._outgoing.drop()  # Only descriptors can be left, and no byte follows to send them with.
        self._sock.shutdown(socket.SHUT_WR)

    # --- flow control ---

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the kernel has not accepted yet."""
        return self._outgoing.size

    def get_unsent_descriptors(self) -> int:
        """Return how many descriptors the kernel has not accepted yet."""
        return self._outgoing.descriptors

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high limit of the write buffer, in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Make the protocol pause writing above `high` bytes, and resume at `low` or fewer.

        The defaults are asyncio's: `high` is 64 KiB, or four times a given `low`; `low` is a fourth of
        `high`. Raises `ValueError` unless `high >= low >= 0`. More than a few descriptors that wait
        have the same effect.
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
        full = self._outgoing.size > self._high or self._outgoing.descriptors > _MANY_DESCRIPTORS
        if full and not self._writing_paused:
            self._writing_paused = True
            self._tell("pause_writing")

    def _has_room(self) -> bool:
        """Return whether so much was sent that the protocol may go on writing."""
        size = self._outgoing.size
        few = self._outgoing.descriptors <= _MANY_DESCRIPTORS // 4
        return not size or (size <= self._low and few)

    def _tell(self, method: str) -> None:
        """Call a method of the protocol; if it raises, the loop reports that, as in asyncio."""
        try:
            getattr(self._protocol, method)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report(error, f"protocol.{method}() failed")

    # --- ending ---

    def is_closing(self) -> bool:
        """Return whether the transport is closing, or closed."""
        return self._closing

    def close(self) -> None:
        """Stop reading, send everything written so far, then close."""
        if not self._closing:
            self._closing = True
            self._watch()
            if not self._outgoing.size:
                self._end_soon(None)

    def abort(self) -> None:
        """Close now; what the kernel has not accepted yet is lost."""
        self._end_soon(None)

    def release(self) -> None:
        """End as `abort` does, and let the connection go on with another socket that has it."""
        self._released = True
        self._end_soon(None)

    def _fail(self, error: BaseException, message: str) -> None:
        """Close because of an error; the loop reports it unless it is an `OSError`."""
        if not isinstance(error, OSError):
            self._report(error, message)
        self._end_soon(error)

    def _report(self, error: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def _end_soon(self, error: BaseException | None) -> None:
        if not self._ended:
            self._closing = self._ended = True
            self._watch()
            self._loop.remove_writer(self._fd)
            self._outgoing.drop()
            self._loop.call_soon(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        self._ended = True
        self._outgoing.drop()
        if self._hang_up is not None:
            self._hang_up.cancel()
        sock, self._sock = self._sock, None
        assert sock is not None
        try:
            self._protocol.connection_lost(error)
        finally:
            if self._released:
                sock.close()
            else:
                close(sock)
            self._protocol = None

    def __del__(self) -> None:
        if self._sock is not None:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._outgoing.drop()
            close(self._sock)

    def __repr__(self) -> str:
        state = "closed" if self._sock is None else "closing" if self._closing else "open"
        return f"<{type(self).__name__} {state} fd={self._fd} bufsize={self._outgoing.size}>"
