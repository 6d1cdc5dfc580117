"""Outcomes: what good and bad inputs lead to, one to a line: bytes, values, errors with their texts.

The package does the same compiled and interpreted, so both print the same:

    python tests/outcomes.py > interpreted.txt
    /path/to/an/environment/with/the/compiled/package/bin/python -P tests/outcomes.py > compiled.txt
    diff interpreted.txt compiled.txt

Every input has the type that annotations ask for: mypyc has errors of its own for others.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import re
import time
from collections import ChainMap, UserDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal as Number
from types import MappingProxyType
from typing import Any, cast

# How long a box takes does not matter here: else it decides when what comes next is looked at.
time.perf_counter = lambda: 0.0

from amp_asyncio import (  # noqa: E402
    AMP,
    AmpBox,
    AmpList,
    Argument,
    BigString,
    BigUnicode,
    Boolean,
    BoxParser,
    Command,
    DateTime,
    Decimal,
    Descriptor,
    Float,
    Integer,
    Limits,
    ListOf,
    Path,
    ProtocolSwitchCommand,
    StartTLS,
    String,
    Unicode,
    parseString,
)

logging.disable()


class Odd:
    """A value of no type that an argument knows."""

    def __repr__(self) -> str:
        return "Odd()"


class Index:
    """What is an int by its `__index__` alone."""

    def __index__(self) -> int:
        return 77


class Count(int):
    pass


class Text(str):
    pass


class Data(bytes):
    pass


class Doubled(Integer):
    """Overrides the lowest hooks, by way of `super()`."""

    def toString(self, inObject: Any) -> bytes:
        return super().toString(inObject * 2)

    def fromString(self, inString: bytes) -> int:
        return super().fromString(inString) // 2


class Both(Argument):
    """Overrides the highest hooks: uses two keys."""

    def toBox(self, name: bytes, strings: Any, objects: dict[str, Any], proto: Any) -> None:
        first, second = objects.pop(name.decode())
        strings[name], strings[name + b"2"] = first, second

    def fromBox(self, name: bytes, strings: Any, objects: dict[str, Any], proto: Any) -> None:
        objects[name.decode()] = strings.pop(name), strings.pop(name + b"2")


ROWS: list[tuple[bytes | str, Argument]] = [(b"n", Integer()), ("t", Unicode(optional=True))]
ARGUMENTS: list[Argument] = [
    Integer(),
    Integer(optional=True),
    String(),
    Float(),
    Boolean(),
    Unicode(),
    Path(),
    Decimal(),
    DateTime(),
    Descriptor(),
    ListOf(Integer()),
    ListOf(ListOf(Unicode())),
    AmpList(ROWS),
    AmpList([(b"rows", AmpList(ROWS))], optional=True),
    BigString(),
    BigUnicode(),
    Doubled(),
    Both(),
    Argument(),
]
VALUES: list[Any] = [
    None, True, 0, -1, 2**70, 10**4300, Count(5), Index(), 1.5, float("inf"), float("nan"), -0.0, "",
    "text", "\N{SNOWMAN}", "\ud800", "/a/../b", Text("sub"), b"", b"bytes", b"\xff", b"x" * 65536,
    Data(b"sub"), bytearray(b"ba"), memoryview(b"mv"), Number("1.50"), Number("sNaN"),
    Number("-1E+9999"), datetime(2020, 2, 29, 1, 2, 3, 4, UTC), datetime(2020, 2, 29),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-23, minutes=-59, seconds=-1))), [], [1, -2],
    ["a"], [["a"], []], [None], (1, 2), {"n": 1}, [{"n": 1, "t": "x"}], [{"n": 1}], [{"t": "x"}],
    [{"n": 1, "z": 0}], [{"rows": [{"n": 3}]}], [[1]], {1: 2}, Odd(), int, iter([1, 2]), (b"a", b"b"),
    [b"x" * 65536], list(range(300)), [UserDict(n=4)],
]  # fmt: skip
STRINGS = [
    b"", b"0", b"-0", b"007", b"-42", b"+1", b" 1", b"1_0", b"--1", b"-", b"1" * 4301, b"1.5", b"1e5",
    b"inf", b"-inf", b"nan", b" nan", b"1__0", b"True", b"False", b"true", b"text", b"\xe2\x98\x83",
    b"\xff", b"\xed\xa0", b"1.50", b"1E+2", b"-Infinity", b"sNaN", b"NaN12",
    b"1E+99999999999999999999", b".", b"1.", b"2012-01-23T12:34:56.054321-01:23",
    b"2012-01-23T12:34:56.054321+24:00", b"2012-13-23T12:34:56.054321+01:00",
    b"2012-01-23T12:34:56.054321+01:60", b"0000-01-23T12:34:56.054321+01:00", b"\0\1a", b"\0\1a\0\0",
    b"\0", b"\0\5a", b"\0\1n\0\1" b"5\0\0", b"\0\1n\0\1" b"x\0\0", b"\0\1t\0\1x\0\0", b"\0\0",
    b"\0\0\0\0", b"\1\0", b"\0\1n\0\1" b"5", b"\0\4rows\0\7\0\1n\0\1" b"5\0\0\0\0",
    b"\0\4rows\0\4\0\1n\0\0\0",
]  # fmt: skip


def plain(value: Any) -> str:
    """Return the representation of a value, without what differs from run to run."""
    if isinstance(value, bytes) and len(value) > 200:
        return f"{value[:80]!r}... of {len(value)}"
    try:
        text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    except ValueError as error:  # It has an int with more digits than Python writes.
        text = str(error)
    return text if len(text) < 4000 else f"{text[:500]}... of {len(text)}"


def error_text(error: BaseException | None) -> str:
    """Return all that is known of an error: its text, its notes, and what has caused it."""
    if error is None:
        return "None"
    notes = "".join(f" [{note}]" for note in getattr(error, "__notes__", ()))
    text = f"{type(error).__name__}({plain(str(error))}){notes}"
    if error.__cause__ is not None:
        return f"{text} from {error_text(error.__cause__)}"
    return f"{text} from None" if error.__suppress_context__ else text


def outcome(call: Callable[..., Any], *args: Any, **kw: Any) -> str:
    try:
        return plain(call(*args, **kw))
    except Exception as error:
        return error_text(error)


# --- values, boxes and definitions ---


def of_arguments() -> Iterator[str]:
    for argument in ARGUMENTS:
        yield repr(argument)
        for value in VALUES:
            box: dict[bytes, bytes] = {}
            objects = {"v": value}
            if not hasattr(value, "__next__"):
                yield f"toString {plain(value)}: {outcome(argument.toString, value)}"
                yield f"toStringProto: {outcome(argument.toStringProto, value, None)}"
            done = outcome(argument.toBox, b"v", box, objects, None)
            yield f"toBox: {done} {plain(box)} {plain(objects)}"
        for string in STRINGS:
            strings: dict[bytes, bytes] = {b"v": string}
            found: dict[str, Any] = {}
            yield f"fromString {plain(string)}: {outcome(argument.fromString, string)}"
            yield f"fromBox: {outcome(argument.fromBox, b'v', strings, found, None)} {plain(found)}"
            if argument.is_list:
                elements: Any = argument
                yield f"cost: {outcome(elements.elements_cost, string * 30, 99999)}"
        yield outcome(argument.fromBox, b"other", {}, {}, None)


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer(optional=True))]
    response = [(b"total", Integer())]
    errors = {ZeroDivisionError: b"ZERO"}
    fatalErrors = {OverflowError: b"OVERFLOW"}


class Everything(Command):
    commandName = b"all-of-it"
    arguments = [
        (b"class", Integer()),
        (b"a-b", Boolean(optional=True)),
        (b"big", BigString(optional=True)),
        (b"both", Both()),
        (b"rows", AmpList(ROWS, optional=True)),
    ]
    response = arguments


class Notify(Command):
    arguments = [(b"data", String())]
    requiresAnswer = False


class Row(Command[int], answer="answer"):
    number: int
    text: str | None = None
    rows: list[int] | None = None


class Switch(ProtocolSwitchCommand):
    arguments = [(b"agree", Boolean())]


COMMANDS: list[type[Command[Any]]] = [Sum, Everything, Notify, Row, Switch, StartTLS]
GIVEN: list[Any] = [
    {}, {"a": 1}, {"a": 1, "b": 2}, {"a": "x"}, {"a": None, "b": None}, {"a": 1, "c": 2}, {"b": 1},
    {"total": 3}, {"total": None}, {"data": b"d"}, {"data": bytearray(b"d")}, {"data": "d"},
    {"number": 4}, {"number": "4"}, {"number": 4, "text": "t", "rows": [1, 2]},
    {"number": 4, "rows": ["x"]}, {"agree": True}, {"Class": 1, "both": (b"1", b"2")},
    {"Class": 1, "both": (b"1", b"2"), "a_b": 3, "big": b"x" * 70000}, {"Class": 1, "both": None},
    MappingProxyType({"a": 1}), ChainMap({"a": 1}, {"b": 2}), UserDict(a=1), UserDict(b=1),
    UserDict(a=1, z=2), None, [], [("a", 1)], 5, Odd(), {1: 2}, {"a": 10**4300}, {"total": 10**4300},
]  # fmt: skip
BOXES = [
    {}, {b"a": b"1"}, {b"a": b"1", b"b": b"2"}, {b"a": b"x"}, {b"b": b"1"}, {b"total": b"3"},
    {b"total": b""}, {b"data": b"\0"}, {b"number": b"4"}, {b"number": b"4", b"text": b"\xff"},
    {b"number": b"4", b"rows": b"\0\1" b"5"}, {b"number": b"4", b"rows": b"\0\2" b"5"},
    {b"agree": b"True"}, {b"answer": b"9"}, {b"answer": b""},
    {b"class": b"1", b"both": b"a", b"both2": b"b", b"big": b"1", b"big.2": b"2"},
    {b"class": b"1", b"both": b"a"},
    {b"class": b"1", b"both": b"a", b"both2": b"b", b"rows": b"\0\1n\0\1" b"1\0\0"},
]  # fmt: skip


def of_commands() -> Iterator[str]:
    for command in COMMANDS:
        yield command.__name__
        for given in GIVEN:
            yield f"{plain(given)}: {outcome(command.makeArguments, given, None)}"
            yield f"makeResponse: {outcome(command.makeResponse, given, None)}"
            if isinstance(given, dict) and all(isinstance(name, str) for name in given):
                yield f"made: {outcome(command, **given)}"
        for strings in BOXES:
            box = AmpBox(strings)
            yield f"{plain(strings)}: {outcome(command.parseArguments, box, None)}"
            yield f"parseResponse: {outcome(command.parseResponse, MappingProxyType(box), None)}"


DEFINITIONS: list[Any] = [
    None, 5, b"ab", "ab", {}, {b"a": Integer()}, [None], [b"a"], [(b"a",)], [(b"a", Integer)],
    [(b"a", 5)], [(b"", Integer())], [(b"x" * 256, Integer())], [(1, Integer())],
    [("\xe4", Integer())], [(b"_ask", Integer())], [(b"_offer", Integer())],
    [(b"a", Integer()), ("a", String())], [(b"a-b", Integer()), (b"a_b", Integer())],
    [(b"a", BigString()), (b"a.2", Integer())], [[b"a", Integer()]], ((b"a", Integer()),),
    [(b"class", Integer())], iter([(b"a", Integer())]), [(b"a", Integer(), 1)],
]  # fmt: skip


def of_definitions() -> Iterator[str]:
    for number, pairs in enumerate(DEFINITIONS):
        yield f"{number} AmpList: {outcome(AmpList, pairs)}"
    for number, pairs in enumerate(DEFINITIONS):
        if number != len(DEFINITIONS) - 2:  # (An iterator that was used up.)
            for name in ("arguments", "response", "errors"):
                yield f"{number} {name}: {outcome(type, 'Defined', (Command,), {name: pairs})}"


# --- the wire ---


def of_parser(inputs: int, seed: int) -> Iterator[str]:
    chosen = random.Random(seed)
    good = AmpBox({b"k" * 255: b"v" * 65535, b"a": b"1", b"\0": b""}).serialize() + b"\0\0"
    good += AmpBox({b"a": b"x" * 65535, b"b": b"x" * 131070}).serialize(version=2) + b"\0\1a\0\0\0\0"
    for number in range(inputs):
        data = bytearray(good if number % 4 else good[-400:])
        for _ in range(chosen.randrange(4)):
            where = chosen.randrange(len(data))
            data[where : where + chosen.randrange(3)] = chosen.randbytes(chosen.randrange(3))
        parser = BoxParser(chosen.choice([None, 1000, 70000]), chosen.choice([1, 2]))
        cuts = sorted(chosen.randrange(len(data)) for _ in range(chosen.randrange(5)))
        text = []
        try:
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                parser.feed(bytes(data[start:end]))
                while chosen.random() < 0.95 and (box := parser.next_box()) is not None:
                    text.append(plain({key[:9]: len(value) for key, value in box.items()}))
        except Exception as error:
            text.append(error_text(error))
        yield f"{' '.join(text)} {parser.in_box} {plain(parser.take_rest())}"
        yield outcome(parseString, bytes(data[-300:]))


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = ""

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Answering(AMP):
    """Answers, and asks something itself."""

    limits = Limits(max_box_size=8192, window=4000, max_concurrent_responders=3, max_backlog=4000)

    @Sum.responder
    def sum(self, a: int, b: int | None) -> dict[str, Any]:
        if b == 0:
            raise ZeroDivisionError("b is 0")
        if b == 9:
            raise OverflowError
        return {"total": "none" if b is None else a + b}

    @Everything.responder
    async def everything(self, **values: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return values

    @Notify.responder
    def notify(self, data: bytes) -> None:
        if data == b"raise":
            raise Exception(data)

    @Row.responder
    def row(self, number: int, text: str | None, rows: list[int] | None) -> Any:
        return text or number


def stream_of(chosen: random.Random) -> bytes:
    """Return what a peer might send: questions, answers and errors, with what is wrong with some."""
    commands = [b"Sum", b"all-of-it", b"Notify", b"Row", b"StartTLS", b"_ping", b"_cancel", b"Unknown"]
    boxes = []
    for number in range(chosen.randrange(1, 8)):
        box = AmpBox(chosen.choice(BOXES))
        kind = chosen.randrange(8)
        if kind < 5:
            box[b"_command"] = chosen.choice(commands)
            if chosen.random() < 0.9:
                box[b"_ask"] = b"%x" % number
            if chosen.random() < 0.2:
                box[b"_offer"] = b"amp-asyncio 1"
            if chosen.random() < 0.2:
                box[b"_timeout"] = chosen.choice([b"60000", b"x", b"-1"])
        elif kind < 7:
            box[b"_answer"] = chosen.choice([b"1", b"2", b"3", b"99", b"x"])
        else:
            box[b"_error"] = chosen.choice([b"1", b"2", b"3", b"99"])
            box[b"_error_code"] = chosen.choice([b"ZERO", b"UNKNOWN", b"UNHANDLED", b"OTHER"])
            box[b"_error_description"] = chosen.choice([b"text", b"\xff"])
        boxes.append(box.serialize())
    data = bytearray(b"".join(boxes))
    if chosen.random() < 0.3:
        data[chosen.randrange(len(data))] = chosen.randrange(256)
    return bytes(data)


def ask(amp: AMP, chosen: random.Random) -> Iterator[Any]:
    """Yield what became of some questions: futures, or errors."""
    for _ in range(chosen.randrange(4)):
        given = chosen.choice(GIVEN)
        if type(given) is dict and all(isinstance(name, str) for name in given):
            try:
                yield amp.callRemote(cast(Any, chosen.choice(COMMANDS[:4])), **given)
            except Exception as error:
                yield error


async def conversation(seed: int) -> str:
    chosen = random.Random(seed)
    transport, amp = Transport(), Answering()
    amp.connection_made(transport)
    asked = list(ask(amp, chosen))
    data = stream_of(chosen)
    cut = chosen.randrange(len(data))
    for piece in (data[:cut], data[cut:]):
        if not transport.ended:
            amp.data_received(piece)
        for _ in range(20):
            await asyncio.sleep(0)
    amp.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    ends = []
    for each in asked:
        if not isinstance(each, BaseException) and not each.done():
            each.cancel()
            ends.append("open")
        elif isinstance(each, BaseException) or each.exception() is not None:
            ends.append(error_text(each if isinstance(each, BaseException) else each.exception()))
        else:
            ends.append(plain(each.result()))
    written = re.sub(rb"reference [0-9a-f]+|[0-9a-f]{8,}", b"REFERENCE", transport.written)
    return f"{seed}: {transport.ended} {written!r} {ends}"


async def of_conversations(inputs: int, seed: int) -> list[str]:
    return [await conversation(seed + number) for number in range(inputs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1000, help="how many streams and conversations")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.chdir("/")  # Paths become absolute.
    for part in (of_arguments(), of_commands(), of_definitions()):
        print(*part, sep="\n")
    print(*of_parser(options.inputs, options.seed), sep="\n")
    print(*asyncio.run(of_conversations(options.inputs, options.seed)), sep="\n")


if __name__ == "__main__":
    main()
