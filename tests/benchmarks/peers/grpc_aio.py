"""grpc.aio, with msgpack for its messages: so that nothing has to be generated beforehand.

Connections are channels that share no subchannel, as gRPC would let them by itself. On asyncio's loop
alone: gRPC has an engine of its own beside it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
from msgpack import packb, unpackb

from peers import HOST, Connection, Peer


async def answer_sum(request: list[int], context: Any) -> int:
    return sum(request)


async def answer_echo(request: bytes, context: Any) -> bytes:
    return request


class Grpc(Peer):
    async def serve(self, size: int, tls: bool) -> int:
        server = grpc.aio.server()
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                answer, request_deserializer=unpackb, response_serializer=packb
            )
            for name, answer in (("Sum", answer_sum), ("Echo", answer_echo))
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Bench", handlers)])
        if tls:
            pem = self.pem_bytes()
            port = server.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials([(pem, pem)]))
        else:
            port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        self.servers.append(server)
        return int(port)

    async def connect(self, port: int, size: int, tls: bool) -> Connection:
        options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
        if tls:
            options.append(("grpc.ssl_target_name_override", "localhost"))
            credentials = grpc.ssl_channel_credentials(self.pem_bytes())
            channel = grpc.aio.secure_channel(f"{HOST}:{port}", credentials, options)
        else:
            channel = grpc.aio.insecure_channel(f"{HOST}:{port}", options)
        name = "/Bench/Echo" if size else "/Bench/Sum"
        call = channel.unary_unary(name, request_serializer=packb, response_deserializer=unpackb)
        return Connection(partial(call, b"x" * size if size else [13, 81]), channel.close)
