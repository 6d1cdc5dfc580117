"""A server of this package that is attacked: `ours.py asyncio|uvloop DIRECTORY`; see `run.py`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import uvloop

from amp_asyncio import (
    AMP,
    AmpList,
    Command,
    Descriptor,
    Integer,
    PrivateCertificate,
    String,
    serve,
    unix_serve,
)

#: Twenty names, none of which has to be sent.
NAMES = [(b"name%d" % number, Integer(optional=True)) for number in range(20)]


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Hold(Command):
    arguments = [(b"items", AmpList(NAMES, optional=True))]


class Get(Command):
    response = [(b"data%d" % number, String()) for number in range(16)]


class Fail(Command):
    arguments = [(b"text", String())]
    errors = {ValueError: b"VALUE"}


class Release(Command):
    pass


class Open(Command):
    response = [(b"file", Descriptor())]


class Plain(AMP):
    """Holds what it is asked to hold until it is told to let go."""

    gate = asyncio.Event()

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Hold.responder
    async def hold(self, items: Any = None) -> None:
        await Plain.gate.wait()

    @Get.responder
    async def get(self) -> dict[str, bytes]:
        await Plain.gate.wait()
        return {f"data{number}": os.urandom(1) * 60_000 for number in range(16)}

    @Fail.responder
    def fail(self, text: bytes) -> None:
        raise ValueError(text.decode("latin-1"))

    @Release.responder
    def release(self) -> None:
        Plain.gate.set()


class Passing(Plain):
    """Has a command with a descriptor, too."""

    file = os.open("/dev/null", os.O_RDONLY)

    @Open.responder
    def open(self) -> dict[str, int]:
        return {"file": self.file}


async def main() -> None:
    folder = Path(sys.argv[2])
    certificate = PrivateCertificate.self_signed("localhost")
    async with (
        serve(Plain, "127.0.0.1", 0, backlog=1000) as tcp,
        serve(
            Plain, "127.0.0.1", 0, backlog=1000, ssl=certificate.ssl_context(server_side=True)
        ) as tls,
        unix_serve(Plain, folder / "plain"),
        unix_serve(Passing, folder / "passing"),
    ):
        ports = {"tcp": tcp.sockets[0].getsockname()[1], "tls": tls.sockets[0].getsockname()[1]}
        print(json.dumps(ports), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        os._exit(0)


if __name__ == "__main__":
    logging.basicConfig()
    (uvloop.run if sys.argv[1] == "uvloop" else asyncio.run)(main())
