"""The rows of the tables: a peer on an event loop, and which build of this package it imports."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec

from peers import KINDS

__all__ = [
    "ASYNC_DEF",
    "COALESCING",
    "COMPILED",
    "LIMIT",
    "OURS",
    "ROWS",
    "TWISTED",
    "Row",
    "installed",
    "limit_of",
    "on",
]

LIMIT = "limit"
COALESCING = "limit, coalescing"
OURS = "amp_asyncio"
COMPILED = "amp_asyncio, compiled"
ASYNC_DEF = "amp_asyncio, async def"
TWISTED = "Twisted AMP"


@dataclass(frozen=True)
class Row:
    """A peer on an event loop; `build` is "compiled", or empty for the package that is installed."""

    label: str
    kind: str
    loop: str = "asyncio"
    build: str = ""


def on(loop: str, label: str) -> str:
    """Return the label of a row on that event loop."""
    return label if loop == "asyncio" else f"{label}, {loop}"


def _on_both(label: str, kind: str, build: str = "") -> list[Row]:
    return [Row(on(loop, label), kind, loop, build) for loop in ("asyncio", "uvloop")]


ROWS = [
    *_on_both(LIMIT, "bare"),
    *_on_both(COALESCING, "coalescing"),
    *_on_both(OURS, "ours"),
    *_on_both(COMPILED, "ours", "compiled"),
    *_on_both("amp_asyncio, version 2", "ours-2"),
    *_on_both(ASYNC_DEF, "ours-async"),
    *_on_both("amp_asyncio, async def, compiled", "ours-async", "compiled"),
    Row(TWISTED, "twisted", "its reactor"),
    Row("websockets + msgpack", "websockets"),
    Row("grpc.aio", "grpc"),
    Row("pycapnp", "capnp"),
    Row("aiohttp", "aiohttp"),
    Row("rpyc", "rpyc", "threads"),
    *_on_both(OURS, "ours-wide"),
]

LOOPS = {row.label: row.loop for row in ROWS}


def limit_of(label: str) -> str | None:
    """Return the limit on the same event loop; that on asyncio for what has a loop of its own."""
    if label in (LIMIT, on("uvloop", LIMIT)) or label not in LOOPS:
        return None
    return on("uvloop" if LOOPS[label] == "uvloop" else "asyncio", LIMIT)


def installed(rows: list[Row]) -> list[Row]:
    """Return the rows of peers that are installed, and say which are not."""
    found = []
    for row in rows:
        needs = [*KINDS[row.kind].needs, *(["uvloop"] if row.loop == "uvloop" else [])]
        missing = [name for name in needs if find_spec(name) is None]
        if missing:
            print(f"left out: {row.label} ({', '.join(missing)} not installed)", file=sys.stderr)
        else:
            found.append(row)
    return found
