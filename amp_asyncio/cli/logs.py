"""The log, as far as it is printed: errors are told in one line, and not here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["logs"]


@contextmanager
def logs(level: int | None) -> Iterator[None]:
    """Print what is logged at this level or above; None for nothing."""
    handler = logging.NullHandler() if level is None else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("amp_asyncio", "asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        # Without any handler, Python would print warnings.
        logger.addHandler(handler)
    if level is not None:
        loggers[0].setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)
