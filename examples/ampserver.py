"""A server that adds and divides. `ampclient.py` is its client.

The commands and the port are those of the `ampserver.py` in Twisted's documentation. Each of the
two servers works with the client of the other.

Run it: python examples/ampserver.py [PORT]

On Ctrl-C or SIGTERM it accepts no new connections, answers the open questions, and exits.
"""

import asyncio
import signal
import sys

from amp_asyncio import AMP, Command, Float, Integer, serve

HOST = "127.0.0.1"
PORT = 1234


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Divide(Command):
    arguments = [(b"numerator", Integer()), (b"denominator", Integer())]
    response = [(b"result", Float())]
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}


class Math(AMP):
    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        total = a + b
        print(f"{a} + {b} = {total}")
        return {"total": total}

    @Divide.responder
    async def divide(self, numerator: int, denominator: int) -> dict[str, float]:
        print(f"{numerator} / {denominator} requested")
        return {"result": numerator / denominator}


async def main(port: int = PORT) -> None:
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    async with serve(Math, HOST, port) as server:
        host, port = server.sockets[0].getsockname()
        print(f"listening on {host}, port {port}")
        await end.wait()
        print("no new connections; finishing open requests")
    print("closed")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
