"""What lists count against the limits: what they become, and not only their bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from proc import open_descriptors
from support import connected, limited, raw_pair, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    Argument,
    Command,
    Descriptor,
    Integer,
    Limits,
    ListOf,
    String,
    TooLong,
    UnknownRemoteError,
)
from amp_asyncio.wire.costs import PAIR_OVERHEAD

PAIR = AmpList([(b"x", Integer(optional=True)), (b"y", Integer(optional=True))])


@pytest.mark.parametrize(
    ("argument", "value", "objects"),
    [
        (ListOf(String()), 200 * [b"", b"abc"], 200 * 2),
        (ListOf(ListOf(String())), [[], 300 * [b"", b""], [b"1"]], 3 + 600),
        (PAIR, 100 * [{}, {"x": 1}, {}], 100 * 3 * 4),
        (
            AmpList([(b"l", ListOf(String())), (b"m", PAIR), (b"n", Integer())]),
            [{"l": 600 * [b""], "m": 200 * [{}], "n": 1}],
            5 + 600 + 800,
        ),
        (ListOf(PAIR), [200 * [{}], []], 2 + 800),
        (AmpList([]), 300 * [{}], 600),
        (ListOf(String()), 200 * [b""], 0),
        (PAIR, 40 * [{}], 0),
        (ListOf(PAIR), [[{}], []], 2),
    ],
)
async def test_a_list_counts_what_it_becomes(argument: Argument, value: Any, objects: int) -> None:
    class Many(Command):
        arguments = [(b"values", argument)]

    class Server(AMP):
        @Many.responder
        def many(self, values: Any) -> dict[str, Any]:
            return {}

    string = argument.toString(value)
    question = AmpBox(_command=b"Many", _ask=b"1", values=string)
    pairs = sum(len(key) + len(value) + PAIR_OVERHEAD for key, value in question.items())
    size = pairs + objects * PAIR_OVERHEAD
    # (The parser counts the lengths of the pairs, too.)
    limits = ((size, False), (size - 1, True)) if objects else ((size + 20, False),)
    for limit, refused in limits:
        async with raw_pair(Server, max_box_size=limit) as (_, peer):
            peer.send(question)
            await turns()
            assert (b"_error" in peer.boxes()[0]) is refused
            assert peer.events == ["made"], "only the command is refused"


class Numbers(Command):
    arguments = [(b"numbers", ListOf(Integer()))]
    response = [(b"numbers", ListOf(Integer()))]


class Grow(AMP):
    """Answers with ten times as many numbers."""

    @Numbers.responder
    def numbers(self, numbers: list[int]) -> dict[str, Any]:
        return {"numbers": 10 * numbers}


async def test_a_question_with_too_long_a_list_is_not_sent() -> None:
    async with raw_pair(max_box_size=60_000) as (amp, peer):
        with pytest.raises(TooLong, match="pairs and elements of lists exceed max_box_size, the limit"):
            amp.callRemote(Numbers, numbers=600 * [1])
        await turns()
        assert peer.data == b""


async def test_an_answer_with_too_long_a_list_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Small(Grow):
        limits = Limits(max_box_size=60_000)

    async with connected(Small, AMP) as (_, client):
        assert await client.callRemote(Numbers, numbers=[1]) == {"numbers": 10 * [1]}
        with pytest.raises(UnknownRemoteError):
            await client.callRemote(Numbers, numbers=100 * [1])
        assert await client.callRemote(Numbers, numbers=[2]) == {"numbers": 10 * [2]}
    assert "local box too long" in caplog.text


async def test_too_long_a_list_in_an_answer_is_an_error_of_that_call() -> None:
    class Small(AMP):
        limits = Limits(max_box_size=60_000)

    async with connected(Grow, Small) as (_, client):
        with pytest.raises(TooLong, match="remote box too long"):
            await client.callRemote(Numbers, numbers=100 * [1])
        assert await client.callRemote(Numbers, numbers=[2]) == {"numbers": 10 * [2]}


async def test_lists_count_towards_the_window() -> None:
    async with raw_pair(window=50_000, max_backlog=50_000) as (amp, peer):
        answers = [amp.callRemote(Numbers, numbers=300 * [1]) for _ in range(2)]
        for number, answer in enumerate(answers, 1):
            await turns()
            assert len(peer.boxes()) == number
            peer.send(AmpBox(_answer=b"%d" % number, numbers=b""))
            assert await answer == {"numbers": []}


async def test_a_list_that_is_read_in_another_way_is_not_counted() -> None:
    class Packed(ListOf):
        def fromStringProto(self, inString: bytes, proto: Any) -> list[Any]:
            return [inString]

    class Pack(Command):
        arguments = [(b"values", Packed(String()))]

    class Server(AMP):
        @Pack.responder
        def pack(self, values: list[bytes]) -> dict[str, Any]:
            return {}

    async with raw_pair(Server, max_box_size=1000) as (_, peer):
        peer.send(AmpBox(_command=b"Pack", _ask=b"1", values=b"\0\0" * 100))
        await turns()
        assert peer.boxes() == [{b"_answer": b"1"}]


@pytest.mark.parametrize("string", [b"\0\x05ab", b"\0", b"\0\1x", b"\0\1x\0\x09", b"\0\1x\0\0"])
async def test_a_list_that_does_not_parse(string: bytes, caplog: pytest.LogCaptureFixture) -> None:
    class Pairs(Command):
        arguments = [(b"values", PAIR)]

    class Server(Grow):
        @Pairs.responder
        def pairs(self, values: Any) -> dict[str, Any]:
            raise AssertionError

    async with raw_pair(Server) as (_, peer):
        peer.send(
            AmpBox(_command=b"Pairs", _ask=b"1", values=string),
            AmpBox(_command=b"Numbers", _ask=b"2", numbers=string),
        )
        await turns()
        assert [box[b"_error_code"] for box in peer.boxes()] == 2 * [b"UNKNOWN"]
        assert peer.events == ["made"]


async def test_a_long_list_is_the_last_of_its_turn() -> None:
    """To read it may take milliseconds, during which all other connections wait."""
    amp, transport = limited(Grow)
    question = AmpBox(_command=b"Numbers", _ask=b"1", numbers=ListOf(Integer()).toString(300 * [1]))
    amp.data_received(3 * question.serialize())
    answered = [len(transport.boxes())]
    while answered[-1] < 3:
        await asyncio.sleep(0)
        answered.append(len(transport.boxes()))
    assert sorted(set(answered)) == [1, 2, 3]
    asked = [amp.callRemote(Numbers, numbers=[]) for _ in range(2)]
    data = b""
    for tag in (b"1", b"2"):
        data += AmpBox(_answer=tag, numbers=question[b"numbers"]).serialize()
    await turns()
    amp.data_received(data)
    assert [answer.done() for answer in asked] == [True, False]
    assert await asyncio.gather(*asked) == 2 * [{"numbers": 300 * [1]}]


async def test_descriptors_in_too_long_a_list_are_taken_back() -> None:
    files = AmpList([(b"f%d" % number, Descriptor(optional=True)) for number in range(30)])

    class Files(Command):
        arguments = [(b"files", files)]
        response = [(b"files", files)]

    class Limited(AMP):
        limits = Limits(max_box_size=8000)

        @Files.responder
        def give(self, files: Any) -> dict[str, Any]:
            return {"files": 3 * [{"f0": 0}]}

    async with connected(Limited, Limited, unix=True) as (_, client):
        before = open_descriptors()
        with pytest.raises(TooLong):
            client.callRemote(Files, files=3 * [{"f0": 0}])
        with pytest.raises(UnknownRemoteError):
            await client.callRemote(Files, files=[])
        assert open_descriptors() == before
