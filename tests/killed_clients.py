"""A process with many clients of a server, all of which ask and wait; it is killed in a test.

    python killed_clients.py NUMBER tcp|tls HOST PORT
    python killed_clients.py NUMBER unix PATH

It prints a line when all are connected and have asked.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

from support import Wait

from amp_asyncio import connect, unix_connect


async def main(number: int, way: str, *where: str) -> None:
    clients: list[Any] = []
    trusting: ssl.SSLContext | None = None
    if way == "tls":
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
    for _ in range(number):
        if way == "unix":
            clients.append(await unix_connect(where[0]))
        else:
            clients.append(await connect(where[0], int(where[1]), ssl=trusting))
    answers = [client.callRemote(Wait, name="x") for client in clients]
    print("ready", flush=True)
    await asyncio.gather(*answers)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
