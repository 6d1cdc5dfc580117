"""What a hostile peer costs a server of this package, and one of Twisted's AMP: a table.

    python tests/attacks/run.py [--short] [--servers asyncio,uvloop,twisted] [ATTACK ...]

Each attack meets each server in a process of its own, which may have 1,024 descriptors. While it goes
on, another client asks a small question all the time. The columns are: how far the memory of the server
rose, how long the other client waited (median and longest), what was written to the log, and how many
descriptors the server had more than before, at most and when the attacker was gone.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

sys.path += [str(Path(__file__).parents[1])]

from proc import open_descriptors, resident

from amp_asyncio import AmpBox

HERE = Path(__file__).parent
SERVERS = ("asyncio", "uvloop", "twisted")


def command(name: str, tag: int | None = None, **values: bytes) -> bytes:
    box = AmpBox(_command=name.encode(), **values)
    if tag is not None:
        box[b"_ask"] = b"%x" % tag
    return box.serialize()


class Server:
    """A server's process."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        program = HERE / ("theirs.py" if kind == "twisted" else "ours.py")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, program, kind, folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
            )
        assert self.process.stdout is not None
        self.ports: dict[str, int] = json.loads(self.process.stdout.readline())

    def connect(self, where: str = "tcp") -> socket.socket:
        """Connect to a port, or to the UNIX socket of this name."""
        if where in self.ports:
            return socket.create_connection(("127.0.0.1", self.ports[where]), timeout=60)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(str(self.folder / where))
        return sock

    def memory(self) -> int:
        return resident(self.process.pid)

    def descriptors(self) -> int:
        return open_descriptors(self.process.pid)

    def release(self) -> None:
        """Let go what the responders hold."""
        with self.connect() as sock:
            sock.sendall(command("Release", 1))
            sock.recv(100)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class Watch(threading.Thread):
    """Asks all the time, and looks at the process, until it is told to stop."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.base, self.before = server.memory(), server.descriptors()
        self.peak, self.most = self.base, self.before
        self.waits: list[float] = []
        self.going = True
        self.sock = server.connect()
        self.before += 1
        self.start()

    def run(self) -> None:
        looking = threading.Thread(target=self.look, daemon=True)
        looking.start()
        question = command("Sum", 1, a=b"1", b=b"2")
        with self.sock:
            while self.going:
                began = time.perf_counter()
                with suppress(OSError):
                    self.sock.sendall(question)
                    self.sock.recv(1000)
                self.waits.append(time.perf_counter() - began)
                time.sleep(0.002)
        looking.join()

    def look(self) -> None:
        while self.going:
            self.peak = max(self.peak, self.server.memory())
            self.most = max(self.most, self.server.descriptors())
            time.sleep(0.005)

    def stop(self) -> None:
        self.going = False
        self.join(90)


# --- the attacks: each gets the server, and whether it is to be short ---

Attack = Callable[[Server, bool], object]
attacks: dict[str, Attack] = {}


def attack(title: str) -> Callable[[Attack], Attack]:
    def add(function: Attack) -> Attack:
        attacks[title] = function
        return function

    return add


@contextmanager
def read_all(sock: socket.socket) -> Iterator[None]:
    """Take everything that comes, in a thread, and hang up at the end.

    To close the socket is not enough for that: the thread that reads from it keeps it open.
    """

    def read() -> None:
        with suppress(OSError):
            while sock.recv(2**16):
                pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with suppress(OSError):  # The server hung up first.
            sock.shutdown(socket.SHUT_RDWR)
        thread.join()


def send(sock: socket.socket, data: bytes, seconds: float = 20) -> int:
    """Send as much as is taken within this time; return how much that was."""
    sent, end = 0, time.monotonic() + seconds
    sock.setblocking(False)
    view = memoryview(data)
    with suppress(ConnectionError):
        while sent < len(data) and time.monotonic() < end:
            select.select([], [sock], [], 0.2)
            with suppress(BlockingIOError):
                sent += sock.send(view[sent : sent + 2**18])
    sock.setblocking(True)
    return sent


@attack("passes sockets that linger, and hangs up")
def lingering(server: Server, short: bool) -> None:
    sock = server.connect("passing")
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        for _ in range(1 if short else 3):
            stuck = socket.create_connection(listener.getsockname())
            stack.enter_context(listener.accept()[0])
            stuck.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    stuck.send(bytes(2**16))
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 2))
            socket.send_fds(sock, [b"\0"], [stuck.fileno()])
            stuck.close()
        time.sleep(0.2)
        sock.close()
        time.sleep(3 if short else 8)


@attack("100 commands, held, with lists of empty boxes")
def lists(server: Server, short: bool) -> None:
    with server.connect() as sock, read_all(sock):
        items = b"\0\0" * 32_000
        commands = [command("Hold", tag, items=items) for tag in range(10 if short else 100)]
        send(sock, b"".join(commands))
        time.sleep(1)


@attack("100 commands of 3.7 MB, held")
def large(server: Server, short: bool) -> None:
    more = {f"more{number}": bytes(62_000) for number in range(60)}
    with server.connect() as sock:
        for tag in range(3 if short else 100):
            if send(sock, command("Hold", tag, **more), 3) == 0:
                break
        time.sleep(1)


@attack("150 answers of 1 MB that it does not read")
def answers(server: Server, short: bool) -> None:
    with server.connect() as sock:
        send(sock, b"".join(command("Get", tag) for tag in range(10 if short else 150)))
        time.sleep(0.3)
        server.release()
        time.sleep(2)


@attack("4 MB of small commands that wait")
def backlog(server: Server, short: bool) -> None:
    with server.connect() as sock, read_all(sock):
        send(sock, b"".join(command("Hold", tag) for tag in range(1000)))
        count = 5_000 if short else 70_000
        waiting = b"".join(command("Sum", tag, a=b"1", b=b"2") for tag in range(1000, 1000 + count))
        send(sock, waiting, 3)
        server.release()
        time.sleep(3)


@attack("declared errors of 65,000 bytes, no answer wanted")
def errors(server: Server, short: bool) -> None:
    text = (b"\x1b[31m\nforged" * 6000)[:65_000]
    with server.connect() as sock:
        for _ in range(20 if short else 500):
            if send(sock, command("Fail", text=text)) == 0:
                break
        time.sleep(0.5)


@attack("unknown commands, no answer wanted, on 20 connections")
def unknown(server: Server, short: bool) -> None:
    for _ in range(2 if short else 20):
        with server.connect() as sock:
            send(sock, command("Unknown") * (1000 if short else 20_000), 3)
            time.sleep(0.1)


@attack("more connections than descriptors, for 5 s")
def descriptors(server: Server, short: bool) -> None:
    with ExitStack() as stack:
        for _ in range(1100):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", server.ports["tcp"]))
            stack.enter_context(sock)
        time.sleep(1 if short else 5)


@attack("passes its own end, 100 times")
def own_end(server: Server, short: bool) -> None:
    for _ in range(10 if short else 100):
        with server.connect("plain") as sock:
            socket.send_fds(sock, [b"\0"], [sock.fileno()])
    time.sleep(1)


@attack("asks for 2,000 descriptors, and does not read")
def many_descriptors(server: Server, short: bool) -> None:
    with server.connect("passing") as sock:
        send(sock, b"".join(command("Open", tag) for tag in range(100 if short else 2000)), 3)
        time.sleep(2)


@attack("900 TLS handshakes that stall")
def handshakes(server: Server, short: bool) -> None:
    outgoing = ssl.MemoryBIO()
    layer = ssl._create_unverified_context().wrap_bio(ssl.MemoryBIO(), outgoing)
    with suppress(ssl.SSLWantReadError):
        layer.do_handshake()
    hello = outgoing.read()
    with ExitStack() as stack:
        for _ in range(100 if short else 900):
            sock = stack.enter_context(server.connect("tls"))
            with suppress(ConnectionError):
                sock.sendall(hello)
        time.sleep(3)


# --- running them ---


@contextmanager
def serving(kind: str) -> Iterator[Server]:
    with TemporaryDirectory() as folder:
        server = Server(kind, Path(folder))
        try:
            yield server
        finally:
            server.close()


def run(title: str, kind: str, short: bool) -> str:
    """Attack a server, and return the row of the table."""
    with serving(kind) as server:
        with server.connect() as sock:  # The code that is needed is there from now on.
            sock.sendall(command("Sum", 1, a=b"1", b=b"2"))
            sock.recv(100)
        time.sleep(0.1)
        logged = server.log.stat().st_size
        watch = Watch(server)
        time.sleep(0.2)
        with suppress(OSError):  # It was thrown out.
            attacks[title](server, short)
        with suppress(OSError):
            server.release()  # A server does not read on, or notice an end, while it holds too much.
        logged = server.log.stat().st_size - logged
        end = time.monotonic() + 30
        while (left := server.descriptors() - watch.before) > 0 and time.monotonic() < end:
            time.sleep(0.1)
        watch.stop()
        figures: list[Any] = [
            f"{(watch.peak - watch.base) / 1e6:,.1f}",
            f"{1000 * median(watch.waits):,.1f}",
            f"{1000 * max(watch.waits):,.0f}",
            f"{logged:,}",
            f"{watch.most - watch.before:,}",
            f"{left:,}",
        ]
    return f"| {title} | {kind} | {' | '.join(figures)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="smaller counts, for the test suite")
    parser.add_argument("--servers", default=",".join(SERVERS), help="some of them, with commas")
    parser.add_argument("attack", nargs="*", help="words of their titles; all if none is given")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    columns = ["attack", "server", "memory, MB", "median wait, ms", "longest wait, ms"]
    columns += ["log, bytes", "descriptors", "left"]
    print(f"| {' | '.join(columns)} |\n| --- | --- |{' ---: |' * 6}", flush=True)
    for title in attacks:
        if not options.attack or any(word in title for word in options.attack):
            for kind in options.servers.split(","):
                print(run(title, kind, options.short), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
