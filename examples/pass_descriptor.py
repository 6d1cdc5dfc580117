"""Descriptors: a program opens a port, and hands the listening socket to a process that serves it.

The worker is another process, which has nothing of ours but the path of a UNIX socket. It asks for
work, and gets a descriptor: the very socket that we have opened, as it would for a port below 1024 if
it had no right to open that itself. From then on it accepts connections, and we do not.

Run it: python examples/pass_descriptor.py
"""

import asyncio
import os
import socket
import sys
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from tempfile import TemporaryDirectory

from amp_asyncio import AMP, Command, Descriptor, Integer, Unicode, unix_connect, unix_serve


class Listen(Command):
    """Accept so many connections on a listening socket, and greet them."""

    arguments = [(b"listener", Descriptor()), (b"count", Integer()), (b"greeting", Unicode())]
    response = [(b"pid", Integer())]


class Ready(Command):
    """The worker has nothing to do."""


class Worker(AMP):
    """What runs in the other process."""

    @Listen.responder
    async def listen(self, listener: int, count: int, greeting: str) -> dict[str, int]:
        loop = asyncio.get_running_loop()
        # The descriptor is ours to close, and the socket does.
        with socket.socket(fileno=listener) as listening:
            listening.setblocking(False)
            for _ in range(count):
                connection, _ = await loop.sock_accept(listening)
                with connection:
                    await loop.sock_sendall(connection, greeting.encode())
        return {"pid": os.getpid()}


async def work(path: str) -> None:
    async with unix_connect(path, Worker) as worker:
        await worker.callRemote(Ready)
        await worker.wait_closed()


class Foreman(AMP):
    """Our end of the connection to a worker."""

    def __init__(self, ready: "asyncio.Queue[Foreman]") -> None:
        super().__init__()
        self.ready = ready

    @Ready.responder
    def worker_is_ready(self) -> None:
        self.ready.put_nowait(self)


async def read_greeting(port: int) -> str:
    reader: StreamReader
    writer: StreamWriter
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    greeting = await reader.read()
    writer.close()
    await writer.wait_closed()
    return greeting.decode()


async def main() -> None:
    ready: asyncio.Queue[Foreman] = asyncio.Queue()
    with TemporaryDirectory() as directory:
        path = Path(directory, "foreman")
        async with unix_serve(lambda: Foreman(ready), path):
            process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(path))
            worker = await ready.get()

            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
                working = worker.callRemote(Listen, listener=listener, count=2, greeting="Hello!")
            # Ours is closed; the worker's is not.
            for number in (1, 2):
                print(f"connection {number}: {await read_greeting(port)}")
            answer = await working
            print("served by", "the worker" if answer["pid"] == process.pid else "somebody else")
        await process.wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]) if sys.argv[1:] else main())
