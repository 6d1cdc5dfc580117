"""Child processes: started, asked, asking, and each way in which either side ends."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import uvloop
from fakes import Recorder
from support import Echo, Math, Sum, turns
from worker import WORKER, CloseOutput, Exit, Hang, Parent, Say, Shout, Stubborn, Where, WriteTo

import amp_asyncio.transports.programs
from amp_asyncio import AMP, Child, ConnectionLost, Limits, TooLong, spawn, stdio
from amp_asyncio.transports.pipes import PipeTransport

PIPE = asyncio.subprocess.PIPE

# What a test starts that does not care for the loop.
CHILD = (*WORKER, "0,1", "asyncio")


def loop_name() -> str:
    return "uvloop" if isinstance(asyncio.get_running_loop(), uvloop.Loop) else "asyncio"


def descriptors() -> set[str]:
    """Return what is open, but for /dev/null: libuv opens that when it first needs it."""
    numbers = os.listdir("/proc/self/fd")
    links = [Path("/proc/self/fd", number) for number in numbers]
    return {os.readlink(link) for link in links if link.is_symlink()} - {os.devnull}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)


# --- starting, asking, and being asked ---


@pytest.mark.parametrize("fds", [(0, 1), (0, 2), (2, 0), (1, 2), (2, 1)])
async def test_only_amp_has_the_descriptors(fds: tuple[int, int]) -> None:
    """What writes to the standard ones does not write into the connection."""
    async with spawn(*WORKER, f"{fds[0]},{fds[1]}", "asyncio", fds=fds, stderr=None) as child:
        for _ in range(3):
            await child.amp.callRemote(WriteTo, descriptors=sorted({*fds, 1} - {0}))
        assert await child.amp.callRemote(Sum, a=1, b=1) == {"total": 2}


@pytest.mark.parametrize("fds", [(0, 1), (3, 4), (4, 3), (12, 0), (1, 2)])
async def test_asks_and_is_asked_over_any_descriptors(fds: tuple[int, int]) -> None:
    before = descriptors()
    numbers = f"{fds[0]},{fds[1]}"
    async with spawn(*WORKER, numbers, loop_name(), protocol_factory=Parent, fds=fds) as child:
        assert isinstance(child, Child)
        assert isinstance(child.amp, Parent)
        assert repr(child.amp) == f"<Parent 'process {os.getpid()}' to 'process {child.pid}'>"
        assert await child.amp.callRemote(Sum, a=13, b=81) == {"total": 94}
        where = await child.amp.callRemote(Where)
        assert where["pid"] == child.pid
        assert child.stderr is None
        answers = [child.amp.callRemote(Echo, data=b"x" * 60_000) for _ in range(50)]
        assert all([len((await answer)["data"]) == 60_000 for answer in answers])
        hanging = child.amp.callRemote(Hang)
        await child.amp.ready.acquire()
        hanging.cancel()
        assert child.returncode is None
        closing = asyncio.ensure_future(child.close(None))
        await asyncio.sleep(0)
        child.kill()
        await closing
    assert child.returncode == await child.wait() == -signal.SIGKILL
    await turns()
    assert descriptors() <= before


async def test_ends_by_itself_when_it_is_closed() -> None:
    child = await spawn(*CHILD)
    answer = child.amp.callRemote(Sum, a=13, b=81)
    await child.close()
    assert await answer == {"total": 94}
    assert child.returncode == 0
    assert isinstance(child.amp, AMP)
    with pytest.raises(ConnectionLost):
        await child.amp.callRemote(Sum, a=1, b=1)
    await child.close()
    child.terminate()


async def test_has_no_descriptor_but_its_own() -> None:
    with ExitStack() as files:
        # Those that Python makes are not inherited; these would be, from a child that is not ours.
        inheritable = files.enter_context(FileIO(os.dup(0)))
        os.set_inheritable(inheritable.fileno(), True)
        async with spawn(*CHILD) as one, spawn(*WORKER, "3,4", "asyncio", fds=(3, 4)) as other:
            for child in (one, other):
                numbers = (await child.amp.callRemote(Where))["descriptors"].split()
                # Standard ones, AMP's two, and what the loop and listdir() have.
                assert len(numbers) <= 9, numbers
                links = [Path(f"/proc/{child.pid}/fd/{number}") for number in numbers]
                pipes = {os.readlink(link) for link in links if link.exists()}
                ours = {
                    os.readlink(f"/proc/self/fd/{pipe.fileno()}")
                    for end in (one, other)
                    for pipe in end.amp.transport.get_extra_info("pipe")
                }
                assert len(pipes & ours) == 2, "its own two, and none of the other's"


async def test_standard_streams_of_the_child_cannot_get_into_amp() -> None:
    async with spawn(*CHILD, stderr=PIPE) as child:
        await child.amp.callRemote(Say, text="said")
        assert await child.amp.callRemote(Sum, a=13, b=81) == {"total": 94}
    assert child.stderr is not None
    assert sorted((await child.stderr.read()).split()) == [b"echoed", b"out", b"said"]


async def test_takes_limits_and_what_subprocess_takes(tmp_path: Path) -> None:
    limits = Limits(max_box_size=10_000)
    async with spawn(*CHILD, protocol_factory=Math, limits=limits, cwd=tmp_path) as child:
        assert os.readlink(f"/proc/{child.pid}/cwd") == str(tmp_path)
        with pytest.raises(TooLong, match="limit of 10000 bytes"):
            child.amp.callRemote(Echo, data=b"x" * 20_000)


async def test_a_program_at_other_descriptors_is_started_like_any_other(tmp_path: Path) -> None:
    for locale in ({}, {"LC_CTYPE": "C"}):
        environment = {"PATH": os.environ["PATH"], "LANG": "C", **locale}
        with (tmp_path / "out").open("w+") as out:
            async with spawn("env", fds=(3, 4), env=environment, stdout=out) as child:
                assert await child.wait() == 0
            out.seek(0)
            assert dict(line.rstrip().split("=", 1) for line in out) == environment


async def test_ignores_no_signals_that_python_ignores(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as out:
        command = ["grep", "SigIgn", "/proc/self/status"]
        async with spawn("any name", *command[1:], executable="grep", fds=(3, 4), stdout=out) as child:
            assert await child.wait() == 0
        out.seek(0)
        ignored = await asyncio.to_thread(subprocess.check_output, command, text=True)
        assert out.read() == ignored


# --- not starting ---


@pytest.mark.parametrize("fds", [(0, 1), (3, 4), (0, 4)])
async def test_a_program_that_is_not_there(fds: tuple[int, int]) -> None:
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        await spawn("/no such/program", fds=fds, stderr=PIPE)
    await turns()
    assert descriptors() <= before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fds": (1, 1)}, "two descriptors"),
        ({"fds": (-1, 1)}, "two descriptors"),
        ({"stdin": subprocess.DEVNULL}, "stdin is for AMP"),
        ({"stdout": subprocess.DEVNULL}, "stdout is for AMP"),
        ({"fds": (3, 4), "stdin": PIPE}, "stdin cannot be a pipe"),
        ({"fds": (0, 2), "stderr": PIPE}, "stderr is for AMP"),
        ({"stderr": subprocess.STDOUT}, "stderr cannot go where its stdout goes"),
        ({"fds": (3, 4), "pass_fds": (4,)}, "descriptor 4 is for AMP"),
    ],
)
async def test_two_things_at_one_descriptor(options: dict[str, Any], message: str) -> None:
    before = descriptors()
    with pytest.raises(ValueError, match=message):
        await spawn(*CHILD, **options)
    assert descriptors() <= before


async def test_a_factory_that_raises_starts_nothing() -> None:
    def factory() -> AMP:
        raise LookupError("no protocol")

    with pytest.raises(LookupError):
        await spawn("/no such/program", protocol_factory=factory)


@pytest.mark.parametrize("fds", [(0, 1), (3, 4)])
async def test_cancelled_at_each_turn_leaves_nothing(
    fds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    for count in range(6):
        starting = asyncio.ensure_future(_awaited("sleep", "60", fds=fds, stderr=PIPE))
        for _ in range(count):
            await asyncio.sleep(0)
        if starting.done():
            await starting.result().close(0)
            continue
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert started
    assert all(process.returncode is not None for process in started)
    await turns()
    assert descriptors() <= before


async def _awaited(*command: str, **options: Any) -> Child[AMP]:
    return await spawn(*command, **options)


# --- a child that dies ---


async def test_killed_while_100_calls_are_open() -> None:
    async with spawn(*CHILD, protocol_factory=Parent) as child:
        failed: list[BaseException | None] = []
        calls = [child.amp.callRemote(Hang) for _ in range(100)]
        for call in calls:
            call.add_done_callback(lambda call: failed.append(call.exception()))
            await child.amp.ready.acquire()
        child.kill()
        assert await child.wait() == -signal.SIGKILL
        await child.amp.wait_closed()
        await turns()
    assert len(failed) == 100
    for error in failed:
        assert isinstance(error, ConnectionLost)
        assert "was ended by SIGKILL" in str(error)
        cause = error.__cause__
        assert isinstance(cause, subprocess.CalledProcessError)
        assert (cause.returncode, cause.cmd[:2]) == (-signal.SIGKILL, WORKER)


@pytest.mark.parametrize("status", [0, 3])
async def test_exits_while_calls_are_open(status: int) -> None:
    async with spawn(*CHILD) as child:
        with pytest.raises(ConnectionLost, match=f"ended with exit status {status}$") as caught:
            await child.amp.callRemote(Exit, status=status)
        assert isinstance(caught.value.__cause__, subprocess.CalledProcessError)
        assert child.returncode == status
        with pytest.raises(ConnectionLost, match=f"exit status {status}$"):
            await child.amp.callRemote(Sum, a=1, b=1)


async def test_dies_in_the_middle_of_a_box() -> None:
    async with spawn("sh", "-c", r"printf '\0\004_ask\0'; exit 5") as child:
        with pytest.raises(ConnectionLost, match="exit status 5"):
            await child.amp.callRemote(Sum, a=1, b=1)


async def test_says_signals_that_have_no_name() -> None:
    async with spawn("sh", "-c", "kill -40 $$") as child:
        with pytest.raises(ConnectionLost, match="the child process sh was ended by signal 40"):
            await child.amp.callRemote(Sum, a=1, b=1)


@pytest.mark.slow
async def test_closes_its_end_and_lives_on() -> None:
    async with spawn(*CHILD) as child:
        with pytest.raises(ConnectionLost, match="closed its side of the connection$"):
            await child.amp.callRemote(CloseOutput)
        await child.amp.wait_closed()
        assert child.returncode is None
        child.terminate()
        assert await child.wait() == -signal.SIGTERM


@pytest.mark.slow
async def test_dies_and_somebody_else_has_its_pipes() -> None:
    script = "sleep 60 & echo $! >&2; exit 3"
    async with spawn("sh", "-c", script, stderr=PIPE) as child:
        with pytest.raises(ConnectionLost, match="exit status 3"):
            await child.amp.callRemote(Sum, a=1, b=1)
        assert child.stderr is not None
        other = int(await child.stderr.readline())
    os.kill(other, signal.SIGKILL)


# --- closing ---


async def test_may_write_after_we_have_closed() -> None:
    async with spawn("sh", "-c", "cat >/dev/null; head -c 300000 /dev/zero; exit 7") as child:
        pass
    assert child.returncode == 7


@pytest.mark.slow
async def test_terminated_and_killed_when_it_does_not_end() -> None:
    child = await spawn(*CHILD, protocol_factory=Parent)
    hanging = child.amp.callRemote(Hang)
    await child.amp.ready.acquire()
    await child.close(timeout=0.05)
    assert child.returncode == -signal.SIGTERM
    with pytest.raises(ConnectionLost):
        await hanging

    child = await spawn(*CHILD)
    await child.amp.callRemote(Stubborn)
    await child.close(timeout=0.05)
    assert child.returncode == -signal.SIGKILL


async def test_a_stopped_one_is_terminated_in_its_time() -> None:
    async with spawn(*CHILD) as child:
        child.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        await child.close(timeout=0.1)
        assert child.returncode == -signal.SIGTERM, "it did not have to be killed"


async def test_cancelling_close_kills_it() -> None:
    child = await spawn(*CHILD)
    await child.amp.callRemote(Stubborn)
    closing = asyncio.ensure_future(child.close())
    await child.amp.wait_closed()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert child.returncode == -signal.SIGKILL


async def test_cancelling_wait_does_nothing() -> None:
    async with spawn(*CHILD) as child:
        waiting = asyncio.ensure_future(child.wait())
        await turns()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await child.amp.callRemote(Sum, a=13, b=81) == {"total": 94}


async def test_standard_error_that_nobody_has_read() -> None:
    async with spawn("sh", "-c", "head -c 30000 /dev/zero >&2", stderr=PIPE, limit=1000) as child:
        await child.wait()
    assert child.stderr is not None
    assert 0 < len(await child.stderr.read()) <= 30_000


@pytest.mark.slow
async def test_standard_error_that_never_ends() -> None:
    script = "sleep 60 >/dev/null & echo $! >&2"
    async with spawn("sh", "-c", script, stderr=PIPE) as child:
        await child.wait()
    assert child.stderr is not None
    os.kill(int(await child.stderr.read()), signal.SIGKILL)


# --- switching ---


async def test_switches_to_another_protocol() -> None:
    async with spawn(*CHILD) as child:
        await child.amp.callRemote(Shout, Recorder)
        inner: Any = child.amp.innerProtocol
        inner.transport.write(b"a word")
        await inner.until(lambda: inner.data == b"A WORD")
    assert child.returncode == 0
    await inner.until(lambda: inner.events[-1] == "lost")


# --- a parent that dies ---

PARENT = """
import asyncio, os, sys
from worker import *
from amp_asyncio import spawn

