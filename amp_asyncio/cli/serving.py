"""serve: a class of the user's module, until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from argparse import Namespace
from contextlib import suppress
from typing import Any

from .. import endpoints
from .addresses import parse_address, written
from .connecting import authorities_of, certificate_of, lines_of
from .failures import Failure, Status
from .logs import logs
from .modules import load
from .output import say

__all__ = ["serve"]


def serve(options: Namespace) -> Status:
    """Serve until SIGINT or SIGTERM, then close in order; a second signal aborts what is left."""
    address = parse_address(options.address)
    factory = load(options.factory)
    context: Any = None
    if options.tls:
        if options.cert is None:
            raise Failure(Status.USAGE, "--tls needs the certificate of the server: give --cert")
        from ..tls.certificates import make_ssl_context

        context = make_ssl_context(
            certificate_of(options), server_side=True, authorities=authorities_of(options)
        )
    elif options.cert or options.key or options.cafile:
        raise Failure(Status.USAGE, "--cert, --key and --cafile are for --tls")
    try:
        if isinstance(address, str):
            opening = endpoints.unix_serve(factory, address, ssl=context)
        else:
            opening = endpoints.serve(factory, address[0] or None, address[1], ssl=context)
    except TypeError as error:
        raise Failure(Status.USAGE, str(error)) from None
    with logs(logging.DEBUG if options.verbose else logging.WARNING):
        try:
            asyncio.run(_serve(opening))
        except OSError as error:
            why = "; ".join(lines_of(error))
            raise Failure(Status.CONNECTION, f"cannot listen on {options.address}: {why}") from None
        except asyncio.CancelledError:
            return Status.INTERRUPTED
    return Status.DONE


async def _serve(opening: endpoints.Opening[endpoints.Server]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set() and task is not None:
            task.cancel()
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    async with opening as server:
        for sock in server.sockets:
            say(f"listening on {written(sock.getsockname())}")
        try:
            await stopped.wait()
        finally:
            for sock in server.sockets:
                if sock.family == socket.AF_UNIX:
                    with suppress(OSError):  # Another process may have removed the path.
                        os.unlink(sock.getsockname())
