"""How the command line ends: the exit statuses, and the errors that lead to them."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Failure", "Status"]


class Status(IntEnum):
    """The exit statuses."""

    DONE = 0
    #: The peer answered with an error, or does not serve; the bytes are not AMP.
    REFUSED = 1
    #: The command line, a file or a module is wrong, or a value does not fit its argument.
    USAGE = 2
    #: The connection could not be made, was lost, or leads to something that is not AMP.
    CONNECTION = 3
    #: The timeout passed.
    TIMEOUT = 4
    #: Ctrl-C, as a shell reports it.
    INTERRUPTED = 130
    #: The reader of the output has gone; a shell reports it in this way.
    OUTPUT_CLOSED = 141


class Failure(Exception):
    """Ends the program with one line, and with `status`.

    `code` is that of an error that the peer has sent.
    """

    def __init__(self, status: Status, text: str, code: str | None = None) -> None:
        super().__init__(status, text, code)
        self.status = status
        self.text = text
        self.code = code

    def __str__(self) -> str:
        return self.text if self.code is None else f"{self.code}: {self.text}"
