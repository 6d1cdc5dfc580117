"""Measures every peer in every shape, interleaved, and prints medians and ratios.

    python tests/benchmarks/run.py [--rounds N] [--shapes A,B] [--peers X,Y] [--quick]
                                   [--json FILE] [--svg FILE] [--markdown FILE]
    python tests/benchmarks/run.py --against REV [--rounds N] [--shapes A,B] [--peers X,Y] [--quick]

A client and a server process for each peer and event loop live through all rounds. In each round, each
shape is run by each peer in turn, for 0.4 seconds: so what else the machine does falls on all
of them. The figures are the medians of the rounds, and the ratios are ratios of medians.

`peers/` says what each peer does, `shapes.py` what is measured. "The limit" is a peer that sends the
same bytes with asyncio and does nothing else; see `peers/bare.py`. Peers that are not installed
(`pip install .[bench]` brings all) are left out. README.md has the chart and the tables of a full run.

With `--against`, only `amp_asyncio` is measured: as it is in the working tree, and as it was at a
revision that git has. See `against.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import against
import chart
import report
from certificate import write_certificate
from peers import KINDS
from processes import Pair
from shapes import (
    FULL,
    IMPORTS,
    QUICK,
    SHAPES,
    Row,
    Sample,
    Scale,
    Shape,
    take,
    take_import,
    take_memory,
)

ROWS = [
    Row("limit", "bare", "asyncio"),
    Row("limit, uvloop", "bare", "uvloop"),
    Row("limit, coalescing", "coalescing", "asyncio"),
    Row("limit, coalescing, uvloop", "coalescing", "uvloop"),
    Row("amp_asyncio", "ours", "asyncio"),
    Row("amp_asyncio, uvloop", "ours", "uvloop"),
    Row("amp_asyncio, version 2", "ours-2", "asyncio"),
    Row("amp_asyncio, version 2, uvloop", "ours-2", "uvloop"),
    Row("amp_asyncio, async def", "ours-async", "asyncio"),
    Row("amp_asyncio, async def, uvloop", "ours-async", "uvloop"),
    Row("Twisted AMP", "twisted", "its reactor"),
    Row("websockets + msgpack", "websockets", "asyncio"),
    Row("grpc.aio", "grpc", "asyncio"),
    Row("amp_asyncio", "ours-wide", "asyncio"),
    Row("amp_asyncio, uvloop", "ours-wide", "uvloop"),
]


class Run:
    """Takes the samples; `samples` has them by the name of the shape and the label of the row."""

    def __init__(self, rows: list[Row], shapes: list[Shape], scale: Scale, pem: str) -> None:
        self.rows, self.shapes, self.scale, self.pem = rows, shapes, scale, pem
        self.samples: report.Samples = {}
        self._counts: dict[tuple[str, Row], int] = {}
        self._pairs: dict[Row, Pair] = {}

    @contextmanager
    def processes(self) -> Iterator[None]:
        """Start the processes, and warm them up: the first calls fill caches, and settle the counts."""
        with ExitStack() as stack:
            for row in self.rows:
                if any(row.kind in shape.kinds and not shape.is_cost for shape in self.shapes):
                    self._pairs[row] = stack.enter_context(Pair(row.kind, row.loop, self.pem))
            for shape in self.shapes:
                for row in self._rows_of(shape):
                    self._warm_up(shape, row)
            yield

    def _warm_up(self, shape: Shape, row: Row) -> None:
        if shape.is_cost:
            return
        if shape.name == "old":
            self._counts[shape.name, row] = self.scale.many
        # The first count is a guess, the second is still from cold caches.
        for _ in range(self.scale.warm_ups):
            self._calls(shape, row, -1)

    def _rows_of(self, shape: Shape) -> list[Row]:
        return [row for row in self.rows if row.kind in shape.kinds]

    def _calls(self, shape: Shape, row: Row, turn: int) -> Sample:
        callers = shape.arguments.get("callers", 1)
        least = max(self.scale.first, self.scale.turns * callers)
        count = max(least, self._counts.get((shape.name, row), 0))
        sample, rate = take(shape, self._pairs[row], count, turn)
        self._counts[shape.name, row] = round(rate * self.scale.seconds)
        return sample

    def round(self, turn: int) -> None:
        """Take a sample of each shape from each of its peers (and a few of the imports)."""
        for shape in self.shapes:
            if shape.order == "import":
                for _ in range(self.scale.imports):
                    for label, needs in IMPORTS.items():
                        if find_spec(needs):
                            self._add(shape, label, take_import(label))
                continue
            rows = self._rows_of(shape)
            # Nobody is always first, or always behind the same peer's garbage.
            first = turn % max(1, len(rows))
            for row in rows[first:] + rows[:first]:
                if shape.order == "memory":
                    sample = take_memory(row, self.pem, self.scale.connections)
                else:
                    sample = self._calls(shape, row, turn)
                self._add(shape, row.label, sample)

    def _add(self, shape: Shape, label: str, sample: Sample) -> None:
        self.samples.setdefault(shape.name, {}).setdefault(label, []).append(sample)


def installed(rows: list[Row]) -> list[Row]:
    """Return the rows of peers that are installed, and say which are not."""
    found = []
    for row in rows:
        needs = [*KINDS[row.kind][2], *(["uvloop"] if row.loop == "uvloop" else [])]
        missing = [name for name in needs if find_spec(name) is None]
        if missing:
            print(f"left out: {row.label} ({', '.join(missing)} not installed)", file=sys.stderr)
        else:
            found.append(row)
    return found


def connections_that_fit(scale: Scale) -> Scale:
    """Return the scale with no more connections than a process may have descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most - 200 >= scale.connections:
        return scale
    print(f"only {most - 200:,} idle connections: a process may have {most:,} files", file=sys.stderr)
    return Scale(**{**asdict(scale), "connections": most - 200})


