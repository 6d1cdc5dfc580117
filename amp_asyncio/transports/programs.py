"""Processes: what it takes to start one with pipes at any descriptors, and to learn of its end.

`subprocess` starts it, on every loop. asyncio's own functions would watch it as well; but with uvloop's
a child gets copies of its pipes that it does not know of, and so can never close.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from io import FileIO
from os import PathLike
from threading import Thread
from typing import Any, TypeAlias

__all__ = ["Output", "Word", "check_report", "make_pipe", "place", "through_descriptors", "watch"]

#: What a command is made of.
Word: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]

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


def make_pipe(reading: ExitStack, writing: ExitStack) -> tuple[FileIO, FileIO]:
    """Make a pipe; return its ends, each with who is to close it."""
    read, write = os.pipe()
    return (
        reading.enter_context(FileIO(read, "rb")),
        writing.enter_context(FileIO(write, "wb")),
    )


def place(
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


def through_descriptors(
    command: Sequence[Word],
    high: dict[int, FileIO],
    reporting: FileIO,
    options: dict[str, Any],
    theirs: ExitStack,
) -> Sequence[Word]:
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


async def check_report(report: asyncio.StreamReader, command: Sequence[Word]) -> None:
    """Wait until the program runs; raise the error with which it did not."""
    number = await report.read()
    if number:
        raise OSError(int(number), os.strerror(int(number)), os.fspath(command[0]))


class Output(asyncio.StreamReaderProtocol):
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


def watch(process: subprocess.Popen[bytes], exited: Callable[[], None]) -> None:
    """Have `exited` called by the loop when `process` has ended, and its status is in `returncode`."""
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
