"""The log: what a peer's text looks like in it, and how many lines a peer can cause.

Whatever is logged to `amp_asyncio`, text that may be a peer's has no newlines and no escape sequences
in it, and only so many characters: neither a line nor a terminal can be forged. Lines that a peer
causes go through `Lines`, which leaves out those that are too many, and says how many these were.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from traceback import format_tb
from typing import Any

from .errors import cut

__all__ = ["Lines", "escaped", "logger"]

logger = logging.getLogger("amp_asyncio")

# How many exceptions of a chain, or of a group, are described.
_MOST_LINKED = 10

# The longest text that is not an error's: a box at DEBUG, whose values are shortened, is longer.
_LONGEST = 4000


def escaped(text: str) -> str:
    """Return `text` without anything that cannot be printed, and not longer than an error may be."""
    text = cut(text)
    return text if text.isprintable() else repr(text)[1:-1]


class Lines:
    """The log lines that one peer, or all clients of one server, can cause.

    It allows `at_once` of them, and `per_second` after that. They also count as those of `whole`, of
    which this is a part. In each call, the first of the arguments is what the line is about.
    """

    __slots__ = ("_at_once", "_left", "_left_out", "_per_second", "_then", "_whole")

    def __init__(
        self, whole: Lines | None = None, *, at_once: float = 20, per_second: float = 2
    ) -> None:
        self._whole = whole
        self._at_once = self._left = at_once
        self._per_second = per_second
        self._then = time.monotonic()
        self._left_out = 0

    def warning(self, message: str, about: object, *arguments: object) -> None:
        """Log a warning, unless the limit of lines is reached."""
        if self._may(about):
            logger.warning(message, about, *arguments, stacklevel=2)

    def error(
        self, message: str, about: object, *arguments: object, error: BaseException | None = None
    ) -> None:
        """Log an error, with the traceback of `error`, unless the limit of lines is reached."""
        if self._may(about):
            logger.error(message, about, *arguments, exc_info=error, stacklevel=2)

    def _may(self, about: object) -> bool:
        if not self._takes_one():
            self._left_out += 1
            return False
        self.end(about)
        return True

    def _takes_one(self) -> bool:
        now = time.monotonic()
        self._left = min(self._at_once, self._left + (now - self._then) * self._per_second)
        self._then = now
        if self._left < 1 or (self._whole is not None and not self._whole._takes_one()):
            return False
        self._left -= 1
        return True

    def end(self, about: object) -> None:
        """Log how many lines were left out since the last such line, if any."""
        count, self._left_out = self._left_out, 0
        whole = self._whole
        if whole is not None and (count or whole._left_out):
            # This line counts, too: each connection that caused too many adds one.
            whole._left_out += count
            count = 0
            if whole._takes_one():
                count, whole._left_out = whole._left_out, 0
        if count:
            logger.warning("%r: %d lines before this one were left out", about, count)


def _make_safe(record: logging.LogRecord) -> bool:
    """Escape what may be a peer's text in a record; it is never left out here."""
    if isinstance(record.args, tuple):
        record.args = tuple(map(_safe, record.args))
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and not record.exc_text:
        # Formatters use this text, if it is set, instead of formatting `exc_info`.
        record.exc_text = "\n".join(_described(error, set()))
    return True


def _safe(argument: Any) -> Any:
    if isinstance(argument, str):
        text = argument[:_LONGEST]
        return text if text.isprintable() else repr(text)[1:-1]
    if isinstance(argument, BaseException):
        return escaped(_text(argument))
    return argument


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<its str() failed>"


def _described(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Yield the lines of a traceback as Python prints it, with the texts of the errors escaped."""
    seen.add(id(error))
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None and id(earlier) not in seen and len(seen) < _MOST_LINKED:
        yield from _described(earlier, seen)
        yield "\nThis was followed by:\n"
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):"
        for entry in format_tb(error.__traceback__):
            yield entry.rstrip("\n")
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    yield f"{module}{kind.__qualname__}: {escaped(_text(error))}"
    for note in getattr(error, "__notes__", ()):
        yield escaped(str(note))
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            if len(seen) < _MOST_LINKED:
                for line in _described(each, seen):
                    yield f"  | {line}"


logger.addFilter(_make_safe)
