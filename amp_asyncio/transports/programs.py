"""Programs: starting one with pipes at any descriptors, and noticing when it ends.

`subprocess` starts it on every event loop. The loop's own functions could also watch it, but uvloop's
give the child additional copies of its pipes, which it does not know about and so never closes.
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

#: The type of a program's name and of its arguments.
Word: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]

# `subprocess` cannot choose descriptors other than 0, 1 and 2 for a child: `pass_fds` keeps the numbers
# of the parent, where the wanted ones may be in use. So the child first runs this program: it moves the
# pipes to their numbers, and executes the real program. (A `preexec_fn` would run Python in a fork of a
# process with threads, which may deadlock; posix_spawn cannot set the working directory; dash redirects
# only descriptors of one digit.) It also undoes what Python changes when it starts. If the execution
# fails, it reports that over a pipe, which is closed when the real program starts.
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
    """Return the two ends of a new pipe, which the two stacks close."""
    read, write = os.pipe()
    return (
        reading.enter_context(FileIO(read, "rb")),
        writing.enter_context(FileIO(write, "wb")),
    )


def place(
    fds: tuple[int, int], pipes: tuple[FileIO, FileIO], options: dict[str, Any]
) -> dict[int, FileIO]:
    """Put the pipes for descriptors 0, 1 and 2 into `options`; return the others by their numbers.

    Raises `ValueError` if a descriptor would have two uses, or if stdin or stdout would be a new pipe.
    """
    if fds[0] == fds[1] or min(fds) < 0:
        raise ValueError(f"AMP needs two descriptors, one to read from and one to write to, not {fds}")
    for name in ("stdin", "stdout"):
        if options.setdefault(name, None) == subprocess.PIPE:
            raise ValueError(f"the child's {name} cannot be a pipe: nothing uses its other end")
    if fds[1] == 1 and options["stderr"] == subprocess.STDOUT:
        raise ValueError("the child's stderr cannot go where its stdout goes: that is used for AMP")
    high = {}
    for number, file in zip(fds, pipes, strict=True):
        if number > 2:
            if number in options.get("pass_fds", ()):
                raise ValueError(f"the child's descriptor {number} is for AMP, not for pass_fds")
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
    """Return the command that moves the pipes `high` to their numbers, then executes `command`.

    It reports errors over `reporting`; see `_DESCRIPTORS`. Changes `options`; `theirs` closes copies.
    """
    pipes = []
    # Each is passed at a number above all wanted ones, so that moving one never overwrites another.
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
    """Wait until the program has started; raise an `OSError` if it could not be executed."""
    number = await report.read()
    if number:
        raise OSError(int(number), os.strerror(int(number)), os.fspath(command[0]))


class Output(asyncio.StreamReaderProtocol):
    """Reads a pipe into a `StreamReader`; `ended` is set when the pipe is closed."""

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
        return False  # This closes the pipe; uvloop does not close it otherwise.

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._pipe = None
        self.ended.set()


def watch(process: subprocess.Popen[bytes], exited: Callable[[], None]) -> None:
    """Have the loop call `exited` when `process` has ended and `process.returncode` is set."""
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
    except (AttributeError, OSError):  # Only Linux has pidfds, and some sandboxes forbid them.
        Thread(target=wait, name=f"wait for process {process.pid}", daemon=True).start()
    else:
        loop.add_reader(descriptor, ended, descriptor)
