"""Flow: what one side of a stream may send, and what has come. It does no I/O.

A stream has two directions, and each is used by one `Outgoing` and, at the peer, by one `Incoming`.

- The receiving side gives credit, in bytes. Each piece of an item costs what its box counts against the
  limits (`box_cost`), and nothing is sent without the credit for it. The first credit is the window.
- An item is sent as one piece, or as several if it is large: a piece costs at most a third of the
  window.
- What was taken by the consumer is given back, in bulk: when it is two thirds of the window. The rest
  of the credit is then enough for any piece, so the sender never waits for credit that the receiver
  holds. (To give it back costs both sides as much as an item.)
- The pieces of an unfinished item are given back when they arrive, if everything before it was taken:
  an item may be larger than the window. At most one item is, since those after it are not given back.
- The end of a direction is said. Nothing comes after it, and it does not come within an item.

Whatever else the peer does is a fault, and raises `MalformedAmpBox` or `BoxTooLong`.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from ..errors import BoxTooLong, MalformedAmpBox, shortened
from ..wire.boxes import COMMAND, MAX_VALUE_LENGTH
from ..wire.costs import PAIR_OVERHEAD
from ..wire.extensions import ITEM

__all__ = [
    "AMOUNT",
    "END",
    "MORE",
    "VALUE",
    "Incoming",
    "Outgoing",
    "credit_in",
    "overhead",
]

#: The keys of a stream's boxes, beside the tag.
VALUE: Final = b"item"
AMOUNT: Final = b"credit"
MORE: Final = b"more"
END: Final = b"end"

# What a piece costs more if another one follows it.
_MORE_COST = PAIR_OVERHEAD + len(MORE)

# The most credit that a direction may have, as in HTTP/2 (RFC 9113, 6.9.1).
_MOST_CREDIT = 2**31 - 1

# A piece is joined with the one before it if that is smaller: each has its own overhead in memory.
_SMALL = 4096

# (A value of 65,535 bytes would be written in another way in version 2 of AMP.)
_MOST_IN_PIECE = MAX_VALUE_LENGTH - 1


def overhead(key: bytes, tag: bytes) -> int:
    """Return what a piece costs in addition to its bytes; `key` is what the tag is under."""
    return 3 * PAIR_OVERHEAD + len(COMMAND) + len(ITEM) + len(key) + len(tag) + len(VALUE)


def credit_in(value: bytes | None) -> int:
    """Return the credit that `value` gives; `MalformedAmpBox` if it cannot be one."""
    # (`int` would take spaces, signs and underscores as well, and a long time for many digits.)
    if value is None or not value.isdigit() or len(value) > 10 or not 0 < int(value) <= _MOST_CREDIT:
        raise MalformedAmpBox(f"a credit of {shortened(value)}: it is 1 to {_MOST_CREDIT}")
    return int(value)


class _Entry:
    """An item that waits to be sent; None for the end of the direction. `sent` counts its bytes."""

    __slots__ = ("data", "sent", "waiter")

    def __init__(self, data: bytes | None, waiter: Any) -> None:
        self.data = data
        self.sent = 0
        self.waiter = waiter


class Outgoing:
    """The direction in which this side sends.

    `most` is how large an item may be.

    Attributes:
        credit: how much may be sent.
        overhead: what a piece costs in addition to its bytes; set it before the first credit.
        ended: whether the end was said, or is about to be.
    """

    __slots__ = ("_most", "_piece", "_queue", "credit", "ended", "overhead")

    def __init__(self, most: int) -> None:
        self.credit = self.overhead = 0
        self.ended = False
        self._most = most
        self._piece = -1  # How many bytes of an item a piece has; it is known with the first credit.
        self._queue: deque[_Entry] | None = None

    def grant(self, amount: int) -> None:
        """Take credit from the peer; the first one is the window of this direction."""
        if self._piece < 0:
            rest = self.overhead + _MORE_COST
            piece = min(_MOST_IN_PIECE, amount // 3 - rest, max(1, self._most - rest))
            if piece < 1:
                raise MalformedAmpBox(f"a first credit of {amount}, which is too little for any item")
            self._piece = piece
        if self.credit + amount > _MOST_CREDIT:
            raise MalformedAmpBox(f"a credit of {amount} in addition to {self.credit}: it is too much")
        self.credit += amount

    def check(self, item: bytes) -> None:
        """Raise `TooLong` for an item that the peer would not take."""
        if len(item) > self._most:
            raise BoxTooLong(self._most, 1, isLocal=True)

    def pass_by(self, item: bytes) -> int:
        """Return what `item` costs if it may leave now, in up to two pieces; 0 if it has to wait."""
        size = len(item)
        if size <= self._piece:
            cost = self.overhead + size
        elif size <= min(2 * self._piece, self._most):
            cost = 2 * self.overhead + _MORE_COST + size
        else:
            return 0
        return cost if not self._queue and cost <= self.credit else 0

    def cut(self, item: bytes) -> list[tuple[bytes | memoryview, bool]]:
        """Return the pieces of such an item, each with whether another one follows."""
        if len(item) <= self._piece:
            return [(item, False)]
        whole = memoryview(item)
        return [(whole[: self._piece], True), (whole[self._piece :], False)]

    def put(self, item: bytes | None, waiter: Any) -> None:
        """Let an item wait to be sent; None for the end. `waiter` is returned when it was sent."""
        if self._queue is None:
            self._queue = deque()
        self._queue.append(_Entry(item, waiter))

    def withdraw(self, waiter: Any) -> None:
        """Forget an item that waits, unless some of it was sent: then the rest has to follow."""
        for entry in self._queue or ():
            if entry.waiter is waiter and not entry.sent and self._queue is not None:
                self._queue.remove(entry)
                if entry.data is None:
                    self.ended = False
                return

    def is_ready(self) -> bool:
        """Return whether something waits that may be sent."""
        if not self._queue or self._piece < 0:
            return False
        entry = self._queue[0]
        return entry.data is None or self._cost(entry)[0] <= self.credit

    def _cost(self, entry: _Entry) -> tuple[int, int, bool]:
        """Return what the next piece costs, how many bytes it has, and whether another one follows."""
        assert entry.data is not None, "it is an item"
        size = len(entry.data) - entry.sent
        if size <= self._piece:
            return self.overhead + size, size, False
        return self.overhead + self._piece + _MORE_COST, self._piece, True

    def take(self) -> tuple[int, bytes | memoryview | None, bool, Any]:
        """Take the next piece to send it; call it only if `is_ready`.

        Returns its cost, its bytes (None for the end), whether more of the item follows, and the
        waiter of an item of which nothing more follows, else None.
        """
        assert self._queue, "it is ready"
        entry = self._queue[0]
        if entry.data is None:
            self._queue.popleft()
            return 0, None, False, entry.waiter
        cost, size, more = self._cost(entry)
        self.credit -= cost
        if more:
            piece = memoryview(entry.data)[entry.sent : entry.sent + size]
            entry.sent += size
            return cost, piece, True, None
        self._queue.popleft()
        rest = memoryview(entry.data)[entry.sent :] if entry.sent else entry.data
        return cost, rest, False, entry.waiter

    def drop(self) -> list[Any]:
        """Forget what waits, and return the waiters: no more is sent."""
        queue, self._queue = self._queue, None
        self.ended = True
        return [entry.waiter for entry in queue or ()]


class Incoming:
    """The direction in which the peer sends.

    `window` is the first credit, which the peer gets, and `most` how large an item may be.

    Attributes:
        overhead: what a piece costs in addition to its bytes.
        ended: whether the peer has said that no more items come.
    """

    __slots__ = (
        "_credit",
        "_items",
        "_most",
        "_owed",
        "_partial",
        "_pending",
        "_size",
        "ended",
        "overhead",
        "window",
    )

    def __init__(self, piece_overhead: int, window: int, most: int) -> None:
        self.window = window
        self.overhead = piece_overhead
        self.ended = False
        self._credit = window  # What the peer may still send.
        self._most = most
        # The items that came and were not taken, each with what is to be given back for it.
        self._items: deque[tuple[bytes, int]] = deque()
        self._partial: list[bytes] | None = None  # The pieces of an item that is not complete.
        self._size = 0  # How many bytes these have.
        self._pending = 0  # What is to be given back for these.
        self._owed = 0  # What may be given back now.

    def __len__(self) -> int:
        """Return how many items wait to be taken."""
        return len(self._items)

    @property
    def in_item(self) -> bool:
        """Whether what came ends in the middle of an item."""
        return self._partial is not None

    def piece(self, data: bytes, more: bool) -> bool:
        """Take a piece of an item; return whether that item is complete."""
        if self.ended:
            raise MalformedAmpBox("an item after the end of its stream")
        cost = self.overhead + len(data) + (_MORE_COST if more else 0)
        self._credit -= cost
        if self._credit < 0:
            raise MalformedAmpBox(f"an item of {cost} bytes, {-self._credit} more than the credit")
        if not more and self._partial is None:
            self._items.append((data, cost))
            return True
        if self._partial is None:
            self._partial = []
        self._size += len(data)
        self._pending += cost
        if self._size > self._most:
            raise BoxTooLong(self._most, 1)
        if self._partial and len(self._partial[-1]) < _SMALL:
            self._partial[-1] += data
        else:
            self._partial.append(data)
        if more:
            self._give_back_unfinished()
            return False
        self._items.append((b"".join(self._partial), self._pending))
        self._partial, self._size, self._pending = None, 0, 0
        return True

    def end(self) -> None:
        """Take the end of the direction."""
        if self.ended:
            raise MalformedAmpBox("a stream ended twice")
        if self._partial is not None:
            raise MalformedAmpBox("a stream ended in the middle of an item")
        self.ended = True

    def take(self) -> bytes:
        """Return the next item, which the consumer takes; call it only if one waits."""
        data, cost = self._items.popleft()
        self._owed += cost
        self._give_back_unfinished()
        return data

    def _give_back_unfinished(self) -> None:
        if not self._items:
            self._owed += self._pending
            self._pending = 0

    def due(self) -> int:
        """Return what is to be given back now, and count it as given; 0 if it is not yet enough."""
        owed = self._owed
        if owed * 3 < self.window * 2 or self.ended:
            return 0
        self._owed = 0
        self._credit += owed
        return owed

    def drop(self) -> None:
        """Forget what came."""
        self._items.clear()
        self._partial, self._size, self._pending = None, 0, 0
