"""The bytes on the wire: they are the same whichever library asks, and whichever one answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conversations import OurPeer, TwistedProcess, conversing
from .definitions import KINDS

CONVERSATIONS: dict[str, tuple[Any, ...]] = {
    **{kind: ("echo", kind) for kind in KINDS},
    "all present": ("everything", [*KINDS], []),
    "all absent": ("everything", [], [*KINDS]),
    "names": ("names",),
    "no definition": ("by_name", "reverse", {"data": ""}),
    "declared error": ("error", "FailMore", {"error": "Extra", "text": "Grüße"}),
    "unhandled": ("error", "Unhandled", {}),
    "asked back": ("countdowns", 20),
}


class RecordingTransport:
    """A transport that keeps what is written to it."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data
        self.transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class RecordingPeer(OurPeer):
    """Keeps the bytes of both directions, without what peers of this package add to them."""

    extensions = False

    def connection_made(self, transport: Any) -> None:
        recorder = RecordingTransport(transport)
        self.sent = recorder.written
        self.received = bytearray()
        super().connection_made(recorder)

    def data_received(self, data: bytes) -> None:
        self.received += data
        super().data_received(data)


async def record(
    twisted: TwistedProcess, directory: Path, asker: str, *scenario: Any
) -> tuple[bytearray, bytearray]:
    """Return what our side sends and receives in a scenario."""
    async with conversing(twisted, "tcp", "twisted", directory, RecordingPeer) as conversation:
        await conversation.play(asker, *scenario)
        return conversation.peer.sent, conversation.peer.received


@pytest.mark.parametrize("scenario", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
async def test_same_bytes(twisted: TwistedProcess, tmp_path: Path, scenario: tuple[Any, ...]) -> None:
    our_questions, twisted_answers = await record(twisted, tmp_path, "ours", *scenario)
    our_answers, twisted_questions = await record(twisted, tmp_path, "twisted", *scenario)
    assert our_questions == twisted_questions
    assert our_answers == twisted_answers


async def test_no_answer_is_asked_for(twisted: TwistedProcess, tmp_path: Path, asker: str) -> None:
    wire = await record(twisted, tmp_path, asker, "notes", 100)
    questions, answers = wire if asker == "ours" else reversed(wire)
    assert questions.count(b"_command") == 101
    assert questions.count(b"_ask") == 1
    assert answers.count(b"_answer") == 1
