"""Locators: which method answers a command, and what its result or its error becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Any

import pytest
from support import Divide, Sum

from amp_asyncio import (
    AmpBox,
    BadLocalReturn,
    Command,
    CommandLocator,
    Integer,
    InvalidSignature,
    MalformedAmpBox,
    QuitBox,
    RemoteAmpError,
    SimpleStringLocator,
)

QUESTION = AmpBox(a=b"13", b=b"81", _command=b"Sum", _ask=b"1")


class Risky(Command):
    response = [(b"n", Integer())]
    errors = {LookupError: b"LOOKUP", KeyError: b"KEY"}
    fatalErrors = {OSError: b"OS"}


class Adder(CommandLocator):
    @Sum.responder
    def add(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


def answer(locator: CommandLocator, name: bytes = b"Sum", box: AmpBox = QUESTION) -> Any:
    responder = locator.locateResponder(name)
    assert responder is not None
    return responder(box)


def test_found_by_name() -> None:
    assert answer(Adder()) == {b"total": b"94"}
    assert type(answer(Adder())) is AmpBox
    assert Adder().locateResponder(b"sum") is None
    assert Adder().locateResponder(b"add") is None
    assert CommandLocator().locateResponder(b"Sum") is None


async def test_async() -> None:
    class Later(CommandLocator):
        @Sum.responder
        async def add(self, a: int, b: int) -> dict[str, int]:
            await asyncio.sleep(0)
            return {"total": a + b}

    class AnyAwaitable(CommandLocator):
        @Sum.responder
        def add(self, a: int, b: int) -> Awaitable[dict[str, int]]:
            future = asyncio.get_running_loop().create_future()
            future.set_result({"total": a + b})
            return future

    for locator in (Later(), AnyAwaitable()):
        assert await answer(locator) == {b"total": b"94"}


def test_any_mapping_answers() -> None:
    class Own(dict[str, int]):
        pass

    class Mapped(CommandLocator):
        @Sum.responder
        def add(self, a: int, b: int) -> Own:
            return Own(total=a + b)

    assert answer(Mapped()) == {b"total": b"94"}


@pytest.mark.parametrize("again", [False, True])
def test_override_by_name(again: bool) -> None:
    def add(self: Adder, a: int, b: int) -> dict[str, int]:
        return {"total": -Adder.add(self, a, b)["total"]}

    child = type("Child", (Adder,), {"add": Sum.responder(add) if again else add})
    assert answer(child()) == {b"total": b"-94"}
    assert answer(Adder()) == {b"total": b"94"}


def test_override_on_the_instance() -> None:
    locator = Adder()
    locator.add = lambda a, b: {"total": 0}  # type: ignore[method-assign]
    assert answer(locator) == {b"total": b"0"}


def test_another_method_takes_over() -> None:
    class Child(Adder):
        @Sum.responder
        def multiply(self, a: int, b: int) -> dict[str, int]:
            return {"total": a * b}

    class Grandchild(Child):
        def add(self, a: int, b: int) -> dict[str, int]:
            raise AssertionError

    assert answer(Child()) == answer(Grandchild()) == {b"total": b"1053"}


def test_withdrawn() -> None:
    class Child(Adder):
        add = None  # type: ignore[assignment]

    class Grandchild(Child):
        def add(self, a: int, b: int) -> dict[str, int]:  # type: ignore[override]
            return {"total": 1}

    assert Child().locateResponder(b"Sum") is None
    assert Adder().locateResponder(b"Sum") is not None
    assert answer(Grandchild()) == {b"total": b"1"}


def test_mixin() -> None:
    class Mixin:
        @Divide.responder
        def divide(self, a: int, b: int) -> dict[str, float]:
            return {"quotient": a / b}

    class Both(Mixin, Adder):
        pass

    assert answer(Both()) == {b"total": b"94"}
    assert answer(Both(), b"Divide", AmpBox(a=b"1", b=b"2")) == {b"quotient": b"0.5"}
    assert Adder().locateResponder(b"Divide") is None


def test_one_method_for_two_commands() -> None:
    class Difference(Sum):
        commandName = b"difference"

    class Both(CommandLocator):
        @Sum.responder
        @Difference.responder
        def add(self, a: int, b: int) -> dict[str, int]:
            return {"total": a + b}

    assert answer(Both()) == answer(Both(), b"difference") == {b"total": b"94"}


def test_own_response_type_may_change_the_connection() -> None:
    class Quit(Command):
        responseType = QuitBox

    class Quitter(Adder):
        @Quit.responder
        def quit(self) -> dict[str, int]:
            return {}

    assert getattr(Quitter().locateResponder(b"Quit"), "changes_connection", False)
    assert not getattr(Quitter().locateResponder(b"Sum"), "changes_connection", False)
    assert type(answer(Quitter(), b"Quit", AmpBox())) is QuitBox


def test_static_and_class_methods() -> None:
    class Odd(CommandLocator):
        @Sum.responder
        @staticmethod
        def add(a: int, b: int) -> dict[str, int]:
            return {"total": a + b}

        @Risky.responder
        @classmethod
        def risk(cls) -> dict[str, int]:
            return {"n": 1}

    assert answer(Odd()) == {b"total": b"94"}
    assert answer(Odd(), b"Risky", AmpBox()) == {b"n": b"1"}


def test_arguments_that_do_not_parse() -> None:
    with pytest.raises(MalformedAmpBox, match="the command Sum: b'b' is b'x'"):
        answer(Adder(), box=AmpBox(a=b"1", b=b"x"))


class Raising(CommandLocator):
    """Does with a command what it was made with."""

    def __init__(self, result: Any) -> None:
        self.result = result

    @Risky.responder
    def risk(self) -> Any:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class RaisingLater(Raising):
    async def risk(self) -> Any:
        return super().risk()


def outcome(locator: CommandLocator) -> Any:
    """Return the answer to Risky, of a plain responder or of one to be awaited."""
    result = answer(locator, b"Risky", AmpBox())
    return asyncio.run(result) if isinstance(locator, RaisingLater) else result


@pytest.mark.parametrize("kind", [Raising, RaisingLater])
@pytest.mark.parametrize(
    ("error", "code", "fatal"),
    [
        (LookupError("text"), b"LOOKUP", False),
        (IndexError("text"), b"LOOKUP", False),
        (KeyError("text"), b"KEY", False),
        (OSError("text"), b"OS", True),
        (ConnectionResetError("text"), b"OS", True),
    ],
)
def test_declared_errors(kind: type[Raising], error: Exception, code: bytes, fatal: bool) -> None:
    with pytest.raises(RemoteAmpError) as caught:
        outcome(kind(error))
    remote = caught.value
    assert (remote.errorCode, remote.description, remote.fatal) == (code, str(error), fatal)
    assert remote.local is remote.__cause__ is error


@pytest.mark.parametrize("kind", [Raising, RaisingLater])
@pytest.mark.parametrize(
    "error", [ValueError("text"), RemoteAmpError(b"OWN", "text"), KeyboardInterrupt()]
)
def test_other_errors(kind: type[Raising], error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        outcome(kind(error))
    assert caught.value is error


@pytest.mark.parametrize("kind", [Raising, RaisingLater])
@pytest.mark.parametrize(
    ("result", "enclosed"),
    [
        (None, TypeError),
        (["n"], TypeError),
        ({}, InvalidSignature),
        ({"n": 1, "m": 2}, InvalidSignature),
        ({"n": "x"}, TypeError),
    ],
)
def test_bad_returns(kind: type[Raising], result: Any, enclosed: type[Exception]) -> None:
    with pytest.raises(BadLocalReturn) as caught:
        outcome(kind(result))
    error = caught.value
    assert error.message == f"{kind.__name__}.risk returned {result!r}, which does not answer Risky"
    assert type(error.enclosed) is enclosed
    assert error.__cause__ is error.enclosed


def test_bad_return_of_what_has_no_name() -> None:
    locator = Raising(None)
    nameless = partial(dict[str, int], m=1)
    locator.risk = nameless  # type: ignore[method-assign]
    with pytest.raises(BadLocalReturn) as caught:
        answer(locator, b"Risky", AmpBox())
    assert caught.value.message.startswith(f"{nameless!r} returned {{'m': 1}}")


class Simple(SimpleStringLocator):
    amp_NONE = None

    def amp_SUM(self, box: AmpBox) -> AmpBox:
        return box

    async def amp_LATER(self, box: AmpBox) -> AmpBox:
        return box


@pytest.mark.parametrize("name", [b"sum", b"Sum", b"SUM"])
def test_simple(name: bytes) -> None:
    responder = Simple().locateResponder(name)
    assert responder is not None
    assert responder(QUESTION) is QUESTION


def test_simple_async() -> None:
    responder = Simple().locateResponder(b"later")
    assert responder is not None
    assert asyncio.run(responder(QUESTION)) is QUESTION  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [b"", b"other", b"none", b"amp_sum", "größe".encode(), b"\xff", b"\0"])
def test_simple_knows_no_other(name: bytes) -> None:
    assert Simple().locateResponder(name) is None


def test_simple_prefix() -> None:
    class Prefixed(Simple):
        baseDispatchPrefix = b"on_"

        def on_SUM(self, box: AmpBox) -> AmpBox:
            return AmpBox()

    responder = Prefixed().locateResponder(b"Sum")
    assert responder is not None
    assert responder(QUESTION) == {}


def test_a_staticmethod_around_a_responder() -> None:
    class Static(CommandLocator):
        @staticmethod
        @Sum.responder
        def add(a: int, b: int) -> dict[str, int]:
            return {"total": a + b}

    assert answer(Static()) == {b"total": b"94"}


def test_none_answers_a_command_whose_answer_has_no_values() -> None:
    class Done(Command):
        pass

    class Doing(CommandLocator):
        @Done.responder
        def done(self) -> None:
            return None

    assert answer(Doing(), b"Done") == {}
