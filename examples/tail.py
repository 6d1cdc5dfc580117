"""Following a file: a server sends each line that is added to a log, as long as the client wants.

The responder is an async generator. When the client leaves, the generator is closed, and its `finally`
runs. A client that is slow stops it: the lines stay in the file until they are wanted.

Run it:
    python examples/tail.py                    a server and a client in one process
    python examples/tail.py serve FOLDER       serves the files in a folder
    python examples/tail.py follow NAME [PORT] shows the lines of a file, and those that are added
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen

from amp_asyncio import AMP, StreamCommand, connect, serve

HOST = "127.0.0.1"
PORT = 1236


@frozen
class Line:
    number: int
    text: str


class Tail(StreamCommand[Line]):
    name: str
    follow: bool = True
    errors = {FileNotFoundError: b"NOT_FOUND"}


class Logs(AMP):
    """Serves the files in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @Tail.responder
    async def tail(self, name: str, follow: bool = True) -> AsyncIterator[Line]:
        if Path(name).name != name or not (self.folder / name).is_file():
            raise FileNotFoundError(f"no such file: {name}")
        number = 0
        with (self.folder / name).open() as file:
            try:
                while True:
                    text = file.readline()
                    if text:
                        number += 1
                        yield Line(number=number, text=text.rstrip("\n"))
                    elif follow:
                        await asyncio.sleep(0.05)
                    else:
                        return
            finally:
                print(f"server: {name} is closed after {number} lines")


async def demonstrate() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "today"
        log.write_text("start\nfirst\n")
        async with serve(lambda: Logs(folder), HOST, 0) as server, connect(server) as peer:
            async with peer.stream(Tail(name="today", follow=False)) as lines:
                print("client:", [line.text async for line in lines])
            async with peer.stream(Tail(name="today")) as lines:
                async for line in lines:
                    print(f"client: {line.number} {line.text}")
                    if line.text == "first":
                        with log.open("a") as more:
                            more.write("second\n")
                    elif line.text == "second":
                        break
            try:
                async with peer.stream(Tail(name="yesterday")) as lines:
                    await anext(lines)
            except FileNotFoundError as error:
                print("client:", error)


async def open_folder(name: str) -> None:
    folder = Path(name)
    async with serve(lambda: Logs(folder), HOST, PORT) as server:
        print("serving", folder, "at", server.address)
        await server.serve_forever()


async def follow(name: str, port: int = PORT) -> None:
    async with connect(HOST, port) as peer, peer.stream(Tail(name=name)) as lines:
        async for line in lines:
            print(f"{line.number:6} {line.text}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        match sys.argv[1:]:
            case []:
                asyncio.run(demonstrate())
            case ["serve", folder]:
                asyncio.run(open_folder(folder))
            case ["follow", name, *port]:
                asyncio.run(follow(name, *map(int, port)))
            case _:
                sys.exit(__doc__)
