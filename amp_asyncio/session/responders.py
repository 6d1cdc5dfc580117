"""Responders: commands in, answers out.

For each command, a responder is found and run, at once or in a task of its own, and an answer or an
error is sent. Not everything begins at once: the number of responders that run at the same time is
limited, and so are the answers that the peer has not taken yet. Later commands wait, in order; if too
many wait, reading pauses until there are fewer.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..commands.definitions import ENDING, raisable
from ..commands.exchange import drop
from ..errors import (
    ConnectionLost,
    MalformedAmpBox,
    ProtocolSwitched,
    TooLong,
    shortened,
)
from ..wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    AmpBox,
)
from ..wire.costs import box_cost
from .changes import ChangeBox
from .life import Pause
from .locators import MethodResponder, Responder, is_awaitable
from .outlets import changeable
from .refusals import checked, failing, is_loss, refusal, unhandled
from .running import RUNNING, Running, Status, current

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Responders"]

logger = logging.getLogger("amp_asyncio")

# From Python 3.12 on, a responder that does not wait is done at once, without a trip through the loop.
_EAGERLY: Final[dict[str, Any]] = {"eager_start": True} if sys.version_info >= (3, 12) else {}

_Waiting: TypeAlias = tuple[AmpBox, Responder, int]


_Tasks: TypeAlias = dict[asyncio.Task[None], tuple[Running, AmpBox, Responder, Awaitable[Any]]]

# What a conversation has before the first responder had to wait: a dictionary takes memory.
_NO_TASKS: Final[_Tasks] = {}


class Responders:
    """The commands of one conversation that this side answers.

    Attributes:
        progress: how many commands were begun and finished so far.
    """

    __slots__ = (
        "_backlog",
        "_backlog_size",
        "_changing",
        "_depth",
        "_exempt",
        "_overfull",
        "_parked",
        "_session",
        "_stall_timer",
        "_tasks",
        "progress",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tasks = _NO_TASKS
        self._exempt = 0  # How many of them wait until the others are done.
        self._depth = 0  # How many plain responders, or beginnings of others, are being called now.
        self.progress = 0
        # The command that is being answered and may change the connection.
        self._changing: AmpBox | None = None
        # The commands that wait to begin, each with its size; and those that are not begun because this
        # side is closing. Both count as the backlog. They are made when they are needed: an empty
        # deque is larger than all else here.
        self._backlog: deque[_Waiting] | None = None
        self._parked: deque[_Waiting] | None = None
        self._backlog_size = 0
        self._overfull = False  # Whether reading pauses because of them.
        self._stall_timer: asyncio.TimerHandle | None = None

    # --- what comes ---

    def command_received(self, box: AmpBox) -> None:
        """Answer a command, or let it wait for its turn."""
        session = self._session
        try:
            responder = (session.locator or session.owner).locateResponder(box[COMMAND])
            if responder is None:
                raise unhandled(box[COMMAND])
        except BaseException as error:
            # A refusal waits for its turn, too: it takes memory as well.
            responder = failing(error)
        if getattr(responder, "changes_connection", False):
            # What follows may not be AMP: that is known when the command is answered.
            if session.outlet.locked:
                raise MalformedAmpBox("both sides want to change the connection at once")
            session.outlet.pause_reading(Pause.CHANGE)
            self._changing = box
        if session.parking and not session.calls.is_open():
            if self._parked is None:
                self._parked = deque()
            self._wait(self._parked, box, responder)
        elif self._backlog or not self._may_begin():
            if self._backlog is None:
                self._backlog = deque()
            self._wait(self._backlog, box, responder)
        else:
            self._begin(box, responder)

    def _wait(self, waiting: deque[_Waiting], box: AmpBox, responder: Responder) -> None:
        size = box_cost(box)
        waiting.append((box, responder, size))
        self._backlog_size += size
        if self._backlog_size > self._session.limits.max_backlog and not self._overfull:
            self._overfull = True
            self._session.outlet.pause_reading(Pause.BACKLOG)
            self._watch_for_stall(self.progress)

    def _begin(self, box: AmpBox, responder: Responder) -> None:
        """Call a responder in a context of its own; give it a task if it has to wait."""
        self.progress += 1
        context = copy_context()
        begin: Any = responder.begin if isinstance(responder, MethodResponder) else responder
        self._depth += 1
        try:
            answer = context.run(begin, box)
        except BaseException as error:
            self._refuse(box, error)
            if isinstance(error, ENDING):
                raise
            return
        finally:
            self._depth -= 1
        if type(answer) is not CoroutineType:
            if not is_awaitable(answer):
                self._reply(box, responder, answer)
                return
            if asyncio.isfuture(answer):
                # Others may await it, too: only a coroutine is cancelled with the task.
                answer = asyncio.shield(answer)
        running = Running(self)
        finishing = self._finish(running, box, responder, answer)
        loop = asyncio.get_running_loop()
        if loop.get_task_factory() is not None:
            task: asyncio.Task[None] = context.run(loop.create_task, finishing)
        else:
            task = asyncio.Task(finishing, loop=loop, context=context, **_EAGERLY)
        if not task.done():  # pragma: no branch: before 3.12 it never is
            if self._tasks is _NO_TASKS:
                self._tasks = {}
            self._tasks[task] = running, box, responder, answer
            task.add_done_callback(self._done)

    async def _finish(
        self, running: Running, box: AmpBox, responder: Responder, answer: Awaitable[Any]
    ) -> None:
        """Wait for an answer, and send it."""
        current.set(running)
        try:
            objects = await answer
        except BaseException as error:
            running.end()
            if running.status is Status.ABANDONED and is_loss(error):
                logger.debug("%r: %s was cancelled", self._session, shortened(box[COMMAND]))
            elif isinstance(responder, MethodResponder):
                self._refuse(box, responder.declared(error) or error)
            else:
                self._refuse(box, error)
            if isinstance(error, (asyncio.CancelledError, *ENDING)):
                raise
        else:
            running.end()
            self._reply(box, responder, objects)

    def _done(self, task: asyncio.Task[None]) -> None:
        running, box, _, answer = self._tasks.pop(task)
        if running.status is Status.EXEMPT:
            self._exempt -= 1
        elif running.status is not Status.ENDED:
            # It was cancelled, perhaps before it began: then nothing else has ended the coroutine.
            if isinstance(answer, CoroutineType):
                answer.close()
            if running.status is RUNNING:
                self._refuse(box, asyncio.CancelledError("the responder was cancelled"))
        self.progress += 1
        if self._backlog:
            self.begin_waiting()
        if self._session.watched:
            self._session.moved()

    # --- waiting for a turn ---

    def _may_begin(self) -> bool:
        session = self._session
        limits = session.limits
        if len(self._tasks) - self._exempt >= limits.max_concurrent_responders:
            return False
        return not session.calls.held or session.outbox.unsent() < limits.max_backlog

    def begin_waiting(self) -> None:
        """Begin the commands that waited, in order, as far as they may."""
        while self._backlog and self._may_begin():
            box, responder, size = self._backlog.popleft()
            self._backlog_size -= size
            self._begin(box, responder)
        if self._overfull and self._backlog_size <= self._session.limits.max_backlog // 2:
            self._overfull = False
            self._stop_watching()
            self._session.outlet.resume_reading(Pause.BACKLOG)
        if self._session.watched:
            self._session.moved()

    def unpark(self) -> None:
        """Begin the commands that came while this side was closing: a question of ours is open.

        One of them may have been asked by the peer's responder of that question.
        """
        if self._parked:
            parked, self._parked = self._parked, None
            if self._backlog is None:
                self._backlog = deque()
            self._backlog.extend(parked)
            self.begin_waiting()

    def _watch_for_stall(self, progress: int) -> None:
        """Look, in a while, whether anything has begun or finished since."""
        loop = asyncio.get_running_loop()
        timeout = self._session.limits.stall_timeout
        self._stall_timer = loop.call_later(timeout, self._abort_if_stalled, progress)

    def _abort_if_stalled(self, progress: int) -> None:
        if self.progress != progress:
            self._watch_for_stall(self.progress)
            return
        waiting = len(self._backlog or ()) + len(self._parked or ())
        self._session.outlet.give_up(
            ConnectionLost(
                f"{waiting} commands of {self._backlog_size} bytes wait, reading was "
                f"paused, and nothing has moved for {self._session.limits.stall_timeout} seconds: the "
                "peer does not read its answers, or the responders do not finish"
            )
        )

    def _stop_watching(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    # --- the end ---

    def has_backlog(self) -> bool:
        """Return whether commands wait to begin."""
        return bool(self._backlog or self._parked)

    def is_idle(self) -> bool:
        """Return whether every command is done, except those that wait for that themselves."""
        return not self._backlog and len(self._tasks) == self._exempt

    def is_inside(self) -> bool:
        """Return whether the code that runs now belongs to a responder that has not ended."""
        if self._depth:
            return True
        running = current.get()
        return running is not None and running.is_inside(self)

    def exempt_caller(self) -> None:
        """Do not wait for the responder that calls this, if one does: it waits for the others."""
        running = current.get()
        if running is not None and running.responders is self and running.status is RUNNING:
            running.status = Status.EXEMPT
            self._exempt += 1
            self.begin_waiting()

    def abandon(self) -> None:
        """Cancel the responders whose answers are not wanted any more: the connection is lost."""
        for task, (running, box, responder, _) in list(self._tasks.items()):
            if running.status is RUNNING:
                running.status = Status.ABANDONED
                if ASK in box and self._may_be_cancelled(responder):
                    task.cancel()

    def _may_be_cancelled(self, responder: Responder) -> bool:
        own = responder.cancellable if isinstance(responder, MethodResponder) else None
        return self._session.cancellable if own is None else own

    def drop_backlog(self, keep: bool) -> None:
        """Forget the commands that have not begun; with `keep`, only those that want an answer."""
        left = [entry for entry in self._backlog or () if keep and ASK not in entry[0]]
        self._backlog = deque(left) if left else None
        self._parked = None
        self._backlog_size = sum(size for _, _, size in left)
        self._overfull = False
        self._stop_watching()

    # --- answers ---

    def _reply(self, box: AmpBox, responder: Responder, answer: Any) -> None:
        """Send the answer to the command in `box`, if it asked for one."""
        session = self._session
        tag = box.get(ASK)
        try:
            if not isinstance(responder, MethodResponder):
                reply = checked(responder, answer)
            elif (
                tag is not None
                and session.outlet.takes_bytes
                and (data := responder.written(answer, tag, session.limits.max_box_size)) is not None
            ):
                if len(self._tasks) > 1:
                    session.outbox.send_later(data)
                else:
                    session.outbox.send(data)
                return
            else:
                reply = responder.box(answer)
            if tag is None:
                drop(reply)
            else:
                reply[ANSWER] = tag
                self._send(reply)
        except (ConnectionLost, ProtocolSwitched) as error:
            logger.debug("%r: an answer was dropped: %s", session, error)
        except BaseException as error:
            self._refuse(box, error)
            if isinstance(error, ENDING):
                raise
            return
        self._settle(box)

    def _send(self, reply: AmpBox) -> None:
        """Send an answer, or an error; one that agrees to a change has it begin."""
        session = self._session
        try:
            if isinstance(reply, ChangeBox):
                if session.outlet.locked:
                    raise RuntimeError("both sides want to change the connection at once")
                reply.change.check(changeable(session.outlet))
            session.send(reply)
        except BaseException:
            drop(reply)
            raise
        if isinstance(reply, ChangeBox):
            reply.change.agreed(changeable(session.outlet))

    def _refuse(self, box: AmpBox, error: BaseException) -> None:
        """Say that the command in `box` failed: to the peer, and to the log if it is our fault."""
        session = self._session
        try:
            reply, fatal = refusal(session, box, error)
        except Exception as broken:  # A subclass of `RemoteAmpError` may lack what makes one.
            reply, fatal = refusal(session, box, broken)
        try:
            if ASK in box:
                self._send(reply)
            elif fatal:
                session.outlet.finish_writing()
        except (ConnectionLost, ProtocolSwitched) as lost:
            logger.debug("%r: an error was dropped: %s", session, lost)
        except BaseException as broken:
            # Nothing else can tell the peer, which would wait for ever.
            if not isinstance(broken, TooLong):
                logger.exception("%r: an error could not be sent", session)
            session.outlet.give_up(raisable(broken).with_traceback(None))
            if isinstance(broken, ENDING):
                raise
        self._settle(box)

    def _settle(self, box: AmpBox) -> None:
        """Go on with what came after a command that might have changed the connection."""
        if box is self._changing:
            self._changing = None
            self._session.outlet.resume_reading(Pause.CHANGE)
