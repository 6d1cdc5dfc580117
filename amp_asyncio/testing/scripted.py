"""A scripted peer: it expects commands, answers them as it was told, and says what went differently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

from ..amp import AMP
from ..commands.command import PROTOCOL_ERRORS, Command
from ..errors import ConnectionLost, MalformedAmpBox, RemoteAmpError, shortened
from ..wire.boxes import ASK, UNKNOWN_ERROR_CODE, AmpBox, Box

__all__ = ["Expectation", "ScriptedPeer"]

_Responder: TypeAlias = Callable[[AmpBox], AmpBox | Awaitable[AmpBox]]

# The code of the error that answers a command which was not expected.
UNEXPECTED = b"UNEXPECTED"


class Expectation:
    """A command that a `ScriptedPeer` expects, and what is to become of it; `expect` makes one.

    One of `answer`, `fail`, `never`, `write` and `hang_up` says what to do when the command comes. It
    may be called later: a command that has come waits until then. Each returns the expectation, and
    raises `RuntimeError` where one of them has been called already.

    Attributes:
        arguments: the arguments that came, by name; None before they came.
    """

    arguments: dict[str, Any] | None = None

    def __init__(
        self, peer: ScriptedPeer, command: type[Command[Any]], expected: dict[str, Any]
    ) -> None:
        self._peer = peer
        self._command = command
        self._expected = expected
        # Set when the command has come, or when the wait for it ends.
        self._known = asyncio.Event()
        self._reason: Exception | None = None
        # What to do, with the tag of the question; returns the answer, or None for no answer.
        self._outcome: Callable[[bytes], AmpBox | None] | None = None
        self._tag = b""
        self._waiting: asyncio.Future[AmpBox] | None = None

    # --- what to do ---

    def answer(self, response: Any = None) -> Expectation:
        """Answer with what a responder would return: a dictionary, the answer's class, or nothing."""
        return self._do(partial(self._answer, response))

    def fail(self, error: Exception) -> Expectation:
        """Answer with the error that the caller gets where a responder raises `error`.

        An error that the command does not declare arrives as `UnknownRemoteError`, and is not logged.
        `UnhandledCommand` and `RemoteAmpError` arrive as they are.
        """
        return self._do(partial(self._fail, error))

    def never(self) -> Expectation:
        """Never answer. The connection stays open."""
        return self._do(lambda tag: None)

    def write(self, data: bytes | Callable[[bytes], bytes]) -> Expectation:
        """Write `data` as it is, and nothing else, in place of an answer.

        It may be a function that makes it of the tag of the question. For example,
        `lambda tag: AmpBox(_answer=tag, total=b"many").serialize()` is an answer with a wrong value.
        """
        return self._do(partial(self._write, data))

    def hang_up(self) -> Expectation:
        """Abort the connection in place of an answer."""
        return self._do(self._hang_up)

    async def received(self) -> dict[str, Any]:
        """Wait until the command has come, and return its arguments.

        Raises `AssertionError` where a command comes that was not expected, and `ConnectionLost` where
        the connection is lost before. Cancelling it only ends the wait.
        """
        await self._known.wait()
        if self.arguments is None and self._reason is not None:
            raise self._reason
        return self.arguments or {}

    def _do(self, outcome: Callable[[bytes], AmpBox | None]) -> Expectation:
        if self._outcome is not None:
            raise RuntimeError(f"it was said already what becomes of {self}")
        self._outcome = outcome
        if self._waiting is not None and not self._waiting.done():
            self._settle(self._waiting)
        return self

    def _answer(self, response: Any, tag: bytes) -> AmpBox:
        if response is None and not self._command.__amp__.is_typed:
            response = {}
        try:
            return self._command.makeResponse(response, self._peer)
        except Exception as error:
            self._peer.complain(f"the answer to {self} does not encode: {error!r}")
            raise RemoteAmpError(UNEXPECTED, "the scripted answer does not encode") from error

    def _fail(self, error: Exception, tag: bytes) -> AmpBox:
        command = self._command
        if isinstance(error, RemoteAmpError):
            raise RemoteAmpError(error.errorCode, error.description, error.fatal)
        codes = {**{kind: code for code, kind in PROTOCOL_ERRORS.items()}, **command.allErrors}
        for kind in type(error).__mro__:
            if kind in codes:
                failed = RemoteAmpError(codes[kind], str(error), kind in command.fatalErrors, error)
                failed.failure = command.__amp__.failures.get(kind)
                raise failed
        raise RemoteAmpError(UNKNOWN_ERROR_CODE, "Unknown Error")

    def _write(self, data: bytes | Callable[[bytes], bytes], tag: bytes) -> None:
        transport = self._peer.transport
        assert transport is not None, "a command that has come waits only while it is connected"
        # Answers of this turn leave before.
        asyncio.get_running_loop().call_soon(
            transport.write, data if isinstance(data, bytes) else data(tag)
        )

    def _hang_up(self, tag: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._peer.abort)

    # --- what comes ---

    @property
    def came(self) -> bool:
        """Whether the command has come."""
        return self.arguments is not None

    def _matches(self, command: type[Command[Any]], arguments: dict[str, Any]) -> bool:
        """Return whether a command is the one that is expected."""
        return command is self._command and all(
            name in arguments and arguments[name] == value for name, value in self._expected.items()
        )

    def _begin(self, arguments: dict[str, Any], box: AmpBox) -> AmpBox | Awaitable[AmpBox]:
        """Take the command in `box`; return the answer, or a future of it."""
        self.arguments = arguments
        self._tag = box.get(ASK, b"")
        self._known.set()
        if self._outcome is not None:
            answer = self._outcome(self._tag)
            if answer is not None:
                return answer
        if ASK not in box:
            return AmpBox()
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting

    def _settle(self, waiting: asyncio.Future[AmpBox]) -> None:
        assert self._outcome is not None
        try:
            answer = self._outcome(self._tag)
        except RemoteAmpError as error:
            waiting.set_exception(error)
        else:
            if answer is not None:
                waiting.set_result(answer)

    def _give_up(self, reason: Exception) -> None:
        """Stop waiting for the command to come."""
        if not self.came:
            self._reason = self._reason or reason
            self._known.set()

    def _lose(self) -> None:
        """Forget the question: the connection is lost."""
        self._give_up(ConnectionLost(f"the connection was lost before {self} came"))
        if self._waiting is not None:
            self._waiting.cancel()

    def __repr__(self) -> str:
        return _called(self._command.__name__, self._expected)


