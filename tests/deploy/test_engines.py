"""The guide's service behind HAProxy, nginx and systemd's sockets, with the guide's configurations."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from bookings import Book, FreeRooms
from engines import (
    EXAMPLES,
    ROOT,
    SERVICE,
    Dnsmasq,
    Services,
    free_ports,
    haproxy,
    listens,
    nginx,
    program,
    running,
    wait_until,
)

from amp_asyncio import Client

pytestmark = pytest.mark.system

RESOLVING = Path(__file__).with_name("resolving.py")
OPTIONS = ("--proxies", "127.0.0.1", "--grace", "0.1")


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
    with Services(ports[1:], tmp_path, *OPTIONS) as services, engine(ports, tmp_path) as proxy:
        assert run(book(("127.0.0.1", ports[0]))) == [*range(1, 11)]
        # Those who come without a PROXY header are served as well.
        assert run(book(("127.0.0.1", ports[1])))
        # One that is killed is not missed.
        services.processes[0].tell(signal.SIGKILL)
        services.processes[0].wait()
        assert len(run(book(("127.0.0.1", ports[0])))) == 10
    assert "refused" not in services.output(), proxy.output()


def connections_at(ports: Sequence[int]) -> list[int]:
    """Return how many connections are open at each of these ports of this machine."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # "01" is ESTABLISHED.
    local = [int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "01"]
    return [local.count(port) for port in ports]


def test_a_service_that_is_added_gets_its_share(tmp_path: Path) -> None:
    """By `max_connection_age` alone: the clients know only the address of HAProxy."""
    ports, count = free_ports(4), 30
    services = Services(ports[1:3], tmp_path, *OPTIONS, "--age", "1")
    third = Services(ports[3:], tmp_path, *OPTIONS, "--age", "1")
    samples: list[list[int]] = []

    async def ask(client: Client[Any], over: asyncio.Event) -> int:
        answered = 0
        while not over.is_set():
            assert await client.call(FreeRooms(night="friday"), timeout=10) == 6
            answered += 1
            await asyncio.sleep(0.02)
        return answered

    async def work() -> int:
        async with contextlib.AsyncExitStack() as stack:
            address, over = ("127.0.0.1", ports[0]), asyncio.Event()
            clients = [await stack.enter_async_context(Client(address)) for _ in range(count)]
            asking = [asyncio.ensure_future(ask(client, over)) for client in clients]
            while min(connections_at(ports[1:3])) < count / 3:
                await asyncio.sleep(0.02)
            await asyncio.to_thread(stack.enter_context, third)
            while connections_at(ports[3:])[0] < count / 5:
                await asyncio.sleep(0.02)
            # Everybody comes back elsewhere now, and again: the shares are those of two seconds.
            end = asyncio.get_running_loop().time() + 2
            while asyncio.get_running_loop().time() < end:
                samples.append(connections_at(ports[1:]))
                await asyncio.sleep(0.02)
            over.set()
            return sum(await asyncio.gather(*asking))

    with services, haproxy(ports, tmp_path):
        assert run(work()) > count
    shares = [sum(share) for share in zip(*samples, strict=True)]
    assert max(shares) < 1.2 * min(shares), shares


# --- systemd ---


def test_sockets_of_systemd(tmp_path: Path) -> None:
    """The socket is there before the service; the service takes it, and ends when it is told to."""
    activate = program("systemd-socket-activate", "systemd")
    [port] = free_ports(1)
    command = [activate, f"--listen=127.0.0.1:{port}", "-E", f"PYTHONPATH={ROOT}", sys.executable]
    with running([*command, SERVICE, "--grace", "0.1"], tmp_path / "log") as process:
        wait_until(lambda: "Listening on" in process.output(), process.output())
        assert run(book(f"127.0.0.1:{port}")) == [*range(1, 11)]
        # It was replaced by the service, which has its process ID.
        process.tell(signal.SIGTERM)
        assert process.wait() == 0, process.output()


# --- DNS ---


class Clients:
    """A process of `resolving.py`."""

    def __init__(self, dns: Dnsmasq, kind: str, name: str, connections: int) -> None:
        command = dns.command(sys.executable, RESOLVING, kind, name, str(connections), "0.2")
        path = f"{ROOT}:{EXAMPLES}"
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        with self.process:
            pass

    def hosts(self, calls: int = 0) -> dict[str, int]:
        """Return how many connections there are to each address, after so many calls."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(calls, file=self.process.stdin, flush=True)
        hosts: dict[str, int] = json.loads(self.process.stdout.readline())
        return hosts

    def wait_for(self, expected: dict[str, int]) -> None:
        wait_until(lambda: self.hosts() == expected, f"{expected}, and not {self.hosts()}")


@pytest.mark.parametrize("kind", ["name", "srv"])
def test_answers_of_a_dns_server_that_change(kind: str, tmp_path: Path) -> None:
    hosts = [f"127.0.0.{number}" for number in (2, 3, 4)]

    def records(*used: str) -> list[str]:
        found = [f"--host-record=h{host[-1]}.example.org,{host}" for host in used]
        found += [f"--host-record=hotel.example.org,{host}" for host in used]
        found += [f"--srv-host=_hotel._tcp.example.org,h{host[-1]}.example.org,{port}" for host in used]
        return found

    [port] = free_ports(1)
    name = f"hotel.example.org:{port}" if kind == "name" else "_hotel._tcp.example.org"
    arguments = [sys.executable, SERVICE, "--listen"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Dnsmasq(tmp_path) as dns, contextlib.ExitStack() as stack:
        for host in hosts:
            command = [*arguments, f"{host}:{port}"]
            stack.enter_context(running(command, tmp_path / f"{host}.log", env=environment))
            wait_until(lambda host=host: listens(port, host), host)  # type: ignore[misc]
        dns.answer(*records(hosts[0]))
        clients = stack.enter_context(Clients(dns, kind, name, 30))
        clients.hosts(100)
        clients.wait_for({hosts[0]: 30})
        # Two more machines: they get their part, and no call fails.
        dns.answer(*records(*hosts))
        wait_until(lambda: clients.hosts(20) == dict.fromkeys(hosts, 10), f"{clients.hosts()}")
        # One is taken away: nothing goes there any more.
        dns.answer(*records(*hosts[1:]))
        wait_until(lambda: clients.hosts(20) == dict.fromkeys(hosts[1:], 15), f"{clients.hosts()}")
