"""Commands: what defining one makes of it, its boxes, and what an answer becomes."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from support import Divide, Sum, raw_pair, turns

from amp_asyncio import (
    PROTOCOL_ERRORS,
    AmpBox,
    CallCancelled,
    Command,
    DeadlineExceeded,
    Integer,
    InvalidSignature,
    MalformedAmpBox,
    NotServing,
    QuitBox,
    RemoteAmpError,
    String,
    UnhandledCommand,
    UnknownRemoteError,
)
from amp_asyncio.testing import ScriptedPeer, pair


class Demanding(Exception):
    def __init__(self, first: object, second: object) -> None:
        super().__init__(first, second)


class Base(Command):
    commandName = b"base"
    arguments = [(b"a", Integer()), ("is", Integer(optional=True))]
    response = [("total", Integer())]
    errors = {KeyError: b"KEY", ValueError: "VALUE"}
    fatalErrors = {OSError: b"OS", Demanding: b"DEMANDING"}


class Derived(Base):
    errors = {ValueError: b"OTHER", TypeError: b"TYPE"}
    fatalErrors = {MemoryError: b"MEMORY"}
    commandType = QuitBox
    responseType = QuitBox


def define(**attributes: Any) -> type[Command]:
    return type("Defined", (Command,), attributes)


def test_names() -> None:
    assert Command.commandName == b"Command"
    assert Sum.commandName == b"Sum"
    assert Base.commandName == b"base"
    assert Derived.commandName == b"Derived"
    assert define(commandName="text").commandName == b"text"


def test_defaults() -> None:
    command = define()
    assert (command.arguments, command.response) == ([], [])
    assert (command.errors, command.fatalErrors) == ({}, {})
    assert (command.allErrors, command.reverseErrors) == ({}, {})
    assert (command.commandType, command.responseType) == (AmpBox, AmpBox)
    assert command.requiresAnswer


def test_schemas_are_inherited() -> None:
    assert [name for name, argument in Base.arguments] == [b"a", b"is"]
    assert Derived.arguments == Base.arguments
    assert Derived.response == Base.response


def test_errors_are_inherited_and_merged() -> None:
    assert Base.errors == {KeyError: b"KEY", ValueError: b"VALUE"}
    assert Base.fatalErrors == {OSError: b"OS", Demanding: b"DEMANDING"}
    assert Base.allErrors == Base.errors | Base.fatalErrors
    assert Derived.errors == {KeyError: b"KEY", ValueError: b"OTHER", TypeError: b"TYPE"}
    assert Derived.fatalErrors == {**Base.fatalErrors, MemoryError: b"MEMORY"}
    assert Derived.allErrors == Derived.errors | Derived.fatalErrors
    assert Derived.reverseErrors == {code: error for error, code in Derived.allErrors.items()}
    assert b"VALUE" not in Derived.reverseErrors


def test_errors_from_pairs_and_from_mixins() -> None:
    class Mixin:
        errors: ClassVar[Any] = [(KeyError, b"KEY")]

    class Mixed(Mixin, Command):
        errors: ClassVar[Any] = [(ValueError, "VALUE")]

    assert Mixed.errors == {KeyError: b"KEY", ValueError: b"VALUE"}


def test_an_error_may_become_fatal() -> None:
    class Fatal(Base):
        fatalErrors = {KeyError: b"FATAL_KEY"}

    assert Fatal.allErrors[KeyError] == b"FATAL_KEY"
    assert Fatal.reverseErrors[b"FATAL_KEY"] is KeyError


@pytest.mark.parametrize("attribute", ["errors", "fatalErrors"])
@pytest.mark.parametrize(
    ("errors", "error", "match"),
    [
        ({"KeyError": b"KEY"}, TypeError, "of the command Defined: 'KeyError' is not a subclass"),
        ({KeyError(): b"KEY"}, TypeError, r"KeyError\(\) is not a subclass of Exception"),
        ({int: b"INT"}, TypeError, "<class 'int'> is not a subclass of Exception"),
        ({KeyboardInterrupt: b"STOP"}, TypeError, "KeyboardInterrupt'> is not a subclass"),
        ({asyncio.CancelledError: b"STOP"}, TypeError, "CancelledError'> is not a subclass"),
        ({KeyError: b"UNHANDLED"}, ValueError, "the code b'UNHANDLED' is one of AMP's own"),
        ({KeyError: "UNHANDLED"}, ValueError, "the code b'UNHANDLED' is one of AMP's own"),
        ({KeyError: 1}, TypeError, "a name is bytes or str, not 1"),
        ({KeyError: "ä"}, ValueError, "a name is ASCII, not 'ä'"),
    ],
)
def test_bad_errors(attribute: str, errors: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        define(**{attribute: errors})


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        (1, TypeError, "the command Defined: a name is bytes or str, not 1"),
        (None, TypeError, "a name is bytes or str, not None"),
        ("ä", ValueError, "the command Defined: a name is ASCII, not 'ä'"),
    ],
)
def test_bad_command_name(name: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        define(commandName=name)


def test_class_name_that_is_no_command_name() -> None:
    with pytest.raises(ValueError, match="the command Größe: a name is ASCII"):

        class Größe(Command):
            pass


def test_schema_errors_name_the_command() -> None:
    with pytest.raises(TypeError, match="^the command Defined: b'a' must be an Argument instance"):
        define(arguments=[(b"a", Integer)])
    with pytest.raises(TypeError, match="^the answer to Defined: b'a' must be an Argument instance"):
        define(response=[(b"a", Integer)])


def test_question_is_checked_at_once() -> None:
    assert Base(a=1).structured == {"a": 1}
    with pytest.raises(InvalidSignature, match="the command Base: missing a"):
        Base(Is=1)
    with pytest.raises(InvalidSignature, match="the command Base: unknown b"):
        Base(a=1, b=2)


@pytest.mark.parametrize(("command", "kind"), [(Base, AmpBox), (Derived, QuitBox)])
def test_boxes(command: type[Command], kind: type[AmpBox]) -> None:
    question = command.makeArguments({"a": 1, "Is": 2}, None)
    answer = command.makeResponse({"total": 3}, None)
    assert (type(question), question) == (kind, {b"a": b"1", b"is": b"2"})
    assert (type(answer), answer) == (kind, {b"total": b"3"})
    assert command.parseArguments(question, None) == {"a": 1, "Is": 2}
    assert command.parseArguments({b"a": b"1"}, None) == {"a": 1, "Is": None}
    assert command.parseResponse(answer, None) == {"total": 3}


@pytest.mark.parametrize("objects", [{}, {"total": 1, "more": 2}])
def test_answer_has_a_signature_too(objects: dict[str, int]) -> None:
    with pytest.raises(InvalidSignature, match="the answer to Sum: (missing total|unknown more)"):
        Sum.makeResponse(objects, None)


def test_arguments_see_the_connection() -> None:
    class Seen(String):
        def fromStringProto(self, inString: bytes, proto: Any) -> Any:
            return inString, proto

        def toStringProto(self, inObject: bytes, proto: bytes) -> bytes:
            return inObject + proto

    class Look(Command):
        arguments = response = [(b"x", Seen())]

    for make, parse in (
        (Look.makeArguments, Look.parseArguments),
        (Look.makeResponse, Look.parseResponse),
    ):
        assert make({"x": b"1"}, b"2") == {b"x": b"12"}
        assert parse({b"x": b"1"}, b"2") == {"x": (b"1", b"2")}


def test_responder_returns_what_it_decorates() -> None:
    def method(self: object, a: int, b: int) -> None: ...

    assert Sum.responder(Divide.responder(method)) is method


async def test_asking() -> None:
    class Tell(Sum):
        requiresAnswer = False

    async with raw_pair() as (amp, peer):
        answer, told = amp.callRemote(Sum, a=1, b=2), amp.callRemote(Tell, a=3, b=4)
        assert await told is None
        await turns()
        assert peer.boxes() == [
            {b"_command": b"Sum", b"_ask": b"1", b"a": b"1", b"b": b"2"},
            {b"_command": b"Tell", b"a": b"3", b"b": b"4"},
        ]
        assert not answer.done()
        answer.cancel()


async def test_answers() -> None:
    async with pair(ScriptedPeer) as (peer, amp):
        peer.expect(Sum, a=1, b=2).answer({"total": 3})
        peer.expect(Sum, a=1, b=2).answer({"total": 3})
        answer, raw = amp.callRemote(Sum, a=1, b=2), amp.callRemoteString("Sum", a=b"1", b=b"2")
        assert await answer == {"total": 3}
        assert await raw == {b"_answer": b"2", b"total": b"3"}


async def test_answer_that_does_not_parse() -> None:
    async with pair(ScriptedPeer) as (peer, amp):
        peer.expect(Sum).write(AmpBox(_answer=b"1", total=b"x").serialize())
        with pytest.raises(MalformedAmpBox, match="the answer to Sum: b'total' is b'x'"):
            await amp.callRemote(Sum, a=1, b=2)


@pytest.mark.parametrize(
    "late",
    [
        AmpBox(_answer=b"1", total=b"3"),
        AmpBox(_answer=b"1", total=b"x"),
        AmpBox(_error=b"1", _error_code=b"CODE", _error_description=b"text"),
    ],
)
@pytest.mark.parametrize("by_name", [False, True])
async def test_nobody_waits(late: AmpBox, by_name: bool) -> None:
    async with raw_pair() as (amp, peer):
        answer = amp.callRemoteString("Sum") if by_name else amp.callRemote(Sum, a=1, b=2)
        answer.cancel()
        peer.send(late)
        await turns()
        assert answer.cancelled()
        assert peer.events == ["made"], "the connection goes on"


class Open(Derived):
    """Leaves the connection open, so that its answer can come."""

    commandType = AmpBox


@pytest.mark.parametrize(
    ("command", "code", "kind"),
    [
        (None, b"CODE", RemoteAmpError),
        (None, b"UNHANDLED", UnhandledCommand),
        (Base, b"KEY", KeyError),
        (Base, b"OS", OSError),
        (Base, b"DEMANDING", Demanding),
        (Base, b"UNHANDLED", UnhandledCommand),
        (Base, b"UNKNOWN", UnknownRemoteError),
        (Base, b"CODE", UnknownRemoteError),
        (Open, b"KEY", KeyError),
        (Open, b"OTHER", ValueError),
        (Open, b"VALUE", UnknownRemoteError),
    ],
)
async def test_failures(command: type[Command] | None, code: bytes, kind: type[Exception]) -> None:
    async with raw_pair() as (amp, peer):
        answer = amp.callRemoteString("Any") if command is None else amp.callRemote(command, a=1)
        peer.send(AmpBox(_error=b"1", _error_code=code, _error_description=b"the text"))
        with pytest.raises(kind, match="the text") as caught:
            await answer
        assert type(caught.value) is kind


def test_protocol_errors() -> None:
    assert {
        b"UNHANDLED": UnhandledCommand,
        b"_CANCELLED": CallCancelled,
        b"_DEADLINE": DeadlineExceeded,
        b"_NOT_SERVING": NotServing,
    } == PROTOCOL_ERRORS


def test_the_most_derived_declaration_of_an_error_counts() -> None:
    class A(Command):
        errors = {KeyError: b"1"}
        fatalErrors = {OSError: b"OS"}

    class B(A):
        errors = {KeyError: b"2", OSError: b"OS"}

    class C(A):
        pass

    class D(C, B):
        pass

    assert D.errors == {KeyError: b"2", OSError: b"OS"}, "by Python's method resolution order"
    assert D.fatalErrors == {}
    assert A.fatalErrors == {OSError: b"OS"}


def test_an_error_that_no_future_can_raise() -> None:
    with pytest.raises(TypeError, match="no future can raise"):
        define(errors={StopIteration: b"STOP"})
