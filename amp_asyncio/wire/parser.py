"""From bytes to boxes, without any I/O.

A connection is cut into pieces wherever the network likes, and a hostile peer chooses the cuts. So
the parser takes whole pairs straight out of the piece at hand, and a pair that lies in several pieces
is put together by itself: what comes behind it is read where it lies. Fed byte by byte it does a
bounded amount of work a byte; fed whole, it copies each byte once, into the box.

It hands out one box at a time, because a box can end the AMP part of a connection: the bytes behind
it are then somebody else's, and `take_rest` gives them back untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO

from ..errors import BoxTooLong, MalformedAmpBox, TooLong
from .boxes import MAX_VALUE_LENGTH, AmpBox, pieces
from .costs import PAIR_OVERHEAD

__all__ = ["BoxParser", "PiecewiseParser", "parse", "parseString", "parser_for"]

# How much of bytes that are no AMP goes into an error.
_EXCERPT = 64


class BoxParser:
    """An incremental parser: `feed` it bytes, then call `next_box` until that returns None.

    Attributes:
        max_box_size: the most bytes that a box may have, with `costs.PAIR_OVERHEAD` more for each of
            its pairs; None for no limit.
    """

    __slots__ = (
        "_behind",
        "_box",
        "_box_size",
        "_data",
        "_needed",
        "_pair",
        "_position",
        "max_box_size",
    )

    def __init__(self, max_box_size: int | None = None) -> None:
        self.max_box_size = max_box_size
        self._clear()

    def _clear(self) -> None:
        """Begin anew, with no byte of anything."""
        self._data = b""  # the piece at hand
        self._position = 0  # in `_data`, from where it has not been read
        self._behind: list[bytes] | None = None  # pieces that came before it was read
        self._box: AmpBox | None = None  # the box whose pairs are coming in
        self._box_size = 0  # how many bytes its pairs had
        self._pair: bytearray | None = None  # the beginning of a pair, from the pieces before
        self._needed = 0  # how long it has to be, to be whole or to tell more

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream, however many."""
        if self._position < len(self._data):
            self._behind = self._behind or []
            self._behind.append(bytes(data))
        else:
            self._data = bytes(data)
            self._position = 0

    def _join(self) -> None:
        """Make one piece of those that came while nobody asked for boxes."""
        self._data = b"".join((memoryview(self._data)[self._position :], *(self._behind or ())))
        self._position = 0
        self._behind = None

    def next_box(self) -> AmpBox | None:
        """Return the next box, or None where the bytes fed so far hold no further whole one.

        An empty box is a box here: lists of boxes may hold them. Where a key comes twice in a box,
        the later value counts, as it does in Twisted.

        Raises `TooLong` where a box is longer than the limit, and where a key would have over 255
        bytes, which is also how bytes that are no AMP at all show. The parser is of no use after that.
        """
        if self._behind is not None:
            self._join()
        if self._pair is not None and not self._pair_is_whole(self._pair):
            return None
        box = self._box
        if box is None:
            # Past __init__, which would only look for keys that are str.
            box = AmpBox.__new__(AmpBox)
        if self._pair is not None:
            pair, self._pair = self._pair, None
            self._box_size += self._needed
            self._needed = 0
            if len(pair) == 2:  # It is the end of the box.
                return self._finished(box)
            value_start = 4 + pair[1]
            box[bytes(pair[2 : value_start - 2])] = bytes(memoryview(pair)[value_start:])
        data = self._data
        size = len(data)
        start = position = self._position
        while True:
            key_start = position + 2
            if key_start > size:
                break
            if data[position]:
                raise TooLong(True, False, data[position : position + _EXCERPT])
            key_end = key_start + data[position + 1]
            if key_end == key_start:
                self._position = key_end
                self._box_size += key_end - start
                return self._finished(box)
            value_start = key_end + 2
            if value_start > size:
                break
            value_end = value_start + (data[key_end] << 8 | data[key_end + 1])
            if value_end > size:
                break
            box[data[key_start:key_end]] = data[value_start:value_end]
            position = value_end
        self._box = box if box or position < size else None
        self._box_size += position - start
        # Only the unread end of the piece is kept, lest a byte of it keep all of it alive.
        self._data = b""
        self._position = 0
        if position < size:
            self._pair = bytearray(memoryview(data)[position:])
            self._needed = _length(self._pair)
        self._check_size(box, self._needed)
        return None

    def _pair_is_whole(self, pair: bytearray) -> bool:
        """Go on with the pair that the pieces before ended in; return whether that ends in this one."""
        while len(pair) < self._needed:
            end = self._position + self._needed - len(pair)
            pair += self._data[self._position : end]
            if len(pair) < self._needed:
                self._data = b""
                self._position = 0
                return False
            self._position = end
            self._needed = _length(pair)
            self._check_size(self._box or {}, self._needed)
        return True

    def _finished(self, box: AmpBox) -> AmpBox:
        self._check_size(box, 0)
        self._box = None
        self._box_size = 0
        return box

    def _check_size(self, box: Mapping[bytes, bytes], more: int) -> None:
        """Raise `TooLong` where the box, with so many bytes more than were read, is too long."""
        limit = self.max_box_size
        if limit is not None and self._box_size + more + PAIR_OVERHEAD * len(box) > limit:
            raise BoxTooLong(limit, len(box))

    @property
    def in_box(self) -> bool:
        """Whether the bytes fed so far end in the middle of a box."""
        return self._box is not None or self._pair is not None or self._position < len(self._data)

    def take_rest(self) -> bytes:
        """Return, and forget, every byte behind the last box that was returned.

        (Of a box that is not whole yet, and in which a key came twice, the later pair.)
        """
        pairs = [self._written(key, value) for key, value in (self._box or {}).items()]
        self._join()
        rest = b"".join((*pairs, self._pair or b"", self._data))
        self._clear()
        return rest

    def _written(self, key: bytes, value: bytes) -> bytes:
        """Return a pair as it came."""
        return b"\0%c%b%b%b" % (len(key), key, len(value).to_bytes(2, "big"), value)


