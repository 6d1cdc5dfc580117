"""The session: one conversation, in which both sides ask and both answer.

It is put together from its two halves, `calls.py` and `responders.py`, and sits between boxes and the
user's code. It knows no transport: what it sends goes into an outbox, and what it needs of the
connection is in `outlets.py`. Here each box is taken to the half that it belongs to, and here is
decided when the conversation is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..errors import AmpError, ConnectionLost, NoEmptyBoxes, ProtocolSwitched, shortened
from ..limits import Limits
from ..logs import Lines
from ..wire.boxes import ANSWER, COMMAND, ERROR, AmpBox, BoxReceiver, BoxSender
from ..wire.parser import parseString
from .calls import Asked, Calls
from .current import Call
from .interceptors import Interceptor, Interceptors, checked
from .leaving import Leaving, Watched, leave, retire
from .life import Pause
from .locators import may_claim
from .negotiation import NOTHING, PING, is_extended
from .outlets import UNCONNECTED, Outlet, SenderOutlet
from .responders import Responders
from .service import NO_SERVICE
from .streams import Streams

if TYPE_CHECKING:
    from ..commands.command import Command
    from .locators import Responder, ResponderLocator
    from .pinging import Ping
    from .terms import Terms

__all__ = ["Session"]


class Session:
    """One conversation of `owner`, the AMP or the dispatcher that people see.

    Attributes:
        owner: what commands and arguments get as their `proto`.
        locator: finds the responders; None for the owner.
        box_receiver: what the owner's connection gives its boxes to; None for this session.
        sender: what boxes are sent through that have a `_sendTo` of their own.
        outlet: the connection, and `outbox` its outbox.
        limits: how much may be under way.
        around: the interceptors that `serve` or `connect` was given, outside of those of the owner.
        interceptors: surrounds each call; None without interceptors.
        started: whether it was connected.
        guarded: whether the peer finds only public commands until the owner has an identity for it.
        extended: whether it speaks with peers of this package as such: see `negotiation.py`.
        negotiation: what both have announced so far.
        leaving: whether each side asks only from inside responders now; None if neither does.
        service: what it has in common with the other conversations of its server.
        pinging: asks whether the peer is there; None before the first ping.
        closing: whether only responders may still ask.
        retiring: whether it leaves as soon as the peer can be told, without closing.
        peer_left: is called when the peer has said that it leaves; None if nothing needs to know.
        parking: whether the peer's commands wait, unless a question of ours is open.
        watched: what waits until all is done; None while nothing does.
    """

    __slots__ = (
        "_lines",
        "_streams",
        "around",
        "box_receiver",
        "calls",
        "cancellable",
        "close_on_unknown_error",
        "closing",
        "controls",
        "extended",
        "guarded",
        "interceptors",
        "leaving",
        "limits",
        "locator",
        "negotiation",
        "outbox",
        "outlet",
        "owner",
        "parking",
        "peer_left",
        "pinging",
        "responders",
        "retiring",
        "sender",
        "service",
        "started",
        "watched",
    )

    owner: Any

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.locator: ResponderLocator | None = None
        self.box_receiver: BoxReceiver | None = None
        self.sender: BoxSender | None = None
        self.outlet: Outlet = UNCONNECTED
        self.outbox = self.outlet.outbox
        self.limits: Limits = _LIMITS
        self.cancellable = True
        self.close_on_unknown_error = False
        self.guarded = False
        self.around: tuple[Interceptor, ...] = ()
        self.interceptors: Interceptors | None = None
        self.started = self.closing = self.parking = False
        self.watched: Watched | None = None
        self.extended = self.retiring = False
        self.negotiation = NOTHING
        self.leaving: Leaving | None = None
        self.peer_left: Callable[[], None] | None = None
        self.service = NO_SERVICE
        self.pinging: Ping | None = None
        self.controls = 0  # How many commands of the peer were answered beside the user's own.
        self._lines: Lines | None = None
        self._streams: Streams | None = None
        self.calls = Calls(self)
        self.responders = Responders(self)

    #: A session is what its connection gives boxes to, without a detour: see `receivers.py`.
    is_session = True

    def start(self, sender: BoxSender, outlet: Outlet | None = None) -> None:
        """Begin: boxes can be sent through `sender`, whose outlet is `outlet` if it has one."""
        owner = self.owner
        limits = getattr(owner, "limits", self.limits)
        if not isinstance(limits, Limits):
            raise TypeError(f"{type(owner).__name__}.limits must be a Limits(...), not {limits!r}")
        self.limits = limits
        self.cancellable = bool(getattr(owner, "cancellable", True))
        self.close_on_unknown_error = bool(getattr(owner, "closeOnUnknownError", False))
        self.guarded = bool(getattr(owner, "identified_only", False))
        own = checked(getattr(owner, "interceptors", ()), f"{type(owner).__name__}.interceptors")
        if around := (*self.around, *own):
            self.interceptors = Interceptors(self, around)
        self.sender = sender
        self.outlet = outlet or SenderOutlet(sender)
        self.outbox = self.outlet.outbox
        self.started = True
        self.extended = outlet is not None and is_extended(owner, sender)
        self.responders.begin()
        self.calls.begin()
        if self.extended and limits.ping_anyone:
            self.outlet.keep_alive(self)

    def receive(self, box: AmpBox) -> None:
        """Take a box to where it belongs.

        Raises `MalformedAmpBox` for an answer to no question and an error without its code, and
        `NoEmptyBoxes` for a box that is neither an answer nor an error nor a command.
        """
        if ANSWER in box:
            self.calls.answer_received(box)
        elif ERROR in box:
            self.calls.error_received(box)
        elif COMMAND in box:
            self.responders.command_received(box)
        else:
            hint = "" if box else "; does the peer use version 2 of AMP, and this side version 1?"
            raise NoEmptyBoxes(
                f"neither a command nor an answer nor an error: {shortened(dict(box))}{hint}"
            )

    def ask(
        self,
        name: bytes,
        box: AmpBox,
        asked: Asked,
        in_lists: int = 0,
        *,
        terms: Terms | None = None,
        question: object,
        amp: object,
    ) -> asyncio.Future[Any]:
        """Ask for a command, as `Calls.ask` does, with the interceptors around it.

        They are shown the `question` that `amp` was asked.
        """
        if self.interceptors is None:
            return self.calls.ask(name, box, asked, in_lists, terms)
        metadata = {} if terms is None else terms.named()
        deadline = self.calls.deadline_of(asked, terms)
        call = Call("asking", name, amp, question, metadata, deadline)
        return self.interceptors.ask(call, box, asked, in_lists, terms)

    def send(self, box: AmpBox) -> None:
        """Send a box; one with a `_sendTo` of its own decides itself how."""
        if type(box)._sendTo is AmpBox._sendTo or self.sender is None:
            self.outlet.post(box)
        else:
            box._sendTo(self.sender)

    # --- peers of this package ---

    def knows(self, name: bytes) -> bool:
        """Return whether the peer has announced that it knows `name`."""
        return name in self.negotiation.peer

    def peer_is_known(self) -> bool:
        """Return whether it is known which names the peer knows: none, if it has ignored our offer."""
        offered = self.negotiation.offered
        return self.peer_is_ours or (offered is not None and offered not in self.calls.table.open)

    @property
    def peer_is_ours(self) -> bool:
        """Whether the peer has announced itself."""
        return bool(self.negotiation.peer)

    def peer_announced(self) -> None:
        """What is known of the peer has changed."""
        self.calls.peer_announced()
        if self.knows(PING):
            self.outlet.keep_alive(self)
        elif not self.limits.ping_anyone:
            self.outlet.keep_alive(None)
        if self.retiring:
            retire(self)
        elif self.closing:
            leave(self)

    def secured(self) -> None:
        """TLS has begun: what was said in the clear no longer counts."""
        if self.negotiation is not NOTHING:
            self.negotiation = NOTHING
            self.peer_announced()
        self.leaving = None
        self.calls.offer()
        self.moved()

    def send_control(self, box: bytes) -> bool:
        """Send what wants no answer to a peer that knows it; return whether it was sent."""
        if self.outlet.locked:
            return False  # The peer may be another one when that leaves.
        try:
            if self.outlet.takes_bytes:
                self.outbox.send(box)
            else:
                self.send(*parseString(box))
        except (ConnectionLost, ProtocolSwitched):
            return False
        return True

    def end_turn(self) -> None:
        """Look at no more boxes in this turn of the loop: this one is a lot of work."""
        self.outlet.pause_reading(Pause.TURN)
        asyncio.get_running_loop().call_soon(self.outlet.resume_reading, Pause.TURN)

    def hold(self) -> None:
        """Let the questions wait from now on: the connection takes no more of them."""
        self.calls.hold()
        if self._streams is not None:
            self._streams.sharing.hold()

    def release(self) -> None:
        """Send the questions that waited, and begin the commands that waited for them to leave."""
        self.calls.release()
        self.responders.begin_waiting()
        if self._streams is not None:
            self._streams.sharing.release()

    def has_streams(self) -> bool:
        """Return whether a stream is open, on either side."""
        return self._streams is not None and self._streams.is_open()

    @property
    def streams(self) -> Streams:
        """The streams of the conversation; made for the first one."""
        if self._streams is None:
            self._streams = Streams(self)
        return self._streams

    @property
    def lines(self) -> Lines:
        """What writes the log lines that the peer can cause; made for the first one."""
        if self._lines is None:
            self._lines = Lines(self.service.lines)
        return self._lines

    def send_rest(self) -> None:
        """Send the questions that wait: the connection is about to close."""
        self.calls.send_rest()

    def is_busy(self) -> bool:
        """Return whether an answer is awaited, or a command is not answered yet."""
        return self.calls.is_open() or not self.responders.is_idle()

    def has_backlog(self) -> bool:
        """Return whether commands wait to begin."""
        return self.responders.has_backlog()

    def may_claim(self) -> bool:
        """Return whether a box that comes may name a descriptor, or what follows it may."""
        awaited = self.calls.table.may_claim()
        return awaited or self.outlet.locked or may_claim(self.locator or self.owner)

    def hides(self, responder: Responder | type[Command[Any]]) -> bool:
        """Return whether a responder is not found by this peer, because it is not known yet who it is.

        What a subclass does with the name `identity` does not matter: it is set on the instance.
        """
        if not self.guarded or vars(self.owner).get("identity") is not None:
            return False
        return not getattr(responder, "public", False)

    def progress(self) -> int:
        """Return how many commands were begun and finished so far."""
        return self.responders.progress

    # --- the end ---

    def refusal(self) -> AmpError | None:
        """Return why nothing may be asked here and now, or None if it may be."""
        if not self.closing or self.responders.is_inside():
            return None
        if self.leaving is not None and self.leaving.heard:
            return ConnectionLost("the connection is closing: the peer takes no new questions")
        return ConnectionLost("the connection is closing")

    def end(self, reason: AmpError, keep_backlog: bool = False) -> None:
        """Fail every question, cancel the responders whose answers cannot be sent.

        With `keep_backlog`, commands that wait to begin, and want no answer, are still begun.
        """
        # This comes first: a responder that waits for an answer is to be cancelled rather than told.
        if isinstance(reason, ConnectionLost):
            self.responders.tasks.abandon()
        self.responders.tasks.end()
        if self._streams is not None:
            self._streams.end(reason)
        self.calls.end(reason)
        self.responders.drop_backlog(keep_backlog)
        self.moved()
        if self._lines is not None:
            self._lines.end(self)

    def peer_finished(self, lost: ConnectionLost) -> None:
        """The peer sends no more: no question can be answered; finish when all commands are."""
        self.watch().finishing = True
        self.calls.end(lost)
        self.moved()

    def moved(self) -> None:
        """See whether all that was waited for is done."""
        watched = self.watched
        if watched is not None and watched.finishing and self.responders.is_idle():
            watched.finishing = False
            self.outlet.finish_writing()
        if self.leaving is not None:
            self.leaving.say()
        if watched is not None:
            watched.moved.set()

    def watch(self) -> Watched:
        """Look from now on, whenever something is done, whether all is."""
        if self.watched is None:
            self.watched = Watched()
        return self.watched

    def refuse_calls(self) -> None:
        """Refuse questions from outside from now on: responders may still ask, on both sides."""
        self.closing = True
        self.calls.update()
        self.responders.exempt_caller()
        leave(self)

    async def finish(self) -> bool:
        """Begin no new work from outside, and wait until all that was asked is answered.

        Return whether the peer is known to have read everything that was sent. The responder that has
        called `refuse_calls`, if one has, is not waited for.
        """
        moved = self.watch().moved
        while (
            self.is_busy() or self.outlet.locked or (self.leaving is not None and self.leaving.waits())
        ):
            # A peer that leaves as well asks nothing that would have to wait.
            self.parking = self.leaving is None
            moved.clear()
            await moved.wait()
        self.parking = True
        return self.leaving is not None and self.leaving.has_read_all()

    def forget(self) -> None:
        """Forget the owner, so that it is freed when its last user has dropped it."""
        self.owner = self.sender = None

    def __repr__(self) -> str:
        return repr(self.outlet)


# What a session has before it begins.
_LIMITS: Final = Limits()
