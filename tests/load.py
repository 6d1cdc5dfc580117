"""Peers that are slow, broken, hostile or just busy, at full size: what they cost, as figures.

    python tests/load.py [--loop asyncio|uvloop] [--short] [scenario ...]

Each scenario runs a server in a process of its own, so that the memory measured is the server's; what
attacks it, and the good peers who must be answered meanwhile, are in this process. It prints a line:
what was sent and answered, how far the server's resident memory rose over what it was before, what
the limits allow it, the seconds that it took, and PASS or FAIL. It exits with 1 if one failed.

What the limits allow is, for each connection, one box, the commands that wait, the answers that are
not taken, the window, and what the responders that run hold; and `SLACK` once for the process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import resource
import shlex
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from statistics import median
from typing import Any

import attrs
import uvloop
from proc import resident

from amp_asyncio import (
    AMP,
    AmpBox,
    Command,
    ConnectionLost,
    Float,
    Integer,
    Limits,
    String,
    Unicode,
    connect,
    parseString,
    serve,
)

BIG = b"x" * 60_000

#: What the allocator, the pieces that are read and the code that runs first may take, in bytes.
SLACK = 9 * 2**20

#: How long a scenario may take before it has failed, in seconds: in full and short.
PATIENCE, SHORT_PATIENCE = 600, 200


# --- what both sides understand ---


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Echo(Command):
    arguments = [(b"data", String())]
    response = [(b"data", String())]


class Large(Command):
    """A small question with a large answer."""

    response = [(b"data", String())]


class Wait(Command):
    """Answers with the same data after some seconds."""

    arguments = [(b"seconds", Float()), (b"data", String())]
    response = [(b"data", String())]


class CallBack(Command):
    """Answers with what the asking side says the sum is; -1 if it is lost before it does."""

    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Notify(Command):
    """Takes some seconds."""

    arguments = [(b"seconds", Float()), (b"data", String())]
    requiresAnswer = False


class Flood(Command):
    """Ask back `count` times, by so many callers: echoes of `size` bytes, or `Large` if that is 0."""

    arguments = [(b"callers", Integer()), (b"count", Integer()), (b"size", Integer())]
    response = [(b"answered", Integer())]


class Report(Command):
    response = [(b"report", Unicode())]


#: What the peers of this process have counted, and the last that they logged.
seen: Counter[str] = Counter()
logged: deque[str] = deque(maxlen=20)


class Peer(AMP):
    """Answers all of it, and counts what it has read, and how often it has stopped reading."""

    received = 0
    stopped = 0  # How many looks in a row have seen it paused, and nothing come.
    looking: asyncio.TimerHandle | None = None

    def look(self, received: int) -> None:
        """Look from time to time whether reading is paused, as long as there is something to see.

        A connection also pauses for a turn of the loop, to let the others go on. Then boxes come
        before the second look.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        quiet = self.received == received
        self.stopped = self.stopped + 1 if quiet and not transport.is_reading() else 0
        seen["paused"] += self.stopped == 2
        self.looking = None
        if self.stopped or not quiet:
            self.look_soon()

    def look_soon(self) -> None:
        loop = asyncio.get_running_loop()
        self.looking = loop.call_later(0.002, self.look, self.received)

    def ampBoxReceived(self, box: AmpBox) -> None:
        self.received += 1
        if self.looking is None:
            self.look_soon()
        if b"_command" in box:
            seen[f"read {box[b'_command'].decode()}"] += 1
        super().ampBoxReceived(box)

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Echo.responder
    def echo(self, data: bytes) -> dict[str, bytes]:
        return {"data": data}

    @Large.responder
    def large(self) -> dict[str, bytes]:
        return {"data": BIG}

    @Wait.responder
    async def wait(self, seconds: float, data: bytes) -> dict[str, bytes]:
        seen["began"] += 1
        try:
            await asyncio.sleep(seconds)
        finally:  # It is cancelled when its connection is lost.
            seen["finished"] += 1
        return {"data": data}

    @CallBack.responder
    async def call_back(self, a: int, b: int) -> dict[str, int]:
        seen["began"] += 1
        try:
            answer: dict[str, int] = await self.callRemote(Sum, a=a, b=b)
        except ConnectionLost:
            seen["lost"] += 1
            answer = {"total": -1}
        finally:
            seen["finished"] += 1
        return answer

    @Notify.responder
    async def notify(self, seconds: float, data: bytes) -> dict[str, Any]:
        seen["began"] += 1
        await asyncio.sleep(seconds)
        seen["finished"] += 1
        return {}

    @Flood.responder
    async def flood(self, callers: int, count: int, size: int) -> dict[str, int]:
        return {"answered": await flood(self, callers, count, size)}

    @Report.responder
    def report(self) -> dict[str, str]:
        return {"report": json.dumps([seen, list(logged)])}


