"""The clock: timers that wait in the kernel, and not in the event loop.

A loop with connections has a timer that waits, if only that of keepalive. As soon as one is scheduled,
asyncio computes a timeout in each turn, and the kernel sets a timer for each wait: both together take a
tenth of the time of a call. So where Linux offers it, the timers of a loop are kept here, and
one timer of the kernel (`timerfd_create(2)`) wakes the loop when the first of them is due.

uvloop, whose timers cost little, and loops on other systems keep the timers themselves. So does a loop
that has a time of its own, as loops for tests have.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from math import inf
from struct import pack
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol
from weakref import WeakKeyDictionary

__all__ = ["Alarm", "call_later"]

# With more alarms than this, of which more than half were cancelled, those are removed.
_MANY: Final = 64


class Alarm(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Do not make it; nothing happens if it was made or cancelled before."""


def call_later(
    loop: asyncio.AbstractEventLoop,
    delay: float,
    callback: Callable[..., Any],
    *arguments: Any,
    context: Context | None = None,
) -> Alarm:
    """Do what `loop.call_later` does; to be called in the loop."""
    clock = _of_thread.clocks.get(loop)
    if clock is None and _has_usual_time(loop):
        _of_thread.drop_closed()
        clock = _of_thread.clocks[loop] = _Clock(_kernel())
    if clock is not None and clock.start(loop):
        return clock.add(delay, callback, arguments, copy_context() if context is None else context)
    return loop.call_later(delay, callback, *arguments, context=context)


def _has_usual_time(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop is one of asyncio's, and its time is the kernel's."""
    if not isinstance(loop, asyncio.SelectorEventLoop):
        return False
    return getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time


class _Alarm:
    __slots__ = ("_arguments", "_callback", "clock", "context")

    def __init__(
        self,
        clock: _Clock,
        callback: Callable[..., Any],
        arguments: tuple[Any, ...],
        context: Context,
    ) -> None:
        self.clock: _Clock | None = clock  # None when it has rung, or was cancelled.
        self.context = context
        self._callback: Callable[..., Any] | None = callback
        self._arguments = arguments

    def cancel(self) -> None:
        clock, self.clock, self._callback, self._arguments = self.clock, None, None, ()
        if clock is not None:
            clock.cancelled()

    def ring(self) -> None:
        clock, self.clock = self.clock, None
        if clock is not None and self._callback is not None:
            try:
                self._callback(*self._arguments)
            finally:
                clock.ended()  # Not earlier: most alarms are set again by what they call.


class _Clock:
    """The alarms of one event loop. It has a descriptor while it has any."""

    __slots__ = ("_alarms", "_due", "_kernel", "_loop", "_number", "_timer", "_waiting")

    def __init__(self, kernel: _Kernel | None) -> None:
        # When each is due, and its number: those that are due together ring in their order.
        self._alarms: list[tuple[float, int, _Alarm]] = []
        self._number = 0
        self._waiting = 0  # How many of them were not cancelled.
        self._due = inf  # When the kernel wakes the loop.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kernel = kernel
        self._timer = -1  # The descriptor of the kernel's timer.

    def start(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Have the kernel's timer; return False if it gives none."""
        if self._loop is None:
            self._timer = self._kernel.create() if self._kernel is not None else -1
            if self._timer < 0:
                return False
            self._loop, self._due = loop, inf
            # What sets the first alarm has nothing to do with all others.
            Context().run(loop.add_reader, self._timer, self._ring)
        return True

    def stop(self) -> None:
        """Give the kernel's timer back."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.remove_reader(self._timer)
            os.close(self._timer)
        self._alarms.clear()

    def add(
        self,
        delay: float,
        callback: Callable[..., Any],
        arguments: tuple[Any, ...],
        context: Context,
    ) -> _Alarm:
        alarm = _Alarm(self, callback, arguments, context)
        due = monotonic() + delay
        self._number += 1
        self._waiting += 1
        heapq.heappush(self._alarms, (due, self._number, alarm))
        if due < self._due:
            self._set(due, delay)
        return alarm

    def ended(self) -> None:
        """An alarm has ended."""
        self._waiting -= 1
        if not self._waiting:
            self.stop()

    def cancelled(self) -> None:
        """An alarm was cancelled; it may stay in the heap until it is due."""
        self.ended()
        if len(self._alarms) > _MANY and self._waiting * 2 < len(self._alarms):
            self._alarms[:] = [entry for entry in self._alarms if entry[2].clock is not None]
            heapq.heapify(self._alarms)

    def _ring(self) -> None:
        """Have those rung that are due, and set the kernel's timer for the next one."""
        loop, alarms = self._loop, self._alarms
        assert loop is not None, "the loop reads its descriptor only until it is closed"
        with suppress(BlockingIOError):  # It was set again since it rang.
            os.read(self._timer, 8)
        now = monotonic()
        while alarms and alarms[0][0] <= now:
            alarm = heapq.heappop(alarms)[2]
            loop.call_soon(alarm.ring, context=alarm.context)
        self._due = inf
        if alarms:
            self._set(alarms[0][0], alarms[0][0] - now)

    def _set(self, due: float, delay: float) -> None:
        assert self._kernel is not None, "it has given the timer"
        self._due = due
        self._kernel.set(self._timer, _spec(delay))


class _OfThread(threading.local):
    """The clocks of the loops that run in one thread, one after the other."""

    def __init__(self) -> None:
        self.clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Clock] = WeakKeyDictionary()

    def drop_closed(self) -> None:
        """Stop the clocks of loops that were closed before their alarms were."""
        for loop, clock in list(self.clocks.items()):
            if loop.is_closed():
                clock.stop()
                del self.clocks[loop]


_of_thread = _OfThread()


# --- the kernel's timer ---


class _Kernel(NamedTuple):
    """What the C library has for timers; both return -1 if they fail."""

    create: Callable[[], int]
    set: Callable[[int, bytes], int]


def _kernel() -> _Kernel | None:
    """Return the timers of the C library, or None if it lacks them."""
    try:
        import ctypes  # It takes a while, and most processes that import this package need it later.

        library = ctypes.CDLL(None)
        create, settime = library.timerfd_create, library.timerfd_settime
        create_timer = partial(create, time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    return _Kernel(create_timer, lambda descriptor, times: settime(descriptor, 0, times, None))


def _spec(delay: float) -> bytes:
    """Return a `struct itimerspec`: no interval, and `delay` seconds until the timer rings."""
    seconds, nanoseconds = divmod(max(1, int(delay * 1e9)), 1_000_000_000)  # (0 would switch it off.)
    return pack("4l", 0, 0, seconds, nanoseconds)
