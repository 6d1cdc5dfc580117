"""Argument types: how a Python value becomes the bytes of a box, and back.

Each `Argument` offers three layers of hooks, and a subclass overrides the lowest that does what it
needs:

- `fromString` and `toString` turn bytes into a value and back;
- `fromStringProto` and `toStringProto` do the same and see the connection;
- `fromBox` and `toBox` see the whole box and all the objects, so that one argument may use several
  keys, or none.

What is written is what Twisted writes, byte for byte. What is read is taken strictly: a value that
no AMP peer would write is an error, not a guess.
"""

from __future__ import annotations

import contextlib
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..errors import TooLong
from ..wire.boxes import MAX_VALUE_LENGTH, AmpBox
from ..wire.parser import parseString
from .exchange import claim, give
from .schemas import Schema, python_name

# Each is imported by the one type that needs it: together they take longer than this package.
if TYPE_CHECKING:
    import datetime
    import decimal
    import pathlib

__all__ = [
    "AmpList",
    "Argument",
    "Boolean",
    "DateTime",
    "Decimal",
    "Descriptor",
    "Float",
    "Integer",
    "ListOf",
    "Path",
    "String",
    "Unicode",
]


# The hooks above `toString` and `fromString`.
_HOOKS = ("retrieve", "toBox", "fromBox", "toStringProto", "fromStringProto")


class Argument:
    """The base of the argument types; `proto` is always the locator or AMP at work, or None.

    An `optional` argument may be left out, or be None, which is the same: nothing is sent for it,
    and the other side gets None.
    """

    optional = False
    #: Whether values of this type have descriptors in them: an argument that is made of others says so.
    carries_descriptors = False
    #: Whether a value may have further keys, which are the name, a dot and a number.
    in_pieces = False

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional

    def retrieve(self, d: MutableMapping[Any, Any], name: Any, proto: Any) -> Any:
        """Take `name` out of `d` and return its value; None where an optional one is not there.

        Raises `KeyError` where one that is not optional is not there.
        """
        return d.pop(name, None) if self.optional else d.pop(name)

    def fromBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        """Take what belongs to this argument out of `strings`, and put the value into `objects`.

        `name` is the name on the wire; in `objects` it stands as a Python identifier. Any exception
        raised here is an answer, or a command, that does not parse.
        """
        string = self.retrieve(strings, name, proto)
        absent = string is None and self.optional
        objects[python_name(name)] = None if absent else self.fromStringProto(string, proto)

    def toBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        """Take this argument's value out of `objects`, and put its bytes into `strings`.

        Any exception raised here is a value that does not encode.
        """
        value = self.retrieve(objects, python_name(name), proto)
        if value is not None or not self.optional:
            strings[name] = self.toStringProto(value, proto)

    def _plain_hooks(self) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]] | None:
        """Return `toString` and `fromString`, or None where a subclass uses a hook above these.

        A schema calls these two themselves: the layers above would cost three calls for each value.
        """
        for hook in _HOOKS:
            if getattr(getattr(self, hook), "__func__", None) is not getattr(Argument, hook):
                return None
        return self.toString, self.fromString

    def fromStringProto(self, inString: bytes, proto: Any) -> Any:
        """Return the value that `inString` stands for on the connection `proto`."""
        return self.fromString(inString)

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        """Return the bytes that stand for `inObject` on the connection `proto`."""
        return self.toString(inObject)

    def fromString(self, inString: bytes) -> Any:
        """Return the value that `inString` stands for; `ValueError` where there is none."""
        # Not abstract: a subclass that overrides a hook above this one has no need of it.
        raise NotImplementedError(f"{type(self).__name__} does not say how it is read")

    def toString(self, inObject: Any) -> bytes:
        """Return the bytes for `inObject`; `TypeError` or `ValueError` where there are none."""
        # Not abstract: a subclass that overrides a hook above this one has no need of it.
        raise NotImplementedError(f"{type(self).__name__} does not say how it is written")


class Integer(Argument):
    """An `int` of any size, in decimal digits: `b"-42"`.

    Python's own limit on the digits it converts (4,300, see `sys.set_int_max_str_digits`) holds.
    """

    def toString(self, inObject: Any) -> bytes:
        # By way of __index__, lest 1.5 be sent as 1.
        return b"%d" % operator.index(inObject)

    def fromString(self, inString: bytes) -> int:
        if inString.isdigit() or (inString[:1] == b"-" and inString[1:].isdigit()):
            return int(inString)
        raise ValueError("not an integer in decimal digits")


