"""Calls: questions out, answers in.

Each question has a number, and a future that is resolved when the answer comes, in whatever order the
answers come. A question that was cancelled stays in the table until then: that is how a late answer is
told from one that answers nothing. It no longer counts against the window.

A question waits before it is sent if too much is unanswered already, if the transport takes no more, or
if the connection is being changed. One queue serves all three: see `questions.py`. The window does not
hold up the only question of a responder: the answers that make room in it may depend on that one.

Most questions do not wait, and leave as bytes, without a box: see `at_once.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from ..commands.definitions import ENDING, ByName, raisable
from ..commands.exchange import drop
from ..errors import (
    AmpError,
    ConnectionLost,
    DeadlineExceeded,
    ProtocolSwitched,
    shortened,
)
from ..wire.boxes import ANSWER, ASK, COMMAND, ERROR, UNKNOWN_ERROR_CODE, AmpBox
from ..wire.costs import PAIR_OVERHEAD, box_cost
from ..wire.extensions import TIMEOUT
from .changes import Change
from .deadlines import digits, milliseconds
from .negotiation import CANCEL, offer
from .outlets import changeable
from .questions import Queue, fail, remote_error
from .running import current
from .streams import STREAMS_ARE_OPEN
from .table import NO_TABLE, Table
from .terms import TIMEOUT_COST, Terms, deadline_for

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Asked", "Calls"]

_AnyFuture: TypeAlias = asyncio.Future[Any]
# What takes the answer. None for a command that wants no answer.
Asked: TypeAlias = ByName | Change | None

# What the tag will add to a question before it has one.
_TAG_COST = PAIR_OVERHEAD + len(ASK) + 12


class Calls:
    """The questions of one conversation that this side asks.

    Attributes:
        session: the conversation.
        over: why no more questions can be answered; None while they can.
        held: whether the connection takes no questions: it is congested, or being changed.
        ready: whether a question may leave at once, as bytes: see `at_once.py`.
        counter: the number of the last command; the tag of a question is its hexadecimal form.
        most: how large a question may be, together with those that are unanswered, to leave at once.
        default: the timeout of questions without one of their own; None for no limit.
        table: the open questions; `NO_TABLE` before the first one.
        offers: whether the next question is to carry our offer: see `negotiation.py`.
    """

    __slots__ = (
        "_unresolved",
        "_waiting",
        "counter",
        "default",
        "held",
        "most",
        "offers",
        "over",
        "ready",
        "session",
        "table",
    )

    def __init__(self, session: Session) -> None:
        self.session = session
        self.over: AmpError | None = None
        self.ready = False
        self.counter = 0
        self.table = NO_TABLE
        self.default: float | None = None
        self.offers = False
        self.most = 0
        self.held = False
        self._waiting: Queue | None = None  # Made when the first question has to wait.
        # The futures of commands that want no answer, while the transport takes no more.
        self._unresolved: list[_AnyFuture] | None = None

    def begin(self) -> None:
        """Take the limits of the session: questions can be sent from now on."""
        limits = self.session.limits
        self.most = min(limits.window, limits.max_box_size)
        self.default = limits.default_timeout
        self.offer()

    def offer(self) -> None:
        """Have the next question say that this side is of this package."""
        self.offers = self.session.extended
        self.update()

    def update(self) -> None:
        """Find out again whether questions may leave at once."""
        self.ready = (
            self.over is None
            and not self.held
            and not self._waiting
            and not self.session.closing
            and self.session.interceptors is None
            and self.session.outlet.takes_bytes
        )

    def is_open(self) -> bool:
        """Return whether a caller waits for an answer."""
        interceptors = self.session.interceptors
        if self._waiting or self._unresolved or (interceptors is not None and interceptors.is_open()):
            return True
        return self.table.is_open()

    def has_waiting(self) -> bool:
        """Return whether a question waits to be sent."""
        return bool(self._waiting)

    def peer_announced(self) -> None:
        """What is known of the peer has changed."""
        if self.table is not NO_TABLE:
            self.table.peer_announced()

    def made_table(self) -> Table:
        """Return the table of this conversation; it is made for the first question."""
        if self.table is NO_TABLE:
            tells = self.session.knows(CANCEL)
            self.table = Table(self.session, self._room_made, tells)
        return self.table

    # --- asking ---

    def ask(
        self,
        name: bytes,
        box: AmpBox,
        asked: Asked,
        in_lists: int = 0,
        terms: Terms | None = None,
    ) -> _AnyFuture:
        """Ask for the command `name` with `box`; `asked` takes the answer, if one is wanted.

        `in_lists` is what the elements of its lists count. Without `terms`, those of the responder
        count that asks.

        What is wrong with the box is raised at once, and nothing is sent. Everything else is for the
        future to say.
        """
        session = self.session
        if not session.started:
            raise RuntimeError("not connected yet: ask after connection_made")
        future: _AnyFuture = asyncio.get_running_loop().create_future()
        box[COMMAND] = name
        refusal = self.over or session.refusal()
        deadline = self.deadline_of(asked, terms)
        if deadline is not None and deadline <= monotonic():
            refusal = refusal or DeadlineExceeded("the timeout passed before the call was asked")
        if refusal is not None:
            drop(box)
            fail(asked, future, refusal)
            return future
        if session.extended and terms is not None:
            box.update(terms.metadata)
        size = box_cost(box) + in_lists + _TAG_COST + (TIMEOUT_COST if deadline else 0)
        if asked is not None and not asked.counted:
            size = 0
        if deadline is not None:
            self.made_table().end_at(future, deadline)
        responders = session.responders
        nested = responders.is_inside()
        passes = nested and responders.asks_nothing()
        if not self._waiting and not self._may_send(size, passes):
            self.table.free()
        waits = (self._waiting is not None and not passes) or not self._may_send(size, passes)
        try:
            if waits:
                self.check(box, asked)
                if self._waiting is None:
                    self._waiting = Queue()
                self._waiting.add(future, (asked, box, size), passes)
                future.add_done_callback(self._stop_waiting)
                self.ready = False
                self.table.watch()
            else:
                self._send(asked, box, size, future)
        except BaseException:
            drop(box)
            if self.table.deadlines is not None:
                self.table.deadlines.times.pop(future, None)
            raise
        responders.asked(future, waits)
        return future

    def deadline_of(self, asked: Asked, terms: Terms | None) -> float | None:
        """Return the deadline of a question that is asked here; None for no timeout."""
        if asked is None or (terms is None and isinstance(asked, Change)):
            return None
        asking = self.session.responders.call_of_asker(current.get())
        return deadline_for(None if terms is None else terms.deadline, asking, self.default)

    def ask_beside(self, box: AmpBox, asked: ByName, future: _AnyFuture | None = None) -> None:
        """Ask what the user does not, past window and backlog; a `future` may wait for the answer."""
        if future is None:
            future = asyncio.get_running_loop().create_future()
            future.set_result(None)
        self._send(asked, box, 0, future)

    def check(self, box: AmpBox, asked: Asked) -> None:
        """Raise what is wrong with a box that will be sent later; its tag will not be longer."""
        if asked is not None:
            waiting = len(self._waiting) if self._waiting else 0
            box[ASK] = b"%x" % (self.counter + waiting + 1)
        self.session.outbox.serialize(box)
        box.pop(ASK, None)

    def _may_send(self, size: int, passes: bool) -> bool:
        if self.held:
            return False
        unanswered = self.table.unanswered
        if passes or not unanswered:
            return True
        return unanswered + size <= self.session.limits.window

    def _send(self, asked: Asked, box: AmpBox, size: int, future: _AnyFuture) -> None:
        """Send a question; its future is in the table before that."""
        session = self.session
        if isinstance(asked, Change):
            asked.check(changeable(session.outlet))
            if session.has_streams():
                raise RuntimeError(STREAMS_ARE_OPEN)
        self.counter = number = self.counter + 1
        tag = b"%x" % number
        table, offers = self.table if asked is None else self.made_table(), False
        if asked is not None:
            box[ASK] = tag
            deadline = table.deadlines.times.get(future) if table.deadlines is not None else None
            if deadline is not None and session.extended:
                box[TIMEOUT] = digits(milliseconds(max(0.001, deadline - monotonic())))
            if self.offers and not isinstance(asked, Change):
                offers = offer(session, box, session.limits.max_box_size - size)
            table.add(tag, asked, future, size)
        try:
            session.send(box)
        except BaseException as error:
            table.remove(tag)
            if self.counter == number:
                self.counter = number - 1
            if isinstance(error, ConnectionLost | ProtocolSwitched):
                drop(box)
                fail(asked, future, error)
                return
            raise
        if asked is not None:
            if offers:
                self.offers = False
            if table.tells and not table.watches:
                table.watch_soon()
        if isinstance(asked, Change):
            asked.sent(changeable(session.outlet), future)
        elif asked is None and self.held:
            self._unresolved = [*(self._unresolved or ()), future]
        elif asked is None:
            future.set_result(None)
        if session.parking:
            session.responders.unpark()

    def hold(self) -> None:
        """Let the questions wait from now on."""
        self.held = True
        self.ready = False

    def release(self) -> None:
        """Send what waited, in order, until all is sent or the questions are held again."""
        self.held = False
        self._taken()
        self._send_waiting()
        if self.table.tells:
            self.table.look_soon()

    def _taken(self) -> None:
        """The transport takes more, or never will: commands that want no answer are done."""
        unresolved, self._unresolved = self._unresolved, None
        for future in unresolved or ():
            if not future.done():
                future.set_result(None)

    def send_rest(self) -> None:
        """Send what waited, in order, up to a change: nothing more is sent after this."""
        self._send_waiting(rest=True)

    def _send_waiting(self, rest: bool = False) -> None:
        queue = self._waiting
        while queue:
            future, (asked, box, size), passes = queue.first()
            goes = (rest and not isinstance(asked, Change)) or self._may_send(size, passes)
            if not goes and not future.done():
                break
            queue.remove(future)
            if future.done():
                drop(box)
                continue
            try:
                self._send(asked, box, size, future)
            except BaseException as error:
                drop(box)
                future.set_exception(raisable(error))
                if isinstance(error, ENDING):
                    raise
        if queue:
            self.table.watch()
        self._waiting = self._waiting or None  # An empty one is not kept.
        self.update()

    def _stop_waiting(self, future: _AnyFuture) -> None:
        """Forget a question that was cancelled while it waited."""
        if self._waiting and (entry := self._waiting.remove(future)) is not None:
            drop(entry[1])
            self._send_waiting()
            self.session.moved()

    def let_pass(self, questions: deque[_AnyFuture], asking: int) -> None:
        """Let the first of a responder's `questions` pass the window, if all that it asks wait."""
        if self._waiting and self._waiting.let_pass(questions, asking):
            self._send_waiting()

    def _room_made(self) -> None:
        """Send what waits, as far as it fits: some of the open questions were cancelled."""
        if self._waiting:
            self.table.free()
            self._send_waiting()

    # --- answers ---

    def answer_received(self, box: AmpBox) -> None:
        """Take an answer; `MalformedAmpBox` where no such question is open."""
        asked, future = self.table.take(box[ANSWER])
        try:
            asked.answered(box, self.session, future)
        except BaseException as error:
            fail(asked, future, error)
            raise
        if self._waiting:
            self._send_waiting()
        if self.session.watched:
            self.session.moved()

    def error_received(self, box: AmpBox) -> None:
        """Take an error; `MalformedAmpBox` where it has no code, or no such question is open."""
        error = remote_error(box)
        asked, future = self.table.take(box[ERROR])
        if error.errorCode == UNKNOWN_ERROR_CODE and "reference" in str(error.description):
            # The peer's log has the rest, under the same reference.
            message = "%r: a question failed: %s"
            self.session.lines.warning(message, self.session, shortened(error.description))
        try:
            asked.failed(error, self.session, future)
        except BaseException as broken:
            fail(asked, future, broken)
            raise
        if self._waiting:
            self._send_waiting()
        if self.session.watched:
            self.session.moved()

    # --- the end ---

    def give_up(self, reason: AmpError) -> None:
        """Fail every question that is open; its late answer is dropped, and others may be asked."""
        self.table.give_up(reason)
        for future, (waiter, _, _) in self._waiting.all() if self._waiting else ():
            fail(waiter, future, reason)

    def end(self, reason: AmpError) -> None:
        """Fail every question that has no answer, and every later one."""
        self.over = reason
        self.ready = False
        waiting = self._waiting.all() if self._waiting else []
        self._waiting = None
        self._taken()
        if self.table is not NO_TABLE:
            self.table.end(reason)
        for future, (waiter, box, _) in waiting:
            drop(box)
            fail(waiter, future, reason)
