"""A child process that tests start, and that does to itself what they ask for.

It is run with the descriptors that it is to speak AMP over, the name of the loop, and, as an option,
what it starts before.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

from support import Math

from amp_asyncio import AMP, Command, Integer, ListOf, ProtocolSwitchCommand, Unicode, stdio

#: What is started, with the arguments.
WORKER = (sys.executable, __file__)


class Where(Command):
    response = [(b"pid", Integer()), (b"descriptors", Unicode())]


class WriteTo(Command):
    """Writes to these descriptors itself."""

    arguments = [(b"descriptors", ListOf(Integer()))]


class Say(Command):
    arguments = [(b"text", Unicode())]


class Exit(Command):
    arguments = [(b"status", Integer())]


class Hang(Command):
    """Is answered never; the responder says on standard error how it ended."""


class HangOn(Command):
    """The same, and it cannot be cancelled."""

    cancellable = False


class Ready(Command):
    """Asked of the parent by a worker that hangs."""


class CloseOutput(Command):
    """Closes the connection, and lives on."""


class Stubborn(Command):
    """Ignores SIGTERM, and the end of the connection, from then on."""


class Shout(ProtocolSwitchCommand):
    pass


class Shouting(asyncio.Protocol):
    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


class Worker(Math):
    stubborn = False
    inner: Shouting | None = None

    @Where.responder
    def where(self) -> dict[str, Any]:
        numbers = " ".join(sorted(os.listdir("/proc/self/fd"), key=int))
        return {"pid": os.getpid(), "descriptors": numbers}

    @WriteTo.responder
    def write_to(self, descriptors: list[int]) -> dict[str, Any]:
        for descriptor in descriptors:
            os.write(descriptor, b"not AMP at all\n")
        return {}

    @Say.responder
    def say(self, text: str) -> dict[str, Any]:
        print(text)
        os.write(1, b"out\n")
        subprocess.run(["echo", "echoed"], check=True)
        return {}

    @Exit.responder
    def exit(self, status: int) -> dict[str, Any]:
        os._exit(status)

    @HangOn.responder
    @Hang.responder
    async def hang(self) -> dict[str, Any]:
        await self.callRemote(Ready)
        await asyncio.Event().wait()
        return {}

    @CloseOutput.responder
    async def close_output(self) -> dict[str, Any]:
        self.stubborn = True
        assert self.transport is not None
        self.transport.close()
        return {}

    @Stubborn.responder
    def be_stubborn(self) -> dict[str, Any]:
        self.stubborn = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return {}

    @Shout.responder
    def shout(self) -> asyncio.Protocol:
        self.inner = Shouting()
        return self.inner


class Parent(AMP):
    """The side that asks it; `ready` is set when a worker hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Semaphore(0)

    @Ready.responder
    def is_ready(self) -> dict[str, Any]:
        self.ready.release()
        return {}


async def main(fds: str) -> None:
    first, second = map(int, fds.split(","))
    async with stdio(Worker, fds=(first, second)) as amp:
        await amp.wait_closed()
        if amp.stubborn:
            await asyncio.Event().wait()
        if amp.inner is not None:
            while not amp.inner.transport.is_closing():
                await asyncio.sleep(0.01)


if __name__ == "__main__":
    if sys.argv[2] == "uvloop":
        import uvloop

        uvloop.run(main(sys.argv[1]))
    else:
        asyncio.run(main(sys.argv[1]))
