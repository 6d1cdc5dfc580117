"""The rounds of a run: in each, every shape is run by each of its peers, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from results import Samples
from rows import Row
from sampling import Sample, Sampler, take_import
from shapes import IMPORTS, Scale, Shape

__all__ = ["Rounds"]


class Rounds:
    """Takes the samples; `samples` has them by the name of the shape and the label of the row."""

    def __init__(
        self,
        rows: list[Row],
        shapes: list[Shape],
        scale: Scale,
        pem: str,
        builds: Mapping[str, Path | None],
    ) -> None:
        self.shapes, self.scale = shapes, scale
        self.samples: Samples = {}
        self._samplers = [Sampler(row, scale, pem, builds[row.build]) for row in rows]

    @contextmanager
    def processes(self) -> Iterator[None]:
        """Start the processes, and warm them up: the first calls fill caches, and settle the counts."""
        with ExitStack() as stack:
            for sampler in self._samplers:
                if any(shape.has(sampler.row) and shape.is_kept for shape in self.shapes):
                    stack.enter_context(sampler.processes())
            for shape in self.shapes:
                for sampler in self._of(shape):
                    sampler.warm_up(shape)
            yield

    def _of(self, shape: Shape) -> list[Sampler]:
        return [sampler for sampler in self._samplers if shape.has(sampler.row)]

    def round(self, turn: int) -> None:
        """Take a sample of each shape from each of its peers (and a few of the imports)."""
        for shape in self.shapes:
            if not shape.is_kept and turn >= self.scale.few:
                continue
            if shape.order == "import":
                self._imports(shape)
                continue
            samplers = self._of(shape)
            # No peer is always first, or always follows the same one's garbage.
            first = turn % max(1, len(samplers))
            for sampler in samplers[first:] + samplers[:first]:
                self._add(shape, sampler.row.label, sampler.take(shape, turn))

    def _imports(self, shape: Shape) -> None:
        for _ in range(self.scale.imports):
            for label, needs in IMPORTS.items():
                if find_spec(needs):
                    self._add(shape, label, take_import(label))

    def _add(self, shape: Shape, label: str, sample: Sample) -> None:
        self.samples.setdefault(shape.name, {}).setdefault(label, []).append(sample)
