"""Child processes: starting one that speaks AMP over pipes, and being one.

A child is a connection and a process, and each says only half of what happened to the other. The
connection ends before the process has an exit status; so its end is held back for a moment, until the
status is known, and what was asked fails with that. And whoever goes away takes the other with it: a
child sees its pipes end when its parent dies, however it dies, because no other process has the
parent's ends of them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from io import FileIO
from typing import IO, Any, Generic, TypeVar, overload

from .amp import AMP
from .endpoints import _limited, _Opening
from .limits import Limits
from .transports.pipes import PipeTransport, unbroken
from .transports.programs import (
    Output,
    Word,
    check_report,
    make_pipe,
    place,
    through_descriptors,
    watch,
)

__all__ = ["Child", "spawn", "stdio"]

_A = TypeVar("_A", bound=AMP)

# How many seconds the exit status may take to come behind the end of the pipes, and the end of the
# pipes behind the exit status.
_PATIENCE = 1.0

# How many seconds a child has to end that was terminated, before it is killed.
_GRACE = 3.0


class _Ended(subprocess.CalledProcessError):
    """How a child has ended: the reason that its connection is lost."""

    def __str__(self) -> str:
        child = f"the child process {os.fsdecode(self.cmd[0])}"
        if self.returncode >= 0:
            return f"{child} ended with exit status {self.returncode}"
        try:
            name = signal.Signals(-self.returncode).name
        except ValueError:
            name = f"signal {-self.returncode}"
        return f"{child} was ended by {name}"


class Child(Generic[_A]):
    """A child process that speaks AMP with us; `spawn` makes one.

    Attributes:
        amp: our side of the connection.
        returncode: its exit status, or the negative number of the signal that ended it; None while it
            runs.
        stderr: what it writes to its standard error, an `asyncio.StreamReader`, if `spawn` was called
            with `stderr=asyncio.subprocess.PIPE`; else None. It has to be read as it comes: a child
            whose standard error nobody reads waits when the pipe is full.
    """

    returncode: int | None = None
    stderr: asyncio.StreamReader | None = None

    _process: subprocess.Popen[bytes]
    _transport: PipeTransport
    _errors: Output | None = None
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, amp: _A, command: Sequence[Word]) -> None:
        self.amp = amp
        self._command = command
        self._exited = asyncio.Event()
        # What is to be done about the end of the pipes when it is known why they ended.
        self._held: list[Callable[[], None]] = []

    def _begin(self, command: Sequence[Any], options: dict[str, Any]) -> None:
        self._process = subprocess.Popen(command, **options)
        watch(self._process, self._process_exited)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send the process a signal; does nothing where it has ended."""
        self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask the process to end, with SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process, with SIGKILL."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until the process has ended, and return its `returncode`.

        Cancelling this only ends the wait.
        """
        await self._exited.wait()
        assert self.returncode is not None
        return self.returncode

    async def close(self, timeout: float | None = 10.0) -> None:
        """Close the connection in order, and return when the process has ended.

        The connection closes as `AMP.close` does it. (One that was handed over to another protocol is
        closed, too.) A child then sees the end of its input, and is to end by itself. When all this
        takes more than `timeout` seconds (None: as long as it takes), the process is terminated, and
        killed if that does not end it in three seconds more.

        Cancelling it kills the process.
        """
        try:
            try:
                async with asyncio.timeout(timeout):
                    await self.amp.close(None)
                    self._transport.close()
                    await self._exited.wait()
            except TimeoutError:
                await self._end()
            await self._finish_errors()
        except asyncio.CancelledError:
            await self._kill()
            raise
        finally:
            self._close_pipes()

    async def _end(self) -> None:
        self.terminate()
        try:
            async with asyncio.timeout(_GRACE):
                await self._exited.wait()
        except TimeoutError:
            await self._kill()

    async def _kill(self) -> None:
        self.kill()
        await self._exited.wait()

    def _close_pipes(self) -> None:
        self._transport.abort()
        if self._errors is not None:
            self._errors.close()

    async def _finish_errors(self) -> None:
        """Read what the process has left in its standard error, unless too much was not read before.

        Somebody else may have it for his own, and never close it.
        """
        if self._errors is not None and self._errors.is_reading():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._errors.ended.wait()

    # --- the two ends: of the process, and of its pipes ---

    def _pipes_ended(self, go_on: Callable[[], None]) -> None:
        """Go on when it is known how the process ended, but not much later: it may live on."""
        if self.returncode is not None:
            go_on()
            return
        self._held.append(go_on)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._let_go)

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        for go_on in held:
            go_on()

    def _process_exited(self) -> None:
        self.returncode = self._process.returncode
        ended = _Ended(self.returncode, self._command)
        self.amp._error = self.amp._error or ended
        self._let_go()
        self._transport.release()
        # Somebody else may have its ends of the pipes, such as a child of its own.
        asyncio.get_running_loop().call_later(_PATIENCE, self._transport.end, ended)
        self._exited.set()


# --- starting a child ---


@overload
def spawn(
    program: Word,
    *args: Word,
    protocol_factory: Callable[[], _A],
    fds: tuple[int, int] = ...,
    stderr: int | IO[Any] | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> _Opening[Child[_A]]: ...
@overload
def spawn(
    program: Word,
    *args: Word,
    fds: tuple[int, int] = ...,
    stderr: int | IO[Any] | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> _Opening[Child[AMP]]: ...
def spawn(
    program: Word,
    *args: Word,
    protocol_factory: Callable[[], AMP] = AMP,
    fds: tuple[int, int] = (0, 1),
    stderr: int | IO[Any] | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> _Opening[Child[Any]]:
    """Start a program that speaks AMP over pipes, and connect to it.

    `async with spawn(...) as child` closes the `Child` at the end; `child = await spawn(...)` leaves
    that to the caller. What connects is what `protocol_factory` makes, and is `child.amp`; `limits`, if
    given, takes the place of the limits of its class.

    `fds` are the descriptors that the child reads AMP from and writes AMP to, by default its standard
    input and output. (Programs made for Twisted often use `(3, 4)`.) The child gets no other descriptor
    of ours but the standard ones, and those in `pass_fds`. Standard error is ours, unless `stderr` says
    otherwise: `asyncio.subprocess.PIPE` makes it `child.stderr`. All other arguments are those of
    `asyncio.create_subprocess_exec`, with `limit` for `child.stderr`. `stdin` and `stdout`, where AMP
    does not have them, may be anything but a pipe.

    When the process ends, open calls fail with `ConnectionLost`, whose `__cause__` is a
    `subprocess.CalledProcessError` and whose text says the exit status or the signal. When it closes
    its end of the pipe and lives on, they fail a second later: so long its status is waited for.

    Raises `OSError` where the program cannot be started, and `ValueError` where two things are to be at
    one descriptor. Cancelling it leaves no process behind.
    """

    async def open_it() -> Child[Any]:
        amp = _limited(protocol_factory, limits)
        return await _start(Child(amp, (program, *args)), fds, {"stderr": stderr, **options})

    return _Opening(open_it)


async def _start(child: Child[Any], fds: tuple[int, int], options: dict[str, Any]) -> Child[Any]:
    """Start the process of a child, and connect with it; where that fails, nothing is left."""
    outputs: list[tuple[Output, FileIO]] = []
    report: asyncio.StreamReader | None = None
    with ExitStack() as ours:
        with ExitStack() as theirs:
            child_reads, we_write = make_pipe(theirs, ours)
            we_read, child_writes = make_pipe(ours, theirs)
            limit = options.pop("limit", 2**16)
            command: Sequence[Any] = child._command
            high = place(fds, (child_reads, child_writes), options)
            if options["stderr"] == subprocess.PIPE:
                file, options["stderr"] = make_pipe(ours, theirs)
                child.stderr = asyncio.StreamReader(limit)
                child._errors = Output(child.stderr)
                outputs.append((child._errors, file))
            if high:
                file, reporting = make_pipe(ours, theirs)
                report = asyncio.StreamReader()
                outputs.append((Output(report), file))
                command = through_descriptors(command, high, reporting, options, theirs)
            child._begin(command, options)
        ours.pop_all()
    peers = {"sockname": f"process {os.getpid()}", "peername": f"process {child.pid}"}
    child._transport = PipeTransport(child.amp, we_read, we_write, peers, child._pipes_ended)
    try:
        await unbroken(_connect(outputs))
        if report is not None:
            await check_report(report, child._command)
        await child._transport.connect()
    except BaseException:
        child._close_pipes()
        await child._kill()
        raise
    return child


async def _connect(outputs: list[tuple[Output, FileIO]]) -> None:
    for output, file in outputs:
        await output.connect(file)


# --- being a child ---


@overload
def stdio(*, fds: tuple[int, int] = ..., limits: Limits | None = ...) -> _Opening[AMP]: ...
@overload
def stdio(
    protocol_factory: Callable[[], _A], *, fds: tuple[int, int] = ..., limits: Limits | None = ...
) -> _Opening[_A]: ...
def stdio(
    protocol_factory: Callable[[], AMP] = AMP,
    *,
    fds: tuple[int, int] = (0, 1),
    limits: Limits | None = None,
) -> _Opening[Any]:
    """Speak AMP with the process that started this one, over the descriptors that it gave us.

    `async with stdio(Worker) as amp: await amp.wait_closed()` is a whole child. What connects is what
    `protocol_factory` makes; `limits`, if given, takes the place of the limits of its class. `fds` are
    the descriptors to read from and to write to.

    They are AMP's from then on, and no process that this one starts inherits them. Standard input
    becomes empty, and what is written to standard output, such as by `print`, goes to standard error:
    nothing else can get into AMP.

    When the parent ends, however it does, so does the connection: at once, and what responders still do
    goes nowhere. The program is to end then. (A responder that computes without awaiting anything
    notices nothing before it returns.) A parent that only closes its side still gets its answers.

    Raises `ValueError` where the descriptors are no pipes, and `OSError` where there are none.
    """

    async def open_it() -> AMP:
        amp = _limited(protocol_factory, limits)
        _check_pipes(fds)
        peers = {"sockname": f"process {os.getpid()}", "peername": f"process {os.getppid()}"}
        reads, writes = FileIO(_take_over(fds[0]), "rb"), FileIO(_take_over(fds[1]), "wb")
        await PipeTransport(amp, reads, writes, peers).connect()
        return amp

    return _Opening(open_it)


def _check_pipes(fds: tuple[int, int]) -> None:
    found = [os.fstat(fd) for fd in fds]
    for fd, status in zip(fds, found, strict=True):
        if not stat.S_ISFIFO(status.st_mode) and not stat.S_ISSOCK(status.st_mode):
            raise ValueError(f"descriptor {fd} is no pipe: nobody speaks AMP there")
    if os.path.samestat(*found):
        raise ValueError(f"descriptors {fds} are the same socket: AMP needs two pipes")


def _take_over(fd: int) -> int:
    """Return a descriptor for what is at `fd` that nobody else will use or inherit."""
    if fd > 2:
        os.set_inheritable(fd, False)
        return fd
    private = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDWR)
    # (Where it was closed, 2 may be anything by now.)
    os.dup2(null if fd == 0 or sys.__stderr__ is None else 2, fd)
    os.close(null)
    return private
