"""Lists: arguments that are made of others, ListOf and AmpList."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import TooLong
from ..wire.boxes import MAX_VALUE_LENGTH, AmpBox
from ..wire.parser import parseString
from .arguments import Argument
from .schemas import Schema

__all__ = ["AmpList", "ListOf"]


class ListOf(Argument):
    """A list of values of one type, each after its 2-byte length, all in one value.

    Each element has at most 65,535 bytes, and in AMP version 1 so does the whole list.
    """

    def __init__(self, elementType: Argument, optional: bool = False) -> None:
        super().__init__(optional)
        if not hasattr(elementType, "toStringProto") or isinstance(elementType, type):
            raise TypeError(f"a ListOf needs an Argument instance, not {elementType!r}")
        self.elementType = elementType
        self.carries_descriptors = getattr(elementType, "carries_descriptors", False)

    def __repr__(self) -> str:
        return self._described(self.elementType)

    def toStringProto(self, inObject: Iterable[Any], proto: Any) -> bytes:
        try:
            values = iter(inObject)
        except TypeError:
            raise TypeError(f"a ListOf is a list, not {inObject!r}") from None
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

    def toString(self, inObject: Iterable[Any]) -> bytes:
        return self.toStringProto(inObject, None)

    def fromString(self, inString: bytes) -> list[Any]:
        return self.fromStringProto(inString, None)


class AmpList(Argument):
    """A list of dictionaries, each in its own box, all in one value.

    In AMP version 1, the whole list has at most 65,535 bytes. `subargs` is a list of pairs of a name
    and an `Argument`, like a command's `arguments`, and is checked in the same way.
    """

    def __init__(self, subargs: Iterable[tuple[bytes | str, Argument]], optional: bool = False) -> None:
        super().__init__(optional)
        self._schema = Schema(subargs, "an item of the AmpList", reserved=())
        self.subargs = self._schema.pairs
        self.carries_descriptors = any(
            getattr(argument, "carries_descriptors", False) for _, argument in self.subargs
        )

    def __repr__(self) -> str:
        return self._described(self.subargs)

    def toStringProto(self, inObject: Iterable[Mapping[str, Any]], proto: Any) -> bytes:
        try:
            items = iter(inObject)
        except TypeError:
            raise TypeError(f"an AmpList is a list of dictionaries, not {inObject!r}") from None
        boxes = [self._schema.encode(objects, AmpBox(), proto) for objects in items]
        return b"".join([box.serialize() for box in boxes])

    def fromStringProto(self, inString: bytes, proto: Any) -> list[dict[str, Any]]:
        return [self._schema.decode(box, proto) for box in parseString(inString)]

    def toString(self, inObject: Iterable[Mapping[str, Any]]) -> bytes:
        return self.toStringProto(inObject, None)

    def fromString(self, inString: bytes) -> list[dict[str, Any]]:
        return self.fromStringProto(inString, None)
