"""What type checkers say about code that uses the package: `typing_cases/` has it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CASES = Path(__file__).parent / "typing_cases"

Errors = dict[str, set[int]]


def mypy(folder: Path) -> Errors:
    """Return the lines of each file in which mypy finds an error."""
    pytest.importorskip("mypy")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache")),
            *("--no-error-summary", *map(str, folder.glob("*.py"))),
        ],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors: Errors = {}
    for file, line in re.findall(r"(\w+\.py):(\d+): error:", done.stdout):
        errors.setdefault(file, set()).add(int(line))
    return errors


def pyright(folder: Path) -> Errors:
    """Return the lines of each file in which pyright finds an error."""
    pytest.importorskip("pyright")
    config = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors: Errors = {}
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        if each["severity"] == "error":
            line = each["range"]["start"]["line"] + 1
            errors.setdefault(Path(each["file"]).name, set()).add(line)
    return errors


@pytest.mark.slow
@pytest.mark.parametrize("check", [mypy, pyright])
def test_right_lines_pass_and_wrong_ones_do_not(
    check: Callable[[Path], Errors], tmp_path: Path
) -> None:
    marked: Errors = {}
    for case in CASES.glob("*.py"):
        text = case.read_text()
        (tmp_path / case.name).write_text(text)
        lines = enumerate(text.splitlines(), 1)
        wrong = {number for number, line in lines if re.search(r"# E\d+ ", line)}
        if wrong:
            marked[case.name] = wrong
    assert marked.keys() == {"wrong.py"}
    assert check(tmp_path) == marked
