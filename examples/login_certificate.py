"""A login with client certificates: TLS verifies them, and the server looks up who they belong to.

Here a client may also come without a certificate: it then finds public commands only. A certificate
that the server does not trust is refused by TLS. See examples/authentication.md.

Run it: python examples/login_certificate.py
"""

import asyncio
import logging
import ssl

from amp_asyncio import (
    AMP,
    Command,
    ConnectionLost,
    PrivateCertificate,
    UnhandledCommand,
    Unicode,
    connect,
    serve,
)

# In a real deployment, each side has its own, and only the `.certificate` of the others.
SERVER = PrivateCertificate.self_signed("localhost", names=["127.0.0.1"])
ADA = PrivateCertificate.self_signed("Ada")
STRANGER = PrivateCertificate.self_signed("Ada")  # Anybody can make one with this name.

USERS = {ADA.fingerprint: "Ada"}


class Status(Command):
    response = [(b"text", Unicode())]
    public = True


class Balance(Command):
    response = [(b"text", Unicode())]


class Bank(AMP):
    identified_only = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        certificate = self.peer.certificate
        if certificate is not None:
            self.identity = USERS.get(certificate.fingerprint)

    @Status.responder
    def status(self) -> dict[str, str]:
        return {"text": "open"}

    @Balance.responder
    async def balance(self) -> dict[str, str]:
        return {"text": f"{self.identity} has 94"}


def serving() -> ssl.SSLContext:
    context = SERVER.ssl_context(server_side=True, authorities=[ADA.certificate])
    context.verify_mode = ssl.CERT_OPTIONAL  # Without this line, each client must have a certificate.
    return context


async def visit(address: tuple[str, int], who: str, context: ssl.SSLContext) -> None:
    async with connect(*address, ssl=context) as amp:
        try:
            print(f"{who} sees that the bank is", (await amp.callRemote(Status))["text"])
            print(f"{who} asks:", (await amp.callRemote(Balance))["text"])
        except ConnectionLost as error:
            print(f"{who} is refused:", type(error.__cause__).__name__)
        except UnhandledCommand:
            print(f"{who} finds no other command")


async def main() -> None:
    logging.getLogger("amp_asyncio").setLevel(logging.ERROR)  # One handshake fails.
    trusted = [SERVER.certificate]
    nameless = ssl.create_default_context(cadata=SERVER.certificate.to_pem().decode())
    async with serve(Bank, "127.0.0.1", 0, ssl=serving()) as server:
        address = server.sockets[0].getsockname()[:2]
        await visit(address, "Ada", ADA.ssl_context(server_side=False, authorities=trusted))
        await visit(
            address,
            "A stranger who claims to be Ada",
            STRANGER.ssl_context(server_side=False, authorities=trusted),
        )
        await visit(address, "A stranger without a certificate", nameless)


if __name__ == "__main__":
    asyncio.run(main())
