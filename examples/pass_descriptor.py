"""Descriptors: a program opens a port, and passes the listening socket to a worker process.

The worker is started with the path of a UNIX socket only. It connects, says that it is ready, and
receives the descriptor of the listening socket. From then on, the worker accepts the connections. A
worker can serve a port below 1024 in this way without having the permission to open it.

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
    """Accept `count` connections on a listening socket, and send a greeting to each."""

    arguments = [(b"listener", Descriptor()), (b"count", Integer()), (b"greeting", Unicode())]
    response = [(b"pid", Integer())]


class Ready(Command):
    """The worker is ready for work."""


class Worker(AMP):
    """The side that runs in the worker process."""

    @Listen.responder
    async def listen(self, listener: int, count: int, greeting: str) -> dict[str, int]:
        loop = asyncio.get_running_loop()
        # The receiver must close the descriptor; the socket does.
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
    """The side that runs in this process, one for each worker."""

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
            # Our socket is closed now; the worker's is still open.
            for number in (1, 2):
                print(f"connection {number}: {await read_greeting(port)}")
            answer = await working
            print("served by", "the worker" if answer["pid"] == process.pid else "another process")
        await process.wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]) if sys.argv[1:] else main())
