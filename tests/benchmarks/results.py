"""What came out, and the machine on which it did."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from sampling import Sample

__all__ = ["Results", "Samples", "machine", "number"]

Samples: TypeAlias = dict[str, dict[str, list[Sample]]]

LIBRARIES = "amp_asyncio uvloop Twisted websockets msgpack grpcio pycapnp aiohttp rpyc".split()


@dataclass
class Results:
    """The samples of a run, and where it ran."""

    samples: Samples
    machine: list[str]
    rounds: int

    def median(self, shape: str, label: str) -> float | None:
        """Return the median of a row, None where there is none."""
        values = self.values(shape, label)
        return median(values) if values else None

    def values(self, shape: str, label: str) -> list[float]:
        """Return the figures of a row; none, if it kept up in half of the rounds or less."""
        samples = self.samples.get(shape, {}).get(label, [])
        values = [sample.value for sample in samples if sample.value is not None]
        return values if 2 * len(values) > len(samples) else []

    def parts(self, shape: str, label: str) -> list[float]:
        """Return the medians of the parts of a row, none where there are none."""
        if not self.values(shape, label):
            return []
        parts = [sample.parts for sample in self.samples[shape][label] if sample.value is not None]
        return [median(values) for values in zip(*parts, strict=True)]

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

    def ratio(self, shape: str, label: str, other: str | None) -> float | None:
        """Return how many times the median of `other` a row has."""
        mine, theirs = self.median(shape, label), self.median(shape, other or "")
        return mine / theirs if mine and theirs else None

    def difference(self, shape: str, label: str, other: str | None) -> float | None:
        """Return how much more than the median of `other` a row has."""
        mine, theirs = self.median(shape, label), self.median(shape, other or "")
        return None if mine is None or theirs is None else mine - theirs

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
    return "-" if value is None else f"{value:,.{digits}f}"
