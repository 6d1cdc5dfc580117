"""What came out, as text."""

from __future__ import annotations

from statistics import median

import ratios
from results import Results, number
from rows import TWISTED, limit_of
from shapes import SHAPES, Shape

__all__ = ["text"]


def text(results: Results) -> str:
    """Return a table for each shape: medians, the span of the samples, ratios and CPU seconds."""
    lines = []
    for shape in SHAPES:
        if shape.name in results.samples:
            lines += ["", f"{shape.title} [{shape.name}]: {shape.unit}"]
            lines += _parts(results, shape) if shape.parts else _figures(results, shape)
    return "\n".join([*lines, ratios.text(results)])


def _figures(results: Results, shape: Shape) -> list[str]:
    lines = [
        f"{'':34}{'median':>10} {'lowest':>10} {'highest':>10} {'/ Twisted':>10} {'/ limit':>8}"
        f"   {'CPU s per 100,000: client':>25} {'server':>7}",
    ]
    for label in results.samples[shape.name]:
        values = results.values(shape.name, label)
        cpu = results.cpu(shape.name, label) or (None, None)
        lines.append(
            f"{label:34}"
            + " ".join(f"{number(each(values), shape.digits):>10}" for each in (median, min, max))
            + f" {number(results.ratio(shape.name, label, TWISTED), 2):>10}"
            f" {number(results.ratio(shape.name, label, limit_of(label)), 2):>8}"
            f"   {number(cpu[0], 2):>25} {number(cpu[1], 2):>7}"
        )
    return lines


def _parts(results: Results, shape: Shape) -> list[str]:
    lines = [f"{'':34}" + " ".join(f"{part:>10}" for part in shape.parts)]
    for label in results.samples[shape.name]:
        parts = results.parts(shape.name, label) or [None] * len(shape.parts)
        lines.append(f"{label:34}" + " ".join(f"{number(part, shape.digits):>10}" for part in parts))
    return lines
