"""Traces with OpenTelemetry: one trace across two processes, whichever of them asks.

An interceptor makes a span for each call, on both sides. The context of the trace goes along in the
metadata of the question, as W3C defines it (`traceparent`). The attributes are those of OpenTelemetry's
conventions for RPC. Here the spans are kept in memory, and the client fetches those of the server; in a
real deployment, each process exports its own.

Run it: pip install opentelemetry-sdk; python examples/tracing.py
"""

import asyncio
import sys
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

from amp_asyncio import (
    AMP,
    AmpList,
    Call,
    Command,
    Proceed,
    Unicode,
    connect,
    serve,
)

# --- the interceptor: what a real service would take from here ---

tracer = trace.get_tracer("amp_asyncio.examples")


async def traced(call: Call, proceed: Proceed) -> Any:
    """Make a span for a call, with the right parent on either side."""
    name = call.command.decode()
    attributes: dict[str, str | int] = {"rpc.system.name": "amp", "rpc.method": name}
    address = call.peer.address
    asking = call.direction == "asking"
    if isinstance(address, tuple):
        side = "server" if asking else "client"
        attributes |= {f"{side}.address": address[0], f"{side}.port": address[1]}
    parent = context.get_current() if asking else propagate.extract(call.metadata)
    kind = SpanKind.CLIENT if asking else SpanKind.SERVER
    with tracer.start_as_current_span(name, parent, kind, attributes) as span:
        if asking:
            metadata = dict(call.metadata)
            propagate.inject(metadata)
            call.metadata = metadata
        try:
            return await proceed()
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            if not isinstance(error, Exception):  # What OpenTelemetry does not notice: cancellation.
                span.set_status(Status(StatusCode.ERROR))
            raise


# --- a service: the server asks its client back ---


class NoSuchRoom(Exception):
    pass


class Book(Command):
    arguments = [(b"room", Unicode())]
    response = [(b"guest", Unicode())]
    errors = {NoSuchRoom: b"NO_SUCH_ROOM"}


class AskName(Command):
    response = [(b"name", Unicode())]


class GetSpans(Command):
    """For this example: the spans of the other process."""

    response = [
        (
            b"spans",
            AmpList(
                [
                    (b"text", Unicode()),
                    (b"trace", Unicode()),
                    (b"id", Unicode()),
                    (b"parent", Unicode()),
                ]
            ),
        )
    ]


class Hotel(AMP):
    interceptors = [traced]

    @Book.responder
    async def book(self, room: str) -> dict[str, str]:
        if room != "blue":
            raise NoSuchRoom(room)
        return {"guest": (await self.callRemote(AskName))["name"]}

    @GetSpans.responder
    def get_spans(self) -> dict[str, Any]:
        return {"spans": spans("server")}


class Guest(AMP):
    interceptors = [traced]

    @AskName.responder
    def name(self) -> dict[str, str]:
        return {"name": "Ada"}


# --- the two processes ---

exporter = InMemorySpanExporter()


def export() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def spans(process: str) -> list[dict[str, str]]:
    """Return the spans of this process, in the order in which they began."""
    return [described(span, process) for span in sorted(exporter.get_finished_spans(), key=began)]


def began(span: ReadableSpan) -> int:
    return span.start_time or 0


def described(span: ReadableSpan, process: str) -> dict[str, str]:
    own = span.get_span_context()
    assert own is not None
    error = str((span.attributes or {}).get("error.type", ""))
    where = f"{span.kind.name.lower()} in the {process} process"
    return {
        "text": f"{span.name} ({where}{error and f': {error}'})",
        "trace": trace.format_trace_id(own.trace_id),
        "id": trace.format_span_id(own.span_id),
        "parent": trace.format_span_id(span.parent.span_id) if span.parent else "",
    }


def show(found: list[dict[str, str]], parent: str = "", depth: int = 0) -> None:
    """Print the spans as a tree."""
    for span in found:
        if span["parent"] == parent:
            print("  " * depth + span["text"])
            show(found, span["id"], depth + 1)


async def serving() -> None:
    export()
    async with serve(Hotel, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)  # Until the client closes it.


async def main() -> None:
    export()
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "serve", stdin=pipe, stdout=pipe
    )
    assert child.stdin is not None
    assert child.stdout is not None
    port = int(await child.stdout.readline())
    async with connect("127.0.0.1", port, Guest) as guest:
        with tracer.start_as_current_span("a journey"):
            for room in ("red", "blue"):
                try:
                    await guest.callRemote(Book, room=room)
                except NoSuchRoom:
                    continue
        ours = spans("client")
        theirs = (await guest.callRemote(GetSpans))["spans"]
    child.stdin.close()
    await child.wait()
    found = [*ours, *theirs]
    print("traces:", len({span["trace"] for span in found}))
    show(found)


if __name__ == "__main__":
    asyncio.run(serving() if sys.argv[1:] == ["serve"] else main())
