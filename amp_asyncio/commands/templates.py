"""Templates: the bytes of a question or an answer, prepared when its command is defined.

AMP applications send many small messages. Everything in such a message except the tag and the values is
known in advance, even the order of the keys. To fill in the values takes a third of the time that it
takes to fill a box, sort its keys and serialize it. If something is wrong with a value, the box is made
after all, because that way produces the error message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any

from ..wire.boxes import MAX_VALUE_LENGTH
from ..wire.costs import PAIR_OVERHEAD
from .schemas import Schema

__all__ = ["Template"]

# Raises `struct.error` for what is too long.
_length = Struct(">H").pack


class Template:
    """The boxes of one schema on the wire, with holes for the tag and the values.

    `tag_key` is the key that has the tag, `fixed` has the pairs that are the same in each box.

    Attributes:
        overhead: by how much the cost of a box exceeds its bytes, see `costs.box_cost`.
    """

    __slots__ = ("_count", "_holes", "_pairs_cost", "_text", "overhead")

    def __init__(self, schema: Schema, tag_key: bytes, fixed: Mapping[bytes, bytes]) -> None:
        # In the order of their keys: the Python name of each value, and what makes bytes of it.
        self._holes: list[tuple[str, Callable[[Any], bytes] | None]] = []
        self._count = len(schema.pairs)
        values = {name: (python, write) for name, python, _, write, _ in schema.codecs or ()}
        text = b""
        keys = sorted((tag_key, *fixed, *values))
        for key in keys:
            text += _escaped(b"\0%c%b" % (len(key), key))
            if key in fixed:
                text += _escaped(_length(len(fixed[key])) + fixed[key])
            else:
                text += b"%b%b"
                self._holes.append(values.get(key, ("", None)))
        self._text = text + b"\0\0"
        self.overhead = len(keys) * (PAIR_OVERHEAD - 4) - 2
        self._pairs_cost = len(keys) * PAIR_OVERHEAD

    @classmethod
    def of(cls, schema: Schema, tag_key: bytes, **fixed: bytes) -> Template | None:
        """Return the template for a schema, or None if its boxes differ in more than the values.

        They do if a value may be left out, or if an argument looks at more than its own value.
        """
        if schema.codecs is None or schema.has_optional:
            return None
        pairs = {key.encode("ascii"): value for key, value in fixed.items()}
        if any(len(value) > MAX_VALUE_LENGTH for value in pairs.values()):
            return None
        return cls(schema, tag_key, pairs)

    def fill(self, tag: bytes, objects: Any, room: int) -> bytes | None:
        """Return the bytes of a box with this tag and these values, or None if a box has to be made.

        `room` is the most that the box may have, counted as `Limits.max_box_size` counts. The bytes
        are the same in both versions of AMP.
        """
        if type(objects) is not dict or len(objects) != self._count:
            return None
        strings: list[bytes] = []
        try:
            for name, write in self._holes:
                string = tag if write is None else write(objects[name])
                if type(string) is not bytes:
                    return None
                strings.append(_length(len(string)))
                strings.append(string)
        except Exception:
            return None  # Filling a box fails as well, with an error that names the value.
        data = self._text % tuple(strings)
        if len(data) > room - self._pairs_cost:
            return None
        if len(data) > MAX_VALUE_LENGTH and MAX_VALUE_LENGTH in map(len, strings):
            return None  # In version 2, another piece follows a value of this length.
        return data


def _escaped(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")
