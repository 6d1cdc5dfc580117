"""The life of a connection: its state, the events that change it, and why reading pauses.

==========  =========  ========  =======  ========  =========  ========  ====
state       connected  change    settled  switched  finish     ended     lost
==========  =========  ========  =======  ========  =========  ========  ====
CONNECTING  OPEN       .         .        .         FINISHING  .         LOST
OPEN        .          CHANGING  .        .         FINISHING  DRAINING  LOST
CHANGING    .          .         OPEN     SWITCHED  FINISHING  DRAINING  LOST
FINISHING   same       .         same     .         same       .         LOST
DRAINING    .          .         same     SWITCHED  same       .         LOST
SWITCHED    .          .         .        .         same       .         same
LOST        .          .         same     .         same       .         same
==========  =========  ========  =======  ========  =========  ========  ====

A dot marks an event that cannot happen in that state; it raises `RuntimeError`. The events:

- connected: the transport is connected. (FINISHING: the connection was aborted before that, so the
  transport is aborted now.)
- change: a box was sent after which the connection may become TLS or another protocol. Nothing else is
  written until that is settled.
- settled: the peer refused the change, or TLS is established; AMP goes on.
- switched: the transport was handed over to another protocol.
- finish: the last byte was written, or the connection was aborted; only its end is awaited.
- ended: the transport is gone, but boxes that were received before that are still to be given out.
- lost: the transport is gone, and every box was given out.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

__all__ = ["TRANSITIONS", "Event", "Pause", "State", "following"]


class State(Enum):
    """What a connection is at the moment."""

    CONNECTING = "not connected"
    OPEN = "open"
    CHANGING = "being changed"
    FINISHING = "closing"
    DRAINING = "ended"
    SWITCHED = "handed over"
    LOST = "closed"


class Event(Enum):
    """What happens to a connection."""

    CONNECTED = auto()
    CHANGE = auto()
    SETTLED = auto()
    SWITCHED = auto()
    FINISH = auto()
    ENDED = auto()
    LOST = auto()


class Pause(Enum):
    """Why no boxes are given out. Each of these reasons except OVER stops reading, too."""

    #: Too many commands wait to begin.
    BACKLOG = auto()
    #: The last box may change the connection: the bytes after it may not be AMP.
    CHANGE = auto()
    #: The last box has an answer of a kind of its own, which may do the same. If the connection is lost
    #: before that answer, nothing has changed it, and the bytes after the box are AMP.
    ANSWER = auto()
    #: The bytes after the last box belong to TLS, or to another protocol.
    TAKEN = auto()
    #: The connection has used its share of this turn of the event loop.
    TURN = auto()
    #: The connection is finished: what still comes is dropped.
    OVER = auto()


_CONNECTING, _OPEN, _CHANGING, _FINISHING, _DRAINING, _SWITCHED, _LOST = State

#: The table above.
TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (_CONNECTING, Event.CONNECTED): _OPEN,
    (_CONNECTING, Event.FINISH): _FINISHING,
    (_CONNECTING, Event.LOST): _LOST,
    (_OPEN, Event.CHANGE): _CHANGING,
    (_OPEN, Event.FINISH): _FINISHING,
    (_OPEN, Event.ENDED): _DRAINING,
    (_OPEN, Event.LOST): _LOST,
    (_CHANGING, Event.SETTLED): _OPEN,
    (_CHANGING, Event.SWITCHED): _SWITCHED,
    (_CHANGING, Event.FINISH): _FINISHING,
    (_CHANGING, Event.ENDED): _DRAINING,
    (_CHANGING, Event.LOST): _LOST,
    (_FINISHING, Event.CONNECTED): _FINISHING,
    (_FINISHING, Event.SETTLED): _FINISHING,
    (_FINISHING, Event.FINISH): _FINISHING,
    (_FINISHING, Event.LOST): _LOST,
    (_DRAINING, Event.SETTLED): _DRAINING,
    (_DRAINING, Event.SWITCHED): _SWITCHED,
    (_DRAINING, Event.FINISH): _DRAINING,
    (_DRAINING, Event.LOST): _LOST,
    (_SWITCHED, Event.FINISH): _SWITCHED,
    (_SWITCHED, Event.LOST): _SWITCHED,
    (_LOST, Event.SETTLED): _LOST,
    (_LOST, Event.FINISH): _LOST,
    (_LOST, Event.LOST): _LOST,
}


def following(state: State, event: Event) -> State:
    """Return the state after `event` in `state`; `RuntimeError` where that cannot happen."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise RuntimeError(f"{event.name} cannot happen to a connection that is {state.name}") from None
