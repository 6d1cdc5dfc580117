"""A transport for UNIX sockets that carries descriptors.

A UNIX socket takes an open file along with a byte of its stream, and gives the receiver a descriptor
of its own for it. asyncio's transports read with calls that have the kernel drop what came along; so
here is one that does not. It is what `asyncio.Transport` says, and behaves as asyncio's own does, on
any event loop that has `add_reader` and `add_writer`. Beyond that,

- `send_descriptor(fd)` has a descriptor sent, along with the first byte that is written behind it;
- a protocol that has a method `descriptor_received(fd)` is given each descriptor that came, before
  the data that it came with; where the protocol has none, descriptors are closed.

What goes over the socket, and how, is in `rights.py`; here is when.
"""

from __future__ import annotations

import asyncio
import os
import socket
import warnings
from asyncio.trsock import TransportSocket
from collections.abc import Iterable
from typing import Any

from .rights import Outgoing, receive, receive_into

__all__ = ["DescriptorTransport"]

# How many bytes are read at once, as in asyncio.
_READ_SIZE = 256 * 1024


class DescriptorTransport(asyncio.Transport):
    """The transport of a connected UNIX stream socket, which it owns from here on.

    `connection_made` of `protocol` is called in the next turn of the event loop; `waiter`, if any, is
    resolved behind it. `get_extra_info` knows "socket", "sockname" and "peername".
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
        self._reading = False  # Whether the loop watches the socket for us.
        self._paused = False
        self._eof_received = False
        self._closing = False
        self._ended = False  # Whether connection_lost was called, or will be in the next turn.
        self._outgoing = Outgoing()  # What the kernel has not taken yet.
        self._eof_written = False
        self._writing_paused = False
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
        """Give `protocol` all that comes from here on."""
        self._protocol: Any = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that gets what comes."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    # --- reading ---

    def is_reading(self) -> bool:
        """Return whether what comes is read."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Read nothing more before `resume_reading` is called."""
        self._paused = True
        self._watch()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._paused = False
        self._watch()

    def _watch(self) -> None:
        """Have the loop watch the socket just while we want to read."""
        wanted = self._begun and not (self._paused or self._closing or self._eof_received)
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._fd, self._read)
            else:
                self._loop.remove_reader(self._fd)

    def _read(self) -> None:
        """Read once, and give the protocol what came."""
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
        """Give the protocol a descriptor; close one that it does not take."""
        if self._closing or not hasattr(self._protocol, "descriptor_received"):
            os.close(descriptor)
        else:
            self._call("descriptor_received", descriptor)

    def _end_of_stream(self) -> None:
        if self._call("eof_received") and not self._closing:
            self._eof_received = True
            self._watch()
        else:
            self.close()

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the protocol; one that raises ends the connection."""
        try:
            return getattr(self._protocol, method)(*arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, f"Fatal error: protocol.{method}() failed")

    # --- writing ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data` behind all that was written before."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"what is written is bytes-like, not {type(data).__name__!r}")
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write several pieces of data, in order."""
        if self._eof_written:
            raise RuntimeError("nothing can be written behind write_eof()")
        # What the caller may change, once this returns, is copied.
        pieces = [data if isinstance(data, bytes) else bytes(data) for data in list_of_data if data]
        if self._ended or not pieces:
            return
        idle = not self._outgoing.size
        self._outgoing.append(pieces)
        if idle:
            # What the kernel takes at once need not wait for the loop.
            self._send()
            if self._outgoing.size:
                self._loop.add_writer(self._fd, self._write_ready)
        self._pause_writing_if_full()

    def send_descriptor(self, descriptor: int) -> None:
        """Send a descriptor along with the next byte that is written; it is closed here then.

        The transport owns it from here on: it is closed in any case, also where it cannot be sent.
        Raises `RuntimeError` where no byte can come any more.
        """
        if self._eof_written:
            os.close(descriptor)
            raise RuntimeError("no descriptor can be sent behind write_eof()")
        if self._ended:
            os.close(descriptor)
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
        if self._writing_paused and self._outgoing.size <= self._low and not self._ended:
            self._writing_paused = False
            self._tell("resume_writing")  # It may write, or close.
        if not self._outgoing.size and not self._ended:
            self._loop.remove_writer(self._fd)
            if self._closing:
                self._end(None)
            elif self._eof_written:
                self._shut_down()

    def can_write_eof(self) -> bool:
        """Return True: this side of the connection can be closed alone."""
        return True

    def write_eof(self) -> None:
        """Close this side of the connection behind what was written."""
        if self._closing or self._eof_written:
            return
        self._eof_written = True
        if not self._outgoing.size:
            self._shut_down()

    def _shut_down(self) -> None:
        assert self._sock is not None
        self._outgoing.drop()  # These are descriptors, and no byte can take them along any more.
        self._sock.shutdown(socket.SHUT_WR)

    # --- flow control ---

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the kernel has not taken yet."""
        return self._outgoing.size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high limit, in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Have the protocol pause above `high` bytes, and resume at `low`, or a fourth of `high`."""
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._low, self._high = low, high
        self._pause_writing_if_full()

    def _pause_writing_if_full(self) -> None:
        if self._outgoing.size > self._high and not self._writing_paused:
            self._writing_paused = True
            self._tell("pause_writing")

    def _tell(self, method: str) -> None:
        """Call a method of the protocol; what it raises is the loop's to report, as in asyncio."""
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
        """Read no more, write what was written so far, then close."""
        if not self._closing:
            self._closing = True
            self._watch()
            if not self._outgoing.size:
                self._end_soon(None)

    def abort(self) -> None:
        """Close now; what the kernel has not taken yet is lost."""
        self._end_soon(None)

    def _fail(self, error: BaseException, message: str) -> None:
        """Close because of an error; one that is not of the network is reported, too."""
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
        sock, self._sock = self._sock, None
        assert sock is not None
        try:
            self._protocol.connection_lost(error)
        finally:
            sock.close()
            self._protocol = None

    def __del__(self) -> None:
        if self._sock is not None:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._outgoing.drop()
            self._sock.close()

    def __repr__(self) -> str:
        state = "closed" if self._sock is None else "closing" if self._closing else "open"
        return f"<{type(self).__name__} {state} fd={self._fd} bufsize={self._outgoing.size}>"
