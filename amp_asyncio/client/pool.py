"""The pool: the connections that may be asked, and the questions that wait for one."""

from __future__ import annotations

import asyncio
from copy import copy

from ..errors import ConnectionLost
from .asking import Question, unsent
from .links import Link
from .policy import Budget, fewest

__all__ = ["Pool"]


class Pool:
    """What a client asks with.

    Attributes:
        links: the connections that are in use.
        over: why no more questions can be asked; None while they can.
        trouble: why the last attempt to connect failed, if none has succeeded since.
    """

    def __init__(self, about: object, patience: float, most: int, budget: Budget) -> None:
        self._about = about
        self._patience = patience
        self._most = most
        self._budget = budget
        self.links: list[Link] = []
        self.over: Exception | None = None
        self.trouble: Exception | None = None
        # In the order in which they were asked.
        self._waiting: dict[Question, None] = {}
        self._turn = 0

    def pick(self) -> Link | None:
        """Return the connection to ask next, or None while the client is not connected."""
        links = self.links
        if not links:
            return None
        # Those that are equal take turns.
        self._turn += 1
        link = fewest(links, self._turn % len(links))
        if not link.may_be_asked:
            # It is lost, or about to close, which its keeper will soon see.
            able = [each for each in links if each.may_be_asked]
            return fewest(able, self._turn % len(able)) if able else None
        return link

    def ask(self, question: Question, link: Link | None) -> asyncio.Future[object]:
        """Ask a question on `link`, or on the next connection that opens, and return its future."""
        self._budget.asked()
        if self.over is not None:
            question.fail(copy(self.over))
        elif link is not None:
            question.send(link)
        else:
            self._wait(question)
        question.future.add_done_callback(question.ended)
        return question.future

    def _wait(self, question: Question) -> None:
        if not question.keeps:
            question.fail(unsent(self._none("and this call has descriptors, which are not kept")))
        elif len(self._waiting) >= self._most:
            question.fail(unsent(self._none(f"and {self._most} calls wait for one"), self.trouble))
        else:
            self._waiting[question] = None
            question.wait(self._patience, self._late)

    def _none(self, more: str) -> str:
        trouble = f" ({type(self.trouble).__name__}: {self.trouble})" if self.trouble else ""
        return f"{self._about!r} has no connection, {more}{trouble}"

    def _late(self, question: Question) -> None:
        del self._waiting[question]
        question.fail(unsent(self._none("and had none within the time of this call"), self.trouble))

    def forget(self, question: Question) -> None:
        """A question that has waited does so no more."""
        self._waiting.pop(question, None)

    def ask_again(self, question: Question, lost: ConnectionLost) -> bool:
        """Ask a question again whose connection was lost; return False if that may not be."""
        left = question.left()
        if self.over is not None or left == 0 or not question.keeps:
            return False
        if lost.sent:
            if not question.idempotent:
                return False
            if not self._budget.take(question.future.get_loop().time()):
                return False
        link = self.pick()
        if link is not None:
            question.send_later(link)
        else:
            self._wait(question)
        return True

    def add(self, link: Link) -> None:
        """Use a connection from now on; the questions that wait are asked."""
        self.links.append(link)
        self.trouble = None
        while self._waiting and (able := self.pick()) is not None:
            question = next(iter(self._waiting))
            del self._waiting[question]
            question.send_later(able)

    def remove(self, link: Link) -> None:
        """Ask nothing more on a connection."""
        self.links.remove(link)

    def end(self, error: Exception) -> None:
        """Fail all questions that wait, and all later ones."""
        self.over = error
        waiting, self._waiting = self._waiting, {}
        for question in waiting:
            question.fail(copy(error))
