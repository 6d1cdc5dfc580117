"""Classes that were written for Twisted: its seams work, and what does not is said aloud."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fakes import Sender
from support import Divide, Echo, Sum, raw_pair, turns

import amp_asyncio
from amp_asyncio import (
    AMP,
    AmpBox,
    BinaryBoxProtocol,
    Box,
    BoxDispatcher,
    Command,
    CommandLocator,
    Descriptor,
    Integer,
    InvalidSignature,
    ListOf,
    QuitBox,
    Unicode,
    python_name,
)

# --- a box sender with two methods ---


class Failing(Command):
    arguments = [(b"how", Unicode())]
    errors = {KeyError: b"KEY"}
    fatalErrors = {EOFError: b"EOF"}


class Pass(Command):
    arguments = [(b"file", Descriptor())]


class Locator(CommandLocator):
    @Failing.responder
    def fail(self, how: str) -> dict[str, Any]:
        raise {"declared": KeyError, "fatal": EOFError, "undeclared": ZeroDivisionError}[how](how)


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize(
    ("command", "how", "code", "ends"),
    [
        (b"Failing", b"declared", b"KEY", ()),
        (b"Failing", b"fatal", b"EOF", (False, True)),
        (b"Failing", b"undeclared", b"UNKNOWN", (True,)),
        (b"Failing", b"\xff", b"UNKNOWN", (True,)),
        (b"Nothing", b"", b"UNHANDLED", ()),
        (b"StartTLS", b"", b"UNHANDLED", ()),
    ],
)
async def test_a_sender_as_twisted_defines_it(
    command: bytes, how: bytes, code: bytes, ends: tuple[bool, ...], asks: bool, closes: bool
) -> None:
    sender = Sender()
    dispatcher = BoxDispatcher(Locator())
    dispatcher.closeOnUnknownError = closes
    dispatcher.startReceivingBoxes(sender)
    box = AmpBox(_command=command, how=how)
    if asks:
        box[b"_ask"] = b"1"
    dispatcher.ampBoxReceived(box)
    assert [sent[b"_error_code"] for sent in sender.sent] == [code] * asks
    assert len(sender.errors) == (closes in ends)


async def test_descriptors_need_a_connection_of_this_package() -> None:
    dispatcher, sender = BoxDispatcher(Locator()), Sender()
    with pytest.raises(RuntimeError, match="not connected yet"):
        dispatcher.callRemote(Pass, file=0)
    dispatcher.startReceivingBoxes(sender)
    with pytest.raises(TypeError, match="cannot carry descriptors"):
        dispatcher.callRemote(Pass, file=0)
    assert sender.sent == []


async def test_an_amp_over_a_sender_of_somebody_else() -> None:
    amp, sender = AMP(), Sender()
    amp.startReceivingBoxes(sender)
    amp.callRemote(Sum, a=1, b=2).cancel()
    assert sender.sent == [{b"_command": b"Sum", b"_ask": b"1", b"a": b"1", b"b": b"2"}]
    with pytest.raises(TypeError, match="^AMP has no connection: its boxes go through another sender"):
        amp.abort()


# --- overrides that are never called ---


def method(*arguments: Any) -> None: ...


CONNECTIONS = [
    ("makeConnection", "connection_made"),
    ("connectionMade", "connection_made"),
    ("connectionLost", "connection_lost"),
    ("readConnectionLost", "eof_received"),
    ("dataReceived", "data_received"),
    ("stringReceived", "data_received"),
    ("lengthLimitExceeded", "connection_lost"),
    ("dispatchCommand", "locateResponder"),
    ("_commandReceived", "ampBoxReceived"),
    ("_answerReceived", "ampBoxReceived"),
    ("_errorReceived", "ampBoxReceived"),
    ("_sendBoxCommand", "sendBox"),
    ("_safeEmit", "sendBox"),
    ("failAllOutgoing", "stopReceivingBoxes"),
]
LOCATORS = [
    ("lookupFunction", "locateResponder"),
    ("_wrapWithSerialization", "locateResponder"),
]


@pytest.mark.parametrize(
    ("base", "name", "instead"),
    [
        *((AMP, *names) for names in CONNECTIONS + LOCATORS),
        *((CommandLocator, *names) for names in LOCATORS),
        (BinaryBoxProtocol, *CONNECTIONS[0]),
        (BoxDispatcher, *CONNECTIONS[-1]),
    ],
)
def test_an_override_that_is_never_called(base: type[Any], name: str, instead: str) -> None:
    with pytest.warns(
        UserWarning, match=rf"^Ported\.{name}\(\) will never be called: .*{instead}\("
    ) as told:
        ported = type("Ported", (base,), {name: method})
    assert [warning.filename for warning in told] == [__file__]
    # Nothing more is said of these:
    type("Derived", (ported,), {})
    type("Bridged", (base,), {name: method, instead: method})
    type("Plain", (base,), {name: "not a method"})
    type("Elsewhere", (BoxDispatcher,), {"connectionMade": method})


def test_an_override_in_a_mixin() -> None:
    mixin = type("Mixin", (), {"connectionMade": method})
    with pytest.warns(UserWarning, match=r"^Ported\.connectionMade\(\) will never be called") as told:
        type("Ported", (mixin, AMP), {})
    assert len(told) == 1


# --- commands ---


class Chunked(Command):
    """Takes one long text, and sends it in parts."""

    arguments = [(b"parts", ListOf(Unicode())), (b"class", Integer(optional=True))]

    @classmethod
    def makeArguments(cls, objects: Mapping[str, Any], proto: Any) -> Box:
        rest = dict(objects)
        text = rest.pop("text", "")
        return super().makeArguments({**rest, "parts": [*rest["parts"], *text]}, proto)


async def test_arguments_that_only_makeArguments_knows() -> None:
    async with raw_pair() as (amp, peer):
        answer = amp.callRemote(Chunked, text="ab", parts=["x"], Class=1)
        answer.cancel()
        await turns()
        [box] = peer.boxes()
        assert box[b"parts"] == ListOf(Unicode()).toString(["x", "a", "b"])
        with pytest.raises(InvalidSignature, match="the command Chunked: missing parts"):
            amp.callRemote(Chunked, text="ab")
        with pytest.raises(InvalidSignature, match="the command Chunked: unknown other"):
            amp.callRemote(Chunked, parts=[], other=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("commandName", b"other"),
        ("arguments", [(b"x", Integer())]),
        ("response", []),
        ("errors", {KeyError: b"KEY"}),
        ("fatalErrors", {}),
        ("allErrors", {}),
        ("reverseErrors", {}),
        ("requiresAnswer", False),
        ("commandType", QuitBox),
        ("responseType", QuitBox),
        ("makeArguments", method),
        ("makeResponse", method),
        ("_doCommand", method),
    ],
)
def test_what_is_set_too_late(name: str, value: Any) -> None:
    class Late(Command):
        cancellable = False

    with pytest.raises(
        TypeError, match=f"^Late.{name} cannot be set after .* set it in the body of the"
    ):
        setattr(Late, name, value)
    Late.cancellable = True
    later = type("Later", (Late,), {name: value})
    assert later.__mro__[1] is Late


def test_a_base_may_set_it_for_its_subclasses() -> None:
    class Prefixed(Command):
        def __init_subclass__(cls, **kw: Any) -> None:
            cls.commandName = b"prefix." + cls.__name__.encode()
            super().__init_subclass__(**kw)

    class Asked(Prefixed):
        pass

    assert Asked.commandName == b"prefix.Asked"


def hiding(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **kw: function(*arguments, **kw)


def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(function)(hiding(function))


def elsewhere(self: Any, a: int, b: int) -> dict[str, int]:
    return {"total": a + b}


def test_a_responder_without_a_name() -> None:
    refused = pytest.raises(
        TypeError, match="^Nameless has no method for Sum: .* needs a name of its own"
    )
    with refused:

        class Nameless(AMP):
            Sum.responder(lambda self, a, b: {"total": a + b})

    with refused:

        class Nameless(CommandLocator):  # type: ignore[no-redef]
            Sum.responder(elsewhere)

    with refused:

        class Nameless:  # type: ignore[no-redef]
            Sum.responder(elsewhere)

        class Mixed(Nameless, AMP):
            pass

    with refused:

        class Nameless(AMP):  # type: ignore[no-redef]
            @Sum.responder
            def answer(self, a: int, b: int) -> dict[str, int]:
                return {"total": a + b}

            @Echo.responder
            def answer(self, data: bytes) -> dict[str, bytes]:  # type: ignore[no-redef] # noqa: F811
                return {"data": data}


def test_a_responder_below_another_decorator() -> None:
    with pytest.raises(TypeError, match=r"no method for Sum.* needs functools\.wraps"):

        class Hidden(AMP):
            @hiding
            @Sum.responder
            def sum(self, a: int, b: int) -> dict[str, int]:
                return {"total": a + b}

    class Wrapped(CommandLocator):
        @wrapping
        @Sum.responder
        def sum(self, a: int, b: int) -> dict[str, int]:
            return {"total": a + b}

        named = Divide.responder(lambda self, a, b: {"quotient": a / b})

        def echo(self, data: bytes) -> dict[str, bytes]:
            return {"data": data}

        Echo.responder(echo)

    for command in (Sum, Divide, Echo):
        assert Wrapped().locateResponder(command.commandName) is not None


# --- names ---


def test_the_python_name_of_an_argument() -> None:
    assert python_name(b"the-class") == "the_class"
    assert python_name(b"class") == "Class"


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("IArgumentType", "Argument"),
        ("IBoxSender", "BoxSender"),
        ("IBoxReceiver", "BoxReceiver"),
        ("IResponderLocator", "ResponderLocator"),
        ("_wireNameToPythonIdentifier", "python_name"),
    ],
)
def test_names_that_twisted_has(name: str, here: str) -> None:
    with pytest.raises(AttributeError, match=f"{name}'; it is called {here} here"):
        getattr(amp_asyncio, name)
    assert hasattr(amp_asyncio, here)
