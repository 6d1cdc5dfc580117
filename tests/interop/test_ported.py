"""Definitions from PyPI that were written for Twisted, and work here with their import line changed."""

from __future__ import annotations

import pytest

from .conversations import Conversation, on_unix_too
from .definitions import PORTED, described, ported_commands, samples


@pytest.mark.parametrize("name", PORTED)
async def test_commands(conversation: Conversation, asker: str, name: str) -> None:
    commands = ported_commands(PORTED[name])
    answers = {command.__name__: described(samples(command.response)) for command in commands}
    state = "lost" if name == "ampoule.commands" else "open"
    assert await conversation.play(asker, "ported", name) == [answers, state]


@on_unix_too
async def test_coroutine(conversation: Conversation, asker: str) -> None:
    stream_open = vars(PORTED["twisted.trial._dist.stream"])["StreamOpen"]
    expected = samples(stream_open.response)["streamId"]
    assert await conversation.play(asker, "stream", 3) == expected
