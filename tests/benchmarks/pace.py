"""Calls at a fixed rate: when each is due, and how long after that its answer came.

The timers of event loops are as exact as `epoll_wait`, which counts milliseconds: ten times as long as
a call takes. So it is the kernel that counts (`timerfd`), and a loop reads when the file is readable.
"""

from __future__ import annotations

import ctypes
import os
from time import CLOCK_MONOTONIC, monotonic

__all__ = ["Pace"]

#: Calls are given up when as many are open as are due in so many seconds.
PATIENCE = 0.25


class _Times(ctypes.Structure):
    """A `struct itimerspec`: the interval, and the time of the first."""

    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_ns", "first", "first_ns")]


class Pace:
    """`count` calls, `rate` in a second, from now on.

    The caller watches `fileno()`, asks once for each time that `due()` returns, and says what became of
    it. When `ended` is true, `latencies` are complete. There are none if a call failed, or if the peer
    did not keep up.
    """

    def __init__(self, rate: int, count: int) -> None:
        self._rate, self._count = rate, count
        self._asked = self._open = 0
        self._gave_up = False
        self._latencies: list[float] = []
        self._fd = _checked(_libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK))
        nanoseconds = 1_000_000_000 // rate
        self._start = monotonic()
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
        if self._gave_up:
            return []
        first = self._asked + 1
        self._asked = min(self._asked + ticks, self._count)
        self._open += self._asked + 1 - first
        self._gave_up = self._open > self._rate * PATIENCE
        return [self._start + number / self._rate for number in range(first, self._asked + 1)]

    def answered(self, due: float) -> None:
        self._open -= 1
        self._latencies.append(monotonic() - due)

    def failed(self) -> None:
        self._open -= 1
        self._gave_up = True

    @property
    def ended(self) -> bool:
        return not self._open and (self._gave_up or self._asked == self._count)

    @property
    def latencies(self) -> list[float]:
        return [] if self._gave_up else self._latencies

    def close(self) -> None:
        os.close(self._fd)


_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
