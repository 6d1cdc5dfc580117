"""The soak and the fuzzer, in short: what they find in minutes, they would mostly find in seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# Much longer than anything here takes.
PATIENCE = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it looks into /proc"),
]


def output_of(script: str, *arguments: str) -> str:
    """Run a script that checks itself, see that it finds nothing, and return what it prints."""
    command = [sys.executable, "-W", "default", str(TESTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.mark.parametrize("over", [[], ["--unix"]], ids=["tcp", "unix"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_soak(loop: str, over: list[str]) -> None:
    output = output_of("soak.py", "3", "--loop", loop, *over)
    assert output.startswith(f"3 s on {loop}")
    assert output.endswith("it adds up\n")


def test_made_up_input() -> None:
    assert "connections ended with: " in output_of("fuzz_parser.py", "4")


@pytest.mark.parametrize("seed", ["1", "2"])
def test_spoilt_conversations(seed: str) -> None:
    output = output_of("fuzz_parser.py", "--mutations", "1000", "--seed", seed)
    assert "inputs: 1,009" in output


def test_soak_of_streams() -> None:
    output = output_of("soak_streams.py", "--items", "20000", "--streams", "3")
    assert "60000 items, " in output


def test_outcomes_are_the_same_each_time() -> None:
    output = output_of("outcomes.py", "--inputs", "200")
    assert output.count("\n") > 5000
    assert output_of("outcomes.py", "--inputs", "200") == output
