"""Endpoints: connecting and serving, in one line each.

They are thin: asyncio's own functions do the work and take all their keyword arguments. What is added
is what every program otherwise writes itself: leaving an `async with` closes in order, closing a server
closes its connections too, and the log says which client could not be served, and why.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from functools import partial
from os import PathLike, fspath
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from .amp import AMP
from .errors import shortened
from .limits import Limits
from .serving.acceptor import Acceptor, limited
from .serving.addresses import Address, is_address, resolved
from .serving.checks import check_address, check_argument, check_client, check_server
from .serving.closing import close_in_time, leave_in_time
from .serving.server import Server, listening
from .session.interceptors import Interceptor, checked
from .transports.adoption import connect_unix
from .transports.proxied import Networks, networks_of

__all__ = [
    "Opening",
    "Server",
    "connect",
    "serve",
    "unix_connect",
    "unix_serve",
]

_A = TypeVar("_A", bound=AMP)


class _Closable(Protocol):
    async def close(self) -> None: ...


_C = TypeVar("_C", bound=_Closable)


class Opening(Generic[_C]):
    """An open connection or server: to be awaited, or entered as an `async with` that closes it.

    If the body of the `async with` raises, `leave` closes it, or `close` without a `leave`. For
    messages, `name` and `arguments` are the call that made it, and `result` a name for what it gives.
    """

    _begun = False

    def __init__(
        self,
        name: str,
        arguments: tuple[object, ...],
        result: str,
        open_it: Callable[[], Awaitable[_C]],
        close: Callable[[_C], Awaitable[None]] = lambda opened: opened.close(),
        leave: Callable[[_C], Awaitable[None]] | None = None,
    ) -> None:
        self._name = name
        self._arguments = arguments
        self._result = result
        self._open_it = open_it
        self._close = close
        self._leave = leave or close
        self._entered = False

    def __await__(self) -> Generator[Any, None, _C]:
        self._begun = True
        return self._open_it().__await__()

    async def __aenter__(self) -> _C:
        if self._entered:
            raise RuntimeError(
                f"{self._call} is entered already: make another one for another connection"
            )
        self._begun = self._entered = True
        try:
            self._opened = await self._open_it()
        except BaseException:
            self._entered = False
            raise
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered = False
        await (self._close if kind is None else self._leave)(self._opened)

    def __repr__(self) -> str:
        return f"<{self._call}>" if self._begun else f"<{self._call}, not awaited: {self._advice()}>"

    @property
    def _call(self) -> str:
        """The call that made it, without the arguments that are None."""
        given = [
            getattr(each, "__qualname__", None) or shortened(each)
            for each in self._arguments
            if each is not None
        ]
        return f"{self._name}({', '.join(given)})"

    def _advice(self) -> str:
        return (
            f'in an async def, write "{self._result} = await {self._name}(...)" or '
            f'"async with {self._name}(...) as {self._result}:"'
        )

    # Hidden from type checkers, so that they report such an attribute; always true when it runs.
    if not TYPE_CHECKING:  # pragma: no branch

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"{self._call} has no {name!r}, it must be awaited: {self._advice()}")

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if not self._begun:
            # The level is that of the code that drops it.
            _warn(f"{self._call} was never awaited: {self._advice()}", RuntimeWarning, stacklevel=2)


def _acceptor(
    protocol_factory: Callable[[], AMP],
    ssl: SSLContext | None,
    limits: Limits | None,
    interceptors: Sequence[Interceptor],
    most: int | None,
    options: dict[str, Any],
    carries: bool = False,
    proxies: Networks = (),
) -> Acceptor:
    handshake_timeout = (limits or Limits()).handshake_timeout
    factory = partial(limited, protocol_factory, limits, interceptors)
    return Acceptor(factory, ssl, options, handshake_timeout, most, carries, proxies)


@overload
def connect(
    host: str | None,
    port: int | None,
    protocol_factory: Callable[[], _A],
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    interceptors: Sequence[Interceptor] = ...,
    **options: Any,
) -> Opening[_A]: ...
@overload
def connect(
    address: Address,
    /,
    protocol_factory: Callable[[], _A],
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    interceptors: Sequence[Interceptor] = ...,
    **options: Any,
) -> Opening[_A]: ...
@overload
def connect(
    host: str | None = ...,
    port: int | None = ...,
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    interceptors: Sequence[Interceptor] = ...,
    **options: Any,
) -> Opening[AMP]: ...
@overload
def connect(
    address: Address,
    /,
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    interceptors: Sequence[Interceptor] = ...,
    **options: Any,
) -> Opening[AMP]: ...
# With an address, which is positional only, the names of the first two parameters do not count.
def connect(  # type: ignore[misc]
    host: Any = None,
    port: Any = None,
    protocol_factory: Any = None,
    *,
    ssl: SSLContext | bool | None = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    **options: Any,
) -> Opening[Any]:
    """Connect to an AMP server over TCP, or over TLS if `ssl` is given.

    In place of a host and a port, it takes an address: `connect(server)` connects to a `Server` of this
    process, and `connect(address)` to a `(host, port)`, a `"host:port"`, or the path of a UNIX socket.
    `connect(address, MyAMP)` says which class connects. A path has a `/` in it, or is a `pathlib.Path`;
    `unix_connect` takes any. In `"[::1]:1234"`, the brackets tell the address from the port. What
    `sock.getsockname()` returns is an address, too.

    `async with connect(...) as amp` closes the connection at the end, as `AMP.close` does. If it is
    left by an exception or a timeout, it gives up the questions that are open, and takes at most a
    second. `amp = await connect(...)` leaves closing to the caller.

    `protocol_factory` makes the object that connects; `limits`, if given, takes the place of the limits
    of its class; `interceptors` surround those of its class. All other arguments are those of
    `loop.create_connection`, and so are the errors: `OSError`, `ssl.SSLError`. Cancelling it leaves no
    connection behind.
    """
    signature = "connect(host, port, protocol_factory)"
    if is_address(host, port):
        if port is not None:
            if protocol_factory is not None:
                raise TypeError(
                    "connect(address, protocol_factory) takes no port: it is in the address"
                )
            port, protocol_factory = None, port
        host, port = resolved(host)
        if port is None:
            factory = AMP if protocol_factory is None else protocol_factory
            return unix_connect(
                host, factory, ssl=ssl, limits=limits, interceptors=interceptors, **options
            )
    protocol_factory = AMP if protocol_factory is None else protocol_factory
    check_address(signature, host, port)
    check_client(signature, protocol_factory, limits, ssl, options)
    interceptors = checked(interceptors, f"{signature}: interceptors")

    async def open_it() -> AMP:
        # Made before it connects: asyncio leaves a connection open if the factory raises.
        amp: AMP = limited(protocol_factory, limits, interceptors)
        create: Any = asyncio.get_running_loop().create_connection
        await create(lambda: amp, host, port, ssl=ssl, **options)
        return amp

    return Opening("connect", (host, port), "amp", open_it, close_in_time, leave_in_time)


@overload
def unix_connect(
    path: str | PathLike[str] | None = ...,
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    interceptors: Sequence[Interceptor] = ...,
    **options: Any,
) -> Opening[AMP]: ...
@overload
def unix_connect(
    path: str | PathLike[str] | None,
    protocol_factory: Callable[[], _A],
    *,
    ssl: SSLContext | bool | None = ...,
    limits: Limits | None = ...,
    interceptors: Sequence[Interceptor] = ...,
    **options: Any,
) -> Opening[_A]: ...
def unix_connect(
    path: str | PathLike[str] | None = None,
    protocol_factory: Callable[[], AMP] = AMP,
    *,
    ssl: SSLContext | bool | None = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    **options: Any,
) -> Opening[Any]:
    """Connect to an AMP server over the UNIX socket `path`; otherwise as `connect` does.

    All other arguments are those of `loop.create_unix_connection`. Without `ssl`, the connection
    carries descriptors: see `Descriptor`.
    """
    signature = "unix_connect(path, protocol_factory)"
    check_argument(signature, "path", path, str, bytes, PathLike, needed="a path")
    check_client(signature, protocol_factory, limits, ssl, options)
    interceptors = checked(interceptors, f"{signature}: interceptors")

    async def open_it() -> AMP:
        amp = limited(protocol_factory, limits, interceptors)
        where = None if path is None else fspath(path)
        if not ssl and options.keys() <= {"sock"}:
            return await connect_unix(lambda: amp, where, **options)
        create: Any = asyncio.get_running_loop().create_unix_connection
        await create(lambda: amp, where, ssl=ssl, **options)
        return amp

    return Opening("unix_connect", (path,), "amp", open_it, close_in_time, leave_in_time)


def serve(
    protocol_factory: Callable[[], _A],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    ssl: SSLContext | None = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    max_connections: int | None = None,
    trusted_proxies: Iterable[str] = (),
    **options: Any,
) -> Opening[Server[_A]]:
    """Serve AMP over TCP, or over TLS if `ssl` is given.

    `async with serve(...) as server` closes the server, and its connections, at the end;
    `server = await serve(...)` leaves that to the caller. `protocol_factory` makes an object for each
    connection. If it raises, or if a TLS handshake fails, that is logged with the client's address, and
    the client's connection ends.

    With `max_connections` open connections, no more are accepted until one of them ends: clients wait,
    as many as `backlog` says. Handshakes that are under way count, and connections that were switched
    to another protocol do not. When the process is out of descriptors, that is logged once, and
    accepting goes on when some are free.

    `trusted_proxies` are networks, such as "10.0.0.0/8" or "::1". A client in one of them may
    send a header of the PROXY protocol first, version 1 or 2, which says for whom: then that address is
    the peer's. From anywhere else such a header is malformed AMP.

    All other arguments are those of `loop.create_server`, and so are the errors: `OSError` if it cannot
    listen.
    """
    signature = "serve(protocol_factory, host, port)"
    check_server(signature, protocol_factory, limits, ssl, max_connections, options)
    interceptors = checked(interceptors, f"{signature}: interceptors")
    check_address(signature, host, port, Sequence)
    proxies = networks_of(trusted_proxies)

    async def open_it() -> Server[_A]:
        given = dict(options)
        acceptor = _acceptor(
            protocol_factory, ssl, limits, interceptors, max_connections, given, proxies=proxies
        )
        return await listening(asyncio.get_running_loop().create_server, given, acceptor, host, port)

    return Opening("serve", (protocol_factory, host, port), "server", open_it)


def unix_serve(
    protocol_factory: Callable[[], _A],
    path: str | PathLike[str] | None = None,
    *,
    ssl: SSLContext | None = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    max_connections: int | None = None,
    **options: Any,
) -> Opening[Server[_A]]:
    """Serve AMP on the UNIX socket `path`; otherwise as `serve` does.

    All other arguments are those of `loop.create_unix_server`. Without `ssl`, the connections carry
    descriptors: see `Descriptor`.
    """
    signature = "unix_serve(protocol_factory, path)"
    check_server(signature, protocol_factory, limits, ssl, max_connections, options)
    interceptors = checked(interceptors, f"{signature}: interceptors")
    check_argument(signature, "path", path, str, bytes, PathLike, needed="a path")

    async def open_it() -> Server[_A]:
        given = dict(options)
        acceptor = _acceptor(
            protocol_factory, ssl, limits, interceptors, max_connections, given, carries=ssl is None
        )
        create: Any = asyncio.get_running_loop().create_unix_server
        where = None if path is None else fspath(path)
        return await listening(create, given, acceptor, where)

    return Opening("unix_serve", (protocol_factory, path), "server", open_it)
