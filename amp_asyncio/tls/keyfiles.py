"""Key files: a private key in a file that only `ssl` reads.

`ssl` can load a private key only from a file. The file is in memory if the system supports that, and
otherwise a temporary file, if possible one without a name, which a process that is killed cannot leave
behind. Only its owner can read it, and it is deleted as soon as `ssl` has read it or failed to.
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
    """Yield the path of a file with `data` that only its owner can read; delete it at the end."""
    with _nameless_file() or tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name if isinstance(file.name, str) else f"{_DESCRIPTORS}/{file.fileno()}"


def _nameless_file() -> IO[bytes] | None:
    """Return a new file without a name, in memory if possible; None if none could be opened again."""
    if not os.path.isdir(_DESCRIPTORS):
        return None
    with suppress(AttributeError, OSError):  # Where memory files are missing, a temporary one will do.
        descriptor = os.memfd_create("certificate")
        os.fchmod(descriptor, 0o600)
        return open(descriptor, "wb")
    return tempfile.TemporaryFile()
