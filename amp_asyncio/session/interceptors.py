"""Interceptors: what surrounds each call of a connection, on the side that asks or answers.

An interceptor is an `async def around(call, proceed)`. It awaits `proceed()`, which gives the answer or
raises the error, and then returns an answer, or raises, itself. The first one is the outermost. They
see the calls that could be made: a question that does not encode, and a command without a responder or
with arguments that do not decode, is refused before.

A connection without interceptors does not use this module at all. On a connection with some, each
question and each responder is a task.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..commands.exchange import carries_descriptors, drop
from ..errors import DeadlineExceeded, shortened
from ..wire.boxes import COMMAND, AmpBox
from .current import Call, current_call
from .locators import MethodResponder, Responder, is_awaitable
from .running import RUNNING, current
from .terms import Terms, pairs_of

if TYPE_CHECKING:
    from .calls import Asked
    from .session import Session

__all__ = ["Interceptor", "Interceptors", "Proceed", "checked"]

Proceed: TypeAlias = Callable[[], Awaitable[Any]]
Interceptor: TypeAlias = Callable[[Call, Proceed], Awaitable[Any]]

# As for responders: from Python 3.12 on, a question leaves before `callRemote` returns.
_EAGERLY: Final[dict[str, Any]] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


def checked(given: Any, what: str) -> tuple[Interceptor, ...]:
    """Return interceptors as they were given; `TypeError` for what cannot be called."""
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(map(callable, given)):
        needed = "a list of async functions that take (call, proceed)"
        raise TypeError(f"{what} must be {needed}, not {shortened(given)}")
    return tuple(given)


class Interceptors:
    """The interceptors of one conversation, and the questions that they surround."""

    __slots__ = ("_around", "_asking", "_session")

    def __init__(self, session: Session, around: tuple[Interceptor, ...]) -> None:
        self._session = session
        self._around = around
        self._asking: set[asyncio.Task[Any]] = set()

    def is_open(self) -> bool:
        """Return whether a question has not ended; perhaps it was not even sent."""
        return bool(self._asking)

    def _surround(self, call: Call, proceed: Proceed) -> Awaitable[Any]:
        for interceptor in reversed(self._around):
            proceed = partial(interceptor, call, proceed)
        return proceed()

    # --- asking ---

    def ask(
        self, call: Call, box: AmpBox, asked: Asked, in_lists: int, terms: Terms | None
    ) -> asyncio.Task[Any]:
        """Ask for a command, as `Calls.ask` does, in a task of its own.

        What is wrong with the box is raised at once, here, too.
        """
        box[COMMAND] = call.command
        try:
            loop = asyncio.get_running_loop()
            self._session.calls.check(box, asked)
        except BaseException:
            drop(box)
            raise
        question = _Question(self._session, call, box, asked, in_lists, terms)
        asking = self._ask(question)
        task: asyncio.Task[Any]
        if loop.get_task_factory() is not None:
            task = loop.create_task(asking)
        else:
            task = asyncio.Task(asking, loop=loop, **_EAGERLY)
        self._asking.add(task)
        task.add_done_callback(partial(self._done, question))
        running = current.get()
        if running is not None and running.status is RUNNING:
            running.asks(task)
        return task

    async def _ask(self, question: _Question) -> Any:
        call = question.call
        left = call.remaining()
        if left is None:
            return await self._surround(call, question.proceed)
        question.scope = scope = asyncio.timeout(left)
        try:
            async with scope:
                return await self._surround(call, question.proceed)
        except TimeoutError:
            if scope.expired():
                raise DeadlineExceeded("the timeout passed in an interceptor") from None
            raise

    def _done(self, question: _Question, task: asyncio.Task[Any]) -> None:
        question.forget()  # Not in the task: it may be cancelled before it begins.
        self._asking.discard(task)
        if self._session.watched:
            self._session.moved()

    # --- answering ---

    def begin(self, responder: Responder, box: AmpBox) -> Coroutine[Any, Any, Any]:
        """Return what answers a command; raises as `MethodResponder.begin` does for its arguments."""
        question: Any = box
        proceed: Callable[[], Any] = partial(responder, box)
        if isinstance(responder, MethodResponder):
            question = responder.question(box)
            proceed = partial(responder.run, question)
        return self._answer(question, proceed)

    async def _answer(self, question: Any, begin: Callable[[], Any]) -> Any:
        call = current_call()
        assert call is not None, "this is awaited by the task of a responder"
        call.question = question

        async def proceed() -> Any:
            answer = begin()
            if asyncio.isfuture(answer):
                # Others may await it, too.
                return await asyncio.shield(answer)
            return await answer if is_awaitable(answer) else answer

        return await self._surround(call, proceed)


class _Question:
    """A question that may be asked when its interceptors have proceeded, more than once, or never."""

    __slots__ = (
        "_asked",
        "_box",
        "_in_lists",
        "_open",
        "_sent",
        "_session",
        "_terms",
        "call",
        "scope",
    )

    def __init__(
        self,
        session: Session,
        call: Call,
        box: AmpBox,
        asked: Asked,
        in_lists: int,
        terms: Terms | None,
    ) -> None:
        self.call = call
        #: Ends the interceptors at the deadline, while the question is not open; None without one.
        self.scope: asyncio.Timeout | None = None
        self._terms = terms
        self._open = 0
        self._session = session
        self._box = box
        self._asked = asked
        self._in_lists = in_lists
        self._sent = False

    async def proceed(self) -> Any:
        box = self._box
        if self._sent:
            if carries_descriptors(box):
                raise RuntimeError(
                    f"{self.call!r} has descriptors, which were sent: call proceed() only once"
                )
            box = copy(box)  # The first one may still wait to be sent.
        self._sent = True
        self._open += 1
        self._watch(None)
        try:
            return await self._session.calls.ask(
                self.call.command, box, self._asked, self._in_lists, self._present_terms()
            )
        finally:
            self._open -= 1
            if not self._open and self.scope is not None:
                left = self.call.remaining() or 0.0
                self._watch(asyncio.get_running_loop().time() + left)

    def _watch(self, when: float | None) -> None:
        """End the interceptors then; an open question has a deadline of its own."""
        if self.scope is not None and not self.scope.expired():
            self.scope.reschedule(when)

    def _present_terms(self) -> Terms | None:
        """Return the terms, with the metadata that interceptors have added."""
        given = self._terms
        if given is None and not self.call.metadata:
            return None
        pairs = pairs_of(self.call.metadata, self._session.limits)
        return Terms(None if given is None else given.deadline, pairs)

    def forget(self) -> None:
        """Let go of what was never sent."""
        if not self._sent:
            drop(self._box)
