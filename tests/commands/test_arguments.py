"""Argument types: written as Twisted writes them, read strictly, and overridden at every layer."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import os
import pathlib
from collections.abc import MutableMapping
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.protocols import amp as twisted_amp
from twisted.python.filepath import FilePath

from amp_asyncio import (
    AmpBox,
    AmpList,
    Argument,
    Boolean,
    Command,
    DateTime,
    Decimal,
    Float,
    Integer,
    ListOf,
    MalformedAmpBox,
    Path,
    String,
    TooLong,
    Unicode,
)

# (Twisted has no annotations to speak of.)
twisted: Any = twisted_amp


def zone(**offset: int) -> dt.timezone:
    return dt.timezone(dt.timedelta(**offset))


ZONES = st.builds(zone, minutes=st.integers(-1439, 1439))
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=50
)
INTEGERS = st.integers() | st.integers(-(10**200), 10**200)
DIGITS = st.lists(st.integers(0, 9), max_size=40).map(tuple)
DECIMALS = st.decimals() | st.builds(
    lambda *parts: decimal.Decimal(parts),
    st.integers(0, 1),
    DIGITS,
    st.integers(-500, 500) | st.sampled_from(["F", "n", "N"]),
)
# Each type as it is here and as it is in Twisted, and its values.
TYPES: dict[str, tuple[Argument, Any, st.SearchStrategy[Any]]] = {
    "Integer": (Integer(), twisted.Integer(), INTEGERS),
    "String": (String(), twisted.String(), st.binary()),
    "Float": (Float(), twisted.Float(), st.floats()),
    "Boolean": (Boolean(), twisted.Boolean(), st.booleans()),
    "Unicode": (Unicode(), twisted.Unicode(), st.text()),
    "Path": (Path(), twisted.Path(), TEXTS.map(pathlib.Path)),
    "Decimal": (Decimal(), twisted.Decimal(), DECIMALS),
    "DateTime": (DateTime(), twisted.DateTime(), st.datetimes(timezones=ZONES)),
    "ListOf": (
        ListOf(ListOf(Decimal())),
        twisted.ListOf(twisted.ListOf(twisted.Decimal())),
        st.lists(st.lists(DECIMALS, max_size=5), max_size=5),
    ),
    "AmpList": (
        AmpList(
            [
                (b"a-b", Integer(optional=True)),
                (b"in", Unicode(optional=True)),
                (b"l", AmpList([(b"f", Float())], optional=True)),
            ]
        ),
        twisted.AmpList(
            [
                (b"a-b", twisted.Integer(optional=True)),
                (b"in", twisted.Unicode(optional=True)),
                (b"l", twisted.AmpList([(b"f", twisted.Float())], optional=True)),
            ]
        ),
        st.lists(
            st.fixed_dictionaries(
                {
                    "a_b": st.none() | INTEGERS,
                    "In": st.none() | st.text(),
                    "l": st.none() | st.lists(st.fixed_dictionaries({"f": st.floats()}), max_size=3),
                }
            ),
            max_size=5,
        ),
    ),
}
each_type = pytest.mark.parametrize("name", TYPES)


def plain(value: Any) -> Any:
    """Return something that is equal only for what is the same value, NaN and -0.0 included."""
    if isinstance(value, float | decimal.Decimal):
        return repr(value)
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None), value.utcoffset()
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, pathlib.Path):
        # Both libraries make paths absolute when they write them.
        return os.path.abspath(value)
    return value.path if isinstance(value, FilePath) else value


def agrees(name: str, value: Any) -> None:
    """Check that the value is written as Twisted writes it, and read by both as what it was."""
    ours, theirs, _ = TYPES[name]
    data = ours.toStringProto(value, None)
    for_twisted = FilePath(os.fspath(value)) if name == "Path" else value
    assert data == theirs.toStringProto(for_twisted, None)
    decoded = ours.fromStringProto(data, None)
    assert plain(decoded) == plain(value) == plain(theirs.fromStringProto(data, None))
    if name != "Path":
        assert type(decoded) is type(value)
    if name not in ("ListOf", "AmpList"):
        assert ours.toString(value) == data


@each_type
@given(data=st.data())
def test_agrees_with_twisted(name: str, data: st.DataObject) -> None:
    agrees(name, data.draw(TYPES[name][2]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Integer", value) for value in (0, -1, 10**199, -(10**199), 2**64)),
        *(("String", value) for value in (b"", b"\0", bytes(range(256)))),
        pytest.param("String", b"x" * 65535, id="String-longest"),
        *(("Float", value) for value in (0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1e22, 0.1)),
        *(("Boolean", value) for value in (True, False)),
        *(("Unicode", value) for value in ("", "\0", "größe", "\u65e5\u672c", "\U0001f642", "\ufeff")),
        *(
            ("Path", pathlib.Path(value))
            for value in ("/", "/a/b", "//a", "a", ".", "..", "../a", "/a/../b", "a/../../b", "größe")
        ),
        *(
            ("Decimal", decimal.Decimal(value))
            for value in (
                "0 -0 0.0 -0.00 1E+2 1E-2 1E-7 -1.50 1.5E+9 0E+3 0E-10 1E+999999 12345678901234567890.5"
                " Infinity -Infinity NaN -NaN NaN123 sNaN -sNaN -sNaN123"
            ).split()
        ),
        *(
            ("DateTime", value)
            for value in (
                dt.datetime(2012, 1, 23, 12, 34, 56, 54321, zone(hours=-1, minutes=-23)),
                dt.datetime(2012, 1, 23, 12, 34, 56, 0, zone(hours=14)),
                dt.datetime(1, 1, 1, tzinfo=dt.UTC),
                dt.datetime(1, 1, 1, tzinfo=zone(minutes=1439)),
                dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, zone(minutes=-1439)),
                dt.datetime(2024, 7, 1, tzinfo=ZoneInfo("UTC")),
            )
        ),
        ("ListOf", []),
        ("ListOf", [[]]),
        ("ListOf", [[decimal.Decimal("sNaN")], []]),
        ("AmpList", []),
        ("AmpList", [{"a_b": None, "In": None, "l": []}]),
    ],
)
def test_agrees_with_twisted_about(name: str, value: Any) -> None:
    agrees(name, value)


# Seconds of an offset are cut off downwards, and values of other types than those that are read.
@pytest.mark.parametrize(
    ("name", "value", "data"),
    [
        ("Boolean", [], b"False"),
        ("Boolean", "no", b"True"),
        ("Integer", True, b"1"),
        ("DateTime", dt.datetime(2000, 1, 1, tzinfo=dt.UTC), b"2000-01-01T00:00:00.000000-00:00"),
        (
            "DateTime",
            dt.datetime(2000, 1, 1, tzinfo=zone(seconds=59)),
            b"2000-01-01T00:00:00.000000-00:00",
        ),
        (
            "DateTime",
            dt.datetime(2000, 1, 1, tzinfo=zone(seconds=119)),
            b"2000-01-01T00:00:00.000000+00:01",
        ),
        (
            "DateTime",
            dt.datetime(2000, 1, 1, tzinfo=zone(seconds=-1)),
            b"2000-01-01T00:00:00.000000-00:01",
        ),
        (
            "DateTime",
            dt.datetime(2000, 1, 1, tzinfo=zone(seconds=-5400, microseconds=-1)),
            b"2000-01-01T00:00:00.000000-01:31",
        ),
        ("AmpList", [{}, {}], b"\0\0\0\0"),
    ],
)
def test_writes_as_twisted_does(name: str, value: Any, data: bytes) -> None:
    ours, theirs, _ = TYPES[name]
    assert ours.toStringProto(value, None) == theirs.toStringProto(value, None) == data


def test_other_types_that_are_written() -> None:
    assert String().toString(bytearray(b"x")) == String().toString(memoryview(b"x")) == b"x"
    assert type(String().toString(bytearray(b"x"))) is bytes
    assert Path().toString("/ä") == Path().toString("/ä".encode()) == "/ä".encode()

    class Chatty(float):
        def __repr__(self) -> str:
            return "chatty"

        __str__ = __repr__

    assert Float().toString(Chatty(0.1)) == b"0.1"


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        (Integer(), 1.0, TypeError),
        (Integer(), "1", TypeError),
        (Integer(), None, TypeError),
        (String(), "text", TypeError),
        (String(), 5, TypeError),
        (Float(), 1, ValueError),
        (Float(), "1.0", ValueError),
        (Unicode(), b"bytes", TypeError),
        (Unicode(), "\ud800", UnicodeEncodeError),
        (Path(), 5, TypeError),
        (Path(), b"/\xff", UnicodeEncodeError),
        (Decimal(), 1, ValueError),
        (Decimal(), 1.0, ValueError),
        (DateTime(), dt.datetime(2000, 1, 1), ValueError),
        (DateTime(), dt.date(2000, 1, 1), TypeError),
        (DateTime(), "2000-01-01T00:00:00.000000-00:00", TypeError),
        (ListOf(Integer()), None, TypeError),
        (ListOf(Integer()), "12", TypeError),
        (ListOf(String()), [b"x" * 65536], TooLong),
        (AmpList([(b"a", Integer())]), [None], TypeError),
        (AmpList([(b"a", String())]), [{"a": b"x" * 65536}], TooLong),
    ],
)
def test_values_that_are_not_written(argument: Argument, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        argument.toString(value)


NOW = b"2012-01-23T12:34:56.054321-01:23"
BAD: list[tuple[str, bytes, type[Exception]]] = [
    *(
        ("Integer", data, ValueError)
        for data in (b"1_0", b" 1", b"1 ", b"1\n", b"+1", b"", b"-", b"--1", b"1.0", b"1e3", b"0x1")
    ),
    ("Integer", "\u0663".encode(), ValueError),
    *(
        ("Float", data, ValueError)
        for data in (
            b"1_0.0",
            b" 1.0",
            b"1.0 ",
            b"1.0\n",
            b"\v1",
            b"",
            b"0x1p3",
            b"1,5",
            b"1\0",
            b"\xff",
        )
    ),
    *(("Boolean", data, ValueError) for data in (b"true", b"TRUE", b"", b"1", b"True ", b" False")),
    *(
        ("Unicode", data, UnicodeDecodeError)
        for data in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80")
    ),
    ("Path", b"/\xff", UnicodeDecodeError),
    *(
        ("Decimal", data, ValueError)
        for data in (
            b"1_0",
            b" 1",
            b"1 ",
            b"1\n",
            b"",
            b".",
            b"1E",
            b"E1",
            b"+",
            b"1.2.3",
            b"abc",
            b"qNaN",
        )
    ),
    ("Decimal", "\u0663".encode(), ValueError),
    ("Decimal", b"1E+99999999999999999999", ValueError),
    *(
        ("DateTime", data, ValueError)
        for data in (
            NOW[:-1],
            NOW + b"0",
            NOW + b"\n",
            b"",
            NOW.replace(b"T", b" "),
            NOW.replace(b"-01-", b"/01/"),
            NOW.replace(b":56", b".56"),
            NOW.replace(b"56.", b"56,"),
            NOW.replace(b"-01:23", b" 01:23"),
            NOW.replace(b"-01:23", b"-01-23"),
            NOW.replace(b"-01:23", b"-01:60"),
            NOW.replace(b"-01:23", b"-24:00"),
            NOW.replace(b"-01:23", b"+99:59"),
            NOW.replace(b"2012-", b"0000-"),
            NOW.replace(b"2012-", b"+012-"),
            NOW.replace(b"2012-", b" 012-"),
            NOW.replace(b"-01-", b"-13-"),
            NOW.replace(b"-23T", b"-32T"),
            NOW.replace(b"T12", b"T24"),
            NOW.replace(b":34", b":60"),
            NOW.replace(b":56", b":60"),
            NOW.replace(b"054321", b"05432_"),
        )
    ),
    *(("ListOf", data, ValueError) for data in (b"\0", b"\0\1", b"\0\0\0", b"\0\2a", b"\xff\xff")),
    ("ListOf", b"\0\5\0\3abc", ValueError),
    *(
        ("AmpList", data, MalformedAmpBox)
        for data in (b"\0", b"\0\1", b"\0\3a-b\0\0011", b"\0\0\0\0\0")
    ),
    ("AmpList", b"\0\3a-b\0\1x\0\0", MalformedAmpBox),
    ("AmpList", b"\1\0", TooLong),
]


@pytest.mark.parametrize(("name", "data", "error"), BAD)
def test_values_that_are_not_read(name: str, data: bytes, error: type[Exception]) -> None:
    argument = TYPES[name][0]
    with pytest.raises(error):
        argument.fromString(data)

    class Carry(Command):
        arguments = response = [(b"the-value", argument)]

    for what, parse in (("command", Carry.parseArguments), ("answer to", Carry.parseResponse)):
        with pytest.raises(MalformedAmpBox) as caught:
            parse({b"the-value": data}, None)
        assert str(caught.value).startswith(f"the {what} Carry: b'the-value' is {data!r}")
        assert isinstance(caught.value.__cause__, error)
        assert str(caught.value).endswith(f": {caught.value.__cause__}")


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """Return nearly what a value of the type looks like."""
    argument, _, values = TYPES[name]
    data = bytearray(argument.toStringProto(draw(values), None))
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=3)):
        if data:
            data[place % len(data)] = byte
    return bytes(data[: draw(st.integers(0, 1000))])


@each_type
@given(data=st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    argument = TYPES[name][0]
    string = data.draw(st.binary() | damaged(name) | st.text("0123456789+-.eE_ ").map(str.encode))
    try:
        value = argument.fromString(string)
    except (ValueError, TooLong, decimal.InvalidOperation):
        return
    assert plain(argument.fromString(argument.toString(value))) == plain(value)


@pytest.mark.parametrize(
    ("name", "data", "value"),
    [
        ("Integer", b"-007", -7),
        ("Float", b"1", 1.0),
        ("Float", b"-Infinity", -math.inf),
        ("Decimal", b"+.5e3", decimal.Decimal("5E+2")),
        ("Decimal", b"1.", decimal.Decimal(1)),
        ("Decimal", b"inf", decimal.Decimal("Infinity")),
        (
            "DateTime",
            NOW.replace(b"-01:23", b"+00:00"),
            dt.datetime(2012, 1, 23, 12, 34, 56, 54321, dt.UTC),
        ),
    ],
)
def test_what_other_peers_write_is_read(name: str, data: bytes, value: Any) -> None:
    decoded = TYPES[name][0].fromString(data)
    assert plain(decoded) == plain(value)
    assert type(decoded) is type(value)


def test_decimal_does_not_depend_on_the_context() -> None:
    long = decimal.Decimal("1." + "1" * 100)
    with decimal.localcontext(decimal.ExtendedContext, prec=1):
        assert Decimal().fromString(Decimal().toString(long)) == long
        with pytest.raises(ValueError, match="not a decimal number"):
            Decimal().fromString(b"x")


def test_lists_in_lists() -> None:
    argument = ListOf(AmpList([(b"l", ListOf(AmpList([(b"x", Integer())])))]))
    value: list[Any] = [[], [{"l": []}], [{"l": [[{"x": 1}, {"x": 2}], []]}, {"l": [[]]}]]
    assert argument.fromString(argument.toString(value)) == value


def test_limit_of_digits() -> None:
    most = 10**4300 - 1
    assert Integer().fromString(Integer().toString(most)) == most
    for convert in (lambda: Integer().toString(most + 1), lambda: Integer().fromString(b"1" * 4301)):
        with pytest.raises(ValueError, match=r"limit \(4300 digits\)"):
            convert()


def test_list_limits() -> None:
    full = [b"x" * 65535, b""]
    assert ListOf(String()).fromString(ListOf(String()).toString(full)) == full
    with pytest.raises(
        TooLong, match=r"local value of b'an element of a ListOf' too long: 65536 bytes"
    ):
        ListOf(String()).toString([b"x" * 65536])


def test_elements_are_counted() -> None:
    with pytest.raises(ValueError, match="the list ends in the middle of element 2"):
        ListOf(String()).fromString(b"\0\0\0\1a\0\2b")


def test_base_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="Argument does not define fromString"):
        Argument().fromString(b"")
    with pytest.raises(NotImplementedError, match="Argument does not define toString"):
        Argument().toString(None)


# --- the layers ---


def there_and_back(argument: Argument, value: Any, proto: Any = None) -> tuple[AmpBox, dict[str, Any]]:
    """Return the box that a command makes of the value, and what it then makes of that."""

    class Carry(Command):
        arguments = [(b"the-x", argument)]

    box = Carry.makeArguments({"the_x": value}, proto)
    return box, Carry.parseArguments(box, proto)


def test_strings_overridden() -> None:
    class Hex(Argument):
        def toString(self, inObject: int) -> bytes:
            return b"%x" % inObject

        def fromString(self, inString: bytes) -> int:
            return int(inString, 16)

    assert there_and_back(Hex(), 255) == ({b"the-x": b"ff"}, {"the_x": 255})
    assert there_and_back(ListOf(Hex()), [1, 10]) == ({b"the-x": b"\0\0011\0\1a"}, {"the_x": [1, 10]})


class Keyed(Integer):
    """Adds the connection's key."""

    def toStringProto(self, inObject: int, proto: int) -> bytes:
        return super().toStringProto(inObject + proto, proto)

    def fromStringProto(self, inString: bytes, proto: int) -> int:
        value: int = super().fromStringProto(inString, proto)
        return value - proto


