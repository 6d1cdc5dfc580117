"""Commands: the schema of a question, of its answer, and of the errors that may take its place.

A command is a class, never instantiated by its users; both sides share it, or each has its own with
the same names. Its instances are the questions asked with it: `callRemote` makes one, and it stays
with the dispatcher until the answer comes, which it then makes into a result. A command that changes
the connection overrides `_doCommand`, `_answered` and `_failed`, and its two box types.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from ..errors import RemoteAmpError, UnhandledCommand, UnknownRemoteError
from ..wire.boxes import ANSWER, ASK, UNHANDLED_ERROR_CODE, Box
from .arguments import Argument
from .exchange import schema_for
from .schemas import Schema, wire_name
from .templates import Template

__all__ = ["PROTOCOL_ERRORS", "Command", "Question"]

#: The errors of AMP itself: they may answer any command, and none may declare their codes.
PROTOCOL_ERRORS: dict[bytes, type[Exception]] = {UNHANDLED_ERROR_CODE: UnhandledCommand}

_Responder = TypeVar("_Responder", bound=Callable[..., Any])


class Question:
    """What was asked, while it waits for its answer: here, a command known by its name alone.

    The dispatcher calls one of the two methods, once, at the very moment when the answer comes: the
    bytes behind the answer have not been looked at yet.
    """

    def _answered(self, box: Box, proto: Any, future: asyncio.Future[Any]) -> None:
        """Resolve `future`, unless nobody waits for it any more, with what `box` says."""
        if not future.done():
            future.set_result(box)

    def _failed(self, error: RemoteAmpError, proto: Any, future: asyncio.Future[Any]) -> None:
        """Fail `future`, unless nobody waits for it any more, with what `error` stands for."""
        if not future.done():
            future.set_exception(self._translated(error))

    def _translated(self, error: RemoteAmpError) -> Exception:
        """Return the exception that an error box means."""
        protocol_error = PROTOCOL_ERRORS.get(error.errorCode)
        return error if protocol_error is None else protocol_error(error.description)


class Command(Question):
    """What one side can ask of the other; subclass it, and set what differs from the defaults.

    The names in `arguments` and `response`, and the codes in `errors`, are bytes, or ASCII `str` that
    become bytes. A class that cannot work raises `TypeError` or `ValueError` where it is defined.
    """

    #: The name on the wire; the name of the class, unless it is given.
    commandName: ClassVar[bytes] = b"Command"
    #: The pairs of a name and an `Argument` that a question carries.
    arguments: ClassVar[Sequence[tuple[bytes | str, Argument]]] = []
    #: The same for the answer.
    response: ClassVar[Sequence[tuple[bytes | str, Argument]]] = []
    #: The exceptions that a responder may raise, and their codes on the wire; the caller gets an
    #: exception of the same class, made from the text alone (without its `__init__`, where that takes
    #: more than a text). A subclass has those of its bases, too.
    errors: ClassVar[Mapping[type[Exception], bytes | str]] = {}
    #: The same, and the connection closes behind them.
    fatalErrors: ClassVar[Mapping[type[Exception], bytes | str]] = {}
    #: Both mappings in one, and the way back from a code to its exception.
    allErrors: ClassVar[dict[type[Exception], bytes]] = {}
    reverseErrors: ClassVar[dict[bytes, type[Exception]]] = {}
    #: The classes of the boxes that carry the question and the answer: they may do something to the
    #: connection when they are sent.
    commandType: ClassVar[type[Box]] = Box
    responseType: ClassVar[type[Box]] = Box
    #: Whether the caller wants an answer. The responder returns one in any case: the caller decides.
    requiresAnswer: bool = True

    # What this class itself declares of errors: their codes, and whether they are fatal.
    _declared: ClassVar[dict[type[Exception], tuple[bytes, bool]]] = {}
    _arguments: ClassVar[Schema] = Schema([], "Command")
    _response: ClassVar[Schema] = Schema([], "Command")
    # How question and answer are written at once, where no subclass does it in another way; and what
    # stands for any question that was: the answer can be taken without knowing what was asked.
    _template: ClassVar[Template | None] = None
    _response_template: ClassVar[Template | None] = None
    _any_question: ClassVar[Command]

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        name = cls.__name__
        cls.commandName = wire_name(vars(cls).get("commandName", name), f"the command {name}")
        cls._arguments = schema_for(cls.arguments, f"the command {name}")
        cls._response = schema_for(cls.response, f"the answer to {name}")
        cls.arguments = cls._arguments.pairs
        cls.response = cls._response.pairs
        cls._template = cls._response_template = None
        if cls.commandType is Box and all(
            map(cls._inherits, ("__init__", "makeArguments", "_doCommand"))
        ):
            cls._template = Template.of(cls._arguments, ASK, _command=cls.commandName)
            cls._any_question = cls.__new__(cls)
        if cls.responseType is Box and cls._inherits("makeResponse"):
            cls._response_template = Template.of(cls._response, ANSWER)
        cls._declared = _declared_errors(cls)
        merged: dict[type[Exception], tuple[bytes, bool]] = {}
        for base in reversed(cls.__mro__):
            known = vars(base).get("_declared")
            merged.update(_declared_errors(base) if known is None else known)
        cls.errors = {error: code for error, (code, fatal) in merged.items() if not fatal}
        cls.fatalErrors = {error: code for error, (code, fatal) in merged.items() if fatal}
        cls.allErrors = {error: code for error, (code, _) in merged.items()}
        cls.reverseErrors = {code: error for error, code in cls.allErrors.items()}

    @classmethod
    def _inherits(cls, *methods: str) -> bool:
        """Return whether a subclass has left these methods as they are here."""
        return all(inspect.getattr_static(cls, name) is vars(Command)[name] for name in methods)

    def __init__(self, **kw: Any) -> None:
        self._arguments.check(kw)
        self.structured = kw

    @classmethod
    def makeArguments(cls, objects: Mapping[str, Any], proto: Any) -> Box:
        """Return the box that asks the question; `objects` has the arguments by their Python names.

        Raises `InvalidSignature` for missing or unknown names, or the error of an argument.
        """
        return cls._arguments.encode(objects, cls.commandType(), proto)

    @classmethod
    def makeResponse(cls, objects: Mapping[str, Any], proto: Any) -> Box:
        """Return the box that answers the question; raises as `makeArguments` does."""
        return cls._response.encode(objects, cls.responseType(), proto)

    @classmethod
    def parseArguments(cls, box: Mapping[bytes, bytes], proto: Any) -> dict[str, Any]:
        """Return the arguments in `box`; `MalformedAmpBox` where one is missing or malformed."""
        return cls._arguments.decode(box, proto)

    @classmethod
    def parseResponse(cls, box: Mapping[bytes, bytes], proto: Any) -> dict[str, Any]:
        """Return the answer in `box`; `MalformedAmpBox` where a value is missing or malformed."""
        return cls._response.decode(box, proto)

    @classmethod
    def responder(cls, methodfunc: _Responder) -> _Responder:
        """Declare a method of a `CommandLocator`, such as `AMP`, to be what answers this command.

        It is called with the arguments by keyword, and returns the answer as a dictionary, or is an
        `async def` that does; None will do where the answer has no values. The method is found by
        its name: an override in a subclass answers in its place, decorated or not. One method may
        answer several commands.
        """
        methodfunc.__dict__.setdefault("_ampCommands", []).append(cls)
        return methodfunc

    def _doCommand(self, proto: Any) -> asyncio.Future[Any]:
        """Ask this question of the peer of `proto`, and return the future of its answer."""
        box = self.makeArguments(self.structured, proto)
        future: asyncio.Future[Any] = proto._sendBoxCommand(
            self.commandName, box, self.requiresAnswer, self
        )
        return future

    def _answered(self, box: Box, proto: Any, future: asyncio.Future[Any]) -> None:
        if future.done():
            self._response.discard(box, proto)
            return
        try:
            answer = self.parseResponse(box, proto)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(answer)

    def _translated(self, error: RemoteAmpError) -> Exception:
        exception = super()._translated(error)
        if exception is not error:
            return exception
        declared = self.reverseErrors.get(error.errorCode, UnknownRemoteError)
        # An exception that wants more than a text is still the one that the caller expects; only if it
        # cannot even be made without does the caller get what came.
        for make in (declared, partial(declared.__new__, declared)):
            with contextlib.suppress(Exception):
                return make(error.description)
        return error


def _declared_errors(cls: type) -> dict[type[Exception], tuple[bytes, bool]]:
    """Return the errors that a class itself declares: the code of each, and whether it is fatal."""
    declared: dict[type[Exception], tuple[bytes, bool]] = {}
    for attribute, fatal in (("errors", False), ("fatalErrors", True)):
        what = f"{attribute} of the command {cls.__name__}"
        given: Any = vars(cls).get(attribute, {})
        pairs: Iterable[Any] = given.items() if isinstance(given, Mapping) else given
        for error, code in pairs:
            if not (isinstance(error, type) and issubclass(error, Exception)):
                raise TypeError(f"{what}: {error!r} is no subclass of Exception")
            if issubclass(error, StopIteration):
                raise TypeError(f"{what}: no future can raise {error!r}")
            code = wire_name(code, what)
            if code in PROTOCOL_ERRORS:
                raise ValueError(f"{what}: the code {code!r} is one of AMP's own")
            declared[error] = (code, fatal)
    return declared
