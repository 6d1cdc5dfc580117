"""Argument types: how a Python value becomes the bytes of a box, and back.

`Argument` has three layers of hooks. A subclass overrides the lowest layer that is sufficient:

- `fromString` and `toString` convert between bytes and a value;
- `fromStringProto` and `toStringProto` do the same, and also get the connection;
- `fromBox` and `toBox` get the whole box and all the objects, so that one argument may use several
  keys, or none.

Values are written byte for byte as Twisted writes them. Reading is strict: a value that no AMP peer
would write is an error, not a guess.
"""

from __future__ import annotations

import contextlib
import operator
import os
import re
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from .names import python_name

# Each is imported by the one type that needs it: together they take longer to import than this package.
if TYPE_CHECKING:
    import datetime
    import decimal
    import pathlib

__all__ = [
    "Argument",
    "Boolean",
    "DateTime",
    "Decimal",
    "Float",
    "Integer",
    "Path",
    "String",
    "Unicode",
    "plain_hooks",
]


# The hooks above `toString` and `fromString`.
_HOOKS = ("retrieve", "toBox", "fromBox", "toStringProto", "fromStringProto")


class Argument:
    """The base class of the argument types.

    In every hook, `proto` is the `AMP` or the locator that handles the box, or None.

    An `optional` argument may be left out or be None, which means the same: nothing is sent for it,
    and the receiver gets None.
    """

    optional = False
    #: Whether values of this type contain descriptors; a type that is made of others must set it.
    carries_descriptors = False
    #: Whether a value may use additional keys, which are the name, a dot and a number.
    in_pieces = False
    #: Whether a value consists of many objects. The argument then has `elements_cost(inString, most)`,
    #: which returns what these count against the limits beyond their bytes. It may stop at more than
    #: `most`, and what does not parse need not be counted.
    is_list = False

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional

    def __repr__(self) -> str:
        return self._described()

    def _described(self, *made_of: object) -> str:
        """Return what makes an argument like this one; `made_of` is what it is made of."""
        parts = [*map(repr, made_of), *(["optional=True"] if self.optional else [])]
        return f"{type(self).__name__}({', '.join(parts)})"

    def retrieve(self, d: MutableMapping[Any, Any], name: Any, proto: Any) -> Any:
        """Remove `name` from `d` and return its value, or None if it is absent and optional.

        Raises `KeyError` if it is absent and not optional.
        """
        return d.pop(name, None) if self.optional else d.pop(name)

    def fromBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        """Remove this argument's keys from `strings`, and put its value into `objects`.

        `name` is the name on the wire; the key in `objects` is the Python identifier for it. Any
        exception raised here means that the command or the answer does not parse.
        """
        identifier = python_name(name)
        string = self.retrieve(strings, name, proto)
        if self.optional and string is None:
            objects[identifier] = None
        else:
            objects[identifier] = self.fromStringProto(string, proto)

    def toBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        """Remove this argument's value from `objects`, and put its bytes into `strings`.

        Any exception raised here means that the value cannot be encoded.
        """
        value = self.retrieve(objects, python_name(name), proto)
        if value is not None or not self.optional:
            strings[name] = self.toStringProto(value, proto)

    def fromStringProto(self, inString: bytes, proto: Any) -> Any:
        """Return the value of `inString`, which was received by `proto`."""
        return self.fromString(inString)

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        """Return the bytes for `inObject`, which `proto` is about to send."""
        return self.toString(inObject)

    def fromString(self, inString: bytes) -> Any:
        """Return the value of `inString`; raise `ValueError` for bytes that are not a value."""
        raise NotImplementedError(  # Not abstract: a subclass may override a hook above it instead.
            f"{type(self).__name__} does not define fromString"
        )

    def toString(self, inObject: Any) -> bytes:
        """Return the bytes for `inObject`; raise `TypeError` or `ValueError` if it does not fit."""
        raise NotImplementedError(  # Not abstract: a subclass may override a hook above it instead.
            f"{type(self).__name__} does not define toString"
        )


def plain_hooks(argument: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]] | None:
    """Return `toString` and `fromString` of an `Argument`, if it overrides no hook above these.

    A schema calls these two directly, because the layers above cost three calls for each value. None
    for other arguments, and for objects that do not derive from `Argument`.
    """
    if not isinstance(argument, Argument):
        return None
    for hook in _HOOKS:
        if getattr(getattr(argument, hook), "__func__", None) is not getattr(Argument, hook):
            return None
    return argument.toString, argument.fromString


def _other(value: object, kind: type, argument: str) -> str:
    """Return the end of an error message that says which argument takes a value of this kind."""
    return f"; declare the argument as {argument}() for that" if isinstance(value, kind) else ""


