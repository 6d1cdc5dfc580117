"""Measures every peer in every shape, interleaved, and prints medians and ratios.

    python tests/benchmarks/run.py [--rounds N] [--shapes A,B] [--peers X,Y] [--quick] [--compiled]
                                   [--json FILE] [--svg FILE] [--markdown FILE] [--readme]
    python tests/benchmarks/run.py --targets [--rounds N] [--compiled]
    python tests/benchmarks/run.py --against REV [--rounds N] [--shapes A,B] [--peers X,Y] [--compiled]

A client and a server process for each peer and event loop live through all rounds. In each round, each
shape is run by each peer in turn, for 0.4 seconds: so what else the machine does falls on all
of them. The figures are the medians of the rounds, and the ratios are ratios of medians.

`peers/` says what each peer does, `shapes.py` what is measured. "The limit" is a peer that sends the
same bytes with asyncio and does nothing else; see `peers/bare.py`. Peers that are not installed
(`pip install .[bench]` brings all) are left out. README.md has the chart and the tables of a full run.

With `--compiled`, the working tree is compiled into a temporary folder, and measured in rows of its
own. With `--targets`, only what the ratios of `ratios.py` need is measured.

With `--against`, only `amp_asyncio` is measured: as it is in the working tree, and as it was at a
revision that git has, both compiled if `--compiled` says so. See `against.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic

import against
import builds
import chart
import ratios
import readme
import report
from certificate import write_certificate
from peers import KINDS
from results import Results, machine
from rounds import Rounds
from rows import OURS, ROWS, Row, installed
from shapes import FULL, QUICK, SHAPES, Scale, Shape


def files_that_fit(scale: Scale) -> Scale:
    """Return the scale with no more connections than a process may have descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most - 200 >= scale.connections:
        return scale
    print(f"only {most - 200:,} idle connections: a process may have {most:,} files", file=sys.stderr)
    return replace(scale, connections=most - 200)


def chosen(names: str | None, all_names: list[str], default: list[str]) -> list[str]:
    if names is None:
        return default
    wanted = names.split(",")
    unknown = set(wanted) - set(all_names)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(all_names)}")
    return wanted


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", help="default: all")
    parser.add_argument("--peers", help="default: all")
    parser.add_argument("--quick", action="store_true", help="one round of a few calls: does it work?")
    parser.add_argument("--compiled", action="store_true", help="measure this package compiled, too")
    parser.add_argument("--targets", action="store_true", help="only the ratios that have goals")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the chart")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the section of README.md")
    parser.add_argument(
        "--readme",
        type=Path,
        nargs="?",
        const=builds.ROOT,
        metavar="FOLDER",
        help="replace the results in README.md, in tests/benchmarks/README.md and its chart; of a copy "
        "of the project, if there is a folder",
    )
    parser.add_argument("--against", metavar="REV", help="compare the working tree with a revision")
    options = parser.parse_args()
    written = options.json or options.svg or options.markdown or options.readme
    if options.against and (written or options.targets):
        parser.error(
            "--against only prints its table: leave out --json, --svg, --markdown, --readme, --targets"
        )
    return options


def main() -> None:
    options = parse()
    names = [shape.name for shape in SHAPES]
    wanted = chosen(options.shapes, names, ratios.SHAPES if options.targets else names)
    shapes = [shape for shape in SHAPES if shape.name in wanted]
    kinds = chosen(options.peers, list(KINDS), ratios.KINDS if options.targets else list(KINDS))
    rows = installed(
        [row for row in ROWS if row.kind in kinds and any(shape.has(row) for shape in shapes)]
    )
    scale = files_that_fit(QUICK if options.quick else FULL)
    rounds = 1 if options.quick else options.rounds

    begun = monotonic()
    described = machine()
    print("\n".join(described), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pem = os.path.join(folder, "localhost.pem")
        write_certificate(pem)
        if options.against:
            compare(options, rows, shapes, scale, pem, rounds)
        else:
            measure(options, rows, shapes, scale, pem, rounds, described)
    print(f"\n{rounds} rounds, {monotonic() - begun:.0f} s")


def measure(
    options: argparse.Namespace,
    rows: list[Row],
    shapes: list[Shape],
    scale: Scale,
    pem: str,
    rounds: int,
    described: list[str],
) -> None:
    """Measure all peers, print what came out, and write the files that are wanted."""
    with ExitStack() as stack:
        packages: dict[str, Path | None] = {"": None}
        if options.compiled:
            packages["compiled"] = stack.enter_context(builds.compiled(builds.ROOT))
        run = Rounds([row for row in rows if row.build in packages], shapes, scale, pem, packages)
        stack.enter_context(run.processes())
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
            run.round(turn)
    results = Results(run.samples, described, rounds)
    print(ratios.text(results) if options.targets else report.text(results))
    if options.json:
        options.json.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(readme.section(results))
    if options.readme:
        folder = readme.replace_results(options.readme, results)
        folder.joinpath("results.svg").write_text(chart.svg(results))
    if options.svg:
        options.svg.write_text(chart.svg(results))


def compare(
    options: argparse.Namespace,
    rows: list[Row],
    shapes: list[Shape],
    scale: Scale,
    pem: str,
    rounds: int,
) -> None:
    """Compare the working tree with a revision, and print by how much it is better."""
    rows = [row for row in rows if row.label.startswith(OURS) and not row.build]
    rows = [row for row in rows if row.kind != "ours-wide"]
    with ExitStack() as stack:
        packages = [stack.enter_context(builds.checked_out(options.against)), builds.ROOT]
        if options.compiled:
            packages = [stack.enter_context(builds.compiled(sources)) for sources in packages]
        comparison = against.Comparison(rows, shapes, scale, pem, packages)
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
            comparison.round(turn)
    print(against.text(comparison.rounds, options.against))


if __name__ == "__main__":
    main()
