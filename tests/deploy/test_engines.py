"""The guide's service behind HAProxy, nginx and systemd's sockets, with the guide's configurations."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from bookings import Book, FreeRooms
from engines import (
    Services,
    free_ports,
    haproxy,
    nginx,
)

from amp_asyncio import Client

pytestmark = pytest.mark.system

PROXIES = ("--proxies", "127.0.0.1")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def in_time() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(in_time())


async def book(address: Any, guests: int = 10) -> list[int]:
    async with Client(address) as client:
        assert await client.call(FreeRooms(night="friday")) == 6
        return [await client.call(Book(night="friday", guest=f"{guest}")) for guest in range(guests)]


@pytest.mark.parametrize("engine", [haproxy, nginx], ids=["haproxy", "nginx"])
def test_behind(engine: Any, tmp_path: Path) -> None:
    ports = free_ports(4)
    with Services(ports[1:], tmp_path, *PROXIES) as services, engine(ports, tmp_path) as proxy:
        assert run(book(("127.0.0.1", ports[0]))) == [*range(1, 11)]
        # Those who come without a PROXY header are served as well.
        assert run(book(("127.0.0.1", ports[1])))
        # One that is killed is not missed.
        services.processes[0].tell(signal.SIGKILL)
        services.processes[0].wait()
        assert len(run(book(("127.0.0.1", ports[0])))) == 10
    assert "refused" not in services.output(), proxy.output()
