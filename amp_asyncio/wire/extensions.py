"""The names that two peers of this package use between each other, on top of AMP.

Other peers ignore keys that they do not know, and answer an unknown command that wants an answer with
an error. A command that wants none goes only to a peer that has announced that it knows it.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

from .boxes import ANSWER, ASK, COMMAND, ERROR

__all__ = [
    "ACCEPT",
    "CANCEL",
    "CANCELLED_ERROR_CODE",
    "COMMANDS",
    "CREDIT",
    "DEADLINE_ERROR_CODE",
    "DESCRIBE",
    "HEALTH",
    "ITEM",
    "LEAVE",
    "METADATA",
    "NOT_SERVING_ERROR_CODE",
    "OFFER",
    "PING",
    "STREAM",
    "TIMEOUT",
    "is_key",
    "take_keys",
]

# Keys of questions. Metadata has a key for each name, which begins so.
OFFER: Final = b"_offer"
TIMEOUT: Final = b"_timeout"
STREAM: Final = b"_stream"
METADATA: Final = b"_m."

# Commands.
ACCEPT: Final = b"_accept"
CANCEL: Final = b"_cancel"
PING: Final = b"_ping"
LEAVE: Final = b"_leave"
HEALTH: Final = b"_health"
DESCRIBE: Final = b"_describe"
ITEM: Final = b"_item"
CREDIT: Final = b"_credit"

COMMANDS: Final = frozenset((ACCEPT, CANCEL, PING, LEAVE, HEALTH, DESCRIBE, ITEM, CREDIT))

# Codes of errors.
CANCELLED_ERROR_CODE: Final = b"_CANCELLED"
DEADLINE_ERROR_CODE: Final = b"_DEADLINE"
NOT_SERVING_ERROR_CODE: Final = b"_NOT_SERVING"

_KEYS: Final = frozenset((OFFER, TIMEOUT, STREAM))

# Most boxes have no other keys that begin so.
_OF_AMP: Final = frozenset((COMMAND, ASK, ANSWER, ERROR))


def is_key(key: bytes) -> bool:
    """Return whether a key of a box is one of these, and not an argument."""
    return key in _KEYS or key.startswith(METADATA)


def take_keys(box: MutableMapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Take these keys out of a box, and return them with their values."""
    found = [key for key in box if key[:1] == b"_" and key not in _OF_AMP and is_key(key)]
    return {key: box.pop(key) for key in found}
