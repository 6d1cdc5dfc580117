"""Switching with Twisted: whoever asks, whatever our new protocol is, in the clear and behind TLS."""

from __future__ import annotations

import asyncio

import pytest

from .conversations import Conversation, on_unix_too, other
from .securing import PRESENTED, TOTALS, secure
from .streams import KINDS

MEGABYTE = 1 << 20

every_kind = pytest.mark.parametrize("kind", KINDS)


async def exchange(conversation: Conversation, size: int) -> None:
    """Have both sides send so many bytes at once, and compare what was sent with what arrived."""
    async with asyncio.TaskGroup() as group:
        ours = group.create_task(conversation.play("ours", "exchange", 1, size))
        theirs = group.create_task(conversation.play("twisted", "exchange", 2, size))
    assert ours.result() == theirs.result()[::-1]


async def leave(conversation: Conversation, side: str) -> None:
    """Have one side close the connection, and the other one see it."""
    await conversation.play(side, "leave")
    await conversation.play(other(side), "be_left")


@on_unix_too
@every_kind
async def test_accepted(conversation: Conversation, asker: str, kind: str) -> None:
    assert await conversation.play(asker, "switch", kind, True) is None
    for side in ("ours", "twisted"):
        assert await conversation.play(side, "question") == "ProtocolSwitched"
    await exchange(conversation, MEGABYTE)
    await leave(conversation, asker)


@on_unix_too
async def test_refused_by_twisted(conversation: Conversation) -> None:
    """What either side asked meanwhile is answered, ours in order."""
    await conversation.play("twisted", "prepare", None, 3)
    assert await conversation.play("ours", "switch", "protocol", False, 3) == "Declared"
    assert await conversation.play("ours", "answers") == TOTALS * 2
    assert await conversation.play("twisted", "answers") == TOTALS
    assert conversation.peer.innerProtocol is None
    # It may change its mind.
    assert await conversation.play("ours", "switch", "protocol", True) is None
    await exchange(conversation, 1000)
    await leave(conversation, "twisted")


@on_unix_too
async def test_refused_by_us(conversation: Conversation) -> None:
    """Twisted sends nothing meanwhile, neither questions nor answers, which it forgets."""
    assert await conversation.play("twisted", "switch", "protocol", False, 3) == "Declared"
    assert await conversation.play("twisted", "answers") == TOTALS + ["ProtocolSwitched"] * 3
    for side in ("ours", "twisted"):
        assert await conversation.play(side, "question") == 2
    # We may change our mind.
    assert await conversation.play("twisted", "switch", "protocol", True) is None
    await exchange(conversation, 1000)
    await leave(conversation, "ours")


async def test_what_waits_when_twisted_agrees(conversation: Conversation) -> None:
    await conversation.play("twisted", "prepare", None, 3)
    assert await conversation.play("ours", "switch", "protocol", True, 3) is None
    assert await conversation.play("ours", "answers") == TOTALS + ["ProtocolSwitched"] * 3
    await exchange(conversation, 1000)
    await leave(conversation, "ours")
    # Of what it asked meanwhile, Twisted says only then that there will be no answer.
    assert await conversation.play("twisted", "answers") == ["ConnectionDone"] * 3


async def test_what_waits_when_we_agree(conversation: Conversation) -> None:
    await conversation.play("ours", "prepare", None, 3)
    assert await conversation.play("twisted", "switch", "protocol", True, 3) is None
    assert await conversation.play("twisted", "answers") == TOTALS + ["ProtocolSwitched"] * 3
    # It cannot answer what we asked meanwhile.
    assert await conversation.play("ours", "answers") == ["ProtocolSwitched"] * 3
    await exchange(conversation, 1000)
    await leave(conversation, "twisted")


@pytest.mark.parametrize("megabytes", [1, pytest.param(10, marks=pytest.mark.slow)])
@on_unix_too
@every_kind
async def test_secured_and_then_switched(
    conversation: Conversation, asker: str, kind: str, megabytes: int
) -> None:
    """So much each way, at the same time."""
    assert await secure(conversation, asker, PRESENTED) is None
    assert await conversation.play(asker, "switch", kind, True) is None
    await exchange(conversation, megabytes * MEGABYTE)
    await leave(conversation, asker)