class String(Argument):
    """Any `bytes`, as they are."""

    def toString(self, inObject: Any) -> bytes:
        if isinstance(inObject, bytes):
            return inObject
        if isinstance(inObject, bytearray | memoryview):
            return bytes(inObject)
        raise TypeError(f"a String is bytes, not {inObject!r}")

    def fromString(self, inString: bytes) -> Any:
        return inString


class Float(Argument):
    """A `float`, in the shortest digits that are read back as the same: `b"0.1"`, `b"-inf"`."""

    def toString(self, inObject: Any) -> bytes:
        if not isinstance(inObject, float):
            raise ValueError(f"a Float is a float, not {inObject!r}")
        return float.__repr__(inObject).encode("ascii")

    def fromString(self, inString: bytes) -> float:
        # float() would also take white space around the number and underscores within it.
        if b"_" not in inString and inString.strip() == inString:
            with contextlib.suppress(ValueError):
                return float(inString)
        raise ValueError("not a floating-point number")


class Boolean(Argument):
    """`True` or `False`, as `b"True"` or `b"False"`; any value is sent as its truth."""

    def toString(self, inObject: Any) -> bytes:
        return b"True" if inObject else b"False"

    def fromString(self, inString: bytes) -> bool:
        if inString == b"True":
            return True
        if inString == b"False":
            return False
        raise ValueError("neither b'True' nor b'False'")


class Unicode(String):
    """A `str`, in UTF-8."""

    def toString(self, inObject: Any) -> bytes:
        if not isinstance(inObject, str):
            raise TypeError(f"a Unicode is a str, not {inObject!r}")
        return inObject.encode("utf-8")

    def fromString(self, inString: bytes) -> Any:
        return inString.decode("utf-8")


class Path(Unicode):
    """A `pathlib.Path`, sent as an absolute path in UTF-8.

    Where it is relative, it is so to the sender's working directory: the receiver has another. Paths
    mean something between processes of one machine, or where machines share a file system.
    """

    def toString(self, inObject: Any) -> bytes:
        return super().toString(os.path.abspath(os.fsdecode(inObject)))

    def fromString(self, inString: bytes) -> pathlib.Path:
        import pathlib

        return pathlib.Path(super().fromString(inString))


class Decimal(Argument):
    """A `decimal.Decimal`, as `str` writes it: `b"1.50"`, `b"1E+2"`, `b"-Infinity"`, `b"sNaN"`."""

    # Checked before decimal sees it: decimal takes white space and underscores, and makes NaN of
    # what it does not understand, if the caller's context has it so.
    _grammar = re.compile(
        rb"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:E[-+]?\d+)?|Inf(?:inity)?|s?NaN\d*)", re.IGNORECASE
    )

    def toString(self, inObject: Any) -> bytes:
        import decimal

        if not isinstance(inObject, decimal.Decimal):
            raise ValueError(f"a Decimal is a decimal.Decimal, not {inObject!r}")
        return str(inObject).encode("ascii")

    def fromString(self, inString: bytes) -> decimal.Decimal:
        import decimal

        if not self._grammar.fullmatch(inString):
            raise ValueError("not a decimal number")
        with decimal.localcontext() as context:
            context.traps[decimal.InvalidOperation] = True
            try:
                return decimal.Decimal(inString.decode("ascii"))
            except decimal.InvalidOperation:
                raise ValueError("a decimal number beyond what decimal can hold") from None


