"""From bytes to boxes, without any I/O.

A connection is cut into pieces wherever the network likes, and a hostile peer chooses the cuts. So
the parser takes whole pairs straight out of the piece at hand, keeps what is left until enough
has come to go on, and never looks at a byte twice for want of others: fed byte by byte it does
a bounded amount of work a byte, fed whole it copies each byte once.

It hands out one box at a time, because a box can end the AMP part of a connection: the bytes behind
it are then somebody else's, and `take_rest` gives them back untouched.
"""

from __future__ import annotations

from typing import IO

from .boxes import AmpBox
from .costs import PAIR_OVERHEAD
from .errors import BoxTooLong, MalformedAmpBox, TooLong

__all__ = ["BoxParser", "parse", "parseString"]

# How much of bytes that are no AMP goes into an error.
_EXCERPT = 64


class BoxParser:
    """An incremental parser: `feed` it bytes, then call `next_box` until that returns None.

    Attributes:
        max_box_size: the most bytes that a box may have, with `costs.PAIR_OVERHEAD` more for each of
            its pairs; None for no limit.
    """

    __slots__ = ("_box", "_box_size", "_data", "_needed", "_position", "_trickle", "max_box_size")

    def __init__(self, max_box_size: int | None = None) -> None:
        self.max_box_size = max_box_size
        self._box_size = 0  # how many bytes of `_box` were read, and are not in `_data` any more
        self._data = b""
        self._position = 0  # in `_data`, where the next pair begins
        self._needed = 0  # how many bytes from `_position` on would let us go on
        self._trickle = bytearray()  # what came behind `_data`, while it is less than `_needed`
        self._box: AmpBox | None = None  # the box whose pairs are coming in

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream, however many."""
        left = len(self._data) - self._position
        if not left:
            self._data = bytes(data)
            self._position = 0
            return
        self._trickle += data
        if 0 < self._needed <= left + len(self._trickle):
            self._join()

    def _join(self) -> None:
        unread = memoryview(self._data)[self._position :]
        self._data = b"".join((unread, self._trickle))
        self._position = 0
        self._trickle.clear()

    def next_box(self) -> AmpBox | None:
        """Return the next box, or None where the bytes fed so far hold no further whole one.

        An empty box is a box here: lists of boxes may hold them. Where a key comes twice in a box,
        the later value counts, as it does in Twisted.

        Raises `TooLong` where a box is longer than the limit, and where a key would have over 255
        bytes, which is also how bytes that are no AMP at all show. The parser is of no use after that.
        """
        data = self._data
        size = len(data)
        position = self._position
        if size - position < self._needed:
            return None
        if self._trickle:  # Fed while nobody asked for boxes.
            self._join()
            return self.next_box()
        box = self._box
        if box is None:
            # Past __init__, which would only look for keys that are str.
            box = AmpBox.__new__(AmpBox)
        while True:
            key_start = position + 2
            if key_start > size:
                needed = 2
                break
            if data[position]:
                raise TooLong(True, False, data[position : position + _EXCERPT])
            key_end = key_start + data[position + 1]
            if key_end == key_start:
                self._check_size(box, key_end - self._position)
                self._position = key_end
                self._box = None
                self._box_size = self._needed = 0
                return box
            value_start = key_end + 2
            if value_start > size:
                needed = value_start - position
                break
            value_end = value_start + (data[key_end] << 8 | data[key_end + 1])
            if value_end > size:
                needed = value_end - position
                break
            box[data[key_start:key_end]] = data[value_start:value_end]
            position = value_end
        self._check_size(box, position - self._position + needed)
        self._box_size += position - self._position
        # Only the unread end of the piece is kept, lest a byte of it keep all of it alive.
        self._data = data[position:]
        self._position = 0
        self._needed = needed
        self._box = box if box or position < size else None
        return None

    def _check_size(self, box: AmpBox, size: int) -> None:
        """Raise `TooLong` where the box, with `size` bytes more than were read before, is too long."""
        limit = self.max_box_size
        if limit is not None and self._box_size + size + PAIR_OVERHEAD * len(box) > limit:
            raise BoxTooLong(limit, len(box))

    @property
    def in_box(self) -> bool:
        """Whether the bytes fed so far end in the middle of a box."""
        return self._box is not None or len(self._data) > self._position

    def take_rest(self) -> bytes:
        """Return, and forget, every byte behind the last box that was returned.

        (Of a box that is not whole yet, and in which a key came twice, the later pair.)
        """
        pairs = bytearray()
        for key, value in (self._box or {}).items():
            pairs += b"\0%c%b%b%b" % (len(key), key, len(value).to_bytes(2, "big"), value)
        rest = bytes(pairs) + self._data[self._position :] + self._trickle
        self._data = b""
        self._position = self._needed = self._box_size = 0
        self._trickle.clear()
        self._box = None
        return rest


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
