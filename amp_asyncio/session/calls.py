"""Calls: questions out, answers in.

Each question has a number, and a future that is resolved when the answer comes, in whatever order the
answers come. A question that was cancelled stays in the table until then: that is how a late answer is
told from one that answers nothing. It does not count against the window any more.

A question waits before it is sent if too much is unanswered already, if the transport takes no more, or
if the connection is being changed. One queue serves all three: see `questions.py`. The window does not
hold up the only question of a responder: the answers that make room in it may depend on that one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..commands.definitions import ENDING, ByName, Definition, raisable
from ..commands.exchange import drop
from ..commands.templates import Template
from ..errors import AmpError, ConnectionLost, MalformedAmpBox, ProtocolSwitched, shortened
from ..wire.boxes import ANSWER, ASK, COMMAND, ERROR, UNKNOWN_ERROR_CODE, AmpBox
from ..wire.costs import PAIR_OVERHEAD, box_cost
from .changes import Change
from .outlets import changeable
from .questions import MOST_CANCELLED, Queue, Watch, fail, free, remote_error
from .running import current

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Asked", "Calls"]

_AnyFuture: TypeAlias = asyncio.Future[Any]
# What takes the answer. None for a command that wants no answer.
Asked: TypeAlias = ByName | Change | None

# What the tag will add to a question that has none yet.
_TAG_COST = PAIR_OVERHEAD + len(ASK) + 12

# With more questions than this without an answer, the next one does not leave before the end of the
# turn: their callers often go on in the same turn, and one question that leaves alone costs both sides
# more.
_FEW = 8

_Open: TypeAlias = dict[bytes, tuple[ByName | Change, _AnyFuture, int]]

# What a conversation has that has never asked: many servers never do, and a dictionary takes memory.
_NONE_OPEN: Final[_Open] = {}


class Calls:
    """The questions of one conversation that this side asks.

    Attributes:
        over: why no question can be answered any more; None while that is possible.
        held: whether the connection takes no questions: it is congested, or being changed.
        ready: whether a question may leave at once, as bytes: nothing waits, nothing is logged.
    """

    __slots__ = (
        "_count_at",
        "_counter",
        "_most",
        "_open",
        "_session",
        "_unanswered",
        "_unresolved",
        "_waiting",
        "_watch",
        "held",
        "over",
        "ready",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self.over: AmpError | None = None
        self.ready = False
        # The number of the last command; the tag of a question is its hexadecimal form.
        self._counter = 0
        # The questions without an answer, by their tags, with their sizes; and the sum of the sizes.
        self._open = _NONE_OPEN
        self._unanswered = 0
        # With how many open questions those are counted that were cancelled.
        self._count_at = MOST_CANCELLED
        self._watch: Watch | None = None  # Made when a question has to wait for others.
        # How large a question may be, together with those that are unanswered, to leave at once.
        self._most = 0
        self.held = False
        self._waiting: Queue | None = None  # Made when the first question has to wait.
        # The futures of commands that want no answer, while the transport takes no more.
        self._unresolved: list[_AnyFuture] | None = None

    def begin(self) -> None:
        """Take the limits of the session: questions can be sent from now on."""
        limits = self._session.limits
        self._most = min(limits.window, limits.max_box_size)
        self.update()

    def update(self) -> None:
        """Find out again whether questions may leave at once."""
        self.ready = (
            self.over is None
            and not self.held
            and not self._waiting
            and not self._session.closing
            and self._session.interceptors is None
            and self._session.outlet.takes_bytes
        )

    def is_open(self) -> bool:
        """Return whether somebody waits for an answer."""
        interceptors = self._session.interceptors
        if self._waiting or self._unresolved or (interceptors is not None and interceptors.is_open()):
            return True
        return any(not future.done() for _, future, _ in self._open.values())

    def may_claim(self) -> bool:
        """Return whether an answer that is awaited may have a descriptor in it."""
        return any(asked.may_claim for asked, _, _ in self._open.values())

    # --- asking ---

    def ask_at_once(
        self, template: Template, asked: Definition, objects: dict[str, Any]
    ) -> _AnyFuture | None:
        """Ask without making a box; return None if a box is needed, and nothing was sent."""
        if not self.ready:
            return None
        # Reserved before the arguments are encoded: what encodes them may ask something itself.
        self._counter = number = self._counter + 1
        tag = b"%x" % number
        data = template.fill(tag, objects, self._most - self._unanswered)
        if data is None:
            if self._counter == number:
                self._counter = number - 1
            return None
        future: _AnyFuture = asyncio.get_running_loop().create_future()
        size = len(data) + template.overhead
        if self._open is _NONE_OPEN:
            self._open = {}
        self._open[tag] = (asked, future, size)
        self._unanswered += size
        try:
            if len(self._open) > _FEW:
                if len(self._open) >= self._count_at:
                    self._count_cancelled()
                self._session.outbox.send(data, later=True)
            else:
                self._session.outbox.send(data)
        except (ConnectionLost, ProtocolSwitched):
            del self._open[tag]
            self._unanswered -= size
            return None  # The future of the question with a box will say it.
        responders = self._session.responders
        if responders.desk.now is not None or current.get() is not None:
            responders.asked(future)
        return future

    def ask(self, name: bytes, box: AmpBox, asked: Asked, in_lists: int = 0) -> _AnyFuture:
        """Ask for the command `name` with `box`; `asked` takes the answer, None for none.

        `in_lists` is what the elements of its lists count.

        What is wrong with the box is raised at once, and nothing is sent. Everything else is for the
        future to say.
        """
        session = self._session
        if not session.started:
            raise RuntimeError("there is no connection yet; ask when connection_made was called")
        future: _AnyFuture = asyncio.get_running_loop().create_future()
        box[COMMAND] = name
        refusal = self.over or session.refusal()
        if refusal is not None:
            drop(box)
            fail(asked, future, refusal)
            return future
        size = box_cost(box) + in_lists + _TAG_COST
        responders = session.responders
        nested = responders.is_inside()
        passes = nested and responders.asks_nothing()
        if not self._waiting and not self._may_send(size, passes):
            self._free_window()
        waits = (self._waiting is not None and not passes) or not self._may_send(size, passes)
        try:
            if waits:
                self.check(box, asked)
                if self._waiting is None:
                    self._waiting = Queue()
                self._waiting.add(future, (asked, box, size), passes)
                future.add_done_callback(self._stop_waiting)
                self.ready = False
                self._watch_open()
            else:
                self._send(asked, box, size, future)
        except BaseException:
            drop(box)
            raise
        if nested:
            responders.asked(future, waits)
        return future

    def check(self, box: AmpBox, asked: Asked) -> None:
        """Raise what is wrong with a box that will be sent later; its tag will not be longer."""
        if asked is not None:
            waiting = len(self._waiting) if self._waiting else 0
            box[ASK] = b"%x" % (self._counter + waiting + 1)
        self._session.outbox.serialize(box)
        box.pop(ASK, None)

    def _may_send(self, size: int, passes: bool) -> bool:
        if self.held:
            return False
        if passes or not self._unanswered:
            return True
        return self._unanswered + size <= self._session.limits.window

    def _send(self, asked: Asked, box: AmpBox, size: int, future: _AnyFuture) -> None:
        """Send a question; its future is in the table before that."""
        session = self._session
        if isinstance(asked, Change):
            asked.check(changeable(session.outlet))
        self._counter = number = self._counter + 1
        tag = b"%x" % number
        if asked is not None:
            box[ASK] = tag
            if self._open is _NONE_OPEN:
                self._open = {}
            self._open[tag] = (asked, future, size)
            self._unanswered += size
            if len(self._open) >= self._count_at:
                self._count_cancelled()
        try:
            session.send(box)
        except BaseException as error:
            if asked is not None and self._open.pop(tag, None) is not None:
                self._unanswered -= size
            if self._counter == number:
                self._counter = number - 1
            if isinstance(error, ConnectionLost | ProtocolSwitched):
                drop(box)
                fail(asked, future, error)
                return
            raise
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
        """Send what waited, in order, until there is nothing left or the questions are held again."""
        self.held = False
        self._taken()
        self._send_waiting()

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
            self._watch_open()
        self._waiting = self._waiting or None  # An empty one is not kept.
        self.update()

    def _stop_waiting(self, future: _AnyFuture) -> None:
        """Forget a question that was cancelled while it waited."""
        if self._waiting and (entry := self._waiting.remove(future)) is not None:
            drop(entry[1])
            self._send_waiting()
            self._session.moved()

    def let_pass(self, questions: deque[_AnyFuture], asking: int) -> None:
        """Let the first of a responder's `questions` pass the window, if all that it asks wait."""
        if self._waiting and self._waiting.let_pass(questions, asking):
            self._send_waiting()

    # --- open questions that were cancelled ---

    def _free_window(self) -> int:
        """Take the cancelled questions out of the window; return how many have no answer."""
        cancelled, size = free(self._open)
        self._unanswered -= size
        return cancelled

    def _count_cancelled(self) -> None:
        """Give the connection up if there are too many of them; else count again later."""
        cancelled = self._free_window()
        self._count_at = len(self._open) + max(1, MOST_CANCELLED - cancelled)
        if cancelled >= MOST_CANCELLED:
            why = f"{cancelled} questions were cancelled, and the peer answers none of them"
            self._session.outlet.give_up(ConnectionLost(why))

    def _watch_open(self) -> None:
        """Have the questions that wait sent when open ones are cancelled."""
        if self._watch is None:
            self._watch = Watch(self._open_cancelled)
        self._watch.add(self._open)

    def _open_cancelled(self) -> None:
        if self._waiting:
            self._free_window()
            self._send_waiting()

    # --- answers ---

    def answer_received(self, box: AmpBox) -> None:
        """Take an answer; `MalformedAmpBox` where no such question is open."""
        asked, future = self._take(box[ANSWER])
        try:
            asked.answered(box, self._session, future)
        except BaseException as error:
            fail(asked, future, error)
            raise
        if self._waiting:
            self._send_waiting()
        if self._session.watched:
            self._session.moved()

    def error_received(self, box: AmpBox) -> None:
        """Take an error; `MalformedAmpBox` where it has no code, or no such question is open."""
        error = remote_error(box)
        asked, future = self._take(box[ERROR])
        if error.errorCode == UNKNOWN_ERROR_CODE and "reference" in str(error.description):
            # The peer's log has the rest, under the same reference.
            message = "%r: a question failed: %s"
            self._session.lines.warning(message, self._session, shortened(error.description))
        try:
            asked.failed(error, self._session, future)
        except BaseException as broken:
            fail(asked, future, broken)
            raise
        if self._waiting:
            self._send_waiting()
        if self._session.watched:
            self._session.moved()

    def _take(self, tag: bytes) -> tuple[ByName | Change, _AnyFuture]:
        """Take a question out of the table."""
        try:
            asked, future, size = self._open.pop(tag)
        except KeyError:
            why = f"an answer to {shortened(tag)}, which is not an open question"
            raise MalformedAmpBox(why) from None
        self._unanswered -= size
        return asked, future

    # --- the end ---

    def give_up(self, reason: AmpError) -> None:
        """Fail every question that is open; its late answer is dropped, and others may be asked."""
        for asked, future, _ in self._open.values():
            fail(asked, future, reason)
        for future, (waiter, _, _) in self._waiting.all() if self._waiting else ():
            fail(waiter, future, reason)

    def end(self, reason: AmpError) -> None:
        """Fail every question that has no answer, and every later one."""
        self.over = reason
        self.ready = False
        open_ones, self._open, self._unanswered = self._open, _NONE_OPEN, 0
        waiting = self._waiting.all() if self._waiting else []
        self._waiting = None
        self._taken()
        for asked, future, _ in open_ones.values():
            fail(asked, future, reason)
        for future, (waiter, box, _) in waiting:
            drop(box)
            fail(waiter, future, reason)