async def flood(peer: AMP, callers: int, count: int, size: int) -> int:
    """Ask `count` times, by so many callers at once, and return how many were answered rightly."""
    left, answered = count, 0

    async def caller() -> None:
        nonlocal left, answered
        while left > 0:
            left -= 1
            question = peer.callRemote(Echo, data=BIG[:size]) if size else peer.callRemote(Large)
            answer = await question
            answered += len(answer["data"]) == (size or len(BIG))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return answered


# --- the processes ---


class Memory(threading.Thread):
    """Looks at the resident set of a process until that ends: bytes at the base, the peak, the end."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.base = self.peak = self.end = self.now()
        self.watching = True
        self.start()

    def now(self) -> int:
        return resident(self.pid)

    def run(self) -> None:
        with suppress(OSError, IndexError):  # The process is gone.
            while self.watching:
                self.end = self.now()
                self.peak = max(self.peak, self.end)
                time.sleep(0.002)


class ListHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logged.append(record.getMessage()[:300])


async def run_server(limits: Limits) -> None:
    """Be the server: say the port, close when stdin ends, say then what was seen."""
    logging.getLogger("amp_asyncio").addHandler(ListHandler(logging.WARNING))
    async with serve(Peer, "127.0.0.1", 0, limits=limits) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await server.close(timeout=20)
    print(json.dumps([seen, list(logged)]), flush=True)


@attrs.define
class Child:
    """The server's process, seen from here."""

    process: asyncio.subprocess.Process
    limits: Limits
    port: int
    memory: Memory
    #: How many bytes the memory may rise.
    allowed: int

    def connect(self, limits: Limits | None = None) -> Any:
        return connect("127.0.0.1", self.port, Peer, limits=limits)

    async def report(self, amp: Peer | None = None) -> tuple[dict[str, int], list[str]]:
        """Return what the server has counted and logged; asked over a new connection, or over `amp`."""
        if amp is None:
            async with self.connect() as amp:
                return await self.report(amp)
        counted, said = json.loads((await amp.callRemote(Report))["report"])
        return Counter(counted), said

    async def close(self) -> tuple[dict[str, int], list[str]]:
        """Close the server in order, and return its last report."""
        self.memory.watching = False
        out, _ = await self.process.communicate(b"")
        counted, said = json.loads(out)
        return Counter(counted), said


class Failed(Exception):
    """A scenario did not go as it has to."""


