"""Negotiation: how a conversation learns that its peer is of this package, too.

The first question of each side carries an offer: the tag of the question, then the names that this side
knows. A peer that does not know the key ignores it, as AMP says. One that does knows this side from
then on, and says its own names with the command `_accept`, which no other peer ever gets. Where both
offer at once, each knows the other by its offer.

An offer proves something only if it comes from the very peer. If its tag is not that of its question,
somebody has forwarded the question. A peer that forwards what others offer may be of any kind, so it
counts as one that has announced nothing.

What was said in the clear does not count any more when TLS has started, and is said again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ..wire.boxes import ASK, COMMAND, AmpBox
from ..wire.costs import PAIR_OVERHEAD
from ..wire.extensions import ACCEPT, OFFER

if TYPE_CHECKING:
    from .session import Session

__all__ = ["CANCEL", "LEAVE", "NAMES", "PING", "STREAM", "Negotiation", "is_extended"]

CANCEL: Final = b"cancel"
LEAVE: Final = b"leave"
_METADATA: Final = b"metadata"
PING: Final = b"ping"
STREAM: Final = b"stream"
_TIMEOUT: Final = b"timeout"

#: What this side knows.
NAMES: Final = b" ".join((CANCEL, LEAVE, _METADATA, PING, STREAM, _TIMEOUT))

# How many bytes of an offer are looked at.
_MOST: Final = 1024

_NOBODY: Final[frozenset[bytes]] = frozenset()


@lru_cache(maxsize=16)
def _named(names: bytes) -> frozenset[bytes]:
    """Return the names in an offer: one object for all peers that know the same."""
    return frozenset(names.split())


def is_extended(owner: Any, sender: Any) -> bool:
    """Return whether the conversation of `owner`, over `sender`, is to make offers and take them.

    Where somebody else looks at the boxes, only if its class says so.
    """
    chosen = getattr(owner, "extensions", None)
    if chosen is not None:
        return bool(chosen)
    overrides: frozenset[str] = type(owner).__amp_overrides__
    return owner is sender and overrides.isdisjoint(("ampBoxReceived", "sendBox"))


class Negotiation:
    """What two peers have said about themselves, in one conversation.

    Attributes:
        offered: the tag of our offer, until it is accepted.
        peer: the names that the peer knows; none for a peer that has not announced itself.
    """

    __slots__ = ("_forwards", "_heard", "_session", "offered", "peer")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.peer = _NOBODY
        self.offered: bytes | None = None
        self._heard = False  # Whether the peer has made an offer.
        self._forwards = False  # Whether the peer forwards the questions of others.

    def offer(self, box: AmpBox, room: int) -> bool:
        """Make our offer with the question in `box`; return False if it has no `room` for that."""
        tag = box[ASK]
        offer = b"%b %b" % (tag, NAMES)
        if len(OFFER) + len(offer) + PAIR_OVERHEAD > room:
            return False
        box[OFFER] = offer
        self.offered = tag
        return True

    def offer_received(self, offer: bytes, tag: bytes | None) -> None:
        """Take the offer in the question with this tag, and reply to it."""
        first, _, names = offer[:_MOST].partition(b" ")
        if tag is None or first != tag or self._heard:
            self._forwards = True
            self._know(_NOBODY)
            return
        self._heard = True
        if self._forwards:
            return
        if self.offered is None:
            reply = AmpBox({COMMAND: ACCEPT, b"ask": tag, b"names": NAMES})
            self._session.send_control(reply)
        self.offered = None
        self._know(_named(names))

    def accepted(self, tag: bytes | None, names: bytes) -> None:
        """The peer has accepted the offer with this tag."""
        if tag is not None and tag == self.offered and not self._forwards:
            self.offered = None
            self._know(_named(names[:_MOST]))

    def _know(self, names: frozenset[bytes]) -> None:
        if names != self.peer:
            self.peer = names
            self._session.peer_announced()
