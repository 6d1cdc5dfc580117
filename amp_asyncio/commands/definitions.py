"""Definitions: what a session needs of a command, decided once, when the command is defined.

A command's class belongs to its user, who may give it any attribute. So what this package keeps about
it is in an object of its own, under one reserved name, `Command.__amp__`.
"""

from __future__ import annotations

import contextlib
from collections import ChainMap
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..errors import (
    CallCancelled,
    DeadlineExceeded,
    NotServing,
    RemoteAmpError,
    UnhandledCommand,
    UnknownRemoteError,
)
from ..wire.boxes import ANSWER, ASK, COMMAND, UNHANDLED_ERROR_CODE, Box
from ..wire.compiling import derivable
from ..wire.extensions import (
    CANCELLED_ERROR_CODE,
    DEADLINE_ERROR_CODE,
    NOT_SERVING_ERROR_CODE,
    take_keys,
)
from .templates import Template

if TYPE_CHECKING:
    from .command import Command
    from .failures import Failure
    from .schemas import Schema

__all__ = ["ENDING", "PROTOCOL_ERRORS", "ByName", "Definition", "alone", "raisable"]

_Read: TypeAlias = Callable[[Mapping[bytes, bytes], Any], Any]

#: The errors of the protocol: any command may fail with them, and none may declare their codes.
PROTOCOL_ERRORS: dict[bytes, type[Exception]] = {
    UNHANDLED_ERROR_CODE: UnhandledCommand,
    CANCELLED_ERROR_CODE: CallCancelled,
    DEADLINE_ERROR_CODE: DeadlineExceeded,
    NOT_SERVING_ERROR_CODE: NotServing,
}

#: What ends the process: the event loop lets it pass, and so does every part of this package.
ENDING: Final = (SystemExit, KeyboardInterrupt)


def raisable(error: BaseException) -> Exception:
    """Return `error`, or one in its place if a future that raises it would mislead who awaits it.

    No future can raise `StopIteration`. `CancelledError` would look like the caller's own cancellation.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    other = RuntimeError(repr(error))
    other.__cause__ = error
    return other


def alone(error: BaseException) -> BaseException:
    """Return the only error in an exception group, as a `TaskGroup` raises it, or else `error`."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@derivable
class ByName:
    """What takes the answer to a question that was asked by the command's name alone.

    The session calls one of the two methods, once, as soon as the answer comes: the bytes after the
    answer have not been looked at yet. `session` is the one that asked.
    """

    __slots__ = ()

    #: Whether the peer is told when the caller no longer waits.
    tells_cancelled = True
    #: Whether the question counts against the window until it is answered.
    counted = True

    @property
    def hint(self) -> str:
        """What the error says about a command without a responder."""
        return "the peer has no responder for it"

    @property
    def may_claim(self) -> bool:
        """Whether the answer may have a descriptor in it."""
        return True

    def answered(self, box: Box, session: Any, future: Any) -> None:
        """Resolve `future`, unless it was cancelled, with what `box` says."""
        if not future.done():
            if session.extended:
                take_keys(box)
            future.set_result(box)

    def failed(self, error: RemoteAmpError, session: Any, future: Any) -> None:
        """Fail `future`, unless it was cancelled, with the exception that `error` stands for."""
        if not future.done():
            future.set_exception(raisable(self.translated(error, session)))

    def translated(self, error: RemoteAmpError, session: Any) -> Exception:
        """Return the exception that an error box means."""
        protocol_error = PROTOCOL_ERRORS.get(error.errorCode)
        if protocol_error is None:
            return error
        if protocol_error is UnhandledCommand:
            return UnhandledCommand(f"{error.description!s} ({self.hint})")
        return protocol_error(str(error.description))


