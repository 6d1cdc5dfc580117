"""Closing while work is under way: who may still ask, what is still begun, and when it is cut off."""

from __future__ import annotations

import asyncio

import pytest
from support import (
    Echo,
    Math,
    Notify,
    Patient,
    RawPeer,
    Sum,
    Wait,
    connected,
    listening,
    on_transport,
    raw_pair,
    reach,
    turns,
)
from ways import WAYS, joined

from amp_asyncio import AMP, AmpBox, Command, ConnectionLost, Integer


class Relay(Command):
    """Passed on `depth` times, from one side to the other."""

    arguments = [(b"depth", Integer())]
    response = [(b"hops", Integer())]


class Work(Command):
    """Reported on, while it is done, with `Notify`."""

    response = [(b"reports", Integer())]


class Worker(Math):
    """Its responders begin, and go on when `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.reports: list[bytes] = []
        self.cancelled = asyncio.Event()

    async def pass_the_gate(self) -> None:
        self.began.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @Relay.responder
    async def relay(self, depth: int) -> dict[str, int]:
        await self.pass_the_gate()
        if not depth:
            return {"hops": 0}
        answer = await self.callRemote(Relay, depth=depth - 1)
        return {"hops": answer["hops"] + 1}

    @Work.responder
    async def work(self) -> dict[str, int]:
        await self.pass_the_gate()
        for number in range(3):
            # One is waited for; of the last, nobody sees what becomes.
            report = self.callRemote(Notify, data=b"%d" % number)
            if not number:
                assert await report is None
        return {"reports": 3}

    @Notify.responder
    async def notify(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.reports.append(data)


def start_closing(who: str, server: AMP, client: AMP) -> list[asyncio.Task[None]]:
    closing = {"the server": [server], "the client": [client], "both": [server, client]}[who]
    return [asyncio.ensure_future(amp.close(timeout=5)) for amp in closing]


SIDES = ["the server", "the client", "both"]


@pytest.mark.parametrize("who", SIDES)
@pytest.mark.parametrize("way", ["to the server", "to the client", "both ways"])
async def test_responders_may_ask_while_a_side_closes(who: str, way: str) -> None:
    async with connected(Worker, Worker) as (server, client):
        asking = {"to the server": [client], "to the client": [server], "both ways": [client, server]}
        answers = [amp.callRemote(Relay, depth=5) for amp in asking[way]]
        for amp in asking[way]:
            await (server if amp is client else client).began.wait()
        closing = start_closing(who, server, client)
        await turns()
        for amp in (server, client):
            amp.gate.set()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*answers) == [{"hops": 5}] * len(answers)
            await asyncio.gather(*closing)
            await server.wait_closed()
            await client.wait_closed()


@pytest.mark.parametrize("who", SIDES)
async def test_the_last_reports_of_a_worker_arrive(who: str) -> None:
    async with connected(Worker, Worker) as (server, client):
        answer = client.callRemote(Work)
        await server.began.wait()
        closing = start_closing(who, server, client)
        await turns()
        server.gate.set()
        async with asyncio.timeout(5):
            assert await answer == {"reports": 3}
            await asyncio.gather(*closing)
            await client.wait_closed()
        assert client.reports == [b"0", b"1", b"2"]


@pytest.mark.parametrize("closes", ["it", "its peer"])
async def test_reports_of_work_that_wants_no_answer_itself(closes: str) -> None:
    """Nobody waits for it but the side that does it: it may report all the same."""

    class Quiet(Work):
        commandName = b"Work"
        requiresAnswer = False

    async with connected(Worker, Worker) as (server, client):
        await client.callRemote(Quiet)
        await server.began.wait()
        server.gate.set()
        amp = server if closes == "it" else client
        async with asyncio.timeout(5):
            await amp.close(timeout=5)
            await server.wait_closed()
            await client.wait_closed()
        if closes == "it":
            assert client.reports == [b"0", b"1", b"2"]


async def test_calls_from_outside_are_refused() -> None:
    async with connected(Worker, Worker) as (server, client):
        answer = client.callRemote(Relay, depth=1)
        await server.began.wait()
        closing = start_closing("both", server, client)
        await turns()
        for amp in (server, client):
            with pytest.raises(ConnectionLost, match="closing"):
                await amp.callRemote(Sum, a=1, b=1)
            with pytest.raises(ConnectionLost, match="closing"):
                await amp.callRemoteString(b"Sum", a=b"1", b=b"1")
            assert await amp.callRemote(Notify, data=b"dropped") is None
            amp.gate.set()
        assert await answer == {"hops": 1}
        await asyncio.gather(*closing)
        assert server.reports == client.reports == []


# --- a peer that goes on asking, in bytes ---


def question(called: bytes, tag: int, **values: bytes) -> AmpBox:
    return AmpBox(_command=called, _ask=b"%x" % tag, **values)


def answered(boxes: list[AmpBox]) -> list[bytes]:
    return [box[b"_answer"] for box in boxes if b"_answer" in box]


async def half_closed(amp: AMP, peer: RawPeer) -> None:
    """Wait until `amp` has closed its side of the connection, and only that."""
    await peer.until(lambda: "eof" in peer.events)
    assert amp.transport is not None
    assert not amp.transport.is_closing()


async def test_new_commands_wait_until_a_responder_asks() -> None:
    async with raw_pair(Worker) as (amp, peer):
        peer.send(question(b"Relay", 1, depth=b"1"))
        await amp.began.wait()
        closing = asyncio.ensure_future(amp.close(timeout=5))
        await turns()
        peer.send(question(b"Sum", 2, a=b"1", b=b"2"), question(b"Echo", 3, data=b"x"))
        await turns()
        assert peer.boxes() == [], "no question of ours is open"
        amp.gate.set()
        await peer.until(lambda: len(peer.boxes()) == 3)
        asked = [box for box in peer.boxes() if b"_command" in box]
        assert asked == [{b"_command": b"Relay", b"_ask": b"1", b"depth": b"0"}]
        assert sorted(answered(peer.boxes())) == [b"2", b"3"], "the peer's responder may need them"
        peer.send(question(b"Sum", 4, a=b"1", b=b"2"))
        await turns()
        assert sorted(answered(peer.boxes())) == [b"2", b"3", b"4"], "the question is open"
        peer.send(AmpBox(_answer=b"1", hops=b"0"))
        await half_closed(amp, peer)
        assert sorted(answered(peer.boxes())) == [b"1", b"2", b"3", b"4"]
        peer.transport.close()
        await closing


async def test_new_commands_begin_after_those_that_waited_before() -> None:
    async with raw_pair(Worker, max_concurrent_responders=1) as (amp, peer):
        peer.send(question(b"Relay", 1, depth=b"1"), question(b"Sum", 2, a=b"1", b=b"2"))
        await amp.began.wait()
        closing = asyncio.ensure_future(amp.close(timeout=5))
        await turns()
        peer.send(question(b"Sum", 3, a=b"1", b=b"2"))
        await turns()
        assert peer.boxes() == []
        amp.gate.set()
        await peer.until(lambda: len(peer.boxes()) == 3)
        assert answered(peer.boxes()) == [b"2", b"3"], "the question of the first is open"
        peer.send(AmpBox(_answer=b"1", hops=b"0"))
        await half_closed(amp, peer)
        assert answered(peer.boxes()) == [b"2", b"3", b"1"]
        peer.transport.close()
        await closing


async def test_new_commands_are_not_begun_when_nobody_asks() -> None:
    async with raw_pair(Patient) as (patient, peer):
        peer.send(question(b"Wait", 1, name=b"x"))
        await patient.started.get()
        closing = asyncio.ensure_future(patient.close(timeout=5))
        await turns()
        peer.send(question(b"Sum", 2, a=b"1", b=b"2"), question(b"Wait", 3, name=b"y"))
        await turns()
        patient.let("x")
        await half_closed(patient, peer)
        assert answered(peer.boxes()) == [b"1"]
        assert patient.started.empty()
        peer.transport.close()
        await closing
        await turns()
        assert answered(peer.boxes()) == [b"1"]
        assert patient.started.empty()


@pytest.mark.parametrize("commands", [65, 200, 1000])
@pytest.mark.parametrize("called", [b"Divide", b"Sum"], ids=["at-once", "in-tasks"])
async def test_commands_that_were_read_are_answered(commands: int, called: bytes) -> None:
    """More are read in one piece than are begun in one turn; these are not new work."""
    amp, transport = on_transport(Math)
    questions = [question(called, tag, a=b"1", b=b"1") for tag in range(commands)]
    amp.data_received(b"".join(box.serialize() for box in questions))
    assert len(transport.boxes()) < commands
    closing = [asyncio.ensure_future(amp.close(timeout=5)) for _ in range(2)]
    await transport.until(lambda: "write_eof" in transport.done)
    assert sorted(int(tag, 16) for tag in answered(transport.boxes())) == [*range(commands)]
    amp.connection_lost(None)
    await asyncio.gather(*closing)


# --- in time ---


@pytest.mark.parametrize("who", ["the server", "the client"])
async def test_close_cuts_responders_off_when_its_time_is_over(who: str) -> None:
    """Whichever side closes, the responder is cancelled: nobody waits for it any more."""
    async with connected(Worker, Worker) as (server, client):
        answer = client.callRemote(Relay, depth=1)
        await server.began.wait()
        amp = server if who == "the server" else client
        async with asyncio.timeout(5):
            await amp.close(timeout=0.05)
            with pytest.raises(ConnectionLost):
                await answer
            if who == "the client":
                server.abort()  # Over TCP it cannot tell that from a half-closed connection.
            await server.cancelled.wait()
            await server.wait_closed()
            await client.wait_closed()


async def test_server_close_cuts_responders_off_when_its_time_is_over() -> None:
    made: asyncio.Queue[Worker] = asyncio.Queue()

    def factory() -> Worker:
        worker = Worker()
        made.put_nowait(worker)
        return worker

    async with listening(factory) as server:
        clients = [await reach(server) for _ in range(3)]
        answers = [client.callRemote(Relay, depth=1) for client in clients]
        workers = [await made.get() for _ in clients]
        for worker in workers:
            await worker.began.wait()
        async with asyncio.timeout(5):
            await server.close(timeout=0.05)
            assert server.connections == []
            for worker in workers:
                await worker.cancelled.wait()
            for error in await asyncio.gather(*answers, return_exceptions=True):
                assert isinstance(error, ConnectionLost)
            for client in clients:
                await client.wait_closed()


async def test_server_close_lets_responders_ask() -> None:
    made: asyncio.Queue[Worker] = asyncio.Queue()

    def factory() -> Worker:
        worker = Worker()
        made.put_nowait(worker)
        return worker

    async with listening(factory) as server:
        client = await reach(server, Worker)
        answer, echo = client.callRemote(Relay, depth=3), client.callRemote(Echo, data=b"x")
        worker = await made.get()
        await worker.began.wait()
        closing = asyncio.ensure_future(server.close(timeout=5))
        await turns()
        for amp in (worker, client):
            amp.gate.set()
        assert await answer == {"hops": 3}
        assert await echo == {"data": b"x"}
        await closing
        await client.wait_closed()


async def test_one_that_waits_for_the_peer_is_not_held_up_by_what_is_parked() -> None:
    """The commands of a peer that never stops asking do not keep it from closing."""
    async with raw_pair(Patient) as (patient, peer):
        asked = patient.callRemote(Wait, name="theirs")
        closing = asyncio.ensure_future(patient.close(timeout=5))
        await turns()
        peer.send(question(b"Wait", 1, name=b"ours"))
        assert await patient.started.get() == "ours", "a question of ours is open"
        peer.send(AmpBox(_answer=b"1", name=b"theirs"))
        assert await asked == {"name": "theirs"}
        peer.send(*(question(b"Sum", tag, a=b"1", b=b"1") for tag in range(2, 100)))
        await turns()
        patient.let("ours")
        await half_closed(patient, peer)
        assert answered(peer.boxes()) == [b"1"]
        peer.transport.close()
        await closing


@pytest.mark.parametrize("way", WAYS)
async def test_a_transport_that_closes_by_itself_can_be_aborted(way: str) -> None:
    """That of TLS closes when the peer says goodbye, and is told of it later."""
    async with joined(way, Math) as (server, client):
        server.transport.close()
        server.finish_writing()
        server.abort()
        await server.wait_closed()
        await client.wait_closed()
