"""The connection: an `asyncio.Protocol` that turns a transport's bytes into boxes, and back.

It owns the transport, so it alone decides what is written, and when: boxes that are sent in one turn
of the event loop leave together, in one write, because a write is by far the dearest part of sending
a small box. It also owns the end. A connection that is closed while its peer still sends would be
reset by the kernel, and what the peer has not read yet would be lost; so ours stops writing, waits
for the peer to do the same, and closes then.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from .boxes import AmpBox, BoxReceiver
from .errors import AmpError, ConnectionLost, MalformedAmpBox, NoEmptyBoxes, shortened
from .parser import BoxParser

__all__ = ["BinaryBoxProtocol"]

logger = logging.getLogger("amp_asyncio")

# At the end: how many seconds the peer has to close its side once the kernel has all our bytes, and
# how many of these periods it has to let the kernel have them.
_LINGER = 1.0
_PATIENCE = 10


class BinaryBoxProtocol(asyncio.Protocol):
    """Sends boxes over a transport, and gives those that come to `boxReceiver`."""

    transport: asyncio.Transport | None = None

    # What ended the connection, where we did.
    _error: Exception | None = None
    # Whether the last byte was written, and only the end is waited for.
    _finished = False
    _peer_finished = False
    _linger: asyncio.TimerHandle | None = None
    # Who waits for the connection to be gone; made when somebody does.
    _closed: asyncio.Event | None = None

    def __init__(self, boxReceiver: BoxReceiver) -> None:
        self.boxReceiver = boxReceiver
        self._parser = BoxParser()
        self._outbox: list[bytes] = []

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: the transport is connected."""
        # (uvloop's transports are no instances of asyncio's class.)
        self.transport = transport = cast(asyncio.Transport, transport)
        if self._finished:
            transport.abort()
            return
        self._loop = asyncio.get_running_loop()
        # Asked once, not for each box.
        self._debug = logger.isEnabledFor(logging.DEBUG)
        logger.info("%r: connection established", self)
        self.boxReceiver.startReceivingBoxes(self)

    def data_received(self, data: bytes) -> None:
        """Pass on each box that is whole now; bytes that are no AMP abort the connection."""
        if self._finished:
            return
        parser = self._parser
        parser.feed(data)
        try:
            for box in iter(parser.next_box, None):
                if self._debug:
                    logger.debug("%r: received %s", self, shortened(dict(box)))
                self.boxReceiver.ampBoxReceived(box)
                if self._finished:
                    return
        except AmpError as error:
            self._abort(error)

    def eof_received(self) -> bool:
        """Note that the peer sends no more, and let the transport close."""
        self._peer_finished = True
        if self._parser.in_box and not self._finished:
            self._error = MalformedAmpBox("the peer ended the connection in the middle of a box")
            logger.warning("%r: %s", self, self._error)
        self._flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End: tell everybody who waits for something."""
        cause = self._error or exc
        logger.info("%r: connection lost%s", self, f": {cause}" if cause else "")
        if self._linger is not None:
            self._linger.cancel()
        self._finished = True
        self._outbox.clear()
        reason = ConnectionLost(f"the connection was lost: {cause or 'it was closed'}")
        reason.__cause__ = cause
        self.transport = None
        self.boxReceiver.stopReceivingBoxes(reason)
        if self._closed is not None:
            self._closed.set()

    def pause_writing(self) -> None:
        """The transport's buffer is full: no new questions, please."""
        self.boxReceiver.pause_sending()

    def resume_writing(self) -> None:
        """The transport takes more."""
        if not self._finished:
            self.boxReceiver.resume_sending()

    # --- sending ---

    def sendBox(self, box: AmpBox) -> None:
        """Send `box`, together with all others of this turn of the event loop.

        Raises `ConnectionLost` where the connection is closed or closing, `NoEmptyBoxes` for an
        empty box, and what `AmpBox.serialize` raises.
        """
        if self._finished or self.transport is None:
            raise ConnectionLost("the connection is closed")
        if not box:
            raise NoEmptyBoxes("an empty box means nothing, and is not sent")
        data = box.serialize()
        if self._debug:
            logger.debug("%r: sent %s", self, shortened(dict(box)))
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(data)

    def _flush(self) -> None:
        if self._outbox and self.transport is not None:
            self.transport.write(b"".join(self._outbox))
            self._outbox.clear()

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
        self._flush()
        self._finished = True
        self._parser.take_rest()
        if self._peer_finished or not transport.can_write_eof():
            transport.close()
        else:
            if not transport.is_reading():
                transport.resume_reading()
            try:
                transport.write_eof()
            except OSError:  # The peer has reset the connection, and we have not heard of it yet.
                transport.abort()
        self._linger = self._loop.call_later(_LINGER, self._end, transport, _PATIENCE)

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
            self._outbox.clear()
            self.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone; cancelling this only ends the wait."""
        if self.transport is not None:
            if self._closed is None:
                self._closed = asyncio.Event()
            await self._closed.wait()

    def _abort(self, error: Exception) -> None:
        """Abort the connection because of what the peer did."""
        self._error = error
        logger.warning("%r: aborting the connection: %s", self, error)
        self.abort()

    def __repr__(self) -> str:
        transport: Any = self.transport
        if transport is None:
            where = "not connected"
        else:
            name = transport.get_extra_info
            where = f"{name('sockname')!r} to {name('peername')!r}"
        return f"<{type(self).__name__} {where}>"
