"""grpc.aio, with msgpack for its messages: so that nothing has to be generated beforehand.

Connections are channels that share no subchannel, as gRPC would let them by itself. On asyncio's loop
alone: gRPC has an engine of its own beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
from msgpack import packb, unpackb

from peers import HOST, TIMEOUT, VALUE, Connection, Peer


async def answer_sum(request: list[int], context: Any) -> int:
    return sum(request)


async def answer_echo(request: bytes, context: Any) -> bytes:
    return request


async def send_items(request: int, context: Any) -> AsyncIterator[int]:
    for item in range(request):
        yield item


class Grpc(Peer):
    async def serve(self, what: str, tls: bool) -> int:
        server = grpc.aio.server()
        options: Any = {"request_deserializer": unpackb, "response_serializer": packb}
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(answer, **options)
            for name, answer in (("Sum", answer_sum), ("Echo", answer_echo))
        }
        handlers["Items"] = grpc.unary_stream_rpc_method_handler(send_items, **options)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Bench", handlers)])
        if tls:
            pem = self.pem_bytes()
            port = server.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials([(pem, pem)]))
        else:
            port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        self.servers.append(server)
        return int(port)

    async def connect(self, port: int, what: str, tls: bool) -> Connection:
        options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
        if tls:
            options.append(("grpc.ssl_target_name_override", "localhost"))
            credentials = grpc.ssl_channel_credentials(self.pem_bytes())
            channel = grpc.aio.secure_channel(f"{HOST}:{port}", credentials, options)
        else:
            channel = grpc.aio.insecure_channel(f"{HOST}:{port}", options)
        serializers: Any = {"request_serializer": packb, "response_deserializer": unpackb}

        def asks(name: str) -> Any:
            return channel.unary_unary(f"/Bench/{name}", **serializers)

        async def take(count: int = 1) -> None:
            items = channel.unary_stream("/Bench/Items", **serializers)
            assert len([item async for item in items(count)]) == count

        ways: dict[str, Any] = {
            "sum": partial(asks("Sum"), [13, 81]),
            "timed": partial(asks("Sum"), [13, 81], timeout=TIMEOUT),
            "echo": partial(asks("Echo"), b"x" * VALUE),
            "items": take,
        }
        return Connection(ways[what], channel.close)
