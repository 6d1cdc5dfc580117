"""A first look at AMP: a server and a client in one process, which ask each other.

It shows typed commands, an error that arrives as the same exception class, and a question in each
direction over one connection.

Run it: python examples/quickstart.py
"""

import asyncio

from attrs import frozen

from amp_asyncio import AMP, Command, connect, serve


@frozen
class Total:
    total: int


class Sum(Command[Total]):
    a: int
    b: int = 0


class Divide(Command[float], answer="result"):
    numerator: int
    denominator: int
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}


class Greet(Command[str], answer="greeting"):
    pass


class AskName(Command[str], answer="name"):
    pass


class ServerSide(AMP):
    @Sum.responder
    async def sum(self, a: int, b: int = 0) -> Total:
        return Total(total=a + b)

    @Divide.responder
    def divide(self, numerator: int, denominator: int) -> float:
        return numerator / denominator

    @Greet.responder
    async def greet(self) -> str:
        # The server does not know the name, so it asks its client before it answers.
        name = await self.call(AskName())
        return f"Hello, {name}!"


class ClientSide(AMP):
    @AskName.responder
    async def name(self) -> str:
        return "Ada"


async def main() -> None:
    async with serve(ServerSide, "127.0.0.1", 0) as server, connect(server, ClientSide) as client:
        answer = await client.call(Sum(a=13, b=81))
        print("13 + 81 =", answer.total)

        try:
            await client.call(Divide(numerator=1, denominator=0))
        except ZeroDivisionError as error:
            print("1 / 0 failed:", error)

        print("The server says:", await client.call(Greet()))


if __name__ == "__main__":
    asyncio.run(main())
