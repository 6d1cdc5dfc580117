"""The fixtures for pytest, and what is imported when."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import Math, Sum

from amp_asyncio.testing import Faults, Identity, PairMaker, ScriptedPeer, pair

pytest_plugins = ["amp_asyncio.testing.plugin", "pytester"]


async def test_pairs_end_with_the_test(amp_pair: PairMaker) -> None:
    server, client = await amp_pair(Math, Math)
    assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
    assert await server.callRemote(Sum, a=1, b=2) == {"total": 3}
    _, other = await amp_pair(Math, client_identity=Identity("somebody"))
    assert await other.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_a_scripted_peer(scripted_peer: ScriptedPeer, faults: Faults) -> None:
    scripted_peer.expect(Sum, a=1).answer({"total": 3})
    async with pair(scripted_peer, faults=faults) as (_, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
    assert faults.to_client.crossed > 0


def test_a_test_fails_whose_script_was_not_followed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from amp_asyncio import Command

        pytest_plugins = ["amp_asyncio.testing.plugin"]

        class Ping(Command):
            pass

        def test_nothing(scripted_peer):
            scripted_peer.expect(Ping)

        async def test_too_little(amp_pair, scripted_peer):
            await amp_pair(scripted_peer)
            scripted_peer.expect(Ping)
        """
    )
    pytester.makeini("[pytest]\nasyncio_mode=auto\nasyncio_default_fixture_loop_scope=function")
    outcome = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    outcome.assert_outcomes(passed=2, errors=2)
    outcome.stdout.fnmatch_lines(["*AssertionError: Ping() did not come"])


def test_what_is_imported_when() -> None:
    program = f"""
import sys
sys.path[:] = {sys.path!r}
import amp_asyncio
print([name for name in sys.modules if name.startswith("amp_asyncio.testing")])
import amp_asyncio.testing
print([name for name in ("pytest", "pytest_asyncio", "cryptography") if name in sys.modules])
"""
    # Without `site`, and whatever a .pth file there may import.
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"
