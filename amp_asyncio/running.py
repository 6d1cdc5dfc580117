"""Running a service as a process: signals, an orderly end, and what systemd has to do with both.

`run` serves until the process is told to end, and ends in an order that fails no call. `listen_fds` and
`sd_notify` are the two sides of systemd's protocol for services: sockets that it listens on in advance,
and messages about the state of the service.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from ssl import SSLContext
from typing import Any

from .endpoints import Opening
from .logs import logger
from .serving.server import Server

__all__ = ["listen_fds", "run", "sd_notify"]

#: The first descriptor that systemd passes.
LISTEN_FDS_START = 3


async def run(
    *services: Opening[Server[Any]],
    grace: float = 5.0,
    timeout: float | None = 10.0,
    reload: Callable[[], SSLContext | Awaitable[SSLContext | None] | None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then end in order: `asyncio.run(run(serve(...)))` is a service.

    When the signal comes, each server says that it is about to close, to health checks and to its
    connections, so that clients go elsewhere. It goes on accepting and answering for `grace` seconds,
    the time that load balancers and clients need to notice. Then it closes, as `Server.close` does,
    within `timeout` seconds. A second signal ends the `grace`.

    On SIGHUP, `reload` is called. If it returns an `ssl.SSLContext`, the servers use that for those who
    connect from then on: this is how a certificate is replaced. If it raises, that is logged, and the
    service goes on as before.

    systemd is told when the service is ready and when it stops. Raises what `serve` raises. Cancelling
    it closes the servers.
    """
    for service in services:
        if not isinstance(service, Opening):
            raise TypeError(f"run() takes what serve(...) returns, not {service!r}")
    stop = asyncio.Event()
    servers: list[Server[Any]] = []
    reloading = _Reloading(servers, reload)
    signals: dict[int, Callable[[], None]] = {signal.SIGTERM: stop.set, signal.SIGINT: stop.set}
    if reload is not None:
        signals[signal.SIGHUP] = reloading.begin
    async with AsyncExitStack() as stack:
        # Before it listens: from then on, a signal may come.
        stack.enter_context(_handled(signals))
        stack.push_async_callback(reloading.close)
        # Not a comprehension, as ruff advises: a signal that comes meanwhile uses the list.
        for service in services:
            servers.append(await stack.enter_async_context(service))  # noqa: PERF401
        sd_notify("READY=1")
        await stop.wait()
        stop.clear()
        logger.info("ending in %s s: %s", grace, ", ".join(map(repr, servers)))
        sd_notify("STOPPING=1")
        for server in servers:
            server.leave()
        try:
            async with asyncio.timeout(grace):
                await stop.wait()
        except TimeoutError:
            pass
        await asyncio.gather(*(server.close(timeout) for server in servers))


@contextmanager
def _handled(signals: dict[int, Callable[[], None]]) -> Iterator[None]:
    """Handle these signals in the event loop meanwhile."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in signals}
    try:
        for number, handler in signals.items():
            loop.add_signal_handler(number, handler)
        yield
    finally:
        for number, handler_before in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler_before)


class _Reloading:
    """Replaces the certificates of `servers` by what `reload` returns."""

    def __init__(self, servers: list[Server[Any]], reload: Callable[[], Any] | None) -> None:
        self._servers = servers
        self._reload = reload
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Do it in the background."""
        task = asyncio.get_running_loop().create_task(self._do())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self) -> None:
        assert self._reload is not None
        try:
            context = self._reload()
            if inspect.isawaitable(context):
                context = await context
            if context is not None:
                for server in self._servers:
                    server.ssl = context
        except Exception:
            logger.exception("reloading failed; the service goes on as before")
        else:
            logger.info("reloaded")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


# --- systemd ---


def listen_fds(name: str | None = None) -> list[socket.socket]:
    """Return the sockets that systemd has opened for this service, in the order of its unit files.

    With `name`, only those whose `FileDescriptorName=` it is. Pass each to `serve(..., sock=...)` or
    `unix_serve(..., sock=...)`. The list is empty if the process was started in another way. Call it
    once, and before child processes are started: from then on they do not inherit the sockets.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    found = []
    for descriptor, its_name in zip(
        range(LISTEN_FDS_START, LISTEN_FDS_START + count), names, strict=False
    ):
        if name is None or name == its_name:
            sock = socket.socket(fileno=descriptor)
            sock.set_inheritable(False)
            found.append(sock)
    return found


def sd_notify(state: str) -> bool:
    """Tell systemd, or another supervisor, about the state of this service, such as "READY=1".

    Return False if `NOTIFY_SOCKET` is not set, or if it cannot be reached.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    if path.startswith("@"):
        path = f"\0{path[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), path)
    except OSError as error:
        logger.warning("systemd cannot be told %r: %s", state, error)
        return False
    return True
