"""The peers that are measured, each in a module of its own, and what all of them do.

A peer serves some of these, and a client asks for one of them on each connection:

    sum     the sum of 13 and 81
    timed   the same, with a timeout of 30 seconds, which is never over
    typed   the same, as a typed command
    echo    a value of 60,000 bytes, which comes back
    items   so many small integers, as a stream

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

from pace import Pace

__all__ = ["HOST", "KINDS", "TIMEOUT", "VALUE", "Connection", "Kind", "Peer", "make"]

HOST = "127.0.0.1"
VALUE = 60_000
TIMEOUT = 30.0


@dataclass(frozen=True)
class Kind:
    """Where a peer is: the module in this package, the class in it, and what it needs installed.

    `can` has what it is measured in: each shape names the word that it needs.
    """

    module: str
    name: str
    needs: tuple[str, ...]
    can: frozenset[str]


def _kind(module: str, name: str, needs: str, can: str) -> Kind:
    return Kind(module, name, tuple(needs.split()), frozenset(can.split()))


#: By the names of `--peers`. (Of gRPC, 5,000 idle channels take longer than all else in a round, at
#: some 17 KB each; and it cancels some of 10,000 open questions. Each connection of rpyc has a thread.)
KINDS = {
    "bare": _kind("bare", "Bare", "", "sum echo timed items opening idle paced"),
    "coalescing": _kind("bare", "Coalescing", "", "sum echo"),
    "ours": _kind("ours", "Ours", "amp_asyncio", "sum echo timed typed items opening idle paced"),
    "ours-2": _kind("ours", "OursVersion2", "amp_asyncio", "sum echo"),
    "ours-async": _kind("ours", "OursAsync", "amp_asyncio", "sum echo"),
    "ours-wide": _kind("ours", "OursWide", "amp_asyncio", "hold growth"),
    "twisted": _kind(
        "twisted_amp",
        "TwistedAMP",
        "twisted OpenSSL service_identity",
        "sum echo timed opening idle paced hold",
    ),
    "websockets": _kind(
        "websockets_msgpack",
        "Websockets",
        "websockets msgpack",
        "sum echo timed items opening idle paced hold",
    ),
    "grpc": _kind("grpc_aio", "Grpc", "grpc msgpack", "sum echo timed items opening paced"),
    "capnp": _kind("capnp_rpc", "Capnp", "capnp", "sum echo timed items opening idle paced hold"),
    "aiohttp": _kind("aiohttp_json", "Aiohttp", "aiohttp", "sum echo timed items opening idle paced"),
    "rpyc": _kind("rpyc_threads", "Rpyc", "rpyc", "sum echo timed items opening paced"),
}


@dataclass
class Connection:
    """A connection of a client: `ask()` is one call, awaited for its answer.

    Of "items", `ask(count)` takes so many of them, or one.
    """

    ask: Callable[..., Awaitable[Any]]
    close: Callable[[], Awaitable[Any]]
    #: A call that is answered when `release()` was called; of kinds that can "hold".
    hold: Callable[[], Awaitable[Any]] | None = None
    release: Callable[[], Awaitable[Any]] | None = None


class Peer:
    """One side of a peer on asyncio's loop, or on uvloop. `pem` is the path of certificate and key."""

    def __init__(self, pem: str) -> None:
        self.pem = pem
        #: What serves, kept alive.
        self.servers: list[Any] = []

    async def serve(self, what: str, tls: bool) -> int:
        """Serve that (or all); return the port."""
        raise NotImplementedError

    async def connect(self, port: int, what: str, tls: bool) -> Connection:
        """Connect to what `serve` serves."""
        raise NotImplementedError

    # --- the runtime: Twisted and rpyc have others ---

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

    async def ask_paced(self, ask: Callable[[], Awaitable[Any]], pace: Pace) -> None:
        """Ask as the pace says, whatever became of the questions before, until it has ended."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        tasks = set()

        async def call(due: float) -> None:
            await ask()
            pace.answered(due)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if task.cancelled() or task.exception():
                pace.failed()
            if pace.ended and not done.done():
                done.set_result(None)

        def tick() -> None:
            for due in pace.due():
                task = loop.create_task(call(due))
                tasks.add(task)
                task.add_done_callback(ended)

        loop.add_reader(pace.fileno(), tick)
        await done
        loop.remove_reader(pace.fileno())

    async def gather(self, coroutines: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        return list(await asyncio.gather(*coroutines))

    def begin(self, asked: Awaitable[Any]) -> Awaitable[Any]:
        """Return what has begun and can be awaited later."""
        return asyncio.ensure_future(asked)

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
    found = KINDS[kind]
    peer: Peer = getattr(import_module(f"peers.{found.module}"), found.name)(pem)
    return peer
