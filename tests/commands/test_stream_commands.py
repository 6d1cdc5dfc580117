"""The definitions of streams, and what fits them."""

import functools
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Never

import pytest
from attrs import frozen

from amp_asyncio import (
    AMP,
    Command,
    Descriptor,
    Integer,
    Stream,
    StreamCommand,
    StreamsUnsupported,
)
from amp_asyncio.testing import pair


@frozen
class Point:
    x: int
    y: int = 0


class Points(StreamCommand[Point]):
    count: int = 3


class MorePoints(Points):
    """Inherits the types of its items, and has a field more."""

    step: int = 2


class Echo(StreamCommand["list[Late]", "list[Late]", str], answer="text"):
    pass


class Late:
    """Makes `Echo` wait: this is not a type that has an argument."""


def test_the_types_may_be_text_and_may_be_written_for_the_responder_as_they_are() -> None:
    assert Stream[bytes, Never].__args__ == (bytes, Never)

    class Early(StreamCommand["LaterPoint", Never, "LaterPoint"]):
        pass

    @frozen
    class LaterPoint:
        z: int

    class Server(AMP):
        @Early.responder
        async def early(self, stream: Stream[Never, LaterPoint]) -> LaterPoint:
            await stream.send(LaterPoint(z=1))
            return LaterPoint(z=2)

    assert Early.__amp__.items[1] is None


def no_type() -> None:
    class Wrong(StreamCommand):  # type: ignore[type-arg]
        pass


def no_answer() -> None:
    class Wrong(StreamCommand[int]):
        requiresAnswer = False


def four_types() -> None:
    StreamCommand[int, int, int, int]  # type: ignore[misc]


def field_called_stream() -> None:
    class Wrong(StreamCommand[int]):
        stream: str


def item_of_none() -> None:
    class Wrong(StreamCommand[int | None]):
        pass


def item_without_an_argument() -> None:
    class Wrong(StreamCommand[object]):
        pass


def descriptor() -> None:
    class Wrong(StreamCommand[Annotated[int, Descriptor()]]):
        pass


def unfitting() -> None:
    class Wrong(AMP):
        @Points.responder
        async def points(self, stream: Any, number: int) -> None: ...


def missing() -> None:
    class Wrong(AMP):
        @Points.responder
        async def points(self) -> AsyncIterator[Point]:
            yield Point(x=1)


@pytest.mark.parametrize(
    ("define", "problem"),
    [
        (no_type, r"Wrong says nothing of its items: write Wrong\(StreamCommand"),
        (no_answer, "Wrong.requiresAnswer is false"),
        (four_types, r"StreamCommand\[Received, Sent, Answer\] takes up to three types"),
        (field_called_stream, "Wrong.stream: a field of a stream cannot have this name"),
        (item_of_none, "an item of Wrong cannot be None"),
        (item_without_an_argument, "an item of Wrong: object has no argument"),
        (descriptor, "an item of Wrong cannot be a descriptor"),
        (unfitting, "Wrong.points does not fit Points: it lacks count; it needs number"),
        (missing, "Wrong.points does not fit Points: it lacks count"),
    ],
)
def test_what_cannot_work_fails_where_it_is_defined(define: Callable[[], None], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        define()


async def test_a_type_that_never_comes_to_exist_is_an_error_at_the_first_use() -> None:
    class Never_(StreamCommand["NothingOfThisName"]):  # type: ignore[name-defined]
        pass

    async with pair(AMP) as (_, client):
        with pytest.raises(NameError, match="NothingOfThisName"):
            client.stream(Never_())


def counted(method: Any) -> Any:
    """Decorate a responder."""

    @functools.wraps(method)
    def counting(*positional: Any, **kw: Any) -> Any:
        return method(*positional, **kw)

    return counting


class Forms(AMP):
    """Each way to write a responder."""

    @Points.responder
    @counted
    async def points(self, count: int) -> AsyncIterator[Point]:
        for number in range(count):
            yield Point(x=number)

    @MorePoints.responder
    async def more(self, stream: Any, /, *, count: int, step: int) -> None:
        for number in range(count):
            await stream.send(Point(x=number * step))


class WithStream(Forms):
    @counted
    async def points(self, stream: Any, count: int) -> None:  # type: ignore[override]
        for number in range(count):
            await stream.send(Point(x=number))


class BothAtOnce(Forms):
    async def points(self, stream: Any, count: int) -> AsyncIterator[Point]:  # type: ignore[override]
        await stream.send(Point(x=0))
        for number in range(1, count):
            yield Point(x=number)


class Iterates:
    """An async iterator that is no generator."""

    def __init__(self, count: int) -> None:
        self.numbers = iter(range(count))

    def __aiter__(self) -> "Iterates":
        return self

    async def __anext__(self) -> Point:
        for number in self.numbers:
            return Point(x=number)
        raise StopAsyncIteration


class Plain(Forms):
    def points(self, count: int) -> Any:  # type: ignore[override]
        return Iterates(count)


class Everything(Forms):
    @counted
    def points(self, *positional: Any, **kw: Any) -> Any:
        return Iterates(kw["count"])


class Static(Forms):
    @staticmethod
    async def points(stream: Any, count: int) -> None:  # type: ignore[override]
        for number in range(count):
            await stream.send(Point(x=number))


class AnyCallable(Forms):
    def __init__(self) -> None:
        super().__init__()
        self.points = functools.partial(self.send)  # type: ignore[assignment,method-assign]

    async def send(self, stream: Any, count: int) -> None:
        for number in range(count):
            await stream.send(Point(x=number))


class WithAll(Forms):
    async def points(self, **kw: Any) -> AsyncIterator[Point]:  # type: ignore[override]
        for number in range(kw["count"]):
            yield Point(x=number)


@pytest.mark.parametrize(
    "kind", [Forms, WithStream, BothAtOnce, Plain, Everything, Static, AnyCallable, WithAll]
)
async def test_each_way_to_write_a_responder(kind: type[Forms]) -> None:
    async with pair(kind) as (_, client):
        async with client.stream(Points()) as points:
            assert [point.x async for point in points] == [0, 1, 2]
        async with client.stream(MorePoints(count=2)) as more:
            assert [point.x async for point in more] == [0, 2]


async def test_a_plain_command_of_the_same_name_is_no_stream() -> None:
    class Plain(Command):
        commandName = b"Points"
        arguments = [(b"count", Integer())]

    class Server(AMP):
        @Plain.responder
        def plain(self, count: int) -> None: ...

    async with pair(Server) as (_, client):
        async with client.stream(Points()) as points:
            with pytest.raises(StreamsUnsupported, match="as a plain command"):
                await anext(points)
