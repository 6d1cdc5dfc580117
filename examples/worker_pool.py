"""A pool of workers: child processes count primes, one process for each core.

Each child takes one range at a time and reports its progress. This program is the parent; with the
argument `worker` it is a child. If a child dies, the count fails. All children have ended when the
parent ends.

Run it: python examples/worker_pool.py
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from math import isqrt

from amp_asyncio import AMP, Command, Integer, spawn, stdio

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
    """What the workers have found so far."""

    def __init__(self) -> None:
        self.primes = 0
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


async def employ(starts: Iterator[int], count: Count) -> None:
    """Start a worker, and give it ranges until all are taken."""
    async with spawn(
        sys.executable,
        __file__,
        "worker",
        protocol_factory=lambda: Employer(count),
        start_new_session=True,  # Ctrl-C reaches the parent only, which then closes its children.
    ) as child:
        for start in starts:
            stop = min(start + RANGE, LIMIT)
            answer = await child.amp.callRemote(CountPrimes, start=start, stop=stop)
            count.primes += answer["count"]


async def main() -> None:
    count = Count()
    starts = iter(range(0, LIMIT, RANGE))  # The workers share it: each takes the next range.
    async with asyncio.TaskGroup() as workers:
        for _ in range(os.cpu_count() or 1):
            workers.create_task(employ(starts, count))
    print(f"{count.primes} primes below {LIMIT}")


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1:] == ["worker"] else main())
