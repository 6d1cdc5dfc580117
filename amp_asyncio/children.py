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
from os import PathLike
from threading import Thread
from typing import IO, Any, Generic, TypeAlias, TypeVar, overload

from .amp import AMP
from .endpoints import _limited, _Opening
from .limits import Limits
from .pipes import PipeTransport, unbroken

__all__ = ["Child", "spawn", "stdio"]

_A = TypeVar("_A", bound=AMP)

_Word: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]

# How many seconds the exit status may take to come behind the end of the pipes, and the end of the
# pipes behind the exit status.
_PATIENCE = 1.0

# How many seconds a child has to end that was terminated, before it is killed.
_GRACE = 3.0

# Other descriptors than 0, 1 and 2 cannot be given to a child by their numbers: `pass_fds` keeps those
# of the parent, where something else may have the wanted ones. In between runs this: it gives the pipes
# their numbers, and turns into the program. (A `preexec_fn` would run Python in the fork of a process
# that has threads, which may deadlock; posix_spawn knows no working directory; dash redirects only
# descriptors of one digit.) What Python changes as it starts is put back, and what goes wrong is
# reported over a pipe that is closed when the program starts.
_DESCRIPTORS = """
import os, signal, sys
pipes, report, locale, program, *arguments = sys.argv[1:]
for pipe in pipes.split(","):
    number, passed = map(int, pipe.split("="))
    os.dup2(passed, number)
    os.close(passed)
os.set_inheritable(int(report), False)
os.environ.pop("LC_CTYPE", None)
if locale:
    os.environ["LC_CTYPE"] = locale
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
try:
    os.execvp(program, arguments)
except OSError as error:
    os.write(int(report), b"%d" % error.errno)
    os._exit(127)
"""


class _Ended(subprocess.CalledProcessError):
    """How a child has ended: the reason that its connection is lost."""

    def __str__(self) -> str:
        if self.returncode >= 0:
            return f"the child process {self.cmd[0]!s} ended with exit status {self.returncode}"
        try:
            name = signal.Signals(-self.returncode).name
        except ValueError:
            name = f"signal {-self.returncode}"
        return f"the child process {self.cmd[0]!s} was ended by {name}"


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
    _errors: _Output | None = None
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, amp: _A, command: Sequence[_Word]) -> None:
        self.amp = amp
        self._command = command
        self._exited = asyncio.Event()
        # What is to be done about the end of the pipes when it is known why they ended.
        self._held: list[Callable[[], None]] = []

    def _begin(self, command: Sequence[Any], options: dict[str, Any]) -> None:
        self._process = subprocess.Popen(command, **options)
        _watch(self._process, self._process_exited)

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


def _watch(process: subprocess.Popen[bytes], exited: Callable[[], None]) -> None:
    """Have `exited` called by the loop when `process` has ended, and its status is in `returncode`.

    asyncio's own functions do this as well. But on uvloop a child gets copies of its pipes that it does
    not know of, and can close them no more. Starting it is one call of `subprocess` in either case.
    """
    loop = asyncio.get_running_loop()

    def ended(descriptor: int) -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        process.wait()
        exited()

    def wait() -> None:
        process.wait()
        with suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(exited)

    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # It is Linux that has these, and not in every sandbox.
        Thread(target=wait, name=f"wait for process {process.pid}", daemon=True).start()
    else:
        loop.add_reader(descriptor, ended, descriptor)


class _Output(asyncio.StreamReaderProtocol):
    """A pipe that is read as a stream."""

    _pipe: asyncio.ReadTransport | None = None

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self.ended = asyncio.Event()

    async def connect(self, file: FileIO) -> None:
        await asyncio.get_running_loop().connect_read_pipe(lambda: self, file)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._pipe = transport

    def is_reading(self) -> bool:
        return self._pipe is not None and self._pipe.is_reading()

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()

    def eof_received(self) -> bool:
        super().eof_received()
        return False  # The pipe is to be closed: uvloop does it only then.

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._pipe = None
        self.ended.set()


# --- starting a child ---


