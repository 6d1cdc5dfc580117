"""What the tests of the engines say on a machine that has none of them, and to a user without root."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

HERE = Path(__file__).parent

# A plugin for the run that is looked at.
WITHOUT = """
import os
import shutil

shutil.which = lambda name, *arguments, **options: None
os.geteuid = lambda: 1000
"""

REASONS = {
    "there is no haproxy: apt-get install haproxy",
    "there is no nginx: apt-get install nginx libnginx-mod-stream",
    "there is no systemd-socket-activate: apt-get install systemd",
    "a DNS server needs root",
}


def test_each_test_that_is_skipped_says_why(tmp_path: Path) -> None:
    (tmp_path / "without_engines.py").write_text(WITHOUT)
    path = os.pathsep.join([str(tmp_path), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "without_engines"]
    # These are the options of `.ci/run`.
    options = ["-n", "0", "-rs", "-m", "slow or system", HERE / "test_engines.py"]
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": path},
    )
    said = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {*said} == REASONS, done.stdout
