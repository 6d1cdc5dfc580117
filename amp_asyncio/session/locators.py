"""Locators: from the name of a command to the responder that answers it.

A session asks its locator for a callable that takes the command's box and returns the answer's box, or
an awaitable of it. `CommandLocator` finds methods declared with `Command.responder`, and decodes and
encodes with the command's schema around them. `SimpleStringLocator` goes by the method's name, and
passes the boxes unchanged.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import lru_cache
from types import GeneratorType
from typing import Any, ClassVar, Protocol, TypeAlias

from ..commands.command import Command
from ..commands.definitions import alone
from ..commands.exchange import DescriptorSchema, drop
from ..commands.mistakes import check_parameters, takes_stream
from ..commands.streams import Channel, Stream
from ..errors import (
    BadArguments,
    BadLocalReturn,
    MalformedAmpBox,
    RemoteAmpError,
    TooLong,
    text_of,
)
from ..wire.boxes import AmpBox
from .ported import OF_LOCATORS, warn_of_overrides

__all__ = [
    "CommandLocator",
    "MethodResponder",
    "Responder",
    "ResponderLocator",
    "SimpleStringLocator",
    "can_wait",
    "is_awaitable",
    "may_claim",
]

Responder: TypeAlias = Callable[[AmpBox], AmpBox | Awaitable[AmpBox]]


class ResponderLocator(Protocol):
    """What a dispatcher finds its responders with."""

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return what answers the command `name`, or None if it has no responder.

        If the responder has a true attribute `changes_connection`, the bytes after the command are not
        looked at before it is answered. If it has a true attribute `public`, a peer finds it before
        its identity is known, too: see `BoxDispatcher.identified_only`.

        The responder raises `RemoteAmpError` to answer with an error code. Any other exception that
        it raises is logged, and the peer gets no detail of it.
        """


