"""Locators: from the name of a command to the responder that answers it.

A dispatcher asks its locator for a callable that takes the command's box and returns the answer's
box, or an awaitable of it. How there comes to be one is the locator's affair: `CommandLocator` finds
methods declared with `Command.responder` and puts the schema around them, `SimpleStringLocator` goes
by the method's name and passes the boxes as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol, TypeAlias

from ..commands.command import Command
from ..errors import BadArguments, BadLocalReturn, MalformedAmpBox, RemoteAmpError, shortened
from ..wire.boxes import AmpBox, Box

__all__ = [
    "BoxResponder",
    "CommandLocator",
    "MethodResponder",
    "Responder",
    "ResponderLocator",
    "SimpleStringLocator",
    "is_awaitable",
]

Responder: TypeAlias = Callable[[AmpBox], AmpBox | Awaitable[AmpBox]]


class ResponderLocator(Protocol):
    """What a dispatcher finds its responders with."""

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return what answers the command `name`, or None for a command that nobody answers.

        If the responder has a true attribute `changes_connection`, what comes behind the command is
        not looked at before the command is answered.

        The responder raises `RemoteAmpError` to answer with an error code. Any other exception that
        it raises is logged, and reaches the peer without any detail.
        """


class CommandLocator:
    """A base for classes whose methods answer commands, declared with `Command.responder`."""

    # The command of each name, and the name of the method that answers it.
    _commandDispatch: ClassVar[dict[bytes, tuple[type[Command], str]]] = {}

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        cls._commandDispatch = {
            command.commandName: (command, name)
            for base in reversed(cls.__mro__)
            for name, member in vars(base).items()
            # (A staticmethod does not take over the attributes of the function inside it.)
            for marked in (getattr(member, "__wrapped__", None), member)
            for command in getattr(marked, "_ampCommands", ())
        }

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return what answers the command `name` from its box, or None where no method does."""
        found = self._commandDispatch.get(name)
        if found is None:
            return None
        command, method_name = found
        method = getattr(self, method_name)
        # A subclass withdraws a responder as it would any method, by setting its name to None.
        return None if method is None else MethodResponder(command, method, self)


class MethodResponder:
    """A method that answers a command, with the command's schema around it.

    Whoever calls it finds a `Responder`, from box to box. The dispatcher goes its steps one by one
    instead: then an `async def` method needs no second coroutine around it, and an answer that can be
    written at once needs no box.
    """

    __slots__ = ("_command", "_method", "_proto")

    def __init__(self, command: type[Command], method: Callable[..., Any], proto: Any) -> None:
        self._command = command
        self._method = method
        self._proto = proto

    def __call__(self, box: AmpBox) -> AmpBox | Awaitable[AmpBox]:
        answer = self.begin(box)
        return self._finish(answer) if is_awaitable(answer) else self.box(answer)

    async def _finish(self, answer: Awaitable[Any]) -> AmpBox:
        try:
            objects = await answer
        except Exception as error:
            self.raise_declared(error)
            raise
        return self.box(objects)

    @property
    def changes_connection(self) -> bool:
        """Whether what comes behind the command may not be AMP."""
        return self._command.responseType is not Box

    def begin(self, box: AmpBox) -> Any:
        """Call the method with the arguments in `box`, and return what it returns."""
        try:
            arguments = self._command.parseArguments(box, self._proto)
        except MalformedAmpBox as error:
            raise BadArguments(*error.args) from error
        try:
            return self._method(**arguments)
        except Exception as error:
            self.raise_declared(error)
            raise

    def raise_declared(self, error: Exception) -> None:
        """Raise what the peer is to be told of `error`, if the command declares a code for it.

        Of several classes that fit, the most derived counts.
        """
        command = self._command
        for kind in type(error).__mro__:
            if kind in command.allErrors:
                fatal = kind in command.fatalErrors
                raise RemoteAmpError(command.allErrors[kind], str(error), fatal, error) from error

    def written(self, objects: Any, tag: bytes, room: int) -> bytes | None:
        """Return the bytes of the answer `objects`, where they can be had without a box.

        `room` is as in `Template.fill`.
        """
        template = self._command._response_template
        return None if template is None else template.fill(tag, objects, room)

    def box(self, objects: Any) -> AmpBox:
        """Return the box of the answer `objects`."""
        if objects is None and not self._command.response:
            objects = {}
        try:
            return self._command.makeResponse(objects, self._proto)
        except Exception as error:
            name = getattr(self._method, "__qualname__", repr(self._method))
            raise BadLocalReturn(
                f"{name} returned {objects!r}, which does not answer {self._command.__name__}", error
            ) from error


class BoxResponder:
    """Any other responder, in the same steps."""

    __slots__ = ("begin", "changes_connection")

    def __init__(self, responder: Responder) -> None:
        self.begin: Callable[[AmpBox], Any] = responder
        self.changes_connection: bool = getattr(responder, "changes_connection", False)

    def raise_declared(self, error: Exception) -> None:
        """Do nothing: such a responder raises `RemoteAmpError` itself."""

    def written(self, objects: Any, tag: bytes, room: int) -> None:
        """Return None: the answer is a box, and perhaps of a kind that does something."""

    def box(self, objects: Any) -> AmpBox:
        """Return the answer, which is to be a box."""
        if not isinstance(objects, AmpBox):
            raise BadLocalReturn(
                f"{self.begin!r} returned {shortened(objects)}",
                TypeError("a responder returns an AmpBox"),
            )
        return objects


def is_awaitable(answer: Any) -> bool:
    """Return whether a responder's answer is still to come; most that are there are a dict."""
    return not isinstance(answer, dict) and inspect.isawaitable(answer)


class SimpleStringLocator:
    """A base for classes whose methods `amp_NAME` answer the command of that name, box for box.

    NAME is the command's name in upper case. The method takes the whole `AmpBox` and returns another,
    or is an `async def` that does; it may return the same one.
    """

    #: What the methods' names begin with.
    baseDispatchPrefix = b"amp_"

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return the method for the command `name`, or None where there is none."""
        try:
            attribute = (self.baseDispatchPrefix + name.upper()).decode("ascii")
        except UnicodeDecodeError:
            return None
        responder: Responder | None = getattr(self, attribute, None)
        return responder
