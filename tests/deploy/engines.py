"""Programs that carry a service, from Debian's packages: started with the configurations of the guide.

Each of them needs a program, and some need root. Where there is none, a test is skipped, with a reason.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "deploy"
SERVICE = EXAMPLES / "service.py"

# Where Debian puts what a user without root does not have in PATH.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

PATIENCE = 30.0


def program(name: str, package: str) -> str:
    """Return the path of a program; skip the test if there is none."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        pytest.skip(f"there is no {name}: apt-get install {package}")
    return found


def need_root(why: str) -> None:
    """Skip the test without root."""
    if os.geteuid():
        pytest.skip(f"{why} needs root")


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.02)
    return found


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex((host, port)) == 0


def configured(name: str, ports: Sequence[int], target: Path, *changes: tuple[str, str]) -> Path:
    """Write a configuration of the guide with other ports: the first one is where clients connect."""
    text = (EXAMPLES / name).read_text()
    for at, port in enumerate(ports):
        text = text.replace(f"127.0.0.1:700{at}", f"127.0.0.1:{port}")
    for old, new in changes:
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    assert not re.search(r"127\.0\.0\.1:70\d\d\b", text)
    path = target / name
    path.write_text(text)
    return path


class Process:
    """A program that runs, and its output in a file."""

    def __init__(self, command: Sequence[str | Path], log: Path, **options: Any) -> None:
        self._log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options
            )

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def tell(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait until it has ended by itself, and return its exit status."""
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """End it, whatever it is doing."""
        if self.process.poll() is None:
            self.tell(signal.SIGTERM)
            self.tell(signal.SIGCONT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def running(command: Sequence[str | Path], log: Path, **options: Any) -> Iterator[Process]:
    process = Process(command, log, **options)
    try:
        yield process
    finally:
        process.end()


class Services:
    """Several of the guide's services, each in its process, on ports of their own."""

    def __init__(self, ports: Sequence[int], folder: Path, *arguments: str | Path) -> None:
        self.ports = ports
        self._folder = folder
        self._arguments = arguments
        self.processes: list[Process] = []

    def __enter__(self) -> Services:
        self.processes = [self._start(port) for port in self.ports]
        for port in self.ports:
            wait_until(lambda port=port: listens(port), f"a service at {port}")  # type: ignore[misc]
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.end()

    def _start(self, port: int) -> Process:
        command = [sys.executable, SERVICE, "--listen", f"127.0.0.1:{port}", *self._arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return Process(command, self._folder / f"service{port}.log", env=environment)

    def restart(self, at: int) -> None:
        """End one as an init system does, and start it again; it must end with status 0."""
        self.processes[at].tell(signal.SIGTERM)
        status = self.processes[at].wait()
        assert status == 0, f"{status}: {self.output()}"
        self.start_again(at)

    def start_again(self, at: int) -> None:
        """Start one that has ended."""
        self.processes[at] = self._start(self.ports[at])
        wait_until(lambda: listens(self.ports[at]), f"a service at {self.ports[at]}")

    def output(self) -> str:
        return "".join(process.output() for process in self.processes)


@contextmanager
def haproxy(ports: Sequence[int], folder: Path, *changes: tuple[str, str]) -> Iterator[Process]:
    """HAProxy at the first port, in front of services at the others."""
    path = program("haproxy", "haproxy")
    config = configured("haproxy.cfg", ports, folder, *changes)
    with running([path, "-db", "-f", config], folder / "haproxy.log") as process:
        wait_until(lambda: listens(ports[0]), "HAProxy")
        yield process


@contextmanager
def nginx(ports: Sequence[int], folder: Path) -> Iterator[Process]:
    """nginx at the first port, in front of services at the others."""
    path = program("nginx", "nginx libnginx-mod-stream")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    # On Debian it is loaded by the main configuration, and built in elsewhere.
    first = f"load_module {module};\n" if module.exists() else ""
    first += f"pid {folder}/pid;\n"
    config = configured("nginx.conf", ports, folder, ("events {", f"{first}events {{"))
    command = [path, "-p", folder, "-e", folder / "nginx-errors.log", "-c", config, "-g", "daemon off;"]
    with running(command, folder / "nginx.log") as process:
        wait_until(lambda: listens(ports[0]), "nginx")
        yield process


class Dnsmasq:
    """A DNS server on an address of its own; its answers can be changed."""

    ADDRESS = "127.0.0.97"

    def __init__(self, folder: Path) -> None:
        need_root("a DNS server")
        self._path = program("dnsmasq", "dnsmasq-base")
        self._folder = folder
        self._process: Process | None = None
        (folder / "resolv.conf").write_text(f"nameserver {self.ADDRESS}\n")

    def __enter__(self) -> Dnsmasq:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.end()

    def answer(self, *records: str) -> None:
        """Answer with these options of dnsmasq, such as `--host-record=a.example.org,127.0.0.2`."""
        if self._process is not None:
            self._process.end()
        options = [f"--listen-address={self.ADDRESS}", "--bind-interfaces", "--user=root"]
        options += [
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--local-ttl=0",
        ]
        process = Process([self._path, *options, *records], self._folder / "dnsmasq.log")
        self._process = process
        wait_until(lambda: listens(53, self.ADDRESS), f"dnsmasq: {process.output()}")

    def command(self, *command: str | Path) -> list[str]:
        """Return a command that runs another one with this server as that of the system."""
        unshare = program("unshare", "util-linux")
        mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        config = self._folder / "resolv.conf"
        if subprocess.run([unshare, "-m", "sh", "-c", mount, config, "true"]).returncode:
            pytest.skip("this root may not mount: another /etc/resolv.conf needs that")
        return [unshare, "-m", "sh", "-c", mount, str(config), *map(str, command)]
