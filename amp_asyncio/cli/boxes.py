"""Boxes in recorded bytes: where each begins, what it is, and where and why the bytes stop being AMP.

The parser of `wire/` is made for speed, and forgets where a box was. This one is made for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import resemblance, shortened
from ..wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    MAX_KEY_LENGTH,
    MAX_VALUE_LENGTH,
)
from .text import escaped

__all__ = ["FoundBox", "NotAmp", "boxes_of"]

# How many bytes are shown of what is not AMP.
_EXCERPT = 16

# What is said of a box by its kind, and not as one of its values.
_TOLD = {
    "question": (COMMAND, ASK),
    "answer": (ANSWER,),
    "error": (ERROR, ERROR_CODE, ERROR_DESCRIPTION),
    "unknown": (),
}


@dataclass
class FoundBox:
    """A box, and where it is.

    Attributes:
        start: the offset of its first byte, and `end` that of the first byte after it.
        pairs: its keys and values, in the order in which they came.
    """

    start: int
    end: int
    pairs: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """What it is: "question", "answer", "error", or else "unknown"."""
        box = dict(self.pairs)
        for key, kind in ((ANSWER, "answer"), (ERROR, "error"), (COMMAND, "question")):
            if key in box:
                return kind
        return "unknown"

    @property
    def told(self) -> dict[bytes, bytes | None]:
        """The values that AMP itself gives a meaning, by their keys; None for one that is absent."""
        box = dict(self.pairs)
        return {key: box.get(key) for key in _TOLD[self.kind]}

    @property
    def values(self) -> list[tuple[bytes, bytes]]:
        """All other pairs."""
        told = _TOLD[self.kind]
        return [pair for pair in self.pairs if pair[0] not in told]

    @property
    def faults(self) -> list[str]:
        """What is wrong with it; a connection on which it came would have been aborted or misled."""
        found = []
        if not self.pairs:
            found.append("an empty box")
        elif self.kind == "unknown":
            found.append("neither a question nor an answer nor an error")
        keys = [key for key, _ in self.pairs]
        if ERROR in keys and self.kind == "error":
            found += [
                f"an error without {key.decode()}"
                for key in (ERROR_CODE, ERROR_DESCRIPTION)
                if key not in keys
            ]
        twice = {key for key in keys if keys.count(key) > 1}
        found += [f"{escaped(key)} came twice; the later value counts" for key in sorted(twice)]
        return found


@dataclass
class NotAmp(Exception):
    """The bytes stop being AMP.

    Attributes:
        offset: where.
        why: what is there.
        begun: the box that had begun before, with the pairs that came.
    """

    offset: int
    why: str
    begun: FoundBox


def boxes_of(data: bytes, version: int = 1) -> Iterator[FoundBox]:
    """Yield the boxes that `data` consists of; raises `NotAmp` where it stops being boxes."""
    position = 0
    while position < len(data):
        box = FoundBox(position, position)
        while True:
            key, position = _key(data, position, box, version)
            if not key:
                break
            value, position = _value(data, position, box, key, version)
            box.pairs.append((key, value))
        box.end = position
        yield box


def _length(data: bytes, position: int, box: FoundBox, of_what: str) -> tuple[int, int]:
    """Return the length that is at `position`, and the position after it."""
    if position + 2 > len(data):
        where = "of a box" if not of_what else f"of {of_what}"
        raise NotAmp(len(data), f"the bytes end in the middle {where}", box)
    return data[position] << 8 | data[position + 1], position + 2


def _content(data: bytes, position: int, length: int, box: FoundBox, of_what: str) -> tuple[bytes, int]:
    content = data[position : position + length]
    if len(content) < length:
        raise NotAmp(
            len(data),
            f"the bytes end in the middle of {of_what}: {len(content)} of {length} bytes are there",
            box,
        )
    return content, position + length


def _key(data: bytes, position: int, box: FoundBox, version: int) -> tuple[bytes, int]:
    length, after = _length(data, position, box, "")
    if length > MAX_KEY_LENGTH:
        excerpt = data[position : position + _EXCERPT]
        why = (
            f"a key of {length} bytes, and a key has at most {MAX_KEY_LENGTH}: {excerpt!r}"
            f"{resemblance(data[position : position + 64])}"
        )
        if version == 1 and box.pairs and len(box.pairs[-1][1]) == MAX_VALUE_LENGTH:
            why += (
                f"; the value before it has {MAX_VALUE_LENGTH} bytes, and in version 2 of AMP it would "
                "go on here"
            )
        raise NotAmp(position, why, box)
    return _content(data, after, length, box, "a key")


def _value(data: bytes, position: int, box: FoundBox, key: bytes, version: int) -> tuple[bytes, int]:
    name = f"the value of {shortened(key)}"
    parts = []
    while True:
        length, position = _length(data, position, box, name)
        part, position = _content(data, position, length, box, name)
        parts.append(part)
        if version == 1 or length < MAX_VALUE_LENGTH:
            return b"".join(parts), position
