"""Clients that are killed leave nothing behind on the server."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from proc import open_descriptors
from support import Wait
from ways import serving

from amp_asyncio import AMP, Limits

PROGRAM = Path(__file__).with_name("killed_clients.py")
PROCESSES = 4
CLIENTS = 200


class Deadlocked(AMP):
    """Its responder waits until its own connection is gone."""

    began = 0
    ended = 0
    all_began: asyncio.Event

    @Wait.responder
    async def wait(self, name: str) -> dict[str, str]:
        cls = type(self)
        cls.began += 1
        if cls.began == CLIENTS:
            cls.all_began.set()
        try:
            await self.wait_closed()
        finally:
            cls.ended += 1
        return {"name": name}


async def killed_clients(way: str, *where: str) -> None:
    """Have processes connect and ask, and kill them when all have asked."""
    each = str(CLIENTS // PROCESSES)
    started = [
        asyncio.create_subprocess_exec(sys.executable, str(PROGRAM), each, way, *where, stdout=PIPE)
        for _ in range(PROCESSES)
    ]
    processes = await asyncio.gather(*started)
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            await process.communicate()


@pytest.mark.system
@pytest.mark.parametrize("way", ["tcp", "tls", "unix"])
async def test_killed_clients_leave_nothing(way: str) -> None:
    class Served(Deadlocked):
        all_began = asyncio.Event()

    async with serving(way, Served, limits=Limits(eof_timeout=0.2), backlog=CLIENTS) as server:
        await start_a_process()  # So that what is opened once is open.
        descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
        name = server.sockets[0].getsockname()
        where = [name] if isinstance(name, str) else [name[0], str(name[1])]
        async with asyncio.timeout(60):
            await killed_clients(way, *where)
            await Served.all_began.wait()
        try:
            async with asyncio.timeout(60):
                while (
                    server.connections
                    or open_descriptors() > descriptors
                    or len(asyncio.all_tasks()) > tasks
                ):
                    await asyncio.sleep(0.01)
        finally:
            left = (len(server.connections), open_descriptors(), len(asyncio.all_tasks()))
            for amp in server.connections:
                amp.abort()
        assert left == (0, descriptors, tasks)
        assert Served.began == Served.ended == CLIENTS


async def start_a_process() -> None:
    """Start and end a process, for the descriptors that the event loop keeps afterwards."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", stdout=PIPE)
    await process.communicate()
