"""The exchange of descriptors: what a connection keeps of those that go out and of those that came.

On the wire, a box has only the ordinal of a descriptor: which one it is of all that went this way over
the connection, counted from 0. So the order is all that there is, and a descriptor whose box is never
sent must either be taken back, before an ordinal behind it was given out, or be sent without a box.

Outwards, a descriptor is duplicated when its box is made, and belongs to the box until that is sent.
Inwards, it waits here until a box comes that names it. A connection has an exchange only once it has
a descriptor, and only commands whose schema has one do what is here.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from ..errors import ConnectionLost, MalformedAmpBox
from ..wire.boxes import AmpBox, BoxSender
from .schemas import Schema

__all__ = ["MOST_UNCLAIMED", "DescriptorSchema", "Exchange", "claim", "give", "schema_for"]

#: How many descriptors of a peer may wait for the boxes that name them; with one more, the connection
#: is aborted. Twisted sends those of all its waiting boxes before the first of these boxes, and a box
#: may name many. But one connection must not take all the descriptors that a process may have, which
#: usually are 1,024.
MOST_UNCLAIMED = 512

_Box = TypeVar("_Box", bound=AmpBox)


class Exchange:
    """The descriptors of one connection, those that go out and those that came."""

    def __init__(self) -> None:
        self._closed = False
        # How many ordinals were given out; and the descriptors of the last of them, whose boxes have
        # not been sent yet.
        self.given = 0
        self._held: deque[int] = deque()
        # Those that leave with what is sent next: where in it, and which.
        self._leaving: list[tuple[int, int]] = []
        # How many came, and those of them that no box has named yet.
        self._received = 0
        self._unclaimed: dict[int, int] = {}
        # What the box that is being read has claimed, and whether one is being made.
        self.claimed: list[int] | None = None
        self.making = False

    # --- out ---

    def give(self, descriptor: int) -> int:
        """Duplicate a descriptor, and return its ordinal."""
        if not self._closed:  # There is nobody any more to send it to.
            self._held.append(_duplicate(descriptor))
            self.given += 1
        return self.given - 1

    def take_back(self, start: int, end: int) -> None:
        """Close the descriptors with these ordinals, if none with a later one is there."""
        if end == self.given:
            while self.given > start and self._held:
                os.close(self._held.pop())
                self.given -= 1

    def release(self, end: int, position: int) -> None:
        """Have the descriptors below an ordinal leave, at `position` in what is sent next."""
        while self._held and self.given - len(self._held) < end:
            self._leaving.append((position, self._held.popleft()))

    def write(self, transport: Any, data: bytes) -> None:
        """Write `data`, and each descriptor that leaves at its place in it."""
        written = 0
        leaving, self._leaving = self._leaving, []
        for position, descriptor in leaving:
            transport.write(data[written:position])
            transport.send_descriptor(descriptor)
            written = position
        transport.write(data[written:])

    # --- in ---

    def receive(self, descriptor: int) -> None:
        """Keep a descriptor that came; `ConnectionLost` where that is one too many."""
        if self._closed or len(self._unclaimed) >= MOST_UNCLAIMED:
            os.close(descriptor)
            raise ConnectionLost(f"more than {MOST_UNCLAIMED} descriptors came that no box has named")
        self._unclaimed[self._received] = descriptor
        self._received += 1

    def claim(self, ordinal: int) -> int:
        """Return a descriptor that came; whoever gets it closes it. `ValueError` if it is not here."""
        try:
            descriptor = self._unclaimed.pop(ordinal)
        except KeyError:
            raise ValueError(
                f"{self._received} descriptors have come, and {ordinal} is not here"
            ) from None
        if self.claimed is not None:
            self.claimed.append(descriptor)
        return descriptor

    def hand_over(self, take: Callable[[int], None] | None) -> None:
        """Give `take` each descriptor that nobody has claimed, in order; close all the others."""
        if take is not None:
            while self._unclaimed:
                take(self._unclaimed.pop(next(iter(self._unclaimed))))
        self.close()

    def close(self) -> None:
        """Close all that is here, and take no more."""
        self._closed = True
        descriptors = [
            *self._held,
            *(leaving[1] for leaving in self._leaving),
            *self._unclaimed.values(),
        ]
        self._held.clear()
        self._leaving.clear()
        self._unclaimed.clear()
        _close(descriptors)


def give(descriptor: Any, proto: Any) -> int:
    """Have a descriptor sent with the box that is being made for `proto`, and return its ordinal.

    Raises `TypeError` where the connection carries no descriptors or `descriptor` is none, `ValueError`
    for one that is not open, and `OSError` where there is none left to duplicate it with.
    """
    exchange = _sending(proto)
    if exchange is None:
        raise TypeError(
            f"{proto!r} cannot carry descriptors: only connections made by unix_connect and unix_serve "
            "can, and only without TLS"
        )
    ordinal = exchange.give(descriptor)
    if not exchange.making:
        # It is an argument of somebody's own, that does not say what it carries.
        exchange.release(exchange.given, proto.boxSender._outbox_size)
    return ordinal


def claim(ordinal: int, proto: Any) -> int:
    """Return the descriptor that came to `proto` with this ordinal; `ValueError` if it is not here."""
    exchange = _receiving(proto)
    if exchange is None:
        raise ValueError("no descriptor has come")
    return exchange.claim(ordinal)


def _sending(proto: Any) -> Exchange | None:
    """Return the exchange of the connection of `proto`, or None where it carries no descriptors."""
    exchange = getattr(getattr(proto, "boxSender", None), "_sending_exchange", None)
    return None if exchange is None else cast(Exchange | None, exchange())


def _receiving(proto: Any) -> Exchange | None:
    """Return the exchange of the connection of `proto`, or None where it has none."""
    return cast(Exchange | None, getattr(getattr(proto, "boxSender", None), "_exchange", None))


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
        raise ValueError(f"{descriptor!r} is no open descriptor") from None


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Parcel:
    """The descriptors that a box has, while it is not sent."""

    def __init__(self, exchange: Exchange, start: int, end: int) -> None:
        self._exchange = exchange
        self._range = (start, end)

    def release(self, position: int) -> None:
        self._exchange.release(self._range[1], position)

    def __del__(self) -> None:
        # There are many reasons why a box is not sent: nobody wants the answer, the question was
        # cancelled while it waited, the connection is closing. This is what they have in common.
        self._exchange.take_back(*self._range)


class _Carrier(AmpBox):
    """A box with descriptors, which leave with its first bytes."""

    _parcel: _Parcel | None = None

    def _sendTo(self, boxSender: BoxSender) -> None:
        if self._parcel is not None:
            boxSender.serialize(self)  # Unless the box can be sent, they stay.
            self._parcel.release(cast(Any, boxSender)._outbox_size)
        super()._sendTo(boxSender)


@cache
def _carrier(kind: type[AmpBox]) -> type[_Carrier]:
    """Return a subclass of `kind` that carries descriptors."""
    return type(kind.__name__, (_Carrier, kind), {})


class DescriptorSchema(Schema):
    """A schema in which there are descriptors."""

    __slots__ = ()

    def encode(self, objects: Mapping[str, Any], box: _Box, proto: Any) -> _Box:
        """Put `objects` into a box, and return it: all of its descriptors go with it, or none."""
        exchange = _sending(proto)
        if exchange is None:
            return super().encode(objects, box, proto)
        carrier = _carrier(type(box))(box)
        start = exchange.given
        exchange.making = True
        try:
            super().encode(objects, carrier, proto)
            proto.boxSender.serialize(carrier)  # What is too long for a box is found now, or too late.
        except BaseException:
            exchange.take_back(start, exchange.given)
            raise
        finally:
            exchange.making = False
        if exchange.given > start:
            carrier._parcel = _Parcel(exchange, start, exchange.given)
        return cast(_Box, carrier)

    def decode(self, strings: Mapping[bytes, bytes], proto: Any) -> dict[str, Any]:
        """Return the objects that a box holds; unless all decode, the descriptors are closed."""
        exchange = _receiving(proto)
        if exchange is None:
            return super().decode(strings, proto)
        claimed = exchange.claimed = []
        try:
            return super().decode(strings, proto)
        except BaseException:
            _close(claimed)
            raise
        finally:
            exchange.claimed = None

    def discard(self, strings: Mapping[bytes, bytes], proto: Any) -> None:
        """Close the descriptors in a box that nobody wants any more."""
        exchange = _receiving(proto)
        if exchange is not None:
            claimed = exchange.claimed = []
            try:
                super().decode(strings, proto)
            except MalformedAmpBox:
                pass
            finally:
                exchange.claimed = None
                _close(claimed)


def schema_for(pairs: Iterable[tuple[bytes | str, Any]], what: str) -> Schema:
    """Return the schema of a command's arguments or of its answer; raises as `Schema` does."""
    schema = Schema(pairs, what)
    if any(getattr(argument, "carries_descriptors", False) for _, argument in schema.pairs):
        return DescriptorSchema(schema.pairs, what)
    return schema
