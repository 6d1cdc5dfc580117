"""A soak: good and bad peers at once, for as long as you like, against a server of ours.

Run it: python tests/soak.py [SECONDS] [--loop asyncio|uvloop] [--unix] [--seed NUMBER]     (Linux only)

The server is a process of its own, on 127.0.0.1 or on a UNIX socket, with limits so low that the bad
peers reach them all the time. The good peers ask, and book each question under what became of it; the
bad ones do what no peer should, and book each connection under how it ended. At the end everything has
to add up:

* each question of a good peer got its own answer, or the error that it had to get, or was cancelled by
  whoever asked; none was lost. Each command that wants no answer has arrived.
* each connection of a bad peer was ended by the server, or was given up by the peer, as it was meant.
* no task, connection or error is left in the server. It takes as much memory as it did after the first
  minute, or the first fifth, if that is shorter: 5 % more is a failure, in runs of two minutes or more.
  The figures are medians of some seconds, since memory goes up and down with the bad peers.

The exit status is 1 where something does not add up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from proc import resident

from amp_asyncio import (
    AMP,
    AmpBox,
    BoxParser,
    Command,
    ConnectionLost,
    Integer,
    Limits,
    String,
    UnhandledCommand,
    connect,
    serve,
    unix_connect,
    unix_serve,
)

HOST = "127.0.0.1"
LIMITS = Limits(
    max_box_size=256 * 1024,
    window=256 * 1024,
    max_concurrent_responders=100,
    max_backlog=1024 * 1024,
    stall_timeout=3.0,
    idle_timeout=5.0,
)
# How many seconds an answer may take before it counts as lost; and the end of a bad connection.
PATIENCE = 30.0
GOOD_PEERS = 6
# How much the memory at the end may be over that after the first minute; and in which runs.
GROWTH = 1.05
LONG_RUN = 120.0


# --- the server ---


class Echo(Command):
    arguments = [(b"data", String())]
    response = [(b"data", String())]


class Divide(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"quotient", Integer())]
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}


class Wait(Command):
    """Is answered with its own token, `milliseconds` later."""

    arguments = [(b"milliseconds", Integer()), (b"token", Integer())]
    response = [(b"token", Integer())]


class Notify(Command):
    """Only the good peers send it, so that it can be counted at both ends."""

    arguments = [(b"data", String())]
    requiresAnswer = False


class Unknown(Command):
    """Has no responder."""


class Served(AMP):
    connections = 0
    notices = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Served.connections += 1
        super().connection_made(transport)

    @Echo.responder
    def echo(self, data: bytes) -> dict[str, bytes]:
        return {"data": data}

    @Divide.responder
    async def divide(self, a: int, b: int) -> dict[str, int]:
        return {"quotient": a // b}

    @Wait.responder
    async def wait(self, milliseconds: int, token: int) -> dict[str, int]:
        await asyncio.sleep(milliseconds / 1000)
        return {"token": token}

    @Notify.responder
    def notify(self, data: bytes) -> dict[str, Any]:
        Served.notices += 1
        return {}


class Complaints(logging.Handler):
    """Counts what is logged, and keeps the first errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings = 0
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR:
            self.warnings += 1
        elif len(self.errors) < 10:
            self.errors.append(self.format(record))


async def be_the_server(path: str | None) -> None:
    """Serve until SIGTERM, then close and print what there was, and what is left, as JSON."""
    complaints = Complaints()
    logging.basicConfig(handlers=[complaints])
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    on_tcp, on_path = partial(serve, Served, HOST, 0), partial(unix_serve, Served, path)
    async with (on_tcp if path is None else on_path)(limits=LIMITS) as server:
        print(json.dumps(server.sockets[0].getsockname()), flush=True)
        await end.wait()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    report = {
        "connections": Served.connections,
        "notices": Served.notices,
        "warnings": complaints.warnings,
        "errors": complaints.errors,
        "left": [*map(repr, tasks), *map(repr, server.connections)],
    }
    print(json.dumps(report))


# --- the load ---


