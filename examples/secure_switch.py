"""StartTLS, then a switch: AMP starts TLS, and then hands the connection over to another protocol.

Each side has a certificate, and the public certificate of the other side to verify it with. An
attacker on the path can read and change everything that is sent before TLS. The server therefore
reveals nothing sensitive until it has verified the client, and the client repeats what it had asked
in the clear.

Run it: python examples/secure_switch.py
"""

import asyncio
from typing import cast

from amp_asyncio import (
    AMP,
    Certificate,
    Command,
    PrivateCertificate,
    ProtocolSwitchCommand,
    StartTLS,
    Unicode,
    connect,
    serve,
)

# In a real deployment, each side has its own, and only the `.certificate` of the other.
SERVER = PrivateCertificate.self_signed("server.example")
CLIENT = PrivateCertificate.self_signed("client.example")


class NotSecured(Exception):
    pass


class Greet(Command):
    response = [(b"greeting", Unicode())]


class SwitchToLines(ProtocolSwitchCommand):
    """After the answer, each side sends lines of text."""

    errors = {NotSecured: b"NOT_SECURED"}


# --- the line protocol, which knows nothing of AMP ---


class LineProtocol(asyncio.Protocol):
    """Lines of text. A subclass defines what happens to each line that arrives."""

    unfinished = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        for line in lines:
            self.line_received(line.decode())

    def line_received(self, line: str) -> None:
        raise NotImplementedError

    def send_line(self, line: str) -> None:
        self.transport.write(line.encode() + b"\n")


class Shouter(LineProtocol):
    """The server's side: it returns each line in upper case."""

    def line_received(self, line: str) -> None:
        self.send_line(line.upper())


class Speaker(LineProtocol):
    """The client's side: it sends a line, waits for the answer, and closes after the last one."""

    def __init__(self, *lines: str) -> None:
        self.lines = iter(lines)
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.speak()

    def speak(self) -> None:
        line = next(self.lines, None)
        if line is None:
            self.transport.close()
        else:
            print("switched     | client:", line)
            self.send_line(line)

    def line_received(self, line: str) -> None:
        print("switched     | server:", line)
        self.speak()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


# --- the two sides, while they speak AMP ---


class Server(AMP):
    @Greet.responder
    def greet(self) -> dict[str, str]:
        peer = self.peerCertificate
        return {"greeting": f"Hello, {peer.common_name if peer else 'unknown client'}."}

    @StartTLS.responder
    def secure(self) -> dict[str, object]:
        return {"tls_localCertificate": SERVER, "tls_verifyAuthorities": [CLIENT.certificate]}

    @SwitchToLines.responder
    def switch(self) -> asyncio.Protocol:
        # A peer certificate is set only after a handshake, which has verified it: see `secure`.
        if self.peerCertificate is None:
            raise NotSecured("start TLS first")
        print("secured      | the server talks to", known_as(self.peerCertificate))
        return Shouter()


def known_as(certificate: Certificate | None) -> str:
    assert certificate is not None
    return f"{certificate.common_name}, sha256 {certificate.fingerprint[:16]}..."


async def main() -> None:
    print("certificates | server:", known_as(SERVER))
    print("certificates | client:", known_as(CLIENT))
    async with serve(Server, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with connect(host, port) as client:
            answer = await client.callRemote(Greet)
            print("in the clear | the server says:", answer["greeting"])
            try:
                await client.callRemote(SwitchToLines, Speaker)
            except NotSecured as error:
                print("in the clear | the server does not switch:", error)

            await client.callRemote(
                StartTLS,
                tls_localCertificate=CLIENT,
                tls_verifyAuthorities=[SERVER.certificate],
                tls_serverHostname="server.example",
            )
            print("secured      | the client talks to", known_as(client.peerCertificate))
            answer = await client.callRemote(Greet)
            print("secured      | the server says:", answer["greeting"])

            speaker = Speaker("good morning", "is anybody listening?")
            await client.callRemote(SwitchToLines, lambda: speaker)
            # The speaker owns the connection now, and closes it.
            await speaker.closed.wait()
            print("closed")


if __name__ == "__main__":
    asyncio.run(main())
