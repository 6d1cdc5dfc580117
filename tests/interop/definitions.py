"""The commands that the tests ask, the values that they ask them with, and the peer that answers.

Either side of a connection executes this with its own library, so both know what is to arrive.
"""

from __future__ import annotations

import datetime
import decimal
import os
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from tempfile import TemporaryFile
from types import ModuleType
from typing import Any, NoReturn

from proc import open_descriptors

from . import streams
from .library import BigString, BigString0, Path, amp, attempt, ported, start, tls_arguments, turn


def described(value: Any) -> Any:
    """Return a value as JSON could carry it: the same for the same value in either library.

    What is equal but not the same, as 0.0 and -0.0 are, is told apart; what is the same but not
    equal, as a NaN is to itself, is not. An optional value that is None is as one that is missing.
    """
    if isinstance(value, dict):
        return {name: described(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [described(item) for item in value]
    if isinstance(value, datetime.datetime):
        return value.isoformat()  # The classes of the time zones differ.
    if isinstance(value, Path):
        return f"Path {getattr(value, 'path', value)}"
    return repr(value)


_item = [(b"number", amp.Integer()), (b"text", amp.Unicode(optional=True))]
_tree = [(b"name", amp.Unicode()), (b"rows", amp.AmpList([(b"cells", amp.ListOf(amp.Float()))]))]

#: The argument types, and for each the values at its edges.
KINDS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "Integer": (amp.Integer, [0, -1, 1 << 64, 10**199, 1 - 10**200]),
    "String": (amp.String, [b"", bytes(range(256)), b"\xff" * 0xFFFF]),
    "Float": (
        amp.Float,
        [0.0, -0.0, 0.1, -1e16, 5e-324, 1.7976931348623157e308, *map(float, ("inf", "-inf", "nan"))],
    ),
    "Boolean": (amp.Boolean, [True, False]),
    "Unicode": (amp.Unicode, ["", "\0", "Grüße, 世界 🐍", "e\u0301"]),
    "Path": (amp.Path, [Path("/"), Path("/tmp/Grüße/世 界.txt")]),
    "Decimal": (
        amp.Decimal,
        [decimal.Decimal(text) for text in "0 -0 1.50 -1E+2 1E-400 9E+999 NaN -NaN sNaN".split()]
        + [decimal.Decimal("Infinity"), decimal.Decimal("-Infinity"), decimal.Decimal("sNaN42")],
    ),
    "DateTime": (
        amp.DateTime,
        [
            datetime.datetime.fromisoformat(text)
            for text in (
                "2012-01-23T12:34:56.054321-01:23",
                "2012-01-23T12:34:56+05:45",
                "1999-12-31T23:59:59.999999-00:01",
                "0001-01-01T00:00:00+00:00",
                "9999-12-31T00:00:00+23:59",
            )
        ],
    ),
    "ListOf Integer": (partial(amp.ListOf, amp.Integer()), [[], [0], [1, -2, 10**199]]),
    "ListOf Unicode": (partial(amp.ListOf, amp.Unicode()), [[""], ["", "ü", ""]]),
    "ListOf Path": (partial(amp.ListOf, amp.Path()), [[Path("/ü"), Path("/")]]),
    "ListOf ListOf": (partial(amp.ListOf, amp.ListOf(amp.Boolean())), [[[]], [[True], [], [False]]]),
    "AmpList": (
        partial(amp.AmpList, _item),
        [[], [{"number": 1}, {"number": -1, "text": "ü"}, {"number": 2, "text": ""}]],
    ),
    "AmpList of empty boxes": (
        partial(amp.AmpList, [(b"number", amp.Integer(optional=True))]),
        [[{}], [{}, {"number": 1}, {}, {}]],
    ),
    "AmpList of AmpList": (
        partial(amp.AmpList, _tree),
        [[{"name": "", "rows": []}, {"name": "ü", "rows": [{"cells": []}, {"cells": [1.5, -0.0]}]}]],
    ),
}


def file_with(data: bytes) -> Any:
    """Return an open file with `data` in it."""
    file = TemporaryFile(buffering=0)  # noqa: SIM115
    file.write(data)
    return file


def content(descriptor: int) -> bytes:
    """Return what a file has in it, and close it. Its position is everybody's who has a descriptor."""
    try:
        return os.pread(descriptor, 1000, 0)
    finally:
        os.close(descriptor)


class Differs(Exception):
    """A value arrived, and it is not the one that was sent."""


def _echo(kind: str) -> Any:
    value = [(b"value", KINDS[kind][0]())]
    return type(
        f"Echo {kind}",
        (amp.Command,),
        {
            "arguments": [(b"kind", amp.Unicode()), (b"case", amp.Integer()), *value],
            "response": value,
            "errors": {Differs: b"DIFFERS"},
        },
    )


ECHO = {kind: _echo(kind) for kind in KINDS}


class Everything(amp.Command):
    """All types in one, and none of them has to be there."""

    arguments = response = [(kind.encode(), make(optional=True)) for kind, (make, _) in KINDS.items()]


KEY = "k" * 255


class Names(amp.Command):
    """Names that are no Python identifiers, and one that is as long as can be."""

    commandName = b"What's in a name?"
    arguments = response = [
        (b"class", amp.Integer()),
        (b"is-it", amp.Integer()),
        (b"print", amp.Integer()),
        (KEY.encode(), amp.Integer()),
    ]


class NoRoom(Exception):
    """Ours has fields, in `typed.py`."""


_guest = [(b"name", amp.Unicode()), (b"age", amp.Integer(optional=True))]


class Stay(amp.Command):
    """The pairs of the typed command in `typed.py`."""

    arguments = response = [
        (b"number", amp.Integer()),
        (b"from", amp.DateTime()),
        (b"until", amp.DateTime(optional=True)),
        (b"key", amp.Unicode()),
        (b"kind", amp.Unicode()),
        (b"pause", amp.Decimal()),
        (b"address", amp.Unicode()),
        (b"price", amp.Float()),
        (b"paid", amp.Boolean()),
        (b"lead", amp.AmpList(_guest)),
        (b"guests", amp.AmpList(_guest)),
        (b"extras", amp.AmpList([(b"key", amp.Unicode()), (b"value", amp.Integer())])),
        (b"floors", amp.ListOf(amp.ListOf(amp.Integer()))),
        (b"low", amp.Integer(optional=True)),
        (b"note", amp.Unicode(optional=True)),
        (b"photo", BigString()),
    ]
    errors = {NoRoom: b"NO_ROOM"}


def stay(number: int, size: int) -> dict[str, Any]:
    """Return the arguments of a stay, with a photo of this size; those of an even number have all."""
    arguments: dict[str, Any] = {
        "number": number,
        "From": datetime.datetime.fromisoformat("2024-02-03T04:05:06.789000+05:45"),
        "key": "12345678-1234-5678-1234-567812345678",
        "kind": "süß",
        "pause": decimal.Decimal("-90.5"),
        "address": "::1",
        "price": 0.1,
        "paid": True,
        "lead": [{"name": "Ada", "age": 36}],
        "guests": [{"name": "Ada", "age": 36}, {"name": ""}],
        "extras": [{"key": "bed", "value": 1}, {"key": "", "value": -2}],
        "floors": [[1, 2], [], [3]],
        "photo": bytes(size),
    }
    if number % 2 == 0:
        arguments.update(until=arguments["From"], low=5, note="")
    return arguments


class Sum(amp.Command):
    """Answered by an `async def`, as `Countdown` and `FailMore` are."""

    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"total", amp.Integer())]


