"""A chat: a server that calls its clients.

Both sides of a connection can ask. A guest asks the room to pass a line on. The room asks every
other guest to show it, and returns how many did.

Run it:
    python examples/chat.py                      the room and three guests in one process
    python examples/chat.py serve [PORT]         the room; Ctrl-C closes it
    python examples/chat.py join NAME [PORT]     a guest at the terminal; Ctrl-D leaves
"""

import asyncio
import sys
from contextlib import closing, suppress

from amp_asyncio import (
    AMP,
    AmpError,
    Command,
    ConnectionLost,
    Integer,
    ListOf,
    Unicode,
    connect,
    serve,
)

HOST = "127.0.0.1"
PORT = 1235


class NameTaken(Exception):
    pass


class NotInRoom(Exception):
    pass


class Join(Command):
    """A guest joins the room. The answer lists the guests who are present."""

    arguments = [(b"name", Unicode())]
    response = [(b"present", ListOf(Unicode()))]
    errors = {NameTaken: b"NAME_TAKEN"}


class Say(Command):
    """A guest sends a line to all other guests."""

    arguments = [(b"text", Unicode())]
    response = [(b"heard_by", Integer())]
    errors = {NotInRoom: b"NOT_IN_ROOM"}


class Show(Command):
    """The room asks a guest to show a line."""

    arguments = [(b"line", Unicode())]


class Member(AMP):
    """The room's side of the connection to one guest. All connections share `room`."""

    name: str | None = None

    def __init__(self, room: "dict[str, Member]") -> None:
        super().__init__()
        self.room = room

    @Join.responder
    async def join(self, name: str) -> dict[str, list[str]]:
        if name in self.room:
            raise NameTaken(f"{name} is here already")
        self.leave()
        present = sorted(self.room)
        self.name = name
        self.room[name] = self
        await self.tell_others(f"* {name} came in")
        return {"present": present}

    @Say.responder
    async def say(self, text: str) -> dict[str, int]:
        if self.name is None:
            raise NotInRoom("join first")
        return {"heard_by": await self.tell_others(f"{self.name}: {text}")}

    async def tell_others(self, line: str) -> int:
        """Show a line to all other guests concurrently, and return how many of them showed it."""
        others = [member for member in self.room.values() if member is not self]
        return sum(await asyncio.gather(*(member.show(line) for member in others)))

    async def show(self, line: str) -> bool:
        """Show a line to this guest. Return False if the guest has left, or does not answer in time."""
        try:
            async with asyncio.timeout(5):
                await self.callRemote(Show, line=line)
        except (AmpError, TimeoutError):
            return False
        return True

    def leave(self) -> None:
        if self.name is not None:
            del self.room[self.name]
            self.name = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()


class Guest(AMP):
    """A guest's side. `screen` is a prefix for each line that is shown."""

    def __init__(self, screen: str = "") -> None:
        super().__init__()
        self.screen = screen

    @Show.responder
    def show(self, line: str) -> dict[str, str]:
        print(f"{self.screen}{line}")
        return {}


async def demonstrate() -> None:
    room: dict[str, Member] = {}
    async with serve(lambda: Member(room), HOST, 0) as server:
        host, port = server.sockets[0].getsockname()
        async with (
            connect(host, port, lambda: Guest("Ada sees    | ")) as ada,
            connect(host, port, lambda: Guest("Grace sees  | ")) as grace,
        ):
            await ada.callRemote(Join, name="Ada")
            await grace.callRemote(Join, name="Grace")
            await grace.callRemote(Say, text="Good morning!")

            async with connect(host, port, lambda: Guest("Edsger sees | ")) as edsger:
                try:
                    await edsger.callRemote(Join, name="Ada")
                except NameTaken as error:
                    print("Edsger cannot be Ada:", error)
                answer = await edsger.callRemote(Join, name="Edsger")
                print("Edsger finds", " and ".join(answer["present"]))
                answer = await edsger.callRemote(Say, text="Hello, both.")
                print("Edsger was heard by", answer["heard_by"])

            answer = await ada.callRemote(Say, text="Is he gone?")
            print("Ada was heard by", answer["heard_by"])


async def open_room(port: int = PORT) -> None:
    room: dict[str, Member] = {}
    async with serve(lambda: Member(room), HOST, port) as server:
        host, port = server.sockets[0].getsockname()
        print(f"the room is open on {host}, port {port}")
        await server.serve_forever()


async def visit(name: str, port: int = PORT) -> None:
    async with connect(HOST, port, Guest) as guest:
        try:
            answer = await guest.callRemote(Join, name=name)
        except NameTaken as error:
            sys.exit(f"cannot join: {error}")
        print("* here:", ", ".join(answer["present"]) or "no other guests")
        talking = asyncio.create_task(talk(guest))
        closed = asyncio.create_task(guest.wait_closed())
        await asyncio.wait([talking, closed], return_when=asyncio.FIRST_COMPLETED)


async def talk(guest: Guest) -> None:
    """Send each line that is typed."""
    typed = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    terminal, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(typed), sys.stdin)
    with closing(terminal), suppress(ConnectionLost):
        async for line in typed:
            await guest.callRemote(Say, text=line.decode().rstrip("\n"))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        match sys.argv[1:]:
            case []:
                asyncio.run(demonstrate())
            case ["serve", *port]:
                asyncio.run(open_room(*map(int, port)))
            case ["join", name, *port]:
                asyncio.run(visit(name, *map(int, port)))
            case _:
                sys.exit(__doc__)
