"""The base class of the argument types: how a Python value becomes the bytes of a box, and back.

`Argument` has three layers of hooks. A subclass overrides the lowest layer that is sufficient:

- `fromString` and `toString` convert between bytes and a value;
- `fromStringProto` and `toStringProto` do the same, and also get the connection;
- `fromBox` and `toBox` get the whole box and all the objects, so that one argument may use several
  keys, or none.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from .schemas import python_name

__all__ = ["Argument"]

# The hooks above `toString` and `fromString`.
_HOOKS = ("retrieve", "toBox", "fromBox", "toStringProto", "fromStringProto")


class Argument:
    """The base class of the argument types.

    In every hook, `proto` is the `AMP` or the locator that handles the box, or None.

    An `optional` argument may be left out or be None, which means the same: nothing is sent for it,
    and the receiver gets None.
    """

    optional = False
    #: Whether values of this type contain descriptors; a type that is made of others must set it.
    carries_descriptors = False
    #: Whether a value may use additional keys, which are the name, a dot and a number.
    in_pieces = False
    #: Whether a value consists of many objects. The argument then has `elements_cost(inString, most)`,
    #: which returns what these count against the limits beyond their bytes. It may stop at more than
    #: `most`, and what does not parse need not be counted.
    is_list = False

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional

    def __repr__(self) -> str:
        return self._described()

    def _described(self, *made_of: object) -> str:
        """Return what makes an argument like this one; `made_of` is what it is made of."""
        parts = [*map(repr, made_of), *(["optional=True"] if self.optional else [])]
        return f"{type(self).__name__}({', '.join(parts)})"

    def retrieve(self, d: MutableMapping[Any, Any], name: Any, proto: Any) -> Any:
        """Remove `name` from `d` and return its value, or None if it is absent and optional.

        Raises `KeyError` if it is absent and not optional.
        """
        return d.pop(name, None) if self.optional else d.pop(name)

    def fromBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        """Remove this argument's keys from `strings`, and put its value into `objects`.

        `name` is the name on the wire; the key in `objects` is the Python identifier for it. Any
        exception raised here means that the command or the answer does not parse.
        """
        identifier = python_name(name)
        string = self.retrieve(strings, name, proto)
        if self.optional and string is None:
            objects[identifier] = None
        else:
            objects[identifier] = self.fromStringProto(string, proto)

    def toBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        """Remove this argument's value from `objects`, and put its bytes into `strings`.

        Any exception raised here means that the value cannot be encoded.
        """
        value = self.retrieve(objects, python_name(name), proto)
        if value is not None or not self.optional:
            strings[name] = self.toStringProto(value, proto)

    def _plain_hooks(self) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]] | None:
        """Return `toString` and `fromString`, or None if a subclass overrides a hook above these.

        A schema calls these two directly, because the layers above cost three calls for each value.
        """
        for hook in _HOOKS:
            if getattr(getattr(self, hook), "__func__", None) is not getattr(Argument, hook):
                return None
        return self.toString, self.fromString

    def fromStringProto(self, inString: bytes, proto: Any) -> Any:
        """Return the value of `inString`, which was received by `proto`."""
        return self.fromString(inString)

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        """Return the bytes for `inObject`, which `proto` is about to send."""
        return self.toString(inObject)

    def fromString(self, inString: bytes) -> Any:
        """Return the value of `inString`; raise `ValueError` if it has none."""
        # Not abstract: a subclass that overrides a hook above this one does not need it.
        raise NotImplementedError(f"{type(self).__name__} does not define fromString")

    def toString(self, inObject: Any) -> bytes:
        """Return the bytes for `inObject`; raise `TypeError` or `ValueError` if it has none."""
        # Not abstract: a subclass that overrides a hook above this one does not need it.
        raise NotImplementedError(f"{type(self).__name__} does not define toString")