def check(holds: object, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


@attrs.define
class Case:
    """One scenario that is running."""

    loop: str
    short: bool
    child: Child | None = None

    def size(self, full: int, short: int) -> int:
        return short if self.short else full

    @asynccontextmanager
    async def server(
        self, connections: int = 1, answer: int = 0, extra: int = 0, **limits: Any
    ) -> AsyncIterator[Child]:
        """Run a server, and look how much memory it takes.

        It is allowed the limits of so many connections, with answers of so many bytes that its
        responders may be about to give; and `extra` bytes for what its own callers hold.
        """
        its_limits = Limits(**limits)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--loop", self.loop, "--server", json.dumps(limits)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            allowed = SLACK + extra + connections * most(its_limits, answer)
            memory = Memory(process.pid)
            self.child = child = Child(process, its_limits, port, memory, allowed)
            async with child.connect() as amp:  # The code that is needed is there from now on.
                await amp.callRemote(CallBack, a=1, b=2)
                await amp.callRemote(Echo, data=BIG)
            memory.base = memory.peak = memory.now()
            yield child
            if process.returncode is None:
                await child.close()
            check(process.returncode == 0, f"the server's process ended with {process.returncode}")
            rise = memory.peak - memory.base
            check(
                rise <= allowed, f"the server took {rise / 1e6:.1f} MB, allowed are {allowed / 1e6:.1f}"
            )
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def most(limits: Limits, answer: int = 0) -> int:
    """Return the sum of the limits of one connection."""
    held = limits.max_concurrent_responders * answer
    return limits.max_box_size + 2 * limits.max_backlog + limits.window + held


@attrs.define
class Good:
    """Good peers, and what they have got."""

    answered: int = 0
    delays: list[float] = attrs.field(factory=list)

    def __str__(self) -> str:
        worst, middle = (1000 * f(self.delays) for f in (max, median))
        return f"good peers {self.answered:,} answers, {middle:.1f} ms, at worst {worst:.0f}"


@asynccontextmanager
async def good_peers(child: Child, peers: int = 2) -> AsyncIterator[Good]:
    """Let good peers ask all the time; each of their questions must be answered."""
    good = Good()
    going = True

    async def ask() -> None:
        async with child.connect() as amp:
            while going:
                start = time.perf_counter()
                answer = await amp.callRemote(Sum, a=good.answered, b=1)
                good.delays.append(time.perf_counter() - start)
                check(answer["total"], "a good peer got a wrong answer")
                good.answered += 1
                await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(ask()) for _ in range(peers)]
    try:
        yield good
        going = False
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)  # It raises what one of them raised.
        check(good.answered >= peers, "the good peers got no answers")
    finally:
        for task in tasks:
            task.cancel()


async def send_until_ended(child: Child, data: bytes, most_bytes: int) -> int:
    """Send `data` again and again, read nothing; return how many bytes it took to be ended."""
    loop = asyncio.get_running_loop()
    sent = 0
    with socket.create_connection(("127.0.0.1", child.port)) as sock:
        sock.setblocking(False)
        try:
            while sent < most_bytes:
                await loop.sock_sendall(sock, data)
                sent += len(data)
            # All is sent: wait for the end. (What comes before it is an answer: leave it there.)
            for _ in range(3000):
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return sent
                await asyncio.sleep(0.01)
                with suppress(BlockingIOError):  # Not all of it was read yet.
                    sock.send(data[:1])
        except OSError:
            return sent
    raise Failed(f"not ended after {sent:,} bytes")


def question(name: str, tag: int = 1, **values: bytes) -> bytes:
    return AmpBox(_command=name.encode(), _ask=b"%x" % tag, **values).serialize()


# --- the scenarios ---

Scenario = Callable[[Case], Awaitable[str]]
scenarios: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    scenarios[function.__name__.replace("_", "-")] = function
    return function


async def refused(case: Case, data: bytes, most_bytes: int, what: str) -> str:
    """Send what makes too large a box, several times; each time it must be refused early."""
    rounds = case.size(20, 4)
    async with case.server(connections=1) as child, good_peers(child) as good:
        sent = [await send_until_ended(child, data, most_bytes) for _ in range(rounds)]
        _, said = await child.report()
        check(any("remote box too long" in text for text in said), f"no TooLong, but {said}")
        await asyncio.sleep(0.1)
    return f"{what}, {rounds} times: ended after {max(sent):,} bytes at most; {good}"


@scenario
async def keys_without_end(case: Case) -> str:
    keys = b"".join(b"\0\4%04x\0\0" % number for number in range(2**16))
    return await refused(case, keys, 2**28, "keys without end")


@scenario
async def box_of_4_gb(case: Case) -> str:
    values = b"".join(b"\0\2%02x\xff\xff" % number + bytes(65535) for number in range(16))
    return await refused(case, values, 2**32, "values of 65,535 bytes up to 4 GB")


