"""Sending and receiving data and descriptors over one UNIX socket, without an event loop.

`Outgoing` holds what the kernel has not accepted yet; `receive` and `receive_into` read once. Each
descriptor is sent as `SCM_RIGHTS` together with one byte of the data, and no other descriptor. The
kernel would accept more than one, but it never merges a message that has descriptors with later data.
So the receiver gets each descriptor with its own byte, and never too many at once. Only if more of
them are due at one byte than the smallest box has bytes, they go together with that byte: none may come
after its box.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import termios
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from itertools import islice

from ..descriptors import discard, in_background

__all__ = ["Outgoing", "close", "receive", "receive_into"]

# The most pieces in one sendmsg call: IOV_MAX of Linux, the BSDs and macOS.
_PIECES = 1024
# The most descriptors that Linux allows in one message (SCM_MAX_FD), and room for them.
_MOST = 253
_ANCILLARY_SIZE = socket.CMSG_SPACE(_MOST * array.array("i").itemsize)
# With more descriptors than these at one byte, they share it. A box with a descriptor is longer.
_FEW = 16
# How many bytes are dropped at once.
_DRAIN_SIZE = 64 * 1024
# 0 if the kernel does not have this flag; descriptors are then made non-inheritable after receiving.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Outgoing:
    """Data and descriptors waiting to be sent, in order; `size` is the number of bytes of data."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[bytes | memoryview] = deque()
        # The number of bytes sent so far, and the descriptors, each with its position in the stream.
        self._sent = 0
        self._descriptors: deque[tuple[int, int]] = deque()

    @property
    def descriptors(self) -> int:
        """How many descriptors wait."""
        return len(self._descriptors)

    def append(self, pieces: Iterable[bytes]) -> None:
        """Queue data after everything else. The pieces must not be empty."""
        for piece in pieces:
            self._pieces.append(piece)
            self.size += len(piece)

    def append_descriptor(self, descriptor: int) -> None:
        """Queue a descriptor, to be sent with the next byte that is queued, and then closed here."""
        self._descriptors.append((self._sent + self.size, descriptor))

    def send(self, sock: socket.socket) -> None:
        """Send as much as the kernel accepts: everything up to a descriptor, then that with one byte.

        The number of system calls is limited, so that one connection does not block the event loop.
        Raises `OSError` if the connection is lost.
        """
        try:
            for _ in range(_PIECES):
                if not self._descriptors:
                    self._take_out(sock.sendmsg(islice(self._pieces, _PIECES)))
                    break
                if (gap := self._descriptors[0][0] - self._sent) > 0:
                    sent = sock.send(memoryview(self._pieces[0])[:gap])
                else:
                    rights = array.array("i", self._due())
                    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                    sent = sock.sendmsg([memoryview(self._pieces[0])[:1]], ancillary)
                    for _ in rights:
                        os.close(self._descriptors.popleft()[1])
                self._take_out(sent)
                if not self.size:
                    break
        except (BlockingIOError, InterruptedError):
            pass

    def _due(self) -> list[int]:
        """Return the descriptors that leave with the next byte."""
        waiting, sent = self._descriptors, self._sent
        if len(waiting) <= _FEW or waiting[_FEW][0] > sent:
            return [waiting[0][1]]
        return [descriptor for position, descriptor in islice(waiting, _MOST) if position <= sent]

    def _take_out(self, size: int) -> None:
        self._sent += size
        self.size -= size
        while size:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(memoryview(piece)[size:])
                break
            size -= len(piece)

    def drop(self) -> None:
        """Discard everything that is queued, and close the descriptors."""
        self._pieces.clear()
        self.size = 0
        descriptors, self._descriptors = self._descriptors, deque()
        discard(descriptor for _, descriptor in descriptors)


def receive(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Return up to `size` bytes, and the descriptors that came with them.

    Child processes do not inherit the descriptors. Raises `BlockingIOError` if nothing waits to be
    read, and `OSError` if the connection is lost or this process cannot hold the descriptors received.
    """
    data, ancillary, flags, _ = sock.recvmsg(size, _ANCILLARY_SIZE, _CLOSE_ON_EXEC)
    return data, _descriptors(ancillary, flags)


def receive_into(sock: socket.socket, buffer: memoryview | bytearray) -> tuple[int, list[int]]:
    """Like `receive`, but read into `buffer`; return the number of bytes, and the descriptors."""
    size, ancillary, flags, _ = sock.recvmsg_into([buffer], _ANCILLARY_SIZE, _CLOSE_ON_EXEC)
    return size, _descriptors(ancillary, flags)


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]], flags: int) -> list[int]:
    """Return the descriptors that came with a message; child processes do not inherit them.

    Raises `OSError` if the kernel dropped some, because later ones would then be counted wrongly.
    """
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if not _CLOSE_ON_EXEC:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
    if flags & socket.MSG_CTRUNC:
        discard(descriptors)
        raise OSError(errno.EMFILE, "this process has no room for the descriptors that it received")
    return descriptors.tolist()


def close(sock: socket.socket) -> None:
    """Close a socket; what was not read of it is dropped, also by another process that has it.

    Descriptors in there would be closed along with it, which may take long: see `descriptors.py`.
    """
    with suppress(OSError):  # From now on, nothing more comes.
        sock.shutdown(socket.SHUT_RDWR)
    if any(fcntl.ioctl(sock, termios.FIONREAD, bytes(4))):
        in_background(partial(_drain, sock))
    else:
        sock.close()


def _drain(sock: socket.socket) -> None:
    with sock, suppress(OSError):  # `receive` raises when nothing is left.
        data = b"unread"
        while data:
            data, descriptors = receive(sock, _DRAIN_SIZE)
            discard(descriptors)
