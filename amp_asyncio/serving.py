"""Serving: the connections that a server has accepted, and those that it could not serve.

asyncio does not say that a protocol factory raises or a TLS handshake fails, except in debug mode, and
the two event loops differ in what becomes of the client. So the handshake is done here, on top of the
connection that was accepted, and a factory that raises leaves a protocol that ends the connection: both
are logged with the client's address.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Any, cast

from .amp import AMP
from .composed import connection_of
from .connection.connection import Connection
from .connection.ending import close
from .errors import ConnectionLost
from .logs import Lines
from .tls.alerts import Alerts
from .transports.cutting import cut, stop_listening
from .transports.securing import secured

__all__ = ["Acceptor", "Server", "close_in_time", "leave_in_time", "listening"]

logger = logging.getLogger("amp_asyncio")

# How many connections may wait to be accepted, unless it is said: as in asyncio.
_WAITING = 100

# How many are accepted in one turn of the event loop.
_AT_ONCE = 4

# The arguments of a server that are about the handshake.
_TLS_OPTIONS = ("ssl_handshake_timeout", "ssl_shutdown_timeout")


# How many seconds it may take to leave a connection after an error.
_LEAVING = 1.0

# How many turns of the loop it takes, at most, from accepting a connection to its end.
_TURNS = 8


class Acceptor:
    """Makes a protocol for each connection that a server accepts.

    `factory` makes the objects that are served. With `context`, there is a TLS handshake first; what
    concerns it is taken out of `options`; it may take `handshake_timeout` seconds if they do not say.

    Attributes:
        connections: those that were accepted, and are not gone.
        shaking: the TLS handshakes that are under way.
        closed: whether what is accepted now is refused.
        lines: writes the log lines that clients can cause by connecting.
    """

    def __init__(
        self,
        factory: Callable[[], AMP],
        context: SSLContext | None,
        options: dict[str, Any],
        handshake_timeout: float,
    ) -> None:
        self._factory = factory
        self._context = context
        self._options: dict[str, Any] = {}
        if context is not None:
            self._options = {name: options.pop(name) for name in _TLS_OPTIONS if name in options}
            self._options.setdefault("ssl_handshake_timeout", handshake_timeout)
        self.connections: set[Connection] = set()
        self.shaking: set[asyncio.Task[None]] = set()
        self.closed = False
        self.lines = Lines()
        # One client may open many connections, so their conversations have a limit together.
        self._all_lines = Lines(at_once=200, per_second=20)

    def accept(self) -> asyncio.BaseProtocol:
        """Return the protocol for a connection that was accepted."""
        if self._context is not None:
            return _Handshake(self)
        return self.make()

    def make(self) -> asyncio.Protocol:
        """Return what is served, or a protocol that ends the connection."""
        if self.closed:
            return _Refusal(None, self.lines)
        try:
            amp = self._factory()
            connection = connection_of(amp)
            connection.lines = self.lines
            amp.__amp__.all_lines = self._all_lines
            connection.served = self.connections
            self.connections.add(connection)
        except Exception as error:
            return _Refusal(error, self.lines)
        return amp

    def shake(self, transport: asyncio.Transport, kept: _Kept) -> None:
        """Begin a TLS handshake on a connection that was accepted."""
        if self.closed:
            cut(transport)
            return

        def shaken(shaking: asyncio.Task[None]) -> None:
            self.shaking.discard(shaking)
            if shaking.cancelled():  # Perhaps before it began.
                cut(transport)

        shaking = asyncio.get_running_loop().create_task(self._shake(transport, kept))
        self.shaking.add(shaking)
        shaking.add_done_callback(shaken)

    async def _shake(self, transport: asyncio.Transport, early: _Kept) -> None:
        peer = transport.get_extra_info("peername")
        context = cast(SSLContext, self._context)
        kept = _Kept()
        try:
            alerts = Alerts(transport)
            layer = await secured(
                transport, kept, context, early.data, alerts, server_side=True, **self._options
            )
        except OSError as error:
            cut(transport)
            why = str(error) or type(error).__name__
            self.lines.warning("the TLS handshake with %r failed: %s", peer, why)
        else:
            protocol = self.make()
            layer.set_protocol(protocol)
            protocol.connection_made(layer)
            kept.hand_over(cast(asyncio.Protocol, layer.get_protocol()))

    async def close(self, timeout: float | None) -> None:
        """Close what was accepted, each within `timeout` seconds."""
        for shaking in self.shaking:
            shaking.cancel()
        await asyncio.gather(
            *(
                close_in_time(connection.owner, timeout)
                for connection in list(self.connections)
                if connection.transport
            ),
            *self.shaking,
            return_exceptions=True,
        )

    def abort(self) -> None:
        """Abort what was accepted."""
        for shaking in self.shaking:
            shaking.cancel()
        for connection in list(self.connections):
            connection.abort()


async def listening(
    create: Callable[..., Awaitable[asyncio.AbstractServer]], options: dict[str, Any], *where: Any
) -> asyncio.AbstractServer:
    """Return what `create` listens with; it accepts a few connections in a turn of the event loop.

    When the process is out of descriptors, asyncio would try as often as there may be connections that
    wait, and log a traceback each time, before it pauses for a second.
    """
    waiting = options.get("backlog")
    if not options.get("start_serving", True):
        return await create(*where, **options)
    listener = await create(*where, **{**options, "backlog": _AT_ONCE})
    for each in getattr(listener, "sockets", ()):
        # The same socket: as many may wait as before.
        with socket.socket(fileno=os.dup(each.fileno())) as again:
            again.listen(_WAITING if waiting is None else waiting)
    return listener


async def close_in_time(amp: AMP, timeout: float | None = 10.0) -> None:
    """Close a connection as its class does it, but within `timeout` seconds whatever the class does."""
    connection = connection_of(amp)
    if type(amp).close is AMP.close:
        await close(connection, timeout)
        return
    try:
        async with asyncio.timeout(timeout):
            closing: Any = amp.close()
            if inspect.isawaitable(closing):
                await closing
                await connection.wait_closed()
    except Exception as error:
        if not isinstance(error, TimeoutError):
            logger.exception("%r: close() failed", connection)
    finally:
        connection.abort()
    await connection.wait_closed()


async def leave_in_time(amp: AMP) -> None:
    """Close a connection whose user has failed: give up its questions, and take a second at most."""
    session: Any = amp.__amp__
    session.calls.give_up(ConnectionLost("the connection was left while this question was open"))
    await close_in_time(amp, _LEAVING)


class _Kept(asyncio.Protocol):
    """Keeps what comes before there is a protocol for it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._ended: list[Callable[[asyncio.Protocol], object]] = []

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self._ended.append(lambda protocol: protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.append(lambda protocol: protocol.connection_lost(exc))

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Tell `protocol` what has come."""
        if self.data:
            protocol.data_received(bytes(self.data))
        for tell in self._ended:
            tell(protocol)


class _Handshake(_Kept):
    """Hands a connection that was accepted to a TLS handshake, with what came before that began.

    (uvloop begins to read after `connection_made`, though reading was paused there.)
    """

    def __init__(self, acceptor: Acceptor) -> None:
        super().__init__()
        self._acceptor = acceptor

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        given = cast(asyncio.Transport, transport)
        given.pause_reading()
        self._acceptor.shake(given, self)


class _Refusal(asyncio.Protocol):
    """Ends a connection for which nothing could be made, because of `error`, or of a closed server."""

    def __init__(self, error: Exception | None, lines: Lines) -> None:
        self._error = error
        self._lines = lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._error is not None:
            peer = transport.get_extra_info("peername")
            self._lines.error("no protocol could be made for %r", peer, error=self._error)
        cut(cast(asyncio.Transport, transport))


class Server:
    """A server that listens, and the connections that it has accepted; `serve` makes one."""

    def __init__(self, listener: asyncio.AbstractServer, acceptor: Acceptor) -> None:
        self._listener = listener
        self._acceptor = acceptor

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The sockets that it listens on; none once it is closed."""
        return tuple(getattr(self._listener, "sockets", ()))

    @property
    def connections(self) -> list[AMP]:
        """The connections that are open now, each an instance of what is served."""
        return [each.owner for each in self._acceptor.connections if each.transport is not None]

    def __repr__(self) -> str:
        names = ", ".join(repr(each.getsockname()) for each in self.sockets)
        where = f"on {names}" if names else "closed"
        return f"<Server {where}, connections: {len(self.connections)}>"

    async def serve_forever(self) -> None:
        """Listen, if that has not begun, until cancelled; then close as `close` does.

        Raises `RuntimeError` if the server is closed.
        """
        if self._acceptor.closed:
            raise RuntimeError("the server is closed; serve again to make another one")
        await self._listener.start_serving()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.close()

    async def close(self, timeout: float | None = 10.0) -> None:
        """Listen no more, close every connection as `AMP.close` does, return when all are gone.

        `timeout` is in seconds, as there. Cancelling it aborts the connections that are left.
        """
        self._acceptor.closed = True
        try:
            # What was accepted just before takes a few turns to get to its protocol, which refuses it.
            # asyncio would forget it, and leave it open, if its server were closed meanwhile.
            if not all(stop_listening(sock) for sock in self.sockets):
                self._listener.close()
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            self._listener.close()
            await self._acceptor.close(timeout)
        finally:
            self._listener.close()
            self._acceptor.abort()
