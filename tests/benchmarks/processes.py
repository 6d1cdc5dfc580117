"""The processes of a peer, seen from the driver: a line goes in, a line comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["Pair", "Process", "environment"]

WORKER = Path(__file__).with_name("worker.py")


# Has glibc keep freed memory, instead of returning it to the kernel and getting it again with each
# large value. What that costs depends on what else a process has allocated, and not on the peer.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "4194304"}


def environment(packages: Path | None = None) -> dict[str, str]:
    """Return the environment of all processes; they import what is in `packages` rather from there.

    It is ours without what would slow Python down: debug modes, or modules that are not cached.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    first = {"PYTHONPATH": str(packages)} if packages else {}
    return ours | _KEEP_MEMORY | first


class Process:
    """A running `worker.py`."""

    def __init__(self, kind: str, loop: str, pem: str, packages: Path | None) -> None:
        self.name = f"{kind} on {loop}"
        self.process = subprocess.Popen(
            [sys.executable, WORKER, kind, loop, pem],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(packages),
        )

    def do(self, what: str, /, **arguments: Any) -> Any:
        """Have it done, and return what comes of it; `RuntimeError` where the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(json.dumps({"do": what, **arguments}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            line = ""
        else:
            line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} has ended while it was to do: {what} {arguments}")
        return json.loads(line)

    def end(self) -> None:
        """End it, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Pair:
    """The server and the client of a peer."""

    def __init__(self, kind: str, loop: str, pem: str, packages: Path | None = None) -> None:
        self.server = Process(kind, loop, pem, packages)
        self.client = Process(kind, loop, pem, packages)
        self._ports: dict[tuple[str, bool], int] = {}

    def port(self, what: str, tls: bool) -> int:
        """Return where that is served, over TLS or not: see `peers/`."""
        if (what, tls) not in self._ports:
            self._ports[what, tls] = self.server.do("serve", what=what, tls=tls)
        return self._ports[what, tls]

    def close(self) -> None:
        self.client.end()
        self.server.end()
