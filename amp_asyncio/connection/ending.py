"""The end of a connection: who is given how long.

A connection that is closed while its peer still sends would be reset by the kernel, and what the peer
has not read yet would be lost. So ours stops writing, waits for the peer to do the same, and closes
then (`Linger`); it does not wait for one that has read everything. A peer that closes its own side
first is answered for as long as answers go out (`PeerEnd`), and one from which nothing comes is ended
after `idle_timeout` (`Silence`). Descriptors that it has sent and does not name are closed
(`Unclaimed`): one of them may be its own end of the connection, and the stream would then never end.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from random import uniform
from typing import TYPE_CHECKING

from ..errors import ConnectionLost, MalformedAmpBox
from ..session.life import State
from ..transports.cutting import close_once, cut
from .timers import Timer

if TYPE_CHECKING:
    from ..commands.exchange import Exchange
    from .connection import Connection

__all__ = ["Age", "Linger", "PeerEnd", "Silence", "Unclaimed", "close", "peer_ended"]

logger = logging.getLogger("amp_asyncio")

# How many seconds the peer has to close its side once the kernel has all our bytes, and how many of
# these periods it has to let the kernel have them.
_LINGER = 1.0
_PATIENCE = 10

# In how many steps the time since the last answer is measured.
_STEPS = 8


class Linger(Timer):
    """Closes a connection after its last byte."""

    @classmethod
    def until_settled(cls, connection: Connection) -> None:
        """Abort a connection that is to be closed, but is not done being changed, after ten seconds."""
        linger = cls(connection.loop)
        connection.cancel_at_end(linger)
        linger.later(_LINGER * _PATIENCE, connection.abort)

    @classmethod
    def after_last_byte(
        cls, connection: Connection, transport: asyncio.Transport, at_once: bool
    ) -> None:
        """Close our side now, and the transport when the peer has closed its own, or after a while.

        With `at_once`, the transport is closed now, too.
        """
        has_sides = transport.can_write_eof()
        if has_sides:
            try:
                transport.write_eof()
            except OSError:  # The peer has reset the connection, which we have not been told yet.
                cut(transport)
        if at_once or not has_sides:
            close_once(transport)
        linger = cls(connection.loop)
        connection.cancel_at_end(linger)
        if at_once and not transport.get_write_buffer_size():
            # Most transports are gone in the next turn, and need no timer.
            linger.soon(linger.later, _LINGER, linger._end, transport, _PATIENCE)
        else:
            linger.later(_LINGER, linger._end, transport, _PATIENCE)

    def _end(self, transport: asyncio.Transport, patience: int) -> None:
        """Close a transport that has nothing left to write; abort one that has it for too long."""
        if not transport.get_write_buffer_size() and not transport.is_closing():
            transport.close()
        elif patience > 1:
            self.later(_LINGER, self._end, transport, patience - 1)
        else:
            cut(transport)


class Silence(Timer):
    """Aborts a connection on which no box comes for `timeout` seconds, and no work is done.

    It may take up to twice that time after the end of the work, but never less than once.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        super().__init__(connection.loop)
        self._connection = connection
        self._timeout = timeout
        self._progress = 0
        self._overlooked = 0
        self._heard_at = self._loop.time()
        self.later(timeout, self._look)

    def overlook(self) -> None:
        """Let the box that was given out last be no sign of work."""
        self._overlooked += 1

    def heard(self, boxes: int) -> None:
        """Note that so many boxes were given out."""
        if boxes > self._overlooked:
            self._heard_at = self._loop.time()
        self._overlooked = 0

    def _look(self) -> None:
        progress = self._connection.receiver.progress()
        if self._connection.is_busy() or progress != self._progress:
            self._progress = progress
            self._heard_at = self._loop.time()
        left = self._heard_at + self._timeout - self._loop.time()
        if left > 0:
            self.later(left, self._look)
        else:
            self._connection.give_up(
                ConnectionLost(f"no complete box has arrived for {self._timeout} seconds")
            )


class PeerEnd(Timer):
    """Aborts a connection whose peer sends no more, when nothing was answered for `timeout` seconds."""

    def __init__(self, connection: Connection, timeout: float | None) -> None:
        super().__init__(connection.loop)
        self._connection = connection
        self._timeout = timeout
        self._progress = connection.receiver.progress()
        if timeout is not None:
            self.later(timeout / _STEPS, self._look, 1)

    def _look(self, steps: int) -> None:
        assert self._timeout is not None
        progress = self._connection.receiver.progress()
        if progress != self._progress:
            self._progress, steps = progress, 0
        if steps < _STEPS:
            self.later(self._timeout / _STEPS, self._look, steps + 1)
        else:
            self._connection.give_up(
                ConnectionLost(
                    "the peer has closed its side of the connection, and nothing was answered for "
                    f"{self._timeout} seconds"
                )
            )


