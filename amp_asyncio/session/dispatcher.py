"""The dispatcher: who asked what, and who is answering whom.

It sits between boxes and people, and knows no bytes, no transport, and none of the commands that
change the connection. Its two halves, `asking.py` and `answering.py`, share nothing but the connection;
what is here takes each box to the half that it belongs to.
"""

from __future__ import annotations

from ..errors import ConnectionLost, NoEmptyBoxes, ProtocolSwitched, shortened
from ..wire.boxes import ANSWER, COMMAND, ERROR, AmpBox, BoxSender
from .answering import Answering

__all__ = ["BoxDispatcher"]


class BoxDispatcher(Answering):
    """Asks, answers, and keeps them apart; `locator` finds the responders."""

    def startReceivingBoxes(self, boxSender: BoxSender) -> None:
        """Take `boxSender` for the way back."""
        self.boxSender = boxSender
        self.limits = self.limits  # Found in the class until now, where it may have to be made first.
        self._by_bytes = getattr(boxSender, "takes_bytes", False)
        self._most_by_bytes = min(self.limits.window, self.limits.max_box_size)

    def ampBoxReceived(self, box: AmpBox) -> None:
        """Take a box to where it belongs.

        Raises `MalformedAmpBox` for an answer to no question and an error without its code, and
        `NoEmptyBoxes` for a box that is neither answer, error nor command.
        """
        if ANSWER in box:
            self._answer_received(box)
        elif ERROR in box:
            self._error_received(box)
        elif COMMAND in box:
            self._command_received(box)
        else:
            raise NoEmptyBoxes(f"neither a command nor an answer nor an error: {shortened(dict(box))}")

    def stopReceivingBoxes(self, reason: BaseException) -> None:
        """Fail every question that has no answer yet, and every later one.

        Responders that run are left to finish; their answers go nowhere if the connection is gone.
        """
        if not isinstance(reason, ConnectionLost | ProtocolSwitched):
            lost = ConnectionLost("the connection was lost")
            lost.__cause__ = reason
            reason = lost
        self._drop_backlog()
        self._give_up_questions(reason)

    def pause_sending(self) -> None:
        """Let the questions wait from now on."""
        self._held = True

    def resume_sending(self) -> None:
        """Send what waited, in order, until there is nothing left or sending pauses again."""
        self._held = False
        self._send_waiting()
        self._begin_waiting()
