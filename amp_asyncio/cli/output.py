"""What the program prints, and what it does when the reader has gone."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from .failures import Failure, Status
from .text import printable

__all__ = ["complain", "say", "say_json", "written"]


def say(line: str) -> None:
    """Print a line at once: a reader of a pipe waits for it."""
    if sys.stdout is None:  # It was closed before the program began.
        return
    try:
        print(line, flush=True)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        say(line.encode(encoding, "backslashreplace").decode(encoding))
    except BrokenPipeError:
        _drop_output()
        raise Failure(Status.OUTPUT_CLOSED, "") from None
    except OSError as error:
        _drop_output()
        raise Failure(Status.USAGE, f"cannot write the output: {error.strerror}") from None


def say_json(value: Any) -> None:
    """Print a line of JSON; all of it is ASCII."""
    say(json.dumps(value))


def written(value: Any) -> str:
    """Return a line for a value that JSON has: the text itself, or else JSON."""
    if not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        value = text if text.isprintable() else json.dumps(value)
    return printable(value)


def complain(line: str) -> None:
    """Print an error."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Let Python write what it still has to nowhere, or it would complain when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
