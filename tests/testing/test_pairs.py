"""Pairs of AMPs in memory: what they are, who they say they are, what faults do, and how they end."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
import uvloop
from fakes import Recorder
from support import Echo, Math, Notify, Patient, Sum, Switching, SwitchTo, Wait

from amp_asyncio import (
    AMP,
    ConnectionLost,
    InvalidSignature,
    Limits,
    MalformedAmpBox,
    OnlyOneTLS,
    PrivateCertificate,
    StartTLS,
)
from amp_asyncio.testing import Faults, Identity, Line, MemoryTransport, pair


class Named(Math):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


async def test_both_sides_ask() -> None:
    async with pair(Math, Math) as (server, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        assert await server.callRemote(Sum, a=3, b=4) == {"total": 7}
        with pytest.raises(InvalidSignature):
            client.callRemote(Sum, a=1)
    assert server.transport is client.transport is None


async def test_classes_factories_and_instances() -> None:
    async with pair(lambda: Named("factory")) as (server, client):
        assert server.name == "factory"
        assert type(client) is AMP
    async with pair(Math, Named("instance")) as (_, client):
        assert client.name == "instance"


async def test_a_factory_that_raises() -> None:
    def fail() -> AMP:
        raise LookupError("no AMP today")

    with pytest.raises(LookupError, match="no AMP today"):
        async with pair(Math, fail):
            raise AssertionError("it is not entered")


async def test_limits_are_those_of_both_sides() -> None:
    limits = Limits(max_box_size=1_000)
    async with pair(Math, Math, limits=limits) as (server, client):
        assert server.limits is client.limits is limits
        assert await client.callRemote(Echo, data=b"x") == {"data": b"x"}


async def test_a_thousand_pairs_take_neither_descriptors_nor_threads() -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(1_000):
        async with pair(Math) as (server, client):
            assert isinstance(server.transport, MemoryTransport)
            assert isinstance(client.transport, MemoryTransport)
            now = len(os.listdir("/proc/self/fd")), threading.active_count()
            assert now == before


async def test_the_flow_is_controlled() -> None:
    faults = Faults(to_server=Line(capacity=1_000))
    async with pair(Patient, faults=faults) as (server, client):
        assert server.transport is not None
        server.transport.pause_reading()
        for _ in range(10):
            client.callRemote(Notify, data=b"x" * 10_000)
        draining = asyncio.ensure_future(client.drain())
        await asyncio.sleep(0)
        assert client.transport is not None
        assert client.transport.get_write_buffer_size() > 64 * 1024
        assert not draining.done()
        server.transport.resume_reading()
        await draining
        for _ in range(10):
            assert await server.notified.get() == b"x" * 10_000


# --- identities ---


async def test_each_side_sees_the_address_of_the_other() -> None:
    async with pair(Math) as (server, client):
        assert server.transport is not None
        assert client.transport is not None
        assert server.transport.get_extra_info("peername") == ("127.0.0.1", 50_001)
        assert server.transport.get_extra_info("sockname") == ("127.0.0.1", 7_001)
        assert client.transport.get_extra_info("peername") == ("127.0.0.1", 7_001)
        assert server.peerCertificate is client.peerCertificate is None
        assert server.transport.get_extra_info("ssl_object") is None


async def test_each_side_sees_the_certificate_of_the_other() -> None:
    ada = PrivateCertificate.self_signed("ada.example")
    identity = Identity(("192.0.2.1", 1), certificate=ada, extra={"department": "engines"})
    async with pair(Math, client_identity=identity) as (server, client):
        assert server.peerCertificate == ada.certificate
        assert server.transport is not None
        assert server.transport.get_extra_info("peername") == ("192.0.2.1", 1)
        assert server.transport.get_extra_info("department") == "engines"
        assert server.transport.get_extra_info("ssl_object").getpeercert() == {}
        # The server presents none, and the client sees a connection that has TLS already.
        assert client.peerCertificate is None
        with pytest.raises(OnlyOneTLS):
            await client.callRemote(StartTLS)


# --- faults ---


async def test_the_peer_dies_in_the_middle_of_an_answer() -> None:
    faults = Faults()
    async with pair(Math, faults=faults) as (server, client):
        await client.callRemote(Sum, a=1, b=2)
        faults.to_client.cut(after=5)
        with pytest.raises(ConnectionLost) as caught:
            await client.callRemote(Sum, a=1, b=2)
        assert isinstance(caught.value.__cause__, MalformedAmpBox)
        await server.wait_closed()


async def test_the_connection_is_reset() -> None:
    faults = Faults()
    async with pair(Math, faults=faults) as (_, client):
        faults.to_server.reset(after=5)
        with pytest.raises(ConnectionLost) as caught:
            await client.callRemote(Sum, a=1, b=2)
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_an_answer_that_drips_arrives() -> None:
    faults = Faults()
    faults.to_client.drip(1)
    faults.to_server.drip(1)
    async with pair(Math, faults=faults) as (_, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_an_answer_that_stalls_arrives_when_it_resumes() -> None:
    faults = Faults()
    faults.to_client.stall(after=3)
    async with pair(Math, faults=faults) as (_, client):
        asked = client.callRemote(Sum, a=1, b=2)
        await faults.to_client.stopped()
        assert not asked.done()
        faults.to_client.resume()
        assert await asked == {"total": 3}


async def test_faults_are_for_one_pair() -> None:
    faults = Faults()
    async with pair(Math, faults=faults):
        pass
    with pytest.raises(RuntimeError, match="a line carries one connection"):
        async with pair(Math, faults=faults):
            raise AssertionError("it is not entered")


# --- the end ---


async def test_what_is_on_its_way_arrives_before_the_end() -> None:
    faults = Faults()
    faults.to_server.drip(7)
    async with pair(Patient, faults=faults) as (server, client):
        client.callRemote(Notify, data=b"goodbye")
    assert server.notified.get_nowait() == b"goodbye"


async def test_a_conversation_without_end_is_ended() -> None:
    class Endless(Patient):
        def ask_again(self, answer: asyncio.Future[Any]) -> None:
            if answer.exception() is None:
                self.callRemote(Sum, a=1, b=2).add_done_callback(self.ask_again)

    async with pair(Math, Endless) as (_, client):
        client.callRemote(Sum, a=1, b=2).add_done_callback(client.ask_again)
    assert client.transport is None


async def test_close_is_what_it_is_elsewhere() -> None:
    async with pair(Patient) as (server, client):
        asked = client.callRemote(Wait, name="a")
        await server.started.get()
        closing = asyncio.ensure_future(client.close())
        server.let("a")
        await closing
        assert await asked == {"name": "a"}
        await server.wait_closed()


async def test_an_error_in_the_block_ends_the_connection() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with pair(Math) as (server, client):
            raise LookupError("mine")
    assert server.transport is client.transport is None


async def test_a_cancellation_goes_on() -> None:
    async def hang() -> None:
        async with pair(Math):
            await asyncio.get_running_loop().create_future()

    hanging = asyncio.ensure_future(hang())
    for _ in range(3):
        await asyncio.sleep(0)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_a_connection_that_was_switched_ends_too() -> None:
    async with pair(Switching) as (server, client):
        recorder = Recorder()
        await client.callRemote(SwitchTo, lambda: recorder, name="x")
        recorder.transport.write(b"hello")
        await server.inner.until(lambda: server.inner.data == b"hello")
    assert recorder.events[-1] == server.inner.events[-1] == "lost"


async def test_tls_is_started_where_the_loop_can() -> None:
    async with pair(Math) as (server, client):
        if isinstance(asyncio.get_running_loop(), uvloop.Loop):
            with pytest.raises(ConnectionLost, match="is not supported by start_tls"):
                await client.callRemote(StartTLS)
        else:
            await client.callRemote(StartTLS)
            assert client.peerCertificate is not None
            assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
    assert server.transport is client.transport is None
