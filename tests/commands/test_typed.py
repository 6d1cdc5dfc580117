"""Typed commands: what annotations make of a question, its answer and the records in them."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import pathlib
import re
import sys
import types
import uuid
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar

import attrs
import pytest
from attrs import field, frozen
from attrs.validators import ge
from hypothesis import given, settings
from hypothesis import strategies as st
from support import raw_pair, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    Argument,
    BigString,
    Boolean,
    Command,
    ConnectionLost,
    DateTime,
    Decimal,
    Descriptor,
    Float,
    Integer,
    InvalidSignature,
    ListOf,
    MalformedAmpBox,
    Path,
    String,
    Unicode,
    UnknownRemoteError,
    Wire,
)
from amp_asyncio.testing import ScriptedPeer, pair


@frozen
class Total:
    total: int


class Sum(Command[Total]):
    a: int
    b: int = field(default=0, validator=ge(0))
    errors = {OverflowError: b"OVERFLOW"}


class Plain(Command[Total]):
    """Its class checks nothing."""

    a: int
    b: int = 0


class OldSum(Command):
    commandName = b"Sum"
    arguments = [(b"a", Integer()), (b"b", Integer(optional=True))]
    response = [(b"total", Integer())]


@frozen
class Guest:
    name: str
    age: int | None = None


@dataclasses.dataclass
class Room:
    number: int
    beds: list[str] = dataclasses.field(default_factory=list)
    floor: int = 1


class Book(Command[int], answer="number"):
    room: Room
    guests: list[Guest]
    prices: dict[str, int] = field(factory=dict)
    arrival: Annotated[datetime.datetime | None, Wire("from")] = None
    photo: Annotated[bytes, BigString()] = b""


class Leave(Command[None]):
    number: int
    requiresAnswer = False


class Reset(Command[None]):
    pass


class Find(Command[Guest | None], answer="guest"):
    name: str


class Hotel(AMP):
    def __init__(self) -> None:
        super().__init__()
        self.got: list[Any] = []

    @Sum.responder
    async def sum(self, a: int, b: int = 0) -> Total:
        self.got.append((a, b))
        return Total(total=a + b)

    @Plain.responder
    def plain(self, a: int, b: int = 0) -> Total:
        self.got.append((a, b))
        return Total(total=a + b)

    @Book.responder
    async def book(self, **given: Any) -> int:
        self.got.append(given)
        return len(given["guests"])

    @Leave.responder
    def leave(self, number: int) -> None:
        self.got.append(number)

    @Reset.responder
    def reset(self) -> None:
        self.got.clear()

    @Find.responder
    def find(self, name: str) -> Guest | None:
        return Guest(name=name) if name else None


WHEN = datetime.datetime(2024, 2, 3, tzinfo=datetime.UTC)


async def test_a_conversation() -> None:
    async with pair(Hotel) as (hotel, client):
        assert await client.call(Sum(a=13, b=81)) == Total(total=94)
        assert await client.callRemote(Sum, a=13) == Total(total=13)
        assert await client.callRemote(Plain, a=1) == Total(total=1)
        assert await client.call(Plain(a=1, b=2)) == Total(total=3)
        guests = [Guest(name="Ada"), Guest(name="Grace", age=37)]
        question = Book(room=Room(1, ["a", "b"]), guests=guests, arrival=WHEN, photo=bytes(200_000))
        assert await client.call(question) == 2
        assert await client.callRemote(Book, room=Room(2), guests=[], prices={"a": 1, "": -2}) == 0
        assert hotel.got == [
            *[(13, 81), (13, 0), (1, 0), (1, 2)],
            {
                "room": Room(1, ["a", "b"]),
                "guests": guests,
                "prices": {},
                "arrival": WHEN,
                "photo": bytes(200_000),
            },
            {"room": Room(2), "guests": [], "prices": {"a": 1, "": -2}, "arrival": None, "photo": b""},
        ]
        assert await client.call(Leave(number=3)) is None
        assert await client.call(Find(name="x")) == Guest(name="x")
        assert await client.call(Find(name="")) is None
        assert hotel.got[-1] == 3
        assert await client.call(Reset()) is None
        assert hotel.got == []


class Mute(Command[Total]):
    b: int = 1
    a: int | None = None
    a_: Annotated[str | None, Wire("A")] = None
    commandName = b"mute"


async def test_every_value_but_none_is_sent() -> None:
    async with raw_pair(AMP) as (amp, peer):
        futures = [
            amp.call(Mute()),
            amp.callRemote(Mute),
            amp.callRemote(Mute, a=None, a_="x", b=2),
            amp.call(Mute(a=0, a_="")),
            amp.call(Sum(a=1)),
        ]
        await peer.until(lambda: len(peer.boxes()) == 5)
        assert peer.boxes() == [
            {b"_ask": b"1", b"_command": b"mute", b"b": b"1"},
            {b"_ask": b"2", b"_command": b"mute", b"b": b"1"},
            {b"_ask": b"3", b"_command": b"mute", b"b": b"2", b"A": b"x"},
            {b"_ask": b"4", b"_command": b"mute", b"b": b"1", b"a": b"0", b"A": b""},
            {b"_ask": b"5", b"_command": b"Sum", b"a": b"1", b"b": b"0"},
        ]
        for future in futures:
            future.cancel()


async def test_typed_and_pairs_understand_each_other() -> None:
    async with pair(Hotel) as (hotel, client):
        assert await client.callRemote(OldSum, a=1, b=2) == {"total": 3}
        assert await client.callRemote(OldSum, a=1) == {"total": 1}
        assert hotel.got == [(1, 2), (1, 0)]

    class Old(AMP):
        @OldSum.responder
        def sum(self, a: int, b: int | None) -> dict[str, int]:
            return {"total": a + (b or 0)}

    async with pair(Old) as (_, client):
        assert await client.call(Sum(a=1, b=2)) == Total(total=3)
        assert await client.call(OldSum(a=1, b=5)) == {"total": 6}  # type: ignore[call-arg]


def test_the_pairs_are_there_to_see() -> None:
    assert repr(Sum.arguments) == "[(b'a', Integer()), (b'b', Integer(optional=True))]"
    assert repr(Sum.response) == "[(b'total', Integer())]"
    assert Sum.parseArguments({b"a": b"1"}, None) == {"a": 1, "b": 0}
    assert Sum.parseResponse({b"total": b"1"}, None) == Total(total=1)
    assert Sum.makeArguments({"a": 1}, None) == {b"a": b"1", b"b": b"0"}
    assert Sum.makeArguments(Sum(a=1), None) == {b"a": b"1", b"b": b"0"}  # type: ignore[arg-type]
    assert Plain.makeArguments({"a": 1, "b": 2}, None) == {b"a": b"1", b"b": b"2"}
    assert Sum.makeResponse(Total(total=1), None) == {b"total": b"1"}
    with pytest.raises(TypeError, match="the command Sum: a dictionary of the arguments is needed"):
        Sum.makeArguments(3, None)  # type: ignore[arg-type]


def test_a_question_is_an_attrs_class() -> None:
    question = Sum(a=1, b=2)
    assert question == Sum(a=1, b=2) != Sum(a=1, b=3)
    assert {question: 1}[Sum(a=1, b=2)] == 1
    assert repr(question) == "Sum(a=1, b=2)"
    assert attrs.evolve(question, a=5) == Sum(a=5, b=2)
    assert question.structured == {"a": 1, "b": 2}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        question.a = 2  # type: ignore[misc]


async def test_a_question_when_the_connection_is_lost() -> None:
    async with pair(Hotel) as (_, client):
        pass
    with pytest.raises(ConnectionLost):
        await client.call(Sum(a=1))
    with pytest.raises(ConnectionLost):
        await client.call(Leave(number=1)) or await client.callRemote(Sum, a=1)


# --- what is wrong with a question or an answer ---


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda c: c.callRemote(Sum, b=1, d=2), InvalidSignature, "missing a; unknown d; it has a, b"),
        (
            lambda c: c.callRemote(Plain, b=1, d=2),
            InvalidSignature,
            "missing a; unknown d; it has a, b",
        ),
        (lambda c: c.callRemote(Sum, 1, 2), TypeError, r"write callRemote\(Sum, a=..., b=...\)"),
        (lambda c: c.callRemote(Sum, a="x"), TypeError, "an Integer is an int, not 'x'"),
        (lambda c: c.callRemote(Sum, a=1, b=-1), ValueError, "'b' must be >= 0: -1"),
        (lambda c: c.callRemote(Plain, a=1, b=None), TypeError, "an Integer is an int, not None"),
        (lambda c: c.callRemote(Book, room=None, guests=[]), TypeError, "room is None"),
        (lambda c: c.callRemote(Book, room=Room(1), guests="Ada"), TypeError, "a list of records"),
        (lambda c: c.callRemote(Book, room=Room(1), guests=[1]), TypeError, "Guest: Guest.* not 1"),
        (lambda c: c.callRemote(Book, room=Room(1), guests=[], prices=1), TypeError, "a dictionary is"),
        (lambda c: c.callRemote(Sum(a=1)), TypeError, r"write call\(...\) for a question"),
        (lambda c: c.call(Sum), TypeError, r"not its class: write call\(Sum\(a=..., b=...\)\)"),
        (lambda c: c.call("Sum"), TypeError, "call takes a question, such as .*, not 'Sum'"),
    ],
)
async def test_questions_that_cannot_be_asked(ask: Any, error: type[Exception], message: str) -> None:
    async with raw_pair(AMP) as (amp, peer):
        with pytest.raises(error, match=message):
            ask(amp)
        await turns()
        assert peer.data == b""


def test_a_note_says_what_may_be_none() -> None:
    with pytest.raises(TypeError) as caught:
        Plain.makeArguments({"a": 1, "b": None}, None)
    allowed = "only a field whose type is `... | None` may be None"
    assert caught.value.__notes__ == [f"the command Plain: b'b' could not be encoded; {allowed}"]
    with pytest.raises(TypeError) as caught:
        Book.makeArguments({"room": None, "guests": []}, None)
    assert "only a field whose type is" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ({}, "the command Sum: b'a' is missing"),
        ({b"a": b"x"}, "the command Sum: b'a' is b'x': not an integer in decimal digits"),
        ({b"a": b"1", b"b": b"-1"}, "the command Sum: b is -1: 'b' must be >= 0: -1"),
    ],
)
def test_values_that_are_refused_are_named(box: dict[bytes, bytes], problem: str) -> None:
    with pytest.raises(MalformedAmpBox) as caught:
        Sum.parseArguments(box, None)
    assert str(caught.value) == problem
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("method", "returned", "problem"),
    [
        ("sum", {"total": 1}, r"the answer to Sum: Total\(total=...\) is needed, not {'total': 1}"),
        ("sum", None, r"the answer to Sum: Total\(total=...\) is needed, not None"),
        ("sum", Total(total="x"), "b'total' could not be encoded"),  # type: ignore[arg-type]
        ("reset", {}, "the answer to Reset: None is needed, not {}"),
        ("find", Total(total=1), "Guest: Guest"),
    ],
)
async def test_a_responder_returns_the_answer(
    method: str, returned: Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(Hotel):
        pass

    setattr(Wrong, method, lambda self, **given: returned)
    async with pair(Wrong) as (_, client):
        question = {"sum": Sum(a=1), "reset": Reset(), "find": Find(name="x")}[method]
        with pytest.raises(UnknownRemoteError):
            await client.call(question)
    assert re.search(problem, caplog.text)


async def test_what_the_peer_answers_is_checked() -> None:
    @frozen
    class Even:
        number: int = field()

        @number.validator
        def _is_even(self, attribute: Any, value: int) -> None:
            if self.number % 2:
                raise ValueError("it is odd")

    class Ask(Command[Even]):
        pass

    async with pair(ScriptedPeer) as (peer, client):
        peer.expect(Ask).answer(Even(number=2))
        peer.expect(Ask).write(lambda tag: AmpBox(_answer=tag, number=b"3").serialize())
        assert await client.call(Ask()) == Even(number=2)
        with pytest.raises(MalformedAmpBox, match="the answer to Ask: number is 3: it is odd"):
            await client.call(Ask())
        peer.expect(Sum, a=1).answer(Total(total=2))
        peer.expect(Reset).answer()
        assert await client.call(Sum(a=1)) == Total(total=2)
        await client.call(Reset())


# --- timeouts ---


async def test_a_call_with_a_timeout() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        peer.expect(Sum).answer(Total(total=2))
        peer.expect(Sum).never()
        assert await client.call(Sum(a=1), timeout=100) == Total(total=2)
        with pytest.raises(TimeoutError, match="no answer came within the timeout"):
            await client.call(Sum(a=1), timeout=0.001)
        # Nothing is sent if the time is over already.
        with pytest.raises(TimeoutError, match="passed before the call was asked"):
            await client.call(Sum(a=1), timeout=0)


# --- types ---


class Color(enum.Enum):
    RED = "red"
    GREEN = "grün"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


RoomNumber = NewType("RoomNumber", int)
Code = NewType("Code", Annotated[int, "not an argument", Integer()])  # type: ignore[valid-newtype]
T = TypeVar("T")


@frozen
class Page(Generic[T]):
    items: list[T]
    next: int | None = None


@frozen
class GuestPage(Page[Guest]):
    total: int = 0


class Titled:
    """A mixin without fields."""


@frozen
class LaterPage(Page[T]):
    previous: int = 0


@frozen
class TitledPage(Titled, LaterPage[Guest]):
    pass


class Reversed(Argument):
    def toString(self, inObject: Any) -> bytes:
        return bytes(reversed(inObject.encode()))

    def fromString(self, inString: bytes) -> Any:
        return bytes(reversed(inString)).decode()


texts = st.text(max_size=20)
numbers = st.integers(-(2**70), 2**70)
guests = st.builds(Guest, name=texts, age=st.none() | numbers)
aware = st.datetimes(timezones=st.just(datetime.UTC))
# Each annotation: the pair of an old peer, and values.
TYPES: dict[str, tuple[Any, Any, st.SearchStrategy[Any]]] = {
    "int": (int, Integer(), numbers),
    "float": (float, Float(), st.floats(allow_nan=False)),
    "bool": (bool, Boolean(), st.booleans()),
    "str": (str, Unicode(), texts),
    "bytes": (bytes, String(), st.binary(max_size=20)),
    "datetime": (datetime.datetime, DateTime(), aware),
    "timedelta": (datetime.timedelta, Decimal(), st.timedeltas()),
    "decimal": (decimal.Decimal, Decimal(), st.decimals(allow_nan=False)),
    "path": (pathlib.Path, Path(), st.just(pathlib.Path("/tmp/x"))),
    "uuid": (uuid.UUID, Unicode(), st.uuids()),
    "ipv4": (ipaddress.IPv4Address, Unicode(), st.ip_addresses(v=4)),
    "ipv6": (ipaddress.IPv6Address, Unicode(), st.ip_addresses(v=6)),
    "ip": (ipaddress.IPv4Address | ipaddress.IPv6Address, Unicode(), st.ip_addresses()),
    "network": (
        ipaddress.IPv4Network,
        Unicode(),
        st.ip_addresses(v=4).map(lambda ip: ipaddress.IPv4Network(ip)),
    ),
    "enum": (Color, Unicode(), st.sampled_from(Color)),
    "int enum": (Level, Integer(), st.sampled_from(Level)),
    "flag": (Access, Integer(), st.sampled_from([*Access, Access.READ | Access.WRITE])),
    "literal": (Literal["a", "b"], Unicode(), st.sampled_from(["a", "b"])),
    "numbers": (Literal[1, 2], Integer(), st.sampled_from([1, 2])),
    "one color": (Literal[Color.RED], Unicode(), st.just(Color.RED)),
    "new type": (RoomNumber, Integer(), numbers),
    "annotated new type": (Code, Integer(), numbers),
    "list": (list[int], ListOf(Integer()), st.lists(numbers, max_size=4)),
    "lists": (list[list[str]], ListOf(ListOf(Unicode())), st.lists(st.lists(texts), max_size=4)),
    "dict": (
        dict[str, int],
        AmpList([(b"key", Unicode()), (b"value", Integer())]),
        st.dictionaries(texts, numbers, max_size=4),
    ),
    "dict of some": (
        dict[str, "Guest | None"],
        AmpList([(b"key", Unicode()), (b"value", String(optional=True))]),
        st.dictionaries(texts, st.none() | guests, max_size=3),
    ),
    "record": (Guest, AmpList([(b"name", Unicode()), (b"age", Integer(optional=True))]), guests),
    "dataclass": (Room, String(), st.builds(Room, number=numbers, beds=st.lists(texts, max_size=3))),
    "records": (list["Guest"], String(), st.lists(guests, max_size=4)),
    "lists of records": (list[list[Guest]], String(), st.lists(st.lists(guests), max_size=3)),
    "generic": (Page[Guest], String(), st.builds(Page, items=st.lists(guests, max_size=3))),
    "of a generic": (GuestPage, String(), st.builds(GuestPage, items=st.lists(guests, max_size=3))),
    "of a generic of a generic": (
        TitledPage,
        String(),
        st.builds(TitledPage, items=st.lists(guests, max_size=3)),
    ),
    "argument": (Annotated[str, Reversed(), "note"], String(), texts),
    "annotated list": (list[Annotated[str, Reversed()]], String(), st.lists(texts, max_size=3)),
}


def command_of(annotation: Any, **attributes: Any) -> Any:
    """Return a command whose only field and only value of the answer have this type."""
    body = {"__annotations__": {"it": annotation}, "__module__": __name__, **attributes}

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(body)

    return types.new_class("Carry", (Command[annotation],), {"answer": "it"}, fill)


COMMANDS = {name: command_of(annotation) for name, (annotation, _, _) in TYPES.items()}


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=12)
@given(data=st.data())
def test_values_round_trip(name: str, data: st.DataObject) -> None:
    command, (_, old, values) = COMMANDS[name], TYPES[name]
    value = data.draw(values)
    question = command(it=value)
    box = command.makeArguments(question.structured, None)
    assert command.parseArguments(box, None) == {"it": value}
    answer = command.makeResponse(value, None)
    assert answer == box
    again = command.parseResponse(answer, None)
    assert again == value
    assert type(again) is type(value)
    # What an old peer reads, it writes in the same way.
    assert old.toStringProto(old.fromStringProto(box[b"it"], None), None) == box[b"it"]


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=12)
@given(data=st.binary(max_size=30) | st.text(max_size=12).map(str.encode))
def test_any_bytes_are_a_value_or_an_error_that_names_the_field(name: str, data: bytes) -> None:
    command = COMMANDS[name]
    try:
        value = command.parseArguments({b"it": data}, None)["it"]
    except MalformedAmpBox as error:
        assert str(error).startswith("the command Carry: b'it' is b")
        return
    box = command.makeArguments({"it": value}, None)
    assert command.makeArguments(command.parseArguments(box, None), None) == box


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("uuid", "x", "uuid.UUID is needed, not 'x'"),
        ("ip", 1, "ipaddress.IPv4Address or ipaddress.IPv6Address is needed, not 1"),
        ("enum", "red", "a Color is needed, not 'red'"),
        ("literal", "c", "one of 'a', 'b' is needed, not 'c'"),
        ("numbers", True, "one of 1, 2 is needed, not True"),
        ("one color", Color.GREEN, "one of <Color.RED: 'red'> is needed"),
        ("timedelta", 1, "a datetime.timedelta is needed, not 1"),
        ("record", 1, r"Guest\(name=..., age=...\) is needed, not 1"),
    ],
)
def test_values_of_another_type(name: str, value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        COMMANDS[name].makeArguments({"it": value}, None)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("uuid", b"{12345678-1234-1234-1234-123456789abc}", "not a uuid.UUID"),
        ("ip", b"1.2.3", "not a ipaddress.IPv4Address or ipaddress.IPv6Address"),
        ("enum", b"blue", "'blue' is not a valid Color"),
        ("literal", b"c", "one of 'a', 'b' is needed, not 'c'"),
        ("timedelta", b"1e3", "not a number of seconds"),
        ("timedelta", b"99999999999999", "more days than a timedelta has"),
        ("record", b"", "one record is needed, not 0"),
        ("record", b"\0\4name\0\0\0\0" * 2, "one record is needed, not 2"),
        ("dict", b"\0\3key\0\0\0\5value\0\x011\0\0" * 2, "a key is there twice"),
        ("records", b"\0\0", "Guest: b'name' is missing"),
    ],
)
def test_bytes_of_another_type(name: str, data: bytes, message: str) -> None:
    with pytest.raises(MalformedAmpBox, match=f"the command Carry: b'it' is b.*: .*{message}"):
        COMMANDS[name].parseArguments({b"it": data}, None)


def test_other_ways_to_write_a_type() -> None:
    class Ways(Command[Annotated[int, Wire("n")]], answer="number"):
        a: Annotated[int | None, Integer(optional=True)] = None
        b: Annotated[int, Wire("B")] | None = None
        c: Literal["x"] | None = None
        d: "list[int] | None" = None  # noqa: UP037
        e: Annotated[list[int], Wire(b"E"), "note"] = field(factory=lambda: [1])

    assert Ways.makeArguments({}, None) == {b"E": b"\0\x011"}
    assert Ways.makeArguments({"a": 1, "b": 2, "c": "x", "d": [3], "e": []}, None) == {
        b"a": b"1",
        b"B": b"2",
        b"c": b"x",
        b"d": b"\0\x013",
        b"E": b"",
    }
    assert Ways.parseArguments({}, None) == {"a": None, "b": None, "c": None, "d": None, "e": [1]}
    assert Ways.parseResponse(Ways.makeResponse(3, None), None) == 3
    assert Ways.makeResponse(3, None) == {b"n": b"3"}
    assert repr(Wire("x")) == "Wire('x')"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is that of Python 3.12")
def test_the_syntax_of_3_12() -> None:
    names: dict[str, Any] = {"__name__": __name__}
    source = """
