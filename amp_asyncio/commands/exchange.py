"""The exchange of descriptors: those of a connection that go out, and those that came.

On the wire, a box has only the ordinal of a descriptor: its number among all that went the same way
over the connection, counted from 0. Only the order identifies it. A descriptor whose box is never sent
must either be taken back before a later ordinal was given out, or be sent without its box.

A descriptor that goes out is duplicated when its box is made. It waits here until the box is sent, and
then belongs to the piece of the stream that it leaves with. A descriptor that came waits here until a
box names it. A connection has an exchange only once it has a descriptor, and only commands with a
descriptor in their schema use this module.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from ..descriptors import discard, pending
from ..errors import ConnectionLost, MalformedAmpBox
from ..wire.boxes import AmpBox
from ..wire.compiling import caused, derivable
from .schemas import Schema, Shape

__all__ = [
    "MANY_UNCLAIMED",
    "MOST_UNCLAIMED",
    "DescriptorSchema",
    "Exchange",
    "carries_descriptors",
    "claim",
    "drop",
    "give",
    "schema_for",
]

#: How many descriptors of a peer may wait for the boxes that name them; one more aborts the connection.
#: Twisted sends those of all its waiting boxes before the first of these boxes, and a box may name
#: many. But one connection must not take all the descriptors of a process, usually 1,024.
MOST_UNCLAIMED = 512

#: With more than these, commands that wait to begin hold up those that would come after them.
MANY_UNCLAIMED = 384

_Box = TypeVar("_Box", bound=AmpBox)


class Exchange:
    """The descriptors of one connection.

    Attributes:
        given: how many ordinals were given out.
        making: whether a box with descriptors is being made.
        received: how many came, all in all.
        claimed: what the box that is being read has claimed; None between boxes.
    """

    __slots__ = (
        "_answers",
        "_closed",
        "_held",
        "_passed",
        "_unclaimed",
        "claimed",
        "given",
        "making",
        "received",
    )

    def __init__(self) -> None:
        self._closed = False
        self.given = 0
        # The descriptors of the last ordinals, whose boxes have not been sent yet.
        self._held: deque[int] = deque()
        self._passed = 0  # How many went to the transport.
        # The numbers of those that went with answers, and that it may not have sent yet.
        self._answers: deque[int] = deque()
        self.received = 0
        # Those that came and that no box has named yet.
        self._unclaimed: dict[int, int] = {}
        self.claimed: list[int] | None = None
        self.making = False

    # --- out ---

    def give(self, descriptor: Any) -> int:
        """Duplicate a descriptor, and return its ordinal."""
        if not self._closed:
            self._held.append(_duplicate(descriptor))
            self.given += 1
        return self.given - 1

    def take_back(self, start: int, end: int) -> None:
        """Close the descriptors with these ordinals, unless a later ordinal was given out."""
        if end == self.given:
            while self.given > start and self._held:
                os.close(self._held.pop())
                self.given -= 1

    def leaving(self, box: AmpBox) -> list[int]:
        """Return the descriptors that leave with `box`, which is sent now."""
        return self.release(box.end) if isinstance(box, _Carrier) else []

    def release(self, end: int) -> list[int]:
        """Return the descriptors with ordinals below `end`, which leave now."""
        descriptors = []
        while self._held and self.given - len(self._held) < end:
            descriptors.append(self._held.popleft())
        return descriptors

    def passed(self, count: int, answers: bool) -> None:
        """Note that so many went to the transport, of an answer or not."""
        if answers:
            self._answers.extend(range(self._passed, self._passed + count))
        self._passed += count

    def answers_among(self, unsent: int) -> int:
        """Return how many of the last `unsent` that went to the transport are of answers."""
        while self._answers and self._answers[0] < self._passed - unsent:
            self._answers.popleft()
        return len(self._answers)

    # --- in ---

    @property
    def unclaimed(self) -> int:
        """How many came that no box has named yet, and are kept."""
        return len(self._unclaimed)

    def receive(self, descriptor: int, wanted: bool) -> None:
        """Keep a descriptor that came, or close it where no box could name it.

        Raises `ConnectionLost` if it is one too many, of this connection, or of those that were closed
        faster than the system does it.
        """
        if self._closed or len(self._unclaimed) >= MOST_UNCLAIMED or pending() >= MOST_UNCLAIMED:
            discard((descriptor,))
            raise ConnectionLost(f"more than {MOST_UNCLAIMED} descriptors came that no box has named")
        if wanted:
            self._unclaimed[self.received] = descriptor
        else:
            discard((descriptor,))
        self.received += 1

    def expire(self, end: int) -> None:
        """Close the descriptors with ordinals below `end` that no box has named."""
        expired = [ordinal for ordinal in self._unclaimed if ordinal < end]
        discard([self._unclaimed.pop(ordinal) for ordinal in expired])

    def claim(self, ordinal: int) -> int:
        """Return a descriptor that came, for the caller to close; `ValueError` if it is not here."""
        try:
            descriptor = self._unclaimed.pop(ordinal)
        except KeyError:
            raise caused(
                ValueError(f"{self.received} descriptors have come, and {ordinal} is not here"), None
            )
        if self.claimed is not None:
            self.claimed.append(descriptor)
        return descriptor

    def hand_over(self, take: Callable[[int], None] | None) -> None:
        """Give `take` each descriptor that was not claimed, in order; close all the others."""
        if take is not None:
            while self._unclaimed:
                take(self._unclaimed.pop(next(iter(self._unclaimed))))
        self.close()

    def close(self) -> None:
        """Close all that is here, and take no more."""
        self._closed = True
        discard([*self._held, *self._unclaimed.values()])
        self._held.clear()
        self._unclaimed.clear()


def give(descriptor: Any, proto: Any) -> int:
    """Have a descriptor sent with the box that is being made for `proto`, and return its ordinal.

    Raises `TypeError` if the connection cannot carry descriptors or `descriptor` is not one,
    `ValueError` for one that is not open, and `OSError` if the process has no room to duplicate it.
    """
    exchange = _sending(proto)
    if exchange is None:
        raise TypeError(
            f"{proto!r} cannot carry descriptors: only connections made by unix_connect and unix_serve "
            "can, and only without TLS"
        )
    ordinal = exchange.give(descriptor)
    if not exchange.making:
        # An argument of the user's own, whose schema does not know that it has a descriptor.
        proto.__amp__.outbox.send_descriptors(exchange.release(exchange.given))
    return ordinal


def claim(ordinal: int, proto: Any) -> int:
    """Return the descriptor that came to `proto` with this ordinal; `ValueError` if it is not here."""
    exchange = _receiving(proto)
    if exchange is None:
        raise ValueError("no descriptor has come")
    return exchange.claim(ordinal)


def drop(box: AmpBox) -> None:
    """Take back the descriptors of a box that was made and will not be sent."""
    if isinstance(box, _Carrier):
        box.exchange.take_back(box.start, box.end)


def _sending(proto: Any) -> Exchange | None:
    """Return the exchange of the connection of `proto`, or None if it carries no descriptors."""
    session = getattr(proto, "__amp__", None)
    return None if session is None else cast(Exchange | None, session.outbox.sending_exchange())


def _receiving(proto: Any) -> Exchange | None:
    """Return the exchange of the connection of `proto`, or None without one."""
    session = getattr(proto, "__amp__", None)
    return None if session is None else cast(Exchange | None, session.outbox.exchange)


def _duplicate(descriptor: Any) -> int:
    """Return a new descriptor for the same open file; no child process inherits it."""
    given = descriptor.fileno() if hasattr(descriptor, "fileno") else descriptor
    if not isinstance(given, int):
        raise TypeError(f"a Descriptor is an int, or has a fileno(), and not {descriptor!r}")
    try:
        return os.dup(given)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        raise caused(ValueError(f"{descriptor!r} is not an open descriptor"), None)


@derivable
class _Carrier(AmpBox):
    """A box with descriptors: those from `start` up to, but not including, `end`."""

    exchange: Exchange
    start: int
    end: int


def carries_descriptors(box: AmpBox) -> bool:
    """Return whether descriptors leave with `box`."""
    return isinstance(box, _Carrier)


@cache
def _carrier(kind: type[AmpBox]) -> type[_Carrier]:
    """Return a subclass of `kind` that carries descriptors."""
    return type(kind.__name__, (_Carrier, kind), {})


class DescriptorSchema(Schema):
    """A schema with descriptors in it."""

    __slots__ = ()

    def encode(self, objects: Any, box: _Box, proto: Any) -> _Box:
        """Put `objects` into a box, and return it: all of its descriptors go with it, or none."""
        exchange = _sending(proto)
        if exchange is None:
            return super().encode(objects, box, proto)
        carrier = _carrier(type(box))(box)
        start = exchange.given
        exchange.making = True
        try:
            super().encode(objects, carrier, proto)
            # What is too long for a box is found now: later, an ordinal could not be taken back.
            proto.__amp__.outbox.serialize(carrier)
        except BaseException:
            exchange.take_back(start, exchange.given)
            raise
        finally:
            exchange.making = False
        carrier.exchange, carrier.start, carrier.end = exchange, start, exchange.given
        return cast(_Box, carrier)

    def decode(self, strings: Mapping[bytes, bytes], proto: Any) -> Any:
        """Return the objects that a box holds; unless all decode, the descriptors are closed."""
        exchange = _receiving(proto)
        if exchange is None:
            return super().decode(strings, proto)
        claimed = exchange.claimed = []
        try:
            return super().decode(strings, proto)
        except BaseException:
            discard(claimed)
            raise
        finally:
            exchange.claimed = None

    def discard(self, strings: Mapping[bytes, bytes], proto: Any) -> None:
        """Close the descriptors of a box that will not be read."""
        exchange = _receiving(proto)
        if exchange is not None:
            claimed = exchange.claimed = []
            try:
                super().decode(strings, proto)
            except MalformedAmpBox:
                pass
            finally:
                exchange.claimed = None
                discard(claimed)


def schema_for(
    pairs: Iterable[tuple[bytes | str, Any]], what: str, shape: Shape | None = None
) -> Schema:
    """Return the schema of a command's arguments or of its answer; raises as `Schema` does."""
    schema = Schema(pairs, what, shape=shape)
    if any(getattr(argument, "carries_descriptors", False) for _, argument in schema.pairs):
        return DescriptorSchema(schema.pairs, what, shape=shape)
    return schema
