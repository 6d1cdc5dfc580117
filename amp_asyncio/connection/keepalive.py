"""Keepalive: whether the peer of a connection on which nothing comes is still there.

When nothing has come for `ping_interval` seconds, the peer is asked. Any byte that comes after that is
life, whatever it is. If none comes for `ping_timeout` seconds more, the connection is aborted: to close
it in order would wait for a peer that is not there.

Thousands of connections wait for hours, so waiting must be cheap: connections with the same times share
one timer, and need no object each. Only one that was asked has a `Probe`.

Silence that says nothing about the peer is not counted: time in which this side does not read, or the
connection is being changed; time in which the peer takes what is written, since it cannot answer before
it has read it all; and time in which this side itself was held up, with bytes that it has not seen yet.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary

from ..clock import Alarm, call_later
from ..errors import ConnectionLost
from ..session.life import State
from ..session.pinging import ping
from ..transports.sending import unacknowledged
from .timers import Timer

if TYPE_CHECKING:
    from ..session.session import Session
    from .connection import Connection

__all__ = ["Keepalive", "keep_alive"]

# In how many steps it is waited for an answer. Only those count in which nothing spoke against it.
_STEPS: Final = 8

# How many turns of the loop the last look comes later: what has arrived meanwhile is read in them.
_TURNS: Final = 2

# The least number of seconds between two looks, for each connection that is looked at. Looking at
# 10,000 of them takes about a millisecond.
_PAUSE: Final = 1e-5


class Keepalive:
    """Asks the peers of some connections when they are silent, and aborts those that stay silent.

    It may take up to `interval` and `timeout` seconds together until a peer that is gone is noticed; in
    a process with many connections, a little longer.
    """

    __slots__ = (
        "__weakref__",
        "_context",
        "_due",
        "_looked_at",
        "_loop",
        "_probes",
        "_timer",
        "_waiting",
        "interval",
        "timeout",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, timeout: float) -> None:
        self._loop = loop
        self.interval = interval
        self.timeout = timeout
        self._waiting: dict[Connection, Session] = {}  # Those that have heard of their peers.
        self._probes: dict[Connection, Probe] = {}
        self._timer: Alarm | None = None
        self._due = self._looked_at = 0.0
        # That of the connection that is the first one would keep alive what is in it.
        self._context = Context()

    def watch(self, connection: Connection, session: Session) -> None:
        """Ask the peer of a connection, through `session`, when it has been silent for long enough."""
        self._probes.pop(connection, None)
        self._waiting[connection] = session
        self._look_at(connection.inbox.heard_at + self.interval)

    def forget(self, connection: Connection) -> None:
        """Stop asking its peer."""
        self._waiting.pop(connection, None)
        probe = self._probes.pop(connection, None)
        if probe is not None:
            probe.cancel()
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, due: float) -> None:
        """Look for silent peers at that time, or somewhat later if that was done just now."""
        due = max(due, self._looked_at + _PAUSE * len(self._waiting))
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        delay = max(0.0, due - perf_counter())
        self._timer = call_later(self._loop, delay, self._look, context=self._context)

    def _look(self) -> None:
        self._timer = None
        self._looked_at = perf_counter()
        latest = self._looked_at - self.interval
        silent = [each for each in self._waiting if each.inbox.heard_at <= latest]
        for connection in silent:
            session = self._waiting.pop(connection)
            self._probes[connection] = Probe(self, connection, session)
        if self._waiting:
            heard_at = min(each.inbox.heard_at for each in self._waiting)
            self._look_at(heard_at + self.interval)


class Probe(Timer):
    """Asks the peer of one connection, and aborts the connection if nothing comes then."""

    def __init__(self, keepalive: Keepalive, connection: Connection, session: Session) -> None:
        super().__init__(connection.loop, session.responders.context.copy())
        self._keepalive = keepalive
        self._connection = connection
        self._session = session
        self._heard_at = self._due = 0.0
        self._unsent = 0
        self.soon(self._ask)

    def _ask(self) -> None:
        if self._connection.state is State.OPEN:
            ping(self._session)
        self._watch(0)

    def _watch(self, steps: int) -> None:
        """Look for signs of life, the next time after one of the steps; `steps` were without any."""
        self._heard_at = self._connection.inbox.heard_at
        self._unsent = self._queued()
        step = self._keepalive.timeout / _STEPS
        self._due = perf_counter() + step
        self.later(step, self._step_over, steps + 1)

    def _step_over(self, steps: int) -> None:
        if self._has_heard():
            self._keepalive.watch(self._connection, self._session)
        elif self._is_excused(perf_counter()):
            self._watch(0)
        elif steps < _STEPS:
            self._watch(steps)
        else:
            self._look_last(_TURNS)

    def _has_heard(self) -> bool:
        return self._connection.inbox.heard_at != self._heard_at

    def _is_excused(self, now: float) -> bool:
        """Return whether the silence of the last step says nothing about the peer."""
        connection = self._connection
        return (
            connection.state is not State.OPEN
            or bool(connection.inbox.pauses)
            or now - self._due > self._keepalive.timeout / _STEPS / 2
            or self._queued() < self._unsent
        )

    def _queued(self) -> int:
        """Return how much the peer has to take before it can answer."""
        connection = self._connection
        return connection.outbox.unsent() + unacknowledged(connection.transport)

    def _look_last(self, turns: int) -> None:
        """Give the peer up, unless a byte has come that was only not read yet."""
        if self._has_heard():
            self._keepalive.watch(self._connection, self._session)
        elif self._is_excused(self._due):
            self._watch(0)
        elif turns:
            self.soon(self._look_last, turns - 1)
        else:
            self._connection.give_up(
                ConnectionLost(
                    f"nothing has come for {self._keepalive.interval} seconds, and nothing in another "
                    f"{self._keepalive.timeout} seconds after the peer was asked whether it is there"
                )
            )


# Those that are in use: each is kept by its connections.
_OfLoop: TypeAlias = WeakValueDictionary[tuple[float, float], Keepalive]
_IN_USE: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()


def keep_alive(connection: Connection, session: Session | None) -> None:
    """Have `session` ask whether the peer is there when nothing comes; None to do so no more."""
    if connection.keepalive is not None:
        connection.keepalive.forget(connection)
        connection.keepalive = None
    if session is None or connection.over_pipes:
        return
    interval, timeout = connection.limits.ping_interval, connection.limits.ping_timeout
    if interval is None or timeout is None:
        return
    connection.keepalive = _keepalive(connection.loop, interval, timeout)
    connection.keepalive.watch(connection, session)


def _keepalive(loop: asyncio.AbstractEventLoop, interval: float, timeout: float) -> Keepalive:
    """Return that of all connections of an event loop that have the same limits."""
    in_use = _IN_USE.get(loop)
    if in_use is None:
        in_use = _IN_USE[loop] = WeakValueDictionary()
    found = in_use.get((interval, timeout))
    if found is None:
        found = in_use[interval, timeout] = Keepalive(loop, interval, timeout)
    return found
