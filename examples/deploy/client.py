"""A client that asks the service all the time, and says what becomes of its calls.

Run it: python examples/deploy/client.py 127.0.0.1:7000
"""

import asyncio
import logging
import sys

from bookings import Book, FreeRooms

from amp_asyncio import AMP, Client, ClientState


def say(state: ClientState) -> None:
    print("the client is", state.value)


async def main(address: str, calls: int) -> None:
    client: Client[AMP]
    async with Client(address, connections=3, on_state=say) as client:
        for number in range(1, calls + 1):
            rooms = await client.call(FreeRooms(night="friday"), timeout=10)
            booked = await client.call(Book(night="friday", guest=f"guest {number}"), timeout=10)
            print(f"{number}: {rooms} rooms are free, and room {booked} is booked")
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="client: %(message)s")
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000))
