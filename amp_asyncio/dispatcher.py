"""The dispatcher: who asked what, and who is answering whom.

It sits between boxes and people. Towards the peer it numbers the questions, keeps a future for each,
and resolves it when the answer comes, in whatever order they come. Towards us it finds the responder
of each command, runs it, and sends back what it returns or why it failed. It knows no bytes, no
transport, and none of the commands that change the connection.

A question that is cancelled stays on the books until its answer comes: that is how a late answer is
told from one that answers nothing. So cancelling costs nothing, and neither does not cancelling.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable
from typing import Any, TypeAlias

from .boxes import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    MAX_VALUE_LENGTH,
    UNHANDLED_ERROR_CODE,
    UNKNOWN_ERROR_CODE,
    AmpBox,
    BoxSender,
    QuitBox,
)
from .commands import Command, Question
from .errors import (
    BadArguments,
    BadLocalReturn,
    ConnectionLost,
    MalformedAmpBox,
    NoEmptyBoxes,
    ProtocolSwitched,
    RemoteAmpError,
    UnknownRemoteError,
    shortened,
)
from .locators import Responder, ResponderLocator

__all__ = ["BoxDispatcher"]

logger = logging.getLogger("amp_asyncio")

_AnyFuture: TypeAlias = asyncio.Future[Any]

# From Python 3.12 on, a responder that does not wait is done at once, without a trip through the loop.
_EAGERLY: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class BoxDispatcher:
    """Asks, answers, and keeps them apart; `locator` finds the responders."""

    #: Whether the connection closes behind an error that the command does not declare, as AMP has it.
    closeOnUnknownError = True

    boxSender: BoxSender | None = None

    # The number of the last question; the tag is its hexadecimal form.
    _counter = 0
    # Why no question can be answered any more, once that is so.
    _over: ConnectionLost | ProtocolSwitched | None = None
    # Whether questions wait in `_waiting` instead of being sent.
    _held = False
    # The command that is being answered and may change the connection.
    _changing: AmpBox | None = None

    def __init__(self, locator: ResponderLocator) -> None:
        self.locator = locator
        self._open: dict[bytes, tuple[Question, _AnyFuture]] = {}
        # The question that was asked, or None for a command that wants no answer.
        self._waiting: deque[tuple[Question | None, AmpBox, _AnyFuture]] = deque()
        self._responders: set[asyncio.Task[None]] = set()

    # --- asking ---

    def callRemote(self, commandType: type[Command], *a: Any, **kw: Any) -> _AnyFuture:
        """Ask the peer to do a command, and return the future of its answer, a dictionary.

        The question is on its way when this returns, unless the peer does not keep up; questions
        leave in the order in which they were asked. The future may be awaited at any time, or never.
        For a command whose `requiresAnswer` is false it gives None once the command was sent.

        Cancelling the future makes nobody wait for the answer any more: it is dropped when it comes.
        The peer does the command all the same.

        Raises, and then nothing was sent: `InvalidSignature` for missing or unknown arguments,
        `TooLong` for one that no box can hold, the error of an argument that does not encode, or
        `RuntimeError` before the connection is made.

        The future raises: one of the command's `errors`; `UnhandledCommand` where the peer has no
        responder; `UnknownRemoteError` where that failed otherwise; `MalformedAmpBox` where the
        answer does not parse; `ConnectionLost` and `ProtocolSwitched` where there can be none.
        """
        return commandType(*a, **kw)._doCommand(self)

    def callRemoteString(
        self, command: bytes | str, requiresAnswer: bool = True, **kw: bytes
    ) -> _AnyFuture:
        """Ask for a command by its name, with bytes for arguments, and without any schema.

        The future gives the answer's `AmpBox`, or raises `RemoteAmpError` with the code and the text
        of the error that came. All else is as with `callRemote`.
        """
        name = command.encode("ascii") if isinstance(command, str) else command
        return self._sendBoxCommand(name, AmpBox(kw), requiresAnswer)

    def _sendBoxCommand(
        self,
        command: bytes,
        box: AmpBox,
        requiresAnswer: bool = True,
        question: Question | None = None,
    ) -> _AnyFuture:
        """Ask with `box`; `question` is what the answer is given to when it comes."""
        future: _AnyFuture = asyncio.get_running_loop().create_future()
        if not requiresAnswer:
            asked = None
        elif question is None:
            asked = Question()
        else:
            asked = question
        box[COMMAND] = command
        if self._over is not None:
            _give_up(asked, future, self._over)
        elif self._held:
            box.serialize()  # Only to raise what is wrong with it here, to whom it concerns.
            self._waiting.append((asked, box, future))
        else:
            self._ask(asked, box, future)
        return future

    def _sender(self) -> BoxSender:
        if self.boxSender is None:
            raise RuntimeError("there is no connection yet; ask when connection_made was called")
        return self.boxSender

    def _ask(self, asked: Question | None, box: AmpBox, future: _AnyFuture) -> None:
        """Send a question, and put it on the books."""
        number = self._counter + 1
        tag = b"%x" % number
        if asked is not None:
            box[ASK] = tag
        box._sendTo(self._sender())
        self._counter = number
        if asked is None:
            future.set_result(None)
        else:
            self._open[tag] = (asked, future)

    def pause_sending(self) -> None:
        """Let the questions wait from now on."""
        self._held = True

    def resume_sending(self) -> None:
        """Send the questions that waited, in order, until there are none or sending pauses again."""
        self._held = False
        while self._waiting and not self._held:
            asked, box, future = self._waiting.popleft()
            if not future.done():
                self._ask(asked, box, future)

    # --- the connection's side ---

    def startReceivingBoxes(self, boxSender: BoxSender) -> None:
        """Take `boxSender` for the way back."""
        self.boxSender = boxSender

    def stopReceivingBoxes(self, reason: BaseException) -> None:
        """Fail every question that has no answer yet, and every later one.

        Responders that run are left to finish; their answers go nowhere if the connection is gone.
        """
        if not isinstance(reason, ConnectionLost | ProtocolSwitched):
            lost = ConnectionLost("the connection was lost")
            lost.__cause__ = reason
            reason = lost
        self._over = reason
        unanswered = [*self._open.values(), *((asked, future) for asked, _, future in self._waiting)]
        self._open.clear()
        self._waiting.clear()
        for asked, future in unanswered:
            _give_up(asked, future, reason)

    async def _finish_questions(self, reason: ConnectionLost) -> None:
        """Fail later questions with `reason`, and wait until those that were asked are answered."""
        if self._over is None:
            self._over = reason
        futures = [*(future for _, future in self._open.values()), *(w[2] for w in self._waiting)]
        unanswered = [future for future in futures if not future.done()]
        if unanswered:
            await asyncio.wait(unanswered)

    async def _finish_responders(self) -> None:
        """Wait until every responder is done, but for the one, if any, that waits here itself."""
        while others := self._responders - {asyncio.current_task()}:
            await asyncio.wait(others)

    def ampBoxReceived(self, box: AmpBox) -> None:
        """Take a box to where it belongs.

        Raises `MalformedAmpBox` for an answer to no question and an error without its code, and
        `NoEmptyBoxes` for a box that is neither answer, error nor command.
        """
        if ANSWER in box:
            question, future = self._asked(box[ANSWER])
            question._answered(box, self, future)
        elif ERROR in box:
            self._error_received(box)
        elif COMMAND in box:
            self._command_received(box)
        else:
            raise NoEmptyBoxes(f"neither a command nor an answer nor an error: {describe(box)}")

    def _asked(self, tag: bytes) -> tuple[Question, _AnyFuture]:
        try:
            return self._open.pop(tag)
        except KeyError:
            raise MalformedAmpBox(f"an answer to {shortened(tag)}, which is no open question") from None

    def _error_received(self, box: AmpBox) -> None:
        if ERROR_CODE not in box:
            raise MalformedAmpBox(f"an error without its code: {describe(box)}")
        question, future = self._asked(box[ERROR])
        description = box.get(ERROR_DESCRIPTION, b"").decode("utf-8", "replace")
        question._failed(RemoteAmpError(box[ERROR_CODE], description), self, future)

    # --- answering ---

    def _command_received(self, box: AmpBox) -> None:
        """Answer a command, at once or in a task of its own."""
        try:
            responder = self._responder(box[COMMAND])
        except Exception as error:
            self._refuse(box, error)
            return
        if getattr(responder, "changes_connection", False):
            # What follows may not be AMP: that is known when the command is answered.
            self._sender().pause_receiving()
            self._changing = box
        try:
            answer = responder(box)
            if isinstance(answer, AmpBox):
                self._reply(box, answer)
            elif isinstance(answer, Awaitable):
                self._answer_later(box, answer)
            else:
                raise _no_box(responder, answer)
        except Exception as error:
            self._refuse(box, error)

    def _responder(self, command: bytes) -> Responder:
        responder = self.locator.locateResponder(command)
        if responder is None:
            raise RemoteAmpError(UNHANDLED_ERROR_CODE, f"Unhandled Command: {shortened(command)}")
        return responder

    def _answer_later(self, box: AmpBox, answer: Awaitable[AmpBox]) -> None:
        """Give a responder that has to wait a task of its own."""
        task = asyncio.Task(self._answer(box, answer), loop=asyncio.get_running_loop(), **_EAGERLY)
        if not task.done():  # pragma: no branch: before 3.12 it never is
            self._responders.add(task)
            task.add_done_callback(self._responders.discard)

    async def _answer(self, box: AmpBox, answer: Awaitable[AmpBox]) -> None:
        try:
            reply = await answer
            if not isinstance(reply, AmpBox):
                raise _no_box(answer, reply)
            self._reply(box, reply)
        except Exception as error:
            self._refuse(box, error)
        except asyncio.CancelledError as error:
            # Whoever cancelled it, the peer must not wait for ever.
            self._refuse(box, error)
            raise

    def _reply(self, box: AmpBox, reply: AmpBox) -> None:
        """Send the answer to the command in `box`, if it asked for one."""
        tag = box.get(ASK)
        if tag is not None:
            reply[ANSWER] = tag
            self._emit(reply)
        self._answered_or_refused(box)

    def _refuse(self, box: AmpBox, error: BaseException) -> None:
        """Say that the command in `box` failed: to the peer, and to the log where it is our fault."""
        command = shortened(box[COMMAND])
        tag = box.get(ASK)
        if isinstance(error, RemoteAmpError) and not isinstance(error, UnknownRemoteError):
            code, description, fatal = error.errorCode, error.description, error.fatal
            if tag is None:
                logger.warning("%r: %s failed, and asked for no answer: %s", self, command, error)
        else:
            if isinstance(error, BadArguments):
                logger.warning("%r: %s", self, error)
            else:
                logger.error("%r: the responder of %s failed", self, command, exc_info=error)
            code, description, fatal = UNKNOWN_ERROR_CODE, "Unknown Error", self.closeOnUnknownError
        if tag is not None:
            self._emit(
                (QuitBox if fatal else AmpBox)(
                    {ERROR: tag, ERROR_CODE: code, ERROR_DESCRIPTION: _as_value(description)}
                )
            )
        elif fatal:
            self._sender().finish_writing()
        self._answered_or_refused(box)

    def _answered_or_refused(self, box: AmpBox) -> None:
        """Go on with what came behind a command that might have changed the connection."""
        if box is self._changing:
            self._changing = None
            self._sender().resume_receiving()

    def _emit(self, box: AmpBox) -> None:
        """Send an answer, unless there is nobody left to send it to."""
        try:
            box._sendTo(self._sender())
        except (ConnectionLost, ProtocolSwitched) as error:
            logger.debug("%r: an answer went nowhere: %s", self, error)


def describe(box: AmpBox) -> str:
    """Return a box as text of bounded length, for logs and errors."""
    return shortened(dict(box))


def _give_up(
    asked: Question | None, future: _AnyFuture, reason: ConnectionLost | ProtocolSwitched
) -> None:
    """Resolve the future of a question that will have no answer.

    A command that wants no answer is not told that the connection was lost; that it was switched, and
    the command was never sent, is an error for it too. Each future gets an exception of its own, since
    each is raised, with a traceback, in another place.
    """
    if future.done():
        return
    if asked is None and isinstance(reason, ConnectionLost):
        future.set_result(None)
        return
    error = type(reason)(*reason.args)
    error.__cause__ = reason.__cause__
    future.set_exception(error)


def _no_box(responder: object, answer: object) -> BadLocalReturn:
    return BadLocalReturn(
        f"{responder!r} returned {shortened(answer)}", TypeError("a responder returns an AmpBox")
    )


def _as_value(description: str | bytes) -> bytes:
    """Return as much of an error's text as a value holds."""
    if isinstance(description, str):
        description = description.encode("utf-8", "replace")
    if len(description) <= MAX_VALUE_LENGTH:
        return description
    return description[:MAX_VALUE_LENGTH].decode("utf-8", "ignore").encode("utf-8")
