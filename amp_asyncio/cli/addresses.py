"""Addresses as people write them: `host:port`, or the path of a UNIX socket."""

from __future__ import annotations

import re
from typing import Any

from .failures import Failure, Status

__all__ = ["parse_address", "written"]

_TCP = re.compile(r"(?:\[([^]]+)\]|([^:/\[\]]*)):(\d{1,5})")


def parse_address(text: str) -> str | tuple[str, int]:
    """Return the path of a UNIX socket, or a host, which may be empty, and a port."""
    if "/" in text:
        return text
    found = _TCP.fullmatch(text)
    if found is None or int(found[3]) > 65535:
        raise Failure(
            Status.USAGE,
            f"{text} is not an address: write host:port, [::1]:port, or a path with a slash, ./socket",
        )
    return found[1] or found[2], int(found[3])


def written(name: Any) -> str:
    """Return what `getsockname` gave as it is written here."""
    if isinstance(name, str | bytes):
        return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    host, port, *_ = name
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
