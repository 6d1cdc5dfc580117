"""The shapes: what is measured, and of whom. `sampling.py` says how one sample is taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peers import KINDS, VALUE
from rows import Row

__all__ = ["FULL", "GROUPS", "IMPORTS", "QUICK", "SHAPES", "Scale", "Shape"]


@dataclass(frozen=True)
class Shape:
    """What is measured; `order` and `arguments` are what the client is told.

    `what` is what a connection is for, and `can` the word in `KINDS` that its peers have: by itself,
    the same. `per_call` is what one call adds to the figure, which is a rate: 1, or its megabytes. So
    many other questions are `held` open meanwhile. A sample of several figures has `parts`, the first
    of which is its value. `group` names the table of the report.
    """

    name: str
    title: str
    unit: str
    order: str = "calls"
    arguments: dict[str, Any] = field(default_factory=dict)
    what: str = "sum"
    can: str = ""
    per_call: float = 1.0
    held: int = 0
    parts: tuple[str, ...] = ()
    group: str = "calls"

    @property
    def is_cost(self) -> bool:
        """Whether less is better."""
        return self.order in ("memory", "import", "questions", "paced")

    @property
    def digits(self) -> int:
        """How many digits of a figure are shown."""
        return {"import": 1, "paced": 2}.get(self.order, 0)

    @property
    def is_kept(self) -> bool:
        """Whether it is measured in processes that live through all rounds."""
        return self.order not in ("memory", "questions", "import")

    def has(self, row: Row) -> bool:
        """Whether the row takes part."""
        return (self.can or self.what) in KINDS[row.kind].can


@dataclass(frozen=True)
class Scale:
    """How large everything is: in full, or just enough to see that it works.

    A sample of calls takes about so many seconds; it has at least `first` calls, and so many `turns`
    of each caller, or starting the callers would be what is measured. Calls at a fixed rate take
    `paced` seconds. Of what hardly differs from round to round, there are `few` rounds.
    """

    seconds: float
    first: int
    turns: int
    warm_ups: int
    many: int
    connections: int
    questions: int
    imports: int
    paced: float
    few: int


FULL = Scale(
    seconds=0.4,
    first=100,
    turns=5,
    warm_ups=2,
    many=1_000_000,
    connections=5_000,
    questions=10_000,
    imports=3,
    paced=1.0,
    few=3,
)
QUICK = Scale(
    seconds=0.0,
    first=20,
    turns=0,
    warm_ups=1,
    many=200,
    connections=10,
    questions=20,
    imports=1,
    paced=0.01,
    few=1,
)


def _growth() -> list[Shape]:
    """The shapes that show what a call costs as more is under way, or has been."""
    counts = (10, 100, 1_000, 10_000)
    hundred = {"callers": 100}

    def shape(name: str, title: str, arguments: dict[str, Any], held: int = 0) -> Shape:
        return Shape(
            name, title, "calls/s", arguments=arguments, can="growth", held=held, group="growth"
        )

    return [
        *(
            shape(f"held-{count}", f"100 in flight, {count:,} other questions open", hundred, count)
            for count in counts
        ),
        *(shape(f"callers-{count}", f"{count:,} in flight", {"callers": count}) for count in counts),
        shape("fresh", "100 in flight on a new connection", {**hundred, "pool": "fresh"}),
        shape(
            "old",
            "100 in flight after 1,000,000 calls on the connection",
            {**hundred, "pool": "old"},
        ),
    ]


def _paced(rate: int) -> Shape:
    return Shape(
        f"paced-{rate}",
        f"{rate:,} calls/s",
        "ms",
        "paced",
        {"rate": rate},
        can="paced",
        parts=("p50", "p99", "p99.9"),
        group="latency",
    )


_MB = 2 * VALUE / 1e6
_EIGHT = {"callers": 8}
_HUNDRED = {"callers": 100}
_SIXTY_FOUR = {"connections": 64, "callers": 64}
_SIDES = ("both", "client", "server")

SHAPES = [
    Shape("one", "one after the other", "calls/s"),
    Shape("in-flight", "100 in flight", "calls/s", arguments=_HUNDRED),
    Shape("timeouts", "100 in flight, a timeout each", "calls/s", arguments=_HUNDRED, what="timed"),
    Shape("typed", "100 in flight, typed commands", "calls/s", arguments=_HUNDRED, what="typed"),
    Shape("connections", "64 connections", "calls/s", arguments=_SIXTY_FOUR),
    Shape("tls", "100 in flight, TLS", "calls/s", arguments={"tls": True, **_HUNDRED}),
    Shape(
        "values",
        "60,000-byte values",
        "MB/s",
        arguments=_EIGHT,
        what="echo",
        per_call=_MB,
        group="values",
    ),
    Shape(
        "tls-values",
        "60,000-byte values, TLS",
        "MB/s",
        arguments={"tls": True, **_EIGHT},
        what="echo",
        per_call=_MB,
        group="values",
    ),
    Shape("stream", "a stream", "items/s", "stream", what="items", group="values"),
    Shape(
        "opening",
        "opened and closed",
        "connections/s",
        "openings",
        _EIGHT,
        can="opening",
        group="connections",
    ),
    Shape("memory", "an idle connection", "bytes", "memory", can="idle", group="connections"),
    Shape(
        "questions",
        "an open question",
        "bytes",
        "questions",
        can="hold",
        parts=_SIDES,
        group="connections",
    ),
    _paced(2_000),
    _paced(10_000),
    Shape("import", "import", "ms", "import", can="import", group="import"),
    *_growth(),
]

#: The groups whose shapes have a row for each peer, and a column for each shape.
GROUPS = {
    "calls": "calls per second",
    "values": "values and streams",
    "connections": "connections and memory",
}

#: What is imported, each in a fresh interpreter: how the row is called, the statement, what it needs.
IMPORTS = {
    "import asyncio": "asyncio",
    "import amp_asyncio": "amp_asyncio",
    "from twisted.protocols import amp": "twisted",
}