class Load:
    """Everything that is done to the server at `address` until `deadline`, and the books on it."""

    def __init__(self, address: Any, deadline: float, seed: int) -> None:
        self.address = address
        self.deadline = deadline
        self.random = random.Random(seed)
        self.questions: Counter[str] = Counter()
        self.sessions = 0
        self.longest_wait = 0.0
        # Of the bad peers, by kind: how the connections ended.
        self.ends: dict[str, Counter[str]] = {}
        self.wrong: list[str] = []

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.deadline

    def connect(self) -> Any:
        """Open a connection of a good peer."""
        if isinstance(self.address, str):
            return unix_connect(self.address, limits=LIMITS)
        return connect(*self.address, limits=LIMITS)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(GOOD_PEERS):
                group.create_task(self.good_peer())
            for bad_thing in BAD_THINGS:
                group.create_task(self.bad_peer(bad_thing))

    async def good_peer(self) -> None:
        """Open a connection, do a few good things, close it; again and again."""
        while self.goes_on:
            self.sessions += 1
            async with self.connect() as amp:
                for _ in range(self.random.randrange(1, 30)):
                    await self.random.choice(GOOD_THINGS)(self, amp)
                    if not self.goes_on:
                        break

    async def settle(self, answers: dict[asyncio.Future[Any], Any]) -> None:
        """Wait for all of these questions, and book each under what became of it.

        Each is given with the answer that it must get; or with the class of error.
        """
        asked_at = time.monotonic()
        self.questions["asked"] += len(answers)
        if answers:
            await asyncio.wait(answers, timeout=PATIENCE)
        self.longest_wait = max(self.longest_wait, time.monotonic() - asked_at)
        for future, expected in answers.items():
            if not future.done():
                outcome = "lost"
            elif future.cancelled():
                outcome = "cancelled"
            elif (error := future.exception()) is None:
                outcome = "answered" if future.result() == expected else "wrong"
            elif isinstance(expected, type) and isinstance(error, expected):
                outcome = "refused"
            else:
                outcome = "lost" if isinstance(error, ConnectionLost) else "wrong"
            self.questions[outcome] += 1
            if outcome in ("wrong", "lost") and len(self.wrong) < 10:
                self.wrong.append(f"{outcome}: {future!r:.300}, not {expected!r:.100}")

    async def bad_peer(self, bad_thing: BadThing) -> None:
        """Open a connection, do one bad thing; again and again."""
        name = bad_thing.__name__.replace("_", " ")
        ends = self.ends[name] = Counter()
        while self.goes_on:
            ends["opened"] += 1
            on_unix = isinstance(self.address, str)
            with socket.socket(socket.AF_UNIX if on_unix else socket.AF_INET) as sock:
                sock.setblocking(False)
                if bad_thing is never_reading:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await asyncio.get_running_loop().sock_connect(sock, self.address)
                try:
                    async with asyncio.timeout(PATIENCE):
                        ended = await bad_thing(self, sock)
                except TimeoutError:
                    ended = "still open"
                except ConnectionError:
                    ended = "refused"
            ends[ended] += 1
            await asyncio.sleep(0.05)


GoodThing = Callable[[Load, AMP], Awaitable[None]]
BadThing = Callable[[Load, socket.socket], Awaitable[str]]


# --- what good peers do ---


async def small_echoes(load: Load, amp: AMP) -> None:
    pieces = [load.random.randbytes(load.random.randrange(40)) for _ in range(100)]
    await load.settle({amp.callRemote(Echo, data=piece): {"data": piece} for piece in pieces})


async def large_echoes(load: Load, amp: AMP) -> None:
    pieces = [load.random.randbytes(load.random.randrange(30_000, 65_536)) for _ in range(10)]
    await load.settle({amp.callRemote(Echo, data=piece): {"data": piece} for piece in pieces})


async def waits(load: Load, amp: AMP) -> None:
    """Get answers that come in another order than the questions."""
    durations = [load.random.randrange(20) for _ in range(30)]
    await load.settle(
        {
            amp.callRemote(Wait, milliseconds=duration, token=token): {"token": token}
            for token, duration in enumerate(durations)
        }
    )


async def cancellations(load: Load, amp: AMP) -> None:
    answers = {
        amp.callRemote(Wait, milliseconds=load.random.randrange(10), token=token): {"token": token}
        for token in range(50)
    }
    victims = load.random.sample(list(answers), 25)
    for victim in victims[:10]:
        victim.cancel()
    for victim in victims[10:]:
        asyncio.get_running_loop().call_later(load.random.random() / 100, victim.cancel)
    await load.settle(answers)


