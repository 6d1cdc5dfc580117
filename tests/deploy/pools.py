"""A pool of child processes that compute: killed while they do, and beside two other pools.

Run it: python tests/deploy/pools.py --calls 10000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from amp_asyncio import AMP, Client, Command, ConnectionLost, Integer, children, stdio

COUNT = 4

# What a call computes: about a millisecond.
SIZE = 10_000


class Squares(Command):
    arguments = [(b"size", Integer()), (b"seed", Integer())]
    response = [(b"sum", Integer()), (b"pid", Integer())]


class Repeatable(Squares):
    commandName = b"Squares"
    idempotent = True


def squares(size: int, seed: int) -> int:
    return sum(number * number for number in range(size)) + seed


class Worker(AMP):
    @Squares.responder
    def answer(self, size: int, seed: int) -> dict[str, int]:
        return {"sum": squares(size, seed), "pid": os.getpid()}


async def work() -> None:
    async with stdio(Worker) as amp:
        await amp.wait_closed()


def pool() -> Client[AMP]:
    return Client(children(sys.executable, __file__, "worker", count=COUNT))


async def ask_all(
    client: Client[AMP], calls: int, at_once: int, command: type[Squares] = Squares
) -> dict[str, Any]:
    """Ask so many questions, some at a time, and return what became of them."""
    right = squares(SIZE, 0)
    seeds = iter(range(calls))
    outcomes: dict[str, Any] = {"answered": 0, "failed": 0, "wrong": [], "pids": set()}

    async def asker() -> None:
        for seed in seeds:
            try:
                answer = await client.callRemote(command, size=SIZE, seed=seed)
            except ConnectionLost as error:
                outcomes["failed"] += 1
                if not error.sent:
                    outcomes["wrong"].append(repr(error))
            else:
                outcomes["answered"] += 1
                outcomes["pids"].add(answer["pid"])
                if answer["sum"] != right + seed:
                    outcomes["wrong"].append((seed, answer))

    begin = time.perf_counter()
    await asyncio.gather(*(asker() for _ in range(at_once)))
    outcomes["seconds"] = time.perf_counter() - begin
    return outcomes


async def killed(calls: int, at_once: int, period: float, command: type[Squares]) -> dict[str, Any]:
    """The same, while a child is killed in each `period`."""
    kills = 0
    async with pool() as client:
        await client.callRemote(Squares, size=1, seed=0)

        async def kill() -> None:
            nonlocal kills
            while True:
                amps = client.connections
                if amps:
                    # "process 4711"
                    pid = int(random.choice(amps).peer.address.split()[1])
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
                await asyncio.sleep(period)

        killing = asyncio.ensure_future(kill())
        outcomes = await ask_all(client, calls, at_once, command)
        killing.cancel()
    outcomes["kills"] = kills
    return outcomes


async def undisturbed(calls: int, at_once: int) -> float:
    """Return the calls per second of our pool."""
    async with pool() as client:
        await ask_all(client, 100, at_once)  # All children have started.
        outcomes = await ask_all(client, calls, at_once)
    assert outcomes["answered"] == calls
    return float(calls / outcomes["seconds"])


async def executor(calls: int, at_once: int) -> float:
    """Return the calls per second of a `ProcessPoolExecutor`."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(COUNT) as processes:
        seeds = iter(range(calls))

        async def asker() -> None:
            for seed in seeds:
                await loop.run_in_executor(processes, squares, SIZE, seed)

        await asyncio.gather(*(loop.run_in_executor(processes, squares, SIZE, 0) for _ in range(100)))
        begin = time.perf_counter()
        await asyncio.gather(*(asker() for _ in range(at_once)))
        return calls / (time.perf_counter() - begin)


AMPOULE_CHILD = """
from ampoule.child import AMPChild
from twisted.protocols import amp

class Squares(amp.Command):
    arguments = [(b"size", amp.Integer()), (b"seed", amp.Integer())]
    response = [(b"sum", amp.Integer())]

class Worker(AMPChild):
    @Squares.responder
    def answer(self, size, seed):
        return {"sum": sum(number * number for number in range(size)) + seed}
"""

AMPOULE = f"""
import json, sys, time
from ampoule.pool import ProcessPool
from twisted.internet import defer, task
import ampoule_child

@defer.inlineCallbacks
def main(reactor, calls, at_once):
    pool = ProcessPool(ampoule_child.Worker, min={COUNT}, max={COUNT}, recycleAfter=0)
    yield pool.start()
    seeds = iter(range(calls))

    @defer.inlineCallbacks
    def asker(seeds):
        for seed in seeds:
            yield pool.doWork(ampoule_child.Squares, size={SIZE}, seed=seed)

    warm = iter(range(100))
    yield defer.gatherResults([asker(warm) for _ in range(at_once)])
    begin = time.perf_counter()
    yield defer.gatherResults([asker(seeds) for _ in range(at_once)])
    print(json.dumps(calls / (time.perf_counter() - begin)))
    yield pool.stop()

task.react(lambda reactor: main(reactor, int(sys.argv[1]), int(sys.argv[2])))
"""


def ampoule(calls: int, at_once: int) -> float:
    """Return the calls per second of ampoule's pool."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "ampoule_child.py").write_text(AMPOULE_CHILD)
        done = subprocess.run(
            [sys.executable, "-c", AMPOULE, str(calls), str(at_once)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            stdout=subprocess.PIPE,
            check=True,
        )
    return float(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--period", type=float, default=1.0, help="seconds between two kills")
    options = parser.parse_args()
    logging.getLogger("amp_asyncio").setLevel(logging.CRITICAL)
    for name, command in (("as they are", Squares), ("idempotent", Repeatable)):
        found = asyncio.run(killed(options.calls, options.at_once, options.period, command))
        print(
            f"{options.calls} calls, {name}, one child killed every {options.period} s: "
            f"{found['answered']} answered, {found['failed']} failed, {len(found['wrong'])} wrong; "
            f"{found['kills']} kills, {len(found['pids'])} children, {found['seconds']:.1f} s"
        )
    print(f"calls/s, {options.at_once} at once, {COUNT} processes:")
    print(f"  amp_asyncio          {asyncio.run(undisturbed(options.calls, options.at_once)):8.0f}")
    print(f"  ProcessPoolExecutor  {asyncio.run(executor(options.calls, options.at_once)):8.0f}")
    print(f"  ampoule              {ampoule(options.calls, options.at_once):8.0f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        asyncio.run(work())
    else:
        main()
