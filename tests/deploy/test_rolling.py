"""Restarts and losses of servers under load, many clients, and pools: short forms of the programs."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import herd
import pools
import pytest
import rolling

pytestmark = pytest.mark.system


@pytest.mark.parametrize("way", ["haproxy", "resolver"])
def test_restarts_fail_no_call(way: str, tmp_path: Path) -> None:
    timeout = 8.0
    found = asyncio.run(rolling.measure(way, 30, tmp_path, grace=2, timeout=timeout))
    for phase in ("steady", "restarts", "after"):
        outcomes = found[phase]
        assert outcomes.answered >= 30, found["log"]
        assert outcomes.failed == [], f"{phase}: {outcomes.report()} {found['log']}"
    if way == "haproxy":
        answered, failed = found["twisted"]
        assert answered > 5
        assert failed == [], found["log"]
    # What a retry can save is saved. Anything else fails once, in its time.
    for phase in ("stopped", "killed"):
        for command, error, sent, seconds in found[phase].failed:
            # On a slow machine, the time of a call may be over before a retry has saved it.
            in_time = seconds < timeout * 0.9
            assert (command, error, sent) == ("Book", "ConnectionLost", True) or not in_time
            assert seconds < timeout * 5
    assert found["certificates"] == [1], "the new one is in use everywhere"


def test_a_herd_comes_back_spread_over_seconds() -> None:
    found = asyncio.run(herd.measure(100, 4.0))
    assert found["in_time"] == found["answered"] == len(found["back"]) == 100
    # They do not spin: each waits for 0.1 s at least, and for longer after each failure.
    assert 100 <= found["attempts"] < 2_000
    # What spreads them is when they want to come back; when they are back is up to the machine as well.
    each_second = Counter(map(int, found["due"]))
    assert max(each_second.values()) < 70, each_second


@pytest.mark.parametrize("command", [pools.Squares, pools.Repeatable])
def test_a_pool_whose_children_are_killed(command: type[pools.Squares]) -> None:
    found = asyncio.run(pools.killed(1_000, 8, 0.5, command))
    assert found["answered"] + found["failed"] == 1_000
    assert found["wrong"] == []
    if command is pools.Repeatable:
        assert found["failed"] == 0
    assert found["kills"] >= 1


def test_pools_side_by_side() -> None:
    for measured in (
        asyncio.run(pools.undisturbed(200, 8)),
        asyncio.run(pools.executor(200, 8)),
        pools.ampoule(200, 8),
    ):
        assert measured > 0
