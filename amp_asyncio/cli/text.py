r"""Bytes as text for a terminal or a command line, and back.

Characters that can be printed stand for themselves, in UTF-8. Everything else is an escape, as in a
literal of Python: `\n`, `\\`, `\xff`. So no text of a peer can move the cursor, and what is shown can
be typed again.
"""

from __future__ import annotations

import re

__all__ = ["MOST", "cut_text", "escaped", "printable", "unescaped"]

#: How many characters of a value are shown, unless everything is asked for.
MOST = 64

_NAMED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BY_NAME = {"\\": b"\\", "n": b"\n", "r": b"\r", "t": b"\t"}
_SPECIAL = re.compile(r"[^ -\[\]-~]")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([\\nrt])|(.?))", re.DOTALL)


def escaped(value: bytes | str) -> str:
    """Return the text for `value`."""
    # Bytes that are not UTF-8 become lone surrogates, which cannot be printed, and back.
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    if text.isprintable() and "\\" not in text:
        return text
    return _SPECIAL.sub(_one, text)


def _one(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable() and character != "\\":
        return character
    if (named := _NAMED.get(character)) is not None:
        return named
    is_byte = "\udc80" <= character <= "\udcff"
    data = character.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in data)


def printable(text: str) -> str:
    """Return `text`, with escapes only if something in it cannot be printed."""
    return text if text.isprintable() else escaped(text)


def unescaped(text: str) -> bytes:
    """Return the bytes that `text` stands for; raise `ValueError` for an escape that does not exist."""
    parts: list[bytes] = []
    position = 0
    for found in _ESCAPE.finditer(text):
        parts.append(_encoded(text[position : found.start()]))
        digits, name, unknown = found.groups()
        if unknown is not None:
            raise ValueError(
                rf"{found[0]} is not an escape: write \\ for a backslash, or \n, \r, \t, \xff"
            )
        parts.append(bytes.fromhex(digits) if digits else _BY_NAME[name])
        position = found.end()
    parts.append(_encoded(text[position:]))
    return b"".join(parts)


def _encoded(text: str) -> bytes:
    # Arguments of a program that are not UTF-8 come as lone surrogates.
    return text.encode("utf-8", "surrogateescape")


def cut_text(value: bytes | str, most: int | None) -> str:
    """Return `value` in quotes, or its first `most` characters and how many bytes it has."""
    if most is None:
        return f'"{escaped(value)}"'
    shown = escaped(value[: most + 1])
    if len(value) <= most and len(shown) <= most:
        return f'"{shown}"'
    size = len(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
    return f'"{_ends_whole(shown[:most])}"... ({size} bytes)'


def _ends_whole(text: str) -> str:
    """Return `text` without an escape that was cut at its end."""
    return re.sub(r"(?<!\\)((?:\\\\)*)\\(x.?)?$", r"\1", text)
