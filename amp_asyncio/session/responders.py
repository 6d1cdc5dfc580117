"""Responders: commands in, answers out.

For each command, a responder is found and run, at once or in a task of its own, and an answer or an
error is sent. Not everything begins at once: the number of responders that run at the same time is
limited, and so are the answers that the peer has not taken yet. Later commands wait, in order; if too
many wait, reading pauses until there are fewer. Responders that wait for an answer of the peer do not
count as running: see `running.py`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Iterable
from contextvars import Context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..commands.definitions import ENDING
from ..errors import (
    ConnectionLost,
    MalformedAmpBox,
    shortened,
)
from ..wire.boxes import (
    ASK,
    COMMAND,
    AmpBox,
)
from ..wire.costs import box_cost
from . import answers
from .life import Pause
from .locators import MethodResponder, Responder, is_awaitable
from .refusals import failing, is_loss, unhandled
from .running import RUNNING, Running, Status, Suspended, current

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


# What a conversation has before it begins.
_NO_CONTEXT: Final = Context()


class Responders:
    """The commands of one conversation that this side answers.

    Attributes:
        progress: how many commands were begun and finished so far.
        context: each responder gets a copy of it: the context in which the conversation has begun, so
            that no responder sees what another one has set, whichever event it is begun at.
        depth: how many plain responders, or beginnings of others, are being called now.
        tasks: the `async def` responders that have begun and not ended.
    """

    __slots__ = (
        "_asked",
        "_backlog",
        "_backlog_size",
        "_changing",
        "_exempt",
        "_overfull",
        "_parked",
        "_session",
        "_soon",
        "_stall_timer",
        "_suspended",
        "context",
        "depth",
        "progress",
        "tasks",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self.context = _NO_CONTEXT
        self.tasks = _NO_TASKS
        self._exempt = 0  # How many of them wait until the others are done.
        self.depth = 0
        self.progress = 0
        # What the plain responder that is called now has asked, and those that wait for such answers.
        self._asked: tuple[asyncio.Future[Any], ...] = ()
        self._suspended: Suspended | None = None
        self._soon = False  # Whether those that wait begin in the next turn of the loop.
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
        context = self.context.copy()
        begin: Any = responder.begin if isinstance(responder, MethodResponder) else responder
        self._asked = ()
        self.depth += 1
        try:
            answer = context.run(begin, box)
        except BaseException as error:
            answers.refuse(self._session, box, error)
            if isinstance(error, ENDING):
                raise
            return
        finally:
            self.depth -= 1
        if type(answer) is not CoroutineType:
            if not is_awaitable(answer):
                answers.answer(self._session, box, responder, answer)
                return
            if asyncio.isfuture(answer):
                # Others may await it, too: only a coroutine is cancelled with the task.
                answer = asyncio.shield(answer)
        running = Running(self, box)
        asked: Iterable[asyncio.Future[Any]] = self._asked
        for future in asked:
            self._suspend(running, future)
        finishing = self._finish(running, box, responder, answer)
        loop = asyncio.get_running_loop()
        self.depth += 1  # It may begin to run here.
        try:
            if loop.get_task_factory() is not None:
                task: asyncio.Task[None] = context.run(loop.create_task, finishing)
            else:
                task = asyncio.Task(finishing, loop=loop, context=context, **_EAGERLY)
        finally:
            self.depth -= 1
        if not task.done():  # pragma: no branch: before 3.12 it never is
            if self.tasks is _NO_TASKS:
                self.tasks = {}
            self.tasks[task] = running, box, responder, answer
            task.add_done_callback(self._done)

    async def _finish(
        self, running: Running, box: AmpBox, responder: Responder, answer: Awaitable[Any]
    ) -> None:
        """Wait for an answer, and send it."""
        current.set(running)
        try:
            objects = await answer
        except BaseException as error:
            self._ended(running)
            if running.status is Status.ABANDONED and is_loss(error):
                logger.debug("%r: %s was cancelled", self._session, shortened(box[COMMAND]))
            elif isinstance(responder, MethodResponder):
                answers.refuse(self._session, box, responder.declared(error) or error)
            else:
                answers.refuse(self._session, box, error)
            if isinstance(error, (asyncio.CancelledError, *ENDING)):
                raise
        else:
            self._ended(running)
            answers.answer(self._session, box, responder, objects)

    def _ended(self, running: Running) -> None:
        running.end()
        self._resumed(running)

    def _done(self, task: asyncio.Task[None]) -> None:
        running, box, _, answer = self.tasks.pop(task)
        self._resumed(running)
        if running.status is Status.EXEMPT:
            self._exempt -= 1
        elif running.status is not Status.ENDED:
            # It was cancelled, perhaps before it began: then nothing else has ended the coroutine.
            if isinstance(answer, CoroutineType):
                answer.close()
            if running.status is RUNNING:
                answers.refuse(
                    self._session, box, asyncio.CancelledError("the responder was cancelled")
                )
        self.progress += 1
        if self._backlog:
            self.begin_waiting()
        if self._session.watched:
            self._session.moved()

    # --- waiting for a turn ---

    def _may_begin(self) -> bool:
        session = self._session
        limits = session.limits
        count = len(self.tasks) - self._exempt
        if self._suspended is not None:
            count -= self._suspended.count
        if count >= limits.max_concurrent_responders or self._is_burdened():
            return False
        return not session.calls.held or session.outbox.unsent() < limits.max_backlog

    def begin_waiting(self) -> None:
        """Begin the commands that waited, in order, as far as they may."""
        self._soon = False
        while self._backlog and self._may_begin():
            box, responder, size = self._backlog.popleft()
            self._backlog_size -= size
            self._begin(box, responder)
        if self._overfull and self._backlog_size <= self._session.limits.max_backlog // 2:
            self._overfull = False
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

    # --- responders that ask ---

    def asked(self, future: asyncio.Future[Any]) -> None:
        """A question was asked, perhaps by a responder."""
        running = current.get()
        if running is not None and running.is_inside(self):
            self._suspend(running, future)
        elif self.depth:
            self._asked = (*self._asked, future)

    def _suspend(self, running: Running, future: asyncio.Future[Any]) -> None:
        """Do not count a responder as running until the answer that it waits for is here."""
        if self._suspended is None:
            self._suspended = Suspended(self._room_changed)
        if not future.done():
            self._suspended.asked(running, future)

    def _resumed(self, running: Running) -> None:
        if self._suspended is not None:
            self._suspended.leave(running)

    def _is_burdened(self) -> bool:
        """Return whether as many responders wait for answers of the peer as may."""
        suspended = self._suspended
        return suspended is not None and suspended.size > self._session.limits.max_backlog

    def _room_changed(self) -> None:
        if self._is_burdened() and self._stall_timer is None:
            self._watch_for_stall(self.progress)
        if self._backlog and not self._soon:
            # Not at once: one that begins may ask in its turn, and so on.
            self._soon = True
            asyncio.get_running_loop().call_soon(self.begin_waiting)

    # --- a stall ---

    def _watch_for_stall(self, progress: int) -> None:
        """Look, in a while, whether anything has begun or finished since."""
        self._stop_watching()
        loop = asyncio.get_running_loop()
        timeout = self._session.limits.stall_timeout
        self._stall_timer = loop.call_later(timeout, self._abort_if_stalled, progress)

    def _abort_if_stalled(self, progress: int) -> None:
        self._stall_timer = None
        if not self._overfull and not self._is_burdened():
            return
        if self.progress != progress:
            self._watch_for_stall(self.progress)
            return
        waiting, size = len(self._backlog or ()) + len(self._parked or ()), self._backlog_size
        if self._suspended is not None:
            waiting, size = waiting + self._suspended.count, size + self._suspended.size
        self._session.outlet.give_up(
            ConnectionLost(
                f"{waiting} commands of {size} bytes wait, no more of them may, and "
                f"nothing has moved for {self._session.limits.stall_timeout} seconds: the "
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
        return not self._backlog and len(self.tasks) == self._exempt

    def is_inside(self) -> bool:
        """Return whether the code that runs now belongs to a responder that has not ended."""
        if self.depth:
            return True
        running = current.get()
        return running is not None and running.is_inside(self)

    def exempt_caller(self) -> None:
        """Do not wait for the responder that calls this, if one does: it waits for the others."""
        running = current.get()
        if running is not None and running.responders is self and running.status is RUNNING:
            running.status = Status.EXEMPT
            self._exempt += 1
            self._resumed(running)
            self.begin_waiting()

    def abandon(self) -> None:
        """Cancel the responders whose answers are not wanted any more: the connection is lost."""
        for task, (running, box, responder, _) in list(self.tasks.items()):
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

    def settle(self, box: AmpBox) -> None:
        """Go on with what came after a command that might have changed the connection."""
        if box is self._changing:
            self._changing = None
            self._session.outlet.resume_reading(Pause.CHANGE)
