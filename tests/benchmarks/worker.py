"""One process of a benchmark: the server or the client of a peer, told what to do line by line.

    python tests/benchmarks/worker.py PEER LOOP PEM

`run.py` starts it and keeps it for all rounds. Each line on standard input is a JSON object with the
name of a method of `Worker` under "do", and its arguments; each is answered by a line on standard
output. The process ends when its input does. What is measured is measured in here, around the calls
alone: neither starting, nor connecting, nor being told what to do is part of a sample.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from contextlib import closing
from math import ceil
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import peers
from pace import Pace


class Worker:
    def __init__(self, peer: peers.Peer) -> None:
        self.peer = peer
        self.pools: dict[tuple[int, str], list[peers.Connection]] = {}

    async def work(self) -> None:
        while line := await self.peer.in_thread(sys.stdin.readline):
            order = json.loads(line)
            print(json.dumps(await getattr(self, order.pop("do"))(**order)), flush=True)
        # Thousands of connections may be open: the kernel closes them quickest.
        os._exit(0)

    # --- either side ---

    async def usage(self, collect: bool = False) -> dict[str, float]:
        """Return the CPU seconds of all threads so far, and the resident bytes."""
        if collect:
            gc.collect()
        return {"cpu": process_time(), "memory": resident()}

    # --- the server ---

    async def serve(self, what: str, tls: bool) -> int:
        return await self.peer.serve(what, tls)

    # --- the client ---

    async def calls(
        self,
        port: int,
        what: str,
        tls: bool,
        count: int,
        connections: int = 1,
        callers: int = 1,
        pool: str = "",
    ) -> dict[str, float]:
        """Make `count` calls, by so many callers on so many connections, which are kept for later.

        Callers share the count: whoever is quick asks more often, and all are busy until the end.
        """
        opened = await self.opened(port, what, tls, connections, pool)
        asks = [opened[n % connections].ask for n in range(callers)]
        turns = iter(range(count))
        spent, start = process_time(), perf_counter()
        await self.peer.ask_all(asks, turns)
        return {"seconds": perf_counter() - start, "cpu": process_time() - spent}

    async def stream(self, port: int, what: str, tls: bool, count: int) -> dict[str, float]:
        """Take so many items of one stream."""
        (connection,) = await self.opened(port, what, tls)
        spent, start = process_time(), perf_counter()
        await connection.ask(count)
        return {"seconds": perf_counter() - start, "cpu": process_time() - spent}

    async def paced(self, port: int, what: str, tls: bool, rate: int, count: int) -> dict[str, Any]:
        """Make so many calls by the clock, whatever becomes of them; return percentiles in ms.

        The time of each counts from when it was due, so a peer that is late is late in all of them.
        There are no percentiles if it did not keep up.
        """
        (connection,) = await self.opened(port, what, tls)
        start = perf_counter()
        with closing(Pace(rate, count)) as pace:
            await self.peer.ask_paced(connection.ask, pace)
        seconds = perf_counter() - start
        latencies = sorted(pace.latencies)
        ranks = [ceil(len(latencies) * share) - 1 for share in (0.5, 0.99, 0.999)]
        percentiles = [latencies[rank] * 1e3 for rank in ranks] if latencies else []
        return {"seconds": seconds, "percentiles": percentiles}

    async def hold(self, port: int, count: int) -> None:
        """Open so many questions, on the connection of `calls`, that stay open until `release`."""
        connection = self.pools[port, ""][0]
        assert connection.hold is not None
        self.held = [self.peer.begin(connection.hold()) for _ in range(count)]
        await connection.ask()

    async def release(self, port: int) -> None:
        connection = self.pools[port, ""][0]
        assert connection.release is not None
        await connection.release()
        for question in self.held:
            await question

    async def openings(
        self, port: int, what: str, tls: bool, count: int, callers: int
    ) -> dict[str, float]:
        """Open a connection, make a call and close it, `count` times, by so many callers."""
        turns = iter(range(count))

        async def caller() -> None:
            for _ in turns:
                connection = await self.peer.connect(port, what, tls)
                await connection.ask()
                await connection.close()

        spent, start = process_time(), perf_counter()
        await self.peer.gather([caller() for _ in range(callers)])
        return {"seconds": perf_counter() - start, "cpu": process_time() - spent}

    async def idle(self, port: int, count: int) -> int:
        """Open so many connections, make a call on each, and keep them."""
        opened = self.pools.setdefault((port, "idle"), [])
        turns = iter(range(count))

        async def caller() -> None:
            opened.extend([await self.connect(port, "sum", False) for _ in turns])

        await self.peer.gather([caller() for _ in range(50)])
        return len(opened)

    async def opened(
        self, port: int, what: str, tls: bool, count: int = 1, pool: str = ""
    ) -> list[peers.Connection]:
        """Return so many connections that are kept; they have been used."""
        opened = self.pools.setdefault((port, pool), [])
        while len(opened) < count:
            opened.append(await self.connect(port, what, tls))
        return opened[:count]

    async def connect(self, port: int, what: str, tls: bool) -> peers.Connection:
        connection = await self.peer.connect(port, what, tls)
        await connection.ask()
        return connection


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    _, kind, loop, pem = sys.argv
    # As many descriptors as we may have.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    peer = peers.make(kind, pem)
    peer.run(Worker(peer).work, loop)


if __name__ == "__main__":
    main()
