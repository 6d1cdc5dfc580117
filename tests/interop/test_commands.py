"""Questions, answers and errors between the libraries, in every order and in every number."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from .conversations import Conversation, on_unix_too

TEXT = "Grüße: 世界"
UNKNOWN = "Code<UNKNOWN>: Unknown Error"


def assert_alike(asker: str, outcome: Any, twisteds: Any) -> None:
    """Compare an outcome with Twisted's: after an error without a code, our side goes on.

    It also refers to its log, if the error is its own.
    """
    if asker == "twisted" and UNKNOWN in twisteds:
        kind, text, state = outcome
        assert re.fullmatch(re.escape(UNKNOWN) + r"( \(reference [0-9a-f]{8}\))?", text)
        outcome, twisteds = [kind, state], [twisteds[0], "open"]
    assert outcome == twisteds


@on_unix_too
@pytest.mark.parametrize(
    ("command", "error", "outcome"),
    [
        ("Fail", "Declared", ["Declared", TEXT, "open"]),
        ("Fail", "MoreThanDeclared", ["Declared", TEXT, "open"]),
        ("FailMore", "Declared", ["Declared", TEXT, "open"]),
        ("FailMore", "Extra", ["Extra", TEXT, "open"]),
        ("Fail", "Fatal", ["Fatal", TEXT, "lost"]),
        ("FailMore", "Fatal", ["Fatal", TEXT, "lost"]),
        ("Fail", "Extra", ["UnknownRemoteError", UNKNOWN, "lost"]),
    ],
)
async def test_errors(
    conversation: Conversation, asker: str, command: str, error: str, outcome: list[str]
) -> None:
    arguments = {"error": error, "text": TEXT}
    assert_alike(asker, await conversation.play(asker, "error", command, arguments), outcome)


@on_unix_too
async def test_answer_that_does_not_encode(conversation: Conversation, asker: str) -> None:
    outcome = await conversation.play(asker, "error", "Misanswer", {})
    assert_alike(asker, outcome, ["UnknownRemoteError", UNKNOWN, "lost"])


@on_unix_too
async def test_unhandled(conversation: Conversation, asker: str) -> None:
    outcome = await conversation.play(asker, "error", "Unhandled", {})
    assert outcome == ["UnhandledCommand", "", "open"]


@pytest.mark.parametrize(
    ("command", "arguments", "outcome"),
    [
        ("reverse", {"data": "desserts"}, {"_answer": "1", "data": "stressed"}),
        ("Sum", {"a": "13", "b": "81"}, {"_answer": "1", "total": "94"}),
        ("Sum", {"a": "many", "b": "1"}, ["RemoteAmpError", UNKNOWN, "lost"]),
        ("Sum", {"a": "1"}, ["RemoteAmpError", UNKNOWN, "lost"]),
        ("nonsense", {}, ["UnhandledCommand", "", "open"]),
    ],
)
async def test_without_a_definition(
    conversation: Conversation, asker: str, command: str, arguments: dict[str, str], outcome: Any
) -> None:
    assert_alike(asker, await conversation.play(asker, "by_name", command, arguments), outcome)


@on_unix_too
async def test_no_answer_required(conversation: Conversation, asker: str) -> None:
    assert await conversation.play(asker, "notes", 100) == [str(number) for number in range(100)]


@on_unix_too
async def test_asked_back_and_answered_out_of_order(conversation: Conversation, asker: str) -> None:
    assert await conversation.play(asker, "countdowns", 12, 4, 8, 0) == [0, 4, 8, 12, 24]


@pytest.mark.parametrize("conversation", ["tcp-ours", "unix-twisted"], indirect=True)
@pytest.mark.parametrize(
    ("scenario", "count", "askers"),
    [
        pytest.param("sums", 10_000, ["ours"], marks=pytest.mark.slow),
        pytest.param("sums", 10_000, ["twisted"], marks=pytest.mark.slow),
        pytest.param("sums", 10_000, ["ours", "twisted"], marks=pytest.mark.slow),
        ("flood", 200, ["ours", "twisted"]),
    ],
)
async def test_load(conversation: Conversation, scenario: str, count: int, askers: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        plays = [group.create_task(conversation.play(asker, scenario, count)) for asker in askers]
    assert [play.result() for play in plays] == [[] for _ in askers]
