"""Streams: their commands, and what people see of one that is open.

What becomes of the items between one side and the other is the session's: see `session/lane.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import GenericAlias, TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Never,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    dataclass_transform,
    overload,
)

from ..errors import BadArguments, BoxTooLong, MalformedAmpBox, cut, shortened
from .arguments import Argument
from .command import Command

if TYPE_CHECKING:
    from attrs import field as _field
    from typing_extensions import TypeVar as _TypeVar  # With a default, which typing's has from 3.13.

    _Received = _TypeVar("_Received", default=Never)
    _Sent = _TypeVar("_Sent", default=Never)
    _Answer = _TypeVar("_Answer", default=None, covariant=True)
else:
    _Received = TypeVar("_Received")
    _Sent = TypeVar("_Sent")
    _Answer = TypeVar("_Answer", covariant=True)

__all__ = ["Channel", "Stream", "StreamCommand"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Self = TypeVar("_Self")


class Channel(Protocol):
    """One side of a stream, as its `Stream` sees it; items are bytes here.

    Attributes:
        asked: whether this side asked for the stream.
        most: how large an item may be.
    """

    asked: bool
    most: int

    def open(self) -> None:
        """Ask the question."""

    def check(self) -> None:
        """Raise an error if nothing can be sent."""

    def send(self, item: bytes) -> Awaitable[None] | None:
        """Send an item; what is returned is to be awaited."""

    def finish(self) -> Awaitable[None] | None:
        """Say that no more is sent; what is returned is to be awaited."""

    async def next(self) -> bytes:
        """Return the next item; raises `StopAsyncIteration` after the last one."""
        ...

    async def answer(self) -> Any:
        """Return the answer."""

    def leave(self) -> None:
        """End the stream: the caller has left it."""


class Stream(Generic[_Received, _Sent, _Answer]):
    """Items in one direction or in both, and an answer at the end.

    `amp.stream(question)` makes one; `async with` opens it, and ends it when it is left:

        async with amp.stream(Tail(name="log")) as lines:
            async for line in lines:
                print(line)

    A responder of a `StreamCommand` gets one as its first argument, which is open, and ends with it.
    `Stream[bytes, Line]` is one that receives bytes and sends lines.

    Sending waits while the peer does not keep up: `Limits.stream_window` says how much may be on its
    way. One task may iterate, and any number may send.

    An item that does not parse raises `MalformedAmpBox`. When the stream has ended with an error,
    iterating and sending raise it: one of the command's `errors`, `ConnectionLost`, `DeadlineExceeded`.
    The items that came before an error of the peer are still given out; those that came before any
    other end are dropped.
    """

    if TYPE_CHECKING:  # Its type variables have defaults.
        pass
    else:

        def __class_getitem__(cls, parameters):
            return GenericAlias(cls, parameters)

    def __init__(
        self, channel: Channel, received: Argument | None, sent: Argument | None, proto: Any, name: str
    ) -> None:
        self._channel = channel
        self._received = received
        self._sent = sent
        self._proto = proto
        self._name = name

    async def __aenter__(self) -> Self:
        """Ask for the stream.

        Raises what `amp.call` raises for a question that cannot be sent, `StreamsUnsupported` if the
        peer is known not to know streams, and `TooManyStreams`.
        """
        self._channel.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the stream on both sides at once, unless the answer has come; it waits for nothing."""
        self._channel.leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Received:
        """Return the next item. Cancelling it loses none."""
        argument = self._received
        if argument is None:
            raise RuntimeError(f"the other side of {self._name} sends no items")
        channel = self._channel
        data = await channel.next()
        try:
            if argument.is_list:
                _check_size(argument, data, channel.most, isLocal=False)
            item: _Received = argument.fromStringProto(data, self._proto)
            return item
        except Exception as error:
            kind = MalformedAmpBox if channel.asked else BadArguments
            raise kind(f"an item of {self._name} is {shortened(data)}: {cut(str(error))}") from error

    async def send(self, item: _Sent) -> None:
        """Send an item, and return when it is on its way; that may wait for the peer.

        Cancelling it takes the item back, unless a part of it was sent already: then the rest follows.

        Raises the error of an item that does not encode, `TooLong` for one of more than
        `Limits.max_box_size`, `StreamEnded` if the peer has answered already, and `RuntimeError` after
        `finish`. If the stream has failed, it raises why.
        """
        argument, channel = self._sent, self._channel
        if argument is None:
            raise RuntimeError(f"this side of {self._name} sends no items")
        channel.check()
        try:
            data = argument.toStringProto(item, self._proto)
            if argument.is_list:
                _check_size(argument, data, channel.most, isLocal=True)
        except Exception as error:
            error.add_note(f"an item of {self._name} could not be encoded")
            raise
        waiting = channel.send(data)
        if waiting is not None:
            await waiting

    async def finish(self) -> None:
        """Say that no more items come from this side; does nothing the second time.

        Cancelling it takes that back, unless it was said. Raises as `send` does.
        """
        waiting = self._channel.finish()
        if waiting is not None:
            await waiting

    async def answer(self) -> _Answer:
        """Wait for the answer, which comes after the last item, and return it.

        The peer cannot send its last item before the others were taken: iterate before this, or in
        another task. Cancelling it only ends the wait.
        """
        answer: _Answer = await self._channel.answer()
        return answer

    def __repr__(self) -> str:
        return f"<Stream of {self._name}>"