class DateTime(Argument):
    """An aware `datetime.datetime`, in 32 bytes: `b"2012-01-23T12:34:56.054321-01:23"`.

    Only the offset from UTC is sent, in whole minutes (seconds are cut off downwards), not the time
    zone. UTC itself has the offset `-00:00`, as Twisted writes it.
    """

    _grammar = re.compile(rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})([-+])(\d\d):(\d\d)")

    def toString(self, inObject: Any) -> bytes:
        import datetime

        if not isinstance(inObject, datetime.datetime):
            raise TypeError(f"a DateTime is a datetime.datetime, not {inObject!r}")
        offset = inObject.utcoffset()
        if offset is None:
            raise ValueError(f"a DateTime needs a time zone, and {inObject!r} has none")
        minutes = offset // datetime.timedelta(minutes=1)
        hours, minutes_left = divmod(abs(minutes), 60)
        if hours > 23:
            raise ValueError(f"the offset {offset} of a DateTime is -24:00 when cut to minutes")
        local = inObject.replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{local}{'+' if minutes > 0 else '-'}{hours:02}:{minutes_left:02}".encode("ascii")

    def fromString(self, inString: bytes) -> datetime.datetime:
        import datetime

        match = self._grammar.fullmatch(inString)
        if match is None:
            raise ValueError("not a date and time of the form YYYY-MM-DDTHH:MM:SS.ffffff+HH:MM")
        *local, sign, hours, minutes = match.groups()
        if minutes > b"59":
            raise ValueError("an offset from UTC has at most 59 minutes beside its hours")
        offset = datetime.timedelta(hours=int(hours), minutes=int(minutes))
        zone = datetime.timezone(-offset if sign == b"-" else offset)
        year, month, day, hour, minute, second, microsecond = map(int, local)
        return datetime.datetime(year, month, day, hour, minute, second, microsecond, zone)


class Descriptor(Integer):
    """An open file, socket or pipe, which the receiver gets a descriptor of its own for.

    Only the connections of `unix_connect` and `unix_serve` carry descriptors, and only without TLS;
    on any other, sending one is a `TypeError`, and so it is once StartTLS was asked for.

    What is sent is an `int`, or anything with a `fileno()`. It is duplicated at once, so it may be
    closed when `callRemote` has returned. Where that raises, nothing is sent. What a responder returns
    is duplicated as soon as it has returned: `loop.call_soon(file.close)` closes it in time.
    A question that is cancelled while it waits to be sent may still send its descriptors; the peer
    closes them when the connection ends.

    What is received is an `int`: a new descriptor that no child process inherits. It belongs to the
    responder, or to the caller, who has to close it: best is to give it at once to what does so, as
    `socket.socket(fileno=...)` and `os.fdopen(...)` do. What came for an answer that nobody waits for
    any more is closed; but whoever is cancelled in the very turn in which the future got its answer has
    to look for it there.

    On the wire it is the ordinal of the descriptor, counted from 0 for each direction.
    """

    carries_descriptors = True

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        return self.toString(give(inObject, proto))

    def fromStringProto(self, inString: bytes, proto: Any) -> int:
        return claim(self.fromString(inString), proto)


class ListOf(Argument):
    """A list of values of one other type, each behind its 2-byte length, all in one value.

    A single value on the wire holds at most 65,535 bytes, and so does each element.
    """

    def __init__(self, elementType: Argument, optional: bool = False) -> None:
        super().__init__(optional)
        if not hasattr(elementType, "toStringProto") or isinstance(elementType, type):
            raise TypeError(f"a ListOf is of an Argument instance, not of {elementType!r}")
        self.elementType = elementType
        self.carries_descriptors = getattr(elementType, "carries_descriptors", False)

    def toStringProto(self, inObject: Iterable[Any], proto: Any) -> bytes:
        parts: list[bytes] = []
        for value in inObject:
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
    """A list of dictionaries, each in a box of its own, all in one value of at most 65,535 bytes.

    `subargs` is a schema, a list of pairs of a name and an `Argument`, as a command's `arguments` is,
    and is checked in the same way.
    """

    def __init__(self, subargs: Iterable[tuple[bytes | str, Argument]], optional: bool = False) -> None:
        super().__init__(optional)
        self._schema = Schema(subargs, "an item of the AmpList", reserved=())
        self.subargs = self._schema.pairs
        self.carries_descriptors = any(
            getattr(argument, "carries_descriptors", False) for _, argument in self.subargs
        )

    def toStringProto(self, inObject: Iterable[Mapping[str, Any]], proto: Any) -> bytes:
        boxes = [self._schema.encode(objects, AmpBox(), proto) for objects in inObject]
        return b"".join([box.serialize() for box in boxes])

    def fromStringProto(self, inString: bytes, proto: Any) -> list[dict[str, Any]]:
        return [self._schema.decode(box, proto) for box in parseString(inString)]

    def toString(self, inObject: Iterable[Mapping[str, Any]]) -> bytes:
        return self.toStringProto(inObject, None)

    def fromString(self, inString: bytes) -> list[dict[str, Any]]:
        return self.fromStringProto(inString, None)
