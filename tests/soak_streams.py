"""A soak of streams: millions of items, past a consumer that sleeps, in two processes.

Run it: python tests/soak_streams.py [--items NUMBER] [--streams NUMBER]     (Linux only)

The server sends numbers, on so many streams at once. The client takes a few, sleeps while the producers
would go on, and then takes the rest. It checks that

* while it sleeps, no producer sends more than the window, and neither process grows by more than that;
* each item comes once and in order, as the hash over all of them says;
* calls are answered meanwhile, and nothing is left of the streams in the end.

The exit status is 1 where something does not add up.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import sys
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from time import perf_counter

from proc import resident

from amp_asyncio import AMP, Command, StreamCommand, connect, serve

HOST = "127.0.0.1"
# What both windows of all streams may take, with what Python needs for it, and for everything else.
GROWTH = 24 * 1024 * 1024
# The fewest bytes that an item counts.
COST = 400


class Numbers(StreamCommand[int]):
    count: int


class Sent(Command[int], answer="count"):
    """How many items the producers have sent so far."""


class Memory(Command[int], answer="bytes"):
    """How much memory the server takes."""


class Server(AMP):
    sent = 0

    @Numbers.responder
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
            self.sent += 1

    @Sent.responder
    def how_many(self) -> int:
        return self.sent

    @Memory.responder
    def memory(self) -> int:
        return resident()


async def server(pipe: Connection) -> None:
    async with serve(Server, HOST, 0) as serving:
        pipe.send(serving.address)
        await asyncio.Event().wait()


def check(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"wrong: {what}")


async def client(address: tuple[str, int], items: int, streams: int) -> None:
    expected = hashlib.sha256()
    for number in range(items):
        expected.update(b"%d," % number)

    async with connect(address) as amp:
        before = resident(), await amp.call(Memory())
        awake = asyncio.Event()

        async def take() -> None:
            digest = hashlib.sha256()
            count = 0
            async with amp.stream(Numbers(count=items)) as numbers:
                async for number in numbers:
                    digest.update(b"%d," % number)
                    count += 1
                    if count == 1:
                        await awake.wait()
                await numbers.answer()
            check(count == items, f"{count} of {items} items have come")
            check(digest.digest() == expected.digest(), "the items are others, or in another order")

        taking = [asyncio.ensure_future(take()) for _ in range(streams)]
        sent = -1
        while sent != (sent := await amp.call(Sent())):
            await asyncio.sleep(0.2)
        window = streams * (amp.limits.stream_window // COST + 2)
        check(0 < sent <= window, f"{sent} items were sent to sleepers; {window} are in the windows")
        grown = resident() - before[0], await amp.call(Memory()) - before[1]
        check(max(grown) < GROWTH, f"the client grew by {grown[0]} bytes, the server by {grown[1]}")
        print(f"{sent} items were sent to sleepers; memory grew by {grown[0]} and {grown[1]} bytes")

        began = perf_counter()
        awake.set()
        while not all(task.done() for task in taking):
            await asyncio.wait_for(amp.call(Sent()), 30)
            await asyncio.sleep(0.1)
        await asyncio.gather(*taking)
        seconds = perf_counter() - began
        check(await amp.call(Sent()) == streams * items, "the server has sent another number of items")
        grown = resident() - before[0], await amp.call(Memory()) - before[1]
        check(max(grown) < GROWTH, f"the client grew by {grown[0]} bytes, the server by {grown[1]}")
        print(
            f"{streams * items} items, {streams * items / seconds:,.0f} a second; all of them, in order"
        )


def serve_in_process(pipe: Connection) -> None:
    asyncio.run(server(pipe))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=2_500_000)
    parser.add_argument("--streams", type=int, default=4)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    serving = context.Process(target=serve_in_process, args=(theirs,), daemon=True)
    serving.start()
    try:
        asyncio.run(client(ours.recv(), options.items, options.streams))
    finally:
        serving.kill()
        serving.join()


if __name__ == "__main__":
    main()
