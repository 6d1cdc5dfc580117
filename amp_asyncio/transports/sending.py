"""Sending: how much of what was written the other end has not taken yet."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import sys
import termios
from typing import Final

__all__ = ["unacknowledged"]

# With less than this in the kernel, nothing is said about the other end: a peer that was stopped takes
# that much, since its own kernel does.
_LITTLE: Final = 64 * 1024


def unacknowledged(transport: asyncio.BaseTransport | None) -> int:
    """Return how many bytes the other end has not taken; 0 for few, or where that is not known."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sys.platform != "linux":
        return 0
    try:
        waiting = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):  # It may have been closed.
        return 0
    (size,) = struct.unpack("i", waiting)
    return size if size > _LITTLE else 0