@derivable
class Definition(ByName):
    """What is known of a command from its definition.

    `inherits` tells whether the command has left these methods as `Command` has them.

    Attributes:
        arguments: the schema of a question, and `response` that of its answer.
        keys: the keys that a question may have on the wire.
        pairs: how many of them each question has; 0 if that differs, or if something may look at all of
            them.
        apart: whether a command does not wait for its turn: it changes the connection, or opens a
            stream.
        read_question: reads the arguments in a box, for an AMP; `read_answer` reads the answer. They
            are `Command.parseArguments` and `Command.parseResponse`, or what these call.
        check: raises `InvalidSignature` for arguments with which no question can be made.
        template: how a question is written without a box, from the arguments as they are given; None if
            a box is needed. `question_template` is the same for an instance of a typed command.
        response_template: the same for an answer.
        whole_answers: whether something may look at all pairs of an answer.
        opens_stream: whether the command opens a stream.
        declared: the errors that the class itself declares: their codes, and whether they are fatal.
        failures: how the fields of those errors are sent that have any.
    """

    __slots__ = (
        "apart",
        "arguments",
        "check",
        "command",
        "declared",
        "failures",
        "inherits",
        "keys",
        "opens_stream",
        "pairs",
        "question_template",
        "read_answer",
        "read_question",
        "response",
        "response_template",
        "template",
        "whole_answers",
    )

    def __init__(self, command: type[Command[Any]], inherits: Callable[..., bool]) -> None:
        self.command = command
        self.inherits = inherits
        self.opens_stream = False
        self.apart = command.responseType is not Box
        self.declared: dict[type[Exception], tuple[bytes, bool]] = {}
        self.failures: dict[type[Exception], Failure] = {}

    def use(self, arguments: Schema, response: Schema) -> None:
        """Take the schemas, and decide what they make possible."""
        command = self.command
        self.arguments = arguments
        self.response = response
        self.check: Callable[[Mapping[str, Any]], None] = arguments.check
        self.template: Template | None = None
        self.question_template: Template | None = None
        self.response_template: Template | None = None
        if not self.inherits("makeArguments"):
            self.check = arguments.check_missing
        elif command.requiresAnswer and command.commandType is Box and self.inherits("_doCommand"):
            self.use_template(Template.of(arguments, ASK, _command=command.commandName))
        if command.responseType is Box and self.inherits("makeResponse"):
            self.response_template = Template.of(response, ANSWER)
        self.read_question: _Read = command.parseArguments
        self.read_answer: _Read = command.parseResponse
        if self.inherits("parseArguments"):
            self.read_question = arguments.decode
        if self.inherits("parseResponse"):
            self.read_answer = response.decode
        self.keys = frozenset((ASK, COMMAND, *(name for name, _ in arguments.pairs)))
        codecs = arguments.codecs
        same = codecs is not None and not any(codec.optional for codec in codecs)
        plain = same and self.inherits("parseArguments")
        self.pairs = len(arguments.pairs) + 1 + bool(command.requiresAnswer) if plain else 0
        self.whole_answers = response.codecs is None or not self.inherits("parseResponse")

    def use_template(self, template: Template | None) -> None:
        """Take the template of a question."""
        if self.inherits("__init__"):
            self.template = template

    def question(self, arguments: dict[str, Any]) -> Command[Any]:
        """Return the question with arguments that were decoded, as the side has it that asks."""
        question = self.command.__new__(self.command)
        question.structured = arguments
        return question

    @property
    def parameters(self) -> tuple[str, ...] | None:
        """The parameters of a responder; None if an argument, or an override, decides that itself."""
        hooks = [getattr(type(argument), "fromBox", None) for _, argument in self.arguments.pairs]
        ours = all(getattr(hook, "__module__", "").startswith(f"{__package__}.") for hook in hooks)
        return self.arguments.names if ours and self.inherits("parseArguments") else None

    #: What converts the items of a stream: see `typed.py`.
    items: Any = None

    #: Whether the command is declared by annotations; then `answer` is that of its answer.
    is_typed = False
    answer: Any = None

    def try_to_resolve(self, names: ChainMap[str, Any]) -> None:
        """Find out what the annotations say, if all that they name exists; `names` are more names."""

    @property
    def may_claim(self) -> bool:
        return self.response.may_claim

    def answered(self, box: Box, session: Any, future: Any) -> None:
        if future.done():
            self.response.discard(box, session.owner)
            return
        response = self.response
        try:
            if self.whole_answers and session.extended:
                take_keys(box)
            if response.lists and response.in_lists(box, session.limits.max_box_size, isLocal=False):
                session.end_turn()
            answer = self.read_answer(box, session.owner)
        except ENDING:
            raise
        except BaseException as error:
            future.set_exception(raisable(error))
        else:
            future.set_result(answer)

    @property
    def hint(self) -> str:
        name = self.command.__name__
        return f"the peer has no responder for {name}: declare one there, with @{name}.responder"

    def translated(self, error: RemoteAmpError, session: Any) -> Exception:
        exception = super().translated(error, session)
        if exception is not error:
            return exception
        declared = self.command.reverseErrors.get(error.errorCode, UnknownRemoteError)
        failure = self.failures.get(declared)
        if failure is not None:
            most = session.limits.max_box_size
            with contextlib.suppress(Exception):  # It is then made as one without fields.
                return failure.made(error.description, error.fields, session.owner, most)
        # An exception whose constructor takes more than a text is made without its constructor. If even
        # that fails, the caller gets what came.
        for make in (declared, partial(declared.__new__, declared)):
            with contextlib.suppress(Exception):  # A user's constructor may raise anything.
                return make(error.description)
        return error
