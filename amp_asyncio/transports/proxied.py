"""The PROXY protocol, versions 1 and 2: a load balancer says for which client it connects.

It sends a header before the first byte of the client. The first byte tells it from AMP, which begins
with a zero, and from TLS. A sender of such a header can claim any address, so it is only looked for
in connections from `networks` that are trusted. There it may be left out, as health checks often do.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

__all__ = ["Address", "Header", "Networks", "is_trusted", "networks_of", "read_header"]

Address: TypeAlias = "tuple[str, int]"
Networks: TypeAlias = "Sequence[IPv4Network | IPv6Network]"

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_LONGEST: Final = 107  # Of version 1, with the end of its line.
_FIXED: Final = 16  # Of version 2, before the addresses.


def networks_of(networks: Iterable[str]) -> Networks:
    """Return what such names as "10.0.0.0/8" or "::1" stand for; `ValueError` for anything else."""
    if isinstance(networks, str):
        raise TypeError(f'trusted_proxies must be a list of networks, such as ["{networks}"]')
    return [ip_network(each) for each in networks]


def is_trusted(sock: socket.socket, networks: Networks) -> bool:
    """Return whether the peer of `sock` is in one of `networks`."""
    host: IPv4Address | IPv6Address = ip_address(sock.getpeername()[0].partition("%")[0])
    if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    return any(host in network for network in networks)


class Header:
    """A header as it comes.

    Attributes:
        source: the address that it says, once it is complete; None for a header without one.
        missing: how many bytes are still to come; 0 when it is complete. In version 1 that is only
            known when its last byte has come: until then it is the most that may come.
    """

    def __init__(self, first: bytes) -> None:
        self._data = b""
        self._version = 1 if first == b"P" else 2
        self.source: Address | None = None
        self.missing = _LONGEST if self._version == 1 else _FIXED

    @staticmethod
    def may_begin_with(byte: bytes) -> bool:
        """Return whether this may be the first byte of one."""
        return byte in (b"P", b"\r")

    def belongs(self, data: bytes) -> int:
        """Return how many of the next bytes belong to it."""
        if self._version == 1:
            end = (self._data + data).find(b"\r\n")
            return len(data) if end < 0 else end + 2 - len(self._data)
        return min(len(data), self.missing)

    def feed(self, data: bytes) -> None:
        """Take bytes that belong to it; `ValueError` if they cannot."""
        self._data += data
        if self._version == 1:
            self._line()
        else:
            self._binary()

    def _line(self) -> None:
        data = self._data
        self.missing = _LONGEST - len(data)
        if not data.startswith(b"PROXY "[: len(data)]) or (self.missing < 1 and data[-2:] != b"\r\n"):
            raise ValueError(f"not a header of the PROXY protocol: {data!r}")
        if data.endswith(b"\r\n"):
            self.missing = 0
            words = data[:-2].decode("ascii", "replace").split(" ")
            if words[1] in ("TCP4", "TCP6"):
                try:
                    _, _, source, _, port, _ = words
                    self.source = str(ip_address(source)), _port(port)
                except ValueError:
                    raise ValueError(f"no addresses in this PROXY header: {data!r}") from None
            elif words[1] != "UNKNOWN":
                raise ValueError(f"not a protocol that the PROXY protocol knows: {data!r}")

    def _binary(self) -> None:
        data = self._data
        if data[: len(_SIGNATURE)] != _SIGNATURE[: len(data)]:
            raise ValueError(f"not a header of the PROXY protocol: {data!r}")
        self.missing = _FIXED - len(data)
        if self.missing > 0:
            return
        self.missing = _FIXED + int.from_bytes(data[14:16], "big") - len(data)
        command, family = data[12], data[13]
        if command not in (0x20, 0x21):
            raise ValueError(f"not a command of version 2 of the PROXY protocol: {command:#x}")
        if self.missing:
            return
        if command == 0x21:  # Otherwise the proxy connects for itself.
            length = {0x11: 4, 0x21: 16}.get(family)  # TCP over IPv4, over IPv6
            if length is None:
                return
            if len(data) < _FIXED + 2 * length + 4:
                raise ValueError(f"too short for its addresses: {data!r}")
            source = data[_FIXED : _FIXED + length]
            port = data[_FIXED + 2 * length : _FIXED + 2 * length + 2]
            self.source = str(ip_address(source)), int.from_bytes(port, "big")


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 65_536:
        raise ValueError(text)
    return number


async def read_header(sock: socket.socket) -> Address | None:
    """Read the header from a socket that was accepted; return the address that it says.

    Return None without a header, or for one without an address. Reads only the header. Raises
    `ValueError` for one that is malformed, and `OSError` if the connection ends before.
    """
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    first = await _peek(loop, sock, 1)
    if not Header.may_begin_with(first):
        return None  # It may have ended already, such as a probe of the port.
    header = Header(first)
    while header.missing:
        seen = await _peek(loop, sock, header.missing)
        if not seen:
            raise ConnectionAbortedError("the connection ended in the middle of its header")
        taken = header.belongs(seen)
        header.feed(sock.recv(taken))
    return header.source


async def _peek(loop: asyncio.AbstractEventLoop, sock: socket.socket, most: int) -> bytes:
    """Return the next bytes that can be read, and leave them where they are; none at the end."""
    while True:
        try:
            data = sock.recv(most, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _readable(loop, sock)
            continue
        return data


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready = asyncio.Event()
    loop.add_reader(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock.fileno())
