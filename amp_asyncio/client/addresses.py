"""Addresses: what a client is given, and the endpoints that it connects to.

An endpoint opens one connection. Each network address is one, and so is each path of a UNIX socket,
and each child process (see `children.py`). Equal endpoints are one place.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from os import PathLike, fsdecode
from typing import Any, ClassVar, Protocol, TypeAlias, cast

from ..amp import AMP
from ..endpoints import connect, unix_connect
from ..serving.addresses import Address, resolved
from ..serving.closing import close_in_time, leave_in_time
from ..serving.server import Server
from .policy import Backoff

__all__ = ["Address", "Endpoint", "Opened", "Resolver", "Source", "addresses_of", "source_of"]

Resolver: TypeAlias = Callable[[], Awaitable[Iterable[Address]]]

_NEEDED = 'an address is (host, port), "host:port" or the path of a UNIX socket'


class Opened(Protocol):
    """One connection that an endpoint has opened.

    Attributes:
        amp: our side of it.
        max_calls: how many questions it is asked before it is replaced; None for no limit.
    """

    @property
    def amp(self) -> Any: ...
    @property
    def max_calls(self) -> int | None: ...

    def abandoned(self, answer: asyncio.Future[Any]) -> None:
        """The caller no longer waits for an answer: it has cancelled, or its time is over."""

    async def close(self, timeout: float | None) -> None:
        """Close it in order, within `timeout` seconds."""

    async def leave(self) -> None:
        """Close it, and give its open questions up."""


class Endpoint(Protocol):
    """Something that a client can connect to; it is hashable, and its text is for the log.

    Attributes:
        listens: whether it has a socket that listens, for which the kernel makes connections.
    """

    listens: ClassVar[bool]

    async def open(self, make: Callable[[], AMP]) -> Opened:
        """Open a connection of what `make` makes."""
        ...


class Source(Protocol):
    """Where the endpoints of a client come from.

    Attributes:
        fixed: whether they never change.
        connections: how many connections the client makes, unless it is told how many.
        backoff: how long to wait before a failed endpoint is tried again, unless the client is told.
    """

    @property
    def fixed(self) -> bool: ...
    @property
    def connections(self) -> int: ...
    @property
    def backoff(self) -> Backoff: ...

    async def endpoints(self) -> Sequence[Endpoint]:
        """Return the present addresses."""
        ...


class _Connection:
    """A connection over the network."""

    max_calls = None

    def __init__(self, amp: AMP) -> None:
        self.amp = amp

    def abandoned(self, answer: asyncio.Future[Any]) -> None:
        """Do nothing: a peer that can be told knows it."""

    async def close(self, timeout: float | None) -> None:
        await close_in_time(self.amp, timeout)

    async def leave(self) -> None:
        await leave_in_time(self.amp)


@dataclass(frozen=True)
class _Port:
    """A TCP port; `name` is the host's name, if `host` is its numeric address."""

    host: str
    port: int
    name: str
    how: _How
    listens: ClassVar[bool] = True

    async def open(self, make: Callable[[], AMP]) -> Opened:
        options = self.how.options
        if self.how.options.get("ssl"):
            options = {"server_hostname": self.name, **options}
        return _Connection(await connect(self.host, self.port, make, **options))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + (f" ({self.name})" if self.name != self.host else "")


@dataclass(frozen=True)
class _Path:
    """A UNIX socket."""

    path: str
    how: _How
    listens: ClassVar[bool] = True

    async def open(self, make: Callable[[], AMP]) -> Opened:
        return _Connection(await unix_connect(self.path, make, **self.how.options))

    def __str__(self) -> str:
        return self.path


class _How:
    """The options of a client's connections; it is the same object in all of its endpoints."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options


def addresses_of(target: Any) -> Callable[[], Awaitable[Iterable[Address]]] | list[Address]:
    """Return a resolver, or a list of addresses; `TypeError` for what is neither of these."""
    if isinstance(target, Server):
        return partial(_addresses_of_server, target)
    if isinstance(target, str | bytes | PathLike) or (
        isinstance(target, tuple) and _is_address(target)
    ):
        return [target]
    if isinstance(target, list | tuple):
        if not target:
            raise ValueError("Client(addresses): the list of addresses is empty")
        return list(target)
    if callable(target):
        return cast(Resolver, target)  # Only its call shows what it returns.
    raise TypeError(
        "Client(address) takes an address, a list of addresses, an async function that returns one, or "
        f"a Server, not {target!r}; {_NEEDED}"
    )


def _is_address(target: Any) -> bool:
    """Return whether this looks like the address of a socket, with its flow and scope or without."""
    if not isinstance(target, tuple) or len(target) not in (2, 4):
        return False
    return isinstance(target[0], str) and isinstance(target[1], int)


async def _addresses_of_server(server: Server[Any]) -> Iterable[Address]:
    return [sock.getsockname() for sock in server.sockets]


def source_of(target: Any, options: dict[str, Any]) -> Source:
    """Return where the endpoints of a client come from."""
    if hasattr(target, "endpoints"):
        if options:
            raise TypeError(f"{target!r} takes no options of a connection: {', '.join(options)}")
        source: Source = target
        return source
    return _Addresses(addresses_of(target), options)


class _Addresses:
    """Endpoints for addresses; the names of hosts are looked up, and stand for all their addresses."""

    connections = 1
    backoff = Backoff()

    def __init__(self, given: Resolver | list[Address], options: dict[str, Any]) -> None:
        self._how = _How(options)
        self._resolver = None if isinstance(given, list) else given
        self._found = [self._parsed(each) for each in given] if isinstance(given, list) else []
        self.fixed = self._resolver is None and not any(map(_has_name, self._found))

    async def endpoints(self) -> Sequence[Endpoint]:
        found = self._found
        if self._resolver is not None:
            found = [self._parsed(each) for each in await self._resolver()]
        if not any(map(_has_name, found)):
            return found
        groups = await asyncio.gather(*map(_looked_up, found), return_exceptions=True)
        known = [each for group in groups if not isinstance(group, BaseException) for each in group]
        failed = next((group for group in groups if isinstance(group, BaseException)), None)
        if failed is not None and not known:
            raise failed
        return known

    def _parsed(self, address: Any) -> _Port | _Path:
        match address:
            case (str(host), int(port), *_) if host:
                host = _host(address)
                return _Port(host, port, host, self._how)
            case str() | bytes() | PathLike() if address:
                found, number = resolved(address)
                if number is None and (not isinstance(address, str) or "/" in address):
                    return _Path(fsdecode(address), self._how)
                if number is not None and found:
                    return _Port(found, number, found, self._how)
        raise ValueError(f"{_NEEDED}, not {address!r}")


def _has_name(endpoint: _Port | _Path) -> bool:
    """Return whether this is the name of a host, which may have many addresses."""
    if isinstance(endpoint, _Path):
        return False
    try:
        ip_address(endpoint.host)
    except ValueError:
        return True
    return False


async def _looked_up(endpoint: _Port | _Path) -> Sequence[_Port | _Path]:
    """Return one endpoint for each address that a name has."""
    if isinstance(endpoint, _Path) or not _has_name(endpoint):
        return [endpoint]
    lookup = asyncio.get_running_loop().getaddrinfo
    found = await lookup(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    hosts = dict.fromkeys(_host(address) for *_, address in found)
    return [_Port(host, endpoint.port, endpoint.name, endpoint.how) for host in hosts]


def _host(address: Sequence[Any]) -> str:
    """Return the host of a socket's address, with its scope if it has one."""
    host: str = address[0]
    return f"{host}%{address[3]}" if address[3:] and address[3] and "%" not in host else host
