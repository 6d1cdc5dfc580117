"""A login with a shared secret: a challenge, and an HMAC of it. The secret itself is never sent.

The server sends a random challenge, which is valid for one attempt. The client answers with a challenge
of its own and with an HMAC of both, and the server proves in the same way that it knows the secret. A
peer that has not logged in finds no command but these two.

This proves who is there when the connection begins. It does not protect what is sent afterwards: use
TLS as well where somebody on the path may read or change it. See examples/authentication.md.

Run it: python examples/login_secret.py
"""

import asyncio
import hashlib
import hmac
import secrets

from amp_asyncio import AMP, Command, String, UnhandledCommand, Unicode, connect, serve

# In a real deployment, each client knows its own secret only. They are random, not passwords: whoever
# sees a login could try all passwords of a dictionary.
SECRETS = {"Ada": secrets.token_bytes(32), "Grace": secrets.token_bytes(32)}


class AccessDenied(Exception):
    pass


class GetChallenge(Command):
    response = [(b"challenge", String())]
    public = True


class Login(Command):
    arguments = [(b"user", Unicode()), (b"challenge", String()), (b"proof", String())]
    response = [(b"proof", String())]
    fatalErrors = {AccessDenied: b"ACCESS_DENIED"}  # Each connection has one attempt.
    public = True


class Balance(Command):
    response = [(b"text", Unicode())]


def prove(secret: bytes, side: bytes, user: str, challenge: bytes, counter_challenge: bytes) -> bytes:
    """Return what only somebody who knows `secret` can compute, and what fits only this login.

    `side` keeps each side from sending the other's proof back. Every part has a fixed length, or is
    hashed: so no other parts give the same message.
    """
    name = hashlib.sha256(user.encode()).digest()
    return hmac.digest(secret, side + name + challenge + counter_challenge, "sha256")


class Bank(AMP):
    identified_only = True

    challenge: bytes | None = None

    @GetChallenge.responder
    def get_challenge(self) -> dict[str, bytes]:
        self.challenge = secrets.token_bytes(32)
        return {"challenge": self.challenge}

    @Login.responder
    def login(self, user: str, challenge: bytes, proof: bytes) -> dict[str, bytes]:
        ours, self.challenge = self.challenge, None  # It is used up, whatever comes of it.
        if ours is None or len(challenge) != 32:
            raise AccessDenied("ask for a challenge first, and send one of 32 bytes")
        # An unknown user takes as long as a wrong secret.
        secret = SECRETS.get(user, b"")
        expected = prove(secret, b"client", user, ours, challenge)
        if not hmac.compare_digest(expected, proof) or not secret:
            raise AccessDenied("wrong user or wrong secret")
        self.identity = user
        return {"proof": prove(secret, b"server", user, ours, challenge)}

    @Balance.responder
    async def balance(self) -> dict[str, str]:
        return {"text": f"{self.identity} has 94"}


async def log_in(amp: AMP, user: str, secret: bytes) -> None:
    """Log in; raises `AccessDenied` if the server refuses, or does not know the secret itself."""
    theirs = (await amp.callRemote(GetChallenge))["challenge"]
    ours = secrets.token_bytes(32)
    answer = await amp.callRemote(
        Login, user=user, challenge=ours, proof=prove(secret, b"client", user, theirs, ours)
    )
    if not hmac.compare_digest(answer["proof"], prove(secret, b"server", user, theirs, ours)):
        amp.abort()
        raise AccessDenied("this is not the server")


async def main() -> None:
    async with serve(Bank, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()

        async with connect(*address) as amp:
            await log_in(amp, "Ada", SECRETS["Ada"])
            print("Ada asks:", (await amp.callRemote(Balance))["text"])

        async with connect(*address) as amp:
            try:
                await log_in(amp, "Ada", b"a guess")
            except AccessDenied as error:
                print("A stranger who claims to be Ada:", error)

        async with connect(*address) as amp:
            try:
                await amp.callRemote(Balance)
            except UnhandledCommand:
                print("A stranger who only asks finds no such command")


if __name__ == "__main__":
    asyncio.run(main())
