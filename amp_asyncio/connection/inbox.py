"""The inbox: what comes over a connection, in order, and when it is given out.

Bytes become boxes, and each box is given out before the next byte is looked at: the box decides what
that byte is. While there is a reason to pause, no box is given out, and the transport does not
read. The end of the stream waits for the boxes before it: it never overtakes them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from ..commands.definitions import ENDING, raisable
from ..commands.exchange import Exchange
from ..descriptors import discard
from ..errors import AmpError, ConnectionLost, shortened
from ..session.life import Pause, State
from ..wire.parser import BoxParser
from .ending import Unclaimed

if TYPE_CHECKING:
    from .connection import Connection
    from .ending import Silence

__all__ = ["Inbox"]

logger = logging.getLogger("amp_asyncio")

# How many boxes of one connection are given out in one turn of the loop. On uvloop, one read event
# brings up to 2 MiB; as tiny commands, they would keep all other connections waiting for seconds. It is
# so few because what is answered in a turn leaves at its end: the peer then works on the first answers
# while we work on the later commands, which makes the two 1.5 times as fast with 100 calls in flight.
_QUOTA = 64

# How many seconds they may take together: what one of them costs is up to the peer. In one read event,
# uvloop may bring many pieces of the stream, each with fewer boxes than that.
_SHARE = 0.004

_NONE: Final[frozenset[Pause]] = frozenset()
_OVER: Final[frozenset[Pause]] = frozenset((Pause.OVER,))
# Those that end with the connection: what was held back may be given out then.
_ENDING: Final[frozenset[Pause]] = frozenset((Pause.BACKLOG, Pause.ANSWER))
_PASSING: Final[frozenset[Pause]] = _ENDING | {Pause.TURN}


class Inbox:
    """The boxes that `connection` receives, which it gives to its receiver.

    Attributes:
        pauses: why none are given out.
        heard_at: when a piece of the stream came last that could be read at once, or the time in which
            it is one of several, on the clock of `perf_counter`; before the first one, when it began.
        silence: is told when boxes came; None if that does not matter.
        unclaimed: closes descriptors that no box names; None before the first one came.
    """

    __slots__ = (
        "_afterwards",
        "_connection",
        "_parser",
        "_turn_over",
        "heard_at",
        "pauses",
        "silence",
        "unclaimed",
    )

    def __init__(self, connection: Connection) -> None:
        self.pauses = _NONE
        self.silence: Silence | None = None
        self.unclaimed: Unclaimed | None = None
        self._connection = connection
        self._parser = _NO_PARSER
        self.heard_at = 0.0
        # What is to be done when all boxes that came were given out.
        self._afterwards: Callable[[], None] | None = None
        self._turn_over: asyncio.Event | None = None  # Made when a caller waits for that.

    def open(self, parser: BoxParser) -> None:
        """Begin."""
        self._parser = parser
        self.heard_at = perf_counter()

    def heard(self) -> None:
        """Note that a piece of the stream came."""
        now = perf_counter()
        self.heard_at = now if now > self.heard_at + _SHARE else self.heard_at

    def receive(self, data: bytes | memoryview) -> None:
        """Give out each box that is complete now; bytes that are not AMP abort the connection."""
        if not self.pauses:
            self._parser.feed(data)
            self._deliver()
        elif Pause.OVER not in self.pauses:
            self._parser.feed(data)

    def _deliver(self) -> None:
        """Give out boxes until the next one is incomplete, or until a pause begins."""
        connection, next_box = self._connection, self._parser.next_box
        outbox, receive = connection.outbox, connection.receiver.receive
        quota, log_as, share_ends = _QUOTA, outbox.log_as, self.heard_at + _SHARE
        if (now := perf_counter()) > share_ends:
            self.heard_at = now
            share_ends = now + _SHARE
        outbox.reading = True
        try:
            while not self.pauses and (box := next_box()) is not None:
                if log_as is not None:
                    logger.debug("%r: received %s", log_as, shortened(dict(box)))
                receive(box)
                quota -= 1
                # To look at the clock for each box would cost one of a hundred calls.
                if not quota & 3 and not self.pauses and (not quota or perf_counter() > share_ends):
                    self._rest()
            if quota & 3 and not self.pauses and perf_counter() > share_ends:
                self._rest()
        except AmpError as error:
            # Without its traceback, which would keep the parser, and all that it holds, alive.
            connection.give_up(error.with_traceback(None))
        except BaseException as error:
            # No task is cancelled here: a CancelledError is that of some future that was looked at.
            connection.lines.error("%r: a box could not be taken", connection, error=error)
            connection.give_up(raisable(error).with_traceback(None))
            if isinstance(error, ENDING):
                raise
        finally:
            outbox.reading = False
            outbox.flush()
        if self.silence is not None:
            self.silence.heard(_QUOTA - quota)
        if self._turn_over is not None and Pause.TURN not in self.pauses:
            self._turn_over.set()
        if self._afterwards is not None:
            drained = self._is_draining() and Pause.TURN not in self.pauses
            if drained or not self.pauses:
                afterwards, self._afterwards = self._afterwards, None
                afterwards()

    def _rest(self) -> None:
        """Leave the rest of this turn to the other connections, and go on after them."""
        self.pause(Pause.TURN)
        self._connection.loop.call_soon(self.resume, Pause.TURN)

    def receive_descriptor(self, descriptor: int) -> None:
        """Keep a descriptor for the box that will name it.

        One that no box could name is closed; too many of them abort the connection.
        """
        if self.is_over():
            discard((descriptor,))
            return
        connection = self._connection
        exchange = connection.outbox.exchange
        if exchange is None:
            exchange = connection.outbox.exchange = Exchange()
        try:
            exchange.receive(descriptor, connection.receiver.may_claim())
        except ConnectionLost as error:
            connection.give_up(error)
            return
        if exchange.unclaimed:
            if self.unclaimed is None:
                self.unclaimed = Unclaimed(connection, exchange)
                connection.cancel_at_end(self.unclaimed)
            self.unclaimed.watch()

    # --- pausing ---

    def pause(self, reason: Pause) -> None:
        """Give out no box after the one that was given out last."""
        if reason not in _ENDING or not self._is_draining():
            self.pauses |= {reason}
            self._connection.read(False)

    def resume(self, reason: Pause) -> None:
        """Take a reason to pause back; after the last one, go on with the bytes after that box."""
        if reason in self.pauses:
            self.pauses -= {reason}
            if not self.pauses and not self._connection.outbox.reading:
                self._deliver()
            if not self.pauses:
                self._connection.read(True)

    async def turn(self) -> None:
        """Wait while boxes that came are only waiting for their turn."""
        if self.pauses == {Pause.TURN}:
            if self._turn_over is None:
                self._turn_over = asyncio.Event()
            await self._turn_over.wait()

    # --- the end ---

    @property
    def in_box(self) -> bool:
        """Whether what came ends in the middle of a box."""
        return self._parser.in_box

    def _is_draining(self) -> bool:
        """Return whether the transport is gone: only the next turn can take back a reason to pause."""
        return self._connection.state is State.DRAINING

    def is_over(self) -> bool:
        """Return whether what comes is dropped."""
        return Pause.OVER in self.pauses

    def only_waits(self) -> bool:
        """Return whether boxes may wait that can be given out without the transport."""
        return bool(self.pauses) and self.pauses <= _PASSING

    def when_given_out(self, callback: Callable[[], None]) -> None:
        """Call `callback` when all boxes that came were given out, perhaps at once."""
        if self.pauses:
            self._afterwards = callback
        else:
            callback()

    def drain(self, callback: Callable[[], None]) -> None:
        """Do the same when the transport is gone, which takes back the reasons that it ends."""
        self._afterwards = callback
        for reason in self.pauses & _ENDING:
            self.resume(reason)

    def take_rest(self) -> bytes:
        """Give out no more boxes; return the bytes after the last one, which belong to another."""
        self.pauses |= {Pause.TAKEN}
        return self._parser.take_rest()

    def close(self) -> None:
        """Drop all that is here, and what still comes."""
        self.pauses = _OVER
        self._parser = _NO_PARSER
        self._afterwards = None
        if self._turn_over is not None:
            self._turn_over.set()


# The parser before the first byte and after the last: nothing is fed to it.
_NO_PARSER: Final = BoxParser()
