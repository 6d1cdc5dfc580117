"""The shapes: what is measured, and of whom.

Each has a way to take one sample from the pair of processes of a peer. A sample of calls has as many
as the peer makes in 0.4 seconds, going by the sample before; so slow peers and quick ones get
the same time, and the machine's noise falls on all alike.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import Pair, environment

__all__ = ["IMPORTS", "SHAPES", "Row", "Sample", "Scale", "Shape", "take", "take_import", "take_memory"]

VALUE = 60_000

#: Who takes part in the shapes that are for comparison.
ALL = frozenset("bare coalescing ours ours-2 ours-async twisted websockets grpc".split())
#: Who is not the same as another in what a connection takes. (Idle channels of gRPC's are left out of
#: the memory: making 5,000 takes longer than all else in a round, at some 17 KB each.)
DISTINCT = ALL - {"coalescing", "ours-2", "ours-async"}


@dataclass(frozen=True)
class Row:
    """A peer on an event loop."""

    label: str
    kind: str
    loop: str


@dataclass(frozen=True)
class Shape:
    """What is measured; `order` and `arguments` are what the client is told.

    `per_call` is what one call adds to the figure, which is a rate: 1, or its megabytes. So many other
    questions are `held` open meanwhile.
    """

    name: str
    title: str
    unit: str
    order: str = "calls"
    arguments: dict[str, Any] = field(default_factory=dict)
    per_call: float = 1.0
    kinds: frozenset[str] = ALL
    held: int = 0

    @property
    def is_cost(self) -> bool:
        """Whether less is better."""
        return self.order in ("memory", "import")


@dataclass(frozen=True)
class Scale:
    """How large everything is: in full, or just enough to see that it works.

    A sample of calls takes about so many seconds; it has at least `first` calls, and so many `turns`
    of each caller, or starting the callers would be what is measured.
    """

    seconds: float
    first: int
    turns: int
    warm_ups: int
    many: int
    connections: int
    imports: int


FULL = Scale(seconds=0.4, first=100, turns=5, warm_ups=2, many=1_000_000, connections=5_000, imports=3)
QUICK = Scale(seconds=0.0, first=20, turns=0, warm_ups=1, many=200, connections=10, imports=1)


@dataclass(frozen=True)
class Sample:
    """One figure, and the CPU seconds that 100,000 calls cost each process, where there are calls."""

    value: float
    client_cpu: float | None = None
    server_cpu: float | None = None


def _growth() -> list[Shape]:
    """The shapes that show what a call costs as more is under way, or has been."""
    counts = (10, 100, 1_000, 10_000)
    wide = frozenset({"ours-wide"})
    return [
        *(
            Shape(
                f"held-{count}",
                f"100 in flight, {count:,} other questions open",
                "calls/s",
                arguments={"callers": 100},
                kinds=wide,
                held=count,
            )
            for count in counts
        ),
        *(
            Shape(
                f"callers-{count}",
                f"{count:,} in flight",
                "calls/s",
                arguments={"callers": count},
                kinds=wide,
            )
            for count in counts
        ),
        *(
            Shape(name, title, "calls/s", arguments={"callers": 100, "pool": name}, kinds=wide)
            for name, title in (
                ("fresh", "100 in flight on a new connection"),
                ("old", "100 in flight after 1,000,000 calls on the connection"),
            )
        ),
    ]


_MB = 2 * VALUE / 1e6

SHAPES = [
    Shape("one", "one after the other", "calls/s"),
    Shape("in-flight", "100 in flight", "calls/s", arguments={"callers": 100}),
    Shape("connections", "64 connections", "calls/s", arguments={"connections": 64, "callers": 64}),
    Shape("values", "60,000-byte values", "MB/s", "calls", {"size": VALUE, "callers": 8}, _MB),
    Shape("tls", "100 in flight, TLS", "calls/s", arguments={"tls": True, "callers": 100}),
    Shape(
        "tls-values",
        "60,000-byte values, TLS",
        "MB/s",
        "calls",
        {"tls": True, "size": VALUE, "callers": 8},
        _MB,
    ),
    Shape("opening", "opened and closed", "connections/s", "openings", {"callers": 8}, kinds=DISTINCT),
    Shape("memory", "an idle connection", "bytes", "memory", kinds=DISTINCT - {"grpc"}),
    Shape("import", "import", "ms", "import", kinds=frozenset()),
    *_growth(),
]

#: What is imported, each in a fresh interpreter: how the row is called, the statement, what it needs.
IMPORTS = {
    "import asyncio": "asyncio",
    "import amp_asyncio": "amp_asyncio",
    "from twisted.protocols import amp": "twisted",
}


def take(shape: Shape, pair: Pair, count: int, turn: int) -> tuple[Sample, float]:
    """Make `count` calls in that shape; return the sample, and the calls per second."""
    told: dict[str, Any] = {"size": 0, "tls": False, **shape.arguments}
    told["port"] = pair.port(told["size"], told["tls"])
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
    per_100_000 = 1e5 / count
    return Sample(rate * shape.per_call, done["cpu"] * per_100_000, server * per_100_000), rate


def take_memory(row: Row, pem: str, connections: int, packages: Path | None = None) -> Sample:
    """Return the resident bytes that each of so many idle connections takes of a new server."""
    with Pair(row.kind, row.loop, pem, packages) as pair:
        port = pair.port(0, False)
        # What the first connections load and allocate for all is no part of any.
        pair.client.do("idle", port=port, count=10)
        before = pair.server.do("usage", collect=True)["memory"]
        pair.client.do("idle", port=port, count=connections)
        after = pair.server.do("usage", collect=True)["memory"]
    return Sample((after - before) / connections)


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
