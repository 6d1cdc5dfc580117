"""A chat over one stream for each guest, in both directions at once.

What a guest writes goes to the room, and what the others write comes back, on the same stream. The
guest is in the room as long as the stream is open. A guest that does not read stops only whoever waits
for it: the room drops lines for guests that are far behind.

Run it: python examples/chat_stream.py
"""

import asyncio
from contextlib import suppress

from attrs import frozen

from amp_asyncio import AMP, Stream, StreamCommand, connect, serve

HOST = "127.0.0.1"
BEHIND = 100


class NameTaken(Exception):
    pass


@frozen
class Said:
    who: str
    text: str


class Chat(StreamCommand[Said, str]):
    """A guest sends texts, and gets what the others have said."""

    name: str
    errors = {NameTaken: b"NAME_TAKEN"}


class Room:
    def __init__(self) -> None:
        self.guests: dict[str, asyncio.Queue[Said]] = {}

    def tell_others(self, name: str, said: Said) -> None:
        for other, lines in self.guests.items():
            if other != name:
                with suppress(asyncio.QueueFull):
                    lines.put_nowait(said)


class Member(AMP):
    """The room's side of the connection to one guest."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self.room = room

    @Chat.responder
    async def chat(self, stream: Stream[str, Said], name: str) -> None:
        room = self.room
        if name in room.guests:
            raise NameTaken(f"{name} is here already")
        lines = room.guests[name] = asyncio.Queue(BEHIND)

        async def show() -> None:
            while True:
                await stream.send(await lines.get())

        showing = asyncio.create_task(show())
        try:
            room.tell_others(name, Said(who="*", text=f"{name} came in"))
            async for text in stream:
                room.tell_others(name, Said(who=name, text=text))
        finally:
            showing.cancel()
            del room.guests[name]
            room.tell_others(name, Said(who="*", text=f"{name} has left"))


async def main() -> None:
    room = Room()
    async with (
        serve(lambda: Member(room), HOST, 0) as server,
        connect(server) as ada,
        connect(server) as grace,
        ada.stream(Chat(name="Ada")) as hers,
    ):
        async with grace.stream(Chat(name="Grace")) as theirs:
            print("Ada sees  ", await anext(hers))
            await theirs.send("Good morning!")
            print("Ada sees  ", await anext(hers))
            await hers.send("Good morning, Grace.")
            print("Grace sees", await anext(theirs))
            try:
                async with grace.stream(Chat(name="Ada")) as other:
                    await anext(other)
            except NameTaken as error:
                print("Grace cannot be Ada:", error)
        print("Ada sees  ", await anext(hers))
        await hers.finish()
        await hers.answer()


if __name__ == "__main__":
    asyncio.run(main())