async def main():
    fds = {"0,1": (0, 1), "3,4": (3, 4)}
    children = [
        await spawn(*WORKER, name, loop, fds=fds[name], protocol_factory=Parent)
        for name in fds for loop in ("asyncio", "uvloop")
    ]
    calls = [child.amp.callRemote(Hang) for child in children]
    for child in children:
        await child.amp.ready.acquire()
    print(*(child.pid for child in children), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_parent_that_is_killed_leaves_no_child() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        pids = parent.stdout.readline().split()
        assert len(pids) == 4
        parent.kill()
        # It ends when nobody has it any more: they all have it for their standard error.
        parent.stderr.read()


# --- the end of a process, where there is no pidfd ---


@pytest.fixture
def no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(os, "pidfd_open", refuse)


async def test_a_thread_waits(no_pidfd: None) -> None:
    async with spawn(*CHILD) as child:
        with pytest.raises(ConnectionLost, match="exit status 3"):
            await child.amp.callRemote(Exit, status=3)
    assert child.returncode == 3
    async with spawn(*CHILD) as child:
        child.kill()
    assert child.returncode == -signal.SIGKILL


def test_a_thread_waits_longer_than_the_loop(no_pidfd: None) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:

        async def main() -> None:
            amp_asyncio.transports.programs.watch(process, lambda: None)

        asyncio.run(main())
        threads = [thread for thread in threading.enumerate() if str(process.pid) in thread.name]
        process.kill()
        for thread in threads:
            thread.join()
        assert threads


# --- the child's side, in this process ---


@contextmanager
def at(fds: tuple[int, ...]) -> Iterator[None]:
    """Put back what is at these descriptors."""
    saved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in fds]
    try:
        yield
    finally:
        for fd, copy in zip(fds, saved, strict=True):
            os.dup2(copy, fd)
            os.close(copy)


