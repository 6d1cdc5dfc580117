"""Closing descriptors that a peer has passed, without waiting for it.

Closing a file can take as long as its sender likes. A TCP socket with `SO_LINGER` waits until the
other end has taken what was written; a file of a FUSE file system waits for the program that serves
it. So threads close what a peer has passed. They run only while work is left, and do not
keep the process from ending.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from threading import Thread, current_thread
from typing import Final

__all__ = ["discard", "in_background", "pending"]

# How many threads close at the same time: one of them may be held up for as long as a peer likes.
_THREADS: Final = 8

_NO_LINGER: Final = struct.pack("ii", 0, 0)

# These two see only atomic operations. So they need no lock, which a process forked meanwhile could
# find held.
_jobs: deque[Callable[[], object]] = deque()
_threads: set[Thread] = set()


def discard(descriptors: Iterable[int]) -> None:
    """Close `descriptors` soon, in another thread.

    Lingering is switched off for sockets, so that they do not hold up a thread for long.
    """
    for descriptor in descriptors:
        in_background(partial(_close, descriptor))


def in_background(job: Callable[[], object]) -> None:
    """Have `job`, which closes something, called soon in another thread; it must not raise."""
    _jobs.append(job)
    _help()


def pending() -> int:
    """Return how much waits to be closed."""
    return len(_jobs)


def _help() -> None:
    """Start a thread, unless enough are running."""
    # A thread of the process that this one was forked from is not alive here.
    if sum(thread.is_alive() for thread in tuple(_threads)) >= _THREADS:
        return
    thread = Thread(target=_work, name="amp_asyncio closes descriptors", daemon=True)
    _threads.add(thread)
    try:
        thread.start()
    except RuntimeError:  # The interpreter is about to end, or the system has no thread left.
        _threads.discard(thread)
        _do_all()


def _work() -> None:
    _do_all()
    _threads.discard(current_thread())
    # One may have come after the last look, while there seemed to be enough threads.
    if _jobs:
        _help()


def _do_all() -> None:
    with suppress(IndexError):  # Asking for the length first would race with the other threads.
        while True:
            _jobs.popleft()()


def _close(descriptor: int) -> None:
    with suppress(OSError):  # It is closed all the same.
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            sock = socket.socket(fileno=descriptor)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            finally:
                sock.detach()
    with suppress(OSError):  # It is closed even so; the error is about the sender's file.
        os.close(descriptor)
