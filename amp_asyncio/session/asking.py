"""Asking: questions out, answers in.

Each question gets a number, and a future that is resolved when the answer comes, in whatever order
they come. A question that is cancelled stays on the books until then: that is how a late answer is
told from one that answers nothing. So cancelling costs nothing, and neither does not cancelling.

There are three reasons for a question to wait before it is sent: too much is unanswered already, the
transport takes no more, or the connection is about to change. One queue serves all three.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, TypeAlias

from ..commands.command import Command, Question
from ..errors import ConnectionLost, MalformedAmpBox, ProtocolSwitched, RemoteAmpError, shortened
from ..limits import Limits
from ..wire.boxes import ANSWER, ASK, COMMAND, ERROR, ERROR_CODE, ERROR_DESCRIPTION, AmpBox, BoxSender
from ..wire.costs import PAIR_OVERHEAD, box_cost

__all__ = ["Asking"]

_AnyFuture: TypeAlias = asyncio.Future[Any]

# What the tag will add to a question that has none yet.
_TAG_COST = PAIR_OVERHEAD + len(ASK) + 12


class Asking:
    """The half of a dispatcher that asks."""

    #: How much may be under way; see `Limits`. It is looked at when the connection is made.
    limits: Limits = Limits()

    boxSender: BoxSender | None = None

    # Why no question can be answered any more, once that is so.
    _over: ConnectionLost | ProtocolSwitched | None = None
    # Whether what takes the boxes also takes their bytes alone; and how large a question may be, with
    # those that are unanswered, to be sent so.
    _by_bytes = False
    _most_by_bytes = 0
    # Whether the connection would rather have no questions.
    _held = False
    # Those that wait: the question, or None for a command that wants no answer; its box, how many bytes
    # that has, and its future. A deque takes more than all else that an idle connection needs, so it is
    # made when the first one has to wait.
    _waiting: deque[tuple[Question | None, AmpBox, int, _AnyFuture]] | tuple[()] = ()

    def __init__(self) -> None:
        # The number of the last command; the tag of a question is its hexadecimal form.
        self._counter = 0
        self._unanswered = 0  # How many bytes the questions in `_open` have.
        self._open: dict[bytes, tuple[Question, _AnyFuture, int]] = {}

    def callRemote(self, commandType: type[Command], *a: Any, **kw: Any) -> _AnyFuture:
        """Ask the peer to do a command, and return the future of its answer, a dictionary.

        The question is on its way when this returns, unless the peer does not keep up; questions
        leave in the order in which they were asked. The future may be awaited at any time, or never.
        For a command whose `requiresAnswer` is false it gives None once the command was sent.

        Cancelling the future makes nobody wait for the answer any more: it is dropped when it comes.
        The peer does the command all the same, unless the question was still waiting to be sent.

        Raises, and then nothing was sent: `InvalidSignature` for missing or unknown arguments,
        `TooLong` for one that no box can hold, or for more than `Limits.max_box_size` of them, the
        error of an argument that does not encode, or `RuntimeError` before the connection is made.

        The future raises: one of the command's `errors`; `UnhandledCommand` where the peer has no
        responder; `UnknownRemoteError` where that failed otherwise; `MalformedAmpBox` where the
        answer does not parse; `ConnectionLost` and `ProtocolSwitched` where there can be none.
        """
        future = None if a else self._ask_at_once(commandType, kw)
        return commandType(*a, **kw)._doCommand(self) if future is None else future

    def _ask_at_once(self, command: type[Command], objects: dict[str, Any]) -> _AnyFuture | None:
        """Ask without making a box of it; return None where anything speaks against that."""
        template = command._template
        if template is None or not (self._by_bytes and command.requiresAnswer):
            return None
        if self._waiting or self._held or self._over is not None:
            return None
        tag = b"%x" % (self._counter + 1)
        data = template.fill(tag, objects, self._most_by_bytes - self._unanswered)
        if data is None:
            return None
        size = len(data) + template.overhead
        try:
            self._sender().send_bytes(data)
        except (ConnectionLost, ProtocolSwitched):
            return None
        future: _AnyFuture = asyncio.get_running_loop().create_future()
        self._counter += 1
        self._unanswered += size
        self._open[tag] = (command._any_question, future, size)
        return future

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
        asked = (question or Question()) if requiresAnswer else None
        box[COMMAND] = command
        if self._over is not None:
            _give_up(asked, future, self._over)
            return future
        size = box_cost(box) + _TAG_COST
        if self._waiting or not self._may_send(size):
            # Only to raise what is wrong with it here, to whom it concerns. Its tag will be no longer.
            if asked is not None:
                box[ASK] = b"%x" % (self._counter + len(self._waiting) + 1)
            self._sender().serialize(box)
            box.pop(ASK, None)
            waiting = self._waiting = self._waiting or deque()
            waiting.append((asked, box, size, future))
        else:
            try:
                self._ask(asked, box, size, future)
            except (ConnectionLost, ProtocolSwitched) as error:
                _give_up(asked, future, error)
        return future

    def _may_send(self, size: int) -> bool:
        if self._held:
            return False
        return not self._unanswered or self._unanswered + size <= self.limits.window

    def _ask(self, asked: Question | None, box: AmpBox, size: int, future: _AnyFuture) -> None:
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
            self._open[tag] = (asked, future, size)
            self._unanswered += size

    def _sender(self) -> BoxSender:
        if self.boxSender is None:
            raise RuntimeError("there is no connection yet; ask when connection_made was called")
        return self.boxSender

    def _send_waiting(self) -> None:
        """Send the questions that waited, in order, as far as there is room for them."""
        while self._waiting:
            asked, box, size, future = self._waiting[0]
            if not future.done() and not self._may_send(size):
                return
            self._waiting.popleft()
            if not future.done():
                try:
                    self._ask(asked, box, size, future)
                except (ConnectionLost, ProtocolSwitched) as error:
                    _give_up(asked, future, error)
                except Exception as error:
                    future.set_exception(error)

    def _answer_received(self, box: AmpBox) -> None:
        question, future = self._asked(box[ANSWER])
        try:
            question._answered(box, self, future)
        except Exception as error:
            self._answer_failed(future, error)
        if self._waiting:
            self._send_waiting()

    def _answer_failed(self, future: _AnyFuture, error: Exception) -> None:
        """End the connection: it cannot be said what it carries behind an answer half taken."""
        lost = ConnectionLost(f"the answer could not be taken: {error!r}")
        lost.__cause__ = error
        if not future.done():
            future.set_exception(lost)
        self._sender().give_up(lost)

    def _error_received(self, box: AmpBox) -> None:
        if ERROR_CODE not in box:
            raise MalformedAmpBox(f"an error without its code: {shortened(dict(box))}")
        question, future = self._asked(box[ERROR])
        description = box.get(ERROR_DESCRIPTION, b"").decode("utf-8", "replace")
        try:
            question._failed(RemoteAmpError(box[ERROR_CODE], description), self, future)
        except Exception as error:
            self._answer_failed(future, error)
        if self._waiting:
            self._send_waiting()

    def _asked(self, tag: bytes) -> tuple[Question, _AnyFuture]:
        """Take a question off the books; `MalformedAmpBox` where it is not there."""
        try:
            question, future, size = self._open.pop(tag)
        except KeyError:
            raise MalformedAmpBox(f"an answer to {shortened(tag)}, which is no open question") from None
        self._unanswered -= size
        return question, future

    def _give_up_questions(self, reason: ConnectionLost | ProtocolSwitched) -> None:
        """Fail every question that has no answer yet, and every later one."""
        self._over = reason
        unanswered = [
            *((asked, future) for asked, future, _ in self._open.values()),
            *((asked, future) for asked, _, _, future in self._waiting),
        ]
        self._open.clear()
        self._waiting = ()
        self._unanswered = 0
        for asked, future in unanswered:
            _give_up(asked, future, reason)

    async def _finish_questions(self, reason: ConnectionLost) -> None:
        """Fail later questions with `reason`, and wait until those that were asked are answered."""
        if self._over is None:
            self._over = reason
        futures = [entry[1] for entry in self._open.values()] + [entry[3] for entry in self._waiting]
        unanswered = [future for future in futures if not future.done()]
        if unanswered:
            await asyncio.wait(unanswered)


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
