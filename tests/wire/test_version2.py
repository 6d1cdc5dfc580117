"""AMP version 2: values of any length, read alike whatever the cuts, and a conversation in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from fakes import Recorder
from hypothesis import example, given, settings
from hypothesis import strategies as st
from samples import BOXES, CUTS, PIECE, SIZES, fed, pieces, sample, single_bytes, wire
from support import (
    Echo,
    Math,
    Sum,
    Switching,
    connected,
    limited,
    listening,
    raw_client,
    switch_box,
    turns,
)

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    BoxParser,
    Command,
    Limits,
    StartTLS,
    String,
    TooLong,
)
from amp_asyncio.wire.costs import PAIR_OVERHEAD


def written(boxes: Iterable[dict[bytes, bytes]]) -> bytes:
    """Write boxes by the book, piece by piece."""
    stream = b""
    for box in boxes:
        for key in sorted(box):
            stream += bytes([0, len(key)]) + key
            rest = box[key]
            while len(rest) >= 65_535:
                stream += b"\xff\xff" + rest[:65_535]
                rest = rest[65_535:]
            stream += bytes([len(rest) // 256, len(rest) % 256]) + rest
        stream += b"\0\0"
    return stream


def test_the_example_of_the_shortest_value_in_two_pieces() -> None:
    value = sample(PIECE)
    assert AmpBox(k=value).serialize(2) == b"\0\1k\xff\xff" + value + b"\0\0" + b"\0\0"


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(size: int) -> None:
    boxes = [AmpBox(a=b"1", b=sample(size), c=b"3"), AmpBox(), AmpBox(b=sample(size)[::-1])]
    stream = b"".join(box.serialize(2) for box in boxes)
    assert stream == written(boxes)
    for length in (len(stream), 65_536, 65_535, 1000):
        parser = BoxParser(version=2)
        cut_stream = [stream[start : start + length] for start in range(0, len(stream), length)]
        assert fed(parser, cut_stream) == boxes
        assert not parser.in_box
        assert parser.take_rest() == b""


@given(BOXES, CUTS)
def test_small_values_are_as_in_version_1(boxes: list[AmpBox], cuts: list[int]) -> None:
    stream = wire(boxes)
    assert stream == written(boxes) == b"".join(box.serialize(2) for box in boxes)
    assert fed(BoxParser(version=2), pieces(stream, cuts)) == boxes


LENGTHS = st.sampled_from([0, 1, 300, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 7])
LARGE = st.lists(st.dictionaries(st.sampled_from([b"a", b"bb", b"k" * 255]), LENGTHS), max_size=3)
# Where something begins or ends, more often than not.
PLACES = st.lists(
    st.tuples(st.integers(0, 8).map(lambda n: n * (PIECE + 2)), st.integers(0, 530)).map(sum),
    max_size=8,
)


@settings(max_examples=60)
@given(LARGE, PLACES, st.integers(0, 3), st.integers(0, 500_000))
@example([{b"a": 2 * PIECE}], [4, 5, 6, 65_539, 65_540, 65_541, 65_542, 131_077, 131_078], 1, 0)
def test_every_cut_gives_the_same(
    lengths: list[dict[bytes, int]], cuts: list[int], wanted: int, end: int
) -> None:
    boxes = [AmpBox({key: sample(length) for key, length in box.items()}) for box in lengths]
    stream = written(boxes)
    parser = BoxParser(version=2)
    assert fed(parser, pieces(stream, cuts)) == boxes
    assert parser.take_rest() == b""
    # What is behind some of them comes back, byte for byte.
    wanted = min(wanted, len(boxes))
    taken: list[AmpBox] = []
    for piece in pieces(stream, cuts):
        parser.feed(piece)
        while len(taken) < wanted and (box := parser.next_box()) is not None:
            taken.append(box)
    assert taken == boxes[:wanted]
    assert parser.in_box == (wanted < len(boxes))
    assert parser.take_rest() == written(boxes[wanted:])
    # And so does a part of one.
    part = stream[: end % (len(stream) + 1)]
    rest = part[len(written(fed(parser, pieces(part, cuts)))) :]
    assert parser.in_box == bool(rest)
    assert parser.take_rest() == rest
    assert fed(parser, [stream]) == boxes


def test_byte_by_byte() -> None:
    boxes = [AmpBox(a=sample(2 * PIECE), b=b"x"), AmpBox(b=sample(PIECE + 1))]
    assert fed(BoxParser(version=2), single_bytes(written(boxes))) == boxes


@given(st.binary(max_size=600), CUTS)
@example(b"\0\1a\xff\xff" + bytes(PIECE) + b"\xff\xff" + bytes(PIECE) + b"\0", [70_000])
@example(b"\0\1a\xff\xff" + bytes(PIECE) + b"\0\1x\1", [65_541])
def test_any_bytes(stream: bytes, cuts: list[int]) -> None:
    def verdict(cut_stream: Iterable[bytes]) -> Any:
        parser = BoxParser(version=2)
        try:
            return fed(parser, cut_stream), parser.in_box, parser.take_rest()
        except TooLong as error:
            assert (error.isKey, error.isLocal) == (True, False)
            assert error.value in stream
            return TooLong

    assert verdict([stream]) == verdict(pieces(stream, cuts)) == verdict(single_bytes(stream))


def test_error_has_the_bytes_that_came() -> None:
    parser = BoxParser(version=2)
    parser.feed(b"\0\1a\0\0\0\0GET /" + b"x" * 99)
    assert parser.next_box() == {b"a": b""}
    with pytest.raises(TooLong, match="this looks like HTTP"):
        parser.next_box()


def test_later_of_equal_keys() -> None:
    stream = b"\0\1a\xff\xff" + bytes(PIECE) + b"\0\1x" + b"\0\1a\0\1y"
    assert fed(BoxParser(version=2), [stream + b"\0\0"]) == [{b"a": b"y"}]


def test_fed_again_before_boxes_are_asked_for() -> None:
    boxes = [AmpBox(a=sample(PIECE)), AmpBox(b=sample(PIECE))]
    parser = BoxParser(version=2)
    for piece in pieces(written(boxes), [10, 65_540, 65_545, 70_000]):
        parser.feed(piece)
    assert list(iter(parser.next_box, None)) == boxes


@pytest.mark.parametrize("step", [1, 1000, 10**6])
def test_a_box_at_the_limit_and_one_byte_over(step: int) -> None:
    box = AmpBox(a=sample(PIECE), b=sample(PIECE + 9), c=b"")
    stream = written([box])
    size = len(stream) + PAIR_OVERHEAD * len(box)
    cut_stream = [stream[start : start + step] for start in range(0, len(stream), step)]
    assert fed(BoxParser(size, version=2), 2 * cut_stream) == [box, box]
    with pytest.raises(TooLong, match=f"the limit of {size - 1} bytes"):
        fed(BoxParser(size - 1, version=2), cut_stream)


def test_a_value_without_end_meets_the_limit_and_holds_no_more_than_that() -> None:
    parser = BoxParser(1_000_000, version=2)
    parser.feed(b"\0\1k")
    count = 0
    with pytest.raises(TooLong, match="remote box too long"):
        while True:
            assert parser.next_box() is None
            parser.feed(b"\xff\xff" + bytes(PIECE))
            count += 1
    assert count == 1_000_000 // (PIECE + 2) + 1


# --- conversations ---


class Modern(Math):
    protocol_version = 2


def test_versions_that_there_are() -> None:
    assert AMP().protocol_version == 1
    assert AMP(version=2).protocol_version == Modern().protocol_version == 2
    assert Modern(version=1).protocol_version == 1
    for version in (0, 3, "2"):
        with pytest.raises(ValueError, match="AMP has the versions 1 and 2, not"):
            AMP(version=version)  # type: ignore[arg-type]


def modern() -> AMP:
    return AMP(version=2)


@pytest.mark.parametrize("size", SIZES)
async def test_any_length_there_and_back(size: int) -> None:
    async with connected(Modern, modern) as (_, client):
        assert await client.callRemote(Echo, data=sample(size)) == {"data": sample(size)}
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


class Listed(Command):
    arguments = response = [("items", AmpList([("data", String())]))]


class Lister(Modern):
    @Listed.responder
    def listed(self, items: Any) -> dict[str, Any]:
        return {"items": items}


async def test_a_list_may_be_large_and_its_items_are_as_ever() -> None:
    items = [{"data": sample(60_000)}] * 5
    async with connected(Lister, modern) as (_, client):
        assert await client.callRemote(Listed, items=items) == {"items": items}
        with pytest.raises(TooLong, match="65536 bytes, the limit is 65535"):
            client.callRemote(Listed, items=[{"data": sample(PIECE + 1)}])


async def test_what_is_on_the_wire() -> None:
    async with listening(Modern) as server, raw_client(server) as (reader, writer):
        question = {b"_command": b"Echo", b"_ask": b"1", b"data": sample(2 * PIECE)}
        writer.write(written([question]))
        answer = written([{b"_answer": b"1", b"data": sample(2 * PIECE)}])
        assert await reader.readexactly(len(answer)) == answer


async def test_questions_that_wait() -> None:
    async with connected(Modern, modern) as (_, client):
        answers = [client.callRemote(Echo, data=sample(700_000 + n)) for n in range(4)]
        for n, answer in enumerate(answers):
            assert await answer == {"data": sample(700_000 + n)}


async def test_questions_over_the_window_wait() -> None:
    class Plain(AMP):
        protocol_version = 2
        extensions = False

    amp, transport = limited(Plain, window=1024 * 1024)
    answers = [amp.callRemote(Echo, data=sample(700_000 + n)) for n in range(4)]
    for n, answer in enumerate(answers):
        await turns()
        questions = [
            {b"_command": b"Echo", b"_ask": b"%x" % (m + 1), b"data": sample(700_000 + m)}
            for m in range(n + 1)
        ]
        assert b"".join(transport.written) == written(questions)
        amp.data_received(written([{b"_answer": b"%x" % (n + 1), b"data": b"x"}]))
        assert await answer == {"data": b"x"}


async def test_a_peer_that_speaks_version_1_is_understood_as_far_as_it_goes() -> None:
    async with connected(Modern, AMP) as (_, client):
        assert await client.callRemote(Echo, data=sample(PIECE - 1)) == {"data": sample(PIECE - 1)}
        with pytest.raises(TooLong, match="65536 bytes"):
            client.callRemote(Echo, data=sample(PIECE + 1))


async def test_drip_fed_without_end(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(Modern, limits=Limits(max_box_size=300_000)) as server:
        async with raw_client(server) as (_, writer):
            writer.write(b"\0\1k")
            with pytest.raises(ConnectionError):
                for _ in range(10_000):
                    writer.write(b"\xff\xff" + bytes(PIECE))
                    await writer.drain()
    assert "remote box too long" in caplog.text


class ModernSwitching(Switching):
    protocol_version = 2


async def test_what_is_half_a_box_is_handed_over() -> None:
    made: list[ModernSwitching] = []

    def factory() -> ModernSwitching:
        made.append(ModernSwitching())
        return made[-1]

    async with listening(factory) as server, raw_client(server) as (reader, writer):
        behind = b"\0\1k\xff\xff" + sample(PIECE) + b"\xff\xff" + sample(PIECE) + b"\0\5ab"
        writer.write(switch_box() + behind)
        assert await reader.readexactly(14) == AmpBox(_answer=b"1").serialize()
        inner = made[0].inner
        assert isinstance(inner, Recorder)
        await inner.until(lambda: inner.data == behind)
        inner.transport.close()
        assert await reader.read() == b""
        await inner.until(lambda: "lost" in inner.events)


async def test_over_tls() -> None:
    async with connected(Modern, modern) as (_, client):
        await client.callRemote(StartTLS)
        assert await client.callRemote(Echo, data=sample(3_000_000)) == {"data": sample(3_000_000)}
