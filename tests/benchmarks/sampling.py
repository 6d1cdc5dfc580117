"""How one sample of a shape is taken from the pair of processes of a peer.

A sample of calls has as many as the peer makes in 0.4 seconds, going by the sample before; so slow
peers and quick ones get the same time, and the machine's noise falls on all alike.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Pair, environment
from rows import Row
from shapes import Scale, Shape

__all__ = ["Sample", "Sampler", "take_import"]

#: How many seconds longer than planned calls at a fixed rate may take, if the peer keeps up.
LATE = 0.1


@dataclass(frozen=True)
class Sample:
    """One figure, its parts, and the CPU seconds that 100,000 calls cost each process, if any.

    There is no figure where a peer did not keep up with the rate of the calls.
    """

    value: float | None
    client_cpu: float | None = None
    server_cpu: float | None = None
    parts: tuple[float, ...] = ()


class Sampler:
    """Takes samples of a row; `packages` is where its processes import this package from."""

    def __init__(self, row: Row, scale: Scale, pem: str, packages: Path | None = None) -> None:
        self.row, self.scale, self.pem, self.packages = row, scale, pem, packages
        self._counts: dict[str, int] = {}
        self._late: dict[str, int] = {}

    @contextmanager
    def processes(self) -> Iterator[None]:
        """Start the processes that make calls, which are kept until the context is left."""
        with self._new_pair() as self._pair:
            yield

    def _new_pair(self) -> closing[Pair]:
        return closing(Pair(self.row.kind, self.row.loop, self.pem, self.packages))

    def warm_up(self, shape: Shape) -> None:
        """Fill caches, and settle how many calls a sample has."""
        if shape.order == "paced":
            told = self._told(shape)
            del told["rate"]
            self._pair.client.do("calls", count=self.scale.first, **told)
            return
        if not shape.is_kept:
            return
        if shape.name == "old":
            self._counts[shape.name] = self.scale.many
        # The first count is a guess, the second is still from cold caches.
        for _ in range(self.scale.warm_ups):
            self.take(shape)

    def count(self, shape: Shape) -> int:
        """Return how many calls the next sample has."""
        callers = shape.arguments.get("callers", 1)
        least = max(self.scale.first, self.scale.turns * callers)
        return max(least, self._counts.get(shape.name, 0))

    def take(self, shape: Shape, turn: int = -1, count: int | None = None) -> Sample:
        """Take a sample of so many calls; each `turn` has a new connection, for some shapes."""
        if shape.order == "memory":
            return self._idle_memory()
        if shape.order == "questions":
            return self._question_memory()
        if shape.order == "paced":
            return self._paced(shape)
        return self._calls(shape, turn, count or self.count(shape))

    def _told(self, shape: Shape) -> dict[str, Any]:
        told: dict[str, Any] = {"what": shape.what, "tls": False, **shape.arguments}
        return told | {"port": self._pair.port(told["what"], told["tls"])}

    def _calls(self, shape: Shape, turn: int, count: int) -> Sample:
        pair, told = self._pair, self._told(shape)
        if shape.name == "fresh":
            told["pool"] = f"fresh {turn}"
        if shape.held:
            pair.client.do("calls", count=1, **told)
            pair.client.do("hold", port=told["port"], count=shape.held)
        before = pair.server.do("usage")["cpu"]
        done = pair.client.do(shape.order, count=count, **told)
        server = pair.server.do("usage")["cpu"] - before
        if shape.held:
            pair.client.do("release", port=told["port"])
        rate = count / done["seconds"]
        self._counts[shape.name] = round(rate * self.scale.seconds)
        per_100_000 = 1e5 / count
        return Sample(rate * shape.per_call, done["cpu"] * per_100_000, server * per_100_000)

    def _paced(self, shape: Shape) -> Sample:
        """Return the percentiles of calls that are made by the clock, in milliseconds.

        A peer that was late twice is not asked again: that takes long, and says nothing.
        """
        if self._late.get(shape.name, 0) > 1:
            return Sample(None)
        rate = shape.arguments["rate"]
        count = round(rate * self.scale.paced)
        done = self._pair.client.do("paced", count=count, **self._told(shape))
        if not done["percentiles"] or done["seconds"] > self.scale.paced + LATE:
            self._late[shape.name] = self._late.get(shape.name, 0) + 1
            return Sample(None)
        parts = tuple(done["percentiles"])
        return Sample(parts[0], parts=parts)

    def _idle_memory(self) -> Sample:
        """Return the resident bytes that each of many idle connections takes of a new server."""
        connections = self.scale.connections
        with self._new_pair() as pair:
            port = pair.port("sum", False)
            # What the first connections load and allocate for all is no part of any.
            pair.client.do("idle", port=port, count=10)
            before = memory(pair.server)
            pair.client.do("idle", port=port, count=connections)
            after = memory(pair.server)
        return Sample((after - before) / connections)

    def _question_memory(self) -> Sample:
        """Return the resident bytes that each of many open questions takes of new processes."""
        questions = self.scale.questions
        with self._new_pair() as pair:
            sides = pair.client, pair.server
            port = pair.port("sum", False)
            told = {"port": port, "what": "sum", "tls": False}
            pair.client.do("calls", count=1_000, **told)
            pair.client.do("hold", port=port, count=100)
            pair.client.do("release", port=port)
            before = [memory(side) for side in sides]
            pair.client.do("hold", port=port, count=questions)
            after = [memory(side) for side in sides]
        client, server = ((new - old) / questions for old, new in zip(before, after, strict=True))
        return Sample(client + server, parts=(client + server, client, server))


def memory(process: Any) -> float:
    """Return the resident bytes of a process, without its garbage."""
    resident: float = process.do("usage", collect=True)["memory"]
    return resident


def take_import(statement: str, packages: Path | None = None) -> Sample:
    """Return the milliseconds of the statement alone, in a new interpreter."""
    program = (
        "from time import perf_counter as now; start = now()\n"
        f"{statement}\n"
        "print((now() - start) * 1e3)"
    )
    # (-P: modules come from where they are installed, not from the current folder.)
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment(packages)
    )
    return Sample(float(done.stdout))
