"""Large values: what is longer than the 65,535 bytes of one value, in several of them.

The pieces of a value are under `key`, `key.2`, `key.3` and so on, each but the last of 65,535 bytes;
the first number that is missing is the end. A value that fits into one piece is on the wire as it
always is, and no piece but the first is ever empty. This is the BigString of amp-protocol.net, whose
layout Evennia's commands have, too (and compress each piece). Pieces of any length are read.

Flocker numbers its pieces from 0, and has none under `key` itself. That is read, too; but what is
written here, Flocker reads only where it is a single piece.

Where both sides can agree on AMP version 2, every value may be so long, and needs none of this.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from ..wire.boxes import MAX_VALUE_LENGTH
from .arguments import String, Unicode

__all__ = ["BigString", "BigUnicode"]


class BigString(String):
    """Any `bytes`, also more than 65,535, in as many values of one box as it takes.

    All of it still is one box, and counts against `Limits.max_box_size`. The keys of the pieces are
    longer than the name: a value for which they would have over 255 bytes is `TooLong`. No other
    argument of a command may be named as a piece is; that is a `ValueError` where it is defined.

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
    """Any `str`, in UTF-8, as a `BigString` of that."""
