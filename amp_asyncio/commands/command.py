"""Commands: the schema of a question, of its answer, and of the errors that may take its place.

A command is a class that its users never instantiate. Both sides share it, or each has its own class
with the same names. `callRemote` makes an instance, which holds the arguments until the question is
sent; the class takes the answer when it comes. (A command that changes the connection needs more than
that: see `session/changes.py`.)
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..errors import TooLong, shortened
from ..wire.boxes import ANSWER, ASK, Box
from .arguments import Argument
from .definitions import PROTOCOL_ERRORS, Definition
from .exchange import drop, schema_for
from .schemas import Schema, wire_name
from .templates import Template

__all__ = ["PROTOCOL_ERRORS", "Command", "CommandType", "check_command", "session_of"]

_Responder = TypeVar("_Responder", bound=Callable[..., Any])


# What a definition is made from. A later change would have no effect, or only half of one.
_DEFINING = frozenset(
    """commandName arguments response errors fatalErrors allErrors reverseErrors
    requiresAnswer commandType responseType makeArguments makeResponse _doCommand""".split()
)


class CommandType(type):
    """The class of the command classes: refuses what is set too late to have an effect."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if name in _DEFINING and "__amp__" in vars(cls):
            raise TypeError(
                f"{cls.__name__}.{name} cannot be set after the command was defined: set it in the "
                f"body of the class, or of a subclass of {cls.__name__}"
            )
        super().__setattr__(name, value)


class Command(metaclass=CommandType):
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
    #: The exceptions that a responder may raise, and their codes on the wire. The caller gets an
    #: exception of the same class, made from the text alone; if its constructor takes more than a text,
    #: it is made without its constructor. **Its attributes do not arrive**: what the caller needs has
    #: to be in the text. A subclass inherits those of its bases.
    errors: ClassVar[Mapping[type[Exception], bytes | str]] = {}
    #: The same for errors after which the connection closes.
    fatalErrors: ClassVar[Mapping[type[Exception], bytes | str]] = {}
    #: Both mappings in one, and the way back from a code to its exception.
    allErrors: ClassVar[dict[type[Exception], bytes]] = {}
    reverseErrors: ClassVar[dict[bytes, type[Exception]]] = {}
    #: The classes of the boxes that carry the question and the answer. One with a `_sendTo` of its own
    #: may act on the connection when it is sent.
    commandType: ClassVar[type[Box]] = Box
    responseType: ClassVar[type[Box]] = Box
    #: Whether the caller wants an answer. The caller decides: the responder returns one in any case.
    requiresAnswer: bool = True
    #: Whether a responder that is an `async def` is cancelled when its answer is not wanted any more:
    #: the caller cancelled, or the connection was lost. None for what the AMP class says. A command
    #: that requires no answer is never cancelled.
    cancellable: ClassVar[bool | None] = None

    # What the package keeps about the command.
    __amp__: ClassVar[Definition]

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        name = cls.__name__
        cls.commandName = wire_name(vars(cls).get("commandName", name), f"the command {name}")
        definition = Definition(
            cls,
            schema_for(cls.arguments, f"the command {name}"),
            schema_for(cls.response, f"the answer to {name}"),
        )
        cls.arguments = definition.arguments.pairs
        cls.response = definition.response.pairs
        if not cls._inherits("makeArguments"):
            definition.check = definition.arguments.check_missing
        elif cls.requiresAnswer and cls.commandType is Box and cls._inherits("__init__", "_doCommand"):
            definition.template = Template.of(definition.arguments, ASK, _command=cls.commandName)
        if cls.responseType is Box and cls._inherits("makeResponse"):
            definition.response_template = Template.of(definition.response, ANSWER)
        definition.declared = _declared_errors(cls)
        merged: dict[type[Exception], tuple[bytes, bool]] = {}
        for base in reversed(cls.__mro__):
            known = definition if base is cls else vars(base).get("__amp__")
            merged.update(_declared_errors(base) if known is None else known.declared)
        cls.errors = {error: code for error, (code, fatal) in merged.items() if not fatal}
        cls.fatalErrors = {error: code for error, (code, fatal) in merged.items() if fatal}
        cls.allErrors = {error: code for error, (code, _) in merged.items()}
        cls.reverseErrors = {code: error for error, code in cls.allErrors.items()}
        cls.__amp__ = definition

    @classmethod
    def _inherits(cls, *methods: str) -> bool:
        """Return whether a subclass has left these methods as they are here."""
        return all(inspect.getattr_static(cls, name) is vars(Command)[name] for name in methods)

    def __init__(self, /, *positional: Any, **kw: Any) -> None:
        if positional:
            name = type(self).__name__
            right = ", ".join([name, *(f"{each}=..." for each in self.__amp__.arguments.names)])
            raise TypeError(
                f"the command {name} takes its arguments by name: write callRemote({right})"
            )
        self.__amp__.check(kw)
        self.structured = kw

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(_values(self))})"

    @classmethod
    def makeArguments(cls, objects: Mapping[str, Any], proto: Any) -> Box:
        """Return the box that asks the question; `objects` has the arguments by their Python names.

        Raises `InvalidSignature` for missing or unknown names, or the error of an argument. An override
        may take keywords that are not in `arguments`, if it passes on what is.
        """
        return cls.__amp__.arguments.encode(objects, cls.commandType(), proto)

    @classmethod
    def makeResponse(cls, objects: Mapping[str, Any], proto: Any) -> Box:
        """Return the box that answers the question; raises as `makeArguments` does."""
        return cls.__amp__.response.encode(objects, cls.responseType(), proto)

    @classmethod
    def parseArguments(cls, box: Mapping[bytes, bytes], proto: Any) -> dict[str, Any]:
        """Return the arguments in `box`; `MalformedAmpBox` where one is missing or malformed."""
        return cls.__amp__.arguments.decode(box, proto)

    @classmethod
    def parseResponse(cls, box: Mapping[bytes, bytes], proto: Any) -> dict[str, Any]:
        """Return the answer in `box`; `MalformedAmpBox` where a value is missing or malformed."""
        return cls.__amp__.response.decode(box, proto)

    if TYPE_CHECKING:

        @classmethod
        def responder(cls, methodfunc: _Responder) -> _Responder: ...

    else:

        @classmethod
        def responder(cls, methodfunc=None):
            """Declare that a method of a `CommandLocator`, such as `AMP`, answers this command.

            It is called with the arguments by keyword, and returns the answer as a dictionary, or is an
            `async def` that does. It may return None if the answer has no values. The method is found
            by its name: an override in a subclass answers in its place, decorated or not. One method
            may answer several commands.
            """
            if isinstance(methodfunc, type) or not hasattr(methodfunc, "__dict__"):
                given = "" if methodfunc is None else f", not {shortened(methodfunc)}"
                raise TypeError(
                    f"{cls.__name__}.responder decorates a method{given}: write "
                    f"@{cls.__name__}.responder above its def, without parentheses"
                )
            methodfunc.__dict__.setdefault("__amp_answers__", []).append(cls)
            namespace = sys._getframe(1).f_locals
            if "__qualname__" in namespace:  # The body of a class, which must have a name for it.
                namespace.setdefault("__amp_declared__", []).append(cls)
            return methodfunc

    def _doCommand(self, proto: Any) -> Any:
        """Ask this question of the peer of `proto`, and return the future of its answer."""
        session = session_of(proto)
        box = self.makeArguments(self.structured, proto)
        definition = self.__amp__
        try:
            in_lists = definition.arguments.in_lists(box, session.limits.max_box_size)
        except TooLong:
            drop(box)
            raise
        asked = definition if self.requiresAnswer else None
        return session.calls.ask(self.commandName, box, asked, in_lists)


