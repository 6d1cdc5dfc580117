"""Changing a connection: TLS on top of its transport, or another protocol in its own place.

Both need the same of the connection: that nothing more is written until the change is done or refused,
that no byte after the last box is looked at, and that those bytes go to whom they belong. When a change
is due is decided in `session/changes.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from ..commands.definitions import ENDING
from ..errors import ConnectionLost, ProtocolSwitched
from ..session.life import Event, Pause, State
from ..tls.alerts import Alerts
from ..tls.failures import certificate_error
from ..transports.adoption import native_transport
from ..transports.cutting import close_once, cut
from ..transports.feeding import feed
from ..transports.securing import secured
from ..transports.unix import DescriptorTransport

if TYPE_CHECKING:
    from ..session.outlets import TLSTerms
    from .connection import Connection

__all__ = ["UnderWay", "lock", "secure", "settle", "switch"]

logger = logging.getLogger("amp_asyncio")


class UnderWay:
    """A change that is under way.

    Attributes:
        secures: whether it is StartTLS.
        closes: whether the connection is to be closed when it is done.
    """

    __slots__ = ("closes", "secures")

    def __init__(self, secures: bool) -> None:
        self.secures = secures
        self.closes = False


def lock(connection: Connection, securing: bool) -> None:
    """Begin a change: write what was sent, and keep all later boxes until it is done or refused."""
    connection.happen(Event.CHANGE)
    connection.change = UnderWay(securing)
    connection.outbox.lock(securing)
    connection.receiver.hold()


def settle(connection: Connection, secured: bool) -> None:
    """End a change: send the boxes that were kept, in order, and go on."""
    connection.happen(Event.SETTLED)
    change, connection.change = connection.change, None
    if connection.state is not State.OPEN:
        return
    connection.outbox.unlock()
    if secured:
        connection.receiver.secured()
        # Before the questions that waited are sent: one of them may be the next change.
        connection.resume_reading(Pause.TAKEN)
    if change is not None and change.closes:
        connection.finish_writing()
    else:
        connection.release()


def secure(connection: Connection, terms: TLSTerms, done: Callable[[Exception | None], None]) -> None:
    """Begin a TLS handshake, now that the last byte in the clear was written and read.

    `done` is called with None when the connection is secured, and with the error otherwise.
    """
    early = connection.inbox.take_rest()
    # TLS has the transport's bytes from now on, but asyncio gives it them only a turn later.
    connection.read(False)

    def shaken(shaking: asyncio.Task[asyncio.Transport]) -> None:
        failure: Exception | None = None
        if shaking.cancelled():
            failure = ConnectionLost("the TLS handshake was cancelled")
        elif (error := _failure(shaking)) is not None:
            failure = certificate_error(error) or ConnectionLost(
                f"the TLS handshake failed: {str(error) or type(error).__name__}"
            )
            failure.__cause__ = failure.__cause__ or error
        elif connection.state is not State.CHANGING:
            cut(shaking.result())
            failure = ConnectionLost("the connection was closed at the end of the TLS handshake")
        if failure is None:
            connection.host_certificate = terms.certificate
            done(None)
            _go_on(connection, shaking.result())
        else:
            # Whether asyncio tells a protocol of the loss depends on how far the handshake was.
            transport = connection.transport
            connection.error = connection.error or failure
            connection.lines.warning("%r: closing the connection: %s", connection, failure)
            connection.lose(failure)
            if transport is not None:
                # Closing would wait for a peer that does not read.
                late = transport.is_closing() or transport.get_write_buffer_size()
                cut(transport) if late else close_once(transport)
            done(failure)

    connection.loop.create_task(_handshake(connection, terms, early)).add_done_callback(shaken)


def _failure(shaking: asyncio.Task[asyncio.Transport]) -> BaseException | None:
    """Return why a handshake failed.

    It comes without tracebacks, which would keep the connection and its TLS layer alive until the
    cyclic garbage collector finds them.
    """
    error = failure = shaking.exception()
    while error is not None:
        error = error.with_traceback(None)
        error = error.__cause__ or error.__context__
    return failure


async def _handshake(connection: Connection, terms: TLSTerms, early: bytes) -> asyncio.Transport:
    """Return the secured transport, within the time that the limits give."""
    timeout = connection.limits.handshake_timeout
    try:
        async with asyncio.timeout(timeout):
            return await _shake(connection, terms, early)
    except TimeoutError:
        raise ConnectionLost(f"it took more than {timeout} seconds") from None


async def _shake(connection: Connection, terms: TLSTerms, early: bytes) -> asyncio.Transport:
    """Return the secured transport; `early` is what was read already, and belongs to TLS."""
    if isinstance(connection.transport, DescriptorTransport):
        connection.transport.set_write_buffer_limits(0)  # It is congested until all is written.
    # A TLS layer that begins on a full buffer may not notice when it empties.
    await connection.outbox.room()
    raw = connection.transport
    if raw is None or raw.is_closing():
        raise ConnectionLost("the connection was closed before the TLS handshake")
    if isinstance(raw, DescriptorTransport):
        raw, more = await native_transport(raw)  # The TLS of the event loop takes no other.
        connection.transport = raw
        early += more
    transport = await secured(
        raw,
        connection,
        terms.context,
        early,
        Alerts(raw),
        server_side=terms.server_side,
        server_hostname=terms.hostname,
        ssl_handshake_timeout=connection.limits.handshake_timeout,
    )
    if transport.is_closing():
        raise ConnectionLost("the connection was lost during the TLS handshake")
    return transport


def _go_on(connection: Connection, transport: asyncio.Transport) -> None:
    """Go on over TLS: `transport` is on top of the old one, and its own buffer is empty."""
    connection.transport = transport
    connection.seen = None
    logger.info("%r: secured by TLS", connection)
    connection.outbox.open(transport)
    connection.settle(secured=True)


def switch(connection: Connection, inner: asyncio.BaseProtocol) -> None:
    """Hand the transport over to `inner`, with the bytes after the last box.

    What `inner` raises meanwhile aborts the connection, which is its own from here on.
    """
    transport, outbox = connection.transport, connection.outbox
    assert transport is not None, "the answer that switches comes, or goes, over the transport"
    ended = connection.state is State.DRAINING
    connection.happen(Event.SWITCHED)
    reason = ProtocolSwitched(f"the connection was handed over to {inner!r}")
    outbox.close(reason)
    rest = connection.inbox.take_rest()
    connection.read(True)
    logger.info("%r: handed over to %r", connection, inner)
    connection.inner = inner
    transport.set_protocol(inner)
    connection.leave(reason, keep_backlog=False)
    try:
        inner.connection_made(transport)
        if outbox.exchange is not None:
            outbox.exchange.hand_over(getattr(inner, "descriptor_received", None))
        if outbox.congested:
            inner.pause_writing()
        feed(inner, rest)
        if ended:
            inner.connection_lost(connection.ended_by)
        elif connection.peer_finished and not cast(asyncio.Protocol, inner).eof_received():
            close_once(transport)
    except BaseException as error:
        logger.exception("%r failed when it was handed the connection", inner)
        cut(transport)
        if isinstance(error, ENDING):
            raise
    finally:
        if outbox.exchange is not None:
            outbox.exchange.close()
        connection.forget()
