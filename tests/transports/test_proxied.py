"""The PROXY protocol: its headers, however they are cut, and whom a server believes."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proc import open_descriptors
from support import Math

from amp_asyncio import AMP, AmpBox, Limits, PrivateCertificate, Server, parseString, serve
from amp_asyncio.transports.proxied import Header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(
    source: str = "10.1.2.3", port: int = 4242, command: int = 0x21, tail: bytes = b""
) -> bytes:
    packed = ipaddress.ip_address(source).packed
    addresses = packed * 2 + port.to_bytes(2, "big") * 2 + tail
    family = b"\x11" if len(packed) == 4 else b"\x21"
    return SIGNATURE + bytes([command]) + family + len(addresses).to_bytes(2, "big") + addresses


GOOD = [
    (b"PROXY TCP4 10.1.2.3 10.0.0.1 4242 7001\r\n", ("10.1.2.3", 4242)),
    (b"PROXY TCP6 2001:db8::7 ::1 4242 7001\r\n", ("2001:db8::7", 4242)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (version_2(), ("10.1.2.3", 4242)),
    (version_2("2001:db8::7"), ("2001:db8::7", 4242)),
    (version_2(tail=b"\x03\x00\x04abcd"), ("10.1.2.3", 4242)),
    (version_2(command=0x20), None),
    (SIGNATURE + b"\x20\x00\x00\x00", None),
    (SIGNATURE + b"\x21\x31\x00\x04abcd", None),
]
BAD = [
    b"POST / HTTP/1.1\r\n",
    b"PROXY TCP4 10.1.2.3 10.0.0.1 4242\r\n",
    b"PROXY TCP4 10.1.2.3 10.0.0.1 70000 7001\r\n",
    b"PROXY TCP4 example.com 10.0.0.1 4242 7001\r\n",
    b"PROXY UDP4 10.1.2.3 10.0.0.1 4242 7001\r\n",
    b"PROXY TCP4 " + b"1" * 200,
    b"PROXY\r\n",
    b"\r\n\r\n\0\r\nQUIT\r" + bytes(8),
    version_2(command=0x22),
    SIGNATURE + b"\x21\x11\x00\x04abcd",
]


def read(data: bytes, cuts: list[int]) -> tuple[Any, int]:
    """Return what a header says, and how many bytes it took; the stream is cut at these places."""
    header, taken = Header(data[:1]), 0
    edges = [*sorted(cut for cut in cuts if cut < len(data)), len(data)]
    while header.missing:
        edge = next((edge for edge in edges if edge > taken), None)
        if edge is None:
            raise EOFError
        seen = data[taken : min(edge, taken + header.missing)]
        count = header.belongs(seen)
        header.feed(seen[:count])
        taken += count
    return header.source, taken


@given(st.sampled_from(GOOD), st.lists(st.integers(1, 80)), st.binary(max_size=20))
def test_headers_however_they_are_cut(case: tuple[bytes, Any], cuts: list[int], more: bytes) -> None:
    data, source = case
    assert read(data + more, cuts) == (source, len(data))


@given(st.sampled_from(BAD), st.lists(st.integers(1, 80)))
def test_what_is_no_header(data: bytes, cuts: list[int]) -> None:
    with pytest.raises(ValueError):
        read(data, cuts)


@given(st.binary(max_size=300), st.sampled_from([b"P", b"PROXY TCP4 ", SIGNATURE, b"\r"]))
def test_no_bytes_do_any_harm(data: bytes, begin: bytes) -> None:
    with contextlib.suppress(ValueError, EOFError):
        source, _ = read(begin + data, [])
        if source is not None:
            ipaddress.ip_address(source[0])


# --- a server ---


class Where(Math):
    """Notes where its connection comes from."""

    seen: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Where.seen.append(repr(self))
        assert repr(self).endswith(f" to {self.peer.address!r}>")


QUESTION = AmpBox(_command=b"Sum", _ask=b"1", a=b"13", b=b"81").serialize()


@asynccontextmanager
async def behind(
    proxies: list[str], data: bytes, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[Server, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve to trusted proxies, and connect as one, which sends `data`."""
    Where.seen.clear()
    async with serve(Where, "127.0.0.1", 0, trusted_proxies=proxies, ssl=tls, **options) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(data)
        try:
            yield server, reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> list[AmpBox]:
    data = b""
    while not data.endswith(b"\0\0"):
        data += await reader.readexactly(1)
    return parseString(data)


