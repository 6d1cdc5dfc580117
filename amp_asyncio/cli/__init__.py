"""The command line: `python -m amp_asyncio`, or `amp-asyncio`.

`options.py` says what can be asked for, and each subcommand has a module. All of them end with one of
the statuses of `failures.py`, and say in one line what went wrong.
"""

from .main import main

__all__ = ["main"]
