"""Keepalive: whether the peer of a connection on which nothing comes is still there.

When nothing has come for `ping_interval` seconds, the peer is asked. Any byte that comes after that is
life, whatever it is. If none comes for `ping_timeout` seconds more, the connection is aborted: to close
it in order would wait for a peer that is not there.

Silence that says nothing about the peer is not counted: time in which this side does not read, or the
connection is being changed; time in which the peer takes what is written, since it cannot answer before
it has read it all; and time in which this side itself was held up, with bytes that it has not seen yet.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from ..errors import ConnectionLost
from ..session.life import State
from ..transports.sending import unacknowledged
from .timers import Timer

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Keepalive"]

# In how many steps it is waited for an answer. Only those count in which nothing spoke against it.
_STEPS: Final = 8

# How many turns of the loop the last look comes later: what has arrived meanwhile is read in them.
_TURNS: Final = 2


class Keepalive(Timer):
    """Asks the peer by `ping` when it is silent, and aborts the connection if it stays silent.

    It may take up to `interval` and `timeout` seconds together until a peer that is gone is noticed.
    """

    # (Most connections have one, and wait for hours.)
    __slots__ = ("_connection", "_due", "_heard_at", "_interval", "_ping", "_timeout", "_unsent")

    def __init__(
        self, connection: Connection, ping: Callable[[], None], interval: float, timeout: float
    ) -> None:
        super().__init__(connection.loop)
        self._connection = connection
        self._ping = ping
        self._interval = interval
        self._timeout = timeout
        self._heard_at = connection.inbox.heard_at
        self._unsent = 0
        self._due = 0.0
        self._wait(interval)

    @classmethod
    def of(cls, connection: Connection, ping: Callable[[], None]) -> Keepalive | None:
        """Return that of a connection, or None if its limits want none."""
        interval, timeout = connection.limits.ping_interval, connection.limits.ping_timeout
        if interval is None or timeout is None:
            return None
        return cls(connection, ping, interval, timeout)

    def _wait(self, delay: float) -> None:
        """Look whether the peer was silent, in so many seconds."""
        self.later(delay, self._look)

    def _look(self) -> None:
        left = self._connection.inbox.heard_at + self._interval - perf_counter()
        if left > 0:
            self._wait(left)
            return
        if self._connection.state is State.OPEN:
            self._ping()
        self._watch(0)

    # --- after a ping ---

    def _watch(self, steps: int) -> None:
        """Look for signs of life, the next time after one of the steps; `steps` were without any."""
        self._heard_at = self._connection.inbox.heard_at
        self._unsent = self._queued()
        step = self._timeout / _STEPS
        self._due = perf_counter() + step
        self.later(step, self._step_over, steps + 1)

    def _step_over(self, steps: int) -> None:
        connection = self._connection
        now = perf_counter()
        if connection.inbox.heard_at != self._heard_at:
            self._wait(max(0.0, connection.inbox.heard_at + self._interval - now))
        elif self._is_excused(now):
            self._watch(0)
        elif steps < _STEPS:
            self._watch(steps)
        else:
            self._look_last(_TURNS)

    def _is_excused(self, now: float) -> bool:
        """Return whether the silence of the last step says nothing about the peer."""
        connection = self._connection
        return (
            connection.state is not State.OPEN
            or bool(connection.inbox.pauses)
            or now - self._due > self._timeout / _STEPS / 2
            or self._queued() < self._unsent
        )

    def _queued(self) -> int:
        """Return how much the peer has to take before it can answer."""
        connection = self._connection
        return connection.outbox.unsent() + unacknowledged(connection.transport)

    def _look_last(self, turns: int) -> None:
        """Give the peer up, unless a byte has come that was only not read yet."""
        connection = self._connection
        if connection.inbox.heard_at != self._heard_at or self._is_excused(self._due):
            self._wait(self._interval)
        elif turns:
            self.soon(self._look_last, turns - 1)
        else:
            connection.give_up(
                ConnectionLost(
                    f"nothing has come for {self._interval} seconds, and nothing in another "
                    f"{self._timeout} seconds after the peer was asked whether it is there"
                )
            )
