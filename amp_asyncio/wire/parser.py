"""From bytes to boxes, without any I/O.

The network cuts a stream into pieces wherever it likes, and a hostile peer chooses the cuts. So the
parser takes whole pairs straight out of the piece at hand. A pair that spans several pieces is joined
by itself, and what follows it is read in place. Fed byte by byte, the parser does a bounded amount of
work per byte; fed whole, it copies each byte once, into the box.

It returns one box at a time, because a box can end the AMP part of a connection: the bytes after it
then belong to something else, and `take_rest` returns them untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO

from ..errors import BoxTooLong, KeyAfterFullValue, MalformedAmpBox, TooLong
from .boxes import MAX_VALUE_LENGTH, AmpBox, pieces
from .costs import PAIR_OVERHEAD

__all__ = ["BoxParser", "boxes_in", "parse", "parseString"]

# How many bytes of a stream that is not AMP go into an error.
_EXCERPT = 64


# A length that no value has. (One object for all parsers.)
_NO_LENGTH = MAX_VALUE_LENGTH + 1


class BoxParser:
    """An incremental parser: `feed` it bytes, then call `next_box` until that returns None.

    In `version` 2 of AMP, a value is a run of pieces, of which only the last is shorter than 65,535
    bytes. Raises `ValueError` for any version other than 1 and 2.

    Attributes:
        max_box_size: the most bytes that a box may have, with `costs.PAIR_OVERHEAD` more for each of
            its pairs; None for no limit.
    """

    __slots__ = (
        "_box",
        "_box_size",
        "_data",
        "_full_piece",
        "_key",
        "_later",
        "_needed",
        "_partial",
        "_pieces",
        "_position",
        "_unread",
        "max_box_size",
    )

    def __init__(self, max_box_size: int | None = None, version: int = 1) -> None:
        if version not in (1, 2):
            raise ValueError(f"AMP has the versions 1 and 2, not {version!r}")
        self.max_box_size = max_box_size
        # The length of a piece that another one follows; no length in version 1.
        self._full_piece = MAX_VALUE_LENGTH if version == 2 else _NO_LENGTH
        self._clear()

    def _clear(self) -> None:
        """Forget every byte."""
        self._data = b""  # the piece of the stream at hand
        self._position = 0  # where in it the unread bytes begin
        self._unread = False  # whether any bytes are unread
        self._later: list[bytes] | None = None  # pieces of the stream that came before it was read
        self._box: AmpBox | None = None  # the incomplete box
        self._box_size = 0  # how many bytes its pairs had
        self._partial: bytearray | None = None  # a pair, or a piece of a value, that is incomplete
        self._needed = 0  # the length at which it is complete, or says more about its length
        # In version 2: the key of a value whose last piece is missing, and the pieces before that.
        self._key = b""
        self._pieces: list[bytes] | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream, of any length."""
        if self._unread:
            self._later = self._later or []
            self._later.append(bytes(data))
        else:
            self._data = bytes(data)
            self._position = 0
            self._unread = self._data != b""

    def _join(self) -> None:
        """Join the pieces of the stream that came since a box was last asked for."""
        self._data = b"".join((memoryview(self._data)[self._position :], *(self._later or ())))
        self._position = 0
        self._later = None

    def next_box(self) -> AmpBox | None:
        """Return the next box, or None if the bytes fed so far contain no further complete one.

        An empty box counts as a box here: lists of boxes may contain them. Where a key comes twice in
        a box, the later value counts, as it does in Twisted.

        Raises `TooLong` if a box is longer than the limit, or if a key has more than 255 bytes, which
        is also how a stream that is not AMP shows. The parser cannot be used after that.
        """
        if not self._unread:
            return None
        if self._later is not None:
            self._join()
        data = self._data
        size = len(data)
        box = self._box
        if box is None:
            # Skips __init__, which only looks for keys of type str.
            box = AmpBox.__new__(AmpBox)
        ended = False
        if self._partial is not None:
            taken = self._take_partial(self._partial, box)
            if taken is False:
                return None
            ended = taken is True
        full_piece = self._full_piece
        start = position = self._position
        try:
            while not ended:
                length = data[position + 1]
                if data[position]:
                    raise _long_key(data[position : position + _EXCERPT], box)
                key_start = position + 2
                if not length:
                    position = key_start
                    ended = True
                    break
                key_end = key_start + length
                length = data[key_end + 1]
                # (Most values are short: to shift and to combine both bytes takes longer.)
                if data[key_end]:
                    length += data[key_end] << 8
                value_start = key_end + 2
                value_end = value_start + length
                if value_end > size:
                    break
                if length == full_piece:
                    # More pieces of this value follow.
                    self._box_size += position - start
                    self._position = position
                    self._partial, self._needed = bytearray(), 2
                    if self._take_partial(self._partial, box) is not None:
                        return None
                    start = position = self._position
                    continue
                box[data[key_start:key_end]] = data[value_start:value_end]
                position = value_end
        except IndexError:
            pass  # The piece ends within a length, or in front of it.
        self._box_size += position - start
        if ended and position < size:
            self._position = position
        else:
            # Keep only the unread end: a slice would keep the whole piece alive.
            self._data = b""
            self._position = 0
            self._unread = False
        if ended:
            limit = self.max_box_size
            if limit is not None and self._box_size + PAIR_OVERHEAD * len(box) > limit:
                raise BoxTooLong(limit, len(box))
            self._box = None
            self._box_size = 0
            return box
        self._box = box if box or position < size else None
        if position < size:
            self._partial = bytearray(memoryview(data)[position:])
            self._needed = _pair_length(self._partial, box)
        self._check_size(box, self._needed)
        return None

    def _take_partial(self, partial: bytearray, box: AmpBox) -> bool | None:
        """Complete what the pieces of the stream before this one ended in.

        Returns None when that is done and the next pair can be read in place, True at the end of the
        box, and False if more bytes are needed.
        """
        while True:
            while len(partial) < self._needed:
                end = self._position + self._needed - len(partial)
                partial += memoryview(self._data)[self._position : end]
                if len(partial) < self._needed:
                    self._box = box
                    self._data = b""
                    self._position = 0
                    self._unread = False
                    return False
                self._position = end
                self._needed = (
                    _pair_length(partial, box) if self._pieces is None else _piece_length(partial)
                )
                self._check_size(box, self._needed)
            self._box_size += self._needed
            self._needed = 0
            self._partial = None
            if self._pieces is not None:
                value = bytes(memoryview(partial)[2:])
            elif len(partial) == 2:
                return True
            else:
                key_end = 2 + partial[1]
                self._key = bytes(partial[2:key_end])
                value = bytes(memoryview(partial)[key_end + 2 :])
            if len(value) != self._full_piece:
                break
            if self._pieces is None:
                self._pieces = []
            self._pieces.append(value)
            self._partial = partial = bytearray()
            self._needed = 2
        if self._pieces is not None:
            self._pieces.append(value)
            value = b"".join(self._pieces)
            self._pieces = None
        box[self._key] = value
        return None

    def _check_size(self, box: Mapping[bytes, bytes], more: int) -> None:
        """Raise `TooLong` if the box is too long, counting `more` bytes than were read of it."""
        limit = self.max_box_size
        if limit is not None and self._box_size + more + PAIR_OVERHEAD * len(box) > limit:
            raise BoxTooLong(limit, len(box))

    @property
    def in_box(self) -> bool:
        """Whether the bytes fed so far end in the middle of a box."""
        return self._box is not None or self._partial is not None or self._unread

    def take_rest(self) -> bytes:
        """Return, and forget, every byte after the last box that was returned.

        (Of an incomplete box in which a key came twice, only the later pair.)
        """
        version = 2 if self._full_piece == MAX_VALUE_LENGTH else 1
        rest = [_written(key, value, version) for key, value in (self._box or {}).items()]
        if self._pieces is not None:
            rest.append(b"\0%c%b" % (len(self._key), self._key))
            rest += [b"\xff\xff" + piece for piece in self._pieces]
        self._join()
        rest += (bytes(self._partial or b""), self._data)
        self._clear()
        return b"".join(rest)


