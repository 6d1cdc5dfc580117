"""A client that asks `ampserver.py` for a sum and for a division by zero.

It also works with the `ampserver.py` of Twisted's documentation. It sends both questions over one
connection before either is answered.

Run it: python examples/ampclient.py [PORT]        (while the server runs)
"""

import asyncio
import math
import sys

from ampserver import HOST, PORT, Divide, Sum

from amp_asyncio import connect


async def main(port: int = PORT) -> None:
    async with connect(HOST, port) as amp:
        summed = amp.callRemote(Sum, a=13, b=81)
        divided = amp.callRemote(Divide, numerator=1234, denominator=0)

        print("13 + 81 =", (await summed)["total"])
        try:
            quotient = (await divided)["result"]
        except ZeroDivisionError as error:
            print("The server could not divide:", error)
            quotient = math.inf
        print("1234 / 0 =", quotient)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