class CommandLocator:
    """A base for classes whose methods answer commands, declared with `Command.responder`."""

    # The command of each name, the name of the method that answers it, and what is around that.
    __amp_commands__: ClassVar[dict[bytes, tuple[type[Command[Any]], str, type[MethodResponder]]]] = {}

    # Whether methods named `amp_NAME` answer commands, too: see `SimpleStringLocator`.
    __amp_by_name__: ClassVar[bool] = False

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        prefix = getattr(cls, "baseDispatchPrefix", None)
        cls.__amp_by_name__ = prefix is not None and any(
            name.encode().startswith(prefix) for name in dir(cls)
        )
        answers = [
            (command, name)
            for base in reversed(cls.__mro__)
            for name, member in vars(base).items()
            # (A staticmethod does not take over the attributes of the function inside it.)
            for marked in (getattr(member, "__wrapped__", None), member)
            for command in getattr(marked, "__amp_answers__", ())
        ]
        cls.__amp_commands__ = {
            command.commandName: (command, name, _kind_of(command)) for command, name in answers
        }
        _check_responders(cls)
        answered = {command for command, _ in answers}
        for base in cls.__mro__:
            for command in vars(base).get("__amp_declared__", ()):
                if command not in answered:
                    raise TypeError(
                        f"{base.__name__} has no method for {command.__name__}: what "
                        f"{command.__name__}.responder declares needs a name of its own in the class, "
                        "and a decorator above it needs functools.wraps"
                    )
        warn_of_overrides(cls, CommandLocator, OF_LOCATORS)

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return the responder that a method was declared to be for `name`, or None."""
        found = self.__amp_commands__.get(name)
        if found is None:
            return None
        command, method_name, kind = found
        method = getattr(self, method_name)
        # A subclass withdraws a responder as it would any method, by setting its name to None.
        return None if method is None else kind(command, method, self)


def _check_responders(cls: type[CommandLocator]) -> None:
    """Raise `TypeError` for responders of a class that cannot all answer, or not their commands."""
    own: dict[bytes, tuple[type[Command[Any]], str]] = {}
    for name, member in vars(cls).items():
        for command in getattr(member, "__amp_answers__", ()):
            other, method = own.setdefault(command.commandName, (command, name))
            if other is not command:
                raise TypeError(
                    f"{cls.__name__} answers two commands called {command.commandName!r}, with "
                    f"{method} and {name}: set commandName in one of them"
                )
            if vars(cls)[method] is not member:
                raise TypeError(
                    f"{cls.__name__} has two responders for {command.__name__}: {method} and {name}"
                )
    for command, name, _ in cls.__amp_commands__.values():
        parameters = command.__amp__.parameters
        if parameters is not None:
            method, where = inspect.getattr_static(cls, name), f"{cls.__name__}.{name}"
            check_parameters(method, parameters, where, command.__name__, command.__amp__.opens_stream)


class MethodResponder:
    """A method that answers a command, with the command's schema around it.

    It can be called as a `Responder`, from box to box. The session calls its steps one by one instead:
    then an `async def` method needs no second coroutine around it, and an answer that can be written
    at once needs no box.

    Attributes:
        command: the command that the method answers, and `definition` what is known of it.
    """

    __slots__ = ("_method", "_proto", "command", "definition")

    def __init__(self, command: type[Command[Any]], method: Callable[..., Any], proto: Any) -> None:
        self.command = command
        self.definition = command.__amp__
        self._method = method
        self._proto = proto

    def __call__(self, box: AmpBox) -> AmpBox | Awaitable[AmpBox]:
        answer = self.begin(box)
        return self._finish(answer) if is_awaitable(answer) else self.box(answer)

    async def _finish(self, answer: Awaitable[Any]) -> AmpBox:
        try:
            objects = await answer
        except Exception as error:
            declared = self.declared(error)
            if declared is None:
                raise
            raise declared from error
        return self.box(objects)

    @property
    def changes_connection(self) -> bool:
        """Whether the bytes after the command may not be AMP, or it does not wait for its turn."""
        return self.definition.apart

    @property
    def public(self) -> bool:
        """What the command says about it; see `Command.public`."""
        return self.command.public

    @property
    def cancellable(self) -> bool | None:
        """What the command says about it; see `Command.cancellable`."""
        return self.command.cancellable

    def arguments(self, box: AmpBox) -> dict[str, Any]:
        """Return the arguments in `box`; `BadArguments` if they do not decode."""
        try:
            arguments: dict[str, Any] = self.definition.read_question(box, self._proto)
        except MalformedAmpBox as error:
            raise BadArguments(*error.args) from error
        return arguments

    def question(self, box: AmpBox) -> Command[Any]:
        """Return the question in `box`, as the side has it that asks; raises as `arguments` does."""
        return self.definition.question(self.arguments(box))

    def run(self, question: Command[Any]) -> Any:
        """Call the method with the arguments of a question, and return or raise what it does."""
        return self._method(**question.structured)

    def begin(self, box: AmpBox) -> Any:
        """Call the method with the arguments in `box`, and return what it returns.

        It raises what the peer is told of an error that the command declares.
        """
        arguments = self.arguments(box)
        try:
            return self._method(**arguments)
        except Exception as error:
            declared = self.declared(error)
            if declared is None:
                raise
            raise declared from error

    def declared(self, error: BaseException) -> RemoteAmpError | None:
        """Return what the peer is told of `error`, or None if the command does not declare it.

        If several classes fit, the most derived one counts. An exception group that is not declared
        itself counts as the error in it, if it has only one: so a `TaskGroup` wraps it.
        """
        command = self.command
        for candidate in (error, alone(error)):
            for kind in type(candidate).__mro__:
                if kind in command.allErrors:
                    fatal = kind in command.fatalErrors
                    code = command.allErrors[kind]
                    declared = RemoteAmpError(code, text_of(candidate), fatal, candidate)
                    declared.failure = self.definition.failures.get(kind)
                    return declared
        return None

    def written(self, objects: Any, tag: bytes, room: int) -> bytes | None:
        """Return the bytes of the answer `objects`, or None if a box has to be made.

        `room` is as in `Template.fill`.
        """
        definition = self.definition
        template = definition.response_template
        if template is None:
            return None
        shape = definition.response.shape
        return template.fill(tag, objects if shape is None else shape.unpack(objects), room)

    def in_lists(self, box: AmpBox, most: int) -> int:
        """Return what the lists in a command count; `BoxTooLong` for one of more than `most`."""
        return self.definition.arguments.in_lists(box, most, isLocal=False)

    def box(self, objects: Any, most: int | None = None) -> AmpBox:
        """Return the box of the answer `objects`; `BoxTooLong` for one of more than `most`."""
        response = self.definition.response
        nothing = objects is None and response.shape is None and not self.command.response
        answer: Any = {} if nothing else objects
        try:
            box = self.command.makeResponse(answer, self._proto)
            try:
                response.in_lists(box, most)
            except TooLong:
                drop(box)
                raise
            return box
        except Exception as error:
            name = getattr(self._method, "__qualname__", repr(self._method))
            raise BadLocalReturn(
                f"{name} returned {objects!r}, which does not answer {self.command.__name__}", error
            ) from error


def _kind_of(command: type[Command[Any]]) -> type[MethodResponder]:
    return StreamResponder if command.__amp__.opens_stream else MethodResponder


class StreamResponder(MethodResponder):
    """A method that answers a stream: an async generator, or one that takes the stream, or both.

    Attributes:
        channel: this side of the stream; it is set before the method is called.
        credit: what the question said of the first credit; None if it did not ask for a stream.
    """

    __slots__ = ("channel", "credit")

    channel: Channel

    def __init__(self, command: type[Command[Any]], method: Callable[..., Any], proto: Any) -> None:
        super().__init__(command, method, proto)
        self.credit: bytes | None = None

    def run(self, question: Command[Any]) -> Any:
        return self._run(question.structured)

    def begin(self, box: AmpBox) -> Any:
        arguments = self.arguments(box)
        try:
            return self._run(arguments)
        except Exception as error:
            declared = self.declared(error)
            if declared is None:
                raise
            raise declared from error

    def _run(self, arguments: dict[str, Any]) -> Any:
        received, sent = self.definition.items
        stream: Any = Stream(self.channel, sent, received, self._proto, self.command.__name__)
        method = self._method
        given = (stream,) if takes_stream(method, self.definition.arguments.names) else ()
        answer = method(*given, **arguments)
        return _send_all(answer, stream) if hasattr(type(answer), "__aiter__") else answer


async def _send_all(items: Any, stream: Stream[Any, Any]) -> None:
    """Send what an async iterator yields, and close it, whatever happens."""
    try:
        async for item in items:
            await stream.send(item)
    finally:
        if hasattr(items, "aclose"):
            await items.aclose()


def can_wait(responder: Responder) -> bool:
    """Return whether what `responder` returned may wait before it becomes a box.

    Its descriptors may not wait: the responder may close them at once.
    """
    return not (
        isinstance(responder, MethodResponder)
        and isinstance(responder.command.__amp__.response, DescriptorSchema)
    )


def is_awaitable(answer: Any) -> bool:
    """Return whether a responder's answer is still to come; most answers are a dict."""
    if isinstance(answer, dict):
        return False
    kind: Any = type(answer)
    return _may_be_awaited(kind) and inspect.isawaitable(answer)


