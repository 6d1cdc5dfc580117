"""What came out: as text, as Markdown, as JSON, and with it the machine on which it did."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from shapes import SHAPES, Sample, Shape

__all__ = ["Results", "Samples", "machine", "markdown", "text"]

Samples: TypeAlias = dict[str, dict[str, list[Sample]]]

LIBRARIES = ["amp_asyncio", "uvloop", "Twisted", "websockets", "msgpack", "grpcio"]

TWISTED = "Twisted AMP"
OURS = "amp_asyncio"
GROWTH = "with a window of 64 MiB"
COALESCING = "limit, coalescing"
#: From a row of ours to the limit on the same loop.
LIMITS = {
    COALESCING: "limit",
    f"{COALESCING}, uvloop": "limit, uvloop",
    OURS: "limit",
    f"{OURS}, uvloop": "limit, uvloop",
    f"{OURS}, version 2": "limit",
    f"{OURS}, version 2, uvloop": "limit, uvloop",
    f"{OURS}, async def": "limit",
    f"{OURS}, async def, uvloop": "limit, uvloop",
    TWISTED: "limit",
    "websockets + msgpack": "limit",
    "grpc.aio": "limit",
}


@dataclass
class Results:
    """The samples of a run, and where it ran."""

    samples: Samples
    machine: list[str]
    rounds: int

    def median(self, shape: str, label: str) -> float | None:
        """Return the median of a row, None where there is none."""
        samples = self.samples.get(shape, {}).get(label)
        return median(sample.value for sample in samples) if samples else None

    def cpu(self, shape: str, label: str) -> tuple[float, float] | None:
        """Return the CPU seconds per 100,000 calls of client and server."""
        pairs = [
            (sample.client_cpu, sample.server_cpu)
            for sample in self.samples.get(shape, {}).get(label, [])
            if sample.client_cpu is not None and sample.server_cpu is not None
        ]
        if not pairs:
            return None
        return median(client for client, _ in pairs), median(server for _, server in pairs)

    def ratio(self, shape: str, label: str, other: str) -> float | None:
        """Return how many times the median of `other` a row has."""
        mine, theirs = self.median(shape, label), self.median(shape, other)
        return mine / theirs if mine and theirs else None

    def labels(self, shapes: Iterable[str]) -> list[str]:
        """Return the rows that any of the shapes has, in order."""
        return list(dict.fromkeys(label for name in shapes for label in self.samples.get(name, {})))

    def medians(self) -> str:
        rounds = "one round" if self.rounds == 1 else f"{self.rounds} interleaved rounds"
        return f"Medians of {rounds}."

    def as_json(self) -> Mapping[str, Any]:
        return {
            "machine": self.machine,
            "rounds": self.rounds,
            "medians": {
                name: {label: self.median(name, label) for label in rows}
                for name, rows in self.samples.items()
            },
            "samples": {
                name: {label: [asdict(sample) for sample in samples] for label, samples in rows.items()}
                for name, rows in self.samples.items()
            },
        }


def machine() -> list[str]:
    """Describe the machine and what is installed, a line for each."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    libraries = []
    for name in LIBRARIES:
        try:
            libraries.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return [f"{model}, {os.cpu_count()} cores, {system}", ", ".join([python, *libraries])]


def number(value: float | None, digits: int = 0) -> str:
    if value is None:
        return "-"
    return f"{value:,.{digits}f}"


def _figure(shape: Shape, value: float | None) -> str:
    return number(value, 1 if shape.unit == "ms" else 0)


