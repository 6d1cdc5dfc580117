"""Boxes, values and streams of bytes that several tests parse and send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from hypothesis import strategies as st

from amp_asyncio import AmpBox, BoxParser

KEYS = st.binary(min_size=1, max_size=3) | st.binary(min_size=1, max_size=255)
VALUES = st.binary(max_size=3) | st.binary(max_size=300)
BOXES = st.lists(st.dictionaries(KEYS, VALUES, max_size=5).map(AmpBox), max_size=6)
CUTS = st.lists(st.integers(0, 2000), max_size=12)

PIECE = 65_535
SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3_000_000]


def wire(boxes: Iterable[AmpBox]) -> bytes:
    return b"".join(box.serialize() for box in boxes)


def pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(places)]


def single_bytes(stream: bytes) -> Iterator[bytes]:
    return (stream[n : n + 1] for n in range(len(stream)))


def fed(parser: BoxParser, stream: Iterable[bytes]) -> list[AmpBox]:
    boxes: list[AmpBox] = []
    for piece in stream:
        parser.feed(piece)
        boxes += iter(parser.next_box, None)
    return boxes


def sample(size: int) -> bytes:
    """Return so many bytes that differ from piece to piece."""
    return b"".join(b"%08x" % number for number in range(0, size, 8))[:size]