async def errors(load: Load, amp: AMP) -> None:
    await load.settle(
        {
            amp.callRemote(Divide, a=1, b=0): ZeroDivisionError,
            amp.callRemote(Unknown): UnhandledCommand,
            amp.callRemote(Divide, a=6, b=2): {"quotient": 3},
        }
    )


async def notifications(load: Load, amp: AMP) -> None:
    for _ in range(20):
        await amp.callRemote(Notify, data=load.random.randbytes(100))
        load.questions["notified"] += 1


async def closing_early(load: Load, amp: AMP) -> None:
    """Close another connection while answers are under way."""
    load.sessions += 1
    async with load.connect() as other:
        answers = {
            other.callRemote(Wait, milliseconds=5, token=token): {"token": token} for token in range(10)
        }
    await load.settle(answers)


GOOD_THINGS: list[GoodThing] = [
    small_echoes,
    large_echoes,
    waits,
    cancellations,
    errors,
    notifications,
    closing_early,
]


# --- what bad peers do ---


def echo(tag: int, data: bytes) -> bytes:
    return AmpBox(_command=b"Echo", _ask=b"%x" % tag, data=data).serialize()


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def read_to_end(sock: socket.socket) -> bytes:
    """Return what comes until the server closes; `ConnectionError` where it does so abruptly."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while piece := await loop.sock_recv(sock, 65_536):
        data += piece
    return bytes(data)


async def garbage(load: Load, sock: socket.socket) -> str:
    await send(sock, b"\xff" + load.random.randbytes(load.random.randrange(2, 5000)))
    await read_to_end(sock)
    return "refused"


async def http(load: Load, sock: socket.socket) -> str:
    await send(sock, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await read_to_end(sock)
    return "refused"


async def half_boxes(load: Load, sock: socket.socket) -> str:
    """Stop in the middle of a box; then leave, or wait for what the server makes of it."""
    box = echo(1, b"x" * 1000)
    await send(sock, box[: load.random.randrange(1, len(box))])
    if load.random.random() < 0.9:
        return "left"
    await read_to_end(sock)
    return "refused"


async def keys_without_end(load: Load, sock: socket.socket) -> str:
    for number in range(100_000):
        await send(sock, b"".join(b"\0\4%04x\0\0" % (number + n & 0xFFFF) for n in range(1000)))
    return "still open"


async def answers_to_nothing(load: Load, sock: socket.socket) -> str:
    await send(sock, AmpBox(_answer=b"1").serialize())
    await read_to_end(sock)
    return "refused"


async def never_reading(load: Load, sock: socket.socket) -> str:
    """Ask, and take no answer, until the server has had enough."""
    question = echo(1, b"x" * 60_000)
    while True:
        await send(sock, question)


async def dropping_in_mid_answer(load: Load, sock: socket.socket) -> str:
    await send(sock, b"".join(echo(tag, b"x" * 60_000) for tag in range(1, 9)))
    await asyncio.get_running_loop().sock_recv(sock, load.random.randrange(1, 60_000))
    return "left"


async def half_closing(load: Load, sock: socket.socket) -> str:
    """Send questions, and the end; all of them must be answered."""
    count = load.random.randrange(1, 50)
    stream = b"".join(echo(tag, b"%d" % tag) for tag in range(1, count + 1))
    broken = load.random.random() < 0.5
    await send(sock, stream + (b"\0\4_ask" if broken else b""))
    sock.shutdown(socket.SHUT_WR)
    parser = BoxParser()
    parser.feed(await read_to_end(sock))
    answers = {box[b"_answer"]: box[b"data"] for box in iter(parser.next_box, None)}
    whole = answers == {b"%x" % tag: b"%d" % tag for tag in range(1, count + 1)}
    return "answered" if whole else "not answered"


BAD_THINGS: dict[BadThing, set[str]] = {
    garbage: {"refused"},
    http: {"refused"},
    half_boxes: {"refused", "left"},
    keys_without_end: {"refused"},
    answers_to_nothing: {"refused"},
    never_reading: {"refused"},
    dropping_in_mid_answer: {"left"},
    half_closing: {"answered"},
}


# --- the memory of the server ---


class Memory:
    """The resident memory of a process, in bytes, looked at several times a second."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._begun = time.monotonic()
        self._samples: list[tuple[float, int]] = []
        self.start = self.peak = self._now()

    def _now(self) -> int:
        return resident(self._process)

    async def watch(self) -> None:
        while True:
            now = self._now()
            self._samples.append((time.monotonic() - self._begun, now))
            self.peak = max(self.peak, now)
            await asyncio.sleep(0.1)

    def around(self, seconds: float, window: float) -> float:
        """Return the median of the `window` that ended so many seconds after the start."""
        sizes = [size for at, size in self._samples if seconds - window <= at <= seconds]
        # On a slow machine there may be none in a short run.
        return median(sizes or [self.peak])


