"""The parser: whatever the cuts and whatever the bytes, boxes, a documented error, or the rest."""

from __future__ import annotations

import io
from collections.abc import Iterable
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


class CountingBytes(bytes):
    """Counts the bytes that are read out of it."""

    read = 0

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        CountingBytes.read += 1 if isinstance(item, int) else len(item)
        return item


slot: Any = vars(BoxParser)["_data"]


class CountingParser(BoxParser):
    """Counts the bytes that pass through it, in whatever way, as often as they do."""

    __slots__ = ("copied",)

    def __init__(self) -> None:
        self.copied = 0
        CountingBytes.read = 0
        super().__init__()

    @property
    def _data(self) -> bytes:
        data: bytes = slot.__get__(self)
        return data

    @_data.setter
    def _data(self, data: bytes) -> None:
        self.copied += len(data)
        slot.__set__(self, CountingBytes(data))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 65_536, 10**9])
@pytest.mark.parametrize(
    "box",
    [
        AmpBox({b"%d" % n: b"" for n in range(5_000)}),
        AmpBox({b"%d" % n: b"v" * 65_535 for n in range(2)}),
        AmpBox({b"k" * 255: b"v" * 300}),
        AmpBox({b"k": b"v"}),
    ],
    ids=["many pairs", "long values", "long keys", "small"],
)
def test_work_is_linear(box: AmpBox, size: int) -> None:
    count = max(1, 30_000 // len(box.serialize()))
    stream = box.serialize() * count
    parser = CountingParser()
    parsed = fed(parser, (stream[n : n + size] for n in range(0, len(stream), size)))
    assert parsed == [box] * count
    assert parser.copied < 4 * len(stream)
    assert CountingBytes.read < 4 * len(stream)


def test_fed_again_and_again_before_boxes_are_asked_for() -> None:
    stream = b"".join(AmpBox(a=b"%d" % number).serialize() for number in range(100))
    parser = BoxParser()
    parser.feed(stream[:50])
    boxes = [parser.next_box()]
    for position in range(50, len(stream)):
        parser.feed(stream[position : position + 1])
        assert len(parser._data) == 50, "nothing is joined before it is needed"
    boxes += iter(parser.next_box, None)
    assert boxes == [{b"a": b"%d" % number} for number in range(100)]
    parser.feed(stream[:20])
    parser.next_box()
    parser.feed(stream[20:])
    assert parser.take_rest() == stream[len(AmpBox(a=b"0").serialize()) :]


def test_no_piece_is_kept_beside_the_pair_that_it_went_into() -> None:
    parser = BoxParser()
    for piece in (b"\0\1", b"a\xff\xff" + bytes(30_000), bytes(30_000)):
        parser.feed(piece)
        assert parser.next_box() is None
        assert parser._data == b""
    parser.feed(bytes(5535) + b"\0\0")
    assert parser.next_box() == {b"a": bytes(65_535)}
