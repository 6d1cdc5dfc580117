"""A pool of workers: child processes count primes, one process for each core.

Each child counts in some ranges of numbers, and reports its progress. This program is the parent; with
the argument `worker` it is a child. If a child dies, the count fails. All children have ended when the
parent ends.

Run it: python examples/worker_pool.py
"""

import asyncio
import os
import sys
from math import isqrt

from amp_asyncio import AMP, Client, Command, Integer, children, stdio

LIMIT = 200_000
RANGE = 10_000
STEP = 1_000


class CountPrimes(Command):
    arguments = [(b"start", Integer()), (b"stop", Integer())]
    response = [(b"count", Integer())]


class Progress(Command):
    """Tells the parent how many more numbers have been checked."""

    arguments = [(b"numbers", Integer())]


# --- the child ---


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


class Worker(AMP):
    @CountPrimes.responder
    async def count_primes(self, start: int, stop: int) -> dict[str, int]:
        count = 0
        for first in range(start, stop, STEP):
            numbers = range(first, min(first + STEP, stop))
            count += sum(map(is_prime, numbers))
            # The event loop runs between two steps. This call fails if the parent is gone.
            await self.callRemote(Progress, numbers=len(numbers))
        return {"count": count}


async def work() -> None:
    async with stdio(Worker) as amp:
        await amp.wait_closed()


# --- the parent ---


class Count:
    """How many numbers the workers have checked so far."""

    def __init__(self) -> None:
        self.numbers = 0

    def add_numbers(self, numbers: int) -> None:
        before = 4 * self.numbers // LIMIT
        self.numbers += numbers
        for quarter in range(before + 1, 4 * self.numbers // LIMIT + 1):
            print(f"{25 * quarter} % done")


class Employer(AMP):
    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    @Progress.responder
    def progress(self, numbers: int) -> dict[str, int]:
        self.count.add_numbers(numbers)
        return {}


async def main() -> None:
    count = Count()
    pool = children(
        sys.executable,
        __file__,
        "worker",
        count=os.cpu_count() or 1,
        start_new_session=True,  # Ctrl-C reaches the parent only, which then closes its children.
    )
    # Each call goes to the child with the fewest open questions.
    async with Client(pool, lambda: Employer(count)) as client:
        answers = await asyncio.gather(
            *(
                client.callRemote(CountPrimes, start=start, stop=min(start + RANGE, LIMIT))
                for start in range(0, LIMIT, RANGE)
            )
        )
    primes = sum(answer["count"] for answer in answers)
    print(f"{primes} primes below {LIMIT}")


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1:] == ["worker"] else main())
