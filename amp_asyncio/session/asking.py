"""Asking: a question that is an instance of its command, with what its caller says about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..commands.command import Command, asked_on
from ..commands.definitions import ByName
from ..commands.exchange import drop
from ..commands.streams import Stream
from ..errors import shortened
from ..wire.boxes import AmpBox
from ..wire.extensions import DESCRIBE, HEALTH, STREAM
from .at_once import ask_at_once
from .deadlines import deadline_after
from .terms import NO_PAIRS, Terms, pairs_of

if TYPE_CHECKING:
    from .session import Session

__all__ = ["ask", "ask_description", "ask_health", "stream"]

_BY_NAME: Final = ByName()


def ask(
    session: Session,
    question: Command[Any],
    timeout: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> asyncio.Future[Any]:
    """Ask `question`, and return the future of its answer; raises as `callRemote` does."""
    deadline = deadline_after(timeout)
    pairs = pairs_of(metadata, session.limits) if metadata else NO_PAIRS
    definition = question.__amp__
    template = definition.question_template
    future: Any = None
    if template is not None:
        values: Any = question.__dict__
        future = ask_at_once(session.calls, template, definition, values, deadline, pairs)
    elif definition.template is not None:
        values = question.structured
        future = ask_at_once(session.calls, definition.template, definition, values, deadline, pairs)
    if future is None:
        with asked_on(question, _terms(deadline, pairs)):
            future = question._doCommand(session.owner or _Forgotten(session))
    asked: asyncio.Future[Any] = future
    return asked


def _terms(deadline: float | None, pairs: Mapping[bytes, bytes]) -> Terms | None:
    """Return the terms of a question; None if its caller says nothing."""
    return Terms(deadline, pairs) if deadline is not None or pairs else None


class _Forgotten:
    """Stands for the owner of a session that is over: it says why nothing can be asked."""

    __slots__ = ("__amp__",)

    def __init__(self, session: Session) -> None:
        self.__amp__ = session


def stream(
    session: Session, question: Any, timeout: float | None, metadata: Mapping[str, str] | None
) -> Stream[Any, Any, Any]:
    """Return a stream that is not opened yet; `TypeError` for what opens none."""
    definition = getattr(question, "__amp__", None)
    if not isinstance(question, Command) or definition is None or not definition.opens_stream:
        raise TypeError(f"stream takes a question such as Tail(name='log'), not {shortened(question)}")

    def ask(asked: ByName) -> asyncio.Future[Any]:
        terms = _terms(deadline_after(timeout), pairs_of(metadata, session.limits))
        owner = session.owner or _Forgotten(session)
        box = question.makeArguments(question.structured, owner)
        try:
            in_lists = definition.arguments.in_lists(box, session.limits.max_box_size)
            box[STREAM] = b"%d" % session.limits.stream_window
            name = question.commandName
            return session.ask(name, box, asked, in_lists, terms=terms, question=question, amp=owner)
        except BaseException:
            drop(box)
            raise

    received, sent = definition.items
    channel = session.streams.asking(ask, definition)
    return Stream(channel, received, sent, session.owner, type(question).__name__)


def ask_health(session: Session, service: str | None, timeout: float | None) -> asyncio.Future[AmpBox]:
    """Ask whether the peer serves: the future raises `NotServing` if not."""
    box = AmpBox() if service is None else AmpBox({b"service": service.encode()})
    return session.calls.ask(HEALTH, box, _BY_NAME, 0, Terms(deadline_after(timeout)))


def ask_description(session: Session, timeout: float | None) -> asyncio.Future[AmpBox]:
    """Ask which commands the peer answers."""
    return session.calls.ask(DESCRIBE, AmpBox(), _BY_NAME, 0, Terms(deadline_after(timeout)))