def _check_size(argument: Any, data: bytes, most: int, isLocal: bool) -> None:
    """Raise `BoxTooLong` for an item whose lists become more than an item may be."""
    if len(data) + argument.elements_cost(data, most - len(data)) > most:
        raise BoxTooLong(most, 1, isLocal)


if TYPE_CHECKING:

    @dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(_field,))
    class StreamCommand(Generic[_Received, _Sent, _Answer]):
        commandName: ClassVar[bytes]
        errors: ClassVar[Mapping[type[Exception], bytes | str]]
        fatalErrors: ClassVar[Mapping[type[Exception], bytes | str]]
        cancellable: ClassVar[bool | None]

        def __init_subclass__(cls, answer: str | None = None, **kw: Any) -> None: ...
        @overload
        @classmethod  # pyright: ignore[reportArgumentType]  # `cls` stands for its constructor.
        def responder(
            cls: Callable[_P, StreamCommand[_Out, Never, None]],
            methodfunc: Callable[Concatenate[_Self, _P], AsyncIterator[_Out]],
        ) -> Callable[Concatenate[_Self, _P], AsyncIterator[_Out]]: ...
        @overload
        @classmethod  # pyright: ignore[reportArgumentType]  # `cls` stands for its constructor.
        def responder(
            cls: Callable[_P, StreamCommand[_Out, _In, _R]],
            methodfunc: Callable[Concatenate[_Self, Stream[_In, _Out], _P], Awaitable[_R]],
        ) -> Callable[Concatenate[_Self, Stream[_In, _Out], _P], Awaitable[_R]]: ...
        @classmethod
        def responder(cls: Any, methodfunc: Any) -> Any: ...

else:

    class StreamCommand(Command):
        """A typed command that opens a stream: `StreamCommand[Received, Sent, Answer]`.

        `Received` are the items that the side gets that asks, `Sent` those that it sends; each is a
        record, or one value of any type that an argument may have, or `Never`. `Answer` is as with
        `Command`, and comes at the end. `StreamCommand[Line]` is the same as
        `StreamCommand[Line, Never, None]`.

        Its responder is an async generator, if it only sends:

            @Tail.responder
            async def tail(self, name: str) -> AsyncIterator[Line]: ...

        Any responder may have a `Stream` for its first parameter, and return the answer:

            @Upload.responder
            async def upload(self, stream: Stream[bytes, Never], name: str) -> Receipt: ...
        """

        def __class_getitem__(cls, parameters):
            given = parameters if isinstance(parameters, tuple) else (parameters,)
            if not 1 <= len(given) <= 3:
                raise TypeError(f"{cls.__name__}[Received, Sent, Answer] takes up to three types")
            return GenericAlias(cls, given + (Never, Never, None)[len(given) :])

        def __init_subclass__(cls, answer=None, **kw):
            super().__init_subclass__(answer=answer, **kw)
            name = cls.__name__
            cls.__amp__.opens_stream = cls.__amp__.apart = True
            if not cls.__amp__.is_typed:
                raise TypeError(f"{name} says nothing of its items: write {name}(StreamCommand[...])")
            if not cls.requiresAnswer:
                raise TypeError(f"{name}.requiresAnswer is false, and a stream needs an answer")
            if "stream" in vars(cls).get("__annotations__", {}):
                raise TypeError(f"{name}.stream: a field of a stream cannot have this name")

        def _doCommand(self, proto):
            name = type(self).__name__
            raise TypeError(f"{name} is a stream, and not a call: write stream({name}(...))")
