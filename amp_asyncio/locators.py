"""Locators: from the name of a command to the responder that answers it.

A dispatcher asks its locator for a callable that takes the command's box and returns the answer's
box, or an awaitable of it. How there comes to be one is the locator's affair: `CommandLocator` finds
methods declared with `Command.responder` and puts the schema around them, `SimpleStringLocator` goes
by the method's name and passes the boxes as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar, Protocol, TypeAlias

from .boxes import AmpBox, Box
from .commands import Command
from .errors import BadArguments, BadLocalReturn, MalformedAmpBox, RemoteAmpError

__all__ = ["CommandLocator", "Responder", "ResponderLocator", "SimpleStringLocator"]

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
        if method is None:
            # A subclass withdraws a responder as it would any method, by setting its name to None.
            return None
        responder = partial(self._respond, command, method)
        if command.responseType is not Box:
            # (A partial takes any attribute, which its type does not say.)
            responder.changes_connection = True  # type: ignore[attr-defined]
        return responder

    def _respond(
        self, command: type[Command], method: Callable[..., Any], box: AmpBox
    ) -> AmpBox | Awaitable[AmpBox]:
        """Call a responder with the arguments in `box`, and return the box of its answer."""
        try:
            arguments = command.parseArguments(box, self)
        except MalformedAmpBox as error:
            raise BadArguments(*error.args) from error
        try:
            answer = method(**arguments)
        except Exception as error:
            _raise_declared(command, error)
            raise
        # Nearly every plain responder returns a dict: only for others is it worth to ask further.
        if type(answer) is not dict and inspect.isawaitable(answer):
            return self._respond_later(command, method, answer)
        return self._make_answer(command, method, answer)

    async def _respond_later(
        self, command: type[Command], method: Callable[..., Any], answer: Awaitable[Any]
    ) -> AmpBox:
        try:
            objects = await answer
        except Exception as error:
            _raise_declared(command, error)
            raise
        return self._make_answer(command, method, objects)

    def _make_answer(self, command: type[Command], method: Callable[..., Any], objects: Any) -> AmpBox:
        if objects is None and not command.response:
            objects = {}
        try:
            return command.makeResponse(objects, self)
        except Exception as error:
            name = getattr(method, "__qualname__", repr(method))
            raise BadLocalReturn(
                f"{name} returned {objects!r}, which does not answer {command.__name__}", error
            ) from error


def _raise_declared(command: type[Command], error: Exception) -> None:
    """Raise what the peer is to be told of `error`, if the command declares a code for it.

    Of several classes that fit, the most derived counts.
    """
    for kind in type(error).__mro__:
        if kind in command.allErrors:
            fatal = kind in command.fatalErrors
            code = command.allErrors[kind]
            raise RemoteAmpError(code, str(error), fatal, error) from error


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
