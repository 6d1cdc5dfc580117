"""Streams towards Twisted: it is told that it cannot, or tells us so, and the connection goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amp_asyncio import StreamCommand, StreamsUnsupported

from .conversations import OurPeer, TwistedProcess, conversing


class Numbers(StreamCommand[int, int]):
    """Twisted has no such command."""

    commandName = b"Unhandled"


class SumOfBoth(StreamCommand[int, int]):
    """Twisted answers a plain command of this name."""

    commandName = b"Sum"
    a: int = 1
    b: int = 2


class Streaming(OurPeer):
    @Numbers.responder
    async def numbers(self) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize("server", ["ours", "twisted"])
@pytest.mark.parametrize("command", [Numbers, SumOfBoth])
async def test_twisted_is_asked_for_a_stream(
    twisted: TwistedProcess, tmp_path: Path, server: str, command: type[Numbers]
) -> None:
    async with conversing(twisted, "tcp", server, tmp_path) as conversation:
        async with conversation.peer.stream(command()) as stream:
            with pytest.raises(StreamsUnsupported):
                await anext(stream)
            with pytest.raises(StreamsUnsupported):
                await stream.send(1)
        # From now on that is known, and nothing is sent.
        with pytest.raises(StreamsUnsupported, match="the peer does not know streams"):
            await conversation.peer.stream(command()).__aenter__()
        for side in ("ours", "twisted"):
            assert await conversation.play(side, "state") == "open"


@pytest.mark.parametrize("server", ["ours", "twisted"])
async def test_twisted_asks_for_a_stream(twisted: TwistedProcess, tmp_path: Path, server: str) -> None:
    async with conversing(twisted, "tcp", server, tmp_path, Streaming) as conversation:
        outcome = await conversation.play("twisted", "error", "Unhandled", {})
        assert outcome == ["UnhandledCommand", "", "open"]
