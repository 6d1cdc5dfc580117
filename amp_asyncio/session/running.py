"""Which responder runs: what a conversation knows of an `async def` responder while it has not ended.

A responder that waits for an answer of its own peer does not count as running: that answer may need a
responder of ours itself. If it counted, two peers whose responders ask each other would wait for ever
as soon as each has as many as may run at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from ..wire.boxes import AmpBox
    from .current import Call
    from .responders import Responders

__all__ = ["RUNNING", "Desk", "Running", "Status", "Suspended", "current", "desk"]


class Status(Enum):
    """What an `async def` responder is at the moment."""

    RUNNING = "running"
    #: It waits itself until the others are done, because it closes the connection.
    EXEMPT = "exempt"
    #: The connection is lost, so its answer cannot be sent.
    ABANDONED = "abandoned"
    #: The caller has cancelled.
    CANCELLED = "cancelled"
    #: The time of the call is over.
    OVERDUE = "overdue"
    ENDED = "ended"


RUNNING: Final[Literal[Status.RUNNING]] = Status.RUNNING

# With this many of a responder's questions in a list, those that are answered are removed from it.
_MANY: Final = 16


class Running:
    """An `async def` responder of `responders`, from its beginning to its end.

    Attributes:
        command: the name of the command that it answers.
        tag: the tag of its answer; None if the caller wants no answer.
        counted: whether it counts as running; those of streams do not.
        call: what `current_call` returns in it; None if it was not made yet.
        size: what the command counts while it is in memory.
        status: what it is at the moment, or was when it ended.
        ended: whether it has ended.
        questions: what it has asked, on any connection; some may be answered.
        asking: how many of its questions are open.
        waiting: those of its questions that were not sent when they were asked; some may be by now.
        suspended: whether it waits for the answers to them.
    """

    __slots__ = (
        "asking",
        "call",
        "command",
        "counted",
        "ended",
        "questions",
        "responders",
        "size",
        "status",
        "suspended",
        "tag",
        "waiting",
    )

    def __init__(self, responders: Responders, command: bytes, tag: bytes | None, size: int) -> None:
        self.responders = responders
        self.command = command
        self.tag = tag
        self.counted = True
        self.call: Call | None = None
        self.size = size
        self.status: Status = RUNNING
        self.ended = False
        self.questions: list[asyncio.Future[Any]] | None = None
        self.asking = 0
        self.waiting: deque[asyncio.Future[Any]] | None = None
        self.suspended = False

    def end(self) -> None:
        """Note that it has ended; if its answer was not sent for some other reason, that stays."""
        self.ended = True
        self.questions = None
        if self.status is RUNNING:
            self.status = Status.ENDED

    def is_inside(self, responders: Responders) -> bool:
        """Return whether it runs for `responders`, and has not ended."""
        return self.responders is responders and not self.ended

    def asks(self, future: asyncio.Future[Any]) -> None:
        """Note a question that it asks: it is cancelled with it."""
        questions = self.questions
        if questions is None:
            self.questions = [future]
            return
        questions.append(future)
        if not len(questions) % _MANY:
            self.questions = [question for question in questions if not question.done()]

    def cancel_questions(self) -> None:
        """Cancel what it has asked."""
        questions, self.questions = self.questions, None
        for question in questions or ():
            question.cancel()


_Answered: TypeAlias = Callable[[deque[asyncio.Future[Any]], int], None]


class Suspended:
    """The responders of one conversation that wait for answers of the peer.

    `changed` is called when their number changes. `answered` is called when one that asks
    more than one question got an answer, with those that may still wait, and the number of all.

    Attributes:
        count: how many wait.
        size: what their commands count, as the window counts them.
    """

    __slots__ = ("_answered", "_changed", "count", "size")

    def __init__(self, changed: Callable[[], None], answered: _Answered) -> None:
        self._changed = changed
        self._answered = answered
        self.count = self.size = 0

    def asked(self, running: Running, future: asyncio.Future[Any], waits: bool) -> None:
        """A responder has asked a question, and waits for its answer until `future` is done.

        `waits` says that the question was not sent yet.
        """
        running.asking += 1
        if waits:
            running.waiting = running.waiting or deque()
            running.waiting.append(future)
        future.add_done_callback(partial(self._done, running))
        if running.asking == 1 and running.status is RUNNING:
            running.suspended = True
            self.count += running.counted
            self.size += running.size
            self._changed()

    def _done(self, running: Running, future: asyncio.Future[Any]) -> None:
        running.asking -= 1
        if not running.asking:
            self.leave(running)
        elif running.waiting:
            self._answered(running.waiting, running.asking)

    def leave(self, running: Running) -> None:
        """A responder runs again, or has ended, or counts in another way; perhaps it did before."""
        if running.suspended:
            running.suspended = False
            self.count -= running.counted
            self.size -= running.size
            self._changed()


#: In an `async def` responder, and in the tasks that it starts: which one it is.
current: ContextVar[Running | None] = ContextVar("amp_asyncio.running", default=None)


class Desk:
    """Where each responder of an event loop is called, one at a time.

    Attributes:
        now: whose responder is being called, for which command, and its call if that was made; None
            between two responders. What an `async def` does after it was called is not part of that.
    """

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now: tuple[Responders, AmpBox, Call | None] | None = None


# The event loops of several threads may call responders at the same time.
_DESKS: WeakKeyDictionary[asyncio.AbstractEventLoop, Desk] = WeakKeyDictionary()


def desk() -> Desk:
    """Return the desk of the event loop that runs here; outside of one, a new one."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return Desk()
    found = _DESKS.get(loop)
    if found is None:
        found = _DESKS[loop] = Desk()
    return found
