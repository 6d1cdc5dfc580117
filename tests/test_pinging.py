"""Pings and the time without an answer, at moments that a conversation seldom meets."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

from support import turns

from amp_asyncio.connection.keepalive import Keepalive
from amp_asyncio.session.life import State
from amp_asyncio.session.pinging import Ping
from amp_asyncio.transports.sending import unacknowledged


class Asked:
    """Stands for a session: keeps what is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.latency: float | None = None
        self.overlooked = 0
        self.calls = self.outlet = self

    def ask_beside(self, box: Any, asked: Any) -> None:
        self.asked.append(box)

    def overlook(self) -> None:
        self.overlooked += 1


def test_one_ping_at_a_time() -> None:
    session: Any = Asked()
    ping = Ping(session)
    ping.send()
    ping.send()
    assert len(session.asked) == 1
    ping.answered(session.asked[0], session, None)
    latency = session.latency
    assert latency is not None
    ping.answered(session.asked[0], session, None)  # Of a peer that answers twice.
    assert (session.latency, session.overlooked) == (latency, 2)
    assert not ping.may_claim


def connection(state: State) -> Any:
    return SimpleNamespace(
        loop=asyncio.get_running_loop(),
        state=state,
        inbox=SimpleNamespace(heard_at=0.0, pauses=frozenset()),
        outbox=SimpleNamespace(unsent=lambda: 0),
        transport=None,
        given_up=[],
        limits=None,
    )


async def test_no_ping_while_the_connection_is_changed() -> None:
    pings: list[None] = []
    changing = connection(State.CHANGING)
    keepalive = Keepalive(changing, lambda: pings.append(None), 0.0, 60.0)
    await turns()
    assert not pings
    keepalive.cancel()


class Steps:
    """Stands for an event loop: what is to be called is called by the test."""

    def __init__(self) -> None:
        self.later: list[Any] = []
        self.soon: list[Any] = []

    def call_later(self, delay: float, callback: Any, *arguments: Any, context: Any = None) -> Any:
        self.later.append(lambda: callback(*arguments))
        return SimpleNamespace(cancel=lambda: None)

    def call_soon(self, callback: Any, *arguments: Any) -> Any:
        self.soon.append(lambda: callback(*arguments))
        return SimpleNamespace(cancel=lambda: None)


async def test_a_byte_that_comes_at_the_last_moment() -> None:
    silent = connection(State.OPEN)
    silent.loop = loop = Steps()
    silent.give_up = silent.given_up.append
    Keepalive(silent, lambda: None, 0.0, 80.0)
    while not loop.soon:
        loop.later.pop()()
    silent.inbox.heard_at = 1.0
    loop.soon.pop()()
    assert not silent.given_up
    assert len(loop.later) == 1


def test_what_the_other_end_has_not_taken_is_not_known() -> None:
    def transport(sock: Any) -> Any:
        return SimpleNamespace(get_extra_info=lambda name: sock)

    assert unacknowledged(transport(SimpleNamespace(fileno=lambda: -1))) == 0
    null = os.open(os.devnull, os.O_RDONLY)
    assert unacknowledged(transport(SimpleNamespace(fileno=lambda: null))) == 0
    os.close(null)
    assert unacknowledged(None) == 0
