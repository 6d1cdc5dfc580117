"""Negotiation: how a conversation learns that its peer also uses this package.

The first question of each side carries an offer: the tag of the question, then the names that this side
knows. A peer that does not know the key ignores it, as AMP says. One that does knows this side from
then on, and says its own names with the command `_accept`, which no other peer ever gets. Where both
offer at once, each knows the other by its offer.

An offer proves something only if it comes from the very peer. If its tag is not that of its question,
a proxy has forwarded the question. A peer that forwards what others offer may be of any kind, so it
counts as one that has announced nothing.

What was said in the clear no longer counts when TLS has started, and is said again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..wire.boxes import ASK, COMMAND, AmpBox
from ..wire.costs import PAIR_OVERHEAD
from ..wire.extensions import ACCEPT, OFFER

if TYPE_CHECKING:
    from .session import Session

__all__ = [
    "CANCEL",
    "LEAVE",
    "NAMES",
    "NOTHING",
    "PING",
    "STREAM",
    "Negotiation",
    "accepted",
    "is_extended",
    "note_offer",
    "offer",
    "offer_pair",
    "offer_received",
]

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


class Negotiation(NamedTuple):
    """What two peers have said about themselves, in one conversation, so far.

    Attributes:
        peer: the names that the peer knows; none for a peer that has not announced itself.
        offered: the tag of our offer, until it is accepted.
        heard: whether the peer has made an offer.
        forwards: whether the peer forwards the questions of others.
    """

    peer: frozenset[bytes] = frozenset()
    offered: bytes | None = None
    heard: bool = False
    forwards: bool = False


#: What is said when a conversation begins.
NOTHING: Final = Negotiation()


@lru_cache(maxsize=32)
def _settled(names: bytes, heard: bool) -> Negotiation:
    """Return what was said when each side knows the other: one object for all conversations."""
    return Negotiation(frozenset(names.split()), None, heard)


def is_extended(owner: Any, sender: Any) -> bool:
    """Return whether the conversation of `owner`, over `sender`, is to make offers and take them.

    Where user code handles the boxes, only if its class says so.
    """
    chosen = getattr(owner, "extensions", None)
    if chosen is not None:
        return bool(chosen)
    overrides: frozenset[str] = type(owner).__amp_overrides__
    return owner is sender and overrides.isdisjoint(("ampBoxReceived", "sendBox"))


def offer(session: Session, box: AmpBox, room: int) -> bool:
    """Make our offer with the question in `box`; return False if it has no `room` for that."""
    tag = box[ASK]
    value = _offer(tag)
    if len(OFFER) + len(value) + PAIR_OVERHEAD > room:
        return False
    box[OFFER] = value
    note_offer(session, tag)
    return True


def note_offer(session: Session, tag: bytes) -> None:
    """Note that the question with this tag has our offer."""
    session.negotiation = session.negotiation._replace(offered=tag)


@lru_cache(maxsize=32)  # Most conversations begin with the same tag.
def offer_pair(tag: bytes) -> bytes:
    """Return our offer, in the question with this tag, as bytes of a box."""
    value = _offer(tag)
    return b"\0%c%b%b%b" % (len(OFFER), OFFER, len(value).to_bytes(2), value)


def _offer(tag: bytes) -> bytes:
    return b"%b %b" % (tag, NAMES)


def offer_received(session: Session, offered: bytes, tag: bytes | None) -> None:
    """Take the offer of the peer in the question with this tag, and reply to it."""
    first, _, names = offered[:_MOST].partition(b" ")
    said = session.negotiation
    if tag is None or first != tag or said.heard:
        _change(session, said._replace(peer=NOTHING.peer, forwards=True))
    elif said.forwards:
        _change(session, said._replace(heard=True))
    else:
        if said.offered is None:
            session.send_control(_reply(tag))
        _change(session, _settled(names, True))


@lru_cache(maxsize=32)
def _reply(tag: bytes) -> bytes:
    return AmpBox({COMMAND: ACCEPT, b"ask": tag, b"names": NAMES}).serialize()


def accepted(session: Session, tag: bytes | None, names: bytes) -> None:
    """The peer has accepted the offer with this tag."""
    said = session.negotiation
    if tag is not None and tag == said.offered and not said.forwards:
        _change(session, _settled(names[:_MOST], said.heard))


def _change(session: Session, said: Negotiation) -> None:
    known = session.negotiation.peer
    session.negotiation = said
    if said.peer != known:
        session.peer_announced()