class Repeat(amp.Command):
    arguments = response = [(b"data", amp.String())]


class RepeatBig(amp.Command):
    arguments = response = [(b"data", BigString())]


class Measure(amp.Command):
    """Is answered with the SHA-256 of the data."""

    arguments = [(b"data", BigString0())]
    response = [(b"digest", amp.Unicode())]


class Countdown(amp.Command):
    """Answered after `n` questions back to who asked, one after the other."""

    arguments = [(b"n", amp.Integer())]


class Tick(amp.Command):
    pass


class Note(amp.Command):
    arguments = [(b"text", amp.Unicode())]
    requiresAnswer = False


class Notes(amp.Command):
    """All that was noted."""

    response = [(b"texts", amp.ListOf(amp.Unicode()))]


class Declared(Exception):
    pass


class MoreThanDeclared(Declared):
    pass


class Fatal(Exception):
    pass


class Extra(Exception):
    pass


class Fail(amp.Command):
    """Raises the exception with that name."""

    arguments = [(b"error", amp.Unicode()), (b"text", amp.Unicode())]
    errors = {Declared: b"DECLARED"}
    fatalErrors = {Fatal: b"FATAL"}


class FailMore(Fail):
    errors = {Extra: b"EXTRA"}


class Misanswer(amp.Command):
    """Its responder returns what does not answer it."""

    response = [(b"number", amp.Integer())]


