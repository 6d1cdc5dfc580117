"""A server: the sockets that it listens on, and the connections that it has accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..amp import AMP
from ..transports.adoption import refuse_descriptors
from ..transports.listening import Listener
from .acceptor import Acceptor

if TYPE_CHECKING:
    from typing_extensions import TypeVar as _TypeVar  # With a default, which typing's has from 3.13.

    _A = _TypeVar("_A", bound=AMP, default=AMP, covariant=True)
else:
    _A = TypeVar("_A", covariant=True)

__all__ = ["Server", "listening"]

# How many connections may wait to be accepted, unless it is said: as in asyncio.
_WAITING = 100


async def listening(
    create: Callable[..., Awaitable[asyncio.AbstractServer]],
    options: dict[str, Any],
    acceptor: Acceptor,
    *where: Any,
) -> Server[Any]:
    """Return a server of what `acceptor` makes, on sockets that `create` binds."""
    # The event loop makes no protocol: it only binds the sockets.
    bound = await create(asyncio.Protocol, *where, **{**options, "start_serving": False})
    listener = Listener(bound, options.get("backlog", _WAITING), acceptor.take)
    acceptor.listener = listener
    if not acceptor.carries:
        for sock in listener.sockets:
            refuse_descriptors(sock)
    if options.get("start_serving", True):
        try:
            listener.listen()
        except OSError:
            listener.close()
            raise
    return Server(listener, acceptor)


class Server(Generic[_A]):
    """A server that listens, and the connections that it has accepted; `serve` makes one."""

    def __init__(self, listener: Listener, acceptor: Acceptor) -> None:
        self._listener = listener
        self._acceptor = acceptor

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The sockets that it listens on; none once it is closed."""
        return self._listener.sockets

    @property
    def connections(self) -> list[_A]:
        """The connections that are open now, each an instance of what is served."""
        return [each.owner for each in self._acceptor.connections if each.transport is not None]

    @property
    def address(self) -> tuple[str, int] | str | bytes:
        """Where `connect` finds it: a host and a port, or the path of a UNIX socket.

        If it listens on several addresses, this is the first one. If it listens on all addresses of the
        machine, the host is that of the machine itself. Raises `RuntimeError` once it is closed.
        """
        if not self.sockets:
            raise RuntimeError("the server is closed")
        name: Any = self.sockets[0].getsockname()
        if isinstance(name, str | bytes):
            return name
        host, port, *_ = name
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return str(everywhere.get(host, host)), port

    @property
    def health(self) -> dict[str, bool]:
        """Whether each service is served, by its name, for those who ask with `AMP.health`.

        Who asks without a name learns whether all of them are.
        """
        return self._acceptor.service.health

    @property
    def ssl(self) -> SSLContext | None:
        """What TLS handshakes are done with; None for connections in the clear.

        A new one, such as one with a new certificate, is used for those who connect from then on.
        """
        return self._acceptor.context

    @ssl.setter
    def ssl(self, context: SSLContext) -> None:
        if self._acceptor.context is None or not isinstance(context, SSLContext):
            raise TypeError(
                "Server.ssl: only an ssl.SSLContext can replace another one; serve(..., ssl=...) says "
                f"whether the server uses TLS, not {context!r}"
            )
        self._acceptor.context = context

    def leave(self) -> None:
        """Say that this server will soon be closed, and go on accepting and answering.

        `AMP.health` tells clients that it does not serve. The connections to peers of this
        package are left: neither side asks, except from inside responders, so a `Client` asks
        elsewhere. All other clients are served as before.
        """
        self._acceptor.leave()

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
        self._listener.listen()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.close()

    async def close(self, timeout: float | None = 10.0) -> None:
        """Listen no more, close every connection as `AMP.close` does, return when all are gone.

        `timeout` is in seconds, as there. Cancelling it aborts the connections that are left.
        """
        self._acceptor.closed = True
        self._listener.close()
        try:
            await self._acceptor.close(timeout)
        finally:
            self._acceptor.abort()
