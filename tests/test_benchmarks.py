"""The benchmarks run, and measure what they say; how quick anything is, is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from amp_asyncio import AmpBox

BENCHMARKS = Path(__file__).with_name("benchmarks")

# Much longer than anything here takes.
PATIENCE = 300

# Those that need nothing but what the tests need.
PEERS = "bare,coalescing,ours,ours-2,ours-async,ours-wide,twisted"

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it looks into /proc")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "run.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.slow
def test_every_shape_has_a_figure(tmp_path: Path) -> None:
    figures, chart, tables = (tmp_path / name for name in ("run.json", "chart.svg", "tables.md"))
    done = run("--quick", "--peers", PEERS, "--json", figures, "--svg", chart, "--markdown", tables)
    assert (done.returncode, done.stderr) == (0, "round 1 of 1\n")

    medians = json.loads(figures.read_text())["medians"]
    on_each_loop = {"amp_asyncio", "amp_asyncio, uvloop"}
    compared = {"limit", "limit, uvloop", "Twisted AMP"} | on_each_loop
    for shape in "one in-flight connections values tls tls-values opening memory".split():
        assert compared <= medians.pop(shape).keys()
    assert len(medians.pop("import")) == 3
    assert len(medians) == 10
    for shape, rows in medians.items():
        assert rows.keys() == on_each_loop
        assert all(figure > 0 for figure in rows.values()), shape

    assert ElementTree.parse(chart).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    # Each table is as wide as its head.
    for table in tables.read_text().split("\n\n"):
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.slow
def test_a_revision_is_compared_with_the_working_tree(tmp_path: Path) -> None:
    root = BENCHMARKS.parents[1]
    if not (root / ".git").exists():
        pytest.skip("this is not a clone")
    done = run(
        "--quick", "--against", "HEAD", "--peers", "ours,twisted", "--shapes", "one,memory,import"
    )
    assert (done.returncode, done.stderr) == (0, "round 1 of 1\n")
    rows = [
        line.split("  ")[0] for line in done.stdout.splitlines() if line.startswith(("amp", "import a"))
    ]
    assert sorted(rows) == [*2 * ["amp_asyncio"], *2 * ["amp_asyncio, uvloop"], "import amp_asyncio"]
    assert run("--against", "HEAD", "--svg", tmp_path / "chart.svg").returncode == 2


def test_what_cannot_be_compared_is_refused() -> None:
    done = run("--against", "no-such-revision")
    assert done.returncode == 1
    assert "git cannot show no-such-revision: " in done.stderr


def test_unknown_names_are_refused() -> None:
    done = run("--shapes", "one,twice")
    assert done.returncode == 1
    assert done.stderr.startswith("unknown: twice; there are one, in-flight, ")


def test_the_limit_sends_the_bytes_of_amp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from peers import bare

    tag = bare.TAG
    question = AmpBox(_ask=tag, _command=b"Sum", a=b"13", b=b"81")
    assert bare.question(0) == question.serialize()
    assert bare.answer(0) == AmpBox(_answer=tag, total=b"94").serialize()
    echo = AmpBox(_ask=tag, _command=b"Echo", data=b"x" * 60_000)
    assert bare.question(60_000) == echo.serialize()
    assert bare.answer(60_000) == AmpBox(_answer=tag, data=b"x" * 60_000).serialize()
