"""The attacks of `attacks/run.py`, each in its short form, as a program of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ATTACKS = Path(__file__).with_name("attacks") / "run.py"

# Much longer than it takes.
PATIENCE = 1200


@pytest.mark.parametrize("server", ["asyncio", "uvloop"])
def test_all_attacks_in_short(server: str) -> None:
    done = subprocess.run(
        [sys.executable, ATTACKS, "--short", "--servers", server],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert len(rows) > 10
    for title, _, memory, _, _, log, _, left in rows:
        assert float(memory) < 64, title
        assert int(log.replace(",", "")) < 64_000, title
        assert int(left) <= 0, title
