"""The connection: an `asyncio.Protocol` that turns a transport's bytes into boxes, and back.

How boxes leave is in `sending.py`; here is how they come, and how the connection begins and ends. A
connection that is closed while its peer still sends would be reset by the kernel, and what the peer
has not read yet would be lost; so ours stops writing, waits for the peer to do the same, and closes
then.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from .errors import AmpError, ConnectionLost, MalformedAmpBox, certificate_error, shortened
from .sending import Sending
from .wire.boxes import BoxReceiver
from .wire.parser import BoxParser

__all__ = ["BoxConnection"]

logger = logging.getLogger("amp_asyncio")

# At the end: how many seconds the peer has to close its side once the kernel has all our bytes, and
# how many of these periods it has to let the kernel have them.
_LINGER = 1.0
_PATIENCE = 10

# How many boxes of one connection are given out in one turn of the loop. On uvloop, one read event
# brings up to 2 MiB; as tiny commands, they would keep all other connections waiting for seconds. So
# few, because what is answered in a turn leaves at its end: the peer then works on the first answers
# while we work on the later commands, which with 100 in flight makes the two 1.5 times as fast.
_QUOTA = 64


class BoxConnection(Sending):
    """Sends boxes over a transport, and gives those that come to `boxReceiver`.

    Attributes:
        transport: the transport, or None before there is one and once it is gone or handed over.
        innerProtocol: the protocol that the transport was handed over to, or None.
    """

    # The addresses of both ends: the transport forgets them before we log its loss.
    _where = "not connected"
    # What ended the connection, where we did, or where it is known better than the transport knows it.
    _error: Exception | None = None
    _peer_finished = False
    _linger: asyncio.TimerHandle | None = None
    # Who waits for the connection to be gone; made when somebody does.
    _closed: asyncio.Event | None = None

    # When the last box came, and the timer that looks at it; only where there is an `idle_timeout`.
    _heard_at = 0.0
    _idle_timer: asyncio.TimerHandle | None = None
    # How many reasons there are to give out no boxes.
    _pauses = 0

    def __init__(self, boxReceiver: BoxReceiver) -> None:
        super().__init__(boxReceiver)
        self._parser: BoxParser = BoxParser(version=self.protocol_version)
        self._delivering = False  # Whether boxes are given out at this moment.

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: the transport is connected."""
        # (uvloop's transports are no instances of asyncio's class.)
        self.transport = transport = cast(asyncio.Transport, transport)
        if self._finished:
            transport.abort()
            return
        self._loop = asyncio.get_running_loop()
        name = transport.get_extra_info
        self._where = f"{name('sockname')!r} to {name('peername')!r}"
        self._parser.max_box_size = self.limits.max_box_size
        if self.limits.idle_timeout is not None:
            self._heard_at = self._loop.time()
            self._watch_for_silence(self.limits.idle_timeout)
        self._debug = logger.isEnabledFor(logging.DEBUG)
        logger.info("%r: connection established", self)
        self.boxReceiver.startReceivingBoxes(self)

    def data_received(self, data: bytes) -> None:
        """Pass on each box that is whole now; bytes that are no AMP abort the connection."""
        if self._finished:
            return
        self._parser.feed(data)
        if not self._pauses:
            self._deliver()

    def _deliver(self) -> None:
        """Give out boxes until there is no whole one, or somebody wants no more.

        Each is given out before the next byte is looked at: the box decides what that byte is.
        """
        parser = self._parser
        quota = _QUOTA
        self._delivering = True
        try:
            while not self._pauses and not self._finished and (box := parser.next_box()) is not None:
                if self._debug:
                    logger.debug("%r: received %s", self, shortened(dict(box)))
                self.boxReceiver.ampBoxReceived(box)
                quota -= 1
                if not quota and not self._pauses:
                    # The other connections' turn; this one goes on behind them.
                    self.pause_receiving()
                    self._loop.call_soon(self.resume_receiving)
            if self._idle_timer is not None and quota < _QUOTA:
                self._heard_at = self._loop.time()
        except AmpError as error:
            # Without its traceback, which would keep the parser, and all that it holds, alive.
            self.give_up(error.with_traceback(None))
        finally:
            self._delivering = False

    def _watch_for_silence(self, patience: float) -> None:
        """Abort the connection when no complete box has come for `patience` seconds."""
        left = self._heard_at + patience - self._loop.time()
        if self._pauses:
            left = patience  # Nothing can come while we do not read.
        if left > 0:
            self._idle_timer = self._loop.call_later(left, self._watch_for_silence, patience)
        else:
            self.give_up(ConnectionLost(f"no complete box has arrived for {patience} seconds"))

    def pause_receiving(self, before_change: bool = False) -> None:
        """Give out no box, and look at no byte, behind the box that was given out last.

        With `before_change`, because that box may change the connection: raises `MalformedAmpBox`
        where both sides want to change it at once. Each waits for the other's answer, and sends none.
        """
        if before_change and self._change is not None:
            raise MalformedAmpBox("both sides want to change the connection at once")
        self._pauses += 1
        self._read(False)

    def resume_receiving(self) -> None:
        """Take one pause back; after the last, go on with the bytes behind that box."""
        self._pauses -= 1
        if not self._pauses and not self._delivering:
            self._deliver()
        if not self._pauses:
            self._read(True)

    def _read(self, go_on: bool) -> None:
        """Pause or resume the transport's reading, unless it is so already, or is closing."""
        transport = self.transport
        if transport is None or transport.is_closing() or transport.is_reading() is go_on:
            return
        if go_on:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def eof_received(self) -> bool:
        """Note that the peer sends no more, and let the transport close."""
        self._peer_finished = True
        if self._parser.in_box and not self._finished and self._error is None:
            self._error = MalformedAmpBox("the peer ended the connection in the middle of a box")
            logger.warning("%r: %s", self, self._error)
        self._flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End: tell everybody who waits for something."""
        if self.transport is None and self._finished:
            return  # Told before: by a handshake that failed, or by handing the transport over.
        cause = self._error or certificate_error(exc) or exc
        logger.info("%r: connection lost%s", self, f": {cause}" if cause else "")
        self._cancel_timers()
        self._finished = True
        self._empty_outbox()
        self._parser.take_rest()
        if self._exchange is not None:
            self._exchange.close()
        reason = ConnectionLost(f"the connection was lost: {cause or 'it was closed'}")
        reason.__cause__ = cause
        self.transport = None
        self.boxReceiver.stopReceivingBoxes(reason)
        for event in (self._closed, self._drained):
            if event is not None:
                event.set()

    # --- ending ---

    def unhandledError(self, error: BaseException) -> None:
        """Log an error that nobody handles, and close the connection."""
        logger.error("%r: an error that nobody handled closes the connection", self, exc_info=error)
        self.finish_writing()

    def finish_writing(self) -> None:
        """Write what was sent, then close; what still comes in is not looked at.

        A peer that does not take it all within ten seconds loses the rest. Does nothing where this
        was done before.
        """
        transport = self.transport
        if self._finished or transport is None:
            return
        if self._change is not None:
            self._finish_after_change = True
            if self._linger is None:
                self._linger = self._loop.call_later(_LINGER * _PATIENCE, self.abort)
            return
        self._flush()
        self._finished = True
        self._cancel_timers()
        self._parser.take_rest()
        # Unread bytes would make the kernel reset the connection, and TLS could not say goodbye.
        self._read(True)
        if self._peer_finished or not transport.can_write_eof():
            transport.close()
        else:
            try:
                transport.write_eof()
            except OSError:  # The peer has reset the connection, and we have not heard of it yet.
                transport.abort()
        self._linger = self._loop.call_later(_LINGER, self._end, transport, _PATIENCE)

    def _cancel_timers(self) -> None:
        for timer in (self._linger, self._idle_timer):
            if timer is not None:
                timer.cancel()

    def _end(self, transport: asyncio.Transport, patience: int) -> None:
        """Close a transport that has nothing left to write; abort one that has it for too long."""
        if not transport.get_write_buffer_size() and not transport.is_closing():
            transport.close()
        elif patience > 1:
            self._linger = self._loop.call_later(_LINGER, self._end, transport, patience - 1)
        else:
            transport.abort()

    def abort(self) -> None:
        """Close the connection now, or as soon as it is made; what was not written yet is lost."""
        self._finished = True
        if self.transport is not None:
            self._empty_outbox()
            self.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone; cancelling this only ends the wait."""
        if self.transport is not None:
            if self._closed is None:
                self._closed = asyncio.Event()
            await self._closed.wait()

    def give_up(self, error: Exception) -> None:
        """Abort the connection because of what the peer did."""
        self._error = error
        logger.warning("%r: aborting the connection: %s", self, error)
        self.abort()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._where}>"
