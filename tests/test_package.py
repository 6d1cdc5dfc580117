"""The package: its names, and what it takes to import it."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import amp_asyncio


def test_every_public_name_is_there() -> None:
    assert sorted(amp_asyncio.__all__) == sorted(set(amp_asyncio.__all__))
    for name in amp_asyncio.__all__:
        assert getattr(amp_asyncio, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        amp_asyncio.Nothing  # noqa: B018


def test_help_and_completion_show_every_public_name() -> None:
    assert set(amp_asyncio.__all__) <= set(dir(amp_asyncio))
    shown = pydoc.plain(pydoc.render_doc(amp_asyncio))
    assert [name for name in amp_asyncio.__all__ if name not in shown] == []


def test_dir_imports_nothing() -> None:
    program = "import sys, amp_asyncio; dir(amp_asyncio); print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_version_is_that_of_the_distribution() -> None:
    assert version("amp_asyncio") == amp_asyncio.__version__


def test_compiled_says_whether_the_parser_is() -> None:
    assert amp_asyncio.compiled == (not inspect.isfunction(amp_asyncio.parse))


def test_the_docstring_lists_every_part() -> None:
    folder = Path(amp_asyncio.__file__).parent
    parts = {path.parent.name + "/" for path in folder.glob("*/__init__.py")}
    parts |= {path.name for path in folder.glob("*.py")} - {"__init__.py", "__main__.py"}
    lines = (amp_asyncio.__doc__ or "").splitlines()
    assert len(lines) <= 30
    assert {line.split()[0] for line in lines if line} >= parts


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
