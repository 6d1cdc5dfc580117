"""The parser: whatever the cuts and whatever the bytes, boxes, a documented error, or the rest."""

from __future__ import annotations

import io
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from samples import BOXES, CUTS, fed, pieces, single_bytes, wire
from twisted.protocols import amp as twisted_amp

from amp_asyncio import AmpBox, BoxParser, MalformedAmpBox, TooLong, parse, parseString

twisted: Any = twisted_amp


# Empty boxes, and keys and values as short and as long as they come.
LIMITS = [
    AmpBox(),
    AmpBox({b"k" * 255: b"v" * 65535, b"\0": b""}),
    AmpBox({b"\0\0": b"\0\0"}),
    AmpBox(),
]
LIMIT_CUTS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 263, 264, 265, 266, 40_000, 65_000, 65_801, 65_802, 65_803]


def test_there_are_two_versions() -> None:
    with pytest.raises(ValueError, match="versions 1 and 2, not 3"):
        BoxParser(version=3)


@given(BOXES, CUTS)
@example(LIMITS, [])
@example(LIMITS, LIMIT_CUTS)
def test_round_trip(boxes: list[AmpBox], cuts: list[int]) -> None:
    stream = wire(boxes)
    for cut_stream in (pieces(stream, cuts), single_bytes(stream)):
        parser = BoxParser()
        parsed = fed(parser, cut_stream)
        assert parsed == boxes
        assert {type(box) for box in parsed} <= {AmpBox}
        assert not parser.in_box
        assert parser.take_rest() == b""
    assert parseString(stream) == parse(io.BytesIO(stream)) == boxes


@given(BOXES, CUTS, st.integers(0, 6), st.integers(0, 2000), st.binary(max_size=20))
@example(LIMITS, LIMIT_CUTS, 1, 0, b"")
@example(LIMITS, LIMIT_CUTS, 4, 5, b"\xff" * 9)
def test_take_rest(boxes: list[AmpBox], cuts: list[int], wanted: int, place: int, tail: bytes) -> None:
    wanted = min(wanted, len(boxes))
    expected = wire(boxes[wanted:]) + tail
    parser = BoxParser()
    taken: list[AmpBox] = []
    for piece in pieces(wire(boxes) + tail, cuts):
        parser.feed(piece)
        while len(taken) < wanted and (box := parser.next_box()) is not None:
            taken.append(box)
    assert taken == boxes[:wanted]
    assert parser.in_box == bool(expected)
    assert parser.take_rest() == expected
    # It can begin again.
    assert not parser.in_box
    assert fed(parser, pieces(wire(boxes), [place])) == boxes


@given(BOXES, CUTS, st.integers(0, 2000))
@example(LIMITS, LIMIT_CUTS, 65_802)
@example(LIMITS, LIMIT_CUTS, 65_809)
def test_take_rest_of_a_box_that_is_not_whole(boxes: list[AmpBox], cuts: list[int], end: int) -> None:
    # Keys are written in order, so pairs that were parsed already come back in the same one.
    stream = wire(boxes)
    stream = stream[: end % (len(stream) + 1)]
    for cut_stream in (pieces(stream, cuts), single_bytes(stream)):
        parser = BoxParser()
        rest = stream[len(wire(fed(parser, cut_stream))) :]
        assert parser.in_box == bool(rest)
        assert parser.take_rest() == rest
        assert not parser.in_box


def test_later_of_equal_keys() -> None:
    stream = b"\0\1a\0\1x\0\1b\0\0\0\1a\0\1y"
    assert parseString(stream + b"\0\0") == [{b"a": b"y", b"b": b""}]
    parser = BoxParser()
    assert fed(parser, [stream]) == []
    assert parser.take_rest() == b"\0\1a\0\1y\0\1b\0\0"


@st.composite
def noise(draw: st.DrawFn) -> bytes:
    """Return bytes that are nearly boxes."""
    stream = bytearray(wire(draw(BOXES)) + draw(st.binary(max_size=5)))
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3)):
        if stream:
            stream[place % len(stream)] = byte
    return bytes(stream[: draw(st.integers(0, 3000))])


