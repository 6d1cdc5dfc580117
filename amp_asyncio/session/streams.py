"""Streams: those of one conversation, on either side.

Boxes of a stream have the tag of its question: as `ask` from the side that asked, as `answer` from the
other. The side that asked sends nothing before the peer has given it credit: a peer that does not know
streams never does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..commands.definitions import ByName
from ..errors import (
    AmpError,
    BadArguments,
    MalformedAmpBox,
    RemoteAmpError,
    StreamsUnsupported,
    TooManyStreams,
    shortened,
)
from ..wire.boxes import ASK, COMMAND, UNHANDLED_ERROR_CODE, UNKNOWN_ERROR_CODE, AmpBox, Box
from ..wire.extensions import CREDIT, PING
from . import answers
from .control import may_answer
from .flow import AMOUNT, credit_in
from .lane import ANSWERER, ASKER, Lane
from .negotiation import PING as PING_NAME
from .negotiation import STREAM
from .pace import Mark
from .pinging import Pong
from .sharing import Sharing

if TYPE_CHECKING:
    from .current import Call
    from .locators import StreamResponder
    from .session import Session

__all__ = ["STREAMS_ARE_OPEN", "Asked", "Streams"]

#: Why a connection cannot become TLS, or another protocol.
STREAMS_ARE_OPEN: Final = "the connection cannot be changed while streams are open"

_TAG = re.compile(rb"[1-9a-f][0-9a-f]{0,15}")


class Asking(Lane):
    """A stream that this side asks for; `ask` asks, and returns the future of the answer."""

    __slots__ = ("_answer", "_ask")

    asked = True

    def __init__(self, streams: Streams, ask: Callable[[Asking], asyncio.Future[Any]]) -> None:
        super().__init__(streams.session, streams.sharing, ASKER)
        self._ask: Callable[[Asking], asyncio.Future[Any]] | None = ask
        self._answer: asyncio.Future[Any] | None = None

    def open(self) -> None:
        if self._ask is None:
            raise RuntimeError("the stream was opened before; call stream() again for another one")
        ask, self._ask = self._ask, None
        self._answer = answer = ask(self)
        self.opened = True
        if answer.done():  # It was not sent.
            self._answered(answer)
            answer.result()
        answer.add_done_callback(self._answered)

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        error = None if answer.cancelled() else answer.exception()
        # What the peer has sent before its error is still taken; all else ends the stream at once.
        self.end(error, at_once=not self.done)

    async def answer(self) -> Any:
        """Return the answer; cancelling this only ends the wait."""
        answer = self._answer
        if answer is None:
            raise self.unopened()
        if not answer.done():
            await asyncio.wait((answer,))
        return answer.result()

    def leave(self) -> None:
        if self._answer is not None:
            self._answer.cancel()
        self.end(None, at_once=True)


class Asked(ByName):
    """What takes the answer to the question of a stream.

    `answered_by` takes what is in the answer, as the definition of a command does. It is one of
    `all_asked` until the answer has come.
    """

    __slots__ = ("_all_asked", "_answered_by", "lane")

    counted = False

    def __init__(self, lane: Asking, answered_by: ByName, all_asked: set[Asked]) -> None:
        self.lane = lane
        self._answered_by = answered_by
        self._all_asked = all_asked

    @property
    def may_claim(self) -> bool:
        return self._answered_by.may_claim

    def _done(self) -> None:
        self.lane.done = True
        self._all_asked.discard(self)

    def answered(self, box: Box, session: Any, future: asyncio.Future[Any]) -> None:
        lane = self.lane
        self._done()
        if not future.done() and lane.in_item:
            raise MalformedAmpBox(f"an answer in the middle of an item of the stream {lane.tag!r}")
        if lane.tag or future.done():
            self._answered_by.answered(box, session, future)
        else:
            future.set_exception(StreamsUnsupported("the peer has answered it as a plain command"))

    def failed(self, error: RemoteAmpError, session: Any, future: asyncio.Future[Any]) -> None:
        lane = self.lane
        self._done()
        unhandled = error.errorCode == UNHANDLED_ERROR_CODE and not session.knows(STREAM)
        if not lane.tag and unhandled and not future.done():
            future.set_exception(
                StreamsUnsupported(f"the peer does not know this stream: {error.description!s}")
            )
        else:
            self._answered_by.failed(error, session, future)


class _Read(Pong):
    """What takes the answer to a ping between the pieces of streams."""

    __slots__ = ("_mark", "_sharing")

    def __init__(self, sharing: Sharing, mark: Mark) -> None:
        self._sharing = sharing
        self._mark = mark

    def answered(self, box: Box, session: Any, future: Any) -> None:
        super().answered(box, session, future)
        self._sharing.answered(self._mark)


class Answering(Lane):
    """A stream that this side answers."""

    __slots__ = ()

    asked = False

    def __init__(self, streams: Streams, tag: bytes, credit: int) -> None:
        super().__init__(streams.session, streams.sharing, ANSWERER)
        self.opened = True
        self.start(tag)
        self.grant(credit)
        self.give(streams.session.limits.stream_window)

    def open(self) -> None:
        raise RuntimeError("the stream of a responder is open: it needs no `async with`")

    async def answer(self) -> Any:
        raise RuntimeError("this side answers: return the answer from the responder")

    def leave(self) -> None:
        """Do nothing: a responder ends the stream by its own end."""


class Streams:
    """The streams of one conversation.

    Attributes:
        sharing: says which of them sends next.
    """

    __slots__ = ("_answering", "_asked", "_highest", "session", "sharing")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sharing: Sharing = Sharing(session.calls.held, self._ping)
        # Those that this side answers, by their tags, and the number of the last one.
        self._answering: dict[bytes, Lane] = {}
        self._highest = 0
        self._asked: set[Asked] = set()  # The questions of ours that opened one, and are open.

    def is_open(self) -> bool:
        """Return whether a stream is open, on either side."""
        return bool(self._answering or self._asked)

    def _ping(self, mark: Mark) -> bool:
        """Ask the peer to tell when it has read what was sent; return False if it does not know how."""
        session = self.session
        if not session.knows(PING_NAME):
            return False
        session.calls.ask_beside(AmpBox({COMMAND: PING}), _Read(self.sharing, mark))
        return True

    # --- boxes ---

    def item_received(self, box: AmpBox) -> None:
        lane = self._lane(box)
        if lane is not None:
            if not lane.tag:
                raise MalformedAmpBox(
                    f"an item before the first {CREDIT!r} of its stream: {shortened(box)}"
                )
            lane.item_received(box)

    def credit_received(self, box: AmpBox) -> None:
        lane = self._lane(box)
        if lane is not None:
            if not lane.tag:
                lane.start(box[ANSWERER])
            lane.credit_received(box.get(AMOUNT))

    def _lane(self, box: AmpBox) -> Lane | None:
        """Return the stream that a box belongs to; None if it is over."""
        from_asker, from_answerer = box.get(ASKER), box.get(ANSWERER)
        if from_answerer is None and from_asker is not None:
            lane = self._answering.get(from_asker)
            if lane is None and _number(from_asker) > self._highest:
                raise MalformedAmpBox(f"{shortened(box)} is for a stream that was never opened")
            return lane
        if from_answerer is None or from_asker is not None:
            raise MalformedAmpBox(f"{shortened(box)} needs exactly one of {ASKER!r} and {ANSWERER!r}")
        calls = self.session.calls
        question = calls.table.open.get(from_answerer)
        if question is None:
            if _number(from_answerer) > calls.counter:
                raise MalformedAmpBox(f"{shortened(box)} is for a question that was never asked")
            return None
        asked = question[0]
        if not isinstance(asked, Asked):
            raise MalformedAmpBox(f"{shortened(box)} is for a question that opened no stream")
        return None if asked.lane.over else asked.lane

    # --- asking ---

    def asking(self, ask: Callable[[ByName], asyncio.Future[Any]], definition: ByName) -> Asking:
        """Return a stream that is not opened yet.

        `ask` asks its question. Its answer is taken by what `ask` is given, and then by `definition`.
        """

        def open_it(lane: Asking) -> asyncio.Future[Any]:
            session = self.session
            if not session.extended:
                raise StreamsUnsupported("streams need `extensions`, which are switched off here")
            if session.peer_is_known() and not session.knows(STREAM):
                raise StreamsUnsupported("the peer does not know streams")
            most = session.limits.max_streams
            if len(self._asked) >= most:
                raise TooManyStreams(f"{most} streams that this side asked for are open: max_streams")
            asked = Asked(lane, definition, self._asked)
            future = ask(asked)
            self._asked.add(asked)
            future.add_done_callback(partial(self._ended, asked))
            return future

        return Asking(self, open_it)

    def _ended(self, asked: Asked, future: asyncio.Future[Any]) -> None:
        """The answer of a stream is here, or is not wanted; if it may still come, the stream counts."""
        calls = self.session.calls
        if not calls.table.is_asked(asked):
            self._asked.discard(asked)
        elif future.cancelled():
            calls.table.look_soon()

    # --- answering ---

    def question_received(
        self,
        box: AmpBox,
        responder: StreamResponder,
        call: Call | None,
        begin: Callable[..., asyncio.Task[None] | None],
    ) -> None:
        """Answer a question that opens a stream, at once, or refuse it: streams have their own limits.

        `begin` calls the responder. Raises `MalformedAmpBox`, which ends the connection, for a tag that
        cannot be.
        """
        tag = box.get(ASK)
        number = 0 if tag is None else _number(tag)
        if tag is not None and number <= self._highest:
            raise MalformedAmpBox(f"a stream of the tag {shortened(tag)}, which was used before")
        if not may_answer(self.session, box):
            return
        try:
            lane = self._opened(box, tag, responder.credit)
        except (BadArguments, RemoteAmpError) as error:
            answers.refuse(self.session, box[COMMAND], tag, responder, error)
            return
        finally:
            self._highest = max(self._highest, number)
        responder.channel = lane
        task = begin(box, responder, 0, call, stream=True)
        if task is None:
            self._over(lane)
        else:
            task.add_done_callback(lambda task: self._over(lane))

    def _opened(self, box: AmpBox, tag: bytes | None, credit: bytes | None) -> Answering:
        """Return the stream that a question opens; raises what the peer is to get if it opens none."""
        limits = self.session.limits
        if tag is None:
            raise BadArguments("a stream needs an answer, and the question has no _ask")
        if credit is None or not self.session.knows(STREAM):
            name = shortened(box[COMMAND])
            text = f"Unhandled Command: {name} is a stream, and was asked for as a plain command"
            raise RemoteAmpError(UNHANDLED_ERROR_CODE, text)
        if len(self._answering) >= limits.max_streams:
            text = f"{limits.max_streams} streams of this connection are open already"
            raise RemoteAmpError(UNKNOWN_ERROR_CODE, text)
        try:
            lane = Answering(self, tag, credit_in(credit))
        except MalformedAmpBox as error:
            raise BadArguments(*error.args) from error
        self._answering[tag] = lane
        return lane

    def _over(self, lane: Answering) -> None:
        """End a stream whose responder has ended, or never began."""
        if self._answering.pop(lane.tag, None) is not None:
            lane.end(None, at_once=True)

    # --- the end ---

    def end(self, reason: AmpError) -> None:
        """End those that this side answers: the connection is over; those it asked for have futures."""
        answering, self._answering = self._answering, {}
        for lane in answering.values():
            lane.end(reason, at_once=True)


def _number(tag: bytes) -> int:
    """Return the number that a tag is; `MalformedAmpBox` for anything else."""
    if not _TAG.fullmatch(tag):
        raise MalformedAmpBox(f"a stream of the tag {shortened(tag)}, which is not a number")
    return int(tag, 16)
