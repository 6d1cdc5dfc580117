"""Names: what a value is called on the wire, and what it is called in Python."""

from __future__ import annotations

from typing import Final

from ..wire.compiling import caused

__all__ = ["PYTHON_KEYWORDS", "python_name", "wire_name"]

# The words that Twisted capitalises: the keywords of Python 2, and no others. A definition that is
# shared with Twisted must give an argument the same Python name on both sides.
PYTHON_KEYWORDS: Final = frozenset(
    "and assert break class continue def del elif else except exec finally for from global if import "
    "in is lambda not or pass print raise return try while yield".split()
)


def wire_name(name: object, what: str) -> bytes:
    """Return `name`, which is bytes or an ASCII str, as bytes.

    `what` says in errors what is being named. Raises `TypeError` for a name of another type and
    `ValueError` for a str that is not ASCII.
    """
    if isinstance(name, str):
        try:
            return name.encode("ascii")
        except UnicodeEncodeError:
            raise caused(ValueError(f"{what}: a name is ASCII, not {name!r}"), None)
    if isinstance(name, bytes):
        return name
    raise TypeError(f"{what}: a name is bytes or str, not {name!r}")


def python_name(name: bytes) -> str:
    """Return the Python identifier for a name on the wire: `-` becomes `_`, keywords get a capital.

    An `Argument` that overrides `toBox` or `fromBox` finds its value in the objects under this name.
    """
    identifier = name.replace(b"-", b"_").decode("ascii")
    return identifier.title() if identifier in PYTHON_KEYWORDS else identifier
