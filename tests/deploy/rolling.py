"""Servers that are restarted one after the other, stopped and killed, under steady load.

Three of the guide's services, over TLS, are behind HAProxy, or known to a resolver. Many clients ask
all the time, and one Twisted client on short connections. Each service is restarted in turn, and the
certificate is replaced. Then one is stopped with SIGSTOP, and one is killed.

Run it: python tests/deploy/rolling.py --way haproxy
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "examples" / "deploy")]

from bookings import Book, FreeRooms
from engines import Services, free_ports, haproxy
from pki import issue

from amp_asyncio import AMP, Client, ConnectionLost, Limits

# Each client asks one question in so many seconds.
PERIOD = 0.5

# How long a call may take while no service is stopped or killed: no call runs into it.
PATIENCE = 60.0

TWISTED = """
import json, sys, time
from twisted.internet import defer, endpoints, ssl, task, threads
from twisted.protocols import amp

class FreeRooms(amp.Command):
    arguments = [(b"night", amp.Unicode())]
    response = [(b"rooms", amp.Integer())]

trust = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(open(sys.argv[2]).read())])

async def main(reactor):
    answered, failed = 0, []
    print("asking", flush=True)
    ended = defer.Deferred()
    threads.deferToThread(sys.stdin.read).addCallback(ended.callback)
    while not ended.called:
        for port in map(int, sys.argv[3:]):
            options = ssl.optionsForClientTLS("localhost", trust)
            endpoint = endpoints.wrapClientTLS(
                options, endpoints.TCP4ClientEndpoint(reactor, sys.argv[1], port))
            try:
                peer = await endpoints.connectProtocol(endpoint, amp.AMP())
                answer = await peer.callRemote(FreeRooms, night="friday")
                assert answer == {"rooms": 6}
                peer.transport.loseConnection()
                answered += 1
            except Exception as error:
                failed.append(repr(error))
        await task.deferLater(reactor, 0.02, lambda: None)
    print(json.dumps([answered, failed]), flush=True)

task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""


@dataclass
class Outcomes:
    """What became of the calls in one phase."""

    answered: int = 0
    failed: list[tuple[str, str, bool | None, float]] = field(default_factory=list)

    def report(self) -> str:
        kinds = Counter((command, error, sent) for command, error, sent, _ in self.failed)
        longest = max((seconds for *_, seconds in self.failed), default=0.0)
        failures = ", ".join(
            f"{count} {command}: {error}, sent={sent}"
            for (command, error, sent), count in kinds.items()
        )
        return f"{self.answered} answered, {len(self.failed)} failed" + (
            f" ({failures}; after {longest:.1f} s at most)" if failures else ""
        )


class Load:
    """Clients that ask all the time; what becomes of it is counted in `outcomes`."""

    def __init__(self, target: Any, count: int, context: ssl.SSLContext) -> None:
        self.outcomes = Outcomes()
        self._timeout = PATIENCE
        limits = Limits(ping_interval=1, ping_timeout=3)
        self._clients: list[Client[AMP]] = [
            Client(target, ssl=context, limits=limits, server_hostname="localhost", refresh=5)
            for _ in range(count)
        ]
        self._asking = [
            asyncio.ensure_future(self._ask(client, at / count * PERIOD))
            for at, client in enumerate(self._clients)
        ]

    async def _ask(self, client: Client[AMP], delay: float) -> None:
        await asyncio.sleep(delay)
        number = 0
        while True:
            question = Book(night="friday", guest="x") if number % 2 else FreeRooms(night="friday")
            number += 1
            outcomes, begin = self.outcomes, time.monotonic()
            try:
                await client.call(question, timeout=self._timeout)  # type: ignore[arg-type]
            except Exception as error:
                seconds = time.monotonic() - begin
                sent = error.sent if isinstance(error, ConnectionLost) else None
                outcomes.failed.append((type(question).__name__, type(error).__name__, sent, seconds))
            else:
                outcomes.answered += 1
            await asyncio.sleep(max(0.0, PERIOD - (time.monotonic() - begin)))

    async def phase(self, during: Any, after: float, timeout: float = PATIENCE) -> Outcomes:
        """Return what becomes of the calls while `during` is done, and for some seconds after that.

        It also lasts until as many calls have ended as there are clients.
        """
        self.outcomes = outcomes = Outcomes()
        self._timeout = timeout
        await asyncio.to_thread(during)
        await asyncio.sleep(after)
        while outcomes.answered + len(outcomes.failed) < len(self._clients):
            await asyncio.sleep(0.1)
        return outcomes

    def presented(self) -> set[Any]:
        """Return the certificates that the clients see at the moment."""
        return {amp.peerCertificate for client in self._clients for amp in client.connections}

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await asyncio.gather(*(client.close(1) for client in self._clients))


