"""Answering: commands in, answers out.

For each command there is a responder to find, to run, at once or in a task of its own, and an answer
or an error to send. Not everything begins at once: there is a limit to the responders that run at the
same time and to the answers that the peer has not taken yet. Later commands wait, in order; and when
too many wait, reading pauses until there are fewer.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, TypeAlias

from ..errors import (
    BadArguments,
    ConnectionLost,
    ProtocolSwitched,
    RemoteAmpError,
    TooLong,
    UnknownRemoteError,
    shortened,
)
from ..wire.boxes import (
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
    QuitBox,
)
from ..wire.costs import PAIR_OVERHEAD, box_cost
from .asking import Asking
from .locators import BoxResponder, MethodResponder, Responder, ResponderLocator, is_awaitable

__all__ = ["Answering"]

logger = logging.getLogger("amp_asyncio")

# What the text of an error counts more than its bytes, with the lengths that are written for all three
# pairs, and a piece more of each.
_DESCRIPTION_COST = PAIR_OVERHEAD + len(ERROR_DESCRIPTION) + 3 * 6 + 2

# In a responder, and in the tasks that it starts: whose responder it is, and its task.
_responding: ContextVar[Any] = ContextVar("_responding", default=(None, None))

# From Python 3.12 on, a responder that does not wait is done at once, without a trip through the loop.
_EAGERLY: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


_Steps: TypeAlias = MethodResponder | BoxResponder


class Answering(Asking):
    """The half of a dispatcher that answers; it shares the connection with the half that asks."""

    #: Whether the connection closes behind an error that the command does not declare, as AMP has it.
    closeOnUnknownError = True

    # The command that is being answered and may change the connection.
    _changing: AmpBox | None = None
    # How many bytes the commands in `_backlog` have, and whether reading pauses because of them.
    _backlog_size = 0
    _overfull = False
    # The commands that wait to begin, and how many bytes each has; made when there is the first.
    _backlog: deque[tuple[AmpBox, _Steps, int]] | tuple[()] = ()
    # Those responders that wait until the others are done.
    _closing: frozenset[asyncio.Task[None]] = frozenset()
    # What looks whether anything has moved.
    _stall_timer: asyncio.TimerHandle | None = None
    # Set when commands that waited may have begun; made when somebody waits for that.
    _unblocked: asyncio.Event | None = None

    def __init__(self, locator: ResponderLocator) -> None:
        super().__init__()
        self.locator = locator
        self._progress = 0  # Commands begun and finished so far.
        self._responders: set[asyncio.Task[None]] = set()

    def _command_received(self, box: AmpBox) -> None:
        """Answer a command, or let it wait for its turn."""
        try:
            responder = self._responder(box[COMMAND])
        except Exception as error:
            # A refusal waits for its turn, too: it takes memory as well.
            responder = BoxResponder(_failing(error))
        if responder.changes_connection:
            # What follows may not be AMP: that is known when the command is answered.
            self._sender().pause_receiving(before_change=True)
            self._changing = box
        if self._backlog or not self._may_begin():
            backlog = self._backlog = self._backlog or deque()
            size = box_cost(box)
            backlog.append((box, responder, size))
            self._backlog_size += size
            if self._backlog_size > self.limits.max_backlog and not self._overfull:
                self._pause_for_backlog()
        else:
            self._begin(box, responder)

    def _responder(self, command: bytes) -> _Steps:
        responder = self.locator.locateResponder(command)
        if type(responder) is MethodResponder:
            return responder
        if responder is None:
            raise RemoteAmpError(UNHANDLED_ERROR_CODE, f"Unhandled Command: {shortened(command)}")
        return BoxResponder(responder)

    def _begin(self, box: AmpBox, responder: _Steps) -> None:
        """Run a responder, at once or in a task of its own."""
        self._progress += 1
        try:
            answer = responder.begin(box)
        except Exception as error:
            self._refuse(box, error)
        else:
            if is_awaitable(answer):
                self._answer_later(box, responder, answer)
            else:
                self._reply(box, responder, answer)

    def _answer_later(self, box: AmpBox, responder: _Steps, answer: Awaitable[Any]) -> None:
        """Give a responder that has to wait a task of its own."""
        loop = asyncio.get_running_loop()
        task = asyncio.Task(self._answer(box, responder, answer), loop=loop, **_EAGERLY)
        if not task.done():  # pragma: no branch: before 3.12 it never is
            self._responders.add(task)
            task.add_done_callback(self._responder_done)

    async def _answer(self, box: AmpBox, responder: _Steps, answer: Awaitable[Any]) -> None:
        token = _responding.set((self, asyncio.current_task()))
        try:
            try:
                objects = await answer
            except Exception as error:
                responder.raise_declared(error)
                raise
            finally:
                # What the answer starts, such as reading for another protocol, must not keep us alive.
                _responding.reset(token)
        except Exception as error:
            self._refuse(box, error)
        except asyncio.CancelledError as error:
            # Whoever cancelled it, the peer must not wait for ever.
            self._refuse(box, error)
            raise
        else:
            self._reply(box, responder, objects)

    def _responder_done(self, task: asyncio.Task[None]) -> None:
        self._responders.discard(task)
        if self._closing:
            self._closing -= {task}
        self._progress += 1
        if self._backlog:
            self._begin_waiting()
        self._wake()

    # --- waiting for a turn ---

    def _may_begin(self) -> bool:
        limits = self.limits
        running = len(self._responders) - len(self._closing)
        return running < limits.max_concurrent_responders and not (
            self._held and self._sender().unsent() >= limits.max_backlog
        )

    def _begin_waiting(self) -> None:
        """Begin the commands that waited, in order, as far as they may."""
        while self._backlog and self._may_begin():
            box, responder, size = self._backlog.popleft()
            self._backlog_size -= size
            self._begin(box, responder)
        if self._overfull and self._backlog_size <= self.limits.max_backlog // 2:
            self._resume_after_backlog()
        self._wake()

    def _wake(self) -> None:
        """Let those look again who wait until every command is done."""
        if self._unblocked is not None:
            self._unblocked.set()

    def _pause_for_backlog(self) -> None:
        self._overfull = True
        self._sender().pause_receiving()
        self._watch_for_stall(self._progress)

    def _watch_for_stall(self, progress: int) -> None:
        """Look, in a while, whether anything has begun or finished since."""
        loop = asyncio.get_running_loop()
        self._stall_timer = loop.call_later(self.limits.stall_timeout, self._abort_if_stalled, progress)

    def _abort_if_stalled(self, progress: int) -> None:
        if self._progress != progress:
            self._watch_for_stall(self._progress)
        else:
            self._sender().give_up(
                ConnectionLost(
                    f"{len(self._backlog)} commands of {self._backlog_size} bytes wait, reading was "
                    f"paused, and nothing has moved for {self.limits.stall_timeout} seconds: the peer "
                    "does not read its answers, or the responders do not finish"
                )
            )

    def _resume_after_backlog(self) -> None:
        self._overfull = False
        self._stop_watching()
        self._sender().resume_receiving()

    def _stop_watching(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _drop_backlog(self) -> None:
        """Forget the commands that have not begun: there is nobody left to answer."""
        self._backlog = ()
        self._backlog_size = 0
        self._stop_watching()
        self._wake()

    async def _finish_responders(self) -> None:
        """Wait until every command is done, but for those whose responders wait here themselves."""
        dispatcher, task = _responding.get()
        if dispatcher is self and task in self._responders | {asyncio.current_task()}:
            self._closing |= {task}
            self._begin_waiting()
        while self._backlog or self._responders - self._closing:
            self._unblocked = self._unblocked or asyncio.Event()
            self._unblocked.clear()
            await self._unblocked.wait()

    # --- sending what comes of it ---

    def _reply(self, box: AmpBox, responder: _Steps, answer: Any) -> None:
        """Send the answer to the command in `box`, if it asked for one."""
        tag = box.get(ASK)
        try:
            written = None
            if tag is not None and self._by_bytes:
                written = responder.written(answer, tag, self.limits.max_box_size)
            if written is not None:
                self._emit(written)
            else:
                reply = responder.box(answer)
                if tag is not None:
                    reply[ANSWER] = tag
                    self._emit(reply)
        except Exception as error:
            self._refuse(box, error)
        else:
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
            reply = QuitBox() if fatal else AmpBox()
            reply[ERROR], reply[ERROR_CODE] = tag, _as_value(code)
            # The text is cut to what there is room for: its length is not worth the connection.
            room = self.limits.max_box_size - box_cost(reply) - _DESCRIPTION_COST
            reply[ERROR_DESCRIPTION] = _as_value(description, room)
            try:
                self._emit(reply)
            except TooLong as too_long:
                self._sender().give_up(too_long.with_traceback(None))
        elif fatal:
            self._sender().finish_writing()
        self._answered_or_refused(box)

    def _answered_or_refused(self, box: AmpBox) -> None:
        """Go on with what came behind a command that might have changed the connection."""
        if box is self._changing:
            self._changing = None
            self._sender().resume_receiving()

    def _emit(self, answer: AmpBox | bytes) -> None:
        """Send an answer, unless there is nobody left to send it to."""
        try:
            if isinstance(answer, bytes):
                self._sender().send_bytes(answer)
            else:
                answer._sendTo(self._sender())
        except (ConnectionLost, ProtocolSwitched) as error:
            logger.debug("%r: an answer went nowhere: %s", self, error)


def _failing(error: Exception) -> Responder:
    def fail(box: AmpBox) -> AmpBox:
        raise error

    return fail


def _as_value(description: str | bytes, room: int = MAX_VALUE_LENGTH) -> bytes:
    """Return as much of an error's text as a value holds, and in `room` bytes."""
    if isinstance(description, str):
        description = description.encode("utf-8", "replace")
    most = max(0, min(room, MAX_VALUE_LENGTH))
    if len(description) <= most:
        return description
    return description[:most].decode("utf-8", "ignore").encode("utf-8")
