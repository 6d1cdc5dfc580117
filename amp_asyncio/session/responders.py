"""Responders: commands in, answers out.

For each command, a responder is found and run, at once or in a task (`tasks.py`), and an answer or an
error is sent: see `answers.py`. Not everything begins at once: the responders that run at the same time
are limited, in number and in the size of their commands, and so are the answers that the peer has not
taken yet. Later commands wait, in order: see `backlog.py`. Responders that wait for an answer of the
peer do not count as running: see `running.py`.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from functools import partial
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from ..commands.definitions import ENDING
from ..errors import BadArguments, MalformedAmpBox, RemoteAmpError, TooLong
from ..wire.boxes import ASK, COMMAND, UNKNOWN_ERROR_CODE, AmpBox
from ..wire.costs import box_cost
from ..wire.extensions import STREAM
from . import answers
from .backlog import Backlog
from .changes import ChangingCommand
from .contexts import NO_CONTEXT, present_context
from .control import CONTROLS, may_answer
from .life import Pause
from .locators import MethodResponder, Responder, StreamResponder, is_awaitable
from .refusals import Failing, is_refusal, unhandled
from .running import RUNNING, Desk, Running, current, desk
from .stopping import cancelled, overdue
from .streams import STREAMS_ARE_OPEN
from .tasks import NO_TASKS, Questions, Tasks
from .terms import call_received

if TYPE_CHECKING:
    from .current import Call
    from .session import Session

__all__ = ["Responders"]

logger = logging.getLogger("amp_asyncio")

# What is known of the keys of a command whose responder has no schema.
_NO_KEYS: Final[frozenset[bytes]] = frozenset()

# (Of this type also for a type checker, which would take it for a tuple that is always empty.)
_NONE_ASKED: Questions = ()

# What a conversation has before it begins.
_NO_DESK: Final = Desk()


class Responders:
    """The commands of one conversation that this side answers.

    Attributes:
        progress: how many commands were begun and finished so far.
        context: each responder gets a copy of it: the context in which the conversation has begun, so
            that no responder sees what another one has set, whichever event it is begun at.
        desk: where responders are called, on the event loop of the conversation.
        tasks: the `async def` responders; `NO_TASKS` before the first one.
    """

    __slots__ = (
        "_asked",
        "_backlog",
        "_changing",
        "_session",
        "context",
        "desk",
        "progress",
        "tasks",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self.context = NO_CONTEXT
        self.tasks = NO_TASKS
        self.desk = _NO_DESK
        self.progress = 0
        # What the plain responder that is called now has asked, and whether that was not sent yet.
        self._asked: Questions = _NONE_ASKED
        # What answers the command that may change the connection.
        self._changing: Responder | None = None
        # Made when the first command has to wait: it takes more memory than all else here.
        self._backlog: Backlog | None = None

    def begin(self) -> None:
        """Answer commands from now on, on the event loop that runs."""
        if current.get() is None:
            self.context = present_context()
        else:
            # The connection was made by a responder, which has nothing to do with those that begin
            # here.
            self.context = copy_context()
            self.context.run(current.set, None)
        self.desk = desk()

    @property
    def amp(self) -> Any:
        """The AMP, or the dispatcher, whose commands these are."""
        return self._session.owner

    # --- what comes ---

    def command_received(self, box: AmpBox) -> None:
        """Answer a command, or let it wait for its turn."""
        session = self._session
        name = box[COMMAND]
        extended = session.extended
        if extended and name in CONTROLS:
            if ASK in box:
                call_received(session, box, 0)
            CONTROLS[name](session, box)
            return
        try:
            responder = (session.locator or session.owner).locateResponder(name)
            if responder is None or (session.guarded and session.hides(responder)):
                responder = unhandled
        except BaseException as error:
            responder = Failing(error)
        call, size = None, 0
        if isinstance(responder, MethodResponder):
            definition = responder.definition
            pairs, keys, apart = definition.pairs, definition.keys, definition.apart
        else:
            pairs, keys, apart = 0, _NO_KEYS, getattr(responder, "changes_connection", False)
        # Most commands have the pairs that their definition says, and no others but perhaps a timeout.
        more = len(box) - pairs
        if extended and more and (more == 1 or not keys.issuperset(box)):
            if isinstance(responder, StreamResponder):
                responder.credit = box.pop(STREAM, None)
            try:
                call, size = call_received(session, box, pairs)
            except BadArguments as error:
                responder, apart = Failing(error), False
        if apart:
            if isinstance(responder, StreamResponder):
                session.streams.question_received(box, responder, call, self._begin)
                return
            # What follows may not be AMP: that is known when the command is answered.
            if session.has_streams():
                if may_answer(session, box):
                    refused = RemoteAmpError(UNKNOWN_ERROR_CODE, STREAMS_ARE_OPEN)
                    answers.refuse(session, name, box.get(ASK), responder, refused)
                return
            if session.outlet.locked:
                raise MalformedAmpBox("both sides want to change the connection at once")
            self._changing = responder
            session.outlet.pause_reading(_pause_for(responder))
        # A refusal waits for its turn, too: it takes memory as well.
        if session.parking and not session.calls.is_open():
            self.waiting().add(box, responder, size, call, parked=True)
        elif self._backlog or ((self.tasks.all or session.calls.held) and not self._may_begin()):
            self.waiting().add(box, responder, size, call)
        else:
            self._begin(box, responder, size, call)

    def waiting(self) -> Backlog:
        """Return what the commands wait in; it is made for the first one."""
        if self._backlog is None:
            self._backlog = Backlog(self._session)
        return self._backlog

    def _begin(
        self,
        box: AmpBox,
        responder: Responder,
        size: int = 0,
        call: Call | None = None,
        stream: bool = False,
    ) -> asyncio.Task[None] | None:
        """Call a responder in a context of its own; return the task that it gets if it has to wait.

        `size` is that of the command, if it is known, and `call` has its terms, if it has any. One
        that answers a `stream` does not count as running.
        """
        self.progress += 1
        session = self._session
        context = self.context.copy()
        begin: Any = responder
        in_lists = 0
        if isinstance(responder, MethodResponder):
            begin = responder.begin
            if responder.definition.arguments.lists:
                try:
                    in_lists = responder.in_lists(box, session.limits.max_box_size)
                except TooLong as error:
                    refused = BadArguments(str(error))
                    answers.refuse(session, box[COMMAND], box.get(ASK), responder, refused)
                    return None
                if in_lists:
                    session.end_turn()
        if call is not None and call.deadline is not None and call.deadline <= monotonic():
            answers.refuse(session, box[COMMAND], box.get(ASK), responder, overdue())
            return None
        if session.interceptors is not None and not is_refusal(responder):
            begin = partial(session.interceptors.begin, responder)
        self._asked = _NONE_ASKED
        desk = self.desk
        outer, desk.now = desk.now, (self, box, call)
        try:
            answer = context.run(begin, box)
        except BaseException as error:
            answers.refuse(session, box[COMMAND], box.get(ASK), responder, error)
            if isinstance(error, ENDING):
                raise
            return None
        finally:
            desk.now = outer
        if type(answer) is not CoroutineType:
            # (Most answers are dictionaries, which need no look.)
            if type(answer) is dict or not is_awaitable(answer):
                answers.answer(session, box[COMMAND], box.get(ASK), responder, answer)
                return None
            if asyncio.isfuture(answer):
                # Others may await it, too: only a coroutine is cancelled with the task.
                answer = asyncio.shield(answer)
        # From here on the box is not kept: the responder has its values.
        running = Running(self, box[COMMAND], box.get(ASK), in_lists + (size or box_cost(box)))
        running.call = call
        if stream:
            running.counted, running.size = False, 0
        if self.tasks is NO_TASKS:
            self.tasks = Tasks(session, self)
        return self.tasks.begin(running, responder, answer, context, self._asked)

    def task_ended(self) -> None:
        """An `async def` responder has ended: there may be room for another one."""
        self.progress += 1
        if self._backlog:
            self.begin_waiting()
        if self._session.watched:
            self._session.moved()

    # --- waiting for a turn ---

    def _may_begin(self) -> bool:
        # What was returned already, and waits for room, does not become more before it is sent.
        if self.tasks.all and (
            self.tasks.are_many(self._session.limits)
            or (self._backlog is not None and self._backlog.stuck)
        ):
            return False
        return self._has_room()

    def _has_room(self) -> bool:
        """Return whether another answer fits."""
        session = self._session
        return not session.calls.held or session.outbox.unsent() < session.limits.max_backlog

    def begin_waiting(self) -> None:
        """Begin the commands that waited, in order, as far as they may: some now, others later."""
        backlog = self._backlog
        if backlog is not None and not backlog.resting:
            backlog.start_turn()
            while backlog and self._may_begin():
                self._begin(*backlog.next())
                if backlog.is_turn_over():
                    self._rest(backlog)
                    break
            backlog.relieve()
        if self._session.watched:
            self._session.moved()

    def _rest(self, backlog: Backlog) -> None:
        """Begin no more in this turn of the loop."""
        if not backlog.resting:
            backlog.resting = True
            asyncio.get_running_loop().call_soon(self._begin_more, backlog)

    def _begin_more(self, backlog: Backlog) -> None:
        backlog.resting = False
        self.begin_waiting()

    def unpark(self) -> None:
        """Begin the commands that came while this side was closing: a question of ours is open.

        One of them may have been asked by the peer's responder of that question.
        """
        if self._backlog is not None and self._backlog.unpark():
            self.begin_waiting()

    # --- responders that ask ---

    def asks_nothing(self) -> bool:
        """Return whether the responder that this is called in has no open question."""
        running = current.get()
        if running is not None and running.is_inside(self):
            return not running.asking
        return not self._asked

    def call_of_asker(self, running: Running | None) -> Call | None:
        """Return the call whose responder asks here, if it has one; `running` is `current`.

        The responder may be that of another conversation.
        """
        now = self.desk.now
        if now is not None:
            return now[2]
        return None if running is None or running.ended else running.call

    def asked(self, future: asyncio.Future[Any], waits: bool = False) -> None:
        """A question was asked, perhaps by a responder; `waits` says that it was not sent yet."""
        running = current.get()
        if running is not None and running.status is RUNNING:
            running.asks(future)
        if running is not None and running.is_inside(self):
            self.tasks.suspend(running, future, waits)
        elif self.is_called():
            self._asked = (*self._asked, (future, waits))

    def room_changed(self) -> None:
        """Responders wait for answers of the peer, or do not any more."""
        if self.tasks.are_burdened():
            self.waiting().watch()
        elif self._backlog is not None:
            self._backlog.unwatch()
        if self._backlog:
            # Not at once: one that begins may ask in its turn, and so on.
            self._rest(self._backlog)

    # --- the end ---

    def has_backlog(self) -> bool:
        """Return whether commands wait to begin."""
        return self._backlog is not None and self._backlog.size > 0

    def is_idle(self) -> bool:
        """Return whether every command is done, except those that wait for that themselves."""
        return not self._backlog and self.tasks.are_idle()

    def is_called(self) -> bool:
        """Return whether a responder of this conversation is being called now."""
        now = self.desk.now
        return now is not None and now[0] is self

    def is_inside(self) -> bool:
        """Return whether the code that runs now belongs to a responder that has not ended."""
        if self.is_called():
            return True
        running = current.get()
        return running is not None and running.is_inside(self)

    def exempt_caller(self) -> None:
        """Do not wait for the responder that calls this, if one does: it waits for the others."""
        running = current.get()
        if running is not None and running.responders is self and running.status is RUNNING:
            self.tasks.exempt(running)
            self.begin_waiting()

    def cancel(self, tag: bytes) -> None:
        """The caller no longer waits for the answer with this tag."""
        if self.tasks.cancel(tag) or not self._backlog or not self._has_room():
            return
        entry = self._backlog.take(tag)
        if entry is not None:
            box, responder, _, _ = entry
            answers.refuse(self._session, box[COMMAND], tag, responder, cancelled())
            self.begin_waiting()

    def drop_backlog(self, keep: bool) -> None:
        """Forget the commands that have not begun; with `keep`, only those that want an answer."""
        if self._backlog is not None:
            self._backlog.drop(keep)
            self.begin_waiting()

    def settle(self, responder: Responder) -> None:
        """Go on with what came after a command that might have changed the connection."""
        if responder is self._changing:
            self._changing = None
            self._session.outlet.resume_reading(_pause_for(responder))


def _pause_for(responder: Responder) -> Pause:
    """Return why nothing is read after a command that may change the connection."""
    if isinstance(responder, MethodResponder) and not issubclass(responder.command, ChangingCommand):
        return Pause.ANSWER
    # Another protocol may take over, whose bytes must not be taken for commands.
    return Pause.CHANGE
