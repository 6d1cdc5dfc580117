"""Child processes: starting one that speaks AMP over pipes, and being one.

A child is both a connection and a process. The connection usually ends before the exit status of the
process is known, so its end is held back for a moment: open calls then fail with the exit status. If
the parent dies, for whatever reason, the child's pipes end, because no other process has the parent's
ends of them.
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
from typing import IO, Any, Generic, TypeVar, cast, overload

from .amp import AMP
from .composed import connection_of
from .endpoints import Opening
from .limits import Limits
from .serving.acceptor import limited
from .serving.checks import check_factory, check_limits
from .serving.closing import close_in_time, leave_in_time
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

# How many seconds to wait for the exit status after the end of the pipes, and for the end of the pipes
# after the exit status.
_PATIENCE = 1.0

# How many seconds a child that was terminated has to end, before it is killed.
_GRACE = 3.0


class _Ended(subprocess.CalledProcessError):
    """The exit status of a child, as the reason why its connection is lost."""

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
    """A child process that speaks AMP with us; `spawn` creates it.

    Attributes:
        amp: our side of the connection.
        returncode: its exit status, or the negative number of the signal that ended it; None while it
            runs.
        stderr: an `asyncio.StreamReader` of its standard error if `spawn` was called with
            `stderr=asyncio.subprocess.PIPE`, else None. Read it continuously: when the pipe is full,
            the child blocks.
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
        # Callbacks that handle the end of a pipe, held back until it is known why the pipe ended.
        self._held: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"ended with {self.returncode}"
        return f"<Child {os.fsdecode(self._command[0])}, process {self.pid}, {state}>"

    def _begin(self, command: Sequence[Any], options: dict[str, Any]) -> None:
        self._process = cast("subprocess.Popen[bytes]", subprocess.Popen(command, **options))
        watch(self._process, self._process_exited)

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal to the process; do nothing if it has ended."""
        self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask the process to end, by SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process, by SIGKILL."""
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

        The connection closes as by `AMP.close`, also if it was handed over to another protocol. The
        child then sees the end of its input, and should end by itself. If all this takes more than
        `timeout` seconds (None: no timeout), the process is terminated, and killed if it still runs
        three seconds later. (A process that was stopped is continued, to be terminated.)

        Cancelling this kills the process.
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
        self.send_signal(signal.SIGCONT)  # A stopped process does not see the other signal before.
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
        """Wait until the rest of the standard error is read, unless too much of it is unread already.

        The wait is limited, because another process may have inherited the pipe and keep it open.
        """
        if self._errors is not None and self._errors.is_reading():
            with suppress(TimeoutError):  # Another process keeps the pipe open.
                async with asyncio.timeout(_PATIENCE):
                    await self._errors.ended.wait()

    # --- the two ends: of the process, and of its pipes ---

    def _pipes_ended(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when the exit status is known, or after `_PATIENCE` if the process lives on."""
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
        returncode = self._process.returncode
        self.returncode = returncode
        ended = _Ended(returncode, self._command)
        connection = connection_of(self.amp)
        connection.error = connection.error or ended
        self._let_go()
        self._transport.release()
        # The pipes may stay open, because another process, such as a child of the child, has its ends.
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
) -> Opening[Child[_A]]: ...
@overload
def spawn(
    program: Word,
    *args: Word,
    protocol_factory: type[AMP] = ...,
    fds: tuple[int, int] = ...,
    stderr: int | IO[Any] | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> Opening[Child[AMP]]: ...
def spawn(
    program: Word,
    *args: Word,
    protocol_factory: Callable[[], AMP] = AMP,
    fds: tuple[int, int] = (0, 1),
    stderr: int | IO[Any] | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Opening[Child[Any]]:
    """Start a program that speaks AMP over pipes, and connect to it.

    `async with spawn(...) as child` closes the `Child` at the end; after `child = await spawn(...)` the
    caller has to. `protocol_factory` creates our side of the connection, `child.amp`; `limits`, if
    given, replaces the limits of its class.

    `fds` are the descriptors from which the child reads AMP and to which it writes AMP, by default its
    standard input and output. (Programs made for Twisted often use `(3, 4)`.) Apart from these, the
    child inherits only the standard descriptors and those in `pass_fds`. It shares our standard error
    unless `stderr` is given; `asyncio.subprocess.PIPE` makes it available as `child.stderr`. All other
    arguments are those of `asyncio.create_subprocess_exec`; `limit` applies to `child.stderr`. `stdin`
    and `stdout`, if not used for AMP, may be anything except a pipe.

    When the process ends, open calls fail with `ConnectionLost`. Its text contains the exit status or
    the signal, and its `__cause__` is a `subprocess.CalledProcessError`. If the child closes its end of
    the pipe but lives on, they fail one second later, because its exit status is awaited that long.

    Raises `OSError` if the program cannot be started, and `ValueError` if a descriptor would have two
    uses. If it is cancelled, the process is killed.
    """
    signature = "spawn(program, *args, protocol_factory=...)"
    for word in (program, *args):
        if not isinstance(word, str | bytes | os.PathLike):
            hint = "; pass a class as protocol_factory=" if isinstance(word, type) else ""
            raise TypeError(
                f"{signature}: the program and its arguments must be str, not {word!r}{hint}"
            )
    check_factory(signature, protocol_factory)
    check_limits(signature, limits)

    async def open_it() -> Child[Any]:
        amp = limited(protocol_factory, limits)
        return await _start(Child(amp, (program, *args)), fds, {"stderr": stderr, **options})

    return Opening("spawn", (program,), "child", open_it)


async def _start(child: Child[Any], fds: tuple[int, int], options: dict[str, Any]) -> Child[Any]:
    """Start the process of `child` and connect to it; if that fails, clean everything up."""
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
def stdio(*, fds: tuple[int, int] = ..., limits: Limits | None = ...) -> Opening[AMP]: ...
@overload
def stdio(
    protocol_factory: Callable[[], _A], *, fds: tuple[int, int] = ..., limits: Limits | None = ...
) -> Opening[_A]: ...
def stdio(
    protocol_factory: Callable[[], AMP] = AMP,
    *,
    fds: tuple[int, int] = (0, 1),
    limits: Limits | None = None,
) -> Opening[Any]:
    """Speak AMP with the process that started this one, over the descriptors that it gave us.

    `async with stdio(Worker) as amp: await amp.wait_closed()` is a complete child. `protocol_factory`
    creates our side of the connection; `limits`, if given, replaces the limits of its class. `fds` are
    the descriptors to read from and to write to.

    From then on, only AMP uses them: processes that this one starts do not inherit them, and if they
    are the standard ones, standard input becomes empty, standard output, for example of `print`, goes
    to standard error, and standard error goes nowhere.

    When the parent ends, for whatever reason, the connection ends at once, and the answers of running
    responders are discarded. The program should then end. (A responder that computes without awaiting
    does not notice before it returns.) A parent that only closes its side still gets its answers.

    Raises `ValueError` if the descriptors are not two pipes, and `OSError` if they are not open.
    """
    check_factory("stdio(protocol_factory)", protocol_factory)
    check_limits("stdio(protocol_factory)", limits)

    async def open_it() -> AMP:
        amp = limited(protocol_factory, limits)
        _check_pipes(fds)
        peers = {"sockname": f"process {os.getpid()}", "peername": f"process {os.getppid()}"}
        # The standard error first: the standard output is to go there.
        private = {fd: _take_over(fd) for fd in sorted(fds, reverse=True)}
        reads, writes = FileIO(private[fds[0]], "rb"), FileIO(private[fds[1]], "wb")
        await PipeTransport(amp, reads, writes, peers).connect()
        return amp

    return Opening("stdio", (), "amp", open_it, close_in_time, leave_in_time)


def _check_pipes(fds: tuple[int, int]) -> None:
    found = [os.fstat(fd) for fd in fds]
    for fd, status in zip(fds, found, strict=True):
        if not stat.S_ISFIFO(status.st_mode) and not stat.S_ISSOCK(status.st_mode):
            raise ValueError(f"descriptor {fd} is not a pipe: the parent does not speak AMP")
    if os.path.samestat(*found):
        raise ValueError(f"descriptors {fds} are the same socket: AMP needs two pipes")


def _take_over(fd: int) -> int:
    """Return a private descriptor for the file at `fd`, which no other code uses or inherits."""
    if fd > 2:
        os.set_inheritable(fd, False)
        return fd
    private = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDWR)
    # Standard error is not used if it was closed, because descriptor 2 may then be any file by now.
    os.dup2(2 if fd == 1 and sys.__stderr__ is not None else null, fd)
    os.close(null)
    return private