class Unhandled(amp.Command):
    """Nobody answers this."""


class Secure(amp.StartTLS):
    """`StartTLS` itself, with an error for those who do not want it."""

    commandName = b"StartTLS"
    errors = {Declared: b"DECLARED"}


class Look(amp.Command):
    """Is answered with what the file has in it, which is closed."""

    arguments = [(b"file", amp.Descriptor())]
    response = [(b"content", amp.String())]


# (Twisted's `ListOf` does not work with descriptors.)
_files = amp.AmpList([(b"name", amp.Unicode()), (b"file", amp.Descriptor())])


class LookAtAll(amp.Command):
    arguments = [(b"first", amp.Descriptor()), (b"files", _files), (b"last", amp.Descriptor())]
    response = [(b"contents", amp.ListOf(amp.String()))]


class Lend(amp.Command):
    """Is answered with as many files as there are contents, each with its own."""

    arguments = [(b"contents", amp.ListOf(amp.String()))]
    response = [(b"files", _files)]


class Return(amp.Command):
    """The files have arrived. Twisted sends what is open when it comes to writing it."""


class CountDescriptors(amp.Command):
    response = [(b"count", amp.Integer())]


class SwitchToBytes(amp.ProtocolSwitchCommand):
    """Switches to a kind of `streams`, if it is allowed."""

    arguments = [(b"kind", amp.Unicode()), (b"allowed", amp.Boolean())]
    errors = {Declared: b"DECLARED"}


#: Modules that were written for Twisted, with nothing in mind but Twisted.
PORTED = {
    name: ported(name)
    for name in (
        "ampoule.commands",
        "twisted.trial._dist.managercommands",
        "twisted.trial._dist.workercommands",
        "twisted.trial._dist.stream",
    )
}

_SAMPLES: dict[type, Any] = {amp.Boolean: True, amp.Integer: -7, amp.String: b"\xff", amp.Unicode: "ü"}


def ported_commands(module: ModuleType) -> list[Any]:
    """Return the commands that a module defines, those last that close the connection."""
    commands: list[Any] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, amp.Command) and value is not amp.Command
    ]
    return sorted(commands, key=lambda command: command.responseType is amp.QuitBox)


def samples(schema: Iterable[tuple[bytes, Any]]) -> dict[str, Any]:
    """Return a value for each name in the schema of a ported command."""
    return {name.decode(): _SAMPLES[type(argument)] for name, argument in schema}


def _ported_responder(command: Any) -> Any:
    def respond(self: Any, **arguments: Any) -> dict[str, Any]:
        assert described(arguments) == described(samples(command.arguments))
        return samples(command.response)

    return command.responder(respond)


# A class of its own, since the methods are made in a loop.
Ported: Any = type(
    "Ported",
    (amp.AMP,),
    {
        f"respond_to_{command.__name__}": _ported_responder(command)
        for module in PORTED.values()
        for command in ported_commands(module)
    },
)


