"""A clock that says when questions are due, to some microseconds.

The timers of event loops are as exact as `epoll_wait`, which counts milliseconds: ten times as long as
a call takes. So it is the kernel that counts (`timerfd`), and a loop reads when the file is readable.
"""

from __future__ import annotations

import ctypes
import os
from time import CLOCK_MONOTONIC, monotonic
from types import TracebackType

__all__ = ["Ticks", "now"]

now = monotonic

_NONBLOCK = os.O_NONBLOCK


class _Times(ctypes.Structure):
    """A `struct itimerspec`: the interval, and the time of the first."""

    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_ns", "first", "first_ns")]


class Ticks:
    """`count` ticks, `rate` in a second, from now on."""

    def __init__(self, rate: int, count: int) -> None:
        self._rate, self._count, self._said = rate, count, 0
        self._fd = _checked(_libc.timerfd_create(CLOCK_MONOTONIC, _NONBLOCK))
        nanoseconds = 1_000_000_000 // rate
        self._start = now()
        times = _Times(0, nanoseconds, 0, nanoseconds)
        _checked(_libc.timerfd_settime(self._fd, 0, ctypes.byref(times), None))

    def fileno(self) -> int:
        return self._fd

    def due(self) -> list[float]:
        """Return the times that have come since the last time this was asked."""
        try:
            ticks = int.from_bytes(os.read(self._fd, 8), "little")
        except BlockingIOError:
            return []
        first = self._said + 1
        self._said = min(self._said + ticks, self._count)
        return [self._start + number / self._rate for number in range(first, self._said + 1)]

    def __enter__(self) -> Ticks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)


_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
