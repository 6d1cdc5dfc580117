"""Compares two revisions of this package: one that git has, and the working tree.

The workers and the peers are those of the working tree, for both. How fast a process is depends on
where its memory happens to be, by up to a third, so each round has processes of its own. In a round,
the two take turns: REV, now, now, REV. The figure of a round is the ratio of their means.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from processes import Pair
from shapes import SHAPES, Row, Sample, Scale, Shape, take, take_import, take_memory

__all__ = ["ROOT", "Comparison", "checked_out", "text"]

#: The folder of the working tree.
ROOT = Path(__file__).parents[2]

PACKAGE = "amp_asyncio"
IMPORT = f"import {PACKAGE}"

_Sampler = Callable[[], Sample]


@dataclass(frozen=True)
class Compared:
    """The figures of one round, and the CPU seconds of client and server, where there are calls."""

    before: float
    now: float
    cpu_before: float
    cpu_now: float


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Make a folder with the package as it was at `revision`; `SystemExit` if git has no such one."""
    archive = subprocess.run(["git", "archive", revision, PACKAGE], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise SystemExit(f"git cannot show {revision}: {archive.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


class Comparison:
    """Takes the samples; `rounds` has what they gave, by the names of the shape and the row."""

    def __init__(
        self, rows: list[Row], shapes: list[Shape], scale: Scale, pem: str, before: Path
    ) -> None:
        self.rows, self.shapes, self.scale, self.pem = rows, shapes, scale, pem
        self.packages = before, ROOT
        self.rounds: dict[tuple[str, str], list[Compared]] = {}

    def round(self, turn: int) -> None:
        """Compare each row in each shape once, in new processes."""
        for shape in self.shapes:
            if shape.order == "import":
                samplers = [lambda at=at: take_import(IMPORT, at) for at in self.packages]
                self._compare(shape, IMPORT, samplers, turn)
        for row in self.rows:
            with Pair(row.kind, row.loop, self.pem, self.packages[0]) as before:
                with Pair(row.kind, row.loop, self.pem, self.packages[1]) as now:
                    for shape in self.shapes:
                        if row.kind in shape.kinds:
                            self._compare(
                                shape, row.label, self._samplers(shape, row, [before, now]), turn
                            )

    def _samplers(self, shape: Shape, row: Row, pairs: list[Pair]) -> list[_Sampler]:
        """Return what takes a sample of either revision, warmed up, with as many calls of both."""
        if shape.order == "memory":
            count = self.scale.connections
            return [lambda at=at: take_memory(row, self.pem, count, at) for at in self.packages]
        least = max(self.scale.first, self.scale.turns * shape.arguments.get("callers", 1))
        count = least
        for _ in range(self.scale.warm_ups):
            rates = [take(shape, pair, count, -1)[1] for pair in pairs]
            count = max(least, round(min(rates) * self.scale.seconds))
        return [lambda pair=pair: take(shape, pair, count, -1)[0] for pair in pairs]

    def _compare(self, shape: Shape, label: str, samplers: list[_Sampler], turn: int) -> None:
        samples: tuple[list[Sample], list[Sample]] = ([], [])
        for which in (0, 1, 1, 0) if turn % 2 else (1, 0, 0, 1):
            samples[which].append(samplers[which]())
        before, now = (mean(sample.value for sample in taken) for taken in samples)
        cpu_before, cpu_now = (
            sum((sample.client_cpu or 0) + (sample.server_cpu or 0) for sample in taken)
            for taken in samples
        )
        rounds = self.rounds.setdefault((shape.name, label), [])
        rounds.append(Compared(before, now, cpu_before, cpu_now))


def text(rounds: dict[tuple[str, str], list[Compared]], revision: str) -> str:
    """Return a table: what there was, what there is, and by how much that is better."""
    columns = ("now", "better by", "lowest", "highest", "CPU")
    head = f"{'':32}{revision[:12]:>12}" + "".join(f"{column:>11}" for column in columns)
    lines = []
    for shape in SHAPES:
        labels = [label for name, label in rounds if name == shape.name]
        if labels:
            lines += ["", f"{shape.title} [{shape.name}]: {shape.unit}", head]
        for label in labels:
            compared = rounds[shape.name, label]
            before, now = (
                median(each.before for each in compared),
                median(each.now for each in compared),
            )
            better = [
                each.before / each.now if shape.is_cost else each.now / each.before for each in compared
            ]
            cpu = [each.cpu_before / each.cpu_now for each in compared if each.cpu_now]
            ratios = [median(better), min(better), max(better), *([median(cpu)] if cpu else [])]
            lines.append(
                f"{label:32}{before:>12,.1f}{now:>11,.1f}"
                + "".join(f"{ratio:>11.3f}" for ratio in ratios)
            )
    return "\n".join(lines)
