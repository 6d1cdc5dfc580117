"""HTTP after a login: AMP checks the password, then aiohttp takes over the connection.

The server refuses a wrong password, and a switch without a login, with errors that the commands
declare. AMP goes on after them. Once the server has agreed to the switch, aiohttp answers an HTTP
request on the same connection, and knows who has logged in. (For a complete `web.Application`, call
the `server` of its `web.AppRunner` to create the protocol.)

Over a network, start TLS before you send the password: see secure_switch.py.

Run it: python examples/switch_to_http.py        (needs aiohttp)
"""

import asyncio
from functools import partial
from hmac import compare_digest

from aiohttp import web
from switch_to_streams import switch_to_streams

from amp_asyncio import AMP, Command, ProtocolSwitchCommand, Unicode, connect, serve

PASSWORDS = {"Ada": "note G"}


class WrongPassword(Exception):
    pass


class NotLoggedIn(Exception):
    pass


class Login(Command):
    arguments = [(b"name", Unicode()), (b"password", Unicode())]
    errors = {WrongPassword: b"WRONG_PASSWORD"}


class SwitchToHTTP(ProtocolSwitchCommand):
    """After the answer, the client sends HTTP requests."""

    errors = {NotLoggedIn: b"NOT_LOGGED_IN"}


class Gate(AMP):
    name: str | None = None

    @Login.responder
    async def login(self, name: str, password: str) -> dict[str, str]:
        right = PASSWORDS.get(name)
        if right is None or not compare_digest(password.encode(), right.encode()):
            raise WrongPassword(f"access denied for {name}")
        self.name = name
        return {}

    @SwitchToHTTP.responder
    async def switch(self) -> asyncio.Protocol:
        if self.name is None:
            raise NotLoggedIn("log in first")
        return web.Server(partial(show_page, self.name))()


async def show_page(name: str, request: web.BaseRequest) -> web.Response:
    return web.Response(text=f"Hello, {name}. You asked for {request.path}.")


async def main() -> None:
    async with serve(Gate, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with connect(host, port) as amp:
            try:
                await switch_to_streams(amp, SwitchToHTTP)
            except NotLoggedIn as error:
                print("AMP:  no HTTP yet:", error)
            try:
                await amp.callRemote(Login, name="Ada", password="note A")
            except WrongPassword as error:
                print("AMP:  wrong password:", error)
            await amp.callRemote(Login, name="Ada", password="note G")
            print("AMP:  logged in as Ada")

            reader, writer = await switch_to_streams(amp, SwitchToHTTP)
            writer.write(b"GET /engine HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            status, *headers = head.decode().splitlines()
            print("HTTP:", status)
            print("HTTP:", next(line for line in headers if line.startswith("Content-Type")))
            print("HTTP:", (await reader.read()).decode())
            writer.close()
            await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
