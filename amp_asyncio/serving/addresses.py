"""Addresses: where a server is, in each of the ways in which that can be said."""

from __future__ import annotations

import re
from os import PathLike
from typing import Any, TypeAlias

from .server import Server

__all__ = ["Address", "is_address", "resolved"]

#: Where a server is: see `connect`.
Address: TypeAlias = (
    Server[Any] | tuple[str, int] | tuple[str, int, int, int] | str | bytes | PathLike[str]
)


def is_address(host: object, port: object) -> bool:
    """Return whether `host` is a whole address, with a protocol factory after it or nothing."""
    if isinstance(host, Server | tuple | list | PathLike):
        return True
    if port is not None and not (callable(port) and isinstance(host, str | bytes)):
        return False
    if isinstance(host, bytes):
        return True
    return isinstance(host, str) and ("/" in host or _HOST_AND_PORT.fullmatch(host) is not None)


# A name or an address, in brackets where it has colons itself, and a port.
_HOST_AND_PORT = re.compile(r"(?:([^:\[\]/]*)|\[([^\[\]/]*)\]):(\d+)")


def resolved(address: Any) -> tuple[Any, int | None]:
    """Return the host and the port of an address, or the path of a UNIX socket and None."""
    if isinstance(address, Server):
        address = address.address
    if isinstance(address, str) and (found := _HOST_AND_PORT.fullmatch(address)):
        host, in_brackets, port = found.groups()
        return host or in_brackets or None, int(port)
    if isinstance(address, tuple | list):
        if len(address) < 2:
            raise TypeError(f"connect(address): an address is (host, port), not {address!r}")
        return address[0], address[1]  # `getsockname` of IPv6 has more, which the host says as well.
    return address, None
