"""Descriptors to and from Twisted, whoever asks and whoever listens."""

from __future__ import annotations

from pathlib import Path

import pytest
from proc import open_descriptors

from .conversations import Conversation, TwistedProcess, conversing

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks into /proc")

on_unix = pytest.mark.parametrize("conversation", ["unix-ours", "unix-twisted"], indirect=True)


@on_unix
async def test_in_a_question(conversation: Conversation, asker: str) -> None:
    assert await conversation.play(asker, "look", 1) == [0, 0]


@on_unix
async def test_in_an_answer(conversation: Conversation, asker: str) -> None:
    assert await conversation.play(asker, "borrow", 1) == [0, 0]


@on_unix
async def test_several_in_one_box(conversation: Conversation, asker: str) -> None:
    assert await conversation.play(asker, "look_at_all", 20) == [*range(20)]
    assert await conversation.play(asker, "borrow", 2, 20) == [0, 0]


@on_unix
async def test_interleaved_with_boxes(conversation: Conversation, asker: str) -> None:
    numbers = [*range(300)]
    assert await conversation.play(asker, "look_interleaved", 300) == [numbers, numbers]


@on_unix
async def test_behind_a_megabyte(conversation: Conversation, asker: str) -> None:
    """Of data that is not sent yet, once for each of them."""
    numbers = [*range(3)]
    assert await conversation.play(asker, "look_interleaved", 3, 1 << 20) == [numbers, numbers]


@pytest.mark.slow
@pytest.mark.parametrize("conversation", ["unix-ours"], indirect=True)
async def test_ten_thousand_in_turn(conversation: Conversation) -> None:
    for asker in ("ours", "twisted"):
        assert await conversation.play(asker, "look", 4_500) == [0, 0]
        assert await conversation.play(asker, "borrow", 500) == [0, 0]


@on_unix
async def test_nobody_asked_for_them(conversation: Conversation, asker: str) -> None:
    """We close them when the connection ends."""
    assert await conversation.play(asker, "unasked", 20) == "open"
    assert await conversation.play(asker, "look", 1) == [0, 0]


async def test_too_many_that_nobody_asked_for(twisted: TwistedProcess, tmp_path: Path) -> None:
    before = open_descriptors()
    async with conversing(twisted, "unix", "twisted", tmp_path) as conversation:
        assert await conversation.play("twisted", "unasked", 600) == "lost"
        await conversation.peer.wait_closed()
    assert open_descriptors() <= before
