"""Compares two revisions of this package: one that git has, and the working tree.

The workers and the peers are those of the working tree, for both. How fast a process is depends on
where its memory happens to be, by up to a third, so each round has processes of its own. In a round,
the two take turns: REV, now, now, REV. The figure of a round is the ratio of their means.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from rows import Row
from sampling import Sample, Sampler, take_import
from shapes import SHAPES, Scale, Shape

__all__ = ["Comparison", "text"]

IMPORT = "import amp_asyncio"


@dataclass(frozen=True)
class Compared:
    """The figures of one round, and the CPU seconds of client and server, where there are calls."""

    before: float
    now: float
    cpu_before: float
    cpu_now: float


class Comparison:
    """Takes the samples; `rounds` has what they gave, by the names of the shape and the row.

    `packages` are the folders of both, the one before and the one now.
    """

    def __init__(
        self, rows: list[Row], shapes: list[Shape], scale: Scale, pem: str, packages: list[Path]
    ) -> None:
        self.rows, self.shapes, self.scale, self.pem = rows, shapes, scale, pem
        self.packages = packages
        self.rounds: dict[tuple[str, str], list[Compared]] = {}

    def round(self, turn: int) -> None:
        """Compare each row in each shape once, in new processes."""
        for shape in self.shapes:
            if shape.order == "import":
                takes = [lambda at=at: take_import(IMPORT, at) for at in self.packages]
                self._compare(shape, IMPORT, takes, turn)
        for row in self.rows:
            samplers = [Sampler(row, self.scale, self.pem, at) for at in self.packages]
            with ExitStack() as stack:
                for sampler in samplers:
                    stack.enter_context(sampler.processes())
                for shape in self.shapes:
                    if shape.has(row):
                        self._compare(shape, row.label, self._takes(shape, samplers), turn)

    def _takes(self, shape: Shape, samplers: list[Sampler]) -> list[Callable[[], Sample]]:
        """Return what takes a sample of either revision, warmed up, with as many calls of both."""
        for sampler in samplers:
            sampler.warm_up(shape)
        count = min(sampler.count(shape) for sampler in samplers)
        return [lambda sampler=sampler: sampler.take(shape, count=count) for sampler in samplers]

    def _compare(self, shape: Shape, label: str, takes: list[Callable[[], Sample]], turn: int) -> None:
        samples: tuple[list[Sample], list[Sample]] = ([], [])
        for which in (0, 1, 1, 0) if turn % 2 else (1, 0, 0, 1):
            samples[which].append(takes[which]())
        if any(sample.value is None for taken in samples for sample in taken):
            return
        before, now = (mean(sample.value or 0 for sample in taken) for taken in samples)
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
        digits = max(1, shape.digits)
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
                f"{label:32}{before:>12,.{digits}f}{now:>11,.{digits}f}"
                + "".join(f"{ratio:>11.3f}" for ratio in ratios)
            )
    return "\n".join(lines)