class ScriptedPeer(AMP):
    """One side of a `pair` that plays a script: it expects commands, and answers them as it is told.

    For example, `peer.expect(Sum, a=1).answer({"total": 2})`. Commands must come in the order of the
    calls of `expect`, or in any order if `in_order` is false. A command that was not expected is
    answered with an error that says so. A subclass may have responders of its own: they answer the
    commands that no call of `expect` has named.

    `pair` calls `verify` at its end. Elsewhere, the test calls it.
    """

    def __init__(self, *, in_order: bool = True) -> None:
        super().__init__()
        self._script = _Script(in_order)

    def expect(self, command: type[Command[Any]], /, **arguments: Any) -> Expectation:
        """Expect one `command` with these arguments; those that are not named may have any value.

        A value is compared with `==`.
        """
        expectation = Expectation(self, command, arguments)
        self._script.expected.append(expectation)
        self._script.commands[command.commandName] = command
        return expectation

    def verify(self, *, complete: bool = True) -> None:
        """Raise `AssertionError` where the other side did not follow the script.

        The message has what was expected and what came. Unless `complete`, commands that have not come
        yet are ignored.
        """
        report = self._script.report(complete)
        if report is not None:
            raise AssertionError(report)

    def complain(self, problem: str) -> None:
        """Let `verify` fail because of `problem`."""
        self._script.problems.append(problem)

    def locateResponder(self, name: bytes) -> _Responder | None:
        """Return what answers the command `name` by the script, or a responder of the subclass."""
        command = self._script.commands.get(name)
        if command is not None:
            return _ByScript(self, self._script, command)
        # Names that begin with "_" are those of the library.
        responder = super().locateResponder(name)
        if responder is None and not name.startswith(b"_"):
            return partial(self._script.refuse, name)
        return responder

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the commands that wait."""
        super().connection_lost(exc)
        for expectation in self._script.expected:
            expectation._lose()


class _Script:
    """What is expected, and what came."""

    def __init__(self, in_order: bool) -> None:
        self.in_order = in_order
        self.expected: list[Expectation] = []
        self.commands: dict[bytes, type[Command[Any]]] = {}
        self.came: list[str] = []
        self.problems: list[str] = []

    def next(self, command: type[Command[Any]], arguments: dict[str, Any]) -> Expectation | None:
        """Return the expectation that a command is, or None."""
        pending = [expectation for expectation in self.expected if not expectation.came]
        for expectation in pending[:1] if self.in_order else pending:
            if expectation._matches(command, arguments):
                return expectation
        return None

    def unexpected(self, what: str) -> RemoteAmpError:
        """Record a command that was not expected; return the error that answers it."""
        self.came.append(f"{what} - not expected")
        self.problems.append(f"{what} was not expected")
        for expectation in self.expected:
            expectation._give_up(AssertionError(self.report(complete=False)))
        return RemoteAmpError(UNEXPECTED, f"the scripted peer did not expect {what}")

    def refuse(self, name: bytes, box: AmpBox) -> AmpBox:
        """Answer a command of which no schema is known."""
        values = {key.decode("ascii", "replace"): box[key] for key in box if key[:1] != b"_"}
        raise self.unexpected(_called(name.decode("ascii", "replace"), values))

    def report(self, complete: bool) -> str | None:
        """Return what to say where something went differently, or None."""
        problems = list(self.problems)
        if complete:
            problems += [f"{it} did not come" for it in self.expected if not it.came]
        if not problems:
            return None
        expected = [f"{it} - {'came' if it.came else 'did not come'}" for it in self.expected]
        order = "in this order" if self.in_order else "in any order"
        return "\n".join(
            [
                "; ".join(problems),
                f"expected, {order}:",
                *_listed(expected),
                "came:",
                *_listed(self.came),
            ]
        )


class _ByScript:
    """The responder of one command."""

    def __init__(self, peer: ScriptedPeer, script: _Script, command: type[Command[Any]]) -> None:
        self._peer = peer
        self._script = script
        self._command = command
        # StartTLS and switches: nothing that comes after the command is read before it is answered.
        self.changes_connection = command.responseType is not Box

    def __call__(self, box: AmpBox) -> AmpBox | Awaitable[AmpBox]:
        name = self._command.__name__
        try:
            arguments = self._command.parseArguments(box, self._peer)
        except MalformedAmpBox as error:
            raise self._script.unexpected(f"{name} whose arguments do not decode ({error})") from error
        expectation = self._script.next(self._command, arguments)
        if expectation is None:
            raise self._script.unexpected(_called(name, arguments))
        self._script.came.append(_called(name, arguments))
        return expectation._begin(arguments, box)


def _called(name: str, arguments: dict[str, Any]) -> str:
    values = ", ".join(f"{key}={shortened(value)}" for key, value in arguments.items())
    return f"{name}({values})"


def _listed(lines: list[str]) -> list[str]:
    return [f"  {number}. {line}" for number, line in enumerate(lines, 1)] or ["  nothing"]