def test_constructor_overridden() -> None:
    class Offset(Integer):
        def __init__(self, offset: int) -> None:
            self.offset = offset

        def toString(self, inObject: int) -> bytes:
            return super().toString(inObject + self.offset)

    assert there_and_back(Offset(3), 5) == ({b"the-x": b"8"}, {"the_x": 8})
    with pytest.raises(TypeError):
        there_and_back(Offset(3), None)


def test_proto_overridden() -> None:
    assert there_and_back(Keyed(), 5, proto=10) == ({b"the-x": b"15"}, {"the_x": 5})


@pytest.mark.parametrize(
    ("argument", "value", "string"),
    [
        (ListOf(Keyed()), [5, 6], b"\0\00215\0\00216"),
        (ListOf(ListOf(Keyed())), [[5]], b"\0\4\0\00215"),
        (AmpList([(b"k", Keyed())]), [{"k": 5}], b"\0\1k\0\00215\0\0"),
        (ListOf(AmpList([(b"k", Keyed())])), [[{"k": 5}]], b"\0\x09\0\1k\0\00215\0\0"),
    ],
)
def test_lists_pass_proto_on(argument: Argument, value: Any, string: bytes) -> None:
    assert there_and_back(argument, value, proto=10) == ({b"the-x": string}, {"the_x": value})


