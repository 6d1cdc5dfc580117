"""The chart of README.md: bars of calls per second, in SVG made by hand.

It has a background of its own, since a page may be dark.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from results import Results
from rows import COALESCING, OURS, TWISTED, limit_of
from shapes import SHAPES

__all__ = ["svg"]

SHOWN = ["one", "in-flight", "timeouts", "typed", "connections", "stream"]

WIDTH, LEFT, RIGHT = 800, 210, 290
BAR, GAP, MARGIN = 14, 5, 24
COLOURS = {"ours": "#2f6fdb", "limit": "#b9c0ca", "other": "#7d8794"}


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{style}>{escape(words)}</text>'


def _is_left_out(label: str) -> bool:
    # A bar that is ten times as long would leave nothing of the others to compare.
    return label.startswith(COALESCING) or "version 2" in label or "async def" in label


def _colour(label: str) -> str:
    if label.startswith(OURS):
        return COLOURS["ours"]
    return COLOURS["limit" if label.startswith("limit") else "other"]


def svg(results: Results) -> str:
    """Return the chart of the shapes that were run, of those that it shows."""
    body = []
    y = MARGIN
    titles = {shape.name: f"{shape.title}, {shape.unit}" for shape in SHAPES}
    for name in SHOWN:
        labels = [label for label in results.labels([name]) if not _is_left_out(label)]
        if not labels:
            continue
        y += BAR
        body.append(_text(MARGIN, y, titles[name], ' class="title"'))
        y += GAP + 4
        most = max(results.median(name, label) or 0 for label in labels)
        for label in labels:
            value = results.median(name, label) or 0
            width = max(1, value / most * (WIDTH - LEFT - RIGHT))
            middle = y + BAR - 3
            body += [
                _text(LEFT - 8, middle, label, ' text-anchor="end"'),
                f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"'
                f' fill="{_colour(label)}"/>',
                _text(LEFT + width + 8, middle, _words(results, name, label, value)),
            ]
            y += BAR + GAP
        y += MARGIN // 2
    for line in (f"{results.medians()}", *results.machine):
        y += 14
        body.append(_text(MARGIN, y, line, ' class="note"'))
    height = y + MARGIN - 4
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" aria-label="Calls per second of each peer">',
        "<style>text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}"
        ".title{font-weight:600;font-size:13px}.note{font-size:10px;fill:#57606a}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff" stroke="#d0d7de"/>',
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def _words(results: Results, name: str, label: str, value: float) -> str:
    """The figure of a bar, and what it is of the limit on the same loop, and of Twisted's."""
    limit = results.ratio(name, label, limit_of(label))
    twisted = results.ratio(name, label, TWISTED) if label.startswith(OURS) else None
    words = [f"{limit:.2f} of the limit"] if limit else []
    words += [f"{twisted:.1f} times Twisted"] if twisted else []
    return f"{value:,.0f}" + (f"  ({', '.join(words)})" if words else "")
