"""Lines: one direction of a connection in memory, with the faults that a test puts on it.

A line takes bytes from a sender, up to its capacity, and gives them to a receiver in a later turn of
the event loop. A test can cut it, stop it or slow it down at any byte. `memory.py` has the transports
at its two ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

__all__ = ["Line", "Receiver", "Sender"]

_Action: TypeAlias = Callable[[], None]


class Sender(Protocol):
    """The end of a line that writes."""

    def room_made(self) -> None:
        """Write again what the line has not taken."""

    def fail(self, error: Exception) -> None:
        """Lose the connection because of `error`."""


class Receiver(Protocol):
    """The end of a line that reads."""

    def is_ready(self) -> bool:
        """Return whether bytes, or the end of the stream, are wanted now."""
        ...

    def readable(self) -> None:
        """Read once: call `Line.read`."""

    def end_of_stream(self) -> None:
        """The sender has ended its side."""

    def fail(self, error: Exception) -> None:
        """Lose the connection because of `error`."""


class Line:
    """One direction of one connection, and its faults.

    A fault is put on the line before the connection is made, or at any time after. `after` is the
    number of bytes that still cross before the fault happens, counted from the call: 0 means at once.
    Faults that are put on the same byte happen in the order of the calls. `cut`, `reset` and `eof` end
    a stall and a delay. Bytes are those on the wire: over TLS, the encrypted ones.

    `capacity` is the number of bytes that the line holds, as the kernel holds them for a socket. What
    is written beyond it waits in the buffer of the sender's transport. Raises `ValueError` unless it is
    positive.

    Attributes:
        capacity: see above.
        crossed: the number of bytes that the receiver has been given so far.
    """

    def __init__(self, capacity: int = 64 * 1024) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of a line is at least one byte, not {capacity!r}")
        self.capacity = capacity
        self.crossed = 0
        self._held = bytearray()  # What was taken from the sender and has not crossed.
        self._plan: list[tuple[int, _Action]] = []  # Faults, by the byte.
        self._stops = asyncio.Event()  # Set while a stall or a delay lasts.
        self._timer: asyncio.TimerHandle | None = None
        self._pace: int | None = None  # How many bytes cross in a turn; None for all.
        # Whether the end of the stream follows the bytes that are held, and the error in its place.
        self._ended = False
        self._error: Exception | None = None
        self._end_told = False
        # Whether bytes are taken and dropped: by a fault, or because the receiver is gone.
        self._swallows = False
        self._refuses = False
        self._next: asyncio.Handle | None = None  # The next crossing.
        self._room: asyncio.Handle | None = None  # The next call of `Sender.room_made`.
        self._connected = False

    # --- faults ---

    def cut(self, after: int = 0) -> None:
        """Let the sender die, as if its process were killed.

        The sender's connection is lost with `ConnectionAbortedError`. The receiver gets the end of the
        stream after the last byte that crosses. What it writes from then on is refused.
        """
        self._at(after, self._cut)

    def reset(self, after: int = 0) -> None:
        """Reset the connection: both ends lose it with `ConnectionResetError`."""
        self._at(after, self._reset)

    def eof(self, after: int = 0) -> None:
        """End this direction alone; what the sender writes from then on is dropped.

        The receiver gets the end of the stream, as if the sender had half-closed. The other direction
        stays as it is.
        """
        self._at(after, self._eof)

    def stall(self, after: int = 0) -> None:
        """Stop: nothing crosses, neither bytes nor the end of the stream, before `resume` is called.

        The sender notices only that its buffer fills.
        """
        self._at(after, self._stall)

    def delay(self, seconds: float, after: int = 0) -> None:
        """Stop for `seconds`, then go on."""
        self._at(after, partial(self._delay, seconds))

    def drip(self, size: int = 1, after: int = 0) -> None:
        """Let at most `size` bytes cross in a turn of the event loop, until `resume` is called."""
        if size < 1:
            raise ValueError(f"at least one byte drips, not {size!r}")
        self._at(after, partial(self._drip, size))

    def resume(self) -> None:
        """End a stall, a delay and a drip that have happened; those that are still to come stay.

        `stopped` waits until a stall has happened.
        """
        self._pace = None
        self._go_on()

    async def stopped(self) -> None:
        """Wait until a stall or a delay has happened; cancelling this only ends the wait."""
        await self._stops.wait()

    @property
    def busy(self) -> bool:
        """Whether something crosses in the next turn of the event loop."""
        return self._next is not None or self._room is not None

    def _at(self, after: int, action: _Action) -> None:
        if after < 0:
            raise ValueError(f"a fault happens after a number of bytes, not after {after!r}")
        self._plan.append((self.crossed + after, action))
        self._plan.sort(key=lambda fault: fault[0])
        if self._connected:
            self._happen()

    def _cut(self) -> None:
        self._finish()
        self._sender.fail(ConnectionAbortedError(f"cut by a fault after {self.crossed} bytes"))

    def _reset(self) -> None:
        self._finish()
        for end in (self._sender, self._receiver):
            end.fail(ConnectionResetError(f"reset by a fault after {self.crossed} bytes"))

    def _eof(self) -> None:
        self._finish()

    def _finish(self) -> None:
        """Let the end of the stream be next, whatever is held, stopped, or comes."""
        self._go_on()
        self._held.clear()
        self._swallows = True
        self.end()
        self._make_room()

    def _stall(self) -> None:
        self._stops.set()

    def _delay(self, seconds: float) -> None:
        self._stops.set()
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._stops.clear()
        self._cancel_timer()
        self.wake()

    def _drip(self, size: int) -> None:
        self._pace = size

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what the transports call ---

    def connect(self, sender: Sender, receiver: Receiver) -> None:
        """Take the two ends; raises `RuntimeError` where the line has been used before."""
        if self._connected:
            raise RuntimeError("a line carries one connection, and this one has been used")
        self._loop = asyncio.get_running_loop()
        self._connected = True
        self._sender, self._receiver = sender, receiver
        self.wake()

    def write(self, data: memoryview) -> int:
        """Take bytes from the sender; return how many fitted."""
        if self._refuses or self._swallows:
            return len(data)
        taken = min(len(data), self.capacity - len(self._held))
        self._held += data[:taken]
        self.wake()
        return taken

    @property
    def refuses(self) -> bool:
        """Whether the receiver is gone, so that bytes are dropped."""
        return self._refuses

    def end(self, error: Exception | None = None) -> None:
        """Let the end of the stream follow the bytes that are held, or `error` in its place."""
        self._ended = True
        self._error = self._error or error
        self.wake()

    @property
    def broken(self) -> bool:
        """Whether the stream ends with an error."""
        return self._error is not None

    def wake(self) -> None:
        """See in the next turn of the event loop what can cross."""
        if self._connected and self._next is None and not self._refuses:
            self._next = self._loop.call_soon(self._cross)

    def available(self) -> int:
        """Return how many bytes can cross now."""
        most = len(self._held) if self._pace is None else min(len(self._held), self._pace)
        return min(most, self._plan[0][0] - self.crossed) if self._plan else most

    def read(self, size: int) -> bytes:
        """Give bytes to the receiver, at most `size` of them."""
        size = min(size, self.available())
        data = bytes(self._held[:size])
        del self._held[:size]
        self.crossed += size
        self._make_room()
        return data

    def close_reading(self) -> bool:
        """Drop what comes from now on: the receiver is gone. Return whether bytes were dropped here."""
        dropped = bool(self._held)
        self._held.clear()
        self._refuses = True
        self._cancel_timer()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._make_room()
        return dropped

    def _make_room(self) -> None:
        if self._room is None:
            self._room = self._loop.call_soon(self._tell_room)

    def _tell_room(self) -> None:
        self._room = None
        self._sender.room_made()

    def _cross(self) -> None:
        """Let cross what can cross in one turn."""
        self._next = None
        self._happen()
        if self._stops.is_set() or self._refuses:
            return
        if self._error is not None and not self._held:
            self._receiver.fail(self._error)
        elif self._receiver.is_ready():
            if self._held:
                self._receiver.readable()
                self._happen()
                if self._held or self._ended:
                    self.wake()
            elif self._ended and not self._end_told:
                self._end_told = True
                self._receiver.end_of_stream()

    def _happen(self) -> None:
        """Let the faults happen whose byte has crossed."""
        while self._plan and self._plan[0][0] <= self.crossed and not self._refuses:
            self._plan.pop(0)[1]()