@contextmanager
def twisted_client(folder: Path, authority: Path, ports: list[int]) -> Iterator[list[Any]]:
    """A Twisted client on short connections; at the end the list has what became of its calls."""
    found: list[Any] = []
    command = [sys.executable, "-c", TWISTED, "127.0.0.1", str(authority), *map(str, ports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        yield found
        process.stdin.close()
        found += json.loads(process.stdout.readline())


async def measure(
    way: str, count: int, folder: Path, grace: float, timeout: float = 10.0
) -> dict[str, Any]:
    """Return what became of the calls in each phase."""
    ports = free_ports(4)
    issuer = issue("authority", authority=True)
    certificates = [issue("localhost", issuer, names=["localhost"]) for _ in range(2)]
    pem, authority = folder / "service.pem", folder / "authority.pem"
    pem.write_bytes(certificates[0].to_pem())
    authority.write_bytes(issuer.certificate.to_pem())
    context = ssl.create_default_context(cafile=str(authority))
    arguments = ["--certificate", pem, "--proxies", "127.0.0.1", "--grace", str(grace)]
    behind = haproxy(ports, folder, (" check inter", " check check-ssl verify none inter"))
    found: dict[str, Any] = {}

    async def resolver() -> list[tuple[str, int]]:
        return [("127.0.0.1", port) for port in ports[1:]]

    with Services(ports[1:], folder, *arguments) as services:
        with behind if way == "haproxy" else nullcontext() as proxy:
            if proxy is not None:
                await asyncio.sleep(2)
            target: Any = ("127.0.0.1", ports[0]) if way == "haproxy" else resolver
            load = Load(target, count, context)
            found["steady"] = await load.phase(lambda: None, 3)
            old = twisted_client(folder, authority, ports[:1]) if proxy else nullcontext([])
            with old as old_client:

                def restart_all() -> None:
                    for at in range(3):
                        if at == 1:
                            pem.write_bytes(certificates[1].to_pem())
                            for process in services.processes:
                                process.tell(signal.SIGHUP)
                        services.restart(at)
                        time.sleep(1.5)

                found["restarts"] = await load.phase(restart_all, 3)
            found["twisted"] = old_client
            found["stopped"] = await load.phase(
                lambda: services.processes[0].tell(signal.SIGSTOP), timeout + 2, timeout
            )
            found["killed"] = await load.phase(
                lambda: services.processes[1].tell(signal.SIGKILL), 5, timeout
            )
            found["after"] = await load.phase(lambda: None, 3)
            found["certificates"] = [
                certificates.index(certificate)
                for certificate in certificates
                if certificate.certificate in load.presented()
            ]
            await load.close()
            found["log"] = services.output() + (proxy.output() if proxy else "")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--way", choices=["haproxy", "resolver"], default="haproxy")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--grace", type=float, default=5.0)
    options = parser.parse_args()
    logging.getLogger("amp_asyncio").setLevel(logging.CRITICAL)
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options.way, options.clients, Path(folder), options.grace))
    print(f"{options.clients} clients, {options.way}, one call in {PERIOD} s each")
    for phase, outcomes in found.items():
        if isinstance(outcomes, Outcomes):
            print(f"{phase:10} {outcomes.report()}")
    if found["twisted"]:
        answered, failed = found["twisted"]
        print(f"Twisted on short connections: {answered} answered, {len(failed)} failed {failed[:3]}")


if __name__ == "__main__":
    main()