from attrs import frozen
from amp_asyncio import Command
type Number = int
@frozen
class Box[T]:
    items: list[T]
class Send(Command[Box[Number]]):
    box: Box[str]
    number: Number
"""
    exec(source, names)
    exec("from __future__ import annotations\n" + source, later := dict(names))
    for found in (names, later):
        box = found["Send"].makeArguments({"box": found["Box"](["x"]), "number": 1}, None)
        assert box == {b"box": b"\0\5items\0\3\0\1x\0\0", b"number": b"1"}
        assert found["Send"].parseArguments(box, None) == {"box": found["Box"](["x"]), "number": 1}


# --- classes ---


class Base(Command[Total]):
    a: int
    errors = {KeyError: b"KEY"}


class Derived(Base):
    b: int = 1


class Tagged(Generic[T]):
    """A base that has nothing to do with AMP."""


class Mixed(Tagged[int], Command[Total]):
    a: int


def test_a_generic_base_that_is_no_command() -> None:
    assert Mixed.makeResponse(Total(total=1), None) == {b"total": b"1"}


def test_commands_are_inherited() -> None:
    assert Derived.commandName == b"Derived"
    assert Derived(a=1) == Derived(a=1, b=1)
    assert Derived.makeArguments({"a": 2}, None) == {b"a": b"2", b"b": b"1"}
    assert Derived.makeResponse(Total(total=1), None) == {b"total": b"1"}
    assert Derived.errors == {KeyError: b"KEY"}


async def test_checks_of_a_class() -> None:
    class Range(Command[None]):
        low: int = field(converter=int)
        high: int = field(
            converter=attrs.Converter(lambda value, self: max(value, self.low), takes_self=True)
        )  # type: ignore[call-overload, misc]
        step: int = field()
        label: str = "x"

        @step.default
        def _step(self) -> int:
            return self.high - self.low

        def __attrs_post_init__(self) -> None:
            if self.low < 0:
                raise ValueError("below zero")

    class Here(AMP):
        @Range.responder
        def range(self, low: int, high: int, step: int = 0, label: str = "") -> None:
            got.append((low, high, step, label))

    got: list[Any] = []
    async with pair(Here) as (_, client):
        await client.callRemote(Range, low="3", high=1)
        assert got == [(3, 3, 0, "x")]
        with pytest.raises(ValueError, match="below zero"):
            client.callRemote(Range, low=-1, high=1)
    assert Range.parseArguments({b"low": b"1", b"high": b"9"}, None)["step"] == 8
    with pytest.raises(MalformedAmpBox, match="the command Range: ValueError: below zero"):
        Range.parseArguments({b"low": b"-1", b"high": b"9"}, None)


async def test_overrides_of_a_typed_command() -> None:
    class Shifted(Sum):
        commandName = b"Sum"

        @classmethod
        def makeArguments(cls, objects: Any, proto: Any) -> Any:
            return super().makeArguments({**objects, "a": objects["a"] + 100}, proto)

        @classmethod
        def makeResponse(cls, objects: Any, proto: Any) -> Any:
            return super().makeResponse(Total(total=objects.total + 1000), proto)

    class Here(AMP):
        @Shifted.responder
        def sum(self, a: int, b: int = 0) -> Total:
            return Total(total=a + b)

    async with pair(Here) as (_, client):
        assert await client.call(Shifted(a=1)) == Total(total=1101)


async def test_an_attribute_more_needs_a_box() -> None:
    class Noted(Plain):
        commandName = b"Plain"

        def __attrs_post_init__(self) -> None:
            self.__dict__["note"] = "not a field"

    async with pair(Hotel) as (_, client):
        assert await client.call(Noted(a=1)) == Total(total=1)


def test_records_with_names_of_their_own() -> None:
    @attrs.frozen
    class Private:
        _id: int
        name: str = field(alias="called", default="x")

    with pytest.warns(UserWarning, match="begin with an underscore are AMP's own; b'_id' may get"):

        class Send(Command[Private]):
            pass

    box = Send.makeResponse(Private(id=1), None)
    assert box == {b"_id": b"1", b"name": b"x"}
    assert Send.parseResponse({b"_id": b"1"}, None) == Private(id=1)


async def test_descriptors_in_typed_commands() -> None:
    class Lend(Command[None]):
        file: Annotated[int, Descriptor()]

    async with pair(AMP) as (_, client):
        with pytest.raises(TypeError, match="cannot carry descriptors"):
            client.call(Lend(file=1))


async def test_a_responder_may_be_called_call() -> None:
    class Ported(AMP):
        @Sum.responder
        def call(self, a: int, b: int = 0) -> Total:  # type: ignore[override]
            return Total(total=a * b)

    async with pair(Ported) as (_, client):
        assert await client.call(Sum(a=3, b=4)) == Total(total=12)