def text(results: Results) -> str:
    """Return a table for each shape: medians, the span of the samples, ratios and CPU seconds."""
    lines = []
    for shape in SHAPES:
        rows = results.samples.get(shape.name)
        if not rows:
            continue
        lines += [
            "",
            f"{shape.title} [{shape.name}]: {shape.unit}",
            f"{'':34}{'median':>10} {'lowest':>10} {'highest':>10} {'/ Twisted':>10} {'/ limit':>8}"
            f"   {'CPU s per 100,000: client':>25} {'server':>7}",
        ]
        for label, samples in rows.items():
            values = [sample.value for sample in samples]
            cpu = results.cpu(shape.name, label) or (None, None)
            lines.append(
                f"{label:34}{_figure(shape, median(values)):>10} {_figure(shape, min(values)):>10}"
                f" {_figure(shape, max(values)):>10}"
                f" {number(results.ratio(shape.name, label, TWISTED), 2):>10}"
                f" {number(results.ratio(shape.name, label, LIMITS.get(label, '')), 2):>8}"
                f"   {number(cpu[0], 2):>25} {number(cpu[1], 2):>7}"
            )
    return "\n".join(lines)


# --- Markdown ---


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    align = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, align, *rows)]


def markdown(results: Results) -> str:
    """Return the tables of README.md: figures, ratios, growth and imports, and the machine."""
    common = [shape for shape in SHAPES if shape.kinds - {"ours-wide"}]
    shown = [shape for shape in common if shape.name in results.samples]
    lines: list[str] = []
    if shown:
        names = [shape.name for shape in shown]
        head = ["", *(f"{shape.title}, {shape.unit}" for shape in shown)]
        figures = [
            [label, *(_figure(shape, results.median(shape.name, label)) for shape in shown)]
            for label in results.labels(names)
        ]
        lines += [*_table(head, figures), "", *_ratios(results, shown), ""]
    lines += _cpu(results, [shape for shape in shown if not shape.is_cost])
    lines += _imports(results)
    lines += _growth(results)
    lines.append(" ".join([results.medians(), *(f"{line}." for line in results.machine)]))
    return "\n".join(lines) + "\n"


def _ratios(results: Results, shown: list[Shape]) -> list[str]:
    rows = []
    for label in (OURS, f"{OURS}, uvloop"):
        for other in (LIMITS[label], TWISTED):
            if other in results.labels(shape.name for shape in shown):
                cells = [_compared(results, shape, label, other) for shape in shown]
                rows.append([f"{label} to {other}", *cells])
    return _table(["", *(shape.title for shape in shown)], rows)


def _compared(results: Results, shape: Shape, label: str, other: str) -> str:
    """A ratio; of bytes, the difference."""
    if shape.unit != "bytes":
        return number(results.ratio(shape.name, label, other), 2)
    mine, theirs = results.median(shape.name, label), results.median(shape.name, other)
    return "-" if mine is None or theirs is None else f"{mine - theirs:+,.0f} bytes"


def _cpu(results: Results, shown: list[Shape]) -> list[str]:
    if not shown:
        return []
    rows = []
    for label in results.labels(shape.name for shape in shown):
        cells = []
        for shape in shown:
            cpu = results.cpu(shape.name, label)
            cells.append(f"{cpu[0]:.1f} + {cpu[1]:.1f}" if cpu else "-")
        rows.append([label, *cells])
    head = ["CPU seconds per 100,000, client + server", *(shape.title for shape in shown)]
    return [*_table(head, rows), ""]


def _imports(results: Results) -> list[str]:
    rows = []
    for label in results.samples.get("import", {}):
        ratio = results.ratio("import", label, "import asyncio")
        rows.append([f"`{label}`", number(results.median("import", label), 1), number(ratio, 2)])
    return [*_table(["", "ms", "÷ `import asyncio`"], rows), ""] if rows else []


def _growth(results: Results) -> list[str]:
    shown = [s for s in SHAPES if "ours-wide" in s.kinds and s.name in results.samples]
    if not shown:
        return []
    labels = results.labels(shape.name for shape in shown)
    rows = [
        [shape.title, *(number(results.median(shape.name, label)) for label in labels)]
        for shape in shown
    ]
    head = [GROWTH, *(f"{label}, calls/s" for label in labels)]
    return [*_table(head, rows), ""]
