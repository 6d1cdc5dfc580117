"""A peer in a process of its own, for `test_keepalive.py`.

python keepalive_peer.py PORT ROLE LIMITS

It connects to PORT, with the limits given as JSON, and begins when it is notified. ROLE is "waits" for
a call that is answered late, "asks" for many such calls at once, or "reads slowly".
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time

from support import Patient, Sum, Wait

from amp_asyncio import Command, Float, Limits, String, connect


class Block(Command):
    """Blocks the event loop for some seconds."""

    arguments = [(b"seconds", Float())]


class Swallow(Command):
    """Is not answered with anything."""

    arguments = [(b"data", String())]
    requiresAnswer = False


class Peer(Patient):
    swallowed = 0

    @Block.responder
    def block(self, seconds: float) -> None:
        time.sleep(seconds)

    @Swallow.responder
    def swallow(self, data: bytes) -> None:
        self.swallowed += len(data)

    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": self.swallowed + a + b}


class Slow(Peer):
    """Takes a few thousand bytes in some milliseconds."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        transport = self.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        asyncio.get_running_loop().call_later(0.005, transport.resume_reading)


async def main(port: str, role: str, limits: str) -> None:
    sock = socket.socket()
    if role == "reads slowly":
        # What its kernel takes for it is not taken by itself.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", int(port)))
    sock.setblocking(False)
    made = Slow if role == "reads slowly" else Peer
    async with connect(None, None, made, sock=sock, limits=Limits(**json.loads(limits))) as amp:
        await amp.notified.get()
        if role == "waits":
            await amp.callRemote(Wait, name="x")
        if role == "asks":
            await asyncio.gather(*(amp.callRemote(Wait, name="x") for _ in range(20)))
            await amp.callRemote(Wait, name="all")
        await amp.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
