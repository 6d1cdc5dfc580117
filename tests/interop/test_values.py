"""Every argument type, there and back: what one library sends is what the other one gets."""

from __future__ import annotations

import pytest

from .conversations import Conversation, on_unix_too
from .definitions import KEY, KINDS, described


@pytest.mark.parametrize("kind", KINDS)
async def test_values(conversation: Conversation, asker: str, kind: str) -> None:
    assert await conversation.play(asker, "echo", kind) == described(KINDS[kind][1])


@on_unix_too
async def test_all_present(conversation: Conversation, asker: str) -> None:
    expected = described({kind: values[-1] for kind, (_, values) in KINDS.items()})
    assert await conversation.play(asker, "everything", [*KINDS], []) == expected


@pytest.mark.parametrize("none", [[], [*KINDS]], ids=["missing", "None"])
async def test_all_absent(conversation: Conversation, asker: str, none: list[str]) -> None:
    assert await conversation.play(asker, "everything", [], none) == {}


async def test_names(conversation: Conversation, asker: str) -> None:
    expected = {"Class": 1, "is_it": 2, "Print": 3, KEY: 4}
    assert await conversation.play(asker, "names") == expected


async def test_too_long(conversation: Conversation, asker: str) -> None:
    assert await conversation.play(asker, "too_long") == [False, True, True, "open"]


SIZES = [0, 1, 65_534, 65_535, 65_536, 131_070, 3_000_000]


@pytest.mark.parametrize("size", SIZES)
async def test_big(conversation: Conversation, asker: str, size: int) -> None:
    assert await conversation.play(asker, "big", size)


# (Of an empty value, Flocker sends nothing at all.)
@pytest.mark.parametrize("size", SIZES[1:])
async def test_big_in_the_layout_of_flocker(conversation: Conversation, size: int) -> None:
    assert await conversation.play("twisted", "measured", size)
