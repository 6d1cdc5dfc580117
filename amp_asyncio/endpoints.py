"""Endpoints: connecting and serving, in one line each.

They are thin: asyncio's own functions do the work and take all their keyword arguments. What is added
is what everybody writes by hand otherwise: leaving an `async with` closes in order, and closing a
server closes its connections, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from os import PathLike, fspath
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload
from weakref import WeakSet

from .amp import AMP
from .transports.adoption import AcceptingProtocol, connect_unix

if TYPE_CHECKING:
    from .limits import Limits

__all__ = ["Server", "connect", "serve", "unix_connect", "unix_serve"]

_A = TypeVar("_A", bound=AMP)


class _Closable(Protocol):
    async def close(self) -> None: ...


_C = TypeVar("_C", bound=_Closable)


class _Opening(Generic[_C]):
    """What is awaited for an open thing, or entered as an `async with` that closes it at the end."""

    def __init__(self, open_it: Callable[[], Awaitable[_C]]) -> None:
        self._open_it = open_it

    def __await__(self) -> Generator[Any, None, _C]:
        return self._open_it().__await__()

    async def __aenter__(self) -> _C:
        self._opened = await self._open_it()
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._opened.close()


class Server:
    """A server that listens, and the connections that it has accepted; `serve` makes one."""

    def __init__(self) -> None:
        self._listener: asyncio.AbstractServer | None = None
        self._accepted: WeakSet[AMP] = WeakSet()

    async def _listen(
        self,
        listen: Callable[..., Awaitable[asyncio.AbstractServer]],
        protocol_factory: Callable[[], AMP],
        limits: Limits | None,
        *where: Any,
        **options: Any,
    ) -> Server:
        def accept() -> AMP:
            amp = _limited(protocol_factory, limits)
            self._accepted.add(amp)
            return amp

        self._listener = await listen(accept, *where, **options)
        return self

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The sockets that it listens on; none once it is closed."""
        return tuple(getattr(self._listener, "sockets", ()))

    @property
    def connections(self) -> list[AMP]:
        """The connections that are open now, each an instance of what is served."""
        return [amp for amp in self._accepted if amp.transport is not None]

    async def serve_forever(self) -> None:
        """Wait until cancelled; then close as `close` does before the cancellation goes on."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.close()

    async def close(self, timeout: float | None = 10.0) -> None:
        """Listen no more, close every connection as `AMP.close` does, return when all are gone.

        Cancelling it aborts the connections that are left.
        """
        if self._listener is not None:
            self._listener.close()
        closing = []
        for amp in list(self._accepted):
            if amp.transport is None:
                amp.abort()  # It may still be in its TLS handshake.
            else:
                closing.append(amp.close(timeout))
        await asyncio.gather(*closing)


def _limited(protocol_factory: Callable[[], _A], limits: Limits | None) -> _A:
    amp = protocol_factory()
    if limits is not None:
        amp.limits = limits
    return amp


@overload
def connect(
    host: str | None = ...,
    port: int | None = ...,
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> _Opening[AMP]: ...
@overload
def connect(
    host: str | None,
    port: int | None,
    protocol_factory: Callable[[], _A],
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> _Opening[_A]: ...
def connect(
    host: str | None = None,
    port: int | None = None,
    protocol_factory: Callable[[], AMP] = AMP,
    *,
    ssl: SSLContext | bool | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> _Opening[Any]:
    """Connect to an AMP server over TCP, or over TLS if `ssl` is given.

    `async with connect(...) as amp` closes the connection at the end; `amp = await connect(...)`
    leaves that to the caller. What connects is what `protocol_factory` makes; `limits`, if given, takes
    the place of the limits of its class. All other arguments are those of `loop.create_connection`, and
    so are the errors: `OSError`, `ssl.SSLError`. Cancelling it leaves no connection behind.
    """

    async def open_it() -> AMP:
        loop = asyncio.get_running_loop()
        factory = partial(_limited, protocol_factory, limits)
        create: Any = loop.create_connection
        _, amp = await create(factory, host, port, ssl=ssl, **options)
        return cast(AMP, amp)

    return _Opening(open_it)


@overload
def unix_connect(
    path: str | PathLike[str] | None = ...,
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> _Opening[AMP]: ...
@overload
def unix_connect(
    path: str | PathLike[str] | None,
    protocol_factory: Callable[[], _A],
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> _Opening[_A]: ...
def unix_connect(
    path: str | PathLike[str] | None = None,
    protocol_factory: Callable[[], AMP] = AMP,
    *,
    ssl: SSLContext | bool | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> _Opening[Any]:
    """Connect to an AMP server over the UNIX socket `path`; else as `connect` does.

    All other arguments are those of `loop.create_unix_connection`. Without `ssl`, the connection
    carries descriptors: see `Descriptor`.
    """

    async def open_it() -> AMP:
        factory = partial(_limited, protocol_factory, limits)
        where = None if path is None else fspath(path)
        if not ssl and options.keys() <= {"sock"}:
            return await connect_unix(factory, where, **options)
        loop = asyncio.get_running_loop()
        _, amp = await loop.create_unix_connection(factory, where, ssl=ssl, **options)
        return amp

    return _Opening(open_it)


def serve(
    protocol_factory: Callable[[], AMP],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    ssl: SSLContext | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> _Opening[Server]:
    """Serve AMP over TCP, or over TLS if `ssl` is given.

    `async with serve(...) as server` closes the server, and its connections, at the end;
    `server = await serve(...)` leaves that to the caller. Each connection is given to what
    `protocol_factory` makes for it. All other arguments are those of `loop.create_server`, and so
    are the errors: `OSError` where it cannot listen.
    """

    async def open_it() -> Server:
        listen = asyncio.get_running_loop().create_server
        return await Server()._listen(listen, protocol_factory, limits, host, port, ssl=ssl, **options)

    return _Opening(open_it)


def unix_serve(
    protocol_factory: Callable[[], AMP],
    path: str | PathLike[str] | None = None,
    *,
    ssl: SSLContext | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> _Opening[Server]:
    """Serve AMP on the UNIX socket `path`; else as `serve` does.

    All other arguments are those of `loop.create_unix_server`. Without `ssl`, the connections carry
    descriptors: see `Descriptor`.
    """

    async def open_it() -> Server:
        listen: Callable[..., Awaitable[asyncio.AbstractServer]]
        listen = asyncio.get_running_loop().create_unix_server if ssl else _listen_for_descriptors
        where = None if path is None else fspath(path)
        return await Server()._listen(listen, protocol_factory, limits, where, ssl=ssl, **options)

    return _Opening(open_it)


async def _listen_for_descriptors(
    accept: Callable[[], AMP], *where: Any, **options: Any
) -> asyncio.AbstractServer:
    create: Any = asyncio.get_running_loop().create_unix_server
    listener = await create(lambda: AcceptingProtocol(accept()), *where, **options)
    return cast(asyncio.AbstractServer, listener)