class Integer(Argument):
    """An `int`, in decimal digits: `b"-42"`.

    Python limits how many digits it converts, to 4,300 by default (see `sys.set_int_max_str_digits`).
    """

    def toString(self, inObject: Any) -> bytes:
        # operator.index rejects floats: "%d" alone would send 1.5 as 1.
        try:
            return b"%d" % operator.index(inObject)
        except TypeError:
            raise TypeError(f"an Integer is an int, not {inObject!r}") from None

    def fromString(self, inString: bytes) -> int:
        if inString.isdigit() or (inString[:1] == b"-" and inString[1:].isdigit()):
            return int(inString)
        raise ValueError("not an integer in decimal digits")


class String(Argument):
    """Any `bytes`, unchanged."""

    def toString(self, inObject: Any) -> bytes:
        if isinstance(inObject, bytes):
            return inObject
        if isinstance(inObject, bytearray | memoryview):
            return bytes(inObject)
        raise TypeError(f"a String is bytes, not {inObject!r}{_other(inObject, str, 'Unicode')}")

    def fromString(self, inString: bytes) -> Any:
        return inString


class Float(Argument):
    """A `float`, in the fewest digits that read back as the same number: `b"0.1"`, `b"-inf"`."""

    def toString(self, inObject: Any) -> bytes:
        if not isinstance(inObject, float):
            raise ValueError(f"a Float is a float, not {inObject!r}")
        return float.__repr__(inObject).encode("ascii")

    def fromString(self, inString: bytes) -> float:
        # float() would also accept white space around the number and underscores within it.
        if b"_" not in inString and inString.strip() == inString:
            with contextlib.suppress(ValueError):  # The error below says what is wrong.
                return float(inString)
        raise ValueError("not a floating-point number")


class Boolean(Argument):
    """`True` or `False`, as `b"True"` or `b"False"`; any object is sent as its truth value."""

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
            raise TypeError(f"a Unicode is a str, not {inObject!r}{_other(inObject, bytes, 'String')}")
        return inObject.encode("utf-8")

    def fromString(self, inString: bytes) -> Any:
        return inString.decode("utf-8")


class Path(Unicode):
    """A `pathlib.Path`, sent as an absolute path in UTF-8.

    A relative path is resolved against the sender's working directory, because the receiver's may
    differ. Use it between processes of one machine, or machines that share a file system.
    """

    def toString(self, inObject: Any) -> bytes:
        try:
            path = os.fsdecode(inObject)
        except TypeError:
            raise TypeError(f"a Path is a pathlib.Path or a str, not {inObject!r}") from None
        return super().toString(os.path.abspath(path))

    def fromString(self, inString: bytes) -> pathlib.Path:
        import pathlib

        return pathlib.Path(super().fromString(inString))


class Decimal(Argument):
    """A `decimal.Decimal`, as `str` writes it: `b"1.50"`, `b"1E+2"`, `b"-Infinity"`, `b"sNaN"`."""

    # Checked first, because decimal accepts white space and underscores, and returns NaN for input
    # that it cannot parse if the caller's context does not trap InvalidOperation.
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
                raise ValueError("a decimal number beyond the range of the decimal module") from None


class DateTime(Argument):
    """An aware `datetime.datetime`, in 32 bytes: `b"2012-01-23T12:34:56.054321-01:23"`.

    The offset from UTC is sent, rounded down to whole minutes, but not the name of the time zone. UTC
    itself has the offset `-00:00`, as in Twisted.
    """

    _grammar = re.compile(rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})([-+])(\d\d):(\d\d)")

    def toString(self, inObject: Any) -> bytes:
        import datetime

        if not isinstance(inObject, datetime.datetime):
            raise TypeError(f"a DateTime is a datetime.datetime, not {inObject!r}")
        offset = inObject.utcoffset()
        if offset is None:
            raise ValueError(f"a DateTime needs a time zone: {inObject!r} is naive")
        minutes = offset // datetime.timedelta(minutes=1)
        hours, minutes_left = divmod(abs(minutes), 60)
        if hours > 23:
            raise ValueError(f"a DateTime cannot have the offset {offset}: it rounds down to -24:00")
        local = inObject.replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{local}{'+' if minutes > 0 else '-'}{hours:02}:{minutes_left:02}".encode("ascii")

    def fromString(self, inString: bytes) -> datetime.datetime:
        import datetime

        match = self._grammar.fullmatch(inString)
        if match is None:
            raise ValueError("not a date and time of the form YYYY-MM-DDTHH:MM:SS.ffffff+HH:MM")
        *local, sign, hours, minutes = match.groups()
        if minutes > b"59":
            raise ValueError("the minutes of an offset from UTC are at most 59")
        offset = datetime.timedelta(hours=int(hours), minutes=int(minutes))
        zone = datetime.timezone(-offset if sign == b"-" else offset)
        year, month, day, hour, minute, second, microsecond = map(int, local)
        return datetime.datetime(year, month, day, hour, minute, second, microsecond, zone)
