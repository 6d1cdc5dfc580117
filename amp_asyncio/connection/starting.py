"""The start of a connection: on which transport, and with what of its owner.

From the start on, asyncio talks to the connection and not to its owner, so that what the owner
overrides cannot break it. What can be set on the owner is looked at here, once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from ..commands.definitions import ENDING, raisable
from ..limits import Limits
from ..session.life import Event, State
from ..transports.cutting import cut
from ..wire.parser import BoxParser
from .ending import Age, Silence

if TYPE_CHECKING:
    from ..session.receivers import Receiver
    from .connection import Connection

__all__ = ["begin", "call_override", "hook"]

logger = logging.getLogger("amp_asyncio")

# How many bytes are read at once: as many as asyncio itself reads.
_BUFFER_SIZE = 256 * 1024

# What the connections of an event loop read into. They share it: each piece of the stream is copied
# before the next one is read. (Without it, asyncio allocates that much memory for each read, however
# few bytes come, which costs more than all else that is done to receive a small box. Large pieces do
# without it: see `large.py`.)
_BUFFERS: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def begin(connection: Connection, transport: asyncio.BaseTransport, receiver: Receiver) -> bool:
    """Start on a transport that is connected; return False if that cannot be, and abort it.

    Does nothing if the connection was started on that transport before. In its `connection_made`, the
    owner may go on with another one, usually a wrapper around the one that it was given.
    """
    # (uvloop's transports are not instances of asyncio's class.)
    given = cast(asyncio.Transport, transport)
    if connection.transport is given:
        return True
    if connection.adopts:
        connection.transport = given
        connection.outbox.open(given)
        return True
    if connection.transport is not None or connection.state not in (State.CONNECTING, State.FINISHING):
        logger.error(
            "%r has a connection already: make another %s", connection, type(connection.owner).__name__
        )
        _set_protocol(given, asyncio.Protocol())  # Its end is not that of the first connection.
        cut(given)
        return False
    connection.transport = given
    connection.receiver = receiver
    connection.loop = loop = asyncio.get_running_loop()
    buffer = _BUFFERS.get(loop)
    if buffer is None:
        buffer = _BUFFERS[loop] = memoryview(bytearray(_BUFFER_SIZE))
    connection.buffer = buffer
    name = given.get_extra_info
    peer = connection.seen_as or name("peername")
    connection.where = f"{name('sockname')!r} to {peer!r}"
    _set_protocol(given, connection)
    connection.happen(Event.CONNECTED)
    if connection.state is State.FINISHING:
        cut(given)
        return False
    try:
        _configure(connection, connection.owner)
        connection.outbox.open(given)
        receiver.start(connection.owner, connection)
    except BaseException as error:
        connection.lines.error("%r cannot be started", connection, error=error)
        connection.error = raisable(error)
        connection.abort()
        if isinstance(error, ENDING):
            raise
        return False
    logger.info("%r: connection established", connection)
    return True


def _set_protocol(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
    # It is optional. A foreign transport without it tells the owner, which tells the connection.
    with suppress(NotImplementedError):
        transport.set_protocol(protocol)


def _configure(connection: Connection, owner: Any) -> None:
    """Take from the owner what is fixed from now on."""
    limits, version = owner.limits, owner.protocol_version
    if not isinstance(limits, Limits):
        raise TypeError(f"{type(owner).__name__}.limits must be a Limits(...), not {limits!r}")
    if getattr(owner, "identified_only", False) and not connection.receiver.is_session:
        raise TypeError(
            f"{type(owner).__name__}.identified_only has no effect on a boxReceiver: set it on the "
            "dispatcher that finds the responders"
        )
    log_as = connection if logger.isEnabledFor(logging.DEBUG) else None
    inbox, outbox = connection.inbox, connection.outbox
    connection.limits = limits
    inbox.open(BoxParser(limits.max_box_size, version))
    if limits.idle_timeout is not None:
        inbox.silence = Silence(connection, limits.idle_timeout)
        connection.cancel_at_end(inbox.silence)
    if limits.max_connection_age is not None:
        connection.cancel_at_end(Age(connection, limits.max_connection_age))
    outbox.version = version
    outbox.max_box_size = limits.max_box_size
    outbox.log_as = log_as
    overrides = type(owner).__amp_overrides__
    connection.filters = "data_received" in overrides
    connection.takes_bytes = log_as is None and "sendBox" not in overrides


def hook(connection: Connection, name: str, *arguments: Any) -> None:
    """Tell the owner what has happened; an error is its own, and changes nothing here."""
    if connection.owner is not None:
        try:
            getattr(connection.owner, name)(*arguments)
        except ENDING:
            raise
        except BaseException as error:
            connection.lines.error("%r: %s() failed", connection, name, error=error)


def call_override(
    connection: Connection, override: Callable[..., Any], transport: asyncio.BaseTransport
) -> None:
    """Call the owner's `connection_made`; if it raises, the connection is aborted."""
    adopted, connection.adopts = connection.adopts, True
    try:
        override(connection.owner, transport)
    except BaseException as error:
        connection.lines.error("%r: connection_made() failed", connection, error=error)
        connection.give_up(raisable(error))
        if isinstance(error, ENDING):
            raise
    finally:
        connection.adopts = adopted
