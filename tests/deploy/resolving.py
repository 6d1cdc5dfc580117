"""Clients in a process whose DNS server the test has: `test_engines.py` starts it.

What a client is given is in the arguments. For each line that it reads, it asks as many questions as
the line says, and prints how many connections there are to each address.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

from bookings import FreeRooms

from amp_asyncio import AMP, Client, srv


async def main(kind: str, name: str, connections: int, refresh: float) -> None:
    target = srv(name) if kind == "srv" else name
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    client: Client[AMP]
    async with Client(target, connections=connections, refresh=refresh) as client:
        while line := await reader.readline():
            if calls := int(line):
                await asyncio.gather(*(client.call(FreeRooms(night="x")) for _ in range(calls)))
            hosts = Counter(amp.peer.address[0] for amp in client.connections)
            print(json.dumps(hosts), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
