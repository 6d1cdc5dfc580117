"""Accepting: the connections that a server has accepted, and those that it could not serve.

asyncio does not say that a protocol factory raises or a TLS handshake fails, except in debug mode, and
the two event loops differ in what becomes of the client. So the handshake is done here, on top of the
connection that was accepted, and a factory that raises leaves a protocol that ends the connection: both
are logged with the client's address. How connections are accepted is in `transports/listening.py`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from ssl import SSLContext
from typing import Any, TypeVar, cast

from ..amp import AMP
from ..commands.definitions import ENDING
from ..composed import connection_of
from ..connection.connection import Connection
from ..limits import Limits
from ..logs import Lines
from ..session.interceptors import Interceptor
from ..session.leaving import retire
from ..session.service import Service
from ..tls.alerts import Alerts
from ..transports.cutting import cut
from ..transports.listening import Listener
from ..transports.proxied import Address, Networks, is_trusted, read_header
from ..transports.securing import secured
from ..transports.unix import DescriptorTransport
from .closing import close_in_time

__all__ = ["Acceptor", "limited"]

_A = TypeVar("_A", bound=AMP)

# The arguments of a server that are about the handshake.
_TLS_OPTIONS = ("ssl_handshake_timeout", "ssl_shutdown_timeout")


class Acceptor:
    """Makes a protocol for each connection that a server accepts.

    `factory` makes the objects that are served. With `context`, a TLS handshake comes first; what
    concerns it is taken out of `options`; it may take `handshake_timeout` seconds if they do not say.
    `most` is how many connections may be open; None for no limit. `proxies` are the networks of those
    that may say for whom they connect.

    Attributes:
        connections: those that are open.
        shaking: the TLS handshakes that are under way.
        context: what a TLS handshake is done with; None without TLS.
        closed: whether what is accepted now is refused.
        carries: whether the connections carry descriptors.
        lines: writes the log lines that clients can cause by connecting.
        listener: accepts the connections.
        service: what the conversations have in common.
    """

    listener: Listener

    def __init__(
        self,
        factory: Callable[[], AMP],
        context: SSLContext | None,
        options: dict[str, Any],
        handshake_timeout: float,
        most: int | None,
        carries: bool,
        proxies: Networks = (),
    ) -> None:
        self._factory = factory
        self.context = context
        self._options: dict[str, Any] = {}
        if context is not None:
            self._options = {name: options.pop(name) for name in _TLS_OPTIONS if name in options}
            self._options.setdefault("ssl_handshake_timeout", handshake_timeout)
        self._most = most
        self._proxies = proxies
        self._header_timeout = handshake_timeout
        self._headers: set[asyncio.Task[None]] = set()  # What reads the headers of proxies.
        self.carries = carries
        # What was accepted, and has no transport yet.
        self._coming: set[_Accepted] = set()
        self._all_came: asyncio.Event | None = None  # Made when a caller waits for that.
        self._opening: dict[asyncio.Task[Any], tuple[socket.socket, _Accepted]] = {}
        # (A set of thousands takes three times the memory.)
        self.connections: dict[Connection, None] = {}
        self.shaking: set[asyncio.Task[None]] = set()
        self.closed = False
        self.lines = Lines()
        self._leaving = False
        # One client may open many connections, so their conversations have a limit together.
        self.service = Service(Lines(at_once=200, per_second=20))
        self._gone = self._end  # Made once, and not for each connection.

    # --- from a socket to a connection ---

    def take(self, sock: socket.socket) -> None:
        """Take a connection that was accepted."""
        accepted = _Accepted(self)
        self._coming.add(accepted)
        if self._proxies and is_trusted(sock, self._proxies):
            header = asyncio.get_running_loop().create_task(self._read_header(sock, accepted))
            self._headers.add(header)
            header.add_done_callback(self._headers.discard)
        else:
            self._open(sock, accepted)
        if self._is_full():
            self.listener.pause()

    async def _read_header(self, sock: socket.socket, accepted: _Accepted) -> None:
        try:
            async with asyncio.timeout(self._header_timeout):
                accepted.seen_as = await read_header(sock)
        except (OSError, ValueError) as error:
            why = str(error) or f"no complete header within {self._header_timeout} seconds"
            self.lines.warning("a proxy at %r was refused: %s", sock.getpeername(), why)
            self._drop(sock, accepted)
        except BaseException:
            self._drop(sock, accepted)
            raise
        else:
            self._open(sock, accepted)

    def _open(self, sock: socket.socket, accepted: _Accepted) -> None:
        """Have a transport made for a connection."""
        loop = asyncio.get_running_loop()
        if self.carries:
            try:
                DescriptorTransport(loop, sock, accepted)
            except OSError as error:
                self._not_kept(sock, accepted, error)
        else:
            opening = loop.create_task(loop.connect_accepted_socket(lambda: accepted, sock))
            self._opening[opening] = sock, accepted
            opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        sock, accepted = self._opening.pop(opening)
        error = None if opening.cancelled() else opening.exception()
        if accepted in self._coming:
            self._not_kept(sock, accepted, error)

    def _not_kept(self, sock: socket.socket, accepted: _Accepted, error: BaseException | None) -> None:
        """Close a connection that cannot get a transport."""
        why = error or "cancelled"
        self.lines.error("%r: an accepted connection could not be kept: %s", sock.getsockname(), why)
        self._drop(sock, accepted)

    def _drop(self, sock: socket.socket, accepted: _Accepted) -> None:
        self._came(accepted)
        sock.close()
        self._fewer()

    def _came(self, accepted: _Accepted) -> None:
        self._coming.discard(accepted)
        if self._all_came is not None and not self._coming:
            self._all_came.set()

    def begin(self, accepted: _Accepted, transport: asyncio.Transport) -> None:
        """Begin a connection that has its transport now."""
        self._came(accepted)
        if self.context is not None:
            # uvloop begins to read after `connection_made`, though reading is paused here.
            kept = _Kept(accepted.seen_as)
            transport.set_protocol(kept)
            transport.pause_reading()
            self._shake_soon(transport, kept)
            return
        self._serve(transport, accepted.seen_as)

    def _serve(self, transport: asyncio.Transport, seen_as: Address | None) -> None:
        """Begin what is served on a transport that can be used."""
        try:
            protocol = self._make(seen_as)
        except ENDING:
            cut(transport)
            raise
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _make(self, seen_as: Address | None) -> asyncio.Protocol:
        """Return what is served, or a protocol that ends the connection."""
        if self.closed:
            return _Refusal(None, self.lines)
        try:
            amp = self._factory()
            connection = connection_of(amp)
            connection.lines = self.lines
            amp.__amp__.service = self.service
            amp.__amp__.retiring = self._leaving
            connection.served = self._gone
            connection.seen_as = seen_as
            self.connections[connection] = None
        except ENDING:
            raise
        except BaseException as error:
            self._fewer()
            return _Refusal(error, self.lines)
        return amp

    # --- how many connections ---

    def _is_full(self) -> bool:
        if self._most is None:
            return False
        return len(self._coming) + len(self.shaking) + len(self.connections) >= self._most

    def _end(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self.connections.pop(connection, None)
        self._fewer()

    def _fewer(self) -> None:
        """Accept again, if accepting has stopped at the limit."""
        if self._most is not None and not self._is_full():
            self.listener.resume()

    # --- TLS ---

    def _shake_soon(self, transport: asyncio.Transport, kept: _Kept) -> None:
        """Begin a TLS handshake on a connection that was accepted."""
        if self.closed:
            cut(transport)
            return

        def shaken(shaking: asyncio.Task[None]) -> None:
            self.shaking.discard(shaking)
            if shaking.cancelled():  # Perhaps before it began.
                cut(transport)
            self._fewer()

        shaking = asyncio.get_running_loop().create_task(self._shake(transport, kept))
        self.shaking.add(shaking)
        shaking.add_done_callback(shaken)

    async def _shake(self, transport: asyncio.Transport, early: _Kept) -> None:
        peer = early.seen_as or transport.get_extra_info("peername")
        context = cast(SSLContext, self.context)
        kept = _Kept(early.seen_as)
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
            self._serve(layer, early.seen_as)
            kept.hand_over(cast(asyncio.Protocol, layer.get_protocol()))

    async def close(self, timeout: float | None) -> None:
        """Close what was accepted, each within `timeout` seconds."""
        for header in self._headers:
            header.cancel()
        if self._coming:  # They are refused as soon as they have a transport.
            self._all_came = asyncio.Event()
            await self._all_came.wait()
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

    def leave(self) -> None:
        """Let all connections know, as soon as they can be told, that they will soon be closed."""
        self._leaving = True
        for connection in list(self.connections):
            retire(connection.owner.__amp__)

    def abort(self) -> None:
        """Abort what was accepted."""
        for shaking in self.shaking:
            shaking.cancel()
        for connection in list(self.connections):
            connection.abort()


def limited(
    protocol_factory: Callable[[], _A],
    limits: Limits | None,
    interceptors: Sequence[Interceptor] = (),
) -> _A:
    """Return what `protocol_factory` makes, with these limits if any are given, and interceptors."""
    amp = protocol_factory()
    if not isinstance(amp, AMP):
        raise TypeError(f"{protocol_factory!r} returned {amp!r}, which is not an AMP")
    if limits is not None:
        amp.limits = limits
    if interceptors:
        amp.__amp__.around = tuple(interceptors)
    return amp


class _Kept(asyncio.Protocol):
    """Keeps what comes before its protocol is made; `seen_as` is what a proxy says."""

    def __init__(self, seen_as: Address | None) -> None:
        self.seen_as = seen_as
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


class _Accepted(asyncio.Protocol):
    """Hands a connection that was accepted on as soon as it has a transport."""

    __slots__ = ("_acceptor", "seen_as")

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self.seen_as: Address | None = None  # What a proxy says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._acceptor.begin(self, cast(asyncio.Transport, transport))


class _Refusal(asyncio.Protocol):
    """Ends a connection for which nothing could be made, because of `error`, or of a closed server."""

    def __init__(self, error: BaseException | None, lines: Lines) -> None:
        self._error = error
        self._lines = lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._error is not None:
            peer = transport.get_extra_info("peername")
            self._lines.error("no protocol could be made for %r", peer, error=self._error)
        cut(cast(asyncio.Transport, transport))
