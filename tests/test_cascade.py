"""A call through three processes ends in the third when it ends in the first."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import Patient, at_any_pace

from amp_asyncio import serve

PROGRAM = str(Path(__file__).with_name("cascade.py"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cancel", "timeout", "killed"])
@at_any_pace
async def test_nothing_runs_in_the_third_any_more(how: str, pace: float) -> None:
    started: list[Any] = []

    async def start(*arguments: str) -> tuple[Any, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, *arguments, stdin=PIPE, stdout=PIPE
        )
        started.append(process)
        assert process.stdout is not None
        return process, (await process.stdout.readline()).decode().strip()

    async with serve(Patient, "127.0.0.1", 0) as server:
        try:
            _, port = await start("middle", str(server.sockets[0].getsockname()[1]))
            first, _ = await start("first", port, how, str(0.5 * pace))
            [third] = server.connections
            name = await third.started.get()  # type: ignore[attr-defined]
            gate = third.gate(name)  # type: ignore[attr-defined]
            if how == "killed":
                first.kill()
            first.stdin.write(b"\n")
            # It is told: a keepalive would take 90 seconds to find that out.
            async with asyncio.timeout(15):
                await asyncio.wait([gate])
            assert gate.cancelled()
        finally:
            for process in started:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()
