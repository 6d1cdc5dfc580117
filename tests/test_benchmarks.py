"""The benchmarks run, and measure what they say; how quick anything is, is not looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from amp_asyncio import AmpBox

BENCHMARKS = Path(__file__).with_name("benchmarks")

# Much longer than anything here takes.
PATIENCE = 300

# Those that need nothing but what the tests need.
PEERS = "bare,coalescing,ours,ours-2,ours-async,ours-wide,twisted,aiohttp"

# Those that are measured where they are installed, and what each needs.
OTHERS = {"websockets": "websockets", "grpc": "grpc", "capnp": "capnp", "rpyc": "rpyc"}

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it looks into /proc")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "run.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.slow
def test_every_shape_has_a_figure(tmp_path: Path) -> None:
    figures, front = tmp_path / "run.json", tmp_path / "README.md"
    folder = tmp_path / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    readme, chart = folder / "README.md", folder / "results.svg"
    readme.write_text("# Speed\n\n## Results\n\nold\n\n## More\n\nkept\n")
    shutil.copy(BENCHMARKS.parents[1] / "README.md", front)
    page = front.read_text()
    done = run("--quick", "--peers", PEERS, "--json", figures, "--readme", tmp_path)
    assert (done.returncode, done.stderr) == (0, "round 1 of 1\n")

    medians = json.loads(figures.read_text())["medians"]
    on_each_loop = {"amp_asyncio", "amp_asyncio, uvloop"}
    limits = {"limit", "limit, uvloop"}
    compared = {"aiohttp", "Twisted AMP"} | limits | on_each_loop
    for shape in "one in-flight timeouts connections values tls tls-values opening memory".split():
        assert compared <= medians.pop(shape).keys()
    for shape in "paced-2000", "paced-10000":
        assert compared == medians.pop(shape).keys()
    assert {"aiohttp"} | limits | on_each_loop == medians.pop("stream").keys()
    assert medians.pop("typed").keys() == on_each_loop
    assert medians.pop("questions").keys() == {"Twisted AMP"} | on_each_loop
    assert len(medians.pop("import")) == 3
    assert len(medians) == 10
    for shape, rows in medians.items():
        assert rows.keys() == on_each_loop
        assert all(figure > 0 for figure in rows.values()), shape

    assert ElementTree.parse(chart).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    written = readme.read_text()
    assert written.startswith("# Speed\n\n## Results\n\n![")
    assert written.endswith("\n\n## More\n\nkept\n")
    assert "old" not in written
    # On the front page, three numbers of each peer have changed, and nothing else.
    changed = [
        (old, new)
        for old, new in zip(page.splitlines(), front.read_text().splitlines(), strict=True)
        if old != new
    ]
    assert len(changed) == 3
    for old, new in changed:
        assert old.split("|")[1] == new.split("|")[1]
    # Each table is as wide as its head.
    tables = [block for block in written.split("\n\n") if block.startswith("|")]
    assert len(tables) == 9
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.slow
def test_other_peers_are_measured_where_they_are_installed(tmp_path: Path) -> None:
    shapes = "one,in-flight,timeouts,connections,values,tls,stream,opening,paced-2000"
    figures = tmp_path / "run.json"
    done = run("--quick", "--peers", ",".join(OTHERS), "--shapes", shapes, "--json", figures)
    assert done.returncode == 0
    medians = json.loads(figures.read_text())["medians"]
    missing = [line for line in done.stderr.splitlines() if line.startswith("left out: ")]
    present = [name for name, module in OTHERS.items() if find_spec(module)]
    assert len(missing) + len(present) == len(OTHERS)
    for shape in shapes.split(",") if present else []:
        assert len(medians[shape]) == len(present)


@pytest.mark.slow
def test_the_targets_are_printed_with_their_goals() -> None:
    done = run("--quick", "--targets")
    assert (done.returncode, done.stderr) == (0, "round 1 of 1\n")
    head, *lines = done.stdout.split("\n\n")[1].splitlines()
    assert head.split() == ["ratio", "(goal)", "asyncio", "uvloop"]
    assert len(lines) == 8
    assert all(line.count("(") == 2 and "-" not in line.split("  ")[1:] for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(
    "TEST_COMPILING" not in os.environ, reason="TEST_COMPILING is not set: it takes minutes"
)
def test_the_compiled_package_has_rows_of_its_own(tmp_path: Path) -> None:
    figures = tmp_path / "run.json"
    done = run("--quick", "--compiled", "--peers", "ours", "--shapes", "one,stream", "--json", figures)
    assert (done.returncode, done.stderr) == (0, "compiling\nround 1 of 1\n")
    medians = json.loads(figures.read_text())["medians"]
    on_asyncio = {"amp_asyncio", "amp_asyncio, compiled"}
    assert medians["one"].keys() == on_asyncio | {f"{label}, uvloop" for label in on_asyncio}


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


@pytest.mark.slow
def test_every_row_of_the_streams_has_a_figure() -> None:
    rows = "switch,amp_asyncio,wide window,items,calls in flight,latency"
    options = "--rounds 1 --megabytes 3 --sizes 70000 --items 1000 --seconds 0.5".split()
    command = [sys.executable, BENCHMARKS / "streams.py", *options, "--rows", rows]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    size, *lines = done.stdout.splitlines()
    assert size == "70,000 bytes a piece"
    assert [line[: len(row)] for line, row in zip(lines, rows.split(","), strict=True)] == rows.split(
        ","
    )


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
    assert bare.question("sum") == question.serialize()
    assert bare.answer("sum") == AmpBox(_answer=tag, total=b"94").serialize()
    echo = AmpBox(_ask=tag, _command=b"Echo", data=b"x" * 60_000)
    assert bare.question("echo") == echo.serialize()
    assert bare.answer("echo") == AmpBox(_answer=tag, data=b"x" * 60_000).serialize()
    item = AmpBox(_command=b"_item", answer=tag, item=b"12345")
    assert bare.answer("items") == item.serialize()
