"""Pace: how much of all streams may be on its way to the peer at once.

What is sent after it, such as a call, waits until the peer has read it. The credit of many streams
together is too much for that, and says nothing of what was read: it is given back when the consumers
have taken the items. So pings go between the pieces. Their answers say what the peer has read, and how
long that takes. While a ping takes hardly longer than over the idle connection, more may be on its way,
and less when it does: that fills a line of any length, and no call waits for long.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Mark", "Pace"]

# How many seconds longer than over the idle connection a ping may take.
_LONGER: Final = 0.01

# How much may be on its way at first, which is also the least, and the most; as the limits count it.
_LEAST: Final = 96 * 1024
_MOST: Final = 8 * 1024 * 1024

# By how much that grows while so much is read, and what it is multiplied with when a ping takes too
# long. Both sides see the same pings; to add and to multiply makes what each may send alike, as in TCP.
# Before a ping takes too long for the first time, it grows by all that is read.
_MORE: Final = 64 * 1024
_LESS: Final = 0.75

# A ping is sent after so many bytes, or after this part of what may be on its way if that is less; and
# after a smaller part if that is more, because each ping costs both sides as much as a small item.
_APART: Final = 128 * 1024
_PARTS: Final = 2
_SMALL_PARTS: Final = 8


class Mark:
    """A ping: how much was sent before it, and when it was sent."""

    __slots__ = ("at", "sent")

    def __init__(self, sent: int, at: float) -> None:
        self.sent = sent
        self.at = at


class Pace:
    """The bytes of all streams in one direction.

    Attributes:
        left: how much more may be sent; negative if more was.
    """

    __slots__ = ("_judged", "_marked", "_quickest", "_read", "_room", "_sent", "left")

    def __init__(self) -> None:
        self._room = self.left = _LEAST
        self._sent = 0
        self._read = 0  # How much of that the peer is known to have read.
        self._marked = 0  # How much was sent before the last ping.
        self._judged = -1  # How much was sent when the room became less; -1 before that.
        self._quickest = float("inf")  # How many seconds the quickest ping took.

    def sent(self, cost: int) -> bool:
        """Count what was sent; return whether a ping is due."""
        self._sent += cost
        self.left -= cost
        room = self._room
        return self._sent - self._marked >= max(min(room // _PARTS, _APART), room // _SMALL_PARTS)

    def mark(self, now: float) -> Mark:
        """Return the mark of a ping that is sent now."""
        self._marked = self._sent
        return Mark(self._sent, now)

    def read(self, mark: Mark, now: float) -> None:
        """The ping of `mark` was answered: the peer has read what was sent before it."""
        read, self._read = mark.sent - self._read, mark.sent
        took = now - mark.at
        self._quickest = min(self._quickest, took)
        if took <= self._quickest + _LONGER:
            more = read if self._judged < 0 else _MORE * read // self._room
            self._room = min(_MOST, self._room + more)
        elif mark.sent > self._judged:
            # (What was sent before it became less does not show whether that was enough.)
            self._room = max(_LEAST, int(self._room * _LESS))
            self._judged = self._sent
        self.left = self._room - self._sent + self._read