class Peer(Ported):
    """Answers all of the commands."""

    ticks = 0
    notes: tuple[str, ...] = ()
    #: What it answers `Secure` with, for `tls_arguments`, or None if it refuses.
    terms: dict[str, Any] | None = None
    #: How many questions it asks while it answers one that changes the connection.
    curiosity = 0
    #: What waits for the answers, and what still asks.
    questions: tuple[Any, ...] = ()
    asking: Any = None
    #: The files that it has answered `Lend` with.
    lent: tuple[Any, ...] = ()

    def ask(self, count: int) -> None:
        """Ask so many questions at once."""
        self.questions += tuple(attempt(self.callRemote, Sum, a=n, b=n) for n in range(count))

    async def ask_later(self, count: int) -> None:
        """Ask them in the turns of the event loop that come next, one in each."""
        for _ in range(count):
            await turn()
            self.ask(1)

    @Stay.responder
    def stay(self, **arguments: Any) -> dict[str, Any]:
        if arguments["number"] < 0:
            raise NoRoom(f"no room {arguments['number']}")
        return arguments

    def echo(self, kind: str, case: int, value: Any) -> dict[str, Any]:
        expected = KINDS[kind][1][case]
        if described(value) != described(expected):
            raise Differs(f"{value!r} instead of {expected!r}")
        return {"value": value}

    for command in ECHO.values():
        command.responder(echo)

    @Names.responder
    @Everything.responder
    @Repeat.responder
    @RepeatBig.responder
    def repeat(self, **arguments: Any) -> dict[str, Any]:
        return arguments

    @Measure.responder
    def measure(self, data: bytes) -> dict[str, str]:
        return {"digest": sha256(data).hexdigest()}

    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Countdown.responder
    async def countdown(self, n: int) -> dict[str, Any]:
        for _ in range(n):
            await self.callRemote(Tick)
        return {}

    @Tick.responder
    def tick(self) -> dict[str, Any]:
        self.ticks += 1
        return {}

    @Note.responder
    def note(self, text: str) -> dict[str, Any]:
        self.notes += (text,)
        return {}

    @Notes.responder
    def tell_notes(self) -> dict[str, Any]:
        return {"texts": list(self.notes)}

    @Fail.responder
    def fail(self, error: str, text: str) -> NoReturn:
        raise globals()[error](text)

    @FailMore.responder
    async def fail_more(self, error: str, text: str) -> None:
        await self.callRemote(Tick)
        self.fail(error, text)

    @Misanswer.responder
    def misanswer(self) -> dict[str, Any]:
        return {"number": "one"}

    @Look.responder
    def look(self, file: int) -> dict[str, Any]:
        return {"content": content(file)}

    @LookAtAll.responder
    async def look_at_all(self, first: int, files: list[dict[str, Any]], last: int) -> dict[str, Any]:
        descriptors = [first, *(item["file"] for item in files), last]
        return {"contents": [content(descriptor) for descriptor in descriptors]}

    @Lend.responder
    def lend(self, contents: list[bytes]) -> dict[str, Any]:
        self.lent += tuple(file_with(data) for data in contents)
        files = self.lent[-len(contents) :]
        return {"files": [{"name": "", "file": file.fileno()} for file in files]}

    @Return.responder
    def take_back(self) -> dict[str, Any]:
        for file in self.lent:
            file.close()
        self.lent = ()
        return {}

    @CountDescriptors.responder
    def count_descriptors(self) -> dict[str, Any]:
        return {"count": open_descriptors()}

    @Secure.responder
    async def secure(self) -> dict[str, Any]:
        self.ask(self.curiosity)
        if self.terms is None:
            raise Declared("not here")
        self.asking = start(self.ask_later(self.curiosity))
        return tls_arguments(**self.terms)

    @SwitchToBytes.responder
    async def switch(self, kind: str, allowed: bool) -> Any:
        self.ask(self.curiosity)
        if not allowed:
            raise Declared("not here")
        return streams.KINDS[kind]()

    def amp_REVERSE(self, box: Any) -> Any:
        """Answer a command that has no definition."""
        return amp.AmpBox(data=box[b"data"][::-1])