async def test_stdio_takes_the_standard_streams() -> None:
    child_read, write = os.pipe()
    read, child_write = os.pipe()
    errors, stderr = os.pipe()
    with at((0, 1, 2)), FileIO(errors):
        os.dup2(child_read, 0)
        os.dup2(child_write, 1)
        os.dup2(stderr, 2)
        for fd in (child_read, child_write, stderr):
            os.close(fd)
        amp = await stdio(Math, limits=Limits(max_box_size=10_000))
        parent = AMP()
        await PipeTransport(parent, FileIO(read), FileIO(write, "wb"), {}).connect()
        assert await parent.callRemote(Sum, a=13, b=81) == {"total": 94}
        assert amp.limits.max_box_size == 10_000
        assert os.read(0, 1) == b""
        os.write(1, b"not AMP")
        assert await parent.callRemote(Sum, a=13, b=81) == {"total": 94}
        assert os.get_inheritable(0)
        assert os.get_inheritable(1)
        await parent.close()
        await amp.wait_closed()
        assert os.read(errors, 100) == b"not AMP"


async def test_stdio_without_standard_error() -> None:
    async with spawn("sh", "-c", 'exec "$@" 2>&-', "sh", *CHILD) as child:
        await child.amp.callRemote(Say, text="into nothing")
        assert await child.amp.callRemote(Sum, a=13, b=81) == {"total": 94}
    assert child.returncode == 0


async def test_stdio_over_other_descriptors() -> None:
    child_read, write = os.pipe()
    read, child_write = os.pipe()
    for fd in (child_read, child_write):
        os.set_inheritable(fd, True)
    async with stdio(fds=(child_read, child_write)) as amp:
        assert not os.get_inheritable(child_read)
        assert not os.get_inheritable(child_write)
        parent = Math()
        await PipeTransport(parent, FileIO(read), FileIO(write, "wb"), {}).connect()
        assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}
    await parent.wait_closed()


async def test_stdio_without_a_parent(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        with pytest.raises(ValueError, match="is not a pipe"):
            await stdio(fds=(file.fileno(), file.fileno()))
    with pytest.raises(OSError, match="Bad file descriptor"):
        await stdio(fds=(1000, 1001))
    one, other = socket.socketpair()
    with one, other:
        with pytest.raises(ValueError, match="the same socket"):
            await stdio(fds=(one.fileno(), one.fileno()))