class Point(Argument):
    """Uses two keys, neither of them its own name."""

    def toBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        x, y = objects.pop("the_x")
        strings[name + b".x"], strings[name + b".y"] = b"%d" % x, b"%d" % y

    def fromBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        objects["the_x"] = int(strings.pop(name + b".x")), int(strings.pop(name + b".y"))


def test_box_overridden() -> None:
    box, objects = there_and_back(Point(), (1, 2))
    assert box == {b"the-x.x": b"1", b"the-x.y": b"2"}
    assert objects == {"the_x": (1, 2)}

    class Carry(Command):
        arguments = [(b"the-x", Point())]

    with pytest.raises(MalformedAmpBox, match="the command Carry: b'the-x.y' is missing") as caught:
        Carry.parseArguments({b"the-x.x": b"1"}, None)
    assert type(caught.value.__cause__) is KeyError


def test_retrieve_overridden() -> None:
    class Defaulting(Integer):
        def retrieve(self, d: MutableMapping[Any, Any], name: Any, proto: Any) -> Any:
            default = proto if isinstance(name, str) else b"%d" % proto
            return d.pop(name, default)

    class Carry(Command):
        arguments = [(b"the-x", Defaulting(optional=True))]

    assert Carry.makeArguments({}, 7) == {b"the-x": b"7"}
    assert Carry.makeArguments({"the_x": 8}, 7) == {b"the-x": b"8"}
    assert Carry.parseArguments({}, 7) == {"the_x": 7}
    assert Carry.parseArguments({b"the-x": b"8"}, 7) == {"the_x": 8}