def chosen(names: str, all_names: list[str]) -> list[str]:
    wanted = names.split(",")
    unknown = set(wanted) - set(all_names)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(all_names)}")
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = list(dict.fromkeys(shape.name for shape in SHAPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", default=",".join(names), help="default: all")
    parser.add_argument("--peers", default=",".join(KINDS), help="default: all")
    parser.add_argument("--quick", action="store_true", help="one round of a few calls: does it work?")
    for kind in ("json", "svg", "markdown"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE")
    parser.add_argument("--against", metavar="REV", help="compare the working tree with a revision")
    options = parser.parse_args()
    if options.against and (options.json or options.svg or options.markdown):
        parser.error("--against only prints its table: leave out --json, --svg and --markdown")
    shapes = [shape for shape in SHAPES if shape.name in chosen(options.shapes, names)]
    kinds = chosen(options.peers, list(KINDS))
    rows = installed([row for row in ROWS if row.kind in kinds])
    scale = connections_that_fit(QUICK if options.quick else FULL)
    rounds = 1 if options.quick else options.rounds

    begun = monotonic()
    machine = report.machine()
    print("\n".join(machine), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pem = os.path.join(folder, "localhost.pem")
        write_certificate(pem)
        if options.against:
            compare(options.against, rows, shapes, scale, pem, rounds)
        else:
            measure(options, rows, shapes, scale, pem, rounds, machine)
    print(f"\n{rounds} rounds, {monotonic() - begun:.0f} s")


def measure(
    options: argparse.Namespace,
    rows: list[Row],
    shapes: list[Shape],
    scale: Scale,
    pem: str,
    rounds: int,
    machine: list[str],
) -> None:
    """Measure all peers, print what came out, and write the files that are wanted."""
    run = Run(rows, shapes, scale, pem)
    with run.processes():
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
            run.round(turn)
    results = report.Results(run.samples, machine, rounds)
    print(report.text(results))
    if options.json:
        options.json.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(report.markdown(results))
    if options.svg:
        options.svg.write_text(chart.svg(results))


def compare(
    revision: str, rows: list[Row], shapes: list[Shape], scale: Scale, pem: str, rounds: int
) -> None:
    """Compare the working tree with a revision, and print by how much it is better."""
    rows = [row for row in rows if row.kind.startswith("ours") and row.kind != "ours-wide"]
    with against.checked_out(revision) as before:
        comparison = against.Comparison(rows, shapes, scale, pem, before)
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
            comparison.round(turn)
    print(against.text(comparison.rounds, revision))


if __name__ == "__main__":
    main()
