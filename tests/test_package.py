"""The package: its names, and what it takes to import it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import amp_asyncio


def test_every_public_name_is_there() -> None:
    assert sorted(amp_asyncio.__all__) == sorted(set(amp_asyncio.__all__))
    for name in amp_asyncio.__all__:
        assert getattr(amp_asyncio, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        amp_asyncio.Nothing  # noqa: B018


def test_what_is_slow_to_import_waits_until_it_is_used() -> None:
    program = """
import asyncio, sys
before = set(sys.modules)
import amp_asyncio
brought = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(brought & {"attr", "attrs", "cryptography", "datetime", "decimal", "pathlib"}))
amp_asyncio.Certificate
print("cryptography" in sys.modules)
"""
    # Without `site`, and whatever a .pth file there may import.
    path = f"import sys; sys.path[:] = {sys.path!r}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"{path}{program}"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\nTrue\n"
