"""Endpoints: connecting and serving, in one line each.

They are thin: asyncio's own functions do the work and take all their keyword arguments. What is added
is what everybody writes by hand otherwise: leaving an `async with` closes in order, closing a server
closes its connections too, and the log says which client could not be served, and why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from os import PathLike, fspath
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload

from .amp import AMP
from .serving import Acceptor, Server, close_in_time
from .transports.adoption import AcceptingProtocol, connect_unix

if TYPE_CHECKING:
    from .limits import Limits

__all__ = [
    "Opening",
    "Server",
    "close_in_time",
    "connect",
    "limited",
    "serve",
    "unix_connect",
    "unix_serve",
]

_A = TypeVar("_A", bound=AMP)


class _Closable(Protocol):
    async def close(self) -> None: ...


_C = TypeVar("_C", bound=_Closable)


class Opening(Generic[_C]):
    """An open connection or server: to be awaited, or entered as an `async with` that closes it."""

    def __init__(
        self,
        open_it: Callable[[], Awaitable[_C]],
        close: Callable[[_C], Awaitable[None]] = lambda opened: opened.close(),
    ) -> None:
        self._open_it = open_it
        self._close = close

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
        await self._close(self._opened)


def limited(protocol_factory: Callable[[], _A], limits: Limits | None) -> _A:
    """Return what `protocol_factory` makes, with these limits if any are given."""
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
) -> Opening[AMP]: ...
@overload
def connect(
    host: str | None,
    port: int | None,
    protocol_factory: Callable[[], _A],
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> Opening[_A]: ...
def connect(
    host: str | None = None,
    port: int | None = None,
    protocol_factory: Callable[[], AMP] = AMP,
    *,
    ssl: SSLContext | bool | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Opening[Any]:
    """Connect to an AMP server over TCP, or over TLS if `ssl` is given.

    `async with connect(...) as amp` closes the connection at the end; `amp = await connect(...)`
    leaves that to the caller. `protocol_factory` makes the object that connects; `limits`, if given,
    takes the place of the limits of its class. All other arguments are those of
    `loop.create_connection`, and so are the errors: `OSError`, `ssl.SSLError`. Cancelling it leaves no
    connection behind.
    """

    async def open_it() -> AMP:
        # Made before it connects: asyncio leaves a connection open if the factory raises.
        amp = limited(protocol_factory, limits)
        create: Any = asyncio.get_running_loop().create_connection
        await create(lambda: amp, host, port, ssl=ssl, **options)
        return amp

    return Opening(open_it, close_in_time)


@overload
def unix_connect(
    path: str | PathLike[str] | None = ...,
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> Opening[AMP]: ...
@overload
def unix_connect(
    path: str | PathLike[str] | None,
    protocol_factory: Callable[[], _A],
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> Opening[_A]: ...
def unix_connect(
    path: str | PathLike[str] | None = None,
    protocol_factory: Callable[[], AMP] = AMP,
    *,
    ssl: SSLContext | bool | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Opening[Any]:
    """Connect to an AMP server over the UNIX socket `path`; otherwise as `connect` does.

    All other arguments are those of `loop.create_unix_connection`. Without `ssl`, the connection
    carries descriptors: see `Descriptor`.
    """

    async def open_it() -> AMP:
        amp = limited(protocol_factory, limits)
        where = None if path is None else fspath(path)
        if not ssl and options.keys() <= {"sock"}:
            return await connect_unix(lambda: amp, where, **options)
        create: Any = asyncio.get_running_loop().create_unix_connection
        await create(lambda: amp, where, ssl=ssl, **options)
        return amp

    return Opening(open_it, close_in_time)


def serve(
    protocol_factory: Callable[[], AMP],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    ssl: SSLContext | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Opening[Server]:
    """Serve AMP over TCP, or over TLS if `ssl` is given.

    `async with serve(...) as server` closes the server, and its connections, at the end;
    `server = await serve(...)` leaves that to the caller. `protocol_factory` makes an object for each
    connection. If it raises, or if a TLS handshake fails, that is logged with the client's address, and
    the client's connection ends. All other arguments are those of `loop.create_server`, and so are the
    errors: `OSError` if it cannot listen.
    """

    async def open_it() -> Server:
        listen = asyncio.get_running_loop().create_server
        acceptor = Acceptor(partial(limited, protocol_factory, limits), ssl, options)
        listener = await listen(acceptor.accept, cast(Any, host), port, **options)
        return Server(listener, acceptor)

    return Opening(open_it)


def unix_serve(
    protocol_factory: Callable[[], AMP],
    path: str | PathLike[str] | None = None,
    *,
    ssl: SSLContext | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Opening[Server]:
    """Serve AMP on the UNIX socket `path`; otherwise as `serve` does.

    All other arguments are those of `loop.create_unix_server`. Without `ssl`, the connections carry
    descriptors: see `Descriptor`.
    """

    async def open_it() -> Server:
        listen: Any = asyncio.get_running_loop().create_unix_server
        acceptor = Acceptor(partial(limited, protocol_factory, limits), ssl, options)
        accept = acceptor.accept if ssl else lambda: AcceptingProtocol(acceptor.accept())
        where = None if path is None else fspath(path)
        return Server(await listen(accept, where, **options), acceptor)

    return Opening(open_it)
