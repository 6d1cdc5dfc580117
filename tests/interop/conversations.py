"""The Twisted process, the connections to it, and how a test has either side play a scenario."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from amp_asyncio import connect, serve, unix_connect, unix_serve

from . import scenarios
from .definitions import Peer

# A net for what would otherwise hang; nothing here takes as long.
SECONDS = 60.0


class TwistedProcess:
    """The program `twisted_peer`, which carries out one order at a time."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "twisted"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "interop.twisted_peer", str(self.path)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "AMP_LIBRARY": "twisted"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.port: int = self._read()["port"]

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the Twisted process ended; what it said of that is in its stderr"
        event: dict[str, Any] = json.loads(line)
        return event

    async def order(self, *order: Any) -> Any:
        """Have an order carried out, and return the result.

        Where none comes, or nobody waits for it any more, the process is of no use, and is killed.
        """
        assert self.process.stdin is not None
        try:
            async with asyncio.timeout(SECONDS):
                self.process.stdin.write(json.dumps(order).encode() + b"\n")
                self.process.stdin.flush()
                event = await asyncio.to_thread(self._read)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        assert "failure" not in event, event["failure"]
        return event["result"]

    def close(self) -> None:
        """End the process by ending its stdin, and wait until it is gone."""
        try:
            self.process.communicate(timeout=SECONDS)
        finally:
            self.process.kill()


class OurPeer(Peer):
    """Our side of a connection, which says when it is connected."""

    def __init__(self, connected: asyncio.Queue[Any]) -> None:
        super().__init__()
        self.connected = connected

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.connected.put_nowait(self)


class Conversation:
    """A connection between us and Twisted; the `server` is "ours" or "twisted"."""

    def __init__(self, peer: Any, twisted: TwistedProcess, server: str) -> None:
        self.peer = peer
        self.twisted = twisted
        self.server = server

    async def play(self, asker: str, scenario: str, *arguments: Any) -> Any:
        """Have one side, "ours" or "twisted", play a scenario, and return the result."""
        if asker == "twisted":
            return await self.twisted.order("play", scenario, *arguments)
        async with asyncio.timeout(SECONDS):
            return await getattr(scenarios, scenario)(self.peer, *arguments)


@asynccontextmanager
async def conversing(
    twisted: TwistedProcess,
    transport: str,
    server: str,
    directory: Path,
    protocol: type[OurPeer] = OurPeer,
) -> AsyncIterator[Conversation]:
    """Connect with Twisted over "tcp" or "unix"; the server is "ours" or "twisted"."""
    connected: asyncio.Queue[OurPeer] = asyncio.Queue()

    def factory() -> OurPeer:
        return protocol(connected)

    path = directory / "ours"
    if server == "twisted":
        async with (
            connect("127.0.0.1", twisted.port, factory)
            if transport == "tcp"
            else unix_connect(twisted.path, factory)
        ):
            await twisted.order("accept")
            yield Conversation(await connected.get(), twisted, server)
    else:
        async with (
            serve(factory, "127.0.0.1", 0) if transport == "tcp" else unix_serve(factory, path)
        ) as serving:
            name = serving.sockets[0].getsockname()
            endpoint = f"tcp:127.0.0.1:{name[1]}" if transport == "tcp" else f"unix:{path}"
            await twisted.order("connect", endpoint)
            yield Conversation(await connected.get(), twisted, server)


def other(side: str) -> str:
    return "twisted" if side == "ours" else "ours"


on_unix_too = pytest.mark.parametrize(
    "conversation", ["tcp-ours", "tcp-twisted", "unix-ours", "unix-twisted"], indirect=True
)
