"""The backlog: the commands of one conversation that wait to begin.

They wait because too much runs, or because the peer has not taken its answers. What waits takes memory,
so reading pauses when it is too much; and a connection on which nothing moves while something waits is
aborted. What may begin does not all begin in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeAlias

from ..commands.exchange import MANY_UNCLAIMED
from ..errors import ConnectionLost
from ..wire.boxes import ASK, AmpBox
from ..wire.costs import box_cost
from .life import Pause

if TYPE_CHECKING:
    from .current import Call
    from .locators import Responder
    from .session import Session

__all__ = ["SHARE", "Backlog"]

#: How many seconds of a turn of the event loop one connection may take with the commands that came
#: over it. It counts time, not commands: what one of them costs is up to the peer and the responder.
SHARE: Final = 0.004

_Waiting: TypeAlias = tuple[AmpBox, "Responder", int, "Call | None"]


class Backlog:
    """The commands that wait, each with its size, in order.

    Attributes:
        size: what they count.
        resting: whether the next ones begin in the next turn of the event loop, and not in this one.
        stuck: how many responders wait for the peer to take its answers.
    """

    __slots__ = (
        "_began",
        "_commands",
        "_overfull",
        "_parked",
        "_session",
        "_stall_timer",
        "resting",
        "size",
        "stuck",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        # By their tags; by another key for those without a tag, or with one that was used twice.
        self._commands: OrderedDict[object, _Waiting] = OrderedDict()
        # Those that are not begun because this side is closing.
        self._parked: list[_Waiting] = []
        self.size = 0  # The bytes of both.
        self._overfull = False  # Whether reading pauses because of them.
        self._stall_timer: asyncio.TimerHandle | None = None
        self._began = 0.0
        self.resting = False
        self.stuck = 0

    def __len__(self) -> int:
        """Return how many wait for their turn to begin."""
        return len(self._commands)

    def add(
        self,
        box: AmpBox,
        responder: Responder,
        size: int,
        call: Call | None,
        parked: bool = False,
    ) -> None:
        """Let a command wait; with `parked`, until `unpark` is called. `size` is 0 if not known."""
        size = size or box_cost(box)
        entry = box, responder, size, call
        if parked:
            self._parked.append(entry)
        else:
            self._wait(entry)
        self.size += size
        if not self._overfull and self._is_full(1):
            self._overfull = True
            self._session.outlet.pause_reading(Pause.BACKLOG)
            self.watch()

    def _wait(self, entry: _Waiting) -> None:
        tag = entry[0].get(ASK)
        self._commands[object() if tag is None or tag in self._commands else tag] = entry

    def next(self) -> _Waiting:
        """Return the next command, which begins now."""
        _, entry = self._commands.popitem(last=False)
        self.size -= entry[2]
        return entry

    def take(self, tag: bytes) -> _Waiting | None:
        """Remove the command with this tag and return it; None if it does not wait."""
        entry = self._commands.pop(tag, None)
        if entry is not None:
            self.size -= entry[2]
        return entry

    def unpark(self) -> bool:
        """Let those that were parked wait for their turn; return whether there were any."""
        parked, self._parked = self._parked, []
        for entry in parked:
            self._wait(entry)
        return bool(parked)

    def relieve(self) -> None:
        """Read again, if little enough waits."""
        if self._overfull and (not self._is_full(2) or not self.size):
            self._overfull = False
            self.unwatch()
            self._session.outlet.resume_reading(Pause.BACKLOG)

    def _is_full(self, divisor: int) -> bool:
        """Return whether more waits than this part of what may wait: bytes, or descriptors."""
        session = self._session
        if self.size > session.limits.max_backlog // divisor:
            return True
        exchange = session.outbox.exchange
        return exchange is not None and exchange.unclaimed > MANY_UNCLAIMED // divisor

    def drop(self, keep: bool) -> None:
        """Forget the commands that have not begun; with `keep`, only those that want an answer."""
        left = [entry for entry in self._commands.values() if keep and ASK not in entry[0]]
        self._commands = OrderedDict(enumerate(left))
        self._parked = []
        self.size = sum(entry[2] for entry in left)
        self._overfull = False
        self.unwatch()

    # --- the share of a turn ---

    def start_turn(self) -> None:
        """Note that commands begin now, perhaps not for the first time in this turn."""
        now = perf_counter()
        if now - self._began > SHARE:
            self._began = now

    def is_turn_over(self) -> bool:
        """Return whether the other connections have waited long enough for this one."""
        return perf_counter() - self._began > SHARE

    # --- stalling ---

    async def room(self) -> None:
        """Wait until another answer may be made, or until no more can be sent.

        A thousand responders may be done in one turn. What they return may be large, or may be one
        object that becomes a thousand copies.
        """
        outbox, most = self._session.outbox, self._session.limits.max_backlog
        if not outbox.is_full(most):
            return
        self.stuck += 1
        try:
            self.watch()
            await outbox.room_below(most)
        finally:
            self.stuck -= 1
            self.unwatch()

    def watch(self) -> None:
        """Look, in a while, whether anything has moved since."""
        if self._stall_timer is None:
            session = self._session
            moved = session.progress(), session.outbox.unsent()
            self._stall_timer = asyncio.get_running_loop().call_later(
                session.limits.stall_timeout, self._abort_if_stalled, moved
            )

    def _abort_if_stalled(self, moved: tuple[int, int]) -> None:
        self._stall_timer = None
        session = self._session
        if (session.progress(), session.outbox.unsent()) != moved:
            self.watch()
            return
        waiting, size = len(self._commands) + len(self._parked), self.size
        suspended = session.responders.tasks.suspended
        if suspended is not None:
            waiting, size = waiting + suspended.count, size + suspended.size
        session.outlet.give_up(
            ConnectionLost(
                f"{waiting} commands of {size} bytes wait, and {self.stuck} answers, and nothing "
                f"has moved for {session.limits.stall_timeout} seconds: the peer does not read its "
                "answers, or the responders do not finish"
            )
        )

    def unwatch(self) -> None:
        """Stop looking, unless something still waits."""
        if self._stall_timer is not None and not self._is_watched():
            self._stall_timer.cancel()
            self._stall_timer = None

    def _is_watched(self) -> bool:
        return self._overfull or self.stuck > 0 or self._session.responders.tasks.are_burdened()
