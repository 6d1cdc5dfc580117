"""The argument types of annotations that AMP has no type for: enumerations, durations, addresses.

Each is written as one of AMP's own types would write it, so a peer that knows only those can take part:
the guide `typed_commands.md` has the table.
"""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .arguments import Argument, Unicode
from .lists import AmpList
from .schemas import Schema

if TYPE_CHECKING:
    import datetime

__all__ = ["Choice", "DictOf", "Member", "Record", "RecordList", "Text", "TimeDelta"]


class Text(Unicode):
    """What `str` writes in full and its own class reads, such as a `UUID` or an IP address.

    The classes are tried in their order. `grammar` is what their text has to match.
    """

    def __init__(
        self, *kinds: Callable[[str], Any], grammar: str | None = None, optional: bool = False
    ) -> None:
        super().__init__(optional)
        self._kinds: tuple[Any, ...] = kinds
        self._grammar = grammar

    @property
    def _wanted(self) -> str:
        return " or ".join(f"{kind.__module__}.{kind.__name__}" for kind in self._kinds)

    def toString(self, inObject: Any) -> bytes:
        if type(inObject) not in self._kinds:
            raise TypeError(f"{self._wanted} is needed, not {inObject!r}")
        return super().toString(str(inObject))

    def fromString(self, inString: bytes) -> Any:
        text = super().fromString(inString)
        if self._grammar is None or re.fullmatch(self._grammar, text):
            for kind in self._kinds:
                with contextlib.suppress(ValueError):  # Another kind may take it.
                    return kind(text)
        raise ValueError(f"not a {self._wanted}")


class Member(Argument):
    """A member of an `Enum`, sent as its value; `of_value` is the argument for that."""

    def __init__(self, kind: type[enum.Enum], of_value: Argument, optional: bool = False) -> None:
        super().__init__(optional)
        self._kind = kind
        self._of_value = of_value

    def toString(self, inObject: Any) -> bytes:
        if not isinstance(inObject, self._kind):
            raise TypeError(f"a {self._kind.__name__} is needed, not {inObject!r}")
        return self._of_value.toString(inObject.value)

    def fromString(self, inString: bytes) -> Any:
        return self._kind(self._of_value.fromString(inString))


class Choice(Argument):
    """One of the values of a `Literal`; `of_value` is the argument for each of them."""

    def __init__(self, choices: tuple[Any, ...], of_value: Argument, optional: bool = False) -> None:
        super().__init__(optional)
        self._choices = choices
        self._of_value = of_value

    def _checked(self, value: Any) -> Any:
        if value not in self._choices or type(value) is not type(self._choices[0]):
            raise ValueError(f"one of {', '.join(map(repr, self._choices))} is needed, not {value!r}")
        return value

    def toString(self, inObject: Any) -> bytes:
        return self._of_value.toString(self._checked(inObject))

    def fromString(self, inString: bytes) -> Any:
        return self._checked(self._of_value.fromString(inString))


class TimeDelta(Argument):
    """A `datetime.timedelta`, in seconds, as a decimal number: `b"-1.5"`."""

    _grammar = re.compile(rb"(-?)(\d{1,14})(?:\.(\d{1,6})0*)?")

    def toString(self, inObject: Any) -> bytes:
        import datetime

        if not isinstance(inObject, datetime.timedelta):
            raise TypeError(f"a datetime.timedelta is needed, not {inObject!r}")
        microseconds = inObject // datetime.timedelta(microseconds=1)
        seconds, rest = divmod(abs(microseconds), 10**6)
        text = f"{'-' if microseconds < 0 else ''}{seconds}"
        return (f"{text}.{rest:06}".rstrip("0") if rest else text).encode("ascii")

    def fromString(self, inString: bytes) -> datetime.timedelta:
        import datetime

        match = self._grammar.fullmatch(inString)
        if match is None:
            raise ValueError("not a number of seconds, with at most six digits after the point")
        sign, seconds, fraction = match.groups(b"0")
        microseconds = int(seconds) * 10**6 + int(fraction.ljust(6, b"0"))
        try:
            return datetime.timedelta(microseconds=-microseconds if sign == b"-" else microseconds)
        except OverflowError:
            raise ValueError("more days than a timedelta has") from None


class RecordList(AmpList):
    """A list of records: an `AmpList` whose dictionaries are instances of a class."""

    def __init__(self, schema: Schema, optional: bool = False) -> None:
        Argument.__init__(self, optional)
        self._use(schema)

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        if isinstance(inObject, Mapping | str | bytes):
            raise TypeError(f"a list of records is needed, not {inObject!r}")
        return super().toStringProto(inObject, proto)


class Record(RecordList):
    """One record: an `AmpList` of exactly one dictionary.

    Attributes:
        schema: that of the record.
    """

    def __init__(self, schema: Schema, optional: bool = False) -> None:
        super().__init__(schema, optional)
        self.schema = schema
        self.is_list = True

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        return super().toStringProto([inObject], proto)

    def fromStringProto(self, inString: bytes, proto: Any) -> Any:
        records = super().fromStringProto(inString, proto)
        if len(records) != 1:
            raise ValueError(f"one record is needed, not {len(records)}")
        return records[0]


class DictOf(AmpList):
    """A dictionary whose keys are text: an `AmpList` of `key` and `value`."""

    def __init__(self, of_value: Argument, optional: bool = False) -> None:
        super().__init__([(b"key", Unicode()), (b"value", of_value)], optional)
        self.is_list = True

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        if not isinstance(inObject, Mapping):
            raise TypeError(f"a dictionary is needed, not {inObject!r}")
        items = [{"key": key, "value": value} for key, value in inObject.items()]
        return super().toStringProto(items, proto)

    def fromStringProto(self, inString: bytes, proto: Any) -> Any:
        items = super().fromStringProto(inString, proto)
        found = {item["key"]: item["value"] for item in items}
        if len(found) != len(items):
            raise ValueError("a key is there twice")
        return found
