"""The ratios that the speed of this package is judged by, each in one line, and their goals."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from results import Results, number
from rows import ASYNC_DEF, COMPILED, LIMIT, OURS, TWISTED, on

__all__ = ["KINDS", "RATIOS", "SHAPES", "Ratio", "text"]

LOOPS = ("asyncio", "uvloop")


@dataclass(frozen=True)
class Ratio:
    """A row of this package compared to another; of bytes, the difference.

    `goals` are those of the pure package, on each of the loops, and of the compiled one.
    """

    title: str
    shape: str
    to: str
    goals: tuple[tuple[float, float], tuple[float, float]]
    of: str = OURS
    is_difference: bool = False

    def of_build(self, build: str) -> tuple[str, str]:
        """Return the two labels, of rows of the pure package or of the compiled one."""
        of, to = (
            f"{label}, {build}" if build and label.startswith(OURS) else label
            for label in (self.of, self.to)
        )
        return of, to

    def value(self, results: Results, build: str, loop: str) -> float | None:
        of, to = self.of_build(build)
        # (Twisted has a loop of its own.)
        labels = on(loop, of), to if to == TWISTED else on(loop, to)
        if self.is_difference:
            return results.difference(self.shape, *labels)
        return results.ratio(self.shape, *labels)

    def written(self, value: float | None) -> str:
        return number(value, 0 if self.is_difference else 2)


def _same(pure: float, compiled: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return (pure, pure), (compiled, compiled)


# (A task costs more on Python 3.11 than on later ones.)
ASYNC = 0.85 if sys.version_info < (3, 12) else 0.95

RATIOS = [
    Ratio("100 in flight, over Twisted", "in-flight", TWISTED, _same(7, 12)),
    Ratio("100 in flight, of the limit", "in-flight", LIMIT, ((0.95, 0.65), (1.3, 0.9))),
    Ratio("one after the other, of the limit", "one", LIMIT, ((0.9, 0.75), (0.95, 0.8))),
    Ratio("64 connections, of the limit", "connections", LIMIT, ((0.75, 0.65), (0.9, 0.75))),
    Ratio("`async def` responders, of plain ones", "in-flight", OURS, _same(ASYNC, ASYNC), ASYNC_DEF),
    Ratio("60,000-byte values, of the limit", "values", LIMIT, _same(0.75, 0.8)),
    Ratio("connections opened and closed, of the limit", "opening", LIMIT, _same(0.6, 0.65)),
    Ratio(
        "an idle connection, bytes more than the limit",
        "memory",
        LIMIT,
        _same(1500, 1500),
        is_difference=True,
    ),
]

#: What has to be measured for them.
SHAPES = list(dict.fromkeys(ratio.shape for ratio in RATIOS))
KINDS = ["bare", "ours", "ours-async", "twisted"]


def columns(results: Results) -> dict[str, tuple[str, str]]:
    """Return the build and the loop of each column that there are figures for, by its title."""
    labels = results.labels(SHAPES)
    return {
        " ".join([build, loop]).strip(): (build, loop)
        for build, label in (("", OURS), ("compiled", COMPILED))
        for loop in LOOPS
        if on(loop, label) in labels
    }


def text(results: Results) -> str:
    """Return the ratios, each with its goal."""
    shown = columns(results)
    if not shown:
        return ""
    lines = ["", f"{'ratio (goal)':48}" + "".join(f"{title:>20}" for title in shown)]
    for ratio in RATIOS:
        cells = []
        for build, loop in shown.values():
            value = ratio.value(results, build, loop)
            goal = ratio.goals[bool(build)][LOOPS.index(loop)]
            cells.append(f"{ratio.written(value)} ({goal:,g})")
        lines.append(f"{ratio.title:48}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)
