"""Many clients whose server is away: what that costs, and how they come back.

Run it: python tests/deploy/herd.py --clients 1000 --away 30
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import socket
import time
from collections import Counter
from typing import Any

from amp_asyncio import AMP, Client, ClientState, Command, Integer, serve


class Add(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Adder(AMP):
    @Add.responder
    def add(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


class Failures(logging.Handler):
    """Remembers when each attempt failed to connect, and when the log said that the next one is due."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[tuple[float, float]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if said := re.search(r"next attempt in ([\d.]+) s", record.getMessage()):
            now = time.monotonic()
            self.attempts.append((now, now + float(said[1])))


async def measure(clients: int, away: float) -> dict[str, Any]:
    """Return what the clients do while the server is away, and when each of them was back."""
    logger, failures = logging.getLogger("amp_asyncio"), Failures()
    logger.addHandler(failures)
    try:
        return await _measure(clients, away, failures)
    finally:
        logger.removeHandler(failures)


async def _measure(clients: int, away: float, failures: Failures) -> dict[str, Any]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    back: list[float] = []
    began = 0.0

    def on_state(state: ClientState) -> None:
        if state is ClientState.CONNECTED:
            back.append(time.monotonic() - began)

    # Each of them asks, so that a call waits on each.
    all_clients = [Client(("127.0.0.1", port), on_state=on_state) for _ in range(clients)]
    calls = [asyncio.ensure_future(client.call(Add(a=1, b=2))) for client in all_clients]
    cpu, begin = time.process_time(), time.monotonic()
    await asyncio.sleep(away)
    busy = (time.process_time() - cpu) / (time.monotonic() - begin)
    began = time.monotonic()
    async with serve(Adder, "127.0.0.1", port, backlog=1_000):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        while len(back) < clients:
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*(client.call(Add(a=1, b=2)) for client in all_clients))
        await asyncio.gather(*(client.close() for client in all_clients))
    return {
        "busy": busy,
        "attempts": sum(failed < began for failed, _ in failures.attempts),
        "due": sorted(due - began for failed, due in failures.attempts if failed < began <= due),
        "back": sorted(back),
        "in_time": sum(isinstance(each, dict) for each in outcomes),
        "answered": len(answers),
    }


def histogram(times: list[float]) -> list[str]:
    """Return a line for each second."""
    counts = Counter(map(int, times))
    return [
        f"{second:3} s {counts[second]:5} {'#' * (counts[second] // 4)}"
        for second in range(max(counts) + 1)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--away", type=float, default=30.0, help="seconds")
    options = parser.parse_args()
    logging.getLogger("amp_asyncio").propagate = False
    found = asyncio.run(measure(options.clients, options.away))
    print(f"{options.clients} clients, server away for {options.away:.0f} s")
    attempts = found["attempts"] / options.clients
    print(f"while it is away: {found['busy']:.3f} of a core, {attempts:.1f} attempts of each client")
    print(f"connected again: {len(found['back'])}, the last one after {found['back'][-1]:.1f} s")
    print(f"answered: {found['in_time']} calls that waited, {found['answered']} that came later")
    print("connected again in each second:")
    print("\n".join(histogram(found["back"])))


if __name__ == "__main__":
    main()
