"""The outbox: what is to be written, in order, and when it is written.

A write costs more than all else that is done to send a small box. So the boxes of one turn of the event
loop share writes: the first one is written at once if nothing else is under way, and those after it
leave together at the end of the turn. What is sent while a piece of the stream is being read leaves
when that piece has been read. Large pieces do not wait for others.

Only the loop can say when a turn ends, and to ask it costs a trip through the loop. So it is asked when
the second box is sent. Most boxes that are alone in their turn are questions: after the answer to one
was read, the next box is a first one again. (If nothing was read in between, it leaves at the end of
its turn.)

While a change of the connection is under way, nothing leaves: it is not known yet whether the next byte
belongs to AMP, to TLS or to another protocol.

A descriptor belongs to the box that it was given for, until the box is sent, and then to the piece of
the outbox that it leaves with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import Any

from ..commands.exchange import Exchange
from ..descriptors import discard
from ..errors import AmpError, BoxTooLong, ConnectionLost, NoEmptyBoxes, shortened
from ..wire.boxes import COMMAND, AmpBox
from ..wire.compiling import derivable
from ..wire.costs import PAIR_OVERHEAD

__all__ = ["Outbox", "again"]

logger = logging.getLogger("amp_asyncio")

# With this many bytes, the outbox does not wait for the end of the turn: to join more costs more than
# another write.
_FULL = 32 * 1024

# What a descriptor that waits to be sent counts as, in bytes: a process has few of them.
_DESCRIPTOR_COST = 64 * 1024


def again(error: AmpError) -> AmpError:
    """Return an exception like `error`: each one that is raised gets a traceback of its own."""
    twin = type(error)(*error.args)
    twin.__cause__ = error.__cause__
    return twin


@derivable
class _Parcel(bytes):
    """The bytes of a box that descriptors leave with: it owns them until it is written."""

    descriptors: tuple[int, ...]
    answers: bool  # Whether the box is an answer.

    @classmethod
    def of(cls, data: bytes, descriptors: Iterable[int], answers: bool) -> _Parcel:
        """Return `data` with its descriptors, which leave before its first byte."""
        parcel = cls(data)
        parcel.descriptors = tuple(descriptors)
        parcel.answers = answers
        return parcel


class Outbox:
    """The boxes that a conversation sends, as bytes.

    Attributes:
        closed: why nothing can be sent, now or yet; None if it can be.
        reading: whether a piece of the stream is being read; the code that sets it calls `flush` later.
        size: how many bytes wait here.
        exchange: the descriptors on their way, both ways; None before the first.
        version: the version of AMP, 1 or 2.
        max_box_size: how large a box may be, see `Limits`; None for no limit.
        log_as: what a log line of each box begins with; None if boxes are not logged.
        congested: whether the transport's buffer is full.
        dropped: what the transport was not given before the outbox was closed.
    """

    __slots__ = (
        "_carries",
        "_drained",
        "_ending",
        "_locked",
        "_pieces",
        "_transport",
        "_turn",
        "closed",
        "congested",
        "dropped",
        "exchange",
        "log_as",
        "max_box_size",
        "reading",
        "size",
        "version",
    )

    def __init__(self) -> None:
        self.closed: AmpError | None = ConnectionLost("not connected yet")
        self.reading = self.congested = False
        self.size = 0
        self.dropped = b""
        self.exchange: Exchange | None = None
        self.version = 1
        self.max_box_size: int | None = None
        self.log_as: object = None
        self._pieces: list[bytes] | None = None  # An empty list would take memory.
        self._turn = False  # Whether the first box of a turn has left.
        self._ending = False  # Whether the loop will say when that turn ends.
        self._locked = False  # Whether nothing may leave, because the connection is being changed.
        self._carries = False  # Whether descriptors can be sent.
        self._transport: Any = None
        self._drained: asyncio.Event | None = None  # Made when a caller waits for room.

    def open(self, transport: Any) -> None:
        """Write to `transport` from now on, an `asyncio.Transport` or what behaves like one."""
        self.closed = None
        self.congested = False
        self._transport = transport
        self._carries = hasattr(transport, "send_descriptor")

    # --- boxes ---

    def send_box(self, box: AmpBox) -> None:
        """Send a box, and the descriptors that leave with it.

        Raises `closed` unless that is None, `NoEmptyBoxes` for an empty box, and what `serialize` does.
        """
        if self.closed is not None:
            raise again(self.closed)
        if not box:
            raise NoEmptyBoxes("an empty box means nothing, and is not sent")
        data = self.serialize(box)
        if self.log_as is not None:
            logger.debug("%r: sent %s", self.log_as, shortened(dict(box)))
        if self.exchange is not None and (descriptors := self.exchange.leaving(box)):
            data = _Parcel.of(data, descriptors, COMMAND not in box)
        self.send(data)

    def serialize(self, box: AmpBox) -> bytes:
        """Return the bytes of a box.

        Raises what `AmpBox.serialize` raises, and `TooLong` for a box that is over our own limit.
        """
        data = box.serialize(self.version)
        limit = self.max_box_size
        if limit is not None and len(data) + PAIR_OVERHEAD * len(box) > limit:
            raise BoxTooLong(limit, len(box), isLocal=True)
        return data

    def sending_exchange(self) -> Exchange | None:
        """Return what takes descriptors for the peer, or None if none can be sent.

        While StartTLS is under way none can: what is sent next would go over TLS.
        """
        if self.closed is not None:
            nowhere = Exchange()
            nowhere.close()
            return nowhere
        if not self._carries:
            return None
        if self.exchange is None:
            self.exchange = Exchange()
        return self.exchange

    def send_descriptors(self, descriptors: Collection[int]) -> None:
        """Send descriptors with the first byte of what is sent next."""
        if descriptors:
            self.send(_Parcel.of(b"", descriptors, True), later=True)

    # --- bytes ---

    def send(self, data: bytes, later: bool = False) -> None:
        """Send the bytes of a whole box; raises `closed` where that is an error.

        With `later`, they do not leave before the end of the turn. The answers of responders that run
        at the same time often come in one turn: to write the first of them at once makes the peer wake
        up for a single answer.
        """
        if self.closed is not None:
            _close(data)
            raise again(self.closed)
        if self._turn or later or self.reading or self._locked:
            if self._pieces is None:
                self._pieces = [data]
            else:
                self._pieces.append(data)
            self.size += len(data)
            if self.size >= _FULL:
                self.flush()
                self._turn = True
            elif not self._ending and not self.reading:
                self._turn = self._ending = True
                asyncio.get_running_loop().call_soon(self._end_turn)
        else:
            self._turn = True
            if type(data) is _Parcel:
                self._write_parcels((data,))
            else:
                self._transport.write(data)

    def _end_turn(self) -> None:
        self._ending = False
        self.flush()

    def flush(self) -> None:
        """Write what waits, unless the outbox is locked."""
        self._turn = self._ending
        if not self._pieces or self._locked:
            return
        pieces, self._pieces = self._pieces, None
        self.size = 0
        if self.exchange is not None:  # One of them may be a parcel.
            self._write_parcels(pieces)
        else:
            self._transport.write(b"".join(pieces))

    def _write_parcels(self, pieces: Iterable[bytes]) -> None:
        """Write the pieces, each descriptor before the first byte of its piece."""
        assert self.exchange is not None, "it has given them"
        together: list[bytes] = []
        for piece in pieces:
            if type(piece) is _Parcel:
                if together:
                    self._transport.write(b"".join(together))
                for descriptor in piece.descriptors:
                    self._transport.send_descriptor(descriptor)
                self.exchange.passed(len(piece.descriptors), piece.answers)
                together = [bytes(piece)]
            else:
                together.append(piece)
        self._transport.write(b"".join(together))

    def lock(self, securing: bool) -> None:
        """Write what was sent, and keep all that is sent from now on."""
        self.flush()
        self._locked = True
        if securing:
            self._carries = False

    def unlock(self) -> None:
        """Write what was kept, and go on."""
        self._locked = False
        self._carries = hasattr(self._transport, "send_descriptor")
        self.flush()
        self._wake()

    # --- the transport's buffer ---

    @property
    def is_held(self) -> bool:
        """Whether what is sent now waits: the transport takes no more, or the connection changes."""
        return self.congested or self._locked

    def unsent(self) -> int:
        """Return how many bytes were sent that the network has not taken yet.

        A descriptor of an answer that the network has not taken yet counts as many bytes. Those of our
        own questions do not: two peers that ask each other for much would wait for each other.
        """
        transport = self._transport
        if transport is None:
            return self.size
        waiting = getattr(transport, "get_unsent_descriptors", None)
        if waiting is None or self.exchange is None:
            descriptors = 0
        else:
            descriptors = _DESCRIPTOR_COST * self.exchange.answers_among(waiting())
        return self.size + descriptors + int(transport.get_write_buffer_size())

    def is_full(self, most: int) -> bool:
        """Return whether `most` bytes or more wait, and may be fewer later."""
        waits = self.congested or self._locked
        return waits and self.closed is None and self.unsent() >= most

    async def room_below(self, most: int) -> None:
        """Wait until `is_full(most)` is false."""
        while self.is_full(most):
            await self._change()

    def relieve(self) -> None:
        """The transport takes more."""
        self.congested = False
        self._wake()

    async def drain(self) -> None:
        """Wait until the transport takes more; raises `closed` if it never will."""
        await self.room()
        if self.closed is not None:
            raise again(self.closed)

    async def room(self) -> None:
        """Wait until the transport takes more, or never will."""
        while self.congested and self.closed is None:
            await self._change()

    async def _change(self) -> None:
        if self._drained is None:
            self._drained = asyncio.Event()
        self._drained.clear()
        await self._drained.wait()

    def _wake(self) -> None:
        if self._drained is not None:
            self._drained.set()

    # --- the end ---

    def close(self, reason: AmpError) -> None:
        """Send no more because of `reason`; what waits is dropped, and its descriptors are closed."""
        self.closed = reason
        self._transport = None
        pieces, self._pieces = self._pieces, None
        self.size = 0
        if pieces:
            self.dropped = b"".join(pieces)
            for piece in pieces:
                _close(piece)
        self._wake()


def _close(data: bytes) -> None:
    if type(data) is _Parcel:
        discard(data.descriptors)
