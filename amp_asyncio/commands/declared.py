"""Declared errors: what a command says of the exceptions that its responders may raise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .definitions import PROTOCOL_ERRORS, Definition
from .names import wire_name
from .scopes import local_names
from .warning import warn_of_name

if TYPE_CHECKING:
    from .command import Command

__all__ = ["declare_errors"]


def declare_errors(command: type[Command[Any]], definition: Definition) -> None:
    """Put the errors of a command, and those that it inherits, into its class and its definition.

    Raises `TypeError` or `ValueError` for what cannot be declared.
    """
    definition.declared = _declared_errors(command)
    merged: dict[type[Exception], tuple[bytes, bool]] = {}
    for base in reversed(command.__mro__):
        known = definition if base is command else vars(base).get("__amp__")
        merged.update(_declared_errors(base) if known is None else known.declared)
    command.errors = {error: code for error, (code, fatal) in merged.items() if not fatal}
    command.fatalErrors = {error: code for error, (code, fatal) in merged.items() if fatal}
    command.allErrors = {error: code for error, (code, _) in merged.items()}
    command.reverseErrors = {code: error for error, code in command.allErrors.items()}
    definition.failures = _failures(command.allErrors, definition)


def _failures(errors: Iterable[type[Exception]], definition: Definition) -> dict[type[Exception], Any]:
    """Return how the fields of those errors are sent that are attrs classes or dataclasses."""
    found: dict[type[Exception], Any] = {}
    for error in errors:
        if hasattr(error, "__attrs_attrs__") or hasattr(error, "__dataclass_fields__"):
            from .failures import Failure

            inherited = [vars(base).get("__amp__") for base in definition.command.__mro__]
            known = [each.failures[error] for each in inherited if each and error in each.failures]
            found[error] = known[0] if known else Failure(error, local_names())
    return found


def _declared_errors(cls: type) -> dict[type[Exception], tuple[bytes, bool]]:
    """Return the errors that a class itself declares: the code of each, and whether it is fatal."""
    declared: dict[type[Exception], tuple[bytes, bool]] = {}
    for attribute, fatal in (("errors", False), ("fatalErrors", True)):
        what = f"{attribute} of the command {cls.__name__}"
        given: Any = vars(cls).get(attribute, {})
        try:
            # Twisted takes a sequence of pairs as well.
            pairs: Iterable[tuple[Any, Any]] = dict(given).items()
        except (TypeError, ValueError):
            raise TypeError(
                f"{what}: a dictionary of exceptions and their codes is needed, such as "
                f"{{ValueError: b'VALUE_ERROR'}}, not {given!r}"
            ) from None
        for error, code in pairs:
            if not (isinstance(error, type) and issubclass(error, Exception)):
                raise TypeError(f"{what}: {error!r} is not a subclass of Exception")
            if issubclass(error, StopIteration):
                raise TypeError(f"{what}: no future can raise {error!r}")
            code = wire_name(code, what)
            if code in PROTOCOL_ERRORS:
                raise ValueError(f"{what}: the code {code!r} is one of AMP's own")
            warn_of_name(code, what, False)
            declared[error] = (code, fatal)
    return declared