def test_retrieve_takes_out() -> None:
    d = {"a": 1, "b": 2}
    assert Argument().retrieve(d, "a", None) == 1
    assert Argument(optional=True).retrieve(d, "b", None) == 2
    assert d == {}
    assert Argument(optional=True).retrieve(d, "a", None) is None
    with pytest.raises(KeyError, match="a"):
        Argument().retrieve(d, "a", None)


OPTIONAL = [
    (Integer(optional=True), 1, b"1"),
    (String(optional=True), b"", b""),
    (Float(True), 1.0, b"1.0"),
    (Boolean(optional=True), False, b"False"),
    (Unicode(optional=True), "", b""),
    (Decimal(optional=True), decimal.Decimal(0), b"0"),
    (ListOf(Integer(), optional=True), [], b""),
    (AmpList([(b"a", Integer())], optional=True), [], b""),
]


@pytest.mark.parametrize(("argument", "value", "string"), OPTIONAL)
def test_optional(argument: Argument, value: Any, string: bytes) -> None:
    assert there_and_back(argument, value) == ({b"the-x": string}, {"the_x": value})
    assert there_and_back(argument, None) == ({}, {"the_x": None})

    class Carry(Command):
        arguments = [(b"the-x", argument)]

    assert Carry.makeArguments({}, None) == {}


