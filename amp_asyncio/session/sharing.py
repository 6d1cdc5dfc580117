"""Sharing: which stream of a conversation sends next, and how much.

Each turn of the event loop has room for so much of all streams together, and a stream gets its share of
that, one after the other. One that has used its share waits until the others had theirs. So streams are
served alike in bytes, whatever their items are like, and a call waits for one turn and not for all that
the streams have to send. No stream sends while the transport takes no more, or while as much is on its
way to the peer as may be (`pace.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from .pace import Mark, Pace

__all__ = ["Shared", "Sharing"]

# What all streams of a conversation may send in one turn of the loop, and what one of them gets at a
# time; both as the limits count it. A piece may be larger than a share: the next ones are then less.
_TURN: Final = 160 * 1024
_SHARE: Final = 16 * 1024

# What a stream gets at a time while it is the only one: an item of 64 KiB is then one write.
_ALONE: Final = 80 * 1024


class Shared(Protocol):
    """A stream, as far as it shares.

    Attributes:
        share: how much it may send; negative if it has sent more than its share.
        in_line: whether it waits to send more.
    """

    share: int
    in_line: bool

    def pump(self) -> bool:
        """Send what waits within the share; return whether more is ready to be sent."""
        ...


class Sharing:
    """The streams of one conversation that want to send.

    `ping` sends a ping, and returns False if the peer does not know how to answer; `answered` is to be
    called with its argument when the answer has come.

    Attributes:
        held: whether nothing may be sent at the moment.
    """

    __slots__ = ("_begun", "_full", "_left", "_line", "_pace", "_ping", "_ticking", "held")

    def __init__(self, full: bool, ping: Callable[[Mark], bool]) -> None:
        self.held = self._full = full
        self._pace = Pace()
        self._ping = ping
        self._left = _TURN  # How much may still be given in this turn.
        self._ticking = False  # Whether the next turn is waited for.
        # Those that wait: with some of their share left, and without.
        self._begun: deque[Shared] = deque()
        self._line: deque[Shared] = deque()

    def take(self, stream: Shared) -> bool:
        """Return whether `stream` may send now."""
        if self.held:
            return False
        if stream.share <= 0:
            if self._line or self._begun:
                return False
            while stream.share <= 0:
                if self._left <= 0:
                    return False
                self._left -= _ALONE
                stream.share += _ALONE
            if self._left <= 0 and not self._ticking:
                self._tick()
        return True

    def sent(self, stream: Shared, cost: int) -> None:
        """Count what a stream has sent."""
        stream.share -= cost
        pace = self._pace
        if pace.sent(cost):
            mark = pace.mark(time.monotonic())
            if not self._ping(mark):
                pace.read(mark, mark.at)
        if pace.left <= 0:
            self.held = True

    def answered(self, mark: Mark) -> None:
        """Go on, if the peer has read enough: it has answered a ping."""
        self._pace.read(mark, time.monotonic())
        self._go_on()

    def begin(self, stream: Shared) -> None:
        """Let a stream send what waits, for which it has the credit: now, or in its next share."""
        if not stream.in_line and (not self.take(stream) or stream.pump()):
            self._join(stream)

    def _join(self, stream: Shared) -> None:
        stream.in_line = True
        (self._begun if stream.share > 0 else self._line).append(stream)
        if not self._ticking and not self.held:
            self._tick()

    def leave(self, stream: Shared) -> None:
        """Forget a stream that is over."""
        if stream.in_line:
            stream.in_line = False
            (self._begun if stream in self._begun else self._line).remove(stream)

    def _tick(self) -> None:
        self._ticking = True
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Let those that wait send, each within its share; go on in the next turn with the others."""
        self._ticking = False
        self._left = _TURN
        room = self._pace.left
        while self._left > 0 and room > 0 and not self.held and (self._begun or self._line):
            stream = (self._begun or self._line).popleft()
            stream.in_line = False
            if stream.share <= 0:
                share = _SHARE if self._begun or self._line else _ALONE
                stream.share += share
                self._left -= share
            room -= max(stream.share, 0)
            if stream.share <= 0 or stream.pump():
                self._join(stream)
        if not self._ticking and not self.held and (self._begun or self._line or self._left <= 0):
            self._tick()

    def hold(self) -> None:
        """Send nothing: the transport takes no more."""
        self.held = self._full = True

    def release(self) -> None:
        """Go on: the transport takes more."""
        self._full = False
        self._go_on()

    def _go_on(self) -> None:
        if self.held and not self._full and self._pace.left > 0:
            self.held = False
            if not self._ticking:
                self._tick()
