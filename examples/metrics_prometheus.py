"""Metrics of all calls with prometheus_client, which Prometheus fetches over HTTP.

An interceptor counts and measures each call. (`CallMetrics` of this library needs no other package: see
examples/observability.md.)

Run it: pip install prometheus_client; python examples/metrics_prometheus.py
"""

import asyncio
from contextlib import suppress
from typing import Any
from urllib.request import urlopen

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from amp_asyncio import AMP, Call, Command, Float, Integer, Proceed, connect, serve


class Divide(Command):
    arguments = [(b"numerator", Integer()), (b"denominator", Integer())]
    response = [(b"result", Float())]
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}


# prometheus_client has a registry for the whole process; this one has only what is below.
REGISTRY = CollectorRegistry()
RUNNING = Gauge(
    "amp_calls_running", "Calls that are open.", ["direction", "command"], registry=REGISTRY
)
CALLS = Counter("amp_calls", "Ended calls.", ["direction", "command", "outcome"], registry=REGISTRY)
SECONDS = Histogram("amp_call_seconds", "Durations.", ["direction", "command"], registry=REGISTRY)


async def measured(call: Call, proceed: Proceed) -> Any:
    labels = (call.direction, call.command.decode())
    outcome = "ok"
    try:
        with RUNNING.labels(*labels).track_inprogress(), SECONDS.labels(*labels).time():
            return await proceed()
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        CALLS.labels(*labels, outcome).inc()


class Calculator(AMP):
    @Divide.responder
    def divide(self, numerator: int, denominator: int) -> dict[str, float]:
        return {"result": numerator / denominator}


def scraped(port: int) -> list[str]:
    """Return the lines that Prometheus would fetch."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        return [str(line, "utf-8").rstrip() for line in response]


async def main() -> None:
    # The server for Prometheus has a thread of its own.
    http, thread = start_http_server(0, addr="127.0.0.1", registry=REGISTRY)
    async with (
        serve(Calculator, "127.0.0.1", 0, interceptors=[measured]) as server,
        connect(*server.sockets[0].getsockname(), interceptors=[measured]) as amp,
    ):
        await amp.callRemote(Divide, numerator=1, denominator=8)
        await amp.callRemote(Divide, numerator=3, denominator=4)
        with suppress(ZeroDivisionError):
            await amp.callRemote(Divide, numerator=1, denominator=0)
        for line in await asyncio.to_thread(scraped, http.server_port):
            if line.startswith(("amp_calls", "amp_call_seconds_count")) and "_created" not in line:
                print(line)
    http.shutdown()
    http.server_close()
    thread.join()


if __name__ == "__main__":
    asyncio.run(main())