def _written(key: bytes, value: bytes, version: int) -> bytes:
    """Return a pair as it came."""
    parts = pieces(value) if version == 2 else (len(value).to_bytes(2, "big"), value)
    return b"".join((b"\0%c" % len(key), key, *parts))


def _long_key(excerpt: bytes, box: AmpBox) -> TooLong:
    """Return the error for a key of `box` that is too long; the stream goes on with `excerpt`."""
    if len(next(reversed(box.values()), b"")) == MAX_VALUE_LENGTH:
        return KeyAfterFullValue(excerpt)
    return TooLong(True, False, excerpt)


def _pair_length(pair: bytearray, box: AmpBox) -> int:
    """Return the length of a pair of `box` that begins so, or how many bytes it takes to know more."""
    if len(pair) < 2:
        return 2
    if pair[0]:
        raise _long_key(bytes(pair[:_EXCERPT]), box)
    if not pair[1]:
        return 2
    value_start = 4 + pair[1]
    if len(pair) < value_start:
        return value_start
    return value_start + (pair[value_start - 2] << 8 | pair[value_start - 1])


def _piece_length(piece: bytearray) -> int:
    """Return the same for a piece of a value, which begins with its length."""
    return 2 if len(piece) < 2 else 2 + (piece[0] << 8 | piece[1])


def parseString(data: bytes) -> list[AmpBox]:
    """Return the boxes that `data` consists of.

    Raises `TooLong` if they are not boxes, `MalformedAmpBox` if the last one is incomplete.
    """
    return list(boxes_in(data))


def boxes_in(data: bytes) -> Iterator[AmpBox]:
    """Yield the boxes that `data` consists of, one at a time; raises as `parseString` does."""
    parser = BoxParser()
    parser.feed(data)
    count = 0
    while (box := parser.next_box()) is not None:
        yield box
        count += 1
    if parser.in_box:
        raise MalformedAmpBox(f"{len(data)} bytes end in the middle of a box, after {count} boxes")


def parse(file: IO[bytes]) -> list[AmpBox]:
    """Return the boxes that the rest of a binary file consists of; raises as `parseString` does."""
    return parseString(file.read())
