"""The life of a connection: the table in `session/life.py`, and a walk through all of it.

The walk brings an AMP into each state, lets everything happen to it that can come from outside, and
compares what the connection went through with the table. It is the only test that looks at the state.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fakes import Recorder, Transport
from support import Math, Sum, Switching, SwitchTo, switch_box, turns

from amp_asyncio import AMP, AmpBox, AmpError, ConnectionLost, StartTLS, connect
from amp_asyncio.composed import connection_of
from amp_asyncio.connection.connection import Connection
from amp_asyncio.session import life
from amp_asyncio.session.life import TRANSITIONS, Event, State, following


def table() -> dict[tuple[State, Event], State]:
    """Return the table in the docstring of the module, without its dots."""
    lines = (life.__doc__ or "").splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("=")]
    _, *events = lines[rules[0] + 1].split()
    entries = {}
    for line in lines[rules[1] + 1 : rules[2]]:
        name, *cells = line.split()
        assert len(cells) == len(events), line
        for event, cell in zip(events, cells, strict=True):
            if cell != ".":
                state = State[name]
                entries[state, Event[event.upper()]] = state if cell == "same" else State[cell]
    assert len(rules) == 3
    assert [line.split()[0] for line in lines[rules[1] + 1 : rules[2]]] == [each.name for each in State]
    assert [event.upper() for event in events] == [each.name for each in Event]
    return entries


def test_the_table_of_the_docstring_is_the_one_that_holds() -> None:
    assert table() == TRANSITIONS


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_each_pair_has_its_successor_or_is_refused(state: State, event: Event) -> None:
    after = table().get((state, event))
    if after is not None:
        assert following(state, event) is after
        return
    with pytest.raises(RuntimeError, match=f"{event.name} cannot happen .* {state.name}"):
        following(state, event)


# --- the walk ---


class Ending(Transport):
    """A transport that is lost in the turn after it was closed, as a real one is."""

    over = False

    def note(self, what: str) -> None:
        super().note(what)
        if what in ("close", "abort") and not self.over:
            self.over = True
            asyncio.get_running_loop().call_soon(self.lose)

    def is_closing(self) -> bool:
        return self.over

    def lose(self) -> None:
        self.protocol.connection_lost(None)


class Walk:
    """An AMP, its transport, and what it went through since `begin`."""

    def __init__(self) -> None:
        self.amp = Switching()
        self.connection = connection_of(self.amp)
        self.transport = Ending()
        self.transport.protocol = self.amp
        self.futures: list[asyncio.Future[Any]] = []
        self.others: list[Ending] = []

    def connect(self) -> None:
        self.amp.connection_made(self.transport)

    def ask(self, *question: Any, **arguments: Any) -> None:
        future = self.amp.callRemote(*question, **arguments)
        self.futures.append(future)

    def receive(self, **box: bytes) -> None:
        self.connection.data_received(AmpBox(box).serialize())

    # Into each state:

    def into_connecting(self) -> None:
        """It is there."""

    def into_open(self) -> None:
        self.connect()

    def into_changing_to_tls(self) -> None:
        self.connect()
        self.ask(StartTLS)

    def into_changing_by_switch(self) -> None:
        self.connect()
        self.ask(SwitchTo, Recorder, name="x")

    def into_finishing(self) -> None:
        self.connect()
        self.amp.finish_writing()

    def into_finishing_before_it_was_made(self) -> None:
        self.amp.abort()

    def into_draining(self) -> None:
        self.connect()
        # More than are given out in one turn.
        self.connection.data_received(200 * AmpBox(_command=b"Sum", a=b"1", b=b"1").serialize())
        self.transport.over = True
        self.transport.lose()

    def into_switched(self) -> None:
        self.into_changing_by_switch()
        self.receive(_answer=b"1")

    def into_lost(self) -> None:
        self.connect()
        self.transport.over = True
        self.transport.lose()

    # What can happen:

    def made(self) -> None:
        self.amp.connection_made(self.transport)

    def made_with_another(self) -> None:
        another = Ending()
        another.protocol = self.amp
        self.others.append(another)
        self.amp.connection_made(another)

    def command(self) -> None:
        self.receive(_command=b"Sum", _ask=b"1", a=b"1", b=b"2")

    def rubbish(self) -> None:
        self.connection.data_received(b"GET / HTTP/1.0\r\n\r\n" + bytes(300))

    def end_of_stream(self) -> None:
        if not self.connection.eof_received():
            self.transport.close()

    def loss(self) -> None:
        self.transport.over = True
        self.connection.connection_lost(None)

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()

    def abort(self) -> None:
        self.amp.abort()

    def finish_writing(self) -> None:
        self.amp.finish_writing()

    def close(self) -> None:
        self.futures.append(asyncio.ensure_future(self.amp.close(timeout=0.05)))

    def call(self) -> None:
        self.ask(Sum, a=1, b=1)

    def box(self) -> None:
        self.amp.sendBox(AmpBox(_command=b"Sum", a=b"1", b=b"1"))

    def ask_for_tls(self) -> None:
        self.ask(StartTLS)

    def ask_for_switch(self) -> None:
        self.ask(SwitchTo, Recorder, name="x")

    def asked_for_tls(self) -> None:
        self.receive(_command=b"StartTLS", _ask=b"1")

    def asked_for_switch(self) -> None:
        self.connection.data_received(switch_box())

    def asked_and_refusing(self) -> None:
        self.amp.refusal = PermissionError("no")
        self.connection.data_received(switch_box())

    def agreed(self) -> None:
        self.receive(_answer=b"1")

    def refused(self) -> None:
        self.receive(_error=b"1", _error_code=b"NO", _error_description=b"no")


# What the connection goes through until nothing moves any more, a letter for each event, and "." for
# nothing at all. "!" is for an error that is raised at once; "x" for what cannot come without a
# transport.
LETTERS = {
    "c": Event.CONNECTED,
    "h": Event.CHANGE,
    "s": Event.SETTLED,
    "w": Event.SWITCHED,
    "f": Event.FINISH,
    "e": Event.ENDED,
    "l": Event.LOST,
}
WALK = """
after                         |  1 |  2 |  3 |  4 |  5 |  6 |  7 |  8 |  9
made                          |  c |  . |  . |  . |  . | cl |  l |  . |  .
made_with_another             |  c |  . |  . |  . |  . | cl |  l |  . |  .
command                       |  x |  . |  . |  . |  . |  x |  l |  . |  .
rubbish                       |  x | fl | fl | fl |  . |  x |  l |  . |  .
end_of_stream                 |  x | fl |  l |  l |  l |  x |  l |  . |  .
loss                          |  l |  l |  l |  l |  l |  l |  l |  . |  .
pause_writing                 |  x |  . |  . |  . |  . |  x |  l |  . |  .
resume_writing                |  x |  . |  . |  . |  . |  x |  l |  . |  .
abort                         |  f | fl | fl | fl | fl |  f |  l |  . |  .
finish_writing                |  . |  f |  . |  . |  . |  . |  l |  . |  .
close                         |  . |ffl | fl | fl | fl |  . |  l |  . |  .
call                          |  ! |  . |  . |  . |  . |  ! |  l |  . |  .
box                           |  ! |  . |  . |  . |  ! |  ! | !l |  ! |  !
ask_for_tls                   |  ! |  h |  ! |  . |  . |  ! |  l |  . |  .
ask_for_switch                |  ! |  h |  . |  . |  . |  ! |  l |  . |  .
asked_for_tls                 |  x | hl | fl | fl |  . |  x |  l |  . |  .
asked_for_switch              |  x | hw | fl | fl |  . |  x |  l |  . |  .
asked_and_refusing            |  x |  . | fl | fl |  . |  x |  l |  . |  .
agreed                        |  x | fl |  l |  w |  . |  x |  l |  . |  .
refused                       |  x | fl |  s |  s |  . |  x |  l |  . |  .
"""
STATES = {
    "into_connecting": State.CONNECTING,
    "into_open": State.OPEN,
    "into_changing_to_tls": State.CHANGING,
    "into_changing_by_switch": State.CHANGING,
    "into_finishing": State.FINISHING,
    "into_finishing_before_it_was_made": State.FINISHING,
    "into_draining": State.DRAINING,
    "into_switched": State.SWITCHED,
    "into_lost": State.LOST,
}


def steps() -> list[Any]:
    """Return a parameter set for each cell of the table that is not an "x"."""
    found = []
    for line in WALK.strip().splitlines()[1:]:
        what, *cells = [cell.strip() for cell in line.split("|")]
        for into, cell in zip(STATES, cells, strict=True):
            if cell != "x":
                found.append(pytest.param(into, what, cell, id=f"{what} {into[5:]}"))
    return found


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[State, Event, State]]:
    """Each event of a connection, between the state before and the state after it."""
    taken: list[tuple[State, Event, State]] = []
    happen = Connection.happen

    def noting(self: Connection, event: Event) -> None:
        before = self.state
        happen(self, event)
        taken.append((before, event, self.state))

    monkeypatch.setattr(Connection, "happen", noting)
    return taken


def test_every_state_is_walked_through() -> None:
    assert set(STATES.values()) == set(State)
    for into in STATES:
        assert hasattr(Walk, into)


@pytest.mark.parametrize(("into", "what", "expected"), steps())
async def test_everything_in_every_state(
    happened: list[tuple[State, Event, State]], into: str, what: str, expected: str
) -> None:
    walk = Walk()
    getattr(walk, into)()
    state = walk.connection.state
    assert state is STATES[into]
    happened.clear()
    raised = None
    try:
        getattr(walk, what)()
    except (AmpError, RuntimeError) as error:
        raised = error
    assert (raised is not None) is ("!" in expected), repr(raised)
    if what == "close":
        await walk.futures[-1]
    await turns()
    for before, event, after in happened:
        assert before is state
        state = TRANSITIONS[before, event]
        assert after is state
    assert walk.connection.state is state
    assert [event for _, event, _ in happened] == [LETTERS[each] for each in expected.strip(".!")]
    # Whatever it was, the end of the connection comes, and nobody waits for anything afterwards.
    walk.amp.abort()
    async with asyncio.timeout(5):
        await walk.amp.wait_closed()
        await asyncio.wait([asyncio.ensure_future(walk.amp.close(timeout=0)), *walk.futures])
    ended = {State.LOST, State.SWITCHED}
    if walk.connection.state not in ended:
        assert walk.connection.state is State.FINISHING
        assert walk.connection.transport is None
    for future in walk.futures:
        assert future.done()
        error = future.exception()
        assert error is None or isinstance(error, AmpError | PermissionError)
    for other in walk.others:
        assert other.done == ["abort"]
    assert walk.amp.transport is None
    if walk.connection.state is State.SWITCHED:
        walk.transport.close()
    await turns()


@pytest.mark.parametrize("into", ["into_changing_to_tls", "into_changing_by_switch"])
@pytest.mark.parametrize("end", ["finish_writing", "close"])
async def test_an_end_that_waits_for_a_change_comes_when_that_is_refused(
    happened: list[tuple[State, Event, State]], into: str, end: str
) -> None:
    walk = Walk()
    getattr(walk, into)()
    happened.clear()
    getattr(walk, end)()
    await turns()
    assert happened == []
    walk.refused()
    await turns()
    assert [event for _, event, _ in happened] == [Event.SETTLED, Event.FINISH]
    walk.amp.abort()
    await walk.amp.wait_closed()
    await asyncio.wait(walk.futures)
    assert all(future.exception() or True for future in walk.futures)


# --- a handshake, which needs real sockets ---


class Shaking:
    """A client in the midst of a handshake with a server that sends no byte of it."""

    def __init__(self, amp: AMP, secured: asyncio.Future[Any], writer: asyncio.StreamWriter) -> None:
        self.amp = amp
        self.secured = secured
        self.writer = writer
        self.futures: list[asyncio.Future[Any]] = []

    def abort(self) -> None:
        self.amp.abort()

    def close(self) -> None:
        self.futures.append(asyncio.ensure_future(self.amp.close(timeout=0.05)))

    def call_and_abort(self) -> None:
        self.futures.append(self.amp.callRemote(Sum, a=1, b=1))
        self.amp.finish_writing()
        self.amp.abort()

    def connection_made_again(self) -> None:
        another = Ending()
        self.amp.connection_made(another)
        another.protocol = self.amp
        assert another.over
        self.amp.abort()

    def peer_ends(self) -> None:
        self.writer.write_eof()

    def peer_resets(self) -> None:
        self.writer.transport.abort()

    def peer_sends_rubbish(self) -> None:
        self.writer.write(b"rubbish" * 100)


@asynccontextmanager
async def shaking() -> AsyncIterator[Shaking]:
    """Yield a client whose handshake has begun: the peer has the first bytes of it."""
    began: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"StartTLS\0\0")
        writer.write(AmpBox(_answer=b"1").serialize())
        await reader.readexactly(10)
        began.set_result(writer)
        await over.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        amp = await connect(*server.sockets[0].getsockname(), Math)
        secured = amp.callRemote(StartTLS)
        yield Shaking(amp, secured, await began)
    finally:
        over.set()
        server.close()
        await turns()


@pytest.mark.parametrize("what", [name for name in vars(Shaking) if not name.startswith("_")])
async def test_what_happens_in_a_handshake(
    happened: list[tuple[State, Event, State]], what: str
) -> None:
    async with shaking() as shaken:
        connection = connection_of(shaken.amp)
        assert connection.state is State.CHANGING
        happened.clear()
        getattr(shaken, what)()
        async with asyncio.timeout(5):
            await shaken.amp.wait_closed()
            for future in (shaken.secured, *shaken.futures):
                if future is not shaken.secured and what == "close":
                    await future
                    continue
                with pytest.raises(ConnectionLost):
                    await future
        assert connection.state is State.LOST
        for before, event, after in happened:
            assert following(before, event) is after
        assert happened[-1][1:] == (Event.LOST, State.LOST)


# --- the coroutine of a responder that never got its turn ---


@pytest.mark.parametrize("how", [Walk.loss, Walk.abort], ids=["loss", "abort"])
async def test_a_loss_in_the_turn_in_which_a_responder_began(
    how: Callable[[Walk], None], recwarn: pytest.WarningsRecorder
) -> None:
    """Nothing warns of a coroutine that was not awaited: the responder is cancelled quietly."""
    walk = Walk()
    walk.into_open()
    walk.command()
    how(walk)
    await turns()
    assert walk.connection.state is State.LOST
    gc.collect()
    assert [str(each.message) for each in recwarn] == []
