"""Tasks: the `async def` responders of one conversation, from their beginning to their end.

Each has a task of its own, in the context in which the responder was called. It waits for the answer,
and sends it. How many of them run at the same time is limited; those that wait for an answer of the
peer do not count (see `running.py`), nor do those that answer streams, or wait for all others to end.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable
from contextvars import Context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from ..commands.definitions import ENDING
from ..errors import shortened
from . import answers
from .locators import MethodResponder, Responder, can_wait
from .refusals import is_loss
from .running import RUNNING, Running, Status, Suspended, current
from .stopping import Stopping, why_stopped

if TYPE_CHECKING:
    from ..limits import Limits
    from .responders import Responders
    from .session import Session

__all__ = ["NO_TASKS", "Questions", "Tasks"]

logger = logging.getLogger("amp_asyncio")

#: What a responder has asked, each with whether that was not sent yet.
Questions: TypeAlias = tuple[tuple[asyncio.Future[Any], bool], ...]

# From Python 3.12 on, a responder that does not wait is done at once, without a trip through the loop.
_EAGERLY: Final[dict[str, Any]] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Tasks:
    """The `async def` responders of `responders` that have begun and not ended.

    Attributes:
        all: each with what is known of it, what it answers for, and what it waits for.
        suspended: those of them that wait for answers of the peer; None before the first.
    """

    __slots__ = (
        "_exempt",
        "_responders",
        "_session",
        "_size",
        "_stopping",
        "_uncounted",
        "all",
        "suspended",
    )

    def __init__(self, session: Session, responders: Responders) -> None:
        self._session = session
        self._responders = responders
        self.all: dict[asyncio.Task[None], tuple[Running, Responder, Awaitable[Any]]] = {}
        self._exempt = 0  # How many of them wait until the others are done.
        self._uncounted = 0  # How many of them answer streams.
        self._size = 0  # The size of the commands of all but those.
        self.suspended: Suspended | None = None
        self._stopping: Stopping | None = None

    def begin(
        self,
        running: Running,
        responder: Responder,
        answer: Awaitable[Any],
        context: Context,
        asked: Questions,
    ) -> asyncio.Task[None] | None:
        """Wait for an answer in a task; return the task, or None if it is done already.

        `asked` is what the responder asked when it was called.
        """
        for future, waits in asked:
            self.suspend(running, future, waits)
        finishing = self._finish(running, responder, answer)
        loop = asyncio.get_running_loop()
        if loop.get_task_factory() is not None:
            task: asyncio.Task[None] = context.run(loop.create_task, finishing)
        else:
            task = asyncio.Task(finishing, loop=loop, context=context, **_EAGERLY)
        if not task.done():  # pragma: no branch: before 3.12 it never is
            self.all[task] = running, responder, answer
            self._size += running.size
            self._uncounted += not running.counted
            task.add_done_callback(self._done)
            call = running.call
            if self._stopping is not None or (call is not None and call.deadline is not None):
                self._made_stopping().began(task, running)
            return task
        return None  # pragma: no cover: before 3.12, none is done at once

    async def _finish(self, running: Running, responder: Responder, answer: Awaitable[Any]) -> None:
        """Wait for an answer, and send it when it fits."""
        session = self._session
        current.set(running)
        try:
            objects = await answer
        except BaseException as error:
            self._ended(running)
            if running.status is Status.ABANDONED and is_loss(error):
                logger.debug("%r: %s was cancelled", session, shortened(running.command))
            elif (stopped := why_stopped(running, error)) is not None:
                logger.debug("%r: %s was cancelled: %s", session, shortened(running.command), stopped)
                answers.refuse(session, running.command, running.tag, responder, stopped)
            else:
                if isinstance(responder, MethodResponder):
                    error = responder.declared(error) or error
                if session.calls.held and isinstance(error, Exception):
                    await self._responders.waiting().room()
                answers.refuse(session, running.command, running.tag, responder, error)
            if isinstance(error, (asyncio.CancelledError, *ENDING)):
                raise
        else:
            self._ended(running)
            if session.calls.held and can_wait(responder):
                await self._responders.waiting().room()
            answers.answer(session, running.command, running.tag, responder, objects)

    def _ended(self, running: Running) -> None:
        running.end()
        self._resumed(running)

    def _done(self, task: asyncio.Task[None]) -> None:
        running, responder, answer = self.all.pop(task)
        self._resumed(running)
        self._size -= running.size
        self._uncounted -= not running.counted
        if running.status is Status.EXEMPT:
            self._exempt -= 1
        elif not running.ended:
            # It was cancelled before it began: nothing else has ended the coroutine.
            running.end()
            if isinstance(answer, CoroutineType):
                answer.close()
            if running.status is not Status.ABANDONED:
                error = asyncio.CancelledError("the responder was cancelled")
                why = why_stopped(running, error) or error
                answers.refuse(self._session, running.command, running.tag, responder, why)
        if self._stopping is not None:
            self._stopping.ended(task, running)
        self._responders.task_ended()

    # --- how many there are ---

    def are_idle(self) -> bool:
        """Return whether every one has ended, except those that wait for that themselves."""
        return len(self.all) == self._exempt

    def are_many(self, limits: Limits) -> bool:
        """Return whether as many run, or wait for answers of the peer, as may."""
        count, size = len(self.all) - self._exempt - self._uncounted, self._size
        if self.suspended is not None:
            count, size = count - self.suspended.count, size - self.suspended.size
        many = count >= limits.max_concurrent_responders or size >= limits.max_backlog
        return many or self.are_burdened()

    def are_burdened(self) -> bool:
        """Return whether as many of them wait for answers of the peer as may."""
        suspended = self.suspended
        return suspended is not None and suspended.size > self._session.limits.max_backlog

    def suspend(self, running: Running, future: asyncio.Future[Any], waits: bool) -> None:
        """Do not count one as running until the answer that it waits for is here.

        `waits` says that its question was not sent yet.
        """
        if self.suspended is None:
            self.suspended = Suspended(self._responders.room_changed, self._session.calls.let_pass)
        if not future.done():
            self.suspended.asked(running, future, waits)

    def _resumed(self, running: Running) -> None:
        if self.suspended is not None:
            self.suspended.leave(running)

    def exempt(self, running: Running) -> None:
        """Do not wait for this one: it waits for the others."""
        running.status = Status.EXEMPT
        self._exempt += 1
        self._resumed(running)
        self._uncounted -= not running.counted
        running.counted = True
        self._size -= running.size
        running.size = 0

    # --- cancelling ---

    def _made_stopping(self) -> Stopping:
        """Return what cancels them one by one; it is made when it is first needed."""
        if self._stopping is None:
            self._stopping = Stopping(self)
        return self._stopping

    def cancel(self, tag: bytes) -> bool:
        """Cancel the one that answers this tag; return whether one does."""
        return bool(self.all) and self._made_stopping().cancel(tag)

    def may_be_cancelled(self, responder: Responder) -> bool:
        """Return whether a responder may be cancelled before it has answered."""
        own = responder.cancellable if isinstance(responder, MethodResponder) else None
        return self._session.cancellable if own is None else own

    def abandon(self) -> None:
        """Cancel those whose answers cannot be sent: the connection is lost."""
        for task, (running, responder, _) in list(self.all.items()):
            if running.status in (RUNNING, Status.CANCELLED, Status.OVERDUE):
                running.status = Status.ABANDONED
                if running.tag is not None and self.may_be_cancelled(responder):
                    running.cancel_questions()
                    task.cancel()

    def end(self) -> None:
        """No longer cancel them one by one: the conversation is over."""
        if self._stopping is not None:
            self._stopping.end()


#: What a conversation has before the first responder had to wait: most of it takes memory.
NO_TASKS: Final = Tasks(cast("Session", None), cast("Responders", None))
