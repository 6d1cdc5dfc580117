"""Outlets: what a conversation needs of the connection below it.

An outlet takes boxes, and says when there may be more of them. A connection of this package is an
outlet, and can do everything that is asked of it here. A foreign `BoxSender`, as Twisted defines
it, can only send boxes; `SenderOutlet` fills in the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ssl import SSLContext
from typing import TYPE_CHECKING, Final, Protocol, cast

from ..errors import AmpError, ConnectionLost
from ..wire.boxes import AmpBox, BoxSender
from .life import Pause
from .outbox import Outbox
from .peers import Peer

if TYPE_CHECKING:
    from ..tls.certificates import PrivateCertificate
    from .session import Session

__all__ = ["UNCONNECTED", "ChangeableOutlet", "Outlet", "SenderOutlet", "TLSTerms", "changeable"]


class TLSTerms(Protocol):
    """What this side wants of a TLS handshake; `certificate` is the one that it presents."""

    @property
    def certificate(self) -> PrivateCertificate | None: ...
    @property
    def context(self) -> SSLContext: ...
    @property
    def server_side(self) -> bool: ...
    @property
    def hostname(self) -> str | None: ...


class Outlet(Protocol):
    """A connection, as a session sees it.

    Attributes:
        outbox: takes what is sent.
        takes_bytes: whether the outbox may be given plain boxes as bytes: nothing looks at boxes that
            go out. It is known when the conversation begins.
        locked: whether a change of the connection was begun by a box of ours, and is not done yet.
        secured: whether the connection has TLS, or is about to.
        over_pipes: whether it is over pipes, on which TLS cannot be started.
        peer: who is at the other end.
    """

    outbox: Outbox
    takes_bytes: bool

    @property
    def locked(self) -> bool: ...
    @property
    def secured(self) -> bool: ...
    @property
    def over_pipes(self) -> bool: ...
    @property
    def peer(self) -> Peer: ...

    def post(self, box: AmpBox) -> None:
        """Send a box; raises as `Outbox.send_box` does."""

    def overlook(self) -> None:
        """Let the box that was given out last be no sign of work: it is a ping, or its answer."""

    def keep_alive(self, session: Session | None) -> None:
        """Have `session` ask whether the peer is there when nothing comes; None to do so no more."""

    def pause_reading(self, reason: Pause) -> None:
        """Give out no box after the one that was given out last."""

    def resume_reading(self, reason: Pause) -> None:
        """Take a reason to pause back; after the last one, go on with the bytes after that box."""

    def finish_writing(self) -> None:
        """Send no more after what was sent before, and close the connection."""

    def give_up(self, error: Exception) -> None:
        """Abort the connection because of `error`."""


class ChangeableOutlet(Outlet, Protocol):
    """An outlet that can become TLS, or another protocol."""

    def lock(self, securing: bool) -> None:
        """Write what was sent, and keep all later boxes until the change is done or refused."""

    def settle(self) -> None:
        """Send the boxes that were kept, in order, and go on: the peer has refused the change."""

    def secure(self, terms: TLSTerms, done: Callable[[Exception | None], None]) -> None:
        """Begin a TLS handshake: the bytes after the last box belong to TLS.

        `done` is called with None when the connection is secured, and with the error otherwise.
        """

    def switch(self, inner: asyncio.BaseProtocol) -> None:
        """Hand the transport, and the bytes after the last box, to `inner`."""


class SenderOutlet:
    """An outlet over a `BoxSender` that is not a connection of this package."""

    takes_bytes = False
    locked = False
    secured = False
    over_pipes = False
    peer = Peer()

    def __init__(self, sender: BoxSender) -> None:
        self.outbox = Outbox()
        self.outbox.closed = None  # Such a sender says itself when it takes no more.
        self._sender = sender

    def post(self, box: AmpBox) -> None:
        self._sender.sendBox(box)

    def overlook(self) -> None:
        """Do nothing: it is not known how such a sender measures silence."""

    def keep_alive(self, session: Session | None) -> None:
        """Do nothing: such a sender is not watched."""

    def pause_reading(self, reason: Pause) -> None:
        """Do nothing: such a sender cannot stop what comes."""

    def resume_reading(self, reason: Pause) -> None:
        """Do nothing."""

    def finish_writing(self) -> None:
        finish = getattr(self._sender, "finish_writing", None)
        if finish is not None:
            finish()
        else:
            self._sender.unhandledError(AmpError("the conversation is over"))

    def give_up(self, error: Exception) -> None:
        self._sender.unhandledError(error)

    def __repr__(self) -> str:
        return repr(self._sender)


def changeable(outlet: Outlet) -> ChangeableOutlet:
    """Return `outlet` if it can be changed; raises `TypeError` if not."""
    if isinstance(outlet, SenderOutlet):
        raise TypeError(f"only a BinaryBoxProtocol such as AMP can be changed, not {outlet!r}")
    return cast(ChangeableOutlet, outlet)


class _Unconnected:
    """The sender of a conversation that is not connected yet."""

    def sendBox(self, box: AmpBox) -> None:
        raise RuntimeError("not connected yet: ask after connection_made")

    def unhandledError(self, error: BaseException) -> None:
        """Do nothing: no connection is open."""


#: The outlet of a conversation before it begins.
UNCONNECTED: Final = SenderOutlet(_Unconnected())
UNCONNECTED.outbox.close(ConnectionLost("not connected yet"))
