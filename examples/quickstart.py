"""A first look at AMP: a server and a client in one process, which ask each other.

It shows commands with typed arguments, an error that arrives as the same exception class, and a
question in each direction over one connection.

Run it: python examples/quickstart.py
"""

import asyncio

from amp_asyncio import AMP, Command, Float, Integer, Unicode, connect, serve


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Divide(Command):
    arguments = [(b"numerator", Integer()), (b"denominator", Integer())]
    response = [(b"result", Float())]
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}


class Greet(Command):
    response = [(b"greeting", Unicode())]


class AskName(Command):
    response = [(b"name", Unicode())]


class ServerSide(AMP):
    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Divide.responder
    def divide(self, numerator: int, denominator: int) -> dict[str, float]:
        return {"result": numerator / denominator}

    @Greet.responder
    async def greet(self) -> dict[str, str]:
        # The server does not know the name, so it asks its client before it answers.
        answer = await self.callRemote(AskName)
        return {"greeting": f"Hello, {answer['name']}!"}


class ClientSide(AMP):
    @AskName.responder
    async def name(self) -> dict[str, str]:
        return {"name": "Ada"}


async def main() -> None:
    async with serve(ServerSide, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with connect(host, port, ClientSide) as client:
            answer = await client.callRemote(Sum, a=13, b=81)
            print("13 + 81 =", answer["total"])

            try:
                await client.callRemote(Divide, numerator=1, denominator=0)
            except ZeroDivisionError as error:
                print("1 / 0 failed:", error)

            answer = await client.callRemote(Greet)
            print("The server says:", answer["greeting"])


if __name__ == "__main__":
    asyncio.run(main())