@given(st.binary() | noise(), CUTS)
@example(b"\0\1", [])
@example(b"\0\1a\0", [])
@example(b"\0\1a\1\0", [])
@example(b"\1\0", [])
def test_any_bytes(stream: bytes, cuts: list[int]) -> None:
    def verdict(cut_stream: Iterable[bytes]) -> Any:
        parser = BoxParser()
        try:
            return fed(parser, cut_stream), parser.in_box
        except TooLong as error:
            assert (error.isKey, error.isLocal, error.keyName) == (True, False, None)
            assert error.value in stream
            assert error.value[0] != 0
            return TooLong

    expected: Any
    try:
        expected = parseString(stream), False
    except TooLong:
        expected = TooLong
    except MalformedAmpBox as error:
        assert str(error).startswith(f"{len(stream)} bytes end in the middle of a box")
        expected = verdict([stream])
        assert expected[1]
    else:
        assert expected[0] == twisted.parseString(stream)
        assert parseString(wire(expected[0])) == expected[0]
    assert verdict(pieces(stream, cuts)) == verdict(single_bytes(stream)) == expected


def test_error_has_the_bytes_that_came() -> None:
    parser = BoxParser()
    parser.feed(LIMITS[2].serialize() + b"GET /" + b"x" * 99)
    assert parser.next_box() == LIMITS[2]
    with pytest.raises(TooLong, match=r"18245 bytes.*this looks like HTTP") as caught:
        parser.next_box()
    assert caught.value.value == b"GET /" + b"x" * 59


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_feed_takes_a_copy_of(kind: type[Any]) -> None:
    buffer = bytearray(b"\0\1a\0\5hello\0\0\0\1b")
    parser = BoxParser()
    for start, end in ((0, 3), (3, 4), (4, 15)):
        parser.feed(kind(buffer[start:end]))
    buffer[:] = bytes(len(buffer))
    assert parser.next_box() == {b"a": b"hello"}
    assert parser.take_rest() == b"\0\1b"


# Of about so many bytes.
STREAMS: dict[str, Callable[[int], bytes]] = {
    "many pairs": lambda n: AmpBox({b"%d" % number: b"" for number in range(n // 10)}).serialize(),
    "long values": lambda n: AmpBox(
        {b"%d" % at: bytes(15_000) for at in range(n // 15_000)}
    ).serialize(),
    "long keys": lambda n: AmpBox({b"k" * 255: b"v" * 300}).serialize() * (n // 600),
    "small boxes": lambda n: AmpBox({b"k": b"v"}).serialize() * (n // 8),
}


@pytest.mark.parametrize("size", [1, 3, 7, 1000, 10**9])
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("asked", ["each time", "at the end"])
def test_work_is_linear(kind: str, size: int, asked: str) -> None:
    """Sixteen times the bytes take about sixteen times as long, and not the square of it: 256 times."""

    def seconds(n: int) -> float:
        stream = STREAMS[kind](n)
        cut_stream = [stream[start : start + size] for start in range(0, len(stream), size)]
        parser = BoxParser()
        begun = time.process_time()
        if asked == "each time":
            boxes = fed(parser, cut_stream)
        else:
            for piece in cut_stream:
                parser.feed(piece)
            boxes = list(iter(parser.next_box, None))
        needed = time.process_time() - begun
        assert wire(boxes) == stream
        return needed

    # The machine may be busy with something else, but not each time.
    assert any(seconds(240_000) < 64 * seconds(15_000) + 0.005 for _ in range(5))


def test_fed_again_and_again_before_boxes_are_asked_for() -> None:
    stream = b"".join(AmpBox(a=b"%d" % number).serialize() for number in range(100))
    parser = BoxParser()
    parser.feed(stream[:50])
    boxes = [parser.next_box()]
    for position in range(50, len(stream)):
        parser.feed(stream[position : position + 1])
    boxes += iter(parser.next_box, None)
    assert boxes == [{b"a": b"%d" % number} for number in range(100)]
    parser.feed(stream[:20])
    parser.next_box()
    parser.feed(stream[20:])
    assert parser.take_rest() == stream[len(AmpBox(a=b"0").serialize()) :]


def test_no_piece_is_kept_beside_the_pair_that_it_went_into() -> None:
    parser = BoxParser()
    tracemalloc.start()
    try:
        for piece in (b"\0\1", b"a\xff\xff" + bytes(30_000), bytes(30_000)):
            parser.feed(piece)
            assert parser.next_box() is None
        del piece
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 80_000
    parser.feed(bytes(5535) + b"\0\0")
    assert parser.next_box() == {b"a": bytes(65_535)}
