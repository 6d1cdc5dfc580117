"""Large values: arguments of more than 65,535 bytes, split over several values of one box.

The pieces have the keys `key`, `key.2`, `key.3` and so on. Each has 65,535 bytes, except the last; the
first number that is missing marks the end. A value that fits into one piece is written as usual, and
only the first piece can be empty. Pieces of any length are accepted when reading. This is the
BigString of amp-protocol.net; Evennia's commands use the same layout, but compress each piece.

Flocker numbers its pieces from 0 and has none under `key` itself. That layout is read as well, but
Flocker can read a value written here only if it fits into one piece.

If both sides can agree on AMP version 2, any value may be this long, and these types are not needed.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from ..wire.boxes import MAX_VALUE_LENGTH
from .arguments import String, Unicode

__all__ = ["BigString", "BigUnicode"]


class BigString(String):
    """Any `bytes`, split over as many values of one box as necessary.

    All pieces count towards `Limits.max_box_size`. Their keys are longer than the name: sending raises
    `TooLong` if one would have more than 255 bytes. No other argument of the command may have the name
    of a piece; defining one raises `ValueError`.

    In a `ListOf`, an element has at most 65,535 bytes, whatever its type.
    """

    in_pieces = True

    def toBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        super().toBox(name, strings, objects, proto)
        data = strings.get(name, b"")
        if len(data) > MAX_VALUE_LENGTH:
            strings[name] = data[:MAX_VALUE_LENGTH]
            for number, start in enumerate(range(MAX_VALUE_LENGTH, len(data), MAX_VALUE_LENGTH), 2):
                strings[b"%b.%d" % (name, number)] = data[start : start + MAX_VALUE_LENGTH]

    def fromBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        pieces = [strings.pop(name)] if name in strings else []
        number = 2 if pieces else 0
        while (piece := strings.pop(b"%b.%d" % (name, number), None)) is not None:
            pieces.append(piece)
            number += 1
        if pieces:
            strings[name] = b"".join(pieces)
        super().fromBox(name, strings, objects, proto)


class BigUnicode(BigString, Unicode):
    """Any `str`, in UTF-8, split like a `BigString`."""