# --- all of it ---


async def soak(seconds: float, loop_name: str, seed: int, path: str | None) -> list[str]:
    """Run it, print the figures, and return what does not add up."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--loop", loop_name, "--serve", *([path] if path else ())),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        name = json.loads(await process.stdout.readline())
        memory = Memory(process.pid)
        watching = asyncio.create_task(memory.watch())
        load = Load(name if path else tuple(name), time.monotonic() + seconds, seed)
        running = asyncio.create_task(load.run())
        _, unfinished = await asyncio.wait([running], timeout=seconds + 2 * PATIENCE)
        if unfinished:
            load.wrong += [f"still waiting: {task!r:.500}" for task in asyncio.all_tasks()]
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        watching.cancel()
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            report = json.loads(await process.stdout.read())
            status = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()

    first = min(60.0, seconds / 5)
    window = min(15.0, seconds / 10)
    early, late = memory.around(first, window), memory.around(seconds, window)
    questions = load.questions
    over = "UNIX sockets" if path else "TCP"
    python = platform.python_version()
    print(f"{seconds:g} s on {loop_name} over {over}, Python {python}, seed {seed}\n")
    print(f"good peers: {load.sessions:,} connections; the longest wait {load.longest_wait:.2f} s")
    for name in ("asked", "answered", "refused", "cancelled", "wrong", "lost", "notified"):
        print(f"  {name:<24}{questions[name]:>12,}")
    print(f"  {'notices that arrived':<24}{report['notices']:>12,}")
    print("bad peers:")
    for name, ends in load.ends.items():
        rest = ", ".join(f"{count:,} {end}" for end, count in ends.items() if end != "opened")
        print(f"  {name:<24}{ends['opened']:>12,} opened: {rest}")
    print(f"server: {report['connections']:,} connections, {report['warnings']:,} warnings")
    print(f"  {'memory at the start':<24}{memory.start / 2**20:>12.1f} MiB")
    print(f"  {f'after {first:g} s':<24}{early / 2**20:>12.1f} MiB")
    print(f"  {'at the peak':<24}{memory.peak / 2**20:>12.1f} MiB")
    print(f"  {'at the end':<24}{late / 2**20:>12.1f} MiB ({late / early - 1:+.1%})")

    opened = load.sessions + sum(ends["opened"] for ends in load.ends.values())
    kept = questions["asked"] - questions["refused"] - questions["cancelled"]
    checks = {
        "something was asked": questions["answered"] > 0,
        "answered = asked - refused - cancelled": questions["answered"] == kept,
        "nothing was wrong, lost or waited for in vain": not load.wrong,
        "each notice has arrived": report["notices"] == questions["notified"],
        "each connection was accepted": report["connections"] == opened,
        "each bad peer ended as it should": all(
            set(load.ends[thing.__name__.replace("_", " ")]) <= {"opened", *ends}
            for thing, ends in BAD_THINGS.items()
        ),
        "nothing is left in the server": status == 0 and not report["left"],
        "no error was logged there": not report["errors"],
        "memory is what it was": seconds < LONG_RUN or late <= early * GROWTH,
    }
    for detail in (*load.wrong, *report["errors"], *report["left"]):
        print(detail)
    return [check for check, holds in checks.items() if not holds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", nargs="?", type=float, default=10.0)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unix", action="store_true", help="over UNIX sockets, not TCP")
    parser.add_argument("--serve", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner, TemporaryDirectory() as directory:
        if options.serve is not None:
            runner.run(be_the_server(*options.serve or [None]))
            return 0
        path = os.path.join(directory, "server") if options.unix else None
        failed = runner.run(soak(options.seconds, options.loop, options.seed, path))
    print("\n" + ("; ".join(f"NOT SO: {check}" for check in failed) or "it adds up"))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
