"""Commands: the schema of a question, of its answer, and of the errors that may take its place.

A command is a class that its users never instantiate. Both sides share it, or each has its own class
with the same names. `callRemote` makes an instance, which holds the arguments until the question is
sent; the class takes the answer when it comes. (A command that changes the connection needs more than
that: see `session/changes.py`.)
"""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    overload,
)

from ..errors import TooLong, shortened
from ..wire.boxes import Box
from ..wire.extensions import COMMANDS
from .arguments import Argument
from .declared import declare_errors
from .definitions import PROTOCOL_ERRORS, Definition
from .exchange import drop, schema_for
from .mistakes import check_spelling, is_class_variable
from .names import wire_name
from .schemas import Schema
from .scopes import local_names
from .warning import warn_of_name

if TYPE_CHECKING:
    from attrs import field as _field
    from typing_extensions import TypeVar as _TypeVar  # With a default, which typing's has from 3.13.

    _Answer = _TypeVar("_Answer", covariant=True, default=dict[str, Any])
else:
    _field = None  # attrs is imported when the first typed command is defined.
    _Answer = TypeVar("_Answer", covariant=True)

__all__ = [
    "PROTOCOL_ERRORS",
    "Command",
    "CommandType",
    "asked_on",
    "not_a_question",
    "question_of",
    "session_of",
    "terms_of",
]

_Responder = TypeVar("_Responder", bound=Callable[..., Any])
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Self = TypeVar("_Self")


# What a definition is made from. A later change would have no effect, or only half of one.
_DEFINING = frozenset(
    """commandName arguments response errors fatalErrors allErrors reverseErrors
    requiresAnswer commandType responseType makeArguments makeResponse _doCommand""".split()
)


# Where a question has its terms while it is being asked.
_TERMS = "__amp_terms__"


class CommandType(type):
    """The class of the command classes: refuses what is set too late to have an effect."""

    __amp__: Definition

    def __setattr__(cls, name: str, value: Any) -> None:
        if name in _DEFINING and "__amp__" in vars(cls):
            raise TypeError(
                f"{cls.__name__}.{name} cannot be set after the command was defined: set it in the "
                f"body of the class, or of a subclass of {cls.__name__}"
            )
        super().__setattr__(name, value)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(_field,))
