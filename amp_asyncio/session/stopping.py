"""Stopping: responders whose callers have given up, on a connection that goes on.

The caller has cancelled, or the time of the call is over. The responder's task is cancelled, and so is
what it has asked. The caller's side gets the one box that each tag gets when the task has ended: its
answer, if it finished all the same, or else an error that says why not. Until then it counts as
running: otherwise a peer could have any number of them by asking and cancelling.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ..errors import DeadlineExceeded, RemoteAmpError
from ..wire.extensions import CANCELLED_ERROR_CODE, DEADLINE_ERROR_CODE
from .deadlines import Deadlines
from .refusals import is_loss
from .running import RUNNING, Running, Status

if TYPE_CHECKING:
    from .tasks import Tasks

__all__ = ["Stopping", "cancelled", "overdue", "why_stopped"]

_CAUSES: Final = (asyncio.CancelledError, DeadlineExceeded)


class Stopping:
    """The `async def` responders of one conversation, by their tags, and their deadlines.

    It is made when the first of them has a deadline, or is cancelled.
    """

    __slots__ = ("_by_tag", "_deadlines", "_tasks")

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._deadlines = Deadlines(self._overdue)
        self._by_tag: dict[bytes, asyncio.Task[None]] = {}
        for task, (running, _, _) in tasks.all.items():
            self.began(task, running)

    def began(self, task: asyncio.Task[None], running: Running) -> None:
        """A responder has begun."""
        tag = running.tag
        if tag is not None:
            self._by_tag[tag] = task
            if running.call is not None and running.call.deadline is not None:
                self._deadlines.add(task, running.call.deadline)

    def ended(self, task: asyncio.Task[None], running: Running) -> None:
        """A responder has ended."""
        if running.tag is not None and self._by_tag.get(running.tag) is task:
            del self._by_tag[running.tag]
        self._deadlines.times.pop(task, None)

    def cancel(self, tag: bytes) -> bool:
        """Cancel the responder with this tag; return whether it was found."""
        task = self._by_tag.get(tag)
        if task is not None:
            self._stop(task, Status.CANCELLED)
        return task is not None

    def _overdue(self, task: asyncio.Task[None]) -> None:
        self._stop(task, Status.OVERDUE)

    def _stop(self, task: asyncio.Task[None], status: Status) -> None:
        running, responder, _ = self._tasks.all[task]
        if running.status is RUNNING and self._tasks.may_be_cancelled(responder):
            running.status = status
            running.cancel_questions()
            task.cancel()

    def end(self) -> None:
        """Cancel no more of them."""
        self._deadlines.end()


def why_stopped(running: Running, error: BaseException) -> RemoteAmpError | None:
    """Return what the peer is told of a responder that was stopped and ended with `error`.

    None if it was not, or if it failed with an error of its own. One that asks within the time that is
    left to itself may learn first that this is over.
    """
    cause = error
    if isinstance(error, BaseExceptionGroup):
        if error.split((*_CAUSES,))[1] is not None:
            return None
    elif not isinstance(error, _CAUSES):
        return None
    call = running.call
    if running.status is Status.CANCELLED:
        return cancelled()
    if running.status is Status.OVERDUE or (
        call is not None and not is_loss(cause) and call.remaining() == 0
    ):
        return overdue()
    return None


def cancelled() -> RemoteAmpError:
    """Return what the peer is told when its caller has cancelled."""
    return RemoteAmpError(CANCELLED_ERROR_CODE, "the call was cancelled")


def overdue() -> RemoteAmpError:
    """Return what the peer is told when the time of its call is over."""
    return RemoteAmpError(DEADLINE_ERROR_CODE, "the time of the call is over")
