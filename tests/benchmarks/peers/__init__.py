"""The peers that are measured, each in a module of its own, and what all of them do.

A peer serves two commands and asks them: `Sum` of 13 and 81, and `Echo` of a value of some bytes.
Which one it is, is settled when a connection is made: a peer of which nothing is parsed, the limit,
could not tell otherwise. Everything else (who asks how often, on how many connections) is the same
code for all, in `worker.py`; so what differs between the rows of a table is the peer alone.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["HOST", "KINDS", "Connection", "Peer", "make"]

HOST = "127.0.0.1"

#: From a peer's name to the module in this package, the class in it, and what it needs installed.
KINDS = {
    "bare": ("bare", "Bare", ()),
    "coalescing": ("bare", "Coalescing", ()),
    "ours": ("ours", "Ours", ("amp_asyncio",)),
    "ours-2": ("ours", "OursVersion2", ("amp_asyncio",)),
    "ours-async": ("ours", "OursAsync", ("amp_asyncio",)),
    "ours-wide": ("ours", "OursWide", ("amp_asyncio",)),
    "twisted": ("twisted_amp", "TwistedAMP", ("twisted", "OpenSSL", "service_identity")),
    "websockets": ("websockets_msgpack", "Websockets", ("websockets", "msgpack")),
    "grpc": ("grpc_aio", "Grpc", ("grpc", "msgpack")),
}


@dataclass
class Connection:
    """A connection of a client: `ask()` is one call, awaited for its answer."""

    ask: Callable[[], Awaitable[Any]]
    close: Callable[[], Awaitable[Any]]
    #: A call that is answered when `release()` was called; of one kind of peer alone.
    hold: Callable[[], Awaitable[Any]] | None = None
    release: Callable[[], Awaitable[Any]] | None = None


class Peer:
    """One side of a peer on asyncio's loop, or on uvloop. `pem` is the path of certificate and key."""

    def __init__(self, pem: str) -> None:
        self.pem = pem
        #: What serves, kept alive.
        self.servers: list[Any] = []

    async def serve(self, size: int, tls: bool) -> int:
        """Serve `Echo` where there is a size of values, else `Sum`; return the port."""
        raise NotImplementedError

    async def connect(self, port: int, size: int, tls: bool) -> Connection:
        """Connect to what `serve` serves; `ask` sends values of `size` bytes, or asks `Sum`."""
        raise NotImplementedError

    # --- the runtime: Twisted has another ---

    def run(self, main: Callable[[], Coroutine[Any, Any, None]], loop: str) -> None:
        if loop == "uvloop":
            import uvloop

            factory: Any = uvloop.new_event_loop
        else:
            factory = asyncio.SelectorEventLoop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(function)

    async def ask_all(self, asks: list[Callable[[], Awaitable[Any]]], turns: Iterator[int]) -> None:
        """Let each of the callers ask again and again, until there are no turns left."""
        await self.gather([_ask(ask, turns) for ask in asks])

    async def gather(self, coroutines: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        return list(await asyncio.gather(*coroutines))

    # --- TLS from the first byte ---

    def pem_bytes(self) -> bytes:
        return Path(self.pem).read_bytes()

    def server_context(self, tls: bool) -> ssl.SSLContext | None:
        if not tls:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        return context

    def client_options(self, tls: bool) -> dict[str, Any]:
        """Return the keyword arguments for TLS of whatever ends in `loop.create_connection`."""
        if not tls:
            return {}
        return {"ssl": ssl.create_default_context(cafile=self.pem), "server_hostname": "localhost"}


async def _ask(ask: Callable[[], Awaitable[Any]], turns: Iterator[int]) -> None:
    for _ in turns:
        await ask()


def make(kind: str, pem: str) -> Peer:
    """Return the peer of that name; its libraries are imported here, and not before."""
    module, name, _ = KINDS[kind]
    peer: Peer = getattr(import_module(f"peers.{module}"), name)(pem)
    return peer