@pytest.mark.parametrize("header", [GOOD[0][0], version_2(), b"", GOOD[2][0]])
async def test_a_trusted_proxy_says_for_whom_it_connects(header: bytes) -> None:
    async with behind(["10.0.0.0/8", "127.0.0.1"], header + QUESTION) as (_, reader, writer):
        assert (await answer(reader))[0][b"total"] == b"94"
        says_it = header in (GOOD[0][0], version_2())
        expected = ("10.1.2.3", 4242) if says_it else writer.get_extra_info("sockname")
        assert Where.seen[0].endswith(f" to {expected!r}>")


async def test_a_header_that_comes_byte_by_byte() -> None:
    async with behind(["127.0.0.0/8"], b"") as (_, reader, writer):
        for byte in version_2() + QUESTION:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await answer(reader))[0][b"total"] == b"94"
        assert Where.seen[0].endswith(" to ('10.1.2.3', 4242)>")


async def test_a_header_before_tls() -> None:
    certificate = PrivateCertificate.self_signed("127.0.0.1")
    trusting = ssl.create_default_context(cadata=certificate.certificate.to_pem().decode())
    served = certificate.ssl_context(server_side=True)
    async with behind(["127.0.0.1"], GOOD[0][0], served) as (_, reader, writer):
        await writer.start_tls(trusting, server_hostname="127.0.0.1")
        writer.write(QUESTION)
        assert (await answer(reader))[0][b"total"] == b"94"
        assert Where.seen[0].endswith(" to ('10.1.2.3', 4242)>")


async def test_a_tls_handshake_that_fails_is_logged_with_the_address(caplog: Any) -> None:
    served = PrivateCertificate.self_signed("127.0.0.1").ssl_context(server_side=True)
    async with behind(["127.0.0.1"], GOOD[0][0] + bytes(100), served) as (_, reader, _):
        with contextlib.suppress(ConnectionError):
            await reader.read()
    assert "the TLS handshake with ('10.1.2.3', 4242) failed" in caplog.text


async def test_nobody_else_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    async with behind(["10.0.0.0/8"], GOOD[0][0] + QUESTION) as (_, reader, _):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    assert "remote key too long" in caplog.text
    assert "10.1.2.3" not in Where.seen[0]


@pytest.mark.parametrize("data", [BAD[0], b"PROXY TCP4 10", b"\r", b""])
async def test_a_proxy_that_is_refused(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    before = open_descriptors()
    limits = Limits(handshake_timeout=0.05)
    async with behind(["127.0.0.1"], data, limits=limits) as (server, reader, _):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert Where.seen == []
        assert server.connections == []
    assert re.search(r"a proxy at \('127.0.0.1', \d+\) was refused: ", caplog.text)
    assert open_descriptors() == before


async def test_a_proxy_that_hangs_up(caplog: pytest.LogCaptureFixture) -> None:
    async with behind(["127.0.0.1"], b"PROXY ") as (_, _, writer):
        writer.close()
        while "the connection ended in the middle" not in caplog.text:
            await asyncio.sleep(0.001)


async def test_a_check_whether_somebody_listens(caplog: pytest.LogCaptureFixture) -> None:
    async with behind(["127.0.0.1"], b"") as (_, reader, writer):
        writer.write_eof()
        assert await reader.read() == b""
    assert caplog.text == ""


async def test_closing_does_not_wait_for_a_header() -> None:
    async with behind(["127.0.0.1"], b"PROXY ") as (server, reader, _):
        for _ in range(20):
            await asyncio.sleep(0)
        await server.close(timeout=0.1)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


async def test_proxies_count_as_connections() -> None:
    async with behind(["127.0.0.1"], b"PROXY ", max_connections=1) as (server, _, writer):
        other, its_writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        its_writer.write(QUESTION)
        writer.close()
        assert (await answer(other))[0][b"total"] == b"94"
        its_writer.close()


async def test_ipv6_addresses_of_ipv4_proxies() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        async with serve(Where, sock=sock, trusted_proxies=["127.0.0.1"]):
            Where.seen.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
            writer.write(GOOD[0][0] + QUESTION)
            assert (await answer(reader))[0][b"total"] == b"94"
            assert Where.seen[0].endswith(" to ('10.1.2.3', 4242)>")
            writer.close()


async def test_networks_that_are_none() -> None:
    with pytest.raises(ValueError, match="localhost"):
        await serve(AMP, trusted_proxies=["localhost"])
    with pytest.raises(TypeError, match=r'such as \["10.0.0.1"\]'):
        await serve(AMP, trusted_proxies="10.0.0.1")
