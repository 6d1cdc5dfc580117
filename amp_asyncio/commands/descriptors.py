"""`Descriptor`: the argument type whose values are descriptors. How they travel is in `exchange.py`."""

from __future__ import annotations

from typing import Any

from .arguments import Integer
from .exchange import claim, give

__all__ = ["Descriptor"]


class Descriptor(Integer):
    """An open file, socket or pipe; the receiver gets its own descriptor for it.

    Only connections made by `unix_connect` and `unix_serve` carry descriptors, and only without TLS.
    On any other connection, and after StartTLS was requested, sending one raises `TypeError`.

    To send one, pass an `int` or an object with a `fileno()`. It is duplicated at once, so the caller
    may close it when `callRemote` has returned. If `callRemote` raises, nothing is sent. The answer of
    a responder is duplicated right after it returns, so `loop.call_soon(file.close)` is safe there. If
    a question is cancelled while it waits to be sent, its descriptors may still be sent; the peer then
    closes them when the connection ends.

    The receiver gets an `int`: a new descriptor that child processes do not inherit. The responder or
    the caller owns it and has to close it; the safest way is to pass it at once to an object that
    closes it, such as `socket.socket(fileno=...)` or `os.fdopen(...)`. If an answer is no
    longer awaited, its descriptors are closed. But if the caller is cancelled in the same turn of the
    event loop in which the future got its result, it has to take the descriptor from the future.

    The value on the wire is the ordinal of the descriptor, counted from 0 in each direction.
    """

    carries_descriptors = True

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        return self.toString(give(inObject, proto))

    def fromStringProto(self, inString: bytes, proto: Any) -> int:
        return claim(self.fromString(inString), proto)
