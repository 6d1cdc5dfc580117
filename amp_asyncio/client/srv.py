"""DNS SRV records as the addresses of a client.

`loop.getaddrinfo` asks for the addresses of hosts, and not for SRV records, which have the ports, too.
dnspython asks for them, with the servers and the search list of the system. It is well kept, and is
only needed by those who use this: `pip install amp_asyncio[srv]`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["srv"]


def srv(name: str, *, resolver: Any = None) -> Callable[[], Awaitable[list[tuple[str, int]]]]:
    """Return a resolver for a `Client`: `Client(srv("_hotel._tcp.example.org"))`.

    The hosts and ports are those of the SRV records with the best priority, and each host stands for
    all its addresses. The weights are not looked at, because a client spreads its connections evenly.
    `resolver` is a `dns.asyncresolver.Resolver`, if not one for the system's servers.

    Raises `ImportError` without dnspython.
    """
    try:
        from dns import asyncresolver
    except ImportError:
        raise ImportError(
            "srv() needs dnspython, for SRV records: pip install amp_asyncio[srv]"
        ) from None

    async def resolve() -> list[tuple[str, int]]:
        answers: Any = await (resolver or asyncresolver.Resolver()).resolve(name, "SRV", search=True)
        records = list(answers)
        best = min(record.priority for record in records)
        return [
            (record.target.to_text(omit_final_dot=True), record.port)
            for record in records
            if record.priority == best and record.target.labels != (b"",)
        ]

    return resolve
