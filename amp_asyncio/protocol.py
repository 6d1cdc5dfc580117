"""BinaryBoxProtocol: a connection that sends and receives boxes, as people see it.

From the first event on, asyncio talks to the connection itself. It calls the methods of this object
that asyncio would call, to tell of what has happened: they may be overridden, with or without
`super()`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, cast

from .composed import Composed, connection_of, is_of_this_package
from .connection.connection import Connection
from .connection.ending import peer_ended
from .connection.peers import presented_certificate
from .connection.starting import begin, call_override
from .limits import Limits
from .session.life import State
from .session.peers import Peer
from .session.receivers import ForeignReceiver, Receiver
from .wire.boxes import AmpBox, BoxReceiver

if TYPE_CHECKING:
    from .tls.certificates import Certificate

__all__ = ["BinaryBoxProtocol"]

logger = logging.getLogger("amp_asyncio")


class _Seen:
    """What `amp.peer` is, unless it was set."""

    def __get__(self, proto: BinaryBoxProtocol | None, cls: type[BinaryBoxProtocol]) -> Any:
        return self if proto is None else connection_of(proto).peer


class BinaryBoxProtocol(Composed, asyncio.Protocol):
    """Sends and receives boxes over a transport; can be secured, and handed over to another protocol.

    `boxReceiver` gets the boxes.
    """

    #: How much a connection may take; see `Limits`. It is looked at when the connection is made.
    limits: Limits = Limits()

    #: The version of AMP, 1 or 2; see `AMP`.
    protocol_version: int = 1

    if TYPE_CHECKING:
        #: Who is at the other end. It may be set, which tests do. A subclass may use the name for
        #: something else.
        peer: Peer
    else:
        peer = _Seen()

    def __new__(cls, *args: Any, **kw: Any) -> Self:
        self = super().__new__(cls)
        session = self.__amp__
        session.outlet = connection = Connection(self)
        session.outbox = connection.outbox
        return self

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if cls.protocol_version not in (1, 2):
            raise ValueError(
                f"{cls.__name__}.protocol_version must be 1 or 2, not {cls.protocol_version!r}"
            )
        overriding = vars(cls).get("connection_made")
        if overriding is not None and not is_of_this_package(cls):
            # A type checker cannot know that a method is replaced by one of the same signature.
            cls.connection_made = _after_beginning(overriding)  # type: ignore[method-assign]

    def __init__(self, boxReceiver: BoxReceiver) -> None:
        self.boxReceiver = boxReceiver

    # --- what people look at ---

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None before it is connected, and once it is gone or handed over."""
        return connection_of(self).transport

    @transport.setter
    def transport(self, transport: Any) -> None:
        # Many protocols keep their transport under this name, and forget it at the end.
        if transport is not None and transport is not connection_of(self).transport:
            raise AttributeError("the transport of a connection is set by the connection itself")

    @property
    def innerProtocol(self) -> asyncio.BaseProtocol | None:
        """The protocol that the transport was handed over to, or None."""
        return connection_of(self).inner

    @property
    def boxReceiver(self) -> BoxReceiver:
        """What the boxes are given to; it is looked at when the connection is made."""
        receiver: BoxReceiver | None = self.__amp__.box_receiver
        # None stands for the object itself, which is a receiver where its class (AMP) is one.
        return cast(BoxReceiver, self) if receiver is None else receiver

    @boxReceiver.setter
    def boxReceiver(self, receiver: Any) -> None:
        self.__amp__.box_receiver = None if receiver is self else receiver

    @property
    def hostCertificate(self) -> Certificate | None:
        """The certificate that this side presented when StartTLS was done, or None."""
        return connection_of(self).host_certificate

    @property
    def peerCertificate(self) -> Certificate | None:
        """The certificate that the peer presented, verified or not, or None without TLS or one."""
        transport = connection_of(self).transport
        return None if transport is None else presented_certificate(transport)

    # --- what asyncio calls ---
    #
    # Of these, asyncio calls connection_made alone; the connection calls the others as hooks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: the transport is connected.

        An override is called when the connection has started; what it raises is logged, and aborts the
        connection.
        """
        begin(connection_of(self), transport, _receiver_of(self))

    def data_received(self, data: bytes) -> None:
        """Take bytes of the stream. An override is a filter: it passes on what `super()` is to get."""
        connection = connection_of(self)
        if connection.state is State.CONNECTING:
            raise RuntimeError("not connected yet: call connection_made(transport) first")
        connection.inbox.receive(data)

    def eof_received(self) -> bool | None:
        """The peer sends no more: answer the commands that came before that, then close.

        An override is told; what it returns does not matter.
        """
        return peer_ended(connection_of(self))

    def pause_writing(self) -> None:
        """The transport's buffer is full: new questions wait. An override is told."""
        connection_of(self).congest()

    def resume_writing(self) -> None:
        """The transport takes more. An override is told."""
        connection_of(self).relieve()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and everything that waited was told. An override is told."""
        connection_of(self).connection_lost(exc)

    def descriptor_received(self, descriptor: int) -> None:
        """Keep a descriptor for the box that will name it; too many of them abort the connection."""
        connection_of(self).descriptor_received(descriptor)

    # --- what people call ---

    def sendBox(self, box: AmpBox) -> None:
        """Send `box` after the boxes sent before it.

        Raises `ConnectionLost` or `ProtocolSwitched` if the connection is closed, closing or handed
        over, `NoEmptyBoxes` for an empty box, `TooLong` for one that is over `Limits.max_box_size` or
        has too long a key or value, `MalformedAmpBox` and `TypeError` for what cannot be in a box.
        """
        connection_of(self).outbox.send_box(box)

    async def drain(self) -> None:
        """Wait until the transport takes more; cancelling this only ends the wait.

        Raises `ConnectionLost` or `ProtocolSwitched` if it never will.
        """
        await connection_of(self).outbox.drain()

    def unhandledError(self, error: BaseException) -> None:
        """Log an error that was not handled, and close the connection."""
        logger.error("%r: an unhandled error closes the connection", self, exc_info=error)
        connection_of(self).finish_writing()

    def finish_writing(self) -> None:
        """Write what was sent, then close; what still comes in is not looked at.

        What was asked is written, in order, also if it waited for the window or the transport. A peer
        that does not take it all within ten seconds loses the rest. The futures of questions without an
        answer raise `ConnectionLost`. Does nothing if this was done before.
        """
        connection_of(self).finish_writing()

    def abort(self) -> None:
        """Close the connection now, or as soon as it is made; what was not written yet is lost."""
        connection_of(self).abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone; cancelling this only ends the wait."""
        await connection_of(self).wait_closed()

    def __repr__(self) -> str:
        connection = connection_of(self)
        if connection.state in (State.CONNECTING, State.OPEN):
            return repr(connection)
        return f"<{type(self).__name__} {connection.where}, {connection.state.value}>"


def _after_beginning(override: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `connection_made` that starts the connection first, whether or not `override` does."""

    @functools.wraps(override)
    def connection_made(self: BinaryBoxProtocol, transport: asyncio.BaseTransport) -> None:
        connection = connection_of(self)
        if begin(connection, transport, _receiver_of(self)):
            call_override(connection, override, transport)

    return connection_made


def _receiver_of(proto: BinaryBoxProtocol) -> Receiver:
    """Return what gets the boxes of `proto`: its own session, unless user code handles them."""
    session = proto.__amp__
    receiver: Any = proto.boxReceiver
    own = receiver is proto
    receives = ("ampBoxReceived", "startReceivingBoxes", "stopReceivingBoxes")
    if own and type(proto).__amp_overrides__.isdisjoint(receives):
        return session
    return ForeignReceiver(receiver, session, is_session=own)
