"""Deadlines: what is over when its time has passed, on either side of a conversation.

Almost every call ends long before its deadline. So they do not have a timer each. One timer looks at
all that have not ended, at the earliest deadline that was known when it was set, and is set again then
if any are left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from math import ceil, inf
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from ..clock import Alarm, call_later

__all__ = ["Deadlines", "deadline_after", "deadline_of", "digits", "milliseconds"]

_K = TypeVar("_K", bound=Hashable)

# The least number of seconds between two looks, for each deadline that is looked at. Looking at 10,000
# of them takes about half a millisecond.
_PAUSE: Final = 1e-6

# How many seconds ahead the timer is set at most: event loops cannot go much further.
_FAR: Final = 86_400.0

# The longest time that a peer may name, in digits of milliseconds: a longer one is ignored.
_DIGITS: Final = 15


class Deadlines(Generic[_K]):
    """The deadlines of one kind; `over` is called with each key whose time has passed.

    Attributes:
        times: when each is. What ends before that is removed from here.
        due: when they are looked at; one that is not earlier may be put into `times`.
    """

    __slots__ = ("_over", "_timer", "due", "times")

    def __init__(self, over: Callable[[_K], None]) -> None:
        self._over = over
        self.times: dict[_K, float] = {}
        self._timer: Alarm | None = None
        self.due = inf  # When the timer looks; infinity without a timer.

    def add(self, key: _K, deadline: float) -> None:
        """Call `over` with this key at its deadline."""
        self.times[key] = deadline
        if deadline < self.due:
            self._set(deadline, monotonic())

    def _set(self, due: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.due = due
        delay = min(max(0.0, due - now), _FAR)
        self._timer = call_later(asyncio.get_running_loop(), delay, self._look)

    def _look(self) -> None:
        self._timer = None
        self.due = inf
        now = monotonic()
        over = [key for key, deadline in self.times.items() if deadline <= now]
        for key in sorted(over, key=self.times.__getitem__):
            # (One of them may end another.)
            if self.times.pop(key, None) is not None:
                self._over(key)
        if self.times and self._timer is None:
            self._set(max(min(self.times.values()), now + _PAUSE * len(self.times)), now)

    def end(self) -> None:
        """Forget all of them."""
        self.times.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.due = inf


def deadline_after(timeout: Any) -> float | None:
    """Return the deadline of a call that has `timeout` seconds; None if that is None.

    Raises `TypeError` for what is not a number, and `ValueError` for one that cannot be a time.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)):  # (To make a union takes longer.)
        raise TypeError(f"a timeout is a number of seconds, or None, not {timeout!r}")
    if not timeout >= 0:  # It may be no number.
        raise ValueError(f"a timeout cannot be {timeout!r}")
    return monotonic() + timeout


def milliseconds(left: float) -> int:
    """Return the seconds that are left as the milliseconds that the peer is told."""
    return ceil(left * 1000)


def digits(left: int) -> bytes:
    """Return so many milliseconds as they are written."""
    return b"%d" % min(left, 10**_DIGITS - 1)


def deadline_of(value: bytes) -> float | None:
    """Return the deadline of a question of a peer; None where it named none that can be."""
    if not value.isdigit() or len(value) > _DIGITS:
        return None
    return monotonic() + int(value) / 1000
