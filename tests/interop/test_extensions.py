"""What peers of this package say to each other, tried at Twisted: it never notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from amp_asyncio import AmpBox, DeadlineExceeded, Limits, UnhandledCommand

from .conversations import Conversation, OurPeer, TwistedProcess, conversing
from .definitions import Countdown, Repeat, Sum


class Extended(OurPeer):
    limits = Limits(ping_interval=0.02, ping_timeout=5, ping_anyone=True, default_timeout=30)
    describable = True


@pytest_asyncio.fixture(params=["ours", "twisted"])
async def extended(
    request: pytest.FixtureRequest, twisted: TwistedProcess, tmp_path: Path
) -> AsyncIterator[Conversation]:
    await twisted.order("errors")
    async with conversing(twisted, "tcp", request.param, tmp_path, Extended) as conversation:
        yield conversation


async def test_each_extension_is_tried_at_twisted(extended: Conversation) -> None:
    peer: Any = extended.peer
    # Ordinary calls, with all that may go along with one.
    assert await peer.call(Sum(a=1, b=2), timeout=5, metadata={"trace": "1"}) == {"total": 3}
    assert await peer.callRemote(Repeat, data=b"x") == {"data": b"x"}
    assert await extended.play("twisted", "countdowns", 3, 1) == [1, 3, 4]
    # An echo of all that we have sent does not make it one of ours.
    echo = await peer.callRemoteString("echo", data=b"x")
    assert echo == AmpBox(data=b"x", _command=b"echo", _ask=echo[b"_ask"], _answer=echo[b"_ask"])
    # Cancelled, and late: the answers are dropped when they come.
    peer.call(Countdown(n=3), timeout=5).cancel()
    with pytest.raises(DeadlineExceeded):
        await peer.call(Sum(a=1, b=2), timeout=1e-9)
    for ask in (peer.health, peer.describe):
        with pytest.raises(UnhandledCommand):
            await ask()
    while peer.latency is None:
        await asyncio.sleep(0.01)
    assert (await extended.play("twisted", "countdowns", 2, 1))[:2] == [1, 2]
    await peer.close()
    assert await extended.twisted.order("errors") == 0