def test_none_is_a_value_where_it_is_not_optional() -> None:
    assert there_and_back(Boolean(), None) == ({b"the-x": b"False"}, {"the_x": False})
    with pytest.raises(TypeError, match="not None\n.*only an argument with optional=True"):
        there_and_back(Integer(), None)


@given(st.lists(st.binary(max_size=20), max_size=20), st.integers(0, 500))
@example([b"", b"x"], 3)
def test_truncated_lists(values: list[bytes], end: int) -> None:
    data = ListOf(String()).toString(values)
    end %= len(data) + 1
    try:
        head = ListOf(String()).fromString(data[:end])
    except ValueError:
        assert end not in {len(ListOf(String()).toString(values[:n])) for n in range(len(values) + 1)}
    else:
        assert head == values[: len(head)]


@pytest.mark.parametrize("tail", [b"x", b".x", b"E", b"_"])
def test_a_long_decimal_is_read_or_refused_in_one_pass(tail: bytes) -> None:
    """Digits that could be split between two repetitions would be tried in every way, for minutes."""
    with pytest.raises(ValueError, match="not a decimal number"):
        Decimal().fromString(b"1" * 65000 + tail)


def test_a_decimal_is_no_nan_by_a_lenient_context() -> None:
    with decimal.localcontext(decimal.ExtendedContext), pytest.raises(ValueError, match="beyond"):
        Decimal().fromString(b"1E+99999999999999999999")


def test_an_offset_that_no_peer_could_read_is_not_written() -> None:
    zone = dt.timezone(-dt.timedelta(hours=23, minutes=59, seconds=30))
    with pytest.raises(ValueError, match="-24:00"):
        DateTime().toString(dt.datetime(2020, 1, 1, tzinfo=zone))


@pytest.mark.parametrize("element", [Integer, None, b"Integer"])
def test_a_list_of_no_argument(element: Any) -> None:
    with pytest.raises(TypeError, match="a ListOf needs an Argument instance"):
        ListOf(element)
