"""Receivers: what a connection gives its boxes to.

Usually that is the session of the same object. It may also be a foreign `BoxReceiver`, as Twisted
defines it, or an AMP that overrides what happens to its boxes; `ForeignReceiver` then says to
it what a session would be told.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from ..commands.definitions import ENDING
from ..errors import AmpError, ConnectionLost
from ..wire.boxes import AmpBox, BoxReceiver, BoxSender
from .outlets import Outlet
from .session import Session

__all__ = ["ForeignReceiver", "Receiver"]

logger = logging.getLogger("amp_asyncio")


class Receiver(Protocol):
    """What a connection tells of what happens to it; `Session` says what each of these means."""

    @property
    def is_session(self) -> bool: ...
    @property
    def peer_is_ours(self) -> bool: ...
    def secured(self) -> None: ...
    def start(self, sender: BoxSender, outlet: Outlet) -> None: ...
    def receive(self, box: AmpBox) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    def send_rest(self) -> None: ...
    def is_busy(self) -> bool: ...
    def has_backlog(self) -> bool: ...
    def may_claim(self) -> bool: ...
    def progress(self) -> int: ...
    def peer_finished(self, lost: ConnectionLost) -> None: ...
    def refuse_calls(self) -> None: ...
    async def finish(self) -> bool: ...
    def end(self, reason: AmpError, keep_backlog: bool) -> None: ...
    def forget(self) -> None: ...


class ForeignReceiver:
    """A receiver that tells a `BoxReceiver`; `session` is that of the connection's owner."""

    def __init__(self, receiver: BoxReceiver, session: Session, is_session: bool) -> None:
        self.receiver = receiver
        #: Whether the boxes get to the session after all, by way of the owner's overrides.
        self.is_session = is_session
        self._session = session

    @property
    def peer_is_ours(self) -> bool:
        return self._session.peer_is_ours

    def secured(self) -> None:
        self._session.secured()

    def start(self, sender: BoxSender, outlet: Outlet) -> None:
        self.receiver.startReceivingBoxes(sender)

    def receive(self, box: AmpBox) -> None:
        self.receiver.ampBoxReceived(box)

    def hold(self) -> None:
        self._tell("pause_sending")

    def release(self) -> None:
        self._tell("resume_sending")

    def _tell(self, name: str, *arguments: Any) -> None:
        """Tell the receiver, if it wants to know; an error is its own, and changes nothing here."""
        method: Any = getattr(self.receiver, name, None)
        if method is not None:
            try:
                method(*arguments)
            except ENDING:
                raise
            except BaseException:
                logger.exception("%r: %s() failed", self.receiver, name)

    def send_rest(self) -> None:
        self._session.send_rest()

    def is_busy(self) -> bool:
        return self._session.is_busy()

    def has_backlog(self) -> bool:
        # What a foreign receiver does with a box is unknown.
        return not self.is_session or self._session.has_backlog()

    def may_claim(self) -> bool:
        return True

    def progress(self) -> int:
        return self._session.progress()

    def peer_finished(self, lost: ConnectionLost) -> None:
        self._session.peer_finished(lost)

    def refuse_calls(self) -> None:
        self._session.refuse_calls()

    async def finish(self) -> bool:
        return await self._session.finish()

    def end(self, reason: AmpError, keep_backlog: bool) -> None:
        self._tell("stopReceivingBoxes", reason)
        # An override may leave out `super()`, or fail before it: those who wait are told all the same.
        self._session.end(reason, keep_backlog)

    def forget(self) -> None:
        self._session.forget()
