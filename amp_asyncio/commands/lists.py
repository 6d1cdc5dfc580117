"""Lists: arguments that have many values in one.

A list of a few bytes may become many objects, so what a long one becomes counts against the limits as
well as its bytes. Both sides count the same, from the bytes alone: see `Schema.in_lists`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from ..errors import TooLong
from ..wire.boxes import MAX_VALUE_LENGTH, AmpBox
from ..wire.compiling import caused, derivable
from ..wire.costs import PAIR_OVERHEAD
from ..wire.parser import boxes_in
from .arguments import Argument
from .schemas import Schema, may_claim

__all__ = ["AmpList", "ListOf"]


# What the elements of a list may count at most, for the list not to be counted at all: most lists are
# short, and to count them takes a tenth of the time that it takes to read them.
_FREE = 32 * 1024


def _is_read_as(argument: Argument, base: type[Argument]) -> bool:
    """Return whether `argument` reads its values as `base` does: then its elements can be counted."""
    hooks = ("fromBox", "fromStringProto", "fromString")
    return all(getattr(type(argument), hook) is getattr(base, hook) for hook in hooks)


@derivable
class ListOf(Argument):
    """A list of values of one type, each after its 2-byte length, all in one value.

    Each element has at most 65,535 bytes, and in AMP version 1 so does the whole list. In addition to
    its bytes, each element counts 128 bytes towards `Limits.max_box_size`.
    """

    def __init__(self, elementType: Argument, optional: bool = False) -> None:
        super().__init__(optional)
        if not hasattr(elementType, "toStringProto") or isinstance(elementType, type):
            raise TypeError(f"a ListOf needs an Argument instance, not {elementType!r}")
        self.elementType = elementType
        self.carries_descriptors = getattr(elementType, "carries_descriptors", False)
        self.is_list = _is_read_as(self, ListOf)
        self.may_claim = not self.is_list or may_claim(elementType)
        self._inner: Any = elementType if getattr(elementType, "is_list", False) else None
        # An element has at least its length.
        self._short = 0 if self._inner is not None else 2 * _FREE // PAIR_OVERHEAD

    def __repr__(self) -> str:
        return self._described(self.elementType)

    def toStringProto(self, inObject: Iterable[Any], proto: Any) -> bytes:
        try:
            values = iter(inObject)
        except TypeError:
            raise caused(TypeError(f"a ListOf is a list, not {inObject!r}"), None)
        parts: list[bytes] = []
        for value in values:
            element = self.elementType.toStringProto(value, proto)
            if len(element) > MAX_VALUE_LENGTH:
                raise TooLong(False, True, element, b"an element of a ListOf")
            parts += (len(element).to_bytes(2, "big"), element)
        return b"".join(parts)

    def fromStringProto(self, inString: bytes, proto: Any) -> list[Any]:
        values: list[Any] = []
        position, size = 0, len(inString)
        while position < size:
            start = position + 2
            position = start + int.from_bytes(inString[position:start], "big")
            if max(start, position) > size:
                raise ValueError(f"the list ends in the middle of element {len(values)}")
            values.append(self.elementType.fromStringProto(inString[start:position], proto))
        return values

    def elements_cost(self, inString: bytes, most: int) -> int:
        if len(inString) <= self._short:
            return 0
        inner = self._inner
        cost = position = 0
        last = len(inString) - 2
        while position <= last and cost <= most:
            start = position + 2
            position = start + (inString[position] << 8 | inString[position + 1])
            cost += PAIR_OVERHEAD
            if inner is not None:
                cost += inner.elements_cost(inString[start:position], most - cost)
        return cost

    def toString(self, inObject: Iterable[Any]) -> bytes:
        return self.toStringProto(inObject, None)

    def fromString(self, inString: bytes) -> list[Any]:
        return self.fromStringProto(inString, None)


@derivable
class AmpList(Argument):
    """A list of dictionaries, each in its own box, all in one value.

    In AMP version 1, the whole list has at most 65,535 bytes. `subargs` is a list of pairs of a name
    and an `Argument`, like a command's `arguments`, and is checked in the same way. In addition to the
    bytes, each dictionary counts 256 bytes towards `Limits.max_box_size`, and each of its values, sent
    or not, 128.
    """

    def __init__(self, subargs: Iterable[tuple[bytes | str, Argument]], optional: bool = False) -> None:
        super().__init__(optional)
        self._use(Schema(subargs, "an item of the AmpList", reserved=()))

    def _use(self, schema: Schema) -> None:
        """Take the schema of an item, and what it says about the list."""
        self._schema = schema
        self.subargs = schema.pairs
        self.carries_descriptors = any(
            getattr(argument, "carries_descriptors", False) for _, argument in self.subargs
        )
        self.is_list = _is_read_as(self, AmpList)
        self.may_claim = not self.is_list or schema.may_claim
        self._nested = dict(schema.lists)
        self._each = PAIR_OVERHEAD * (2 + len(self.subargs))
        # An element has at least its end, and the keys and the lengths of what cannot be left out.
        least = 2 + sum(
            4 + len(name) for name, each in self.subargs if not getattr(each, "optional", False)
        )
        self._short = 0 if self._nested else least * (_FREE // self._each)

    def __repr__(self) -> str:
        return self._described(self.subargs)

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        try:
            items = iter(inObject)
        except TypeError:
            raise caused(TypeError(f"an AmpList is a list of dictionaries, not {inObject!r}"), None)
        boxes = [self._schema.encode(objects, AmpBox(), proto) for objects in items]
        return b"".join([box.serialize() for box in boxes])

    def fromStringProto(self, inString: bytes, proto: Any) -> Any:
        return [self._schema.decode(box, proto) for box in boxes_in(inString)]

    def elements_cost(self, inString: bytes, most: int) -> int:
        if len(inString) <= self._short:
            return 0
        nested = self._nested
        cost = position = 0
        with contextlib.suppress(IndexError):  # It ends in the middle of a box, and will not parse.
            # Without making boxes of it, which is what costs time and memory.
            while cost <= most:
                key_end = position + 2 + inString[position + 1]
                if key_end == position + 2:
                    cost += self._each
                    position = key_end
                    continue
                value_end = key_end + 2 + (inString[key_end] << 8 | inString[key_end + 1])
                if nested:
                    inner = nested.get(inString[position + 2 : key_end])
                    if inner is not None:
                        value = inString[key_end + 2 : value_end]
                        cost += inner.elements_cost(value, most - cost)
                position = value_end
        return cost

    def toString(self, inObject: Any) -> bytes:
        return self.toStringProto(inObject, None)

    def fromString(self, inString: bytes) -> Any:
        return self.fromStringProto(inString, None)
