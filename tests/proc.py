"""What a process takes, as /proc says it. Programs of other libraries import this, too."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

__all__ = ["open_descriptors", "resident"]

# uvloop keeps the first. A loop of asyncio has the second while anything waits for its time.
_NOT_COUNTED = ("/dev/null", "anon_inode:[timerfd]")


def open_descriptors(process: int | None = None) -> int:
    """Return how many descriptors a process has; None for this one.

    /dev/null and timers do not count. Those of this process that are being closed are waited for.
    """
    if process is None:
        while closing := [
            each for each in threading.enumerate() if each.name.startswith("amp_asyncio")
        ]:
            for thread in closing:
                thread.join()
    folder = f"/proc/{process or 'self'}/fd"
    links = []
    for descriptor in os.listdir(folder):
        with suppress(OSError):  # It was closed meanwhile, as that which the list is read from.
            links.append(os.readlink(f"{folder}/{descriptor}"))
    return sum(link not in _NOT_COUNTED for link in links)


def resident(process: int | None = None) -> int:
    """Return how much memory a process has, in bytes; None for this one."""
    with open(f"/proc/{process or 'self'}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