class Command(Generic[_Answer], metaclass=CommandType):
    """What one side can ask of the other; subclass it, and set what differs from the defaults.

    `class Sum(Command[Total])` is a typed command: its annotations are the fields of a question, and
    `Total`, an attrs class or a dataclass, has those of the answer. `Command[int], answer="number"` is
    for an answer of one value, and `Command[None]` for one without values. attrs makes the class; its
    instances are the questions: `await peer.call(Sum(a=13, b=81))`.

    `class Sum(Command)` has pairs in `arguments` and `response`, and both are dictionaries.

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
    #: exception of the same class. If that is an attrs class or a dataclass, its fields arrive as well.
    #: Any other is made from the text alone; if its constructor takes more than a text, it is made
    #: without its constructor. **Its attributes do not arrive**: what the caller needs has to be in the
    #: text. A subclass inherits those of its bases.
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
    requiresAnswer: ClassVar[bool] = True
    #: Whether an `async def` responder is cancelled when its caller gives up, or the connection is
    #: lost. None: as the AMP class says. That of a command without an answer is never cancelled.
    cancellable: ClassVar[bool | None] = None
    #: Whether a peer finds it before its identity is known, where the AMP class is `identified_only`.
    public: ClassVar[bool] = False

    #: Whether a `Client` may ask a second time, when the connection was lost before the answer came. It
    #: says that twice is as good as once.
    idempotent: ClassVar[bool] = False

    # What the package keeps about the command.
    __amp__: ClassVar[Definition]

    def __init_subclass__(cls, answer: str | None = None, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        name = cls.__name__
        cls.commandName = wire_name(vars(cls).get("commandName", name), f"the command {name}")
        warn_of_name(cls.commandName, f"the command {name}", cls.commandName in COMMANDS)
        check_spelling(cls)
        given = _answer_of(cls, answer)
        if given is None:
            _check_fields(cls)
            definition = Definition(cls, partial(_inherits, cls))
            definition.use(
                schema_for(cls.arguments, f"the command {name}"),
                schema_for(cls.response, f"the answer to {name}"),
            )
            cls.arguments = definition.arguments.pairs
            cls.response = definition.response.pairs
        else:
            from .typed import define

            names = local_names()
            definition = define(cls, given, partial(_inherits, cls), _OWN_NAMES, names)
        declare_errors(cls, definition)
        cls.__amp__ = definition
        if definition.is_typed:
            definition.try_to_resolve(ChainMap())

    def __init__(self, /, *positional: Any, **kw: Any) -> None:
        if positional:
            raise _by_name(type(self))
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
    def makeResponse(cls, objects: Any, proto: Any) -> Box:
        """Return the box that answers the question; raises as `makeArguments` does."""
        return cls.__amp__.response.encode(objects, cls.responseType(), proto)

    @classmethod
    def parseArguments(cls, box: Mapping[bytes, bytes], proto: Any) -> dict[str, Any]:
        """Return the arguments in `box`; `MalformedAmpBox` where one is missing or malformed."""
        # (What a schema returns depends on its shape.)
        arguments: dict[str, Any] = cls.__amp__.arguments.decode(box, proto)
        return arguments

    @classmethod
    def parseResponse(cls, box: Mapping[bytes, bytes], proto: Any) -> Any:
        """Return the answer in `box`; `MalformedAmpBox` where a value is missing or malformed."""
        return cls.__amp__.response.decode(box, proto)

    if TYPE_CHECKING:

        @overload
        @classmethod
        def responder(cls: type[Command[dict[str, Any]]], methodfunc: _Responder) -> _Responder: ...
        @overload
        @classmethod  # pyright: ignore[reportArgumentType]  # `cls` stands for its constructor.
        def responder(
            cls: Callable[_P, Command[_R]],
            methodfunc: Callable[Concatenate[_Self, _P], Coroutine[Any, Any, _R]],
        ) -> Callable[Concatenate[_Self, _P], Coroutine[Any, Any, _R]]: ...
        @overload
        @classmethod  # pyright: ignore[reportArgumentType]  # `cls` stands for its constructor.
        def responder(
            cls: Callable[_P, Command[_R]],
            methodfunc: Callable[Concatenate[_Self, _P], Awaitable[_R]],
        ) -> Callable[Concatenate[_Self, _P], Awaitable[_R]]: ...
        @overload
        @classmethod  # pyright: ignore[reportArgumentType]  # `cls` stands for its constructor.
        def responder(
            cls: Callable[_P, Command[_R]], methodfunc: Callable[Concatenate[_Self, _P], _R]
        ) -> Callable[Concatenate[_Self, _P], _R]: ...
        @classmethod
        def responder(cls: Any, methodfunc: Any) -> Any: ...

    else:

        @classmethod
        def responder(cls, methodfunc=None):
            """Declare that a method of a `CommandLocator`, such as `AMP`, answers this command.

            It is called with the arguments by keyword, and returns the answer, or is an `async def`
            that does: an instance of the class, the value, or None for a typed command, and else a
            dictionary, or None if the answer has no values. The method is found by its name: an
            override in a subclass answers in its place, decorated or not. One method may answer several
            commands.
            """
            if isinstance(methodfunc, type) or not hasattr(methodfunc, "__dict__"):
                given = "" if methodfunc is None else f", not {shortened(methodfunc)}"
                raise TypeError(
                    f"{cls.__name__}.responder decorates a method{given}: write "
                    f"@{cls.__name__}.responder above its def, without parentheses"
                )
            methodfunc.__dict__.setdefault("__amp_answers__", []).append(cls)
            if cls.__amp__.is_typed:
                cls.__amp__.try_to_resolve(local_names())
            frame = inspect.currentframe()
            namespace = frame.f_back.f_locals if frame is not None and frame.f_back is not None else {}
            if "__qualname__" in namespace:  # The body of a class, which must have a name for it.
                namespace.setdefault("__amp_declared__", []).append(cls)
            return methodfunc

    def _doCommand(self, proto: Any) -> Any:
        """Ask this question of the peer of `proto`, and return the future of its answer."""
        session = session_of(proto)
        definition = self.__amp__
        box = self.makeArguments(self.structured, proto)
        try:
            in_lists = definition.arguments.in_lists(box, session.limits.max_box_size)
        except TooLong:
            drop(box)
            raise
        asked = definition if self.requiresAnswer else None
        terms = terms_of(self)
        return session.ask(
            self.commandName, box, asked, in_lists, terms=terms, question=self, amp=proto
        )


def _inherits(command: type[Command[Any]], *methods: str) -> bool:
    """Return whether a command has left these methods as `Command` has them."""
    return all(inspect.getattr_static(command, name) is vars(Command)[name] for name in methods)


Command.__amp__ = Definition(Command, partial(_inherits, Command))
Command.__amp__.use(Schema([], "Command"), Schema([], "the answer to Command"))

# What a field of a typed command cannot be called: it would hide what the package calls, or the first
# parameter of a responder.
_OWN_NAMES = frozenset(name for name in dir(Command) if not name.startswith("__"))
_OWN_NAMES |= {"self", "structured", "__amp__"}


def _answer_of(cls: type[Command[Any]], single: str | None) -> tuple[Any, str | None, type] | None:
    """Return the type of a typed command's answer, its name if it is one value, and who says so.

    Return None for a command whose arguments and answer are pairs.
    """
    name = cls.__name__
    if getattr(cls, "__parameters__", ()):
        raise TypeError(
            f"{name}: a command cannot be generic: write a class for each type of the answer"
        )
    for hint in vars(cls).get("__orig_bases__", ()):
        if isinstance(get_origin(hint), CommandType):
            return get_args(hint)[-1], single, cls
    if single is not None:
        raise TypeError(f"{name}: answer= names an answer of one value: write Command[its type]")
    for base in cls.__mro__[1:]:
        definition = vars(base).get("__amp__")
        if isinstance(definition, Definition) and definition.is_typed:
            inherited: tuple[Any, str | None, type] = definition.answer
            return inherited
    return None


def _check_command(given: Any) -> None:
    """Raise `TypeError` unless `given` is a command class, with what to write in its place."""
    if isinstance(given, CommandType):
        return
    problem = f"callRemote takes a subclass of Command, not {shortened(given)}"
    if isinstance(given, str | bytes):
        problem += (
            f"; without a class, write callRemoteString({given!r}, ...), with bytes for arguments"
        )
    elif isinstance(given, Command):
        if given.__amp__.is_typed:
            problem += ": write call(...) for a question"
        else:
            problem += f": write callRemote({', '.join([type(given).__name__, *_values(given)])})"
    raise TypeError(problem)


def _check_fields(cls: type[Command[Any]]) -> None:
    """Raise `TypeError` for a field in a command that is not typed: it would have no effect."""
    own = vars(cls)
    for field, hint in own.get("__annotations__", {}).items():
        if field not in own and "arguments" not in own and not is_class_variable(hint):
            name = cls.__name__
            raise TypeError(
                f"{name}.{field} is a field, and {name} says nothing of its answer: write "
                f"class {name}(Command[None]), or the type of the answer"
            )


def not_a_question(given: Any) -> TypeError:
    """Return the error of a `call` that was given something else, with what to write in its place."""
    if isinstance(given, CommandType):
        names = ", ".join(f"{name}=..." for name in given.__amp__.arguments.names)
        given = given.__name__
        return TypeError(f"call takes a question, not its class: write call({given}({names}))")
    return TypeError(f"call takes a question, such as Sum(a=1, b=2), not {shortened(given)}")


def question_of(command: Any, positional: tuple[Any, ...], kw: dict[str, Any]) -> Command[Any]:
    """Return the question that `callRemote` is to ask; raises as it says there."""
    _check_command(command)
    try:
        question: Command[Any] = command(*positional, **kw)
    except TypeError:
        definition = command.__amp__
        if definition.is_typed:
            if positional:
                raise _by_name(command) from None
            definition.check(kw)
        raise
    return question


def _by_name(command: type[Command[Any]]) -> TypeError:
    """Return the error of arguments without their names."""
    name = command.__name__
    right = ", ".join([name, *(f"{each}=..." for each in command.__amp__.arguments.names)])
    return TypeError(f"the command {name} takes its arguments by name: write callRemote({right})")


def _values(question: Command[Any]) -> list[str]:
    """Return the arguments of a question as they are written in a call."""
    return [f"{name}={shortened(value)}" for name, value in question.structured.items()]


@contextmanager
def asked_on(question: Command[Any], terms: Any) -> Iterator[None]:
    """Have a question asked on these terms by its `_doCommand`, which takes none."""
    vars(question)[_TERMS] = terms
    try:
        yield
    finally:
        del vars(question)[_TERMS]


def terms_of(question: Command[Any]) -> Any:
    """Return the terms on which a question is being asked, or None."""
    return vars(question).get(_TERMS)


def session_of(proto: Any) -> Any:
    """Return the session of an `AMP` or another dispatcher; raises `TypeError` for anything else."""
    session = getattr(proto, "__amp__", None)
    if session is None:
        raise TypeError(f"a command is asked through an AMP or a BoxDispatcher, not through {proto!r}")
    return session
