"""Sending: boxes out, over the transport of a connection.

Boxes that are sent in one turn of the event loop leave together, in one write, because a write is by
far the dearest part of sending a small box; only what is large does not wait for the others. And
nothing leaves while it is unknown what the connection will be: TLS, or another protocol.
"""

from __future__ import annotations

import asyncio
import logging

from .commands.exchange import Exchange
from .errors import BoxTooLong, ConnectionLost, NoEmptyBoxes, ProtocolSwitched, shortened
from .limits import Limits
from .wire.boxes import AmpBox, BoxReceiver
from .wire.costs import PAIR_OVERHEAD

__all__ = ["Sending"]

logger = logging.getLogger("amp_asyncio")

# With how many bytes the outbox does not wait for the end of the turn. To join more costs more than to
# write more often: copies of some 100 KB are made in memory that the allocator fetches from the system
# and gives back at once, which makes large values a third as fast.
_FULL_OUTBOX = 32 * 1024

# glibc gives the memory that is free at the end of its heap back to the system, once that is more than
# twice the largest block that it had mapped apart and got back: at first, 128 KiB. Large values come
# and go in more than that, and to fetch the pages anew takes longer than all that is done with them.
# With this block it is 2 MiB, and values of 60,000 bytes go over TLS 1.7 times as fast.
bytes(1024 * 1024)


class Sending(asyncio.Protocol):
    """The half of a connection that sends."""

    #: How much a connection may take; see `Limits`. It is looked at when the connection is made.
    limits: Limits = Limits()

    #: The version of AMP, 1 or 2; see `AMP`.
    protocol_version: int = 1

    transport: asyncio.Transport | None = None
    innerProtocol: asyncio.BaseProtocol | None = None

    # Whether the last byte was written, and only the end is waited for.
    _finished = False

    # What is to change the connection, while it is unknown whether it will, or not done yet: nothing
    # is written meanwhile, and boxes collect in `_outbox`.
    _change: object | None = None
    _finish_after_change = False
    # Whether the transport's buffer is full, and who waits until it is not.
    _congested = False
    _drained: asyncio.Event | None = None
    # The descriptors on their way; made when there is the first.
    _exchange: Exchange | None = None

    # Both are set when the connection is made.
    _loop: asyncio.AbstractEventLoop
    # Whether boxes are logged; asked once, not for each.
    _debug: bool

    def __init__(self, boxReceiver: BoxReceiver) -> None:
        self.boxReceiver = boxReceiver
        # What changes on every connection is set here, not in the class: attributes that come late
        # cost an instance its compact form, 800 bytes in CPython 3.11.
        self._outbox: list[bytes] = []
        self._outbox_size = 0

    def sendBox(self, box: AmpBox) -> None:
        """Send `box`, together with the others of this turn of the event loop.

        Raises `ConnectionLost` where the connection is closed or closing, `NoEmptyBoxes` for an
        empty box, and what `serialize` raises.
        """
        self._check_open()
        if not box:
            raise NoEmptyBoxes("an empty box means nothing, and is not sent")
        data = self.serialize(box)
        if self._debug:
            logger.debug("%r: sent %s", self, shortened(dict(box)))
        self.send_bytes(data)

    def serialize(self, box: AmpBox) -> bytes:
        """Return the bytes that `sendBox` would send.

        Raises what `AmpBox.serialize` raises, and `TooLong` for a box that is over our own limit.
        """
        data = box.serialize(self.protocol_version)
        limit = self.limits.max_box_size
        if len(data) + PAIR_OVERHEAD * len(box) > limit:
            raise BoxTooLong(limit, len(box), isLocal=True)
        return data

    @property
    def takes_bytes(self) -> bool:
        """Whether `send_bytes` will do: the version is 1, and nobody looks at the boxes that go out."""
        unseen = not self._debug and type(self).sendBox is Sending.sendBox
        return unseen and self.protocol_version == 1

    def send_bytes(self, data: bytes) -> None:
        """Send a box that was written already; raises `ConnectionLost` as `sendBox` does."""
        if self._finished or self.transport is None:
            self._check_open()
        self._outbox.append(data)
        self._outbox_size += len(data)
        if self._outbox_size >= _FULL_OUTBOX:
            self._flush()
        elif len(self._outbox) == 1:
            self._loop.call_soon(self._flush)

    def _check_open(self) -> None:
        if self.innerProtocol is not None:
            raise ProtocolSwitched(f"the connection was handed over to {self.innerProtocol!r}")
        if self._finished or self.transport is None:
            raise ConnectionLost("the connection is closed")

    def _flush(self) -> None:
        if self._outbox and self._change is None and self.transport is not None:
            data = b"".join(self._outbox)
            self._empty_outbox()
            if self._exchange is None:
                self.transport.write(data)
            else:
                self._exchange.write(self.transport, data)

    def _empty_outbox(self) -> None:
        self._outbox.clear()
        self._outbox_size = 0

    def _resume_sending(self) -> None:
        if not self._congested and not self._finished and self._change is None:
            self.boxReceiver.resume_sending()

    async def drain(self) -> None:
        """Wait until the transport takes more; cancelling this only ends the wait.

        Raises `ConnectionLost`, or `ProtocolSwitched`, where it takes no more.
        """
        while self._congested and self.transport is not None:
            await self._room()
        self._check_open()

    async def _room(self) -> None:
        """Wait until there may be more room in the transport's buffer."""
        if self._drained is None:
            self._drained = asyncio.Event()
        self._drained.clear()
        await self._drained.wait()

    def pause_writing(self) -> None:
        """The transport's buffer is full: no new questions, please."""
        self._congested = True
        self.boxReceiver.pause_sending()

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._congested = False
        if self._drained is not None:
            self._drained.set()
        self._resume_sending()

    def unsent(self) -> int:
        """Return how many bytes were sent that the network has not taken yet."""
        written = 0 if self.transport is None else self.transport.get_write_buffer_size()
        return written + self._outbox_size
