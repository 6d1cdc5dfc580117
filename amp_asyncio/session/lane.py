"""Lanes: one stream of a conversation, on one side.

A lane puts the flow of its two directions (`flow.py`) into boxes, and takes it out of them. It has what
waits: the consumer for the next item, producers for credit and for their share of the connection
(`sharing.py`). It does not know what the items are, or which side asked: see `streams.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ..errors import AmpError, MalformedAmpBox, StreamEnded
from ..wire.boxes import COMMAND, AmpBox
from ..wire.extensions import CREDIT, ITEM
from ..wire.parser import parseString
from .flow import AMOUNT, END, MORE, VALUE, Incoming, Outgoing, credit_in, overhead
from .outbox import again
from .sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .session import Session

__all__ = ["ANSWERER", "ASKER", "Lane"]

#: The key of the tag in boxes from the side that asked, and from the one that answers.
ASKER: Final = b"ask"
ANSWERER: Final = b"answer"

_END_OF_BOX = b"\0\0"
_EMPTY_END = b"\0\0" + _END_OF_BOX
_MORE_FOLLOWS = b"\0\x04more\0\0" + _END_OF_BOX


class Lane:
    """One stream of `session` on one side; `key` is what boxes from here have the tag under.

    Attributes:
        tag: the tag of the question; empty before the stream is open.
        most: how large an item may be.
        reason: why it is over, if that is an error.
        done: whether the answer, or an error, has come or was sent.
        opened: whether there may be boxes: the question was asked.
        over: whether sending and receiving have ended.
        share, in_line: see `sharing.Shared`.
    """

    asked = False

    __slots__ = (
        "_credit_head",
        "_head",
        "_incoming",
        "_key",
        "_outgoing",
        "_reader",
        "_session",
        "_sharing",
        "done",
        "in_line",
        "most",
        "opened",
        "over",
        "reason",
        "share",
        "tag",
    )

    def __init__(self, session: Session, sharing: Sharing, key: bytes) -> None:
        self.tag = b""
        self.opened = self.over = self.done = self.in_line = False
        self.reason: BaseException | None = None
        self.share = 0
        self._session = session
        self._sharing = sharing
        self._key = key
        limits = session.limits
        self._outgoing = Outgoing(limits.max_box_size)
        other = ANSWERER if key == ASKER else ASKER
        self._incoming = Incoming(overhead(other, b""), limits.stream_window, limits.max_box_size)
        self._head = self._credit_head = b""
        self.most = limits.max_box_size
        self._reader: asyncio.Future[None] | None = None

    def start(self, tag: bytes) -> None:
        """Take the tag of the question: the peer knows it as a stream."""
        self.tag = tag
        self._incoming.overhead += len(tag)
        self._outgoing.overhead = overhead(self._key, tag)
        self._head = self._up_to(VALUE, ITEM)
        self._credit_head = self._up_to(AMOUNT, CREDIT)

    def _up_to(self, key: bytes, command: bytes) -> bytes:
        """Return a box up to the length of the value of `key`, its last key but for `more`."""
        return AmpBox({COMMAND: command, self._key: self.tag, key: b""}).serialize()[: -len(_EMPTY_END)]

    # --- what comes ---

    def item_received(self, box: AmpBox) -> None:
        """Take a piece of an item, or the end of the direction."""
        incoming = self._incoming
        data = box.get(VALUE)
        if data is None:
            if END not in box:
                raise MalformedAmpBox(f"an {ITEM!r} without {VALUE!r} and without {END!r}")
            incoming.end()
        elif not incoming.piece(data, MORE in box):
            self._give_back()
            return
        if (reader := self._reader) is not None and not reader.done():
            reader.set_result(None)

    def credit_received(self, amount: bytes | None) -> None:
        """Take credit, and send what waited for it."""
        self.grant(credit_in(amount))

    def grant(self, credit: int) -> None:
        self._outgoing.grant(credit)
        if self._outgoing.is_ready():
            self._sharing.begin(self)

    @property
    def in_item(self) -> bool:
        """Whether what came ends in the middle of an item."""
        return self._incoming.in_item

    async def next(self) -> bytes:
        """Return the next item; raises `StopAsyncIteration` after the last one, or `reason`.

        Cancelling it only ends the wait.
        """
        if not self.opened:
            raise self.unopened()
        incoming = self._incoming
        while not incoming:
            if self.over or incoming.ended:
                if self.reason is not None:
                    raise self._ending()
                raise StopAsyncIteration
            if self._reader is not None:
                raise RuntimeError("two tasks wait for the next item of one stream")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = incoming.take()
        self._give_back()
        return data

    def _give_back(self) -> None:
        credit = self._incoming.due()
        if credit and not self.over:
            self.give(credit)

    def give(self, credit: int) -> None:
        """Let the peer send so much more."""
        outbox = self._session.outbox
        if outbox.closed is None:
            amount = b"%d" % credit
            box = (self._credit_head, len(amount).to_bytes(2, "big"), amount, _END_OF_BOX)
            self._write(b"".join(box), later=False)

    # --- what is sent ---

    def send(self, item: bytes) -> Awaitable[None] | None:
        """Send an item; await what is returned until that is done, if it is not done at once.

        Cancelling that takes the item back, unless a part of it was sent. Raises `TooLong` for an item
        that is larger than a box may be, and what `check` raises.
        """
        self.check()
        outgoing = self._outgoing
        if (cost := outgoing.pass_by(item)) and self._sharing.take(self):
            outgoing.credit -= cost
            parts = [part for piece, more in outgoing.cut(item) for part in self._box(piece, more)]
            self._write(b"".join(parts))
            self._sharing.sent(self, cost)
            return None
        outgoing.check(item)
        return self._put(item)

    def finish(self) -> Awaitable[None] | None:
        """Send the end; the same, but the second time nothing is done."""
        if not self.over and self._outgoing.ended:
            return None
        self.check()
        waiting = self._put(None)
        self._outgoing.ended = True
        return waiting

    def check(self) -> None:
        """Raise an error if nothing more may be sent."""
        if not self.opened:
            raise self.unopened()
        if self.over:
            raise self._ending()
        if self._outgoing.ended:
            raise RuntimeError("the stream was finished: nothing more can be sent")

    def _put(self, item: bytes | None) -> Awaitable[None] | None:
        waiter = asyncio.get_running_loop().create_future()
        self._outgoing.put(item, waiter)
        if self._outgoing.is_ready():
            self._sharing.begin(self)
        return None if waiter.done() else self._wait(waiter)

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        try:
            await waiter
        except asyncio.CancelledError:
            self._outgoing.withdraw(waiter)
            raise

    def pump(self) -> bool:
        """Send what waits within the share; return whether more is ready to be sent."""
        if self._session.outbox.closed is not None:
            return False  # The stream ends in a moment.
        outgoing, sharing = self._outgoing, self._sharing
        parts: list[bytes | memoryview] = []
        is_ready = outgoing.is_ready()
        while is_ready and self.share > 0 and not sharing.held:
            cost, data, more, waiter = outgoing.take()
            parts += self._box(data, more)
            sharing.sent(self, cost)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            is_ready = outgoing.is_ready()
        if parts:
            self._write(b"".join(parts))
        return is_ready

    def _box(self, data: bytes | memoryview | None, more: bool) -> tuple[bytes | memoryview, ...]:
        """Return the box of a piece, or of the end, as bytes that are to be joined."""
        if data is None:
            return (AmpBox({COMMAND: ITEM, self._key: self.tag, END: b""}).serialize(),)
        tail = _MORE_FOLLOWS if more else _END_OF_BOX
        return self._head, len(data).to_bytes(2, "big"), data, tail

    def _write(self, boxes: bytes, later: bool = True) -> None:
        outbox = self._session.outbox
        if outbox.log_as is None:
            outbox.send(boxes, later)
        else:
            for box in parseString(boxes):
                outbox.send_box(box)

    # --- the end ---

    def end(self, reason: BaseException | None, at_once: bool) -> None:
        """Send nothing more, because of `reason` if it is an error; drop what waits to be sent.

        What came is still taken by the consumer, unless it ends `at_once`.
        """
        if self.over:
            return
        self.over = True
        self.reason = reason
        self._sharing.leave(self)
        if at_once:
            self._incoming.drop()
        for waiter in self._outgoing.drop():
            if not waiter.done():
                waiter.set_exception(self._ending())
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def unopened(self) -> RuntimeError:
        return RuntimeError("the stream is not open: write `async with amp.stream(...) as stream:`")

    def _ending(self) -> BaseException:
        """Return what sending raises when the stream is over."""
        if self.reason is None:
            return StreamEnded("the stream is over: the peer takes no more items")
        return again(self.reason) if isinstance(self.reason, AmpError) else self.reason
