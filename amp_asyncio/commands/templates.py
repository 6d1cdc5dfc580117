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

# The lengths of most values: to look one up takes less time than to make it.
_MANY = 256
_LENGTHS = [_length(length) for length in range(_MANY)]


class Template:
    """The boxes of one schema on the wire, with holes for the tag and the values.

    `tag_key` is the key that has the tag, `fixed` has the pairs that are the same in each box.

    Attributes:
        overhead: by how much the cost of a box exceeds its bytes, see `costs.box_cost`.
    """

    __slots__ = (
        "_defaults",
        "_holes",
        "_more_at",
        "_more_in",
        "_optional",
        "_pairs_cost",
        "_parts",
        "_required",
        "_tag_at",
        "overhead",
    )

    def __init__(self, schema: Schema, tag_key: bytes, fixed: Mapping[bytes, bytes]) -> None:
        # In the order of their keys: the place of each value, its name in Python, and what makes bytes
        # of it. Those that may be left out are apart, with the bytes of their keys.
        self._holes: list[tuple[int, str, Callable[[Any], bytes]]] = []
        self._optional: list[tuple[int, str, Callable[[Any], bytes], bytes]] = []
        # The pieces of a box. Each value has two, for its length and itself; one that may be left out
        # has a third one, for its key.
        self._parts: list[bytes] = []
        self._tag_at = 0
        # Where more pairs go: after the fixed ones. Most boxes then have their keys in order.
        self._more_in = self._more_at = 0
        codecs = {codec.name: codec for codec in schema.codecs or ()}
        text = b""
        keys = sorted((tag_key, *fixed, *codecs))
        for key in keys:
            pair = b"\0%c%b" % (len(key), key)
            if key in fixed:
                text += pair + _length(len(fixed[key])) + fixed[key]
                self._more_in, self._more_at = len(self._parts), len(text)
                continue
            codec = codecs.get(key)
            if codec is not None and codec.nullable:
                self._parts += (text, b"", b"", b"")
                at = len(self._parts) - 2
                self._optional.append((at, codec.identifier, codec.to_string, pair))
            else:
                self._parts += (text + pair, b"", b"")
                at = len(self._parts) - 2
                if codec is None:
                    self._tag_at = at
                else:
                    self._holes.append((at, codec.identifier, codec.to_string))
            text = b""
        self._parts.append(text + b"\0\0")
        self._required = len(self._holes)
        # What takes the place of what was left out.
        self._defaults = schema.shape.defaults if schema.shape is not None else None
        # What is left out counts as if it were there: the limits have room for that.
        self.overhead = len(keys) * (PAIR_OVERHEAD - 4) - 2
        self._pairs_cost = len(keys) * PAIR_OVERHEAD

    @classmethod
    def of(cls, schema: Schema, tag_key: bytes, **fixed: bytes) -> Template | None:
        """Return the template for a schema, or None if an argument looks at more than its own value."""
        if schema.codecs is None:
            return None
        pairs = {key.encode("ascii"): value for key, value in fixed.items()}
        if any(len(value) > MAX_VALUE_LENGTH for value in pairs.values()):
            return None
        return cls(schema, tag_key, pairs)

    def fill(self, tag: bytes, objects: Any, room: int, more: bytes = b"") -> bytes | None:
        """Return the bytes of a box with this tag and these values, or None if a box has to be made.

        `room` is the most that the box may have, counted as `Limits.max_box_size` counts, and `more`
        are pairs in addition to those. The bytes are the same in both versions of AMP.
        """
        if type(objects) is not dict:
            return None
        missing = self._required - len(objects)
        if missing > 0:
            if not self._defaults:
                return None
            objects = {**self._defaults, **objects}
            missing = self._required - len(objects)
        parts = self._parts.copy()
        at = self._tag_at
        try:
            length = len(tag)
            parts[at] = _LENGTHS[length] if length < _MANY else _length(length)
            parts[at + 1] = tag
            for at, name, write in self._holes:
                string = write(objects[name])
                if type(string) is not bytes:
                    return None
                length = len(string)
                parts[at] = _LENGTHS[length] if length < _MANY else _length(length)
                parts[at + 1] = string
            if missing and missing + self._fill_optional(parts, objects):
                return None  # What is missing, or unknown, is said when the box is made.
        except Exception:
            return None  # Filling a box fails as well, with an error that names the value.
        if more:
            part, at = parts[self._more_in], self._more_at
            parts[self._more_in] = b"%b%b%b" % (part[:at], more, part[at:])
        data = b"".join(parts)
        size = len(data)
        if size > room - self._pairs_cost:
            return None
        if size > MAX_VALUE_LENGTH and MAX_VALUE_LENGTH in map(len, parts):
            return None  # In version 2, another piece follows a value of this length.
        return data

    def _fill_optional(self, parts: list[bytes], objects: dict[str, Any]) -> int:
        """Fill in the values that may be left out; return how many of them are there."""
        found = 0
        for at, name, write, key in self._optional:
            if name not in objects:
                continue
            found += 1
            value = objects[name]
            if value is not None:
                string = write(value)
                if type(string) is not bytes:
                    raise TypeError(f"{name} is not encoded as bytes")
                parts[at - 1] = key
                parts[at] = _length(len(string))
                parts[at + 1] = string
        return found
