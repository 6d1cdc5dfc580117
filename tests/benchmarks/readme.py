"""What came out, in Markdown: the section "Results" of README.md, and a table of the front page."""

from __future__ import annotations

from pathlib import Path

import ratios
from results import Results, number
from rows import OURS, TWISTED
from shapes import GROUPS, SHAPES, Shape

__all__ = ["replace_results", "section"]

TITLE = "## Results\n"
CHART = "![Bar chart of the calls per second of each peer](results.svg)\n"
GROWTH = "with a window of 64 MiB"

#: The table of the front page: its columns, and its rows with their titles there.
FRONT_LABELS = [OURS, TWISTED, "websockets + msgpack", "grpc.aio"]
FRONT_SHAPES = {
    "in-flight": "100 calls in flight",
    "one": "one call after the other",
    "memory": "memory of an idle connection, bytes",
}
FRONT_HEAD = f"| | {' | '.join(FRONT_LABELS)} |\n"


def replace_results(root: Path, results: Results) -> Path:
    """Put the results into both README.md of the project, and return the folder of the chart."""
    benchmarks = root / "tests" / "benchmarks"
    _replace_section(benchmarks / "README.md", results)
    _replace_front(root / "README.md", results)
    return benchmarks


def _replace_front(readme: Path, results: Results) -> None:
    rows = [
        [title, *(number(results.median(name, label)) for label in FRONT_LABELS)]
        for name, title in FRONT_SHAPES.items()
    ]
    before, _, after = readme.read_text().partition(FRONT_HEAD)
    _, _, rest = after.partition("\n\n")
    table = _table(["", *FRONT_LABELS], rows).replace("|  |", "| |", 1)
    readme.write_text(f"{before}{table}\n{rest}")


def _replace_section(readme: Path, results: Results) -> None:
    text = readme.read_text()
    start = text.index(f"\n{TITLE}") + 1
    following = text.find("\n## ", start)
    rest = text[following:] if following >= 0 else ""
    readme.write_text(text[:start] + section(results) + rest)


def section(results: Results) -> str:
    """Return the section: its tables, and the machine."""
    blocks = [TITLE, CHART]
    for group, title in GROUPS.items():
        shapes = _shown(results, group)
        if shapes:
            blocks += [f"### {title.capitalize()}\n", _figures(results, shapes)]
    rates = [shape for name in GROUPS for shape in _shown(results, name) if not shape.is_cost]
    blocks += _titled("Ratios", _ratios(results))
    blocks += _titled("Calls per second of one core", _per_core(results, rates))
    blocks += _titled("CPU time", _cpu(results, rates))
    blocks += _titled("Latency at a fixed rate", _latency(results))
    blocks += _titled("As more is under way", _growth(results))
    blocks += _titled("Import", _imports(results))
    machine = " ".join([results.medians(), *(f"{line}." for line in results.machine)])
    return "\n".join([*blocks, f"{machine}\n"])


def _shown(results: Results, group: str) -> list[Shape]:
    return [shape for shape in SHAPES if shape.group == group and shape.name in results.samples]


def _titled(title: str, table: str) -> list[str]:
    return [f"### {title}\n", table] if table else []


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    align = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, align, *rows))


def _names(shapes: list[Shape]) -> list[str]:
    return [shape.name for shape in shapes]


def _figures(results: Results, shapes: list[Shape]) -> str:
    rows = []
    for label in results.labels(_names(shapes)):
        cells = []
        for shape in shapes:
            cell = number(results.median(shape.name, label), shape.digits)
            parts = results.parts(shape.name, label)[1:]
            cell += f" ({' + '.join(number(part) for part in parts)})" if parts else ""
            cells.append(cell)
        rows.append([label, *cells])
    return _table(["", *(f"{shape.title}, {shape.unit}" for shape in shapes)], rows)


def _ratios(results: Results) -> str:
    columns = ratios.columns(results)
    rows = []
    for ratio in ratios.RATIOS:
        values = [ratio.value(results, build, loop) for build, loop in columns.values()]
        if any(value is not None for value in values):
            rows.append([ratio.title, *(ratio.written(value) for value in values)])
    return _table(["", *columns], rows)


def _cpu(results: Results, shapes: list[Shape]) -> str:
    rows = []
    for label in results.labels(_names(shapes)):
        cells = []
        for shape in shapes:
            cpu = results.cpu(shape.name, label)
            cells.append(f"{cpu[0]:.1f} + {cpu[1]:.1f}" if cpu else "-")
        rows.append([label, *cells])
    return _table(["seconds per 100,000, client + server", *(shape.title for shape in shapes)], rows)


def _per_core(results: Results, shapes: list[Shape]) -> str:
    rows = []
    for label in results.labels(_names(shapes)):
        cells = []
        for shape in shapes:
            cpu = results.cpu(shape.name, label)
            cells.append(number(1e5 / sum(cpu)) if cpu and sum(cpu) else "-")
        rows.append([label, *cells])
    return _table(["", *(shape.title for shape in shapes)], rows)


def _latency(results: Results) -> str:
    shapes = _shown(results, "latency")
    rows = []
    for label in results.labels(_names(shapes)):
        cells = []
        for shape in shapes:
            parts = results.parts(shape.name, label) or [None] * len(shape.parts)
            cells += [number(part, shape.digits) for part in parts]
        rows.append([label, *cells])
    head = [f"{shape.title}: {part}, ms" for shape in shapes for part in shape.parts]
    return _table(["", *head], rows)


def _growth(results: Results) -> str:
    shapes = _shown(results, "growth")
    labels = results.labels(_names(shapes))
    rows = [
        [shape.title, *(number(results.median(shape.name, label)) for label in labels)]
        for shape in shapes
    ]
    return _table([GROWTH, *(f"{label}, calls/s" for label in labels)], rows)


def _imports(results: Results) -> str:
    rows = []
    for label in results.samples.get("import", {}):
        ratio = results.ratio("import", label, "import asyncio")
        rows.append([f"`{label}`", number(results.median("import", label), 1), number(ratio, 2)])
    return _table(["", "ms", "÷ `import asyncio`"], rows)