class PiecewiseParser(BoxParser):
    """A parser of AMP version 2: a value is a run of pieces, all but the last of 65,535 bytes.

    It puts each pair together by itself, so it is slower than the other. Behind a piece that is not the
    last, it goes on as if there were the key again: the next piece then is a value like any other.
    """

    __slots__ = ("_pieces",)

    def _clear(self) -> None:
        super()._clear()
        self._pieces: list[bytes] = []  # those that have come of the value whose last has not

    def next_box(self) -> AmpBox | None:
        """Return the next box, or None; see `BoxParser.next_box`."""
        if self._behind is not None:
            self._join()
        while (pair := self._next_pair()) is not None:
            self._box_size += self._needed
            self._pair = None
            if self._box is None:
                self._box = AmpBox.__new__(AmpBox)
            if len(pair) == 2:
                return self._finished(self._box)
            key_end = 2 + pair[1]
            self._pieces.append(bytes(memoryview(pair)[key_end + 2 :]))
            if len(self._pieces[-1]) == MAX_VALUE_LENGTH:
                self._pair = pair[:key_end]
                self._needed = key_end + 2
                self._box_size -= key_end
            else:
                self._box[bytes(memoryview(pair)[2:key_end])] = b"".join(self._pieces)
                self._pieces.clear()
        return None

    def _next_pair(self) -> bytearray | None:
        """Return the next pair, or the next piece of one behind its key; None where it is not whole."""
        pair = self._pair
        if pair is None:
            if self._data[self._position : self._position + 1] > b"\0":
                raise TooLong(True, False, self._data[self._position : self._position + _EXCERPT])
            pair, self._needed = bytearray(), 2
        if self._pair_is_whole(pair):
            return pair
        self._pair = pair or None
        self._data = b""
        self._position = 0
        return None

    def take_rest(self) -> bytes:
        """Return, and forget, every byte behind the last box that was returned; as in `BoxParser`."""
        if self._pieces and self._pair is not None:
            key_end = 2 + self._pair[1]
            self._pair[key_end:key_end] = b"".join(b"\xff\xff" + piece for piece in self._pieces)
        return super().take_rest()

    def _written(self, key: bytes, value: bytes) -> bytes:
        return b"".join((b"\0%c" % len(key), key, *pieces(value)))


def parser_for(version: int, max_box_size: int | None = None) -> BoxParser:
    """Return a parser of a version of AMP, 1 or 2; `ValueError` for any other."""
    if version not in (1, 2):
        raise ValueError(f"there are the versions 1 and 2 of AMP, and not {version!r}")
    return BoxParser(max_box_size) if version == 1 else PiecewiseParser(max_box_size)


def _length(pair: bytearray) -> int:
    """Return how long a pair is that begins so, or how much of it has to be there to tell more."""
    if len(pair) < 2:
        return 2
    if pair[0]:
        raise TooLong(True, False, bytes(pair[:_EXCERPT]))
    if not pair[1]:
        return 2
    value_start = 4 + pair[1]
    if len(pair) < value_start:
        return value_start
    return value_start + (pair[value_start - 2] << 8 | pair[value_start - 1])


def parseString(data: bytes) -> list[AmpBox]:
    """Return the boxes that `data` consists of.

    Raises `TooLong` where they are no boxes, `MalformedAmpBox` where the last one is not whole.
    """
    parser = BoxParser()
    parser.feed(data)
    boxes = list(iter(parser.next_box, None))
    if parser.in_box:
        raise MalformedAmpBox(f"{len(data)} bytes end in the middle of a box, behind {len(boxes)}")
    return boxes


def parse(file: IO[bytes]) -> list[AmpBox]:
    """Return the boxes that the rest of a binary file consists of; raises as `parseString` does."""
    return parseString(file.read())
