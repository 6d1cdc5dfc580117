r"""Recorded bytes as people have them: raw, in hexadecimal digits, as a dump, or as Python prints them.

Bytes that are AMP contain zeros, and text does not, so that these can be told apart.
"""

from __future__ import annotations

import ast
import re
import sys

from .failures import Failure, Status

__all__ = ["read_bytes", "recorded"]

# What may stand between the digits.
_BETWEEN = re.compile(r"0x|\\x|[\s:,-]", re.IGNORECASE)

# A line of a dump: by xxd, or by hexdump -C, whose last line has nothing but the offset.
_DUMPS = (
    re.compile(r"[0-9a-f]{4,}: (?P<digits>(?:[0-9a-f]+ )+) .*", re.IGNORECASE),
    re.compile(r"[0-9a-f]{7,}(?P<digits>(?:  ?[0-9a-f]{2})*) *(?:\|.*\|)?", re.IGNORECASE),
)


def read_bytes(name: str) -> bytes:
    """Return what is in a file, or for `-` in stdin."""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        with open(name, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Failure(Status.USAGE, f"cannot read {name}: {why}") from None


def recorded(given: bytes, kind: str | None) -> bytes:
    """Return the bytes that `given` stands for; `kind` is "raw" or "hex", or None to find out."""
    if kind == "raw" or (kind is None and (not given.isascii() or b"\0" in given)):
        return given
    text = given.decode("ascii", "replace").strip()
    for read in (_literals, _dump, _digits):
        if (data := read(text)) is not None:
            return data
    if kind == "hex":
        raise Failure(Status.USAGE, "these are not hexadecimal digits in pairs")
    return given


def _literals(text: str) -> bytes | None:
    """Return the bytes of lines like `b'\\x00'`."""
    if text[:2] not in ("b'", 'b"'):
        return None
    try:
        found = [ast.literal_eval(line.strip()) for line in text.splitlines() if line.strip()]
        return b"".join(found)
    except (SyntaxError, ValueError, TypeError):
        return None


def _dump(text: str) -> bytes | None:
    lines = text.splitlines()
    for form in _DUMPS:
        found = [form.fullmatch(line) for line in lines if line != "*"]
        if len(found) > 1 or (found and form is _DUMPS[0]):
            digits = [match["digits"] for match in found if match is not None]
            if len(digits) == len(found):
                if len(lines) > len(found):
                    raise Failure(
                        Status.USAGE,
                        "the dump leaves out lines that repeat (*): make it with hexdump -v -C, or xxd",
                    )
                return _digits("".join(digits))
    return None


def _digits(text: str) -> bytes | None:
    digits = _BETWEEN.sub("", text)
    try:
        return bytes.fromhex(digits) if digits else None
    except ValueError:
        return None
