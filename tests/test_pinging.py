"""Pings and the time without an answer, at moments that a conversation seldom meets."""

from __future__ import annotations

import os
from contextvars import Context
from functools import partial
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast

from amp_asyncio import Limits
from amp_asyncio.connection.keepalive import keep_alive
from amp_asyncio.session.life import Pause, State
from amp_asyncio.session.pinging import Ping, ping
from amp_asyncio.transports.sending import unacknowledged


class Asked:
    """Stands for a session: keeps what is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.pinging: Ping | None = None
        self.overlooked = 0
        self.calls = self.outlet = self
        self.responders = SimpleNamespace(context=Context())

    def ask_beside(self, box: Any, asked: Any) -> None:
        self.asked.append(box)

    def overlook(self) -> None:
        self.overlooked += 1


def test_one_ping_at_a_time() -> None:
    session: Any = Asked()
    ping(session)
    ping(session)
    assert len(session.asked) == 1
    pinging, future = session.pinging, SimpleNamespace(done=lambda: True)
    pinging.answered(session.asked[0], session, future)
    latency = pinging.latency
    assert latency is not None
    pinging.answered(session.asked[0], session, future)  # Of a peer that answers twice.
    assert (pinging.latency, session.overlooked) == (latency, 2)
    assert not pinging.may_claim


class Steps:
    """Stands for an event loop: what is to be called is called by the test."""

    def __init__(self) -> None:
        self.later: list[Any] = []
        self.soon: list[Any] = []

    def call_later(self, delay: float, callback: Any, *arguments: Any, context: Context) -> Any:
        return self._keep(self.later, partial(context.run, callback, *arguments))

    def call_soon(self, callback: Any, *arguments: Any, context: Context) -> Any:
        return self._keep(self.soon, partial(context.run, callback, *arguments))

    def _keep(self, calls: list[Any], call: Any) -> Any:
        calls.append(call)
        return SimpleNamespace(cancel=lambda: call in calls and calls.remove(call))

    def run(self, calls: list[Any]) -> None:
        """Call what was to be called first."""
        calls.pop(0)()


class Silent:
    """Stands for a connection from whose peer nothing has come for some seconds, usually an hour."""

    over_pipes = False
    keepalive = transport = None

    def __init__(self, loop: Steps, state: State = State.OPEN, seconds: float = 3600.0) -> None:
        self.loop = loop
        self.state = state
        self.limits = Limits(ping_interval=60.0, ping_timeout=80.0)
        self.inbox = SimpleNamespace(heard_at=perf_counter() - seconds, pauses=frozenset())
        self.outbox = SimpleNamespace(unsent=lambda: 0)
        self.given_up: list[Any] = []
        self.session: Any = Asked()
        self.watch()

    def watch(self) -> None:
        keep_alive(cast(Any, self), self.session)

    def forget(self) -> None:
        keep_alive(cast(Any, self), None)

    def give_up(self, error: Exception) -> None:
        self.given_up.append(error)
        self.forget()


def test_no_ping_while_the_connection_is_changed() -> None:
    loop = Steps()
    changing = Silent(loop, State.CHANGING)
    loop.run(loop.later)
    loop.run(loop.soon)
    assert not changing.session.asked
    changing.forget()
    assert loop.later == loop.soon == []


def until_the_last_look(loop: Steps) -> None:
    loop.run(loop.later)
    loop.run(loop.soon)
    while not loop.soon:
        loop.run(loop.later)


def test_a_byte_that_comes_at_the_last_moment() -> None:
    loop = Steps()
    silent = Silent(loop)
    until_the_last_look(loop)
    silent.inbox.heard_at = perf_counter()
    loop.run(loop.soon)
    assert not silent.given_up
    assert (len(loop.later), len(loop.soon)) == (1, 0)


def test_reading_that_is_paused_at_the_last_moment() -> None:
    loop = Steps()
    silent = Silent(loop)
    until_the_last_look(loop)
    silent.inbox.pauses = frozenset((Pause.BACKLOG,))
    loop.run(loop.soon)
    silent.inbox.pauses = frozenset()
    for _ in range(8):
        assert not silent.given_up
        loop.run(loop.later)
    for _ in range(2):
        loop.run(loop.soon)
    assert len(silent.given_up) == 1
    assert loop.later == loop.soon == []


def test_many_connections_have_one_timer() -> None:
    """It looks at those that are due, and again when the next one is."""
    loop = Steps()
    first, second, third = connections = [Silent(loop) for _ in range(3)]
    assert len(loop.later) == 1
    third.inbox.heard_at = perf_counter()
    loop.run(loop.later)
    assert (len(loop.later), len(loop.soon)) == (1, 2)
    loop.run(loop.soon)
    assert (len(first.session.asked), len(second.session.asked)) == (1, 0)
    second.forget()
    assert loop.soon == []
    third.inbox.heard_at -= 3600.0
    loop.run(loop.later)
    loop.run(loop.soon)
    assert len(third.session.asked) == 1
    for each in connections:
        each.forget()
    assert loop.later == loop.soon == []


def test_those_that_are_due_earlier_than_the_others() -> None:
    loop = Steps()
    last = Silent(loop, seconds=1.0)
    [timer] = loop.later
    first = Silent(loop, seconds=30.0)
    assert len(loop.later) == 1
    assert loop.later != [timer]
    [timer] = loop.later
    second = Silent(loop, seconds=20.0)
    assert loop.later == [timer]
    for each in (first, second, last):
        each.forget()
    assert loop.later == []


def test_what_the_other_end_has_not_taken_is_not_known() -> None:
    def transport(sock: Any) -> Any:
        return SimpleNamespace(get_extra_info=lambda name: sock)

    assert unacknowledged(transport(SimpleNamespace(fileno=lambda: -1))) == 0
    null = os.open(os.devnull, os.O_RDONLY)
    assert unacknowledged(transport(SimpleNamespace(fileno=lambda: null))) == 0
    os.close(null)
    assert unacknowledged(None) == 0
