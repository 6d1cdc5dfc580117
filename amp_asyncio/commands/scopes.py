"""Scopes: what the names in an annotation mean.

An annotation may be text: always with `from __future__ import annotations`, and else where it names
what is defined further down. It is evaluated as its class would see it: in its module, in the function
that defines it, in its own body. What a name does not mean yet, it may mean later.
"""

from __future__ import annotations

import inspect
import sys
from collections import ChainMap
from collections.abc import Mapping
from typing import Any, ForwardRef, TypeVar, get_args, get_origin

__all__ = ["Scope", "local_names"]

_PACKAGE = f"{__name__.partition('.')[0]}."


class Scope:
    """Where the annotations of the class `owner` are evaluated.

    `names` are those where a command is defined, see `local_names`: they come first for classes of the
    same module, and last for others. `types` are the arguments of a generic class, by type variables.
    """

    __slots__ = ("names", "owner", "types")

    def __init__(
        self, owner: type, names: Mapping[str, Any], types: Mapping[Any, Any] | None = None
    ) -> None:
        self.owner = owner
        self.names = names
        self.types = types or {}

    def evaluated(self, hint: Any) -> Any:
        """Return what an annotation means; raises `NameError` where a name means nothing yet."""
        while isinstance(hint, str | ForwardRef):
            text = hint if isinstance(hint, str) else hint.__forward_arg__
            module = sys.modules.get(self.owner.__module__)
            around = vars(module) if module is not None else {}
            parameters = getattr(self.owner, "__type_params__", ())
            places: list[Any] = [{each.__name__: each for each in parameters}, around, vars(self.owner)]
            is_here = self.names.get("__name__") == self.owner.__module__
            places.insert(1 if is_here else 3, self.names)
            try:
                hint = eval(text, {}, ChainMap(*places))
            except AttributeError as error:  # A module that is still being imported.
                raise NameError(str(error), name=error.name) from error
        if isinstance(hint, TypeVar):
            return self.types.get(hint, hint)
        return hint

    def of(self, hint: Any) -> Scope:
        """Return the scope of a class, or of a generic class with arguments, that is named here."""
        kind = get_origin(hint) or hint
        parameters = getattr(kind, "__parameters__", ())
        given = [self.evaluated(each) for each in get_args(hint)]
        return Scope(kind, self.names, dict(zip(parameters, given, strict=False)))

    def base(self, name: str) -> Scope:
        """Return the scope of the class that defines the field `name`: `owner`, or a base of it."""
        bases = [base for base in self.owner.__mro__ if name in vars(base).get("__annotations__", {})]
        if not bases or bases[0] is self.owner:
            return self
        return Scope(bases[0], self.names, self._types_of(self.owner, bases[0], self.types))

    def _types_of(self, owner: type, base: type, types: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """Return the arguments that `owner` gives to a generic class that it derives from."""
        hints = vars(owner).get("__orig_bases__", owner.__bases__)
        hint = next(each for each in hints if issubclass(get_origin(each) or each, base))
        kind = get_origin(hint) or hint
        given = [types.get(each, each) for each in get_args(hint)]
        inner = dict(zip(getattr(kind, "__parameters__", ()), given, strict=False))
        return inner if kind is base else self._types_of(kind, base, inner)


def local_names() -> ChainMap[str, Any]:
    """Return the names in the functions and classes around a definition, and then in its module.

    What is being defined is defined by the first caller outside of this package, with the methods
    `__init_subclass__` left out that may be between.
    """
    frame = inspect.currentframe()
    while frame is not None and (
        frame.f_code.co_name == "__init_subclass__"
        or frame.f_globals.get("__name__", "").startswith(_PACKAGE)
    ):
        frame = frame.f_back
    names: dict[str, Any] = {}
    module = {} if frame is None else frame.f_globals
    while frame is not None and frame.f_locals is not frame.f_globals:
        for name, value in frame.f_locals.items():
            names.setdefault(name, value)
        inner, within = frame, frame.f_code.co_qualname
        frame = inner.f_back
        # Only what is around the definition in the source, as long as it is being executed.
        while frame is not None and not (
            frame.f_globals is inner.f_globals and within.startswith(f"{frame.f_code.co_qualname}.")
        ):
            frame = frame.f_back
    return ChainMap(names, module)
