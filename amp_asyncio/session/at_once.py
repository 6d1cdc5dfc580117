"""Questions that leave at once, as bytes: most of them do, and no box is made.

A question can leave like this while no other one waits, boxes are not logged, and no override looks at
them. `calls.py` sends the others as boxes, and takes all answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from ..commands.definitions import Definition
from ..commands.templates import Template
from ..errors import ConnectionLost, ProtocolSwitched
from .negotiation import note_offer, offer_pair
from .running import current
from .table import NO_TABLE
from .terms import BEYOND, NO_PAIRS, deadline_for, suffix

if TYPE_CHECKING:
    from .calls import Calls

__all__ = ["ask_at_once"]

_AnyFuture: TypeAlias = asyncio.Future[Any]

# With more questions than this without an answer, the next one does not leave before the end of the
# turn: their callers often go on in the same turn, and one question that leaves alone costs both sides
# more.
_FEW = 8


def ask_at_once(
    calls: Calls,
    template: Template,
    asked: Definition,
    objects: dict[str, Any],
    given: float | None = None,
    metadata: Mapping[bytes, bytes] = NO_PAIRS,
) -> _AnyFuture | None:
    """Ask without making a box; return None if a box is needed, and nothing was sent.

    `given` is the deadline that the caller has given, and `metadata` are pairs of the box.
    """
    if not calls.ready:
        return None
    running, responders = current.get(), calls.session.responders
    inside = running is not None or responders.desk.now is not None
    deadline, more, beyond = None, b"", 0
    if inside or given is not None or calls.default is not None or metadata:
        if inside or given is None or given == inf:
            asking = responders.call_of_asker(running) if inside else None
            deadline = deadline_for(given, asking, calls.default)
        else:
            deadline = given
        left = None if deadline is None else deadline - monotonic()
        if left is not None and left <= 0:
            return None
        if calls.session.extended:
            more, beyond = suffix(left, metadata)
    # Reserved before the arguments are encoded: what encodes them may ask something itself.
    calls.counter = number = calls.counter + 1
    tag = b"%x" % number
    offers = calls.offers
    if offers:
        calls.offers = False  # An argument may ask a question while it is encoded.
        more = offer_pair(tag) + more
        beyond += BEYOND
    table = calls.table
    if table is NO_TABLE:
        table = calls.made_table()
    data = template.fill(tag, objects, calls.most - table.unanswered - beyond, more)
    if data is None:
        calls.offers = offers
        if calls.counter == number:
            calls.counter = number - 1
        return None
    future: _AnyFuture = asyncio.get_running_loop().create_future()
    size = len(data) + template.overhead + beyond
    if offers:
        size -= len(offer_pair(tag)) + BEYOND  # It does not count against the window.
        note_offer(calls.session, tag)
    # (What `add` does, without a call: most questions come here.)
    questions = table.open
    questions[tag] = (asked, future, size)
    table.unanswered += size
    try:
        if len(questions) > _FEW:
            if len(questions) >= table.count_at:
                table.count()
            calls.session.outbox.send(data, later=True)
        else:
            calls.session.outbox.send(data)
    except (ConnectionLost, ProtocolSwitched):
        table.remove(tag)
        return None  # The future of the question with a box will say it.
    if table.tells and not table.watches:
        table.watch_soon()
    if deadline is not None:
        if (deadlines := table.deadlines) is not None and deadline >= deadlines.due:
            deadlines.times[future] = deadline  # (What `add` does, without a call.)
        else:
            table.end_at(future, deadline)
    if inside:
        responders.asked(future)
    return future
