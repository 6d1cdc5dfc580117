"""Key files: a private key where `ssl` can read it, and nobody else.

`ssl` takes a key from a file and from nowhere else. So the file is one that never reaches a disk, where
the system has such, and otherwise a temporary one; its owner alone can read it, and it is gone as soon
as `ssl` has read it, or has failed to.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

__all__ = ["private_file"]

_DESCRIPTORS = "/proc/self/fd"


@contextmanager
def private_file(data: bytes) -> Iterator[str]:
    """Yield the path of a file with `data`, for its owner alone, which is gone at the end."""
    with _memory_file() or tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name if isinstance(file.name, str) else f"{_DESCRIPTORS}/{file.fileno()}"


def _memory_file() -> IO[bytes] | None:
    """Return a new file that is on no disk and has no name, or None if the system has no such."""
    with suppress(AttributeError, OSError):
        if os.path.isdir(_DESCRIPTORS):
            descriptor = os.memfd_create("certificate")
            os.fchmod(descriptor, 0o600)
            return open(descriptor, "wb")
    return None
