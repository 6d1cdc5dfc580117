"""The scenarios of `load.py`, each in its short form, as a program of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LOAD = Path(__file__).with_name("load.py")

# Much longer than it takes.
PATIENCE = 1200


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_all_scenarios_in_short(loop: str) -> None:
    done = subprocess.run(
        [sys.executable, LOAD, "--short", "--loop", loop],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    failed = [line for line in done.stdout.splitlines() if not line.startswith("PASS ")]
    assert not failed, "\n".join(failed)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
