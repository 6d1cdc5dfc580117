"""Data and descriptors in one stream: how a UNIX socket sends and receives both.

There is no event loop here, and no protocol: `Outgoing` keeps what the kernel has not taken yet, and
`receive` and `receive_into` read once. A descriptor goes along with one byte of the data, as
`SCM_RIGHTS`, and only one with each byte. The kernel would take more, but it never joins what has
descriptors to what follows, so the receiver gets each with its own byte, and never too many at once.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from collections import deque
from collections.abc import Iterable
from itertools import islice

__all__ = ["Outgoing", "receive", "receive_into"]

# How many pieces are sent at once: fewer than any kernel refuses (IOV_MAX).
_PIECES = 1024
# Room for as many descriptors as Linux lets anybody send at once: 253.
_ANCILLARY_SIZE = socket.CMSG_SPACE(253 * array.array("i").itemsize)
# Where the kernel cannot say it when it makes the descriptor, it is said afterwards.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Outgoing:
    """What is to be sent, in order; `size` says how many bytes of data that are."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[bytes | memoryview] = deque()
        # How much the kernel has taken; and the descriptors that wait, each with the position in the
        # stream that it belongs to.
        self._sent = 0
        self._descriptors: deque[tuple[int, int]] = deque()

    def append(self, pieces: Iterable[bytes]) -> None:
        """Send data behind all else; no piece is empty."""
        for piece in pieces:
            self._pieces.append(piece)
            self.size += len(piece)

    def append_descriptor(self, descriptor: int) -> None:
        """Send a descriptor along with the next byte; it is closed here then."""
        self._descriptors.append((self._sent + self.size, descriptor))

    def send(self, sock: socket.socket) -> None:
        """Send what the kernel takes: all at once, or up to the next descriptor, and that with a byte.

        That goes on for some descriptors, and not for ever: others want the loop, too. Raises `OSError`
        where the connection is lost.
        """
        try:
            for _ in range(_PIECES):
                if not self._descriptors:
                    self._take_out(sock.sendmsg(islice(self._pieces, _PIECES)))
                    break
                if (gap := self._descriptors[0][0] - self._sent) > 0:
                    sent = sock.send(memoryview(self._pieces[0])[:gap])
                else:
                    rights = array.array("i", [self._descriptors[0][1]])
                    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                    sent = sock.sendmsg([memoryview(self._pieces[0])[:1]], ancillary)
                    os.close(self._descriptors.popleft()[1])
                self._take_out(sent)
                if not self.size:
                    break
        except (BlockingIOError, InterruptedError):
            pass

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
        """Send none of it; the descriptors are closed."""
        self._pieces.clear()
        self.size = 0
        while self._descriptors:
            os.close(self._descriptors.popleft()[1])


def receive(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Return up to `size` bytes, and the descriptors that came with them.

    No child process inherits these. Raises `BlockingIOError` where there is nothing, and `OSError`
    where the connection is lost, or where descriptors came that this process has no room for.
    """
    data, ancillary, flags, _ = sock.recvmsg(size, _ANCILLARY_SIZE, _CLOSE_ON_EXEC)
    return data, _descriptors(ancillary, flags)


def receive_into(sock: socket.socket, buffer: memoryview | bytearray) -> tuple[int, list[int]]:
    """Fill a buffer, as `receive` does; return how many bytes came, and the descriptors."""
    size, ancillary, flags, _ = sock.recvmsg_into([buffer], _ANCILLARY_SIZE, _CLOSE_ON_EXEC)
    return size, _descriptors(ancillary, flags)


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]], flags: int) -> list[int]:
    """Return the descriptors that came with a message, none of which a child process inherits.

    Raises `OSError` where the kernel dropped some: those that come would be counted wrongly from
    there on.
    """
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if not _CLOSE_ON_EXEC:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
    if flags & socket.MSG_CTRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(errno.EMFILE, "descriptors came that this process has no room for")
    return descriptors.tolist()