class Age(Timer):
    """Closes a connection in order when it is `age` seconds old, give or take a tenth.

    Work that is under way takes as long as it takes.
    """

    def __init__(self, connection: Connection, age: float) -> None:
        super().__init__(connection.loop)
        self._connection = connection
        self._closing: asyncio.Task[None] | None = None
        self.later(age * uniform(0.9, 1.1), self._close)

    def _close(self) -> None:
        logger.info("%r: closing the connection because of its age", self._connection)
        self._closing = self._loop.create_task(close(self._connection, None))


class Unclaimed(Timer):
    """Closes descriptors that no box has named for a while.

    It may take up to twice the time that the limits give, but never less than once. Time in which boxes
    that came wait on our side does not count.
    """

    def __init__(self, connection: Connection, exchange: Exchange) -> None:
        super().__init__(connection.loop)
        self._connection = connection
        self._exchange = exchange
        self._timeout = connection.limits.descriptor_timeout

    def watch(self) -> None:
        """Look again in a while: at least one descriptor is unclaimed."""
        if self._handle is None and self._timeout is not None:
            self.later(self._timeout, self._look, self._exchange.received)

    def _look(self, end: int) -> None:
        """Close those with ordinals below `end`, which were here when this looked before."""
        connection, exchange = self._connection, self._exchange
        if not connection.inbox.pauses and not connection.receiver.has_backlog():
            before = exchange.unclaimed
            exchange.expire(end)
            if closed := before - exchange.unclaimed:
                logger.info("%r: closed %d descriptors that no box has named", connection, closed)
        self._handle = None
        if exchange.unclaimed:
            self.watch()


def peer_ended(connection: Connection) -> bool:
    """Note that the peer sends no more; return whether the connection stays open.

    The commands that came before the end are answered, then the connection closes. Our own questions
    fail, because no answer can come. Over TLS, which cannot be closed on one side alone, the connection
    closes at once.
    """
    transport, is_open = connection.transport, connection.state is State.OPEN
    in_use = is_open or connection.state is State.CHANGING
    if in_use and not connection.peer_finished and transport is not None:
        connection.peer_finished = True
        connection.keep_alive(None)
        # A peer of this package says that it leaves, and closes its side when all is answered.
        ours = connection.receiver.peer_is_ours
        connection.half_closed = (
            is_open and transport.can_write_eof() and connection.receiver.is_session and not ours
        )
        connection.inbox.when_given_out(partial(_boxes_ended, connection))
        if connection.half_closed and connection.state is State.OPEN:
            connection.cancel_at_end(PeerEnd(connection, connection.limits.eof_timeout))
    return connection.half_closed and connection.state is State.OPEN


def _boxes_ended(connection: Connection) -> None:
    """Go on after the last box: nothing but the end of the stream is left."""
    if connection.inbox.in_box and connection.error is None:
        connection.error = MalformedAmpBox("the peer ended the connection in the middle of a box")
        connection.lines.warning("%r: %s", connection, connection.error)
    elif connection.error is None and connection.receiver.peer_is_ours:
        connection.error = ConnectionLost("the peer closed its side of the connection")
    if connection.half_closed and connection.state is State.OPEN:
        why = f": {connection.error}" if connection.error else ""
        reason = ConnectionLost(f"the peer closed its side of the connection{why}")
        reason.__cause__ = connection.error
        connection.receiver.peer_finished(reason)
    else:
        connection.outbox.flush()


async def close(connection: Connection, timeout: float | None) -> None:
    """Close in order within `timeout` seconds, then abort; cancelling this aborts at once."""
    if connection.transport is None:
        return
    try:
        try:
            async with asyncio.timeout(timeout):
                connection.receiver.refuse_calls()
                # What was read before is not new work: it only waits for its turn.
                await connection.inbox.turn()
                has_read_all = await connection.receiver.finish()
                connection.finish_writing(at_once=has_read_all)
                await connection.wait_closed()
        except TimeoutError:
            late = ConnectionLost(f"it could not be closed in order within {timeout} seconds")
            connection.error = connection.error or late
            connection.abort()
            await connection.wait_closed()
    except asyncio.CancelledError:
        connection.abort()
        raise
