"""Typed commands and their pairs: with Twisted on the other side, and with our own pairs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amp_asyncio.testing import pair

from . import definitions, scenarios
from .conversations import OurPeer, TwistedProcess, conversing
from .typed import Arrival, NoRoom, Stay, TypedPeer, described, stay

CASES = [(1, 0), (2, 3), (3, 200_000)]


@pytest.mark.parametrize(("number", "size"), CASES)
def test_the_bytes_are_those_of_the_pairs(number: int, size: int) -> None:
    question = stay(number, size)
    pairs = definitions.stay(number, size)
    box = Stay.makeArguments(question.structured, None)
    expected = {**pairs, "low": pairs.get("low", 7)}
    assert box == definitions.Stay.makeArguments(expected, None)
    assert box == Stay.makeResponse(Arrival(**question.structured), None)
    assert Stay.parseArguments(definitions.Stay.makeArguments(pairs, None), None) == question.structured


async def assert_understood(peer: OurPeer) -> None:
    """Ask by the typed definition one who answers by the pairs."""
    for number, size in CASES:
        question = stay(number, size)
        assert await peer.call(question) == Arrival(**question.structured)
        assert await peer.callRemote(Stay, **question.structured) == Arrival(**question.structured)
    with pytest.raises(NoRoom, match="^no room -1$") as caught:
        await peer.call(stay(-1, 0))
    assert caught.value.name == "no name"
    assert not hasattr(caught.value, "free")


@pytest.mark.parametrize("server", ["ours", "twisted"])
async def test_with_twisted(twisted: TwistedProcess, server: str, tmp_path: Path) -> None:
    async with conversing(twisted, "tcp", server, tmp_path, TypedPeer) as conversation:
        await assert_understood(conversation.peer)
        for number, size in CASES:
            answer = await conversation.play("twisted", "stays", number, size)
            expected = definitions.stay(number, size)
            assert answer == described({**expected, "low": expected.get("low", 7)})
        # Twisted gets the text of the error, and ignores its fields.
        assert await conversation.play("twisted", "stays", -1, 0) == "no room -1"


async def test_with_our_own_pairs() -> None:
    class Pairs(definitions.Peer):
        """Answers by the pairs."""

    async with pair(Pairs, lambda: TypedPeer(asyncio.Queue())) as (pairs, typed):
        await assert_understood(typed)
        for number, size in CASES:
            answer = await scenarios.stays(pairs, number, size)
            expected = definitions.stay(number, size)
            assert answer == described({**expected, "low": expected.get("low", 7)})
        assert await scenarios.stays(pairs, -1, 0) == "no room -1"
