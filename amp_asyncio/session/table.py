"""The table of open questions: sent and not answered, even if their callers have given up.

A question stays here when its caller has cancelled, or its time is over: that is how a late answer is
told from one that answers nothing. A peer that has announced that it knows how is told, and sends the
one box that each tag gets when its responder has ended; until then such a question counts against the
window as all others do. Any other peer will answer it some day, or never: it no longer counts,
and a peer that does not answer too many of them is given up.

What the answering side does about it is in `stopping.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from ..clock import Alarm, call_later
from ..errors import AmpError, ConnectionLost, DeadlineExceeded, MalformedAmpBox, shortened
from ..wire.boxes import COMMAND, AmpBox
from ..wire.compiling import caused
from ..wire.extensions import CANCEL as CANCEL_COMMAND
from .changes import Change
from .deadlines import Deadlines
from .negotiation import CANCEL
from .outlets import changeable
from .questions import dropped, fail

if TYPE_CHECKING:
    from ..commands.definitions import ByName
    from .session import Session

__all__ = ["NO_TABLE", "Table"]

_AnyFuture: TypeAlias = asyncio.Future[Any]

# With this many questions that were cancelled and are not answered, a connection is given up.
_MOST_CANCELLED: Final = 10_000

# After how many seconds a question is watched that has no answer yet. To watch each from its beginning
# would make all of them cost more, for the few that are cancelled.
_MOMENT: Final = 0.02


class Table:
    """The open questions of one conversation.

    `room_made` is called when those that wait to be sent may fit. `tells` is whether
    the peer is told now of those whose callers have given up.

    Attributes:
        open: what takes the answer, the future and the size of each, by its tag.
        unanswered: what they count together against the window.
        count_at: with how many open questions those are counted that were cancelled.
        tells: whether the peer is told of those, which may change.
        watches: whether it will be noticed soon which of them were cancelled.
        deadlines: when their time is over; None if none has had a deadline.
    """

    __slots__ = (
        "_last",
        "_room_made",
        "_session",
        "_soon",
        "_timer",
        "_told",
        "count_at",
        "deadlines",
        "open",
        "tells",
        "unanswered",
        "watches",
    )

    def __init__(self, session: Session, room_made: Callable[[], None], tells: bool) -> None:
        self._session = session
        self._room_made = room_made
        self.open: dict[bytes, tuple[ByName | Change, _AnyFuture, int]] = {}
        self.unanswered = 0
        self.count_at = _MOST_CANCELLED
        self.tells = tells
        self.watches = False
        self.deadlines: Deadlines[_AnyFuture] | None = None
        self._last = 0  # The number of the last question that was open when `watch` was called.
        self._soon = False  # Whether `_look` will be called: many are often cancelled in one turn.
        self._timer: Alarm | None = None
        self._told: set[bytes] | None = None  # The tags that the peer was told of.

    def is_open(self) -> bool:
        """Return whether a caller waits for an answer."""
        return any(not future.done() for _, future, _ in self.open.values())

    def has_tags(self) -> bool:
        """Return whether the peer has not answered a question, wanted or not; pings do not count."""
        return any(size or not future.done() for _, future, size in self.open.values())

    def awaits(self, answer: _AnyFuture) -> bool:
        """Return whether no answer came for this future, which may have been cancelled."""
        return any(future is answer for _, future, _ in self.open.values())

    def is_asked(self, asked: ByName) -> bool:
        """Return whether a question was sent whose answer `asked` takes, and has no answer yet."""
        return any(entry[0] is asked for entry in self.open.values())

    def may_claim(self) -> bool:
        """Return whether an answer that is awaited may have a descriptor in it."""
        return any(asked.may_claim for asked, _, _ in self.open.values())

    def add(self, tag: bytes, asked: ByName | Change, future: _AnyFuture, size: int) -> None:
        """A question is being sent."""
        self.open[tag] = (asked, future, size)
        self.unanswered += size
        if len(self.open) >= self.count_at:
            self.count()

    def remove(self, tag: bytes) -> None:
        """Forget a question that could not be sent, if it is still there."""
        _, _, size = self.open.pop(tag, (None, None, 0))
        self.unanswered -= size

    def take(self, tag: bytes) -> tuple[ByName | Change, _AnyFuture]:
        """Remove the question with this tag and return it; `MalformedAmpBox` if it is not open."""
        try:
            asked, future, size = self.open.pop(tag)
        except KeyError:
            why = f"an answer to {shortened(tag)}, which is not an open question"
            raise caused(MalformedAmpBox(why), None)
        self.unanswered -= size
        if self._told is not None and future.done():
            self._told.discard(tag)
        if self.deadlines is not None:
            self.deadlines.times.pop(future, None)
        return asked, future

    # --- those whose callers have given up ---

    def end_at(self, future: _AnyFuture, deadline: float) -> None:
        """Fail a question when its time is over, whether or not it was sent by then."""
        if self.deadlines is None:
            self.deadlines = Deadlines(self._overdue)
        self.deadlines.add(future, deadline)

    def _overdue(self, future: _AnyFuture) -> None:
        if future.done():
            return
        future.set_exception(DeadlineExceeded("no answer came within the timeout of the call"))
        outlet = self._session.outlet
        if outlet.locked:
            for asked, other, _ in self.open.values():
                if other is future and isinstance(asked, Change):
                    asked.cancelled(changeable(outlet))
                    return
        self.look_soon()

    def peer_announced(self) -> None:
        """The peer has said what it knows: perhaps it is told from now on what was cancelled."""
        self.tells = self._session.knows(CANCEL)
        if self.tells:
            if any(future.done() for _, future, _ in self.open.values()):
                self.look_soon()
            self.watch()

    def watch_soon(self) -> None:
        """Watch those that are still open in a moment; most are answered by then."""
        self.watches = True
        self._timer = call_later(asyncio.get_running_loop(), _MOMENT, self._watch_open)

    def _watch_open(self) -> None:
        self.watches = False
        self.watch()
        self._tell()

    def watch(self) -> None:
        """Notice when one of those that are open is cancelled; they are in the order of their tags."""
        last = self._last
        for tag, (_, future, _) in reversed(self.open.items()):
            number = int(tag, 16)
            if number <= last:
                break
            self._last = max(self._last, number)
            future.add_done_callback(self._done)

    def _done(self, future: _AnyFuture) -> None:
        if future.cancelled():
            self.look_soon()

    def look_soon(self) -> None:
        """Look for those whose callers have given up, in the next turn of the event loop."""
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._soon = False
        self._tell()
        self._room_made()

    def _tell(self) -> None:
        """Tell the peer which questions were cancelled, if it knows what that means."""
        if not self.tells:
            return
        told = self._told or set()
        cancelled = [
            tag
            for tag, (asked, future, _) in self.open.items()
            if future.done() and asked.tells_cancelled and tag not in told
        ]
        for tag in cancelled:
            box = AmpBox({COMMAND: CANCEL_COMMAND, b"ask": tag}).serialize()
            if self._session.send_control(box):
                told.add(tag)
                self._told = told

    def free(self) -> int:
        """Have those count nothing that the peer is not told of; return how many were cancelled."""
        cancelled = 0
        for tag, (asked, future, size) in self.open.items():
            if future.done():
                cancelled += 1
                if not self.tells:
                    self.unanswered -= size
                    self.open[tag] = (asked, future, 0)
        return cancelled

    def count(self) -> None:
        """Give the connection up if too many were cancelled; else count again later."""
        cancelled = self.free()
        self.count_at = len(self.open) + max(1, _MOST_CANCELLED - cancelled)
        if cancelled >= _MOST_CANCELLED:
            why = f"the peer has not answered {cancelled} cancelled questions"
            self._session.outlet.give_up(ConnectionLost(why))

    # --- the end ---

    def give_up(self, reason: AmpError) -> None:
        """Fail all of them; their late answers are dropped."""
        for asked, future, _ in self.open.values():
            fail(asked, future, reason, sent=True)

    def end(self, reason: AmpError) -> None:
        """Fail all of them: no more answers can come."""
        questions, self.open, self.unanswered = self.open, {}, 0
        self.tells = False
        if self._timer is not None:
            self._timer.cancel()
        if self.deadlines is not None:
            self.deadlines.end()
        lost = dropped(self._session.outbox)
        for tag, (asked, future, _) in questions.items():
            fail(asked, future, reason, sent=tag not in lost)


#: What a conversation has that has never asked, as many servers never do: a table takes memory. Nothing
#: is put into it, so it needs no session.
NO_TABLE: Final = Table(cast("Session", None), lambda: None, tells=False)