@scenario
async def tiny_pairs(case: Case) -> str:
    """Boxes of 100,000 pairs, which are refused; and as many as are not, which stay unfinished."""
    pairs = [b"\0\5%05x\0\1x" % number for number in range(100_000)]
    box = b"".join(pairs) + b"\0\0"
    text = await refused(case, box, len(box), "a box of 100,000 pairs")
    held, connections = b"".join(pairs[: 4 * 2**20 // (128 + 11)]), 10
    async with case.server(connections=connections, window=1, max_backlog=1) as child:
        writers = []
        for _ in range(connections):
            _, writer = await asyncio.open_connection("127.0.0.1", child.port)
            writer.write(held)
            await writer.drain()
            writers.append(writer)
        async with good_peers(child):
            await asyncio.sleep(0.5)
        for writer in writers:
            writer.transport.abort()
    return f"{text}; then {connections} times {len(held):,} bytes of pairs stayed unfinished"


@scenario
async def dripping(case: Case) -> str:
    """Values that drip, faster here than a byte a second, until `idle_timeout` ends it."""
    drips, patience = case.size(100, 20), case.size(10, 1)
    dripped = 0

    async def drip(child: Child) -> float:
        nonlocal dripped
        start = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", child.port)
        writer.write(b"\0\1k\xff\xff")
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            writer.write(b"x")
            dripped += 1
            await asyncio.sleep(0.02)
        writer.transport.abort()
        with suppress(ConnectionError):
            await ended
        return time.perf_counter() - start

    async with case.server(connections=drips, idle_timeout=patience) as child:
        async with good_peers(child) as good:
            seconds = await asyncio.gather(*(drip(child) for _ in range(drips)))
        check(min(seconds) > patience * 0.9, f"ended too early: {min(seconds)}")
    return f"{drips} connections dripped {dripped:,} bytes, ended after {max(seconds):.1f} s; {good}"


@scenario
async def stops_in_mid_box(case: Case) -> str:
    """Connections that each stop in the middle of a box, and stay."""
    connections = case.size(1000, 200)
    half = b"\0\1a\xff\xff" + bytes(65535) + b"\0\1b\xff\xff" + bytes(65535) + b"\0\1c\xff\xff"
    half += bytes(60000)
    limits = {"max_box_size": 2**18, "max_backlog": 2**16, "window": 2**16}
    async with case.server(connections=connections, **limits) as child, good_peers(child) as good:
        writers = []
        for _ in range(connections):
            _, writer = await asyncio.open_connection("127.0.0.1", child.port)
            writers.append(writer)
            writer.write(half)
            await writer.drain()
        await asyncio.sleep(0.5)
        rise = child.memory.end - child.memory.base
        for writer in writers:
            writer.transport.abort()
    held = f"held with {rise / connections:,.0f} each"
    return f"{connections:,} connections stopped behind {len(half):,} bytes, {held}; {good}"


@scenario
async def never_reads(case: Case) -> str:
    """A peer that asks and never reads: small and large questions, with small and large answers."""
    asked, patience = case.size(1_000_000, 100_000), 0.3 if case.short else 1.0
    kinds = {
        "Large": question("Large"),
        "Sum": question("Sum", a=b"1", b=b"2"),
        "Echo": question("Echo", data=BIG),
        "Wait": question("Wait", seconds=b"0.001", data=BIG[:10_000]),
    }
    if case.short:
        del kinds["Sum"]  # So many small answers as fill the buffers of the kernel take a while.
    texts = []
    async with case.server(stall_timeout=patience, answer=20_000) as child:
        async with good_peers(child) as good:
            for name, box in kinds.items():
                piece = box * max(1, 2**18 // len(box))
                sent = await send_until_ended(child, piece, len(box) * asked)
                _, said = await child.report()
                stalls = [text for text in said if f"nothing has moved for {patience}" in text]
                check(len(stalls) == len(texts) + 1, f"{name}: no stall, but {said}")
                texts.append(f"{name} {sent // len(box):,}")
    return f"ended by stall_timeout, of {asked:,} questions went out: {', '.join(texts)}; {good}"


async def flood_both(case: Case, callers: int, count: int, size: int, **limits: int) -> str:
    """Let the server and a client flood each other on one connection, with the same limits."""
    # A caller holds its question, the question's bytes, and the answer.
    async with case.server(extra=3 * min(callers, 1000) * len(BIG), **limits) as child:
        own = Memory(os.getpid())
        async with child.connect(child.limits) as amp:
            seen.clear()
            before, _ = await child.report(amp)
            theirs = amp.callRemote(Flood, callers=callers, count=count, size=size)
            answered = await flood(amp, callers, count, size)
            counts = [answered, (await theirs)["answered"]]
            counted, said = await child.report(amp)
            paused = seen["paused"] + counted["paused"] - before["paused"]
        own.watching = False
        check(counts == [count, count], f"answered {counts} of {count} each way: {said}")
        check(not paused, f"reading paused {paused} times")
        rise = own.peak - own.base
        check(rise <= child.allowed, f"the client took {rise / 1e6:.1f} MB")
    what = f"echoes of {size:,}" if size else f"answers of {len(BIG):,}"
    text = f"{callers:,} callers and {count:,} {what} bytes each way, all answered"
    return f"{text}, reading paused {paused} times, the client +{rise / 1e6:.1f} MB"


@scenario
async def two_floods(case: Case) -> str:
    return await flood_both(case, 200, case.size(10_000, 400), len(BIG))


@scenario
async def two_floods_of_small_questions(case: Case) -> str:
    return await flood_both(case, 200, case.size(10_000, 400), 0)


@scenario
async def two_floods_at_once(case: Case) -> str:
    """The smallest questions that there are, more than a window holds, all at once."""
    count, limit = case.size(40_000, 4_000), case.size(2**22, 2**18)
    return await flood_both(case, count, count, 1, window=limit // 4, max_backlog=limit)


@scenario
async def two_floods_at_once_of_large_answers(case: Case) -> str:
    count, limit = case.size(20_000, 2_000), case.size(2**22, 2**18)
    return await flood_both(case, count, count, 0, window=limit // 4, max_backlog=limit)


@scenario
async def twisted_floods(case: Case) -> str:
    """Twisted asks all at once, in a third process, while the server asks it as many."""
    count = case.size(10_000, 2_000)
    # The server's callers hold the bytes of their questions. What Twisted asks is as much again.
    async with case.server(extra=count * (len(BIG) + 2048)) as child:
        twisted = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--twisted", str(child.port), str(count)),
            stdout=subprocess.PIPE,
        )
        try:
            out, _ = await twisted.communicate()
        finally:
            if twisted.returncode is None:
                twisted.kill()
        counted, said = await child.report()
        check(twisted.returncode == 0, f"the Twisted process ended with {twisted.returncode}: {said}")
        theirs, ours = json.loads(out)
        check([theirs, ours] == [count, count], f"answered {theirs} and {ours} of {count}: {said}")
    sent = f"{count:,} questions of {len(BIG):,} bytes at once each way, all answered"
    return f"{sent}, reading paused {counted['paused']} times"


def run_twisted(port: int, count: int) -> None:
    """Be the Twisted peer: print how many answers it got, and how many it says that we got."""
    from twisted.internet import defer, endpoints, task
    from twisted.protocols import amp

    class TwistedEcho(amp.Command):  # type: ignore[misc]
        commandName = b"Echo"
        arguments = [(b"data", amp.String())]
        response = [(b"data", amp.String())]

    class TwistedFlood(amp.Command):  # type: ignore[misc]
        commandName = b"Flood"
        arguments = [(b"callers", amp.Integer()), (b"count", amp.Integer()), (b"size", amp.Integer())]
        response = [(b"answered", amp.Integer())]

    class TwistedPeer(amp.AMP):  # type: ignore[misc]
        @TwistedEcho.responder
        def echo(self, data: bytes) -> dict[str, bytes]:
            return {"data": data}

    async def main(reactor: Any) -> None:
        endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        peer: Any = await endpoints.connectProtocol(endpoint, TwistedPeer())
        theirs = peer.callRemote(TwistedFlood, callers=count, count=count, size=len(BIG))
        asked = [peer.callRemote(TwistedEcho, data=BIG) for _ in range(count)]
        answered = 0
        for answer in await defer.gatherResults(asked):
            answered += answer["data"] == BIG
        print(json.dumps([answered, (await theirs)["answered"]]), flush=True)

    task.react(main)


@scenario
async def no_answer_wanted(case: Case) -> str:
    """Commands that want no answer, faster than the responders: the sender waits, none is lost."""
    count, size = case.size(20_000, 4_000), 10_000
    rise = unsent = at_the_end = 0
    # On a slow machine, responders that take no time keep up with the sender.
    for seconds in (0.0005, 0.005, 0.05):
        async with case.server(max_concurrent_responders=10, answer=size) as child:
            own = Memory(os.getpid())
            async with child.connect() as amp:
                for _ in range(count):
                    await amp.callRemote(Notify, seconds=seconds, data=BIG[:size])
                    unsent = max(unsent, amp.transport.get_write_buffer_size())
                at_the_end = (await child.report())[0]["finished"]
                await amp.callRemote(Sum, a=1, b=2)  # It waits its turn behind them.
                for _ in range(200):
                    counted, said = await child.report()
                    if counted["finished"] - 1 == count:
                        break
                    await asyncio.sleep(0.1)
            own.watching = False
            rise = max(rise, own.peak - own.base)
            check(
                counted["finished"] - 1 == count, f"{counted['finished'] - 1} of {count} came: {said}"
            )
            check(unsent < 2**20, f"the sender was not held back: it had {unsent:,} bytes unsent")
        if at_the_end < count * 0.9:
            break
    else:
        raise Failed("the responders were fast enough")
    sent = f"{count:,} commands of {size:,} bytes sent while {at_the_end:,} were done, none lost"
    return f"{sent}; the sender had {unsent:,} bytes unsent at most, +{rise / 1e6:.1f} MB"


@scenario
async def calling_back(case: Case) -> str:
    """Responders that ask back on the same connection, many more than run at once."""
    count = case.size(20_000, 2_000)
    async with case.server(max_concurrent_responders=10) as child, child.connect() as amp:
        asked = [amp.callRemote(CallBack, a=number, b=1) for number in range(count)]
        totals = [answer["total"] for answer in await asyncio.gather(*asked)]
        check(totals == list(range(1, count + 1)), "wrong totals")
    return f"{count:,} responders, 10 at once, called back, all finished"


@scenario
async def slow_responders(case: Case) -> str:
    """Many questions that take 10 ms each, 100 at once, and a second client that asks them, too."""
    count = case.size(50_000, 2_000)
    delays = []
    async with case.server(connections=2, max_concurrent_responders=100, answer=1000) as child:
        own = Memory(os.getpid())
        async with child.connect() as amp, child.connect() as other:
            asked = [amp.callRemote(Wait, seconds=0.01, data=b"%d" % n) for n in range(count)]
            answers = asyncio.gather(*asked)
            while not answers.done():
                start = time.perf_counter()
                await other.callRemote(Wait, seconds=0.01, data=b"other")
                delays.append(time.perf_counter() - start)
            got = [int(answer["data"]) for answer in await answers]
        own.watching = False
        rise = own.peak - own.base
        check(got == list(range(count)), "wrong answers")
        check(len(delays) > 3, f"the second client got {len(delays)} answers only")
        # What the callers hold: a box, three futures and the answer for each.
        allowed = SLACK + most(Limits()) + 4096 * count
        check(rise <= allowed, f"the client took {rise / 1e6:.1f} of {allowed / 1e6:.1f} MB")
    second = f"{len(delays)} answers, {1000 * median(delays):.0f} ms, at worst {1000 * max(delays):.0f}"
    own_memory = f"the client +{rise / 1e6:.1f} of {allowed / 1e6:.1f} MB"
    return f"{count:,} of 10 ms, 100 at once, all answered; a second client {second}; {own_memory}"


@scenario
async def cancelling(case: Case) -> str:
    """Callers that are cancelled at random while the answers stream in."""
    count, dice = case.size(10_000, 10_000), random.Random(4)
    rounds = case.size(10, 1)
    given_up = kept = 0
    questions: list[weakref.ref[asyncio.Future[Any]]] = []
    async with case.server(answer=1000) as child, child.connect(Limits(window=2**18)) as amp:
        for _ in range(rounds):
            asked = []
            for number in range(count):
                data, seconds = b"%d" % number, dice.choice([0, 0, 0.001, 0.01])
                ask = amp.callRemote(Wait, seconds=seconds, data=data) if seconds else None
                asked.append(ask or amp.callRemote(Echo, data=data))
            victims = dice.sample(asked, count // 2)
            while victims:
                for victim in victims[:50]:
                    victim.cancel()
                del victims[:50]
                await asyncio.sleep(0)
                if len(victims) % 500 == 0:
                    await asyncio.sleep(0.005)
            questions += map(weakref.ref, asked)
            for number, answer in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
                if isinstance(answer, asyncio.CancelledError):
                    given_up += 1
                else:
                    check(answer == {"data": b"%d" % number}, f"{number} got {answer!r}")
                    kept += 1
            check(await amp.callRemote(Sum, a=1, b=1) == {"total": 2}, "out of step")
        check(given_up, "nobody was cancelled in time")
        del asked, ask, victim
        gc.collect()
        check(not [ref for ref in questions if ref() is not None], "questions are left on the books")
    return f"{given_up:,} callers cancelled, {kept:,} got each its own answer, the connection in step"


class Relay:
    """Passes a connection on, and cuts it behind `budget` bytes of one direction."""

    def __init__(self, port: int, towards_server: bool, budget: int, reset: bool) -> None:
        self.port = port
        self.towards_server = towards_server
        self.budget = budget
        self.reset = reset
        self.passed = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        both = (writer, up_writer)
        await asyncio.gather(
            self.pump(reader, up_writer, both, self.towards_server),
            self.pump(up_reader, writer, both, not self.towards_server),
        )
        writer.close()
        up_writer.close()

    async def pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, ...],
        counts: bool,
    ) -> None:
        with suppress(OSError, RuntimeError):
            while data := await reader.read(65536):
                if not counts:
                    writer.write(data)
                    continue
                writer.write(data[: self.budget - self.passed])
                self.passed += len(data)
                if self.passed >= self.budget:
                    for end in both:
                        end.transport.abort() if self.reset else end.close()
                    return
            writer.write_eof()


@scenario
async def loss(case: Case) -> str:
    """The connection cut behind every n-th byte of a known exchange, in each direction."""
    answered = lost = cuts = 0
    at_once = asyncio.Semaphore(20)
    seen.clear()

    async def exchange(child: Child, towards_server: bool, budget: int, reset: bool = False) -> int:
        nonlocal answered, lost
        relay = Relay(child.port, towards_server, budget, reset)
        async with at_once, await asyncio.start_server(relay.accept, "127.0.0.1", 0) as listening:
            resolved = 0

            def count(future: asyncio.Future[Any]) -> None:
                nonlocal resolved
                resolved += 1

            # The relay may be cut before all of it is sent.
            async with connect(*listening.sockets[0].getsockname(), Peer) as amp:
                expected: list[tuple[asyncio.Future[Any], dict[str, Any]]] = [
                    (amp.callRemote(Echo, data=b"one"), {"data": b"one"}),
                    (amp.callRemote(Wait, seconds=0.003, data=b"two"), {"data": b"two"}),
                    (amp.callRemote(CallBack, a=3, b=4), {"total": 7}),
                    (amp.callRemote(CallBack, a=5, b=6), {"total": 11}),
                ]
                for future, _ in expected:
                    future.add_done_callback(count)
                await asyncio.wait([future for future, _ in expected], timeout=20)
                for future, right in expected:
                    check(future.done(), f"a call was left open at {budget}")
                    if future.exception() is None:
                        check(future.result() == right, f"a wrong answer at {budget}")
                        answered += 1
                    else:
                        error = future.exception()
                        check(type(error) is ConnectionLost, f"{error!r} at {budget}")
                        lost += 1
                await asyncio.sleep(0)
                check(resolved == len(expected), f"{resolved} futures resolved at {budget}")
        return relay.passed

    async with case.server(connections=20) as child:
        step = case.size(1, 7)
        for towards_server in (True, False):
            total = await exchange(child, towards_server, 2**30)
            for reset in (True, False):
                budgets = range(1, total + 1, step)
                await asyncio.gather(*(exchange(child, towards_server, n, reset) for n in budgets))
                cuts += len(budgets)
        for _ in range(100):
            counted, said = await child.report()
            if counted["began"] == counted["finished"]:
                break
            await asyncio.sleep(0.05)
        left = counted["began"] - counted["finished"]
        check(left == 0, f"{left} responders did not finish: {said}")
    done = f"{counted['finished']:,} responders finished, {counted['lost']} of them lost their own call"
    return f"{cuts:,} cuts: {answered:,} calls answered, {lost:,} lost once each; {done}"


@scenario
async def drain(case: Case) -> str:
    """A server that is closed in the middle of 1,000 answers."""
    count, dice = 1_000, random.Random(4)
    async with case.server(max_concurrent_responders=50, answer=30_000) as child:
        # So that the wire and the server's backlog hold some, too.
        async with child.connect(Limits(window=4 * 2**20)) as amp:
            asked = []
            for number in range(count):
                data = b"%d " % number + BIG[:10_000]
                asked.append(amp.callRemote(Wait, seconds=dice.uniform(0, 0.02), data=data))
            while sum(future.done() for future in asked) < count // 5:
                await asyncio.sleep(0)
            before, _ = await child.report()
            _, said = await child.close()
            answers = await asyncio.gather(*asked, return_exceptions=True)
        answered = 0
        for number, answer in enumerate(answers):
            if isinstance(answer, ConnectionLost):
                continue
            check(isinstance(answer, dict), f"{answer!r}")
            check(answer["data"].startswith(b"%d " % number), "a wrong answer")
            answered += 1
        read = before["read Wait"]
        check(answered >= read, f"{answered} answers came of {read} commands that it had read: {said}")
    return f"closed after {count // 5} of {count:,}: it had read {read}, and answered {answered}"


@scenario
async def half_close(case: Case) -> str:
    """A shell one-liner that pipes commands in, closes its side, and gets every answer."""
    count = 20
    boxes = b"".join(
        question("Wait", number, seconds=b"0.01", data=b"%d" % number) for number in range(1, count + 1)
    )
    octal = "".join(f"\\{byte:03o}" for byte in boxes)
    program = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
        "s.sendall(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR);"
        "sys.stdout.buffer.write(s.makefile('rb').read())"
    )
    async with case.server(max_concurrent_responders=5) as child:
        netcat = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {child.port}"
        shell = await asyncio.create_subprocess_shell(
            f"printf '{octal}' | {netcat}", stdout=subprocess.PIPE
        )
        out, _ = await shell.communicate()
        got = {(int(box[b"_answer"], 16), int(box[b"data"])) for box in parseString(out)}
        check(got == {(number, number) for number in range(1, count + 1)}, f"answers: {sorted(got)}")
    return f"printf '...' | netcat, {count} commands and the end of stdin: {len(got)} answers"


# --- running them ---


async def run_scenario(name: str, loop: str, short: bool) -> bool:
    """Run a scenario, print the line about it, and return whether all was as it has to be."""
    case = Case(loop, short)
    start = time.perf_counter()
    verdict = "PASS"
    try:
        async with asyncio.timeout(SHORT_PATIENCE if short else PATIENCE):
            text = await scenarios[name](case)
    except TimeoutError:
        text, verdict = "it took too long", "FAIL"
    except (Failed, OSError, ConnectionLost) as error:
        text, verdict = f"{type(error).__name__}: {error}", "FAIL"
    seconds = time.perf_counter() - start
    memory = ""
    if case.child is not None:
        its = case.child.memory
        base, peak, end = its.base / 1e6, (its.peak - its.base) / 1e6, (its.end - its.base) / 1e6
        allowed = case.child.allowed / 1e6
        memory = f" | {base:.1f} MB, peak +{peak:.1f}, end {end:+.1f}, allowed +{allowed:.1f}"
    print(f"{verdict} {loop} {name}: {text}{memory} | {seconds:.1f} s", flush=True)
    return verdict == "PASS"


async def run_scenarios(names: list[str], loop: str, short: bool) -> bool:
    logging.getLogger("amp_asyncio").addHandler(logging.NullHandler())
    return all([await run_scenario(name, loop, short) for name in names])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--short", action="store_true", help="smaller counts, for the test suite")
    parser.add_argument("--server", metavar="LIMITS", help=argparse.SUPPRESS)
    parser.add_argument("--twisted", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(scenarios)}; all if none is given")
    options = parser.parse_args()
    unknown = set(options.scenario) - set(scenarios)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    if options.twisted:
        run_twisted(*options.twisted)
        return 0
    factory = uvloop.new_event_loop if options.loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if options.server is not None:
            runner.run(run_server(Limits(**json.loads(options.server))))
            return 0
        names = options.scenario or list(scenarios)
        return 0 if runner.run(run_scenarios(names, options.loop, options.short)) else 1


if __name__ == "__main__":
    sys.exit(main())
