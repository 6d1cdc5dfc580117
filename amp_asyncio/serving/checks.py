"""Checks of what `connect`, `serve` and their like were given, with messages that say what to write."""

from __future__ import annotations

from collections.abc import Container
from ssl import SSLContext

from ..amp import AMP
from ..limits import Limits

__all__ = [
    "check_address",
    "check_argument",
    "check_client",
    "check_factory",
    "check_limits",
    "check_server",
]


def check_argument(signature: str, name: str, value: object, *kinds: type, needed: str) -> None:
    """Raise `TypeError` unless the argument `name` is None or of one of these kinds."""
    if value is not None and not isinstance(value, kinds):
        raise TypeError(f"{signature}: {name} must be {needed}, not {value!r}")


def check_factory(signature: str, factory: object) -> None:
    """Raise `TypeError` unless `factory` may be what makes an AMP for each connection."""
    if issubclass(factory, AMP) if isinstance(factory, type) else callable(factory):
        return
    hint = "; each connection needs its own: pass the class" if isinstance(factory, AMP) else ""
    raise TypeError(
        f"{signature}: protocol_factory must be a subclass of AMP, or a function that returns an "
        f"instance, not {factory!r}{hint}"
    )


def check_limits(signature: str, limits: object) -> None:
    """Raise `TypeError` unless these are limits, or None."""
    check_argument(signature, "limits", limits, Limits, needed="a Limits(...)")


def check_client(
    signature: str, factory: object, limits: object, ssl: object, options: Container[str]
) -> None:
    check_factory(signature, factory)
    check_limits(signature, limits)
    _check_ssl(signature, ssl, SSLContext, bool, server_side=False)
    if "timeout" in options:
        name = signature.partition("(")[0]
        raise TypeError(
            f'{name}() has no timeout: await it inside of "async with asyncio.timeout(...):"'
        )


def check_server(
    signature: str,
    factory: object,
    limits: object,
    ssl: object,
    most: object,
    options: Container[str],
) -> None:
    check_factory(signature, factory)
    check_limits(signature, limits)
    _check_ssl(signature, ssl, SSLContext, server_side=True)
    check_argument(signature, "max_connections", most, int, needed="an int")
    if isinstance(most, int) and most < 1:
        raise ValueError(f"{signature}: max_connections must be positive, not {most!r}")
    if "timeout" in options:
        name = signature.partition("(")[0]
        raise TypeError(f"{name}() has no timeout: those of its connections are in Limits(...)")


def _check_ssl(signature: str, ssl: object, *kinds: type, server_side: bool) -> None:
    needed = "an ssl.SSLContext"
    if hasattr(ssl, "ssl_context"):  # A PrivateCertificate.
        needed += f", such as certificate.ssl_context(server_side={server_side})"
    check_argument(signature, "ssl", ssl, *kinds, needed=needed)


def check_address(signature: str, host: object, port: object, *kinds: type) -> None:
    check_argument(signature, "host", host, str, bytes, *kinds, needed="a str")
    check_argument(signature, "port", port, int, str, needed="an int")