Command.__amp__ = Definition(Command, Schema([], "Command"), Schema([], "the answer to Command"))


def check_command(given: Any) -> None:
    """Raise `TypeError` unless `given` is a command class, with what to write in its place."""
    if isinstance(given, CommandType):
        return
    problem = f"callRemote takes a subclass of Command, not {shortened(given)}"
    if isinstance(given, str | bytes):
        problem += (
            f"; without a class, write callRemoteString({given!r}, ...), with bytes for arguments"
        )
    elif isinstance(given, Command):
        problem += f": write callRemote({', '.join([type(given).__name__, *_values(given)])})"
    raise TypeError(problem)


def _values(question: Command) -> list[str]:
    """Return the arguments of a question as they are written in a call."""
    return [f"{name}={shortened(value)}" for name, value in question.structured.items()]


def session_of(proto: Any) -> Any:
    """Return the session of an `AMP` or another dispatcher; raises `TypeError` for anything else."""
    session = getattr(proto, "__amp__", None)
    if session is None:
        raise TypeError(f"a command is asked through an AMP or a BoxDispatcher, not through {proto!r}")
    return session


def _declared_errors(cls: type) -> dict[type[Exception], tuple[bytes, bool]]:
    """Return the errors that a class itself declares: the code of each, and whether it is fatal."""
    declared: dict[type[Exception], tuple[bytes, bool]] = {}
    for attribute, fatal in (("errors", False), ("fatalErrors", True)):
        what = f"{attribute} of the command {cls.__name__}"
        given: Any = vars(cls).get(attribute, {})
        try:
            # Twisted takes a sequence of pairs as well.
            pairs: Iterable[tuple[Any, Any]] = dict(given).items()
        except (TypeError, ValueError):
            raise TypeError(
                f"{what}: a dictionary of exceptions and their codes is needed, such as "
                f"{{ValueError: b'VALUE_ERROR'}}, not {given!r}"
            ) from None
        for error, code in pairs:
            if not (isinstance(error, type) and issubclass(error, Exception)):
                raise TypeError(f"{what}: {error!r} is not a subclass of Exception")
            if issubclass(error, StopIteration):
                raise TypeError(f"{what}: no future can raise {error!r}")
            code = wire_name(code, what)
            if code in PROTOCOL_ERRORS:
                raise ValueError(f"{what}: the code {code!r} is one of AMP's own")
            declared[error] = (code, fatal)
    return declared
