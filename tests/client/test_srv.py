"""DNS SRV records as addresses; `test_dns.py` has a real server."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from support import Math, Sum

from amp_asyncio import Client, serve, srv


class Fixed:
    """A resolver of dnspython that knows these records."""

    def __init__(self, *records: str) -> None:
        from dns import rrset

        self._answer = rrset.from_text("_amp._tcp.example.org", 60, "IN", "SRV", *records)
        self.asked: list[Any] = []

    async def resolve(self, *question: Any, **options: Any) -> Any:
        self.asked.append((question, options))
        return self._answer


@pytest.mark.parametrize(
    ("records", "addresses"),
    [
        (["1 0 7001 a.example.org."], [("a.example.org", 7001)]),
        (
            ["20 0 7003 c.example.org.", "10 5 7001 a.example.org.", "10 0 7002 b.example.org."],
            [("a.example.org", 7001), ("b.example.org", 7002)],
        ),
        (["0 0 0 ."], []),
    ],
)
async def test_records(records: list[str], addresses: list[tuple[str, int]]) -> None:
    fixed = Fixed(*records)
    found = await srv("_amp._tcp.example.org", resolver=fixed)()
    assert sorted(found) == addresses
    assert fixed.asked == [(("_amp._tcp.example.org", "SRV"), {"search": True})]


async def test_a_client_of_them() -> None:
    async with serve(Math, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        records = Fixed(f"0 0 {port} localhost.")
        async with Client(srv("_amp._tcp.example.org", resolver=records)) as client:
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}


def test_without_dnspython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns", None)
    with pytest.raises(ImportError, match=r"pip install amp_asyncio\[srv\]"):
        srv("_amp._tcp.example.org")