@overload
def spawn(
    program: _Word,
    *args: _Word,
    protocol_factory: Callable[[], _A],
    fds: tuple[int, int] = ...,
    stderr: int | IO[Any] | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> _Opening[Child[_A]]: ...
@overload
def spawn(
    program: _Word,
    *args: _Word,
    fds: tuple[int, int] = ...,
    stderr: int | IO[Any] | None = ...,
    limits: Limits | None = ...,
    **options: Any,
) -> _Opening[Child[AMP]]: ...
def spawn(
    program: _Word,
    *args: _Word,
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
    outputs: list[tuple[_Output, FileIO]] = []
    report: asyncio.StreamReader | None = None
    with ExitStack() as ours:
        with ExitStack() as theirs:
            child_reads, we_write = _pipe(theirs, ours)
            we_read, child_writes = _pipe(ours, theirs)
            limit = options.pop("limit", 2**16)
            command: Sequence[Any] = child._command
            high = _place(fds, (child_reads, child_writes), options)
            if options["stderr"] == subprocess.PIPE:
                file, options["stderr"] = _pipe(ours, theirs)
                child.stderr = asyncio.StreamReader(limit)
                child._errors = _Output(child.stderr)
                outputs.append((child._errors, file))
            if high:
                file, reporting = _pipe(ours, theirs)
                report = asyncio.StreamReader()
                outputs.append((_Output(report), file))
                command = _through_descriptors(command, high, reporting, options, theirs)
            child._begin(command, options)
        ours.pop_all()
    peers = {"sockname": f"process {os.getpid()}", "peername": f"process {child.pid}"}
    child._transport = PipeTransport(child.amp, we_read, we_write, peers, child._pipes_ended)
    try:
        await unbroken(_connect(outputs))
        if report is not None:
            await _check_report(report, child._command)
        await child._transport.connect()
    except BaseException:
        child._close_pipes()
        await child._kill()
        raise
    return child


async def _connect(outputs: list[tuple[_Output, FileIO]]) -> None:
    for output, file in outputs:
        await output.connect(file)


def _pipe(reading: ExitStack, writing: ExitStack) -> tuple[FileIO, FileIO]:
    """Make a pipe; return its ends, each with who is to close it."""
    read, write = os.pipe()
    return (
        reading.enter_context(FileIO(read, "rb")),
        writing.enter_context(FileIO(write, "wb")),
    )


def _place(
    fds: tuple[int, int], pipes: tuple[FileIO, FileIO], options: dict[str, Any]
) -> dict[int, FileIO]:
    """Put the pipes that are for standard descriptors in the options; return the others."""
    if fds[0] == fds[1] or min(fds) < 0:
        raise ValueError(f"AMP needs two descriptors, one to read from and one to write to, not {fds}")
    for name in ("stdin", "stdout"):
        # asyncio's own default is to make a pipe.
        if options.setdefault(name, None) == subprocess.PIPE:
            raise ValueError(f"the child's {name} cannot be a pipe: nobody has its other end")
    if fds[1] == 1 and options["stderr"] == subprocess.STDOUT:
        raise ValueError("the child's stderr cannot go where its stdout goes: AMP is written there")
    high = {}
    for number, file in zip(fds, pipes, strict=True):
        if number > 2:
            if number in options.get("pass_fds", ()):
                raise ValueError(f"the child's descriptor {number} is for AMP, not to be passed")
            high[number] = file
            continue
        name = ("stdin", "stdout", "stderr")[number]
        if options[name] is not None:
            raise ValueError(f"the child's {name} is for AMP, not for {options[name]!r}")
        options[name] = file
    return high


def _through_descriptors(
    command: Sequence[_Word],
    high: dict[int, FileIO],
    reporting: FileIO,
    options: dict[str, Any],
    theirs: ExitStack,
) -> Sequence[_Word]:
    """Return the command that runs `command` with the `high` descriptors; see `_DESCRIPTORS`."""
    pipes = []
    # Each is passed under a number above all that are wanted, so that none is in another's way.
    above = max(high) + 1
    for number, file in [*high.items(), (-1, reporting)]:
        passed = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, above)
        theirs.callback(os.close, passed)
        pipes.append((number, passed))
    options["pass_fds"] = (*options.get("pass_fds", ()), *(passed for _, passed in pipes))
    _, report = pipes.pop()
    environment = os.environ if options.get("env") is None else options["env"]
    return (
        *(sys.executable, "-I", "-S", "-c", _DESCRIPTORS),
        ",".join(f"{number}={passed}" for number, passed in pipes),
        str(report),
        environment.get("LC_CTYPE", ""),
        options.pop("executable", None) or command[0],
        *command,
    )


async def _check_report(report: asyncio.StreamReader, command: Sequence[_Word]) -> None:
    """Wait until the program runs; raise the error with which it did not."""
    number = await report.read()
    if number:
        raise OSError(int(number), os.strerror(int(number)), os.fspath(command[0]))


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