@lru_cache(64)
def _may_be_awaited(kind: type) -> bool:
    """Return whether the instances of a class can be awaited, or some of them."""
    return kind is GeneratorType or issubclass(kind, Awaitable)


class SimpleStringLocator:
    """A base for classes whose methods `amp_NAME` answer the command of that name, box for box.

    NAME is the command's name in upper case. The method takes the whole `AmpBox` and returns another,
    or is an `async def` that does; it may return the same one.
    """

    #: What the methods' names begin with.
    baseDispatchPrefix = b"amp_"

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return the method for the command `name`, or None."""
        try:
            attribute = (self.baseDispatchPrefix + name.upper()).decode("ascii")
        except UnicodeDecodeError:
            return None
        responder: Responder | None = getattr(self, attribute, None)
        return responder


def may_claim(locator: Any) -> bool:
    """Return whether a command that `locator` finds may have a descriptor in it.

    What a locator finds in a way of its own is not known, nor is what a method `amp_NAME` does.
    """
    kind = type(locator)
    overrides = getattr(kind, "__amp_overrides__", None)
    if overrides is None:
        own_way = kind.locateResponder is not CommandLocator.locateResponder
    else:
        own_way = "locateResponder" in overrides
    if own_way or not isinstance(locator, CommandLocator) or kind.__amp_by_name__:
        return True
    return any(command.__amp__.arguments.may_claim for command, *_ in kind.__amp_commands__.values())
