"""The connection: the `asyncio.Protocol` between a transport and a session.

It tells both sides of the beginning and the end, and of what happens in between. What comes is in
`inbox.py` and `large.py`, what is sent in `session/outbox.py`, and the states in `session/life.py`. How
it starts, how it becomes TLS or another protocol, and how it ends is in `starting.py`, `changing.py`
and `ending.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..errors import AmpError, ConnectionLost
from ..limits import Limits
from ..logs import Lines
from ..session.life import Event, Pause, State, following
from ..session.outbox import Outbox
from ..session.peers import Peer
from ..session.receivers import Receiver
from ..tls.failures import certificate_error
from ..transports.cutting import cut
from ..wire.boxes import AmpBox
from . import changing
from .ending import Linger, peer_ended
from .inbox import Inbox
from .keepalive import Keepalive, keep_alive
from .large import LARGE, expect_large
from .peers import peer_of
from .starting import hook
from .timers import Timer

if TYPE_CHECKING:
    from ..session.outlets import TLSTerms
    from ..session.session import Session
    from ..tls.certificates import PrivateCertificate

__all__ = ["Connection"]

logger = logging.getLogger("amp_asyncio")

_ENDED: Final[frozenset[State]] = frozenset((State.LOST, State.SWITCHED))


class Connection(asyncio.Protocol, asyncio.BufferedProtocol):
    """One connection of `owner`, which is the object that people see.

    It is a protocol of both kinds. asyncio then reads into its buffer; uvloop, which is faster without
    one, calls `data_received`.

    Attributes:
        owner: what gets the hooks; None once the connection is gone.
        receiver: what the boxes are given to.
        state: what the connection is at the moment.
        takes_bytes: whether a plain box may be sent as bytes: nothing looks at boxes that go out.
        inbox: what comes.
        outbox: what is sent.
        transport: the transport; None before it is connected, and once it is gone or handed over.
        inner: the protocol that the transport was handed over to, or None.
        host_certificate: what this side presented when StartTLS was done, or None.
        limits: how much it may take.
        lines: writes the log lines that the peer can cause; a server's connections share it.
        where: the addresses of both ends, which the transport forgets before its loss is logged.
        buffer: where the transport puts what it has read.
        change: the change that is under way, or None.
        adopts: whether the owner may put another transport in place of the one that it was given.
        filters: whether the owner's class overrides what is done for each piece of the stream.
        keepalive: what sees whether the peer is there; None if nothing does.
        half_closed: whether the peer has closed its side, and gets the answers that it waits for.
        seen_as: the peer's address, if a proxy has said it; None for that of the transport.
        seen: who is at the other end, once it was looked up; forgotten when TLS starts.
        served: tells its server that it is gone; None without a server.
        peer_finished: whether the peer has closed its side.
        ended_by: what the transport was lost by, while boxes that came before are still given out.
        error: what ended the connection, if it is known better than the transport knows it.
        loop: the event loop, once connected.
    """

    __slots__ = (
        "_class",
        "_closed",
        "_timers",
        "adopts",
        "buffer",
        "change",
        "ended_by",
        "error",
        "filters",
        "half_closed",
        "host_certificate",
        "inbox",
        "inner",
        "keepalive",
        "limits",
        "lines",
        "loop",
        "outbox",
        "owner",
        "peer_finished",
        "receiver",
        "seen",
        "seen_as",
        "served",
        "state",
        "takes_bytes",
        "transport",
        "where",
    )

    owner: Any
    buffer: memoryview
    loop: asyncio.AbstractEventLoop
    receiver: Receiver

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.state = State.CONNECTING
        self.outbox = Outbox()
        self.inbox = Inbox(self)
        self.limits = _NO_LIMITS
        self.lines = Lines()
        self.transport: asyncio.Transport | None = None
        self.inner: asyncio.BaseProtocol | None = None
        self.host_certificate: PrivateCertificate | None = None
        self.peer_finished = self.half_closed = False
        self.error: Exception | None = None
        self.ended_by: Exception | None = None
        self.served: Callable[[Connection], None] | None = None
        self._class = type(owner)
        self.where = "not connected"
        self.seen_as: Any = None
        self.adopts = self.filters = self.takes_bytes = False
        self.change: changing.UnderWay | None = None
        self._closed: asyncio.Event | None = None  # Made when a caller waits for the end.
        self._timers: tuple[Timer, ...] = ()
        self.seen: Peer | None = None
        self.keepalive: Keepalive | None = None

    def happen(self, event: Event) -> None:
        """Change the state; nothing else does. `RuntimeError` if that cannot happen."""
        self.state = following(self.state, event)

    # --- what comes ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the transport is to put what it reads; see `starting.py`."""
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that the transport has put into the buffer."""
        if nbytes >= LARGE:
            expect_large(self)
        if self.filters:
            self.data_received(bytes(self.buffer[:nbytes]))
        else:
            self.inbox.receive(self.buffer[:nbytes])

    def data_received(self, data: bytes) -> None:
        """Take bytes of the stream; the owner's class may have a filter for them."""
        if self.filters and self.owner is not None:
            self.inbox.heard()  # Also if the filter keeps all of them.
            self.owner.data_received(data)
        else:
            self.inbox.receive(data)

    def pause_reading(self, reason: Pause) -> None:
        self.inbox.pause(reason)

    def resume_reading(self, reason: Pause) -> None:
        self.inbox.resume(reason)

    def read(self, go_on: bool) -> None:
        transport = self.transport
        if transport is None or transport.is_closing() or transport.is_reading() is go_on:
            return
        if go_on:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def descriptor_received(self, descriptor: int) -> None:
        """Keep a descriptor for the box that will name it; too many of them abort the connection."""
        self.inbox.receive_descriptor(descriptor)

    # --- what goes out ---

    def post(self, box: AmpBox) -> None:
        """Send a box; the owner's class may want to see it."""
        if "sendBox" in self._class.__amp_overrides__ and self.owner is not None:
            self.owner.sendBox(box)
        else:
            self.outbox.send_box(box)

    def pause_writing(self) -> None:
        """Take no more questions for now: the transport's buffer is full."""
        self.congest()
        hook(self, "pause_writing")

    def congest(self) -> None:
        """Do what `pause_writing` does, without the hook."""
        if not self.outbox.congested:
            self.outbox.congested = True
            if self.state in (State.OPEN, State.CHANGING):
                self.receiver.hold()

    def resume_writing(self) -> None:
        """Take questions again: the transport takes more."""
        self.relieve()
        hook(self, "resume_writing")

    def relieve(self) -> None:
        """Do what `resume_writing` does, without the hook."""
        if self.outbox.congested:
            self.outbox.relieve()
            self.release()

    def release(self) -> None:
        """Let questions go out again, if nothing speaks against it."""
        if not self.outbox.congested and self.state is State.OPEN:
            self.receiver.release()

    # --- whether the peer is there ---

    def overlook(self) -> None:
        """Let the box that was given out last be no sign of work: it is a ping, or its answer."""
        if self.inbox.silence is not None:
            self.inbox.silence.overlook()

    def keep_alive(self, session: Session | None) -> None:
        """Have `session` ask whether the peer is there when nothing comes; None to do so no more."""
        keep_alive(self, session)

    # --- changing into something else ---

    @property
    def locked(self) -> bool:
        """Whether a change was begun by a box of ours, and is not done yet."""
        return self.state is State.CHANGING

    @property
    def secured(self) -> bool:
        """Whether the connection has TLS, or is about to."""
        transport = self.transport
        has_tls = transport is not None and transport.get_extra_info("sslcontext") is not None
        return has_tls or (self.change is not None and self.change.secures)

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        return peer_of(self)

    @property
    def over_pipes(self) -> bool:
        """Whether the connection is over pipes. `loop.start_tls` needs a socket."""
        return self.transport is not None and self.transport.get_extra_info("pipe") is not None

    def lock(self, securing: bool) -> None:
        """Write what was sent, and keep all later boxes until the change is done or refused."""
        changing.lock(self, securing)

    def settle(self, secured: bool = False) -> None:
        """Send the boxes that were kept, in order, and go on: secured by TLS, or not, if refused."""
        changing.settle(self, secured)

    def secure(self, terms: TLSTerms, done: Callable[[Exception | None], None]) -> None:
        """Begin a TLS handshake: the bytes after the last box belong to TLS.

        `done` is called with None when the connection is secured, and with the error otherwise.
        """
        changing.secure(self, terms, done)

    def switch(self, inner: asyncio.BaseProtocol) -> None:
        changing.switch(self, inner)

    # --- the peer's end ---

    def eof_received(self) -> bool:
        """Note that the peer sends no more; return whether the connection stays open."""
        stays_open = peer_ended(self)
        hook(self, "eof_received")
        return stays_open

    def connection_lost(self, exc: Exception | None) -> None:
        """End, when all that came before the loss was given out."""
        if self.state in (State.OPEN, State.CHANGING) and self.inbox.only_waits():
            self.happen(Event.ENDED)
            self.ended_by = exc
            self.outbox.close(ConnectionLost("the connection is closed"))
            self.inbox.drain(lambda: self.lose(exc))
        elif self.state is not State.DRAINING:
            self.lose(exc)

    def lose(self, exc: Exception | None) -> None:
        """Tell all that wait for something that the connection is gone."""
        if self.state in _ENDED:
            return  # A handshake that failed, or a switch, was told before.
        aborted = self.state is State.FINISHING
        cause = self.error or certificate_error(exc) or exc
        self.happen(Event.LOST)
        logger.info("%r: connection lost%s", self, f": {cause}" if cause else "")
        reason = ConnectionLost(f"the connection was lost: {cause or 'it was closed'}")
        reason.__cause__ = cause
        self.outbox.close(ConnectionLost("the connection is closed"))
        if self.outbox.exchange is not None:
            self.outbox.exchange.close()
        self.leave(reason, keep_backlog=not aborted)
        hook(self, "connection_lost", exc)
        self.forget()

    def leave(self, reason: AmpError, keep_backlog: bool) -> None:
        """Let go of the transport, which is gone or belongs to another protocol, and tell why."""
        started = self.transport is not None
        self.transport = None
        if self.served is not None:
            self.served(self)
        self.stop_reading()
        if started:
            self.receiver.end(reason, keep_backlog)
        if self._closed is not None:
            self._closed.set()

    def stop_reading(self) -> None:
        """Drop what still comes."""
        self.inbox.close()
        self.keep_alive(None)
        for timer in self._timers:
            timer.cancel()

    def cancel_at_end(self, timer: Timer) -> None:
        """Cancel a timer when what still comes is dropped, and when the connection is gone."""
        self._timers += (timer,)

    def forget(self) -> None:
        """Forget the owner, so that it is freed when its last user has dropped it."""
        self.owner = None
        if hasattr(self, "receiver"):  # It is not set before the start.
            self.receiver.forget()

    # --- our own end ---

    def finish_writing(self, at_once: bool = False) -> None:
        """Write what was sent, then close; what still comes is not looked at.

        With `at_once`, the peer has read everything, and need not close its side first.
        Questions that waited for the window, or for the transport, are written, too. A peer that does
        not take it all within ten seconds loses the rest. Does nothing if this was done before.
        """
        if self.transport is None:
            return
        if self.state is State.CHANGING:
            if self.change is not None and not self.change.closes:
                self.change.closes = True
                Linger.until_settled(self)
        elif self.state is State.OPEN:
            self.receiver.send_rest()
            self.outbox.flush()
            self._finish()
            # Unread bytes would make the kernel reset the connection, and TLS could not say goodbye.
            self.read(True)
            Linger.after_last_byte(self, self.transport, at_once or self.peer_finished)

    def _finish(self) -> None:
        self.happen(Event.FINISH)
        self.outbox.close(ConnectionLost("the connection is closed"))
        self.stop_reading()

    def abort(self) -> None:
        """Close the connection now, or as soon as it is made; what was not written yet is lost."""
        if self.state is State.DRAINING:
            self.lose(None)
        elif self.state not in _ENDED:
            self._finish()
            if self.transport is not None:
                cut(self.transport)

    def give_up(self, error: Exception) -> None:
        """Abort the connection because of `error`."""
        if self.state not in _ENDED:
            self.error = error
            self.lines.warning("%r: aborting the connection: %s", self, error)
            self.abort()

    def is_busy(self) -> bool:
        """Return whether work is under way, so that silence means nothing."""
        return bool(self.inbox.pauses) or self.receiver.is_busy()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone; cancelling this only ends the wait."""
        if self.transport is not None:
            if self._closed is None:
                self._closed = asyncio.Event()
            await self._closed.wait()

    def __repr__(self) -> str:
        return f"<{self._class.__name__} {self.where}>"


# What a connection has before it has a transport.
_NO_LIMITS: Final = Limits()
